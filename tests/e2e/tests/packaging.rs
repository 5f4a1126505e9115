//! What stands in `packaging/`, applied to the real binary: the seccomp profile and what the unit counts on.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::binary;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

/// Debian's interpreter: python3-seccomp is a module of the distribution, whatever other Python is in the path.
fn seccomp_check(profile: &Path) -> Output {
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(packaging().join("seccomp-check.py"))
        .arg(binary())
        .arg(profile)
        .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command.output().expect("/usr/bin/python3 is there: tests/e2e/setup.sh installs it")
}

/// The profile had never been applied to a run; `clone` in it also made namespaces.
#[test]
fn the_seccomp_profile_allows_what_the_server_needs_and_no_more() {
    let output = seccomp_check(&packaging().join("seccomp.json"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

/// The check itself: a call that the server makes and the profile lacks is found.
#[test]
fn a_system_call_that_the_profile_lacks_is_named() {
    let whole = fs::read_to_string(packaging().join("seccomp.json")).unwrap();
    let lacking = whole.replace("\"sched_setaffinity\", ", "");
    assert_ne!(whole, lacking);
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("lacking.json");
    fs::write(&profile, lacking).unwrap();
    let output = seccomp_check(&profile);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("refused: sched_setaffinity"), "{stderr}");
}

/// `systemd-analyze` must find nothing to say about the unit; the binary need not be installed for that.
#[test]
fn the_unit_is_understood_by_systemd() {
    let unit = fs::read_to_string(packaging().join("postroad.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("postroad.service");
    fs::write(&copy, unit.replace("/usr/local/bin/postroad", binary().to_str().unwrap())).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output();
    let output = output.expect("systemd-analyze is there: tests/e2e/setup.sh installs it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}

/// A server under a service manager that listens to it.
struct Service {
    process: Child,
    manager: UnixDatagram,
    log: BufReader<std::process::ChildStderr>,
    _folder: tempfile::TempDir,
}

impl Service {
    /// With a watchdog of this many microseconds.
    fn start(watchdog: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(folder.path().join("data"));
        for setting in ["listen.mqtt=127.0.0.1:0", "listen.http=127.0.0.1:0", "shards=2"] {
            command.args(["--set", setting]);
        }
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", watchdog).env_remove("WATCHDOG_PID");
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let service = Self { process, manager, log, _folder: folder };
        assert!(service.heard().starts_with("READY=1"));
        service
    }

    /// The next message to the manager.
    fn heard(&self) -> String {
        let mut buffer = [0; 256];
        let size = self.manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..size]).into_owned()
    }

    /// What has been heard and not been looked at.
    fn heard_so_far(&self) -> Vec<String> {
        self.manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let mut messages = Vec::new();
        while let Ok(size) = self.manager.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..size]).into_owned());
        }
        self.manager.set_nonblocking(false).unwrap();
        messages
    }

    /// Reads the log up to a line with this text.
    fn wait_for_log(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended without {text:?}");
        }
    }

    /// The kernel's numbers of the threads of this name: a shard, and whoever does its blocking calls.
    fn threads(&self, name: &str) -> Vec<libc::pid_t> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let named = tasks
            .map(|task| task.unwrap().path())
            .filter(|task| fs::read_to_string(task.join("comm")).unwrap().trim_end() == name);
        let numbers: Vec<_> = named.map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
        assert!(!numbers.is_empty(), "no thread {name}");
        numbers
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One thread of a child, stopped as a debugger stops it; SIGSTOP would stop them all. It goes on when this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(thread: libc::pid_t) -> Self {
        ptrace(libc::PTRACE_SEIZE, thread);
        ptrace(libc::PTRACE_INTERRUPT, thread);
        // SAFETY: waitpid takes a null status.
        let stopped = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(stopped, thread, "{}", std::io::Error::last_os_error());
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        ptrace(libc::PTRACE_DETACH, self.0);
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) {
    let none: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: these requests read and write no memory of ours.
    let result = unsafe { libc::ptrace(request, thread, none, none) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// [HA-3]: the process lives, all its other threads run, but one shard takes no turn: the manager hears nothing, and so will
/// end it. When the shard goes on, the watchdog is fed again.
#[test]
fn the_watchdog_is_not_fed_while_a_single_shard_is_stuck() {
    let mut service = Service::start("1000000");
    while service.heard() != "WATCHDOG=1" {}
    let stopped: Vec<Stopped> = service.threads("shard-1").into_iter().map(Stopped::new).collect();
    let complaint = "shards took no turn: the watchdog is not fed";
    service.wait_for_log(complaint); // what was said before that may be of a turn before the stop
    service.heard_so_far();
    service.wait_for_log(complaint);
    service.wait_for_log(complaint);
    assert!(service.heard_so_far().is_empty());
    drop(stopped);
    while service.heard() != "WATCHDOG=1" {}
}
