//! Clients that we did not write, as processes: mosquitto's, grpcurl, and scripts on paho-mqtt, MQTT.js and grpcio.
//! `tests/e2e/setup.sh` installs them; a missing one is a failure that says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Seconds after which a foreign client gives up by itself.
const GIVE_UP_SECONDS: &str = "30";

/// `mosquitto_pub` or `mosquitto_sub` with the broker's address.
pub fn mosquitto(tool: &str, broker: SocketAddr) -> Command {
    let mut command = Command::new(tool);
    command.args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()]);
    command.stdin(Stdio::null());
    command
}

/// Runs `mosquitto_pub` with these arguments; it must succeed.
pub fn mosquitto_pub(broker: SocketAddr, arguments: &[&str]) {
    let mut command = mosquitto("mosquitto_pub", broker);
    succeed(command.args(arguments));
}

/// Runs `mosquitto_pub`, which publishes each line of `text` over one connection; it must succeed.
pub fn mosquitto_pub_lines(broker: SocketAddr, arguments: &[&str], text: &str) {
    let mut command = mosquitto("mosquitto_pub", broker);
    command.args(arguments).arg("-l").stdin(Stdio::piped());
    let mut process = command.spawn().unwrap_or_else(|error| missing(&command, &error));
    let mut input = process.stdin.take().expect("stdin is a pipe");
    input.write_all(text.as_bytes()).expect("mosquitto_pub reads its input");
    drop(input);
    let status = process.wait().expect("a child can be waited for");
    assert!(status.success(), "{command:?} ended with {status}");
}

/// Runs `mosquitto_sub` to its end with these arguments and gives what it printed.
pub fn mosquitto_sub(broker: SocketAddr, arguments: &[&str]) -> String {
    let mut command = mosquitto("mosquitto_sub", broker);
    succeed(command.args(["-W", GIVE_UP_SECONDS]).args(arguments))
}

/// A `mosquitto_sub` that has its SUBACK and now waits for messages.
pub struct Subscriber {
    process: Child,
    output: BufReader<ChildStdout>,
    /// What came before its SUBACK.
    early: Vec<String>,
}

impl Subscriber {
    /// Starts one and waits until it is subscribed. `arguments` should hold `-C count`.
    pub fn start(broker: SocketAddr, arguments: &[&str]) -> Self {
        let client = mosquitto("mosquitto_sub", broker);
        // Into a pipe it would print its lines when it ends; stdbuf (coreutils) becomes the client by exec.
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(client.get_program()).args(client.get_args());
        command.args(["-d", "-W", GIVE_UP_SECONDS, "-F", "message %t %p"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| missing(&command, &error));
        let output = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let mut subscriber = Self { process, output, early: Vec::new() };
        subscriber.read_until(|line| line.starts_with("Subscribed (mid"));
        subscriber
    }

    /// The rest of its messages, as `topic payload`, until it ends; it must succeed.
    pub fn messages(mut self) -> Vec<String> {
        let mut messages = std::mem::take(&mut self.early);
        for line in self.output.by_ref().lines() {
            let line = line.expect("its output is text");
            messages.extend(line.strip_prefix("message ").map(str::to_owned));
        }
        let status = self.process.wait().expect("a child can be waited for");
        assert!(status.success(), "mosquitto_sub ended with {status} after {messages:?}");
        messages
    }

    fn read_until(&mut self, fits: impl Fn(&str) -> bool) {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let bytes = self.output.read_line(&mut line).expect("its output is text");
            assert!(bytes > 0, "mosquitto_sub ended early; it printed:\n{seen}");
            if fits(line.trim_end()) {
                return;
            }
            self.early.extend(line.trim_end().strip_prefix("message ").map(str::to_owned));
            seen += &line;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `clients/<script>` with paho-mqtt and grpcio at hand; it must succeed.
pub fn python(script: &str, broker: SocketAddr) -> String {
    python_with(script, broker, &[])
}

/// As [`python`], with arguments behind the address.
pub fn python_with(script: &str, broker: SocketAddr, arguments: &[&str]) -> String {
    let interpreter = installed("e2e-venv/bin/python3");
    succeed(Command::new(interpreter).arg(clients().join(script)).args(address_arguments(broker)).args(arguments))
}

/// As [`python`], but goes on beside the test, which writes its input and reads its output.
pub fn python_beside(script: &str, broker: SocketAddr) -> Child {
    let mut command = Command::new(installed("e2e-venv/bin/python3"));
    command.arg(clients().join(script)).args(address_arguments(broker)).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap_or_else(|error| missing(&command, &error))
}

/// What `grpcurl` said of a call.
#[derive(Clone, Debug)]
pub struct Told {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// The answers, or what was listed or described.
    pub output: String,
    /// What it says of a failure.
    pub error: String,
}

/// Runs `grpcurl` without TLS against this server; `before` stands before the address, such as a request's `-d`, `after` behind it: a method, or
/// `list` or `describe`. It knows no definition but what the server's reflection tells.
pub fn grpcurl(server: SocketAddr, before: &[&str], after: &[&str]) -> Told {
    let mut command = Command::new(installed("e2e-venv/bin/grpcurl"));
    command.args(["-plaintext", "-max-time", GIVE_UP_SECONDS]).args(before).arg(server.to_string()).args(after);
    let output = command.output().unwrap_or_else(|error| missing(&command, &error));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { succeeded: output.status.success(), output: text(&output.stdout), error: text(&output.stderr) }
}

/// Runs `clients/<script>` with MQTT.js at hand; it must succeed.
pub fn node(script: &str, broker: SocketAddr) -> String {
    let modules = installed("e2e-node/node_modules");
    let mut command = Command::new("node");
    command.arg(clients().join(script)).args(address_arguments(broker)).env("NODE_PATH", modules);
    succeed(&mut command)
}

fn address_arguments(broker: SocketAddr) -> [String; 2] {
    [broker.ip().to_string(), broker.port().to_string()]
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// What `setup.sh` put into `target/` of the workspace.
fn installed(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let path = target.join(path);
    assert!(path.exists(), "{} is missing: run tests/e2e/setup.sh (`make test` does)", path.display());
    path
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| missing(command, &error));
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

fn missing(command: &Command, error: &std::io::Error) -> ! {
    panic!("cannot run {command:?}: {error}; run tests/e2e/setup.sh (`make test` does)")
}
