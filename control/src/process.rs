//! Figures of the process and the machine, read from `/proc` `[MON-1]`.
//!
//! Reading is apart from parsing, so that the parsers are tested with texts. What can't be read is left
//! out of the answer rather than shown as 0.

use std::fs;

/// Kernel ticks per second in `/proc/<pid>/stat`: the kernel's ABI fixes 100, whatever its own rate is.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessReport {
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub cpu_seconds: Option<f64>,
    pub open_files: Option<u64>,
    pub open_files_max: Option<u64>,
    pub devices: Vec<DeviceReport>,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    pub name: String,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// Reads the figures of this process.
pub fn read() -> ProcessReport {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let status = text("/proc/self/status");
    ProcessReport {
        resident_bytes: status_field(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024),
        virtual_bytes: status_field(&status, "VmSize:").map(|kilobytes| kilobytes * 1024),
        threads: status_field(&status, "Threads:"),
        cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
        open_files: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
        open_files_max: open_files_max(&text("/proc/self/limits")),
        devices: devices(&text("/proc/self/net/dev")),
    }
}

/// The number behind `name` in the text of `/proc/<pid>/status`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time. The command in parentheses may hold blanks and parentheses: count from the last one.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS_PER_SECOND)
}

/// The soft limit on open files.
fn open_files_max(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// The table of network cards.
fn devices(table: &str) -> Vec<DeviceReport> {
    table.lines().filter_map(device).collect()
}

fn device(line: &str) -> Option<DeviceReport> {
    let (name, figures) = line.split_once(':')?;
    let figures: Vec<&str> = figures.split_whitespace().collect();
    Some(DeviceReport {
        name: name.trim().to_owned(),
        received_bytes: figures.first()?.parse().ok()?,
        sent_bytes: figures.get(8)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_gives_kilobytes_and_threads() {
        let status = "Name:\tpostroad\nVmSize:\t    2048 kB\nVmRSS:\t     512 kB\nThreads:\t5\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(512));
        assert_eq!(status_field(status, "Threads:"), Some(5));
        assert_eq!(status_field(status, "Missing:"), None);
    }

    #[test]
    fn cpu_time_is_found_behind_a_nasty_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 5 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }

    #[test]
    fn cards_are_listed_with_both_directions() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n  \
            lo:    1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0\n";
        let lo = DeviceReport { name: "lo".into(), received_bytes: 1000, sent_bytes: 2000 };
        assert_eq!(devices(table), [lo]);
    }

    #[test]
    fn this_process_has_figures() {
        let report = read();
        assert!(report.resident_bytes.expect("Linux") > 0);
        assert!(report.threads.expect("Linux") > 0);
        assert!(report.open_files_max.expect("Linux") > 0);
    }
}
