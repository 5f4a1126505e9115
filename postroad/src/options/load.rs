//! From a TOML file, `--set` and `--data` to checked [`Settings`], or to every problem that there is.
//!
//! Later sources win: defaults, file, `--data`, `--set`. Unknown keys fail with the nearest known one.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use postroad_control::Tokens;
use postroad_engine::Engine;
use postroad_engine::config::{Listener, ListenerProtocol, Shards};

use super::{Anonymous, ListenerTable, Protocol, ROWS, Row, Settings, retry_topic, row};

/// Where settings come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file; `None`: defaults.
    pub file: Option<PathBuf>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--set key=value`, in order.
    pub sets: Vec<String>,
}

/// Everything that is wrong, one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The lines.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads all sources and checks the whole.
///
/// # Errors
/// Every problem found; nothing is half applied.
pub fn load(sources: &Sources) -> Result<Settings, ConfigError> {
    let mut loader = Loader { settings: Settings::default(), said: HashSet::new(), problems: Vec::new() };
    if let Some(path) = &sources.file {
        loader.file(path);
    }
    if let Some(data) = &sources.data {
        loader.settings.engine.data_dir.clone_from(data);
    }
    for set in &sources.sets {
        loader.set(set);
    }
    loader.finish()
}

struct Loader {
    settings: Settings,
    /// Keys that somebody set: a shorthand's default gives way to a `[[listener]]`, a said one does not.
    said: HashSet<&'static str>,
    problems: Vec<String>,
}

impl Loader {
    fn file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.problems.push(format!("can't read {origin}: {error}")),
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.table(&origin, "", table),
            Err(error) => self.problems.push(format!("{origin}: {error}")),
        }
    }

    /// Walks nested tables down to the dotted keys of the option table.
    fn table(&mut self, origin: &str, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Array(entries) if key == "listener" => self.listeners(origin, entries),
                toml::Value::Table(_) if key == "listener" => {
                    self.problems.push(format!("{origin}: a listener is written with two brackets: [[listener]]"));
                }
                toml::Value::Array(entries) if key == "retry.topic" => self.retry_topics(origin, entries),
                toml::Value::Table(_) if key == "retry.topic" => {
                    self.problems
                        .push(format!("{origin}: a retry.topic is written with two brackets: [[retry.topic]]"));
                }
                toml::Value::Table(inner) if row(&key).is_none() => self.section(origin, &key, inner),
                value => self.value(origin, &key, &value),
            }
        }
    }

    fn section(&mut self, origin: &str, key: &str, inner: toml::Table) {
        let prefix = format!("{key}.");
        if ROWS.iter().any(|row| row.key.starts_with(&prefix)) {
            self.table(origin, &prefix, inner);
        } else {
            self.problems.push(format!("{origin}: unknown table [{key}]{}", did_you_mean(key, sections())));
        }
    }

    fn value(&mut self, origin: &str, key: &str, value: &toml::Value) {
        match row(key) {
            None => self.unknown(origin, key),
            Some(row) => match row.kind.read(value) {
                Ok(value) => self.put(row, &value),
                Err(allowed) => self.problems.push(format!("{origin}: {key} = {value}: must be {allowed}")),
            },
        }
    }

    fn set(&mut self, text: &str) {
        let Some((key, value)) = text.split_once('=') else {
            return self.problems.push(format!("--set {text}: must be key=value"));
        };
        match row(key.trim()) {
            None => self.unknown("--set", key.trim()),
            Some(row) => match row.kind.parse(value.trim()) {
                Ok(value) => self.put(row, &value),
                Err(allowed) => self.problems.push(format!("--set {text}: {key} must be {allowed}")),
            },
        }
    }

    fn put(&mut self, row: &'static Row, value: &super::Value) {
        (row.set)(&mut self.settings, value);
        self.said.insert(row.key);
    }

    fn unknown(&mut self, origin: &str, key: &str) {
        let keys = ROWS.iter().map(|row| row.key.to_owned());
        self.problems.push(format!("{origin}: unknown key {key}{}", did_you_mean(key, keys)));
    }

    fn listeners(&mut self, origin: &str, entries: Vec<toml::Value>) {
        for (index, entry) in entries.into_iter().enumerate() {
            let origin = format!("{origin}: [[listener]] number {}", index + 1);
            match listener(entry) {
                Ok(listener) => self.settings.tables.push(listener),
                Err(problem) => self.problems.push(format!("{origin}: {problem}")),
            }
        }
    }

    fn retry_topics(&mut self, origin: &str, entries: Vec<toml::Value>) {
        for (index, entry) in entries.into_iter().enumerate() {
            match retry_topic::parse(entry) {
                Ok(topic) => self.settings.engine.retry_topics.push(topic),
                Err(problem) => {
                    self.problems.push(format!("{origin}: [[retry.topic]] number {}: {problem}", index + 1));
                }
            }
        }
    }

    fn finish(mut self) -> Result<Settings, ConfigError> {
        self.not_yet();
        let listeners = self.all_listeners();
        self.check_listeners(&listeners);
        self.check_together();
        self.check_files();
        self.settings.engine.listeners.clear();
        for listener in listeners {
            match listener.protocol {
                Protocol::Mqtt | Protocol::Frames => self.settings.engine.listeners.push(engine_listener(listener)),
                Protocol::Http => self.settings.http.push(listener),
                Protocol::Grpc => self.settings.grpc.push(listener),
            }
        }
        self.settings.engine.allow_anonymous = allow_anonymous(&self.settings);
        self.problems.extend(open_doors(&self.settings));
        if self.problems.is_empty() { Ok(self.settings) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// Keys that exist so that files need not change later. Ignoring them would be worse than refusing.
    fn not_yet(&mut self) {
        let keys = ["listen.websocket", "listen.native"];
        for row in keys.into_iter().filter_map(row) {
            let value = (row.get)(&self.settings);
            if value != row.default() {
                let value = row.kind.toml(&value);
                self.problems.push(format!("{} = {value}: not in this version yet; leave it empty", row.key));
            }
        }
    }

    fn all_listeners(&self) -> Vec<ListenerTable> {
        let shorthands = self.settings.shorthands;
        let given = [
            ("listen.mqtt", Protocol::Mqtt, shorthands.mqtt),
            ("listen.http", Protocol::Http, shorthands.http),
            ("listen.grpc", Protocol::Grpc, shorthands.grpc),
        ];
        let tables = &self.settings.tables;
        let short = given.into_iter().filter_map(|(key, protocol, address)| {
            let replaced = !self.said.contains(key) && tables.iter().any(|table| table.protocol == protocol);
            let address = address.filter(|_| !replaced)?;
            Some(ListenerTable { name: protocol.name().to_owned(), address, protocol, codec: None })
        });
        short.chain(tables.iter().cloned()).collect()
    }

    fn check_listeners(&mut self, listeners: &[ListenerTable]) {
        let mut names = HashSet::new();
        let mut addresses = HashSet::new();
        for ListenerTable { name, address, .. } in listeners {
            if !names.insert(name.as_str()) {
                self.problems.push(format!("two listeners are named {name:?}: give each a name of its own"));
            }
            if address.port() != 0 && !addresses.insert(*address) {
                self.problems.push(format!("two listeners want {address}: give each an address of its own"));
            }
        }
    }

    fn check_together(&mut self) {
        let engine = &self.settings.engine;
        if let Shards::Count(shards) = engine.shards
            && shards > engine.partitions
        {
            let partitions = engine.partitions;
            self.problems.push(format!("shards = {shards}: must be at most storage.partitions = {partitions}"));
        }
        let log = &engine.log;
        if log.young_bytes < 2 * log.segment_bytes {
            let (young, segment) = (log.young_bytes, log.segment_bytes);
            self.problems
                .push(format!("log.young_bytes = {young}: must be at least twice log.segment_bytes = {segment}"));
        }
        let retry = &engine.retry;
        for (min, max, name) in [
            (retry.backoff_min, retry.backoff_max, "retry.backoff"),
            (retry.ack_timeout_min, retry.ack_timeout_max, "retry.ack_timeout"),
        ] {
            if min > max {
                self.problems.push(format!("{name}_min must be at most {name}_max: {min:?} is above {max:?}"));
            }
        }
        if engine.data_dir.as_os_str().is_empty() {
            self.problems.push("data_dir is empty: name a directory".to_owned());
        }
    }

    /// `auth.file`, `acl.file` and `api.tokens_file`, as they would be read.
    fn check_files(&mut self) {
        if let Some(Err(error)) = self.settings.tokens_file.as_deref().map(Tokens::load) {
            self.problems.push(error.to_string());
        }
        if let Err(error) = Engine::check(&self.settings.engine) {
            self.problems.push(error.to_string());
        }
    }
}

fn engine_listener(table: ListenerTable) -> Listener {
    let protocol = table.codec.map_or(ListenerProtocol::Mqtt, |codec| ListenerProtocol::Frames { codec });
    Listener { name: table.name, address: table.address, protocol }
}

fn allow_anonymous(settings: &Settings) -> bool {
    match settings.anonymous {
        Anonymous::Allow => true,
        Anonymous::Deny => false,
        Anonymous::Auto => settings.engine.auth_file.is_none(),
    }
}

/// Listeners that other machines can reach although nobody has to say who it is.
pub(super) fn open_doors(settings: &Settings) -> Vec<String> {
    if settings.engine.auth_file.is_some() {
        return Vec::new();
    }
    let mqtt = settings.engine.listeners.iter().map(|listener| (&listener.name, &listener.address));
    let control = settings.http.iter().chain(&settings.grpc).filter(|_| settings.tokens_file.is_none());
    let control = control.map(|listener| (&listener.name, &listener.address));
    let reachable = mqtt.chain(control).filter(|(_, address)| !is_loopback(address));
    reachable.map(|(name, address)| reachable_without_auth(name, address)).collect()
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn reachable_without_auth(name: &str, address: &SocketAddr) -> String {
    format!(
        "listener {name:?} on {address} can be reached from other machines, but there is no auth.file: anybody could \
         publish and subscribe. Make one (postroad passwd --file auth.toml NAME) and set auth.file, or listen on \
         127.0.0.1. To let everybody in on purpose, set auth.file and auth.anonymous = \"allow\""
    )
}

/// Understands one `[[listener]]`.
fn listener(entry: toml::Value) -> Result<ListenerTable, String> {
    const KEYS: [&str; 5] = ["name", "address", "protocol", "codec", "framing"];
    const TLS_KEYS: [&str; 4] = ["tls", "tls_certificate", "tls_key", "tls_client_ca"];
    let toml::Value::Table(table) = entry else {
        return Err("must be a table".into());
    };
    for key in table.keys() {
        if TLS_KEYS.contains(&key.as_str()) {
            return Err(format!("{key}: TLS is not in this version yet"));
        }
        if !KEYS.contains(&key.as_str()) {
            return Err(format!("unknown key {key}{}", did_you_mean(key, KEYS.map(str::to_owned))));
        }
    }
    let text = |key: &str| match table.get(key) {
        Some(toml::Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(format!("{key} = {other}: must be a text")),
        None => Ok(None),
    };
    let codec = text("codec")?.map(str::to_owned);
    let protocol = match text("protocol")? {
        Some(name) => protocol(name)?,
        None if codec.is_some() => Protocol::Frames,
        None => Protocol::Mqtt,
    };
    match (&codec, protocol) {
        (Some(codec), Protocol::Frames) if !is_codec_name(codec) => {
            return Err(format!("codec = {codec:?}: must be small letters, digits, '-' and '_'"));
        }
        (None, Protocol::Frames) => return Err("codec is missing: name what reads and writes the frames".into()),
        (Some(codec), Protocol::Mqtt | Protocol::Http | Protocol::Grpc) => {
            return Err(format!("codec = {codec:?}: only protocol \"frames\" has one, not {:?}", protocol.name()));
        }
        _ => {}
    }
    if let Some(framing) = text("framing")?.filter(|framing| *framing != "stream") {
        return Err(format!("framing = {framing:?}: must be \"stream\"; others come with the native protocol"));
    }
    let address = text("address")?.ok_or("address is missing: write address = \"127.0.0.1:1883\" or the like")?;
    let parsed = address.parse().map_err(|_| format!("address = {address:?}: must be an address and port"))?;
    let name = text("name")?.ok_or("name is missing: it appears in logs, metrics and ports.json")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(format!("name = {name:?}: must be letters, digits, '-', '_' and '.'"));
    }
    Ok(ListenerTable { name: name.to_owned(), address: parsed, protocol, codec })
}

fn is_codec_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "mqtt" => Ok(Protocol::Mqtt),
        "http" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        "frames" => Ok(Protocol::Frames),
        "websocket" | "native" => Err(format!("protocol = {name:?}: not in this version yet")),
        _ => Err(format!("protocol = {name:?}: must be \"mqtt\", \"frames\", \"http\" or \"grpc\"")),
    }
}

fn sections() -> impl Iterator<Item = String> {
    ROWS.iter().filter_map(|row| row.key.split_once('.')).map(|(section, _)| section.to_owned())
}

/// `; did you mean …?` if a known key is near.
pub(super) fn did_you_mean(key: &str, known: impl IntoIterator<Item = String>) -> String {
    let nearest = known.into_iter().min_by_key(|known| distance(key, known));
    match nearest {
        Some(nearest) if distance(key, &nearest) <= 3.max(key.len() / 3) => format!("; did you mean {nearest}?"),
        _ => "; postroad check-config --print lists all keys".to_owned(),
    }
}

/// Edits (insert, delete, replace a character) between two texts.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Settings, ConfigError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("p.toml");
        std::fs::write(&file, text).expect("writable");
        load(&Sources { file: Some(file), ..Sources::default() })
    }

    fn problem(text: &str) -> String {
        from_file(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_file_is_understood_with_tables_and_dotted_keys() {
        let settings = from_file("shards = 2\nmqtt.receive_maximum = 9\n[queue]\nbytes_max = \"2MiB\"").expect("valid");
        assert_eq!(settings.engine.shards.count(1), 2);
        assert_eq!(settings.engine.mqtt.receive_maximum.get(), 9);
        assert_eq!(settings.engine.queue.bytes_max, 2 << 20);
    }

    #[test]
    fn problems_name_file_key_and_range_and_come_all_at_once() {
        let text = problem("shards = 0\n[mqtt]\nrecieve_maximum = 3\nreceive_maximum = 70000\n[ques]\na = 1");
        for words in [
            "p.toml: shards = 0: must be \"auto\", or 1 to 1024",
            "p.toml: unknown key mqtt.recieve_maximum; did you mean mqtt.receive_maximum?",
            "p.toml: mqtt.receive_maximum = 70000: must be 1 to 65535 messages",
            "p.toml: unknown table [ques]; did you mean queue?",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_later_source_wins() {
        let sources = Sources {
            file: None,
            data: Some("/d1".into()),
            sets: vec!["queue.messages_max=5".into(), "queue.messages_max=6".into()],
        };
        let settings = load(&sources).expect("valid");
        assert_eq!(settings.engine.queue.messages_max, 6);
        assert_eq!(settings.engine.data_dir, Path::new("/d1"));
    }

    #[test]
    fn listener_tables_replace_the_default_shorthand_but_not_a_said_one() {
        let table = "[[listener]]\nname = \"inner\"\naddress = \"127.0.0.1:7000\"\nprotocol = \"mqtt\"\n";
        let names = |settings: &Settings| -> Vec<String> {
            settings.engine.listeners.iter().map(|listener| listener.name.clone()).collect()
        };
        assert_eq!(names(&from_file(table).expect("valid")), ["inner"]);
        let both = format!("listen.mqtt = \"127.0.0.1:0\"\n{table}");
        assert_eq!(names(&from_file(&both).expect("valid")), ["mqtt", "inner"]);
        assert_eq!(from_file("listen.mqtt = \"\"").expect("valid").engine.listeners, []);
    }

    #[test]
    fn topics_have_a_retry_of_their_own_in_their_order() {
        let text = "[retry]\nimmediate = 1\n[[retry.topic]]\nfilter = \"b\"\n[[retry.topic]]\nfilter = \"a/#\"\nmax_attempts = 3\n";
        let settings = from_file(text).expect("valid");
        let filters: Vec<_> = settings.engine.retry_topics.iter().map(|topic| topic.filter.as_str()).collect();
        assert_eq!((filters, settings.engine.retry.immediate), (vec!["b", "a/#"], 1));
        assert_eq!(settings.engine.retry_topics[1].max_attempts, Some(3));
        let said = problem("[[retry.topic]]\nfilter = \"a\"\n[[retry.topic]]\nfiler = \"a\"\n");
        assert!(said.contains("p.toml: [[retry.topic]] number 2: filter is missing"), "{said}");
        assert!(problem("[retry.topic]\nfilter = \"a\"").contains("two brackets"));
    }

    #[test]
    fn bad_listeners_are_explained() {
        let table = |rest: &str| format!("[[listener]]\nname = \"x\"\naddress = \"127.0.0.1:1\"\n{rest}");
        for (text, words) in [
            (table("protocol = \"websocket\""), "not in this version yet"),
            (table("tls_key = \"k\""), "TLS is not in this version yet"),
            (table("framing = \"delimited\""), "native protocol"),
            (table("adress = \"y\""), "did you mean address?"),
            (format!("{}\n{}", table(""), table("")), "two listeners are named"),
            ("[[listener]]\nname = \"x\"".into(), "address is missing"),
            ("[listener]\nname = \"x\"".into(), "two brackets"),
            (table("protocol = \"frames\""), "codec is missing"),
            (table("protocol = \"mqtt\"\ncodec = \"gt06\""), "only protocol \"frames\" has one, not \"mqtt\""),
            (table("codec = \"GT\""), "must be small letters"),
            (table("protocol = \"amqp\""), "must be \"mqtt\", \"frames\", \"http\" or \"grpc\""),
            ("listen.websocket = \"127.0.0.1:8083\"".into(), "listen.websocket = \"127.0.0.1:8083\": not in this"),
        ] {
            let said = problem(&text);
            assert!(said.contains(words), "{text}\ngave {said:?} without {words:?}");
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_an_auth_file() {
        for address in ["0.0.0.0:1883", "[::]:1883", "192.0.2.1:1883"] {
            let said = problem(&format!("listen.mqtt = \"{address}\""));
            assert!(said.contains("no auth.file") && said.contains("postroad passwd"), "{said}");
        }
        for address in ["127.0.0.1:1883", "127.8.8.8:1", "[::1]:1883", "[::ffff:127.0.0.1]:1883"] {
            assert!(from_file(&format!("listen.mqtt = \"{address}\"")).is_ok(), "{address}");
        }
        for api in ["listen.grpc = \"0.0.0.0:50051\"", "listen.http = \"0.0.0.0:8080\""] {
            assert!(problem(api).contains("no auth.file"), "{api}");
        }
        let grpc = "[[listener]]\nname = \"inner\"\naddress = \"127.0.0.1:7000\"\nprotocol = \"grpc\"\n";
        let here = from_file(&format!("listen.grpc = \"127.0.0.1:50051\"\n{grpc}")).expect("valid");
        assert_eq!(here.grpc.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>(), ["grpc", "inner"]);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let auth = directory.path().join("auth.toml");
        std::fs::write(&auth, "").expect("writable");
        let auth = toml::Value::String(auth.to_string_lossy().into_owned());
        let open = from_file(&format!("listen.mqtt = \"0.0.0.0:1883\"\nauth.file = {auth}")).expect("valid");
        assert!(!open.engine.allow_anonymous, "auto: with an auth.file, nobody comes in without a name");
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        assert!(problem("shards = 9\nstorage.partitions = 8").contains("at most storage.partitions = 8"));
        assert!(problem("retry.backoff_min = \"10m\"").contains("retry.backoff_min must be at most"));
        assert!(problem("retry.ack_timeout_max = \"1s\"").contains("retry.ack_timeout_min must be at most"));
        assert!(problem("log.segment_bytes = \"1GiB\"").contains("at least twice"));
        assert!(problem("auth.file = \"/nowhere/x\"").contains("/nowhere/x"));
        assert!(problem("acl.file = \"/nowhere/y\"").contains("/nowhere/y"));
    }

    #[test]
    fn near_keys_are_found() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(did_you_mean("durabilty", ["durability".to_owned()]), "; did you mean durability?");
        assert!(did_you_mean("zzzzzz", ["durability".to_owned()]).contains("check-config --print"));
    }
}
