//! What an append with its fdatasync costs on a disk, without any broker: the floor of every durable acknowledgement.
//!
//! The file is made as the server makes its segments: real zeros, synced, so that an append allocates nothing and its
//! fdatasync writes no metadata; then it is written block after block, round and round. O_DIRECT where the file system
//! has it. Alone (`postroad-bench sync-probe`) appends follow each other at once or at a rate; beside a load
//! (`--sync-probe DIR`) a thread of its own appends some times per second, few enough to disturb nothing.
//!
//! Two times are kept of each append: from when it began, and from when it was due. The second is what an open loop says
//! of the messages beside it: a machine that stands still for 8 ms delays every message that is due meanwhile, and a probe
//! that starts its clock after the pause would say nothing of it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::setpriority_process;
use rustix::thread::set_current_timer_slack;
use serde::Serialize;

use crate::clock::{self, seconds};
use crate::latency::{Latency, Summary};

/// What O_DIRECT wants sizes, offsets and memory to be a multiple of, on every disk that we know.
const BLOCK_BYTES: usize = 4096;
/// Length of the file; appends begin anew at its end.
const FILE_BYTES: usize = 8 << 20;
/// Time between two samples beside a load, in nanoseconds.
const SAMPLE_EVERY: u64 = 50_000_000;
/// By how much the kernel may delay the thread that samples, to save itself a wake-up.
const SAMPLER_SLACK_NANOS: NonZeroU64 = NonZeroU64::new(1000).expect("1000 is not 0");
/// Priority of the thread that samples, as `nice` counts: above the load's.
const SAMPLER_NICE: i32 = -20;

/// Measure an append with its fdatasync on a disk, without any broker.
#[derive(Args, Clone, Debug)]
pub struct SyncProbeOptions {
    /// Directory on the disk in question; a file is made in it and removed.
    #[arg(long)]
    pub dir: PathBuf,
    /// Bytes of an append, a multiple of 4096.
    #[arg(long, default_value_t = BLOCK_BYTES)]
    pub bytes: usize,
    /// Time of the run.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Appends per second; without it each follows the last at once.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Also write the findings here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl SyncProbeOptions {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        check_bytes(self.bytes)?;
        if !(self.seconds > 0.0 && self.seconds <= 1e6) {
            bail!("--seconds {} is outside 0..=1000000", self.seconds);
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            bail!("--rate must be above 0");
        }
        Ok(())
    }
}

/// Refuses a size that O_DIRECT or the file could not take.
pub fn check_bytes(bytes: usize) -> Result<()> {
    if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || bytes > FILE_BYTES {
        bail!("a sync probe appends a multiple of {BLOCK_BYTES} bytes, up to {FILE_BYTES}, not {bytes}");
    }
    Ok(())
}

/// Findings.
#[derive(Clone, Debug, Serialize)]
pub struct SyncReport {
    /// Bytes of each append.
    pub bytes: usize,
    /// By O_DIRECT; else through the page cache.
    pub direct: bool,
    /// Write and fdatasync together: what a durable acknowledgement has to wait for at the least.
    pub append: Summary,
    /// The same from when it was due: with what the machine withheld before it could begin.
    pub append_from_due: Summary,
    /// The fdatasync alone.
    pub sync: Summary,
}

/// Runs the tool.
pub fn run(options: &SyncProbeOptions) -> Result<SyncReport> {
    let mut probe = Probe::new(&options.dir, options.bytes)?;
    let start = clock::now();
    let end = start + seconds(options.seconds);
    for append in 0u64.. {
        let due = options.rate.map_or_else(clock::now, |rate| start + seconds(append as f64 / rate));
        if due.max(clock::now()) >= end {
            break;
        }
        sleep_until(due);
        probe.append(due).context("the probe's file can't be written")?;
    }
    Ok(probe.report())
}

/// A thread that samples until it is stopped.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<SyncReport>>,
}

impl Sampler {
    /// Starts to sample in `dir` with appends of `bytes`.
    pub fn start(dir: &Path, bytes: usize) -> Result<Self> {
        let mut probe = Probe::new(dir, bytes)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Its core is the generator's too. A sync that has ended but waits for its turn there would look like a slow
            // disk, and flatter the broker. Without the privilege the figures are a little larger.
            let _unprivileged = setpriority_process(None, SAMPLER_NICE);
            set_current_timer_slack(Some(SAMPLER_SLACK_NANOS))?;
            let mut due = clock::now();
            while !stopped.load(Ordering::Relaxed) {
                due += SAMPLE_EVERY;
                sleep_until(due);
                probe.append(due)?;
            }
            Ok(probe.report())
        });
        Ok(Self { stop, thread })
    }

    /// Ends it.
    pub fn stop(self) -> Result<SyncReport> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.thread.join().expect("a panic of the sampler is a bug, and has been printed");
        report.context("the sync probe's file can't be written")
    }
}

fn sleep_until(due: u64) {
    std::thread::sleep(Duration::from_nanos(due.saturating_sub(clock::now())));
}

struct Probe {
    path: PathBuf,
    file: File,
    direct: bool,
    memory: Vec<u8>,
    bytes: usize,
    at: usize,
    append: Latency,
    append_from_due: Latency,
    sync: Latency,
}

impl Probe {
    fn new(dir: &Path, bytes: usize) -> Result<Self> {
        let path = dir.join(format!("sync-probe-{}.tmp", std::process::id()));
        let make = || -> io::Result<(File, bool)> {
            let zeros = File::create(&path)?;
            zeros.write_all_at(&vec![0; FILE_BYTES], 0)?;
            zeros.sync_all()?;
            open(&path)
        };
        let (file, direct) = make().with_context(|| format!("cannot make {}", path.display()))?;
        let memory = vec![0x5A; bytes + BLOCK_BYTES];
        let (append, append_from_due, sync) = (Latency::new(), Latency::new(), Latency::new());
        Ok(Self { path, file, direct, memory, bytes, at: 0, append, append_from_due, sync })
    }

    /// One append, which was due at that time.
    fn append(&mut self, due: u64) -> io::Result<()> {
        if self.at + self.bytes > FILE_BYTES {
            self.at = 0;
        }
        let aligned = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        let begin = clock::now();
        self.file.write_all_at(&self.memory[aligned..aligned + self.bytes], self.at as u64)?;
        let written = clock::now();
        self.file.sync_data()?;
        let end = clock::now();
        self.append.record(end, begin);
        self.append_from_due.record(end, due);
        self.sync.record(end, written);
        self.at += self.bytes;
        Ok(())
    }

    fn report(&self) -> SyncReport {
        SyncReport {
            bytes: self.bytes,
            direct: self.direct,
            append: self.append.summary(),
            append_from_due: self.append_from_due.summary(),
            sync: self.sync.summary(),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path); // nobody reads it again; a leftover is small and named
    }
}

/// Opens for writing, by O_DIRECT if the file system lets us; tmpfs and some overlays don't.
fn open(path: &Path) -> io::Result<(File, bool)> {
    match OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((OpenOptions::new().write(true).open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

impl fmt::Display for SyncReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.direct { "O_DIRECT" } else { "through the page cache" };
        writeln!(f, "sync probe, {} bytes, {how}, {} appends", self.bytes, self.append.count)?;
        let times = [
            ("append + fdatasync", &self.append),
            ("… from when due", &self.append_from_due),
            ("fdatasync alone", &self.sync),
        ];
        for (name, s) in times {
            writeln!(f, "  {name:18} p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs", s.p50_us, s.p99_us, s.max_us)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("postroad-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).expect("the probe has removed its file");
        }
    }

    #[test]
    fn appends_go_round_and_leave_nothing() {
        let directory = Directory::new("round");
        let mut probe = Probe::new(&directory.0, FILE_BYTES / 2).unwrap();
        for _ in 0..3 {
            probe.append(clock::now()).unwrap();
        }
        assert_eq!(probe.at, FILE_BYTES / 2, "the third one began anew");
        assert_eq!(fs::metadata(&probe.path).unwrap().len(), FILE_BYTES as u64);
        let report = probe.report();
        assert_eq!((report.append.count, report.sync.count), (3, 3));
        assert!(report.append.max_us >= report.sync.max_us, "{report}");
    }

    /// A pause before the append counts from when it was due, and only there.
    #[test]
    fn what_begins_late_counts_from_when_it_was_due() {
        let directory = Directory::new("due");
        let mut probe = Probe::new(&directory.0, BLOCK_BYTES).unwrap();
        probe.append(clock::now() - seconds(5.0)).unwrap();
        let report = probe.report();
        assert!(report.append_from_due.max_us >= 4.9e6 && report.append.max_us < 4.9e6, "{report}");
    }

    #[test]
    fn a_rate_bounds_the_appends() {
        let directory = Directory::new("rate");
        let (dir, json) = (directory.0.clone(), None);
        let report = run(&SyncProbeOptions { dir, bytes: 4096, seconds: 0.2, rate: Some(50.0), json }).unwrap();
        assert!(report.append.count <= 10, "{report}");
    }

    #[test]
    fn a_sampler_that_is_stopped_reports() {
        let directory = Directory::new("sampler");
        let report = Sampler::start(&directory.0, 8192).unwrap().stop().unwrap();
        assert_eq!(report.bytes, 8192);
    }

    #[test]
    fn sizes_that_o_direct_refuses_are_refused() {
        for bytes in [0, 100, 4097, FILE_BYTES + BLOCK_BYTES] {
            check_bytes(bytes).expect_err("not a multiple of a block, or too long");
        }
        check_bytes(FILE_BYTES).unwrap();
    }
}
