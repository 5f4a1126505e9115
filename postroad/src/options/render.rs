//! The texts that are made from the table: the commented configuration, the reference, the manual page.
//! What is in the repository of them is compared with these functions by a test.

use std::fmt::Write;

use super::{Effect, Kind, ROWS, Row, Settings, retry_topic};

const WIDTH: usize = 100;

/// The whole configuration of `settings`, commented, as a file that can be loaded again.
pub fn commented(settings: &Settings) -> String {
    let mut out = String::from(
        "# Configuration of Postroad. Every option is here with the value in force.\n\
         # Check a file with: postroad check-config --config FILE\n",
    );
    for row in ROWS {
        let allowed = format!("Allowed: {}. A change needs: {}.", row.kind.allowed(), effect(row.effect));
        writeln!(out).expect(ENDLESS);
        for line in wrapped(row.doc, WIDTH - 2).into_iter().chain(wrapped(&allowed, WIDTH - 2)) {
            writeln!(out, "# {line}").expect(ENDLESS);
        }
        writeln!(out, "{} = {}", row.key, row.kind.toml(&(row.get)(settings))).expect(ENDLESS);
    }
    for table in &settings.tables {
        let (name, address, protocol) = (&table.name, table.address, table.protocol.name());
        writeln!(out, "\n[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\nprotocol = \"{protocol}\"")
            .expect(ENDLESS);
        if let Some(codec) = &table.codec {
            writeln!(out, "codec = \"{codec}\"").expect(ENDLESS);
        }
    }
    if settings.tables.is_empty() {
        out.push_str(LISTENER_EXAMPLE);
    }
    for topic in &settings.engine.retry_topics {
        write!(out, "\n{}", retry_topic::show(topic)).expect(ENDLESS);
    }
    if settings.engine.retry_topics.is_empty() {
        out.push_str(RETRY_TOPIC_EXAMPLE);
    }
    out
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from(MARKDOWN_HEAD);
    out.push_str("| option | type | default | allowed | change |\n|---|---|---|---|---|\n");
    for row in ROWS {
        let (allowed, change) = (row.kind.allowed().replace('|', "\\|"), effect(row.effect));
        let (key, kind, default) = (row.key, row.kind.name(), default(row));
        writeln!(out, "| [`{key}`](#{}) | {kind} | `{default}` | {allowed} | {change} |", anchor(key)).expect(ENDLESS);
    }
    for row in ROWS {
        writeln!(out, "\n### `{}`", row.key).expect(ENDLESS);
        for line in wrapped(row.doc, WIDTH) {
            writeln!(out, "{line}").expect(ENDLESS);
        }
        let (default, allowed) = (default(row), row.kind.allowed());
        writeln!(out, "\nDefault: `{default}`. Allowed: {allowed}. A change needs: {}.", effect(row.effect))
            .expect(ENDLESS);
    }
    out.push_str(MARKDOWN_TAIL);
    out
}

/// `postroad.toml(5)`, in roff.
pub fn manual() -> String {
    let mut out = String::from(MANUAL_HEAD);
    for row in ROWS {
        let (default, allowed) = (roff(&default(row)), roff(&row.kind.allowed()));
        writeln!(out, ".TP\n\\fB{}\\fR = {default}\n{}", roff(row.key), roff(row.doc)).expect(ENDLESS);
        writeln!(out, "Allowed: {allowed}.\nA change needs: {}.", effect(row.effect)).expect(ENDLESS);
    }
    out.push_str(MANUAL_TAIL);
    out
}

const ENDLESS: &str = "a String takes all";

const LISTENER_EXAMPLE: &str = "
# More listeners than the listen.* shorthands: any number of tables like this one. A table replaces the
# default (not the explicit) shorthand of its protocol.
#[[listener]]
#name = \"second\"
#address = \"127.0.0.1:1884\"
#protocol = \"mqtt\"
";

const RETRY_TOPIC_EXAMPLE: &str = "
# Other limits of retry.* for the messages of some topics: any number of tables like this one. The first one whose filter
# matches holds. A change needs: reload.
#[[retry.topic]]
#filter = \"alarm/#\"
#max_attempts = 3
#max_age = \"1m\"
";

const MARKDOWN_HEAD: &str = "# Configuration

Made from the option table by `postroad man --markdown`; a test compares the two. Do not edit.

One TOML file (`postroad serve --config FILE`), every option with a default. `--set key=value` on the command
line wins over `--data`, that over the file. Unknown keys and values out of range fail, all at once, naming
the nearest key or what is allowed. `postroad check-config --print` prints the whole configuration in force,
commented, as a file that can be loaded again.

On SIGHUP the file is read anew. The whole file applies or nothing. Options marked *reload* take effect then;
those marked *restart* keep their value and are named in the log.

Sizes: a number of bytes, or `\"64KiB\"`, `\"64MiB\"`, `\"1GiB\"`. Times: `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"12h\"`, `\"7d\"`.

";

const MARKDOWN_TAIL: &str = "
## `[[listener]]`
`listen.mqtt` and `listen.http` are shorthands for one listener each, named `mqtt` and `http`. More of them
are tables; one replaces the default (not an explicit) shorthand of its protocol.

```toml
[[listener]]
name = \"depot\"                # in logs, metrics and ports.json; letters, digits, - _ .
address = \"127.0.0.1:1884\"    # port 0: the kernel picks one, see ports.json in the data directory
protocol = \"mqtt\"             # mqtt, frames, http or grpc; with a codec: frames
framing = \"stream\"            # the only one in this version

[[listener]]
name = \"trackers\"
address = \"127.0.0.1:5023\"
codec = \"gt06\"                # what reads and writes its frames: a plugin's codec, see docs/frames.md
```

`tls`, `tls_certificate`, `tls_key` and `tls_client_ca` are reserved: setting them is an error in this version.

A listener that other machines can reach is refused unless `auth.file` is set.

## `[[retry.topic]]`
What holds for the messages of some topics instead of `retry.*`; what a table leaves out is as there. The first table whose
filter matches holds; a filter that begins with `+` or `#` matches no topic that begins with `$`. A change needs: reload; it
holds for what is under way, too. A publisher's wish ([wishes](wishes.md)) goes before both.

```toml
[[retry.topic]]
filter = \"alarm/#\"           # $client/+/alarm/# and the like for directed pushes
max_attempts = 3
max_age = \"1m\"
immediate = 3
backoff_min = \"1s\"
backoff_max = \"10s\"
```
";

const MANUAL_HEAD: &str = ".TH postroad.toml 5 \"\" Postroad
.SH NAME
postroad.toml \\- configuration of the push server Postroad
.SH DESCRIPTION
One TOML file, given to \\fBpostroad serve \\-\\-config\\fR. Every option has a default. Unknown keys fail.
Sizes are bytes or texts such as \"64MiB\"; times are texts such as \"500ms\", \"30s\", \"5m\".
On SIGHUP the file is read anew; the whole file applies or nothing.
.SH OPTIONS
";

const MANUAL_TAIL: &str = ".SH LISTENERS
\\fB[[listener]]\\fR tables hold name, address, protocol (mqtt, frames, http or grpc), codec (of frames) and framing (stream), and add
listeners to the shorthands \\fBlisten.mqtt\\fR and \\fBlisten.http\\fR.
.SH RETRY BY TOPIC
\\fB[[retry.topic]]\\fR tables hold a filter, and max_attempts, max_age, immediate, backoff_min and backoff_max
for the messages that it matches, instead of \\fBretry.*\\fR. The first one that matches holds.
.SH SEE ALSO
\\fBpostroad\\fR(1)
";

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Live => "reload",
        Effect::Restart => "restart",
    }
}

fn default(row: &Row) -> String {
    match row.kind {
        Kind::Choice(_) | Kind::Address | Kind::Path => format!("\"{}\"", row.kind.show(&row.default())),
        _ => row.kind.toml(&row.default()),
    }
}

/// The anchor that a heading of this key gets on the usual forges.
fn anchor(key: &str) -> String {
    key.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one from the start");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            let blank = if line.is_empty() { "" } else { " " };
            line.push_str(blank);
            line.push_str(word);
        }
    }
    lines
}

/// Escapes what roff would take for its own.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load};
    use super::*;

    #[test]
    fn the_printed_configuration_loads_to_the_same_values() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sets =
            ["shards=3", "queue.bytes_max=5KiB", "sys.interval=0s", "listen.http=", "mqtt.session_expiry_max=7d"];
        let frames = "[[listener]]\nname = \"x\"\naddress = \"127.0.0.1:1\"\ncodec = \"gt06\"\n";
        let by_topic = "[[retry.topic]]\nfilter = \"a/#\"\nmax_age = \"90s\"\nbackoff_max = \"1m\"\n";
        for (sets, tables) in [(Vec::new(), ""), (Vec::new(), frames), (sets.map(str::to_owned).to_vec(), by_topic)] {
            let given = directory.path().join("given.toml");
            std::fs::write(&given, tables).expect("writable");
            let settings = load(&Sources { file: Some(given), sets, ..Sources::default() }).expect("valid");
            let file = directory.path().join("printed.toml");
            std::fs::write(&file, commented(&settings)).expect("writable");
            let again = load(&Sources { file: Some(file), ..Sources::default() }).expect("the printed file is valid");
            assert_eq!(commented(&again), commented(&settings));
            assert_eq!(again.engine.retry_topics, settings.engine.retry_topics);
            assert_eq!(again.engine.listeners, settings.engine.listeners);
        }
    }

    #[test]
    fn every_option_is_in_every_text() {
        let (reference, manual, printed) = (markdown(), manual(), commented(&Settings::default()));
        for row in ROWS {
            assert!(reference.contains(&format!("### `{}`", row.key)), "{}", row.key);
            assert!(manual.contains(&format!("\\fB{}\\fR", row.key)), "{}", row.key);
            assert!(printed.contains(&format!("\n{} = ", row.key)), "{}", row.key);
        }
    }

    #[test]
    fn lines_are_wrapped_at_blanks() {
        assert_eq!(wrapped("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrapped("toolongword x", 5), ["toolongword", "x"]);
    }
}
