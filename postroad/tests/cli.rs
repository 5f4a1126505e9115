//! The command line through the real binary: exit codes and texts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

fn postroad() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroad"));
    command.env_remove("POSTROAD_PASSWORD").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    postroad().args(args).output().expect("the binary runs")
}

fn fed(args: &[&str], input: &str) -> Output {
    let mut command = postroad();
    let mut child =
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stderr: {}", stderr(output));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What can't be asked is refused before anybody is asked.
#[test]
fn a_trace_is_of_a_message_or_of_what_happens() {
    for wrong in [
        &["trace"][..],
        &["trace", "00", "--client", "truck-7"],
        &["trace", "00", "--count", "3"],
        &["receipts", "--level", "all"],
        &["publish", "t", "-n", "--receipt", "all"],
    ] {
        assert_code(&run(wrong), 2);
    }
    let no_id = run(&["trace", "../clients"]);
    assert_code(&no_id, 1);
    assert!(stderr(&no_id).contains("names no message"), "{}", stderr(&no_id));
}

/// The server refuses it, too; asked of all topics at once it is plain before.
#[test]
fn a_key_is_of_one_topic() {
    let output = run(&["publish", "a", "b", "-m", "x", "--idempotency-key", "k", "--api", "http://127.0.0.1:9"]);
    assert_code(&output, 2);
    assert!(stderr(&output).contains("one message to one topic"), "{}", stderr(&output));
}

#[test]
fn what_is_no_message_is_not_asked_for() {
    let output = run(&["scheduled", "cancel", "../clients", "--api", "http://127.0.0.1:9"]);
    assert_code(&output, 1);
    assert!(stderr(&output).contains("../clients: it names no message"), "{}", stderr(&output));
    assert_code(&run(&["scheduled", "cancel"]), 2);
    assert_code(&run(&["scheduled", "list", "--user", "a", "--client", "b"]), 2);
    assert_code(&run(&["client", "acknowledge", "truck-7"]), 2);
}

#[test]
fn help_lists_every_command() {
    let output = run(&["--help"]);
    assert_code(&output, 0);
    let help = stdout(&output);
    for name in [
        "serve",
        "check-config",
        "passwd",
        "token",
        "publish",
        "scheduled",
        "client",
        "trace",
        "receipts",
        "top",
        "pub",
        "sub",
        "doctor",
        "log",
        "man",
        "completions",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(name)), "{name} is not in\n{help}");
        assert_code(&run(&[name, "--help"]), 0);
    }
}

#[test]
fn version_is_that_of_the_package() {
    let output = run(&["--version"]);
    assert_code(&output, 0);
    assert_eq!(stdout(&output), format!("postroad {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_key_fails_with_a_suggestion() {
    let folder = folder();
    let file = folder.path().join("p.toml");
    std::fs::write(&file, "durabilty = \"fsync\"\n").expect("writable");
    let output = run(&["check-config", "--config", text(&file)]);
    assert_code(&output, 2);
    let said = stderr(&output);
    assert!(said.contains(text(&file)) && said.contains("durabilty"), "{said}");
    assert!(said.contains("did you mean durability?"), "{said}");
    let output = run(&["serve", "--config", text(&file)]);
    assert_code(&output, 2);
}

#[test]
fn a_value_out_of_range_names_key_and_range() {
    let output = run(&["check-config", "--set", "mqtt.receive_maximum=0"]);
    assert_code(&output, 2);
    assert!(stderr(&output).contains("mqtt.receive_maximum must be 1 to 65535 messages"), "{}", stderr(&output));
    assert_code(&run(&["check-config", "--set", "mqtt.receive_maximum"]), 2);
}

#[test]
fn the_printed_configuration_is_accepted_and_prints_itself() {
    let folder = folder();
    let file = folder.path().join("p.toml");
    let sets = ["--set", "shards=2", "--set", "queue.policy=drop_oldest", "--set", "mqtt.keep_alive_max=90s"];
    let first = postroad().args(["check-config", "--print"]).args(sets).output().expect("runs");
    assert_code(&first, 0);
    std::fs::write(&file, &first.stdout).expect("writable");
    let second = run(&["check-config", "--print", "--config", text(&file)]);
    assert_code(&second, 0);
    assert_eq!(stdout(&first), stdout(&second));
    assert!(stdout(&second).contains("\nmqtt.keep_alive_max = \"90s\"\n"), "{}", stdout(&second));
}

#[test]
fn the_keys_that_were_promised_are_there() {
    let printed = stdout(&run(&["check-config", "--print"]));
    for key in [
        "listen.mqtt",
        "listen.websocket",
        "listen.native",
        "listen.http",
        "listen.grpc",
        "shards",
        "durability",
        "storage.partitions",
        "log.level",
        "plugins.dir",
        "acl.file",
        "auth.file",
    ] {
        assert!(printed.contains(&format!("\n{key} = ")), "{key} is not in\n{printed}");
    }
}

#[test]
fn an_address_that_others_reach_is_refused_without_auth_file() {
    let folder = folder();
    let data = folder.path().join("data");
    let output = run(&["serve", "--data", text(&data), "--set", "listen.mqtt=0.0.0.0:0", "--set", "listen.http="]);
    assert_code(&output, 2);
    let said = stderr(&output);
    assert!(said.contains("auth.file") && said.contains("postroad passwd"), "{said}");
    assert!(!data.exists(), "a refused start leaves nothing behind");
}

#[test]
fn listeners_of_later_versions_are_refused_clearly() {
    for key in ["listen.websocket", "listen.native"] {
        let output = run(&["check-config", "--set", &format!("{key}=127.0.0.1:9")]);
        assert_code(&output, 2);
        assert!(stderr(&output).contains(key) && stderr(&output).contains("not in this version yet"));
        assert_code(&run(&["check-config", "--set", &format!("{key}=")]), 0);
    }
}

#[test]
fn passwd_adds_changes_and_deletes_users_and_keeps_the_rest() {
    let folder = folder();
    let file = folder.path().join("auth.toml");
    std::fs::write(&file, "# ours\n[[client]]\nid = \"truck\" # the old one\n").expect("writable");
    let path = text(&file);
    assert_code(&fed(&["passwd", "--file", path, "--group", "ops", "alice"], "secret\n"), 0);
    let once = std::fs::read_to_string(&file).expect("written");
    assert!(once.starts_with("# ours\n") && once.contains("# the old one"), "{once}");
    assert!(once.contains("name = \"alice\"") && once.contains("$argon2id$") && once.contains("ops"), "{once}");
    assert!(!once.contains("secret"), "{once}");

    let token = run(&["passwd", "--file", path, "--token", "alice"]);
    assert_code(&token, 0);
    let secret = stdout(&token).trim().to_owned();
    let twice = std::fs::read_to_string(&file).expect("written");
    assert!(secret.starts_with("prt_") && !twice.contains(&secret) && twice.contains("sha256:"), "{twice}");
    assert_eq!(twice.matches("name = \"alice\"").count(), 1);

    assert_code(&run(&["check-config", "--set", &format!("auth.file={path}")]), 0);
    assert_code(&run(&["passwd", "--file", path, "--delete", "alice"]), 0);
    assert!(!std::fs::read_to_string(&file).expect("written").contains("alice"));
    let missing = run(&["passwd", "--file", path, "--delete", "alice"]);
    assert_code(&missing, 1);
    assert!(stderr(&missing).contains("no user \"alice\""), "{}", stderr(&missing));
}

#[test]
fn passwd_refuses_what_the_server_could_not_use() {
    let folder = folder();
    let file = folder.path().join("auth.toml");
    let path = text(&file);
    assert_code(&fed(&["passwd", "--file", path, "a/b"], "secret\n"), 1);
    assert_code(&fed(&["passwd", "--file", path, "alice"], "\n"), 1);
    assert_code(&fed(&["passwd", "--file", path, "alice"], "prt_0123456789abcdef0123456789abcdef\n"), 1);
    assert!(!file.exists());
}

#[test]
fn a_new_auth_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let file = folder.path().join("auth.toml");
    assert_code(&run(&["passwd", "--file", text(&file), "--token", "box"]), 0);
    assert_eq!(std::fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);
}

#[test]
fn manual_and_completions_come_from_the_same_table() {
    let page = stdout(&run(&["man", "postroad-sub"]));
    assert!(page.contains(".TH") && page.contains("mqtt\\-version"), "{page}");
    assert!(stdout(&run(&["man", "config"])).contains("mqtt.receive_maximum"));
    assert!(stdout(&run(&["completions", "bash"])).contains("check-config"));
    assert_code(&run(&["man", "nonsense"]), 1);
}

#[test]
fn bad_topics_fail_before_anything_is_connected() {
    let published = run(&["pub", "-t", "a/+", "-m", "x", "-p", "1"]);
    assert_code(&published, 1);
    assert!(stderr(&published).contains("wildcard"), "{}", stderr(&published));
    assert_code(&run(&["sub", "-t", "a/#/b", "-p", "1"]), 1);
    assert_code(&run(&["pub", "-t", "a"]), 2);
}

/// A server of this test, ended with it.
struct Server {
    process: Child,
    log: BufReader<std::process::ChildStderr>,
    folder: TempDir,
    ports: serde_json::Value,
}

impl Server {
    fn start(sets: &[&str]) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        let mut command = postroad();
        command.args(["serve", "--data", text(&data), "--set", "shards=2"]);
        for set in ["listen.mqtt=127.0.0.1:0", "listen.http=127.0.0.1:0"].iter().chain(sets) {
            command.args(["--set", set]);
        }
        Self::spawn(command, folder)
    }

    fn spawn(mut command: Command, folder: TempDir) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let log = BufReader::new(process.stderr.take().expect("piped"));
        let mut server = Self { process, log, folder, ports: serde_json::Value::Null };
        server.await_log(" serving ");
        let ports = std::fs::read(server.folder.path().join("data/ports.json")).expect("written before it serves");
        server.ports = serde_json::from_slice(&ports).expect("JSON");
        server
    }

    /// Reads the log up to a line that holds `words`; ends with the process at the latest.
    fn await_log(&mut self, words: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let size = self.log.read_line(&mut line).expect("the log is text");
            assert!(size > 0, "the server ended before it said {words:?}:\n{seen}");
            if line.contains(words) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    fn port(&self, name: &str) -> u16 {
        let port = self.ports[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.ports));
        u16::try_from(port).expect("a port")
    }

    fn client(&self, command: &str, args: &[&str]) -> Command {
        let mut client = postroad();
        client.args([command, "-h", "127.0.0.1", "-p", &self.port("mqtt").to_string()]).args(args);
        client
    }

    fn publish(&self, args: &[&str]) -> Output {
        self.client("pub", args).output().expect("the binary runs")
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port("http"))).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    fn terminate(&mut self) -> (ExitStatus, String) {
        self.signal("-TERM");
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("the log is text");
        (self.process.wait().expect("it ends"), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn serve_names_its_ports_is_ready_and_stops_gracefully() {
    let mut server = Server::start(&[]);
    assert_ne!(server.port("mqtt"), server.port("http"));
    assert!(server.get("/ready").starts_with("HTTP/1.1 200 "));
    assert!(server.get("/health").contains("\"healthy\":true"));
    let metrics = server.get("/metrics");
    for name in ["postroad_build_info{version=", "postroad_shards 2\n", "postroad_shards_answering 2\n"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    assert!(metrics.contains("postroad_interface_accepted_total{shard=\"0\",interface=\"mqtt\"}"), "{metrics}");
    let (status, log) = server.terminate();
    assert!(status.success(), "{log}");
    assert!(log.contains("draining") && log.contains("stopped"), "{log}");
    assert!(!server.folder.path().join("data/ports.json").exists(), "the ports are free again");
}

#[test]
fn a_message_goes_from_pub_to_a_persistent_sub_and_the_retained_one_is_printed() {
    let server = Server::start(&[]);
    // The session comes first: it ends with its time, no message being there.
    let away = server.client("sub", &["-t", "a/#", "-q", "2", "-c", "-i", "s1", "-W", "1"]).output().expect("runs");
    assert_eq!(away.status.code(), Some(27), "{}", stderr(&away));
    assert_code(&server.publish(&["-t", "a/1", "-m", "one", "-q", "1"]), 0);
    assert_code(&server.publish(&["-t", "a/2", "-m", "two", "-q", "2", "-r"]), 0);
    let flags = ["-t", "a/#", "-q", "2", "-c", "-i", "s1", "-R", "-v", "-C", "2", "-W", "60"];
    let back = server.client("sub", &flags).output().expect("runs");
    assert_code(&back, 0);
    assert_eq!(stdout(&back), "a/1 one\na/2 two\n");
    let flags = ["-t", "a/2", "-V", "3.1.1", "-C", "1", "-W", "60", "-F", "%t %p %r"];
    let retained = server.client("sub", &flags).output().expect("runs");
    assert_code(&retained, 0);
    assert_eq!(stdout(&retained), "a/2 two 1\n");
}

#[test]
fn sub_connects_again_after_a_restart_and_misses_nothing() {
    let mut server = Server::start(&[]);
    let address = format!("listen.mqtt=127.0.0.1:{}", server.port("mqtt"));
    let flags = ["-t", "s", "-q", "1", "-c", "-i", "s1", "-C", "2", "-W", "120", "--debug"];
    let mut subscriber = server.client("sub", &flags);
    let mut subscriber = subscriber.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut told = BufReader::new(subscriber.stderr.take().expect("piped")).lines();
    assert!(told.any(|line| line.expect("text") == "received SUBACK"), "the subscription stands");
    assert_code(&server.publish(&["-t", "s", "-m", "one", "-q", "1"]), 0);
    let mut out = BufReader::new(subscriber.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("text");
    assert_eq!(line, "one\n");
    assert!(server.terminate().0.success());

    let folder = std::mem::replace(&mut server.folder, folder());
    let mut command = postroad();
    command.args(["serve", "--data", text(&folder.path().join("data")), "--set", "shards=2", "--set", &address]);
    command.args(["--set", "listen.http=127.0.0.1:0"]);
    let server = Server::spawn(command, folder);
    assert_code(&server.publish(&["-t", "s", "-m", "two", "-q", "1"]), 0);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "two\n");
    assert!(subscriber.wait().expect("it ends").success());
}

#[test]
fn lines_arrive_in_order() {
    let server = Server::start(&["durability=memory"]);
    // The retained hello tells that the subscription stands.
    assert_code(&server.publish(&["-t", "l", "-m", "hello", "-q", "1", "-r"]), 0);
    let mut subscriber = server.client("sub", &["-t", "l", "-q", "1", "-C", "101", "-W", "60"]);
    let mut subscriber = subscriber.stdout(Stdio::piped()).spawn().expect("runs");
    let mut out = BufReader::new(subscriber.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("text");
    assert_eq!(line, "hello\n");
    let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let mut publisher =
        server.client("pub", &["-t", "l", "-q", "1", "-l"]).stdin(Stdio::piped()).spawn().expect("runs");
    publisher.stdin.take().expect("piped").write_all(lines.join("\n").as_bytes()).expect("it reads");
    assert!(publisher.wait().expect("it ends").success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert_eq!(rest.lines().collect::<Vec<_>>(), lines);
    assert!(subscriber.wait().expect("it ends").success());
}

#[test]
fn a_reload_applies_the_whole_file_or_nothing_and_names_what_waits() {
    let files = folder();
    let file = files.path().join("p.toml");
    let with = |rest: &str| {
        let text = format!("listen.mqtt = \"127.0.0.1:0\"\nlisten.http = \"127.0.0.1:0\"\n{rest}\n");
        std::fs::write(&file, text).expect("writable");
    };
    with("shards = 1");
    let folder = folder();
    let mut command = postroad();
    command.args(["serve", "--config", text(&file), "--data", text(&folder.path().join("data"))]);
    let mut server = Server::spawn(command, folder);

    with("shards = 2\nqueue.messages_max = 7");
    server.signal("-HUP");
    assert!(server.await_log("reloaded").contains("queue.messages_max: 100000 -> 7"));
    assert!(server.await_log("waits for a restart").contains("shards"));

    with("shards = 1\nqueue.messages_max = 8\nnonsense = 1");
    server.signal("-HUP");
    let refusal = server.await_log("reload refused");
    assert!(refusal.contains("nothing is changed"), "{refusal}");

    with("shards = 1\nqueue.messages_max = 9");
    server.signal("-HUP");
    assert!(server.await_log("reloaded").contains("queue.messages_max: 7 -> 9"), "8 must never have applied");
}

#[test]
fn users_are_let_in_by_password_and_token_and_others_are_not() {
    let keys = folder();
    let auth = keys.path().join("auth.toml");
    assert_code(&fed(&["passwd", "--file", text(&auth), "alice"], "secret\n"), 0);
    let token = stdout(&run(&["passwd", "--file", text(&auth), "--token", "box"]));
    let server = Server::start(&[&format!("auth.file={}", text(&auth))]);
    let try_in = |args: &[&str]| server.publish(&[&["-t", "x", "-n", "-q", "1"], args].concat());
    assert_code(&try_in(&["-u", "alice", "-P", "secret"]), 0);
    assert_code(&try_in(&["-u", "box", "-P", token.trim()]), 0);
    for (args, reason) in [
        (&["-u", "alice", "-P", "wrong"][..], "bad_user_name_or_password"),
        (&["-u", "mallory", "-P", "secret"][..], "bad_user_name_or_password"),
        (&["-u", "alice", "-P", token.trim()][..], "bad_user_name_or_password"),
        (&[][..], "not_authorized"),
    ] {
        let output = try_in(args);
        assert_code(&output, 1);
        assert!(stderr(&output).contains(reason), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_reload_reads_users_and_access_rules_anew() {
    let keys = folder();
    let (auth, acl) = (keys.path().join("auth.toml"), keys.path().join("acl.toml"));
    let rule = |effect: &str| {
        let text = format!("[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"{effect}\"\n");
        std::fs::write(&acl, text).expect("writable");
    };
    rule("allow");
    std::fs::write(&auth, "").expect("writable");
    let sets = [format!("auth.file={}", text(&auth)), format!("acl.file={}", text(&acl))];
    let mut server = Server::start(&[&sets[0], &sets[1]]);

    let token = stdout(&run(&["passwd", "--file", text(&auth), "--token", "box"]));
    let credentials = ["-t", "x", "-n", "-q", "1", "-u", "box", "-P", token.trim()];
    assert_code(&server.publish(&credentials), 1);
    server.signal("-HUP");
    server.await_log("read anew");
    assert_code(&server.publish(&credentials), 0);

    std::fs::write(&auth, "nonsense").expect("writable");
    server.signal("-HUP");
    server.await_log("reload refused");
    assert_code(&server.publish(&credentials), 0);

    std::fs::write(&auth, "").expect("writable");
    assert_code(&run(&["passwd", "--file", text(&auth), "--token", "other"]), 0);
    rule("deny");
    server.signal("-HUP");
    server.await_log("read anew");
    let refused = server.publish(&credentials);
    assert_code(&refused, 1);
    assert!(stderr(&refused).contains("bad_user_name_or_password"), "{}", stderr(&refused));
}

#[test]
fn what_is_packaged_fits_the_binary() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    assert_code(&run(&["check-config", "--config", text(&packaging.join("postroad.toml"))]), 0);
    let unit = std::fs::read_to_string(packaging.join("postroad.service")).expect("in the repository");
    for line in unit.lines().filter_map(|line| line.split_once("=/usr/local/bin/postroad ")) {
        let mut words = line.1.split(' ');
        let help = stdout(&run(&[words.next().expect("a command"), "--help"]));
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "{flag} of the unit is unknown");
        }
    }
    for line in ["Type=notify", "WatchdogSec=30", "LimitNOFILE=1048576", "LimitMEMLOCK=infinity"] {
        assert!(unit.lines().any(|there| there == line), "{line} is not in the unit");
    }
    let profile = std::fs::read(packaging.join("seccomp.json")).expect("in the repository");
    let profile: serde_json::Value = serde_json::from_slice(&profile).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "sched_setaffinity", "fdatasync"] {
        assert!(profile.to_string().contains(&format!("\"{call}\"")), "{call} is not allowed");
    }
}

#[test]
fn log_check_finds_a_stopped_server_s_log_sound_and_a_running_one_in_use() {
    let mut server = Server::start(&[]);
    let data = server.folder.path().join("data");
    let running = run(&["log", "check", text(&data)]);
    assert_code(&running, 1);
    assert!(stderr(&running).contains("in use"), "{}", stderr(&running));
    assert!(server.terminate().0.success());
    let stopped = run(&["log", "check", text(&data)]);
    assert_code(&stopped, 0);
    assert!(stdout(&stopped).contains("the log is sound"), "{}", stdout(&stopped));
    assert_code(&run(&["log", "repair", text(&data)]), 0);
    assert_code(&run(&["log", "check", text(server.folder.path())]), 1);
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = folder();
    let data = folder.path().join("data");
    let mqtt = format!("listen.mqtt={address}");
    let output = run(&["serve", "--data", text(&data), "--set", &mqtt, "--set", "listen.http="]);
    assert_code(&output, 1);
    assert!(stderr(&output).contains(&address) && stderr(&output).contains("mqtt"), "{}", stderr(&output));
}

#[test]
fn the_service_manager_is_told_and_the_watchdog_is_fed() {
    use std::os::unix::net::UnixDatagram;
    let folder = folder();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("bind");
    let mut command = postroad();
    command.args(["serve", "--data", text(&folder.path().join("data")), "--set", "listen.mqtt=127.0.0.1:0"]);
    command.args(["--set", "listen.http=127.0.0.1:0", "--set", "shards=2"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
    let mut server = Server::spawn(command, folder);
    let receive = || {
        let mut buffer = [0; 256];
        let size = manager.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..size]).into_owned()
    };
    assert!(receive().starts_with("READY=1"));
    assert_eq!(receive(), "WATCHDOG=1");
    let (status, log) = server.terminate();
    assert!(status.success(), "{log}");
    while !receive().starts_with("STOPPING=1") {}
}

fn written(folder: &TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("a temporary folder");
    text(&path).to_owned()
}

/// What `new` makes is checked, formatted and tested by the other tools, and nothing is written over.
#[test]
fn a_new_plugin_is_a_good_one() {
    for template in ["route", "dead-letter", "access", "frame", "state"] {
        let folder = folder();
        let dir = text(folder.path());
        let made = run(&["plugin", "new", "demo", "--template", template, "--dir", dir]);
        assert_code(&made, 0);
        assert!(folder.path().join(".luarc.json").exists() && folder.path().join(".luals/postroad.lua").exists());
        for tool in [&["check", "--strict"][..], &["fmt-check"], &["test"]] {
            let output = run(&[&["plugin"], tool, &[dir]].concat());
            assert_code(&output, 0);
            assert!(!stdout(&output).contains("NAME"), "{}", stdout(&output));
        }
        let again = run(&["plugin", "new", "demo", "--dir", dir]);
        assert_code(&again, 1);
        assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    }
    for wrong in ["Demo", "x_test", "../x"] {
        assert_code(&run(&["plugin", "new", wrong, "--dir", "/nowhere"]), 1);
    }
}

const MOVES: &str = "return { route = { filters = { 'a' }, run = function(m) m.topic = 'b' end } }\n";

#[test]
fn tests_of_plugins_tell_line_by_line() {
    let folder = folder();
    let plugin = written(&folder, "moves.lua", MOVES);
    let tests = "return {\n  ['moves'] = function(t) t.equal(t.publish { topic = 'a' }.messages[1].topic, 'b') end,\n  \
                 ['fails'] = function(t) t.print('hello') t.ok(false) end,\n}\n";
    let test_file = written(&folder, "moves_test.lua", tests);
    let expected = format!(
        "ok     moves: moves\nFAILED moves: fails\n       | hello\n{test_file}:3: not ok\n  expected something true\n  got      \
         false\n2 cases: 1 ok, 1 failed\n"
    );
    for path in [&plugin, &test_file, text(folder.path())] {
        let output = run(&["plugin", "test", path]);
        assert_code(&output, 1);
        assert_eq!(stdout(&output), expected);
    }
    let output = run(&["plugin", "test", &plugin, "--filter", "moves: moves", "--json"]);
    assert_code(&output, 0);
    assert_eq!(
        stdout(&output),
        "{\"case\":\"moves\",\"ok\":true,\"plugin\":\"moves\"}\n{\"broken\":0,\"cases\":1,\"failed\":0}\n"
    );
    let none = run(&["plugin", "test", &plugin, "--filter", "banana"]);
    assert_code(&none, 1);
    assert!(stderr(&none).contains("no case was run"), "{}", stderr(&none));
}

#[test]
fn limits_of_a_server_hold_in_its_tools() {
    let folder = folder();
    written(&folder, "slow.lua", "return { route = function() for _ = 1, 50000 do end end }\n");
    written(&folder, "slow_test.lua", "return { ['slow'] = function(t) t.publish { topic = 'a' } end }\n");
    assert_code(&run(&["plugin", "test", text(folder.path())]), 0);
    let output = run(&["plugin", "test", text(folder.path()), "--set", "plugins.instructions_max=10000"]);
    assert_code(&output, 1);
    assert!(stdout(&output).contains("slow.lua:1: route: it took more than 10000 instructions"), "{}", stdout(&output));
    assert_code(&run(&["plugin", "test", text(folder.path()), "--set", "plugins.banana=1"]), 2);
}

#[test]
fn a_check_tells_where_an_editor_can_jump_to() {
    let folder = folder();
    let plugin = written(&folder, "bad.lua", "return {\n  route = function(m)\n    postroad.pubish(m)\n  end,\n}\n");
    let output = run(&["plugin", "check", &plugin]);
    assert_code(&output, 1);
    let expected = format!("{plugin}:3:14: error: unknown 'postroad.pubish': did you mean 'postroad.publish'?\n");
    assert_eq!(stdout(&output), expected + "1 plugins: 1 errors, 0 warnings\n");
    let global = written(&folder, "bad.lua", "return { route = function() count = 1 end }\n");
    assert_code(&run(&["plugin", "check", &global]), 0);
    assert_code(&run(&["plugin", "check", &global, "--strict"]), 1);
    let output = run(&["plugin", "check", &global, "--json"]);
    let finding: serde_json::Value = serde_json::from_str(stdout(&output).trim()).expect("JSON");
    assert_eq!(
        (&finding["severity"], &finding["line"], &finding["column"]),
        (&"warning".into(), &1.into(), &29.into())
    );
    assert_code(&run(&["plugin", "check", "/nowhere/x.lua"]), 1);
    let lonely = tempfile::tempdir().expect("a temporary directory");
    written(&lonely, "x_test.lua", "return {}");
    assert!(stderr(&run(&["plugin", "check", text(lonely.path())])).contains("which is not there"));
}

#[test]
fn what_is_not_formatted_is_told() {
    let folder = folder();
    let plugin = written(&folder, "bad.lua", "return {\n\troute = 1, \n}\n");
    let output = run(&["plugin", "fmt-check", &plugin]);
    assert_code(&output, 1);
    let expected = format!(
        "{plugin}:2:1: tab: a tab in the indentation\n{plugin}:2:12: trailing-blank: blanks at the end of the line\n"
    );
    assert_eq!(stdout(&output), expected);
}

#[test]
fn hooks_are_measured() {
    let folder = folder();
    let plugin = written(&folder, "moves.lua", MOVES);
    let output = run(&["plugin", "bench", &plugin, "--calls", "1000", "--json"]);
    assert_code(&output, 0);
    let measured: serde_json::Value = serde_json::from_str(stdout(&output).trim()).expect("JSON");
    assert_eq!(
        (&measured["hook"], &measured["calls"], &measured["errors"]),
        (&"route".into(), &1000.into(), &0.into())
    );
    let none = written(&folder, "none.lua", "return {}\n");
    assert_code(&run(&["plugin", "bench", &none]), 1);
}

#[test]
fn messages_are_tried_without_a_server() {
    let folder = folder();
    let plugin = written(
        &folder,
        "moves.lua",
        "return { route = function(m) if m.client == 'x' then m.payload = m.payload .. '!' end end }\n",
    );
    let lines = "{\"topic\":\"a\",\"payload\":\"p\",\"client\":\"x\"}\n\n{\"topic\":\"a\",\"payload\":\"p\"}\n";
    let output = fed(&["plugin", "try", &plugin, "--messages", "-"], lines);
    assert_code(&output, 0);
    let expected = "a: change\n  payload            \"p\"\n  ->                 \"p!\"\n2 in all: 1 change, 1 keep; 0 published besides; 0 failures\n";
    assert_eq!(stdout(&output), expected);
    let output = fed(&["plugin", "try", &plugin, "--messages", "-", "--from", "x"], lines);
    assert!(stdout(&output).contains("2 change"), "{}", stdout(&output));
    let wrong = fed(&["plugin", "try", &plugin, "--messages", "-"], "{\"topic\":\"a/#\"}\n");
    assert_code(&wrong, 1);
    assert!(stderr(&wrong).contains("-:1: topic \"a/#\""), "{}", stderr(&wrong));
    assert_code(&run(&["plugin", "try", &plugin]), 2);
    assert_code(&run(&["plugin", "try", &plugin, "--letters", "--messages", "-"]), 2);
}

#[test]
fn stubs_are_those_of_the_repository() {
    let folder = folder();
    assert_code(&run(&["plugin", "stubs", text(folder.path())]), 0);
    let written = std::fs::read_to_string(folder.path().join("postroad.lua")).expect("written");
    assert_eq!(written, stdout(&run(&["plugin", "stubs"])));
    assert!(written.contains("function postroad.store.get(key) end"));
}
