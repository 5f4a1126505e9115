//! `postroad serve` as a process.
//!
//! The binary is `POSTROAD_BIN`, or else `postroad` beside the test (the `debug` or `release` folder of the
//! target directory). After start-up it writes `ports.json` into its data directory. A running broker can be
//! named instead by `POSTROAD_E2E_BROKER=host:port`, to try the harness itself; tests that restart need our own.
//! [`Daemon::with_faults`] takes the debug build always: `cargo test` has put fault points into it (`tests/e2e/Cargo.toml`).
//! The process is killed when its [`Daemon`] is dropped, and its log is shown if the test failed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use crate::{PATIENCE, http};

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

    fn nowhere() -> Self {
        Self(Arc::new(Mutex::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))))
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
    http_endpoint: Endpoint,
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    binary: PathBuf,
    /// `POSTROAD_FAULT` of the next start; `None`: not a build with fault points.
    fault: Option<String>,
    /// Keeps a mount namespace in which the data directory is a small file system.
    small_disk: Option<Child>,
    files_max: Option<u64>,
}

impl Daemon {
    /// Starts one with default options.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these `key=value` options beside the listeners.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut daemon = Self::prepared(settings);
        match running_broker() {
            Some(address) => daemon.endpoint.set(address),
            None => daemon.launch(),
        }
        daemon
    }

    /// One that is not started yet.
    pub fn prepared(settings: &[&str]) -> Self {
        Self {
            process: None,
            folder: new_folder(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            endpoint: Endpoint::nowhere(),
            http_endpoint: Endpoint::nowhere(),
            http: None,
            grpc: None,
            binary: binary(),
            fault: None,
            small_disk: None,
            files_max: None,
        }
    }

    /// Starts one that has fault points, with this fault.
    pub fn with_faults(fault: &str, settings: &[&str]) -> Self {
        assert!(running_broker().is_none(), "a foreign broker has no fault points");
        let mut daemon = Self::prepared(settings);
        daemon.binary = profile_folder().join("postroad");
        daemon.set_fault(fault);
        daemon.launch();
        daemon
    }

    /// The fault of the next start.
    pub fn set_fault(&mut self, fault: &str) {
        self.fault = Some(fault.to_owned());
    }

    /// Puts the data directory on a file system of so many bytes, in a mount namespace of its own. Only root can; an
    /// `Err` says what the system had against it.
    pub fn shrink_disk(&mut self, bytes: u64) -> Result<(), String> {
        let data = self.folder.path().join("data");
        fs::create_dir_all(&data).expect("the folder is writable");
        let script = format!("mount -t tmpfs -o size={bytes} none '{}' && echo mounted && exec cat", data.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let mut said = [0; 8];
        let mounted = holder.stdout.as_mut().expect("piped").read_exact(&mut said);
        if mounted.is_err() {
            let mut why = String::new();
            holder.stderr.take().expect("piped").read_to_string(&mut why).map_err(|error| error.to_string())?;
            holder.wait().map_err(|error| error.to_string())?;
            return Err(why);
        }
        self.small_disk = Some(holder);
        Ok(())
    }

    /// Whether [`Daemon::shrink_disk`] has succeeded.
    pub fn has_small_disk(&self) -> bool {
        self.small_disk.is_some()
    }

    /// Gives its small disk so many bytes.
    pub fn grow_disk(&self, bytes: u64) {
        let holder = self.small_disk.as_ref().expect("shrunk before");
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", holder.id())).args(["mount", "-o"]);
        command.arg(format!("remount,size={bytes}")).arg(self.folder.path().join("data"));
        let done = command.status().expect("nsenter has worked before");
        assert!(done.success(), "the disk can't be grown: {done}");
    }

    /// How many files it may have open from its next start on.
    pub fn limit_files_at_start(&mut self, files: u64) {
        self.files_max = Some(files);
    }

    /// Starts it although it will end by itself, soon or after a while, and gives how it ended. Meanwhile the endpoint
    /// is where it listens, once it does.
    pub fn start_and_end(&mut self) -> ExitStatus {
        assert!(self.process.is_none(), "stop the daemon before starting it again");
        let path = self.data().join("ports.json");
        let _none_there = fs::remove_file(&path);
        self.spawn();
        let mut known = false;
        wait_until("the daemon listens or ends", || {
            known = self.read_ports(&path);
            known || !self.is_running()
        });
        self.wait_for_end()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        // It stays ours until then: one that does not end is killed with the test that fails.
        let mut status = None;
        wait_until("the daemon ends", || {
            let process = self.process.as_mut().expect("only a running daemon can end");
            status = process.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        self.process = None;
        status.expect("the wait ended")
    }

    /// Its configuration file, read at start and by [`Daemon::reload`].
    pub fn configure(&self, toml: &str) {
        fs::write(self.config_path(), toml).expect("the folder is writable");
    }

    /// SIGHUP, and the wait for what it has to say.
    pub fn reload(&self) {
        let before = self.log().matches("are read anew").count();
        self.signal(Signal::HUP);
        wait_until("the daemon reloads", || self.log().matches("are read anew").count() > before);
    }

    /// Sets the number of file descriptors that it may have from now on.
    pub fn limit_files(&self, files: u64) {
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a child's limits can be lowered");
    }

    /// File descriptors that it has open.
    pub fn open_files(&self) -> u64 {
        let listed = fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).expect("it is running");
        listed.count() as u64
    }

    /// All that it has written to its log so far, over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A figure of `/metrics`, summed over all lines of this name with this label (as it is written there, or nothing).
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = self.http("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
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

    /// Where its HTTP listener is, over restarts.
    pub fn http_endpoint(&self) -> Endpoint {
        self.http_endpoint.clone()
    }

    /// Where MQTT clients connect at present.
    pub fn mqtt(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// Its data directory, as this process sees it.
    pub fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        match &self.small_disk {
            Some(holder) => {
                let inside = data.strip_prefix("/").expect("the target directory is named in full");
                PathBuf::from(format!("/proc/{}/root", holder.id())).join(inside)
            }
            None => data,
        }
    }

    /// SIGKILL, in the midst of whatever it does.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("a child that was not waited for can be signalled");
        process.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and the exit status of the graceful stop.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("only a running daemon has a process"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child that was not waited for can be signalled");
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
        let answer = http::request(self.http_address(), &format!("GET {path}"), &[], &[]);
        let answer = answer.expect("the HTTP listener answers");
        (answer.code, answer.body)
    }

    /// Where its HTTP listener is.
    pub fn http_address(&self) -> SocketAddr {
        self.http.expect("our own daemon has an HTTP listener")
    }

    /// Where its gRPC listener is, if `listen.grpc` is set.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.expect("started with listen.grpc")
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    fn launch(&mut self) {
        let ports = self.data().join("ports.json");
        let _ = fs::remove_file(&ports);
        self.spawn();
        self.wait_for_ports(&ports);
        self.wait_for_ready();
        let has_points = self.fault.is_none() || self.log().contains("fault points are compiled in");
        assert!(
            has_points,
            "{} has no fault points: `cargo test -p postroad -p postroad-e2e --no-run` puts them in",
            self.binary.display()
        );
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the folder is writable");
        let error_log = log.try_clone().expect("a file can be duplicated");
        // Each of these replaces itself by what follows, so the child is the daemon.
        let mut words: Vec<OsString> = Vec::new();
        if let Some(holder) = &self.small_disk {
            words.extend(["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", holder.id()).into()]);
        }
        if let Some(files) = self.files_max {
            words.extend(["prlimit".into(), format!("--nofile={files}").into()]);
        }
        words.push(self.binary.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.arg("serve").arg("--data").arg(self.folder.path().join("data"));
        if self.config_path().exists() {
            command.arg("--config").arg(self.config_path());
        }
        // An answer that openapi.json does not know of ends its connection, in a release, too.
        command.env("POSTROAD_ASSERT_ANSWERS", "1");
        command.env_remove("POSTROAD_FAULT").envs(self.fault.as_ref().map(|fault| ("POSTROAD_FAULT", fault)));
        for listener in ["listen.mqtt=127.0.0.1:0", "listen.http=127.0.0.1:0"] {
            command.args(["--set", listener]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let process = command.stdin(Stdio::null()).stdout(log).stderr(error_log).spawn();
        self.process = Some(process.unwrap_or_else(|error| panic!("cannot start {}: {error}", self.binary.display())));
    }

    fn wait_for_ports(&mut self, path: &Path) {
        wait_until("the daemon writes ports.json", || {
            assert!(self.is_running(), "the daemon ended while starting");
            self.read_ports(path)
        });
    }

    /// Takes over where it listens; whether it says so by now.
    fn read_ports(&mut self, path: &Path) -> bool {
        let text = fs::read(path).ok();
        let Some(ports) = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok()) else {
            return false;
        };
        let port = |name: &str| {
            let number = ports[name].as_u64().and_then(|port| u16::try_from(port).ok());
            SocketAddr::from((Ipv4Addr::LOCALHOST, number.unwrap_or_else(|| panic!("no port {name} in {ports}"))))
        };
        self.endpoint.set(port("mqtt"));
        self.http = Some(port("http"));
        self.http_endpoint.set(port("http"));
        self.grpc = ports.get("grpc").map(|_| port("grpc"));
        true
    }

    fn wait_for_ready(&mut self) {
        let address = self.http.expect("ports.json named it");
        wait_until("/ready says 200", || {
            assert!(self.is_running(), "the daemon ended while starting");
            http::request(address, "GET /ready", &[], &[]).is_ok_and(|answer| answer.code == 200)
        });
    }

    fn config_path(&self) -> PathBuf {
        self.folder.path().join("postroad.toml")
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
        if let Some(mut holder) = self.small_disk.take() {
            let _ = holder.kill(); // the file system goes with the last process of its namespace
            let _ = holder.wait();
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
