//! What the machine must offer, asked before anything starts, with words an operator can act on.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What glommio asks of RLIMIT_MEMLOCK.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was seen, and for `Missing` and `Weak` what to do.
    pub text: String,
}

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// The server runs, but not as well as it could.
    Weak,
    /// The server can't run.
    Missing,
}

/// Looks at everything. Writes and removes one small file in `data_dir`, which must exist.
pub fn probe(data_dir: &Path) -> Vec<Finding> {
    vec![io_uring(), memlock(), open_files(), disk_sync(data_dir)]
}

/// Whether an executor and the ring of a log can be made; the error says what is missing.
fn io_uring() -> Finding {
    let made = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).io_memory(64 << 10).spawn(|| async {});
    let executor = made.and_then(glommio::ExecutorJoinHandle::join).map_err(|error| error.to_string());
    let outcome = executor.and_then(|()| crate::log::probe_ring().map_err(|error| error.to_string()));
    let (state, text) = match outcome {
        Ok(()) => (State::Good, "available".to_owned()),
        Err(error) => (State::Missing, format!("{error}; {}", io_uring_advice())),
    };
    Finding { name: "io_uring", state, text }
}

fn io_uring_advice() -> String {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match disabled.trim() {
        "1" | "2" => "the kernel forbids it: set sysctl kernel.io_uring_disabled=0".to_owned(),
        _ => "it needs Linux 6.1 or later, RLIMIT_MEMLOCK of at least 512 KiB, and in a container a seccomp profile \
              that allows io_uring_setup, io_uring_enter and io_uring_register"
            .to_owned(),
    }
}

fn memlock() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let (state, text) = match limit {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => (
            State::Missing,
            format!(
                "{bytes} bytes; at least {MEMLOCK_BYTES_MIN} are needed: raise it (systemd: LimitMEMLOCK=infinity)"
            ),
        ),
        Some(bytes) => (State::Good, format!("{bytes} bytes")),
        None => (State::Good, "unlimited".to_owned()),
    };
    Finding { name: "memlock limit", state, text }
}

fn open_files() -> Finding {
    let limit = open_files_limit();
    let (state, advice) = if limit < 65_536 {
        (State::Weak, "; for many connections raise it (systemd: LimitNOFILE=1048576)")
    } else {
        (State::Good, "")
    };
    Finding { name: "open files limit", state, text: format!("{limit}{advice}") }
}

fn disk_sync(data_dir: &Path) -> Finding {
    let (state, text) = match sync_time(data_dir) {
        Ok(time) if time > Duration::from_millis(20) => {
            (State::Weak, format!("{time:.1?} for one fdatasync: acknowledgements will take at least as long"))
        }
        Ok(time) => (State::Good, format!("{time:.1?} for one fdatasync")),
        Err(error) => (State::Missing, format!("{}: {error}; make the directory writable", data_dir.display())),
    };
    Finding { name: "disk sync", state, text }
}

/// Median of a few appends, each with fdatasync.
fn sync_time(data_dir: &Path) -> io::Result<Duration> {
    let path = data_dir.join(".probe");
    let outcome = measure_sync(&path);
    let removed = fs::remove_file(&path);
    let time = outcome?;
    removed?;
    Ok(time)
}

fn measure_sync(path: &Path) -> io::Result<Duration> {
    let mut file = fs::File::create(path)?;
    file.write_all(&[0; 64 * 1024])?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(9);
    for round in 0..9 {
        let begin = Instant::now();
        file.write_all_at(&[round; 4096], u64::from(round) * 4096)?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// How many files may be open.
pub(crate) fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the limit of open files to what is allowed, and returns it.
pub(crate) fn raise_open_files_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, ?maximum, "the limit of open files could not be raised");
    }
    open_files_limit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_missing_and_says_so() {
        let finding = disk_sync(Path::new("/nonexistent/postroad"));
        assert_eq!(finding.state, State::Missing);
        assert!(finding.text.contains("/nonexistent/postroad"), "{}", finding.text);
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(disk_sync(dir.path()).name, "disk sync");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}
