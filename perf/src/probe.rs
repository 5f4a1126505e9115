//! What the broker's process costs, from `/proc/PID`: CPU time and resident memory.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Clock ticks per second of `/proc/PID/stat`: a constant of the Linux user interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// CPU seconds, user and system, of all threads.
    pub cpu_seconds: f64,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Resident bytes that are anonymous: heap, stacks, rings.
    pub anonymous_bytes: u64,
    /// Most bytes that were ever resident, since the process began.
    pub peak_bytes: u64,
}

/// Looks at process `pid`.
pub fn sample(pid: u32) -> Result<Sample> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}; is it the broker's, and ours to see?"))
    };
    let rollup = read("smaps_rollup")?;
    Ok(Sample {
        cpu_seconds: cpu_seconds(&read("stat")?).context("unknown form of /proc/PID/stat")?,
        rss_bytes: field_bytes(&rollup, "Rss:").context("no Rss in smaps_rollup")?,
        anonymous_bytes: field_bytes(&rollup, "Anonymous:").context("no Anonymous in smaps_rollup")?,
        peak_bytes: field_bytes(&read("status")?, "VmHWM:").context("no VmHWM in status")?,
    })
}

/// Fields 14 and 15; the name in field 2 may hold spaces and brackets, so counting starts after the last one.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn field_bytes(rollup: &str, name: &str) -> Option<u64> {
    let line = rollup.lines().find(|line| line.starts_with(name))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Raises the soft limit on open files to the hard one; the new limit.
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 1 0 99 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nothing"), None);
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let rollup = "head\nRss:               12 kB\nPss: 3 kB\nAnonymous:          4 kB\n";
        assert_eq!(field_bytes(rollup, "Rss:"), Some(12_288));
        assert_eq!(field_bytes(rollup, "Swap:"), None);
    }

    #[test]
    fn this_process_can_be_seen() {
        let sample = sample(std::process::id()).unwrap();
        assert!(sample.rss_bytes >= sample.anonymous_bytes && sample.anonymous_bytes > 0);
        assert!(sample.peak_bytes > sample.anonymous_bytes);
    }
}
