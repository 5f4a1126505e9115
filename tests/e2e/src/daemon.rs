//! `postroad serve` as a process.
//!
//! The binary is `POSTROAD_BIN`, or else `postroad` beside the test (the `debug` or `release` folder of the
//! target directory). After start-up it writes `ports.json` into its data directory. A running broker can be
//! named instead by `POSTROAD_E2E_BROKER=host:port`, to try the harness itself; tests that restart need our own.
//! The process is killed when its [`Daemon`] is dropped, and its log is shown if the test failed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::PATIENCE;

/// Pause between two looks at a condition that announces itself in no other way.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Lines of the daemon's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// Where clients connect; changes with each restart, and is shared by all who must follow.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Mutex<SocketAddr>>);

impl Endpoint {
    /// The address at present.
    pub fn address(&self) -> SocketAddr {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// A running (or stopped, then restartable) daemon with a data directory of its own.
pub struct Daemon {
    process: Option<Child>,
    folder: TempDir,
    settings: Vec<String>,
    endpoint: Endpoint,
    http: Option<SocketAddr>,
}

impl Daemon {
    /// Starts one with default options.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these `key=value` options beside the listeners.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut daemon = Self {
            process: None,
            folder: new_folder(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            endpoint: Endpoint(Arc::new(Mutex::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))))),
            http: None,
        };
        match running_broker() {
            Some(address) => daemon.endpoint.set(address),
            None => daemon.launch(),
        }
        daemon
    }

    /// Sets an option for the next start.
    pub fn set(&mut self, setting: &str) {
        let key = setting.split('=').next().expect("split gives at least one piece");
        self.settings.retain(|other| other.split('=').next() != Some(key));
        self.settings.push(setting.to_owned());
    }

    /// Whether it is not ours, so that it cannot be restarted or measured.
    pub fn is_foreign(&self) -> bool {
        running_broker().is_some()
    }

    /// Where MQTT clients connect.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Where MQTT clients connect at present.
    pub fn mqtt(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// SIGKILL, in the midst of whatever it does.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("a child that was not waited for can be signalled");
        process.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and the exit status of the graceful stop.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("only a running daemon can be stopped");
        let pid = Pid::from_child(&process);
        kill_process(pid, Signal::TERM).expect("a child that was not waited for can be signalled");
        let mut status = None;
        wait_until("the daemon stops on SIGTERM", || {
            status = process.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("the wait ended")
    }

    /// Starts again on the same data.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "stop the daemon before starting it again");
        self.launch();
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let process = self.process.as_ref().expect("only our own running daemon can be measured");
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it is running");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has VmRSS");
        let kibibytes = line.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        kibibytes.expect("VmRSS is a number") * 1024
    }

    /// Status code and body of a page of its HTTP listener.
    pub fn http(&self, path: &str) -> (u16, String) {
        let address = self.http.expect("our own daemon has an HTTP listener");
        http_get(address, path).expect("the HTTP listener answers")
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    fn launch(&mut self) {
        let ports = self.data().join("ports.json");
        let _ = fs::remove_file(&ports);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the folder is writable");
        let error_log = log.try_clone().expect("a file can be duplicated");
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(self.data());
        for listener in ["listen.mqtt=127.0.0.1:0", "listen.http=127.0.0.1:0"] {
            command.args(["--set", listener]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let process = command.stdin(Stdio::null()).stdout(log).stderr(error_log).spawn();
        self.process = Some(process.unwrap_or_else(|error| panic!("cannot start {}: {error}", binary().display())));
        self.wait_for_ports(&ports);
        self.wait_for_ready();
    }

    fn wait_for_ports(&mut self, path: &Path) {
        let mut ports = None;
        wait_until("the daemon writes ports.json", || {
            assert!(self.is_running(), "the daemon ended while starting");
            ports = fs::read(path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            ports.is_some()
        });
        let ports = ports.expect("the wait ended");
        let port = |name: &str| {
            let number = ports[name].as_u64().and_then(|port| u16::try_from(port).ok());
            SocketAddr::from((Ipv4Addr::LOCALHOST, number.unwrap_or_else(|| panic!("no port {name} in {ports}"))))
        };
        self.endpoint.set(port("mqtt"));
        self.http = Some(port("http"));
    }

    fn wait_for_ready(&mut self) {
        let address = self.http.expect("ports.json named it");
        wait_until("/ready says 200", || {
            assert!(self.is_running(), "the daemon ended while starting");
            matches!(http_get(address, "/ready"), Ok((200, _)))
        });
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn show_log(&self) {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("--- end of the daemon's log");
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            eprintln!("{line}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            self.show_log();
        }
    }
}

/// Waits until `condition` holds; a failure after [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// The folder of the target directory that holds the test's build: `debug` or `release`.
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a test lives in a folder");
    deps.parent().expect("deps lies within the profile folder").to_owned()
}

fn running_broker() -> Option<SocketAddr> {
    let text = std::env::var("POSTROAD_E2E_BROKER").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("POSTROAD_E2E_BROKER={text} is not host:port")))
}

/// A disk-backed folder: under the target directory, since /tmp may be memory and the log wants a disk.
fn new_folder() -> TempDir {
    let base = profile_folder().join("e2e-data");
    fs::create_dir_all(&base).expect("the target directory is writable");
    tempfile::Builder::new().prefix("daemon-").tempdir_in(base).expect("the target directory is writable")
}

/// The daemon, as built: `POSTROAD_BIN`, or beside the test.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("POSTROAD_BIN").map_or_else(|| profile_folder().join("postroad"), PathBuf::from);
    assert!(path.exists(), "{} is missing: `make test` builds it, or `cargo build -p postroad`", path.display());
    path
}

fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| std::io::Error::other(format!("no HTTP status in {head:?}")))?;
    Ok((code, body.to_owned()))
}
