//! The old generation on a disk that keeps only what was synced: the power goes at every sync of a run, and what was
//! reported stored is there, whole, and nothing of a later retirement in part.
//!
//! The run is this same test binary, started again under `power_cut.c` by `LD_PRELOAD`.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use postroad_base::{Placement, Record, Sequence};
use postroad_storage::old::{IngestBatch, Old, OldConfig, Pending, StateKey};
use support::{begin, message, queue, recipient};
use tempfile::TempDir;

const DIRECTORY: &str = "POWER_CUT_DIRECTORY";
const ROUNDS: u64 = 8;
const PER_ROUND: u64 = 40;

fn open(path: &Path) -> Old {
    Old::open(path, OldConfig::new(Placement::new(256, 1, [3; 16]))).unwrap()
}

/// Round n: forty deliveries to two queues come, half of those of the round before go, and the state names the round.
fn round(n: u64) -> IngestBatch {
    let last = Sequence((n + 1) * PER_ROUND);
    let target = |sequence: u64| queue(0, 1 + sequence % 2);
    let pending = |sequence: u64| Pending {
        queue: target(sequence),
        sequence: Sequence(sequence),
        recipient: recipient(target(sequence)),
        message: message(sequence, 300),
    };
    let from = n * PER_ROUND;
    IngestBatch {
        as_of: last,
        upto: last,
        state: vec![(StateKey::Queue(queue(9, 9)), Some(vec![begin(queue(9, 9), &format!("round-{n}"))]))],
        pending: (from + 1..=from + PER_ROUND).map(pending).collect(),
        settled: settled_in(n).map(|sequence| (target(sequence), Sequence(sequence))).collect(),
        ended: Vec::new(),
    }
}

fn settled_in(n: u64) -> impl Iterator<Item = u64> {
    let before = n.saturating_sub(1) * PER_ROUND;
    (before + 1..=before + PER_ROUND / 2).filter(move |_| n > 0)
}

/// What is stored after `rounds` rounds.
fn expected(rounds: u64) -> Vec<u64> {
    let gone: Vec<u64> = (0..rounds).flat_map(settled_in).collect();
    (1..=rounds * PER_ROUND).filter(|sequence| !gone.contains(sequence)).collect()
}

fn stored(old: &Old) -> Vec<u64> {
    let backlogs = [1, 2].map(|n| old.read_backlog(queue(0, n), Sequence(0), usize::MAX, usize::MAX).unwrap());
    let mut sequences: Vec<_> = backlogs.iter().flat_map(|b| &b.entries).map(|entry| entry.sequence.0).collect();
    sequences.sort_unstable();
    sequences
}

fn verify(old: &Old) -> u64 {
    let rounds = old.upto().0 / PER_ROUND;
    assert_eq!(stored(old), expected(rounds));
    let mut state = Vec::new();
    old.load_state(&mut |_, record| state.push(record)).unwrap();
    let names: Vec<Record> =
        rounds.checked_sub(1).map(|n| begin(queue(9, 9), &format!("round-{n}"))).into_iter().collect();
    assert_eq!(state, names);
    rounds
}

/// Runs the rounds and reports each in a file beside the database once it is stored. By itself a test like any other;
/// under the preloaded library the process ends somewhere in it.
#[test]
fn run_the_rounds() {
    let own = TempDir::new().unwrap();
    let directory = std::env::var_os(DIRECTORY).map_or_else(|| own.path().to_owned(), PathBuf::from);
    let mut report = std::fs::File::create(directory.join("report")).unwrap();
    let old = open(&directory.join("old"));
    std::fs::File::open(&directory).unwrap().sync_all().unwrap();
    for n in 0..ROUNDS {
        old.ingest(round(n)).unwrap();
        report.write_all(b"x").unwrap();
        if n == ROUNDS / 2 {
            old.compact().unwrap();
        }
    }
    assert_eq!(verify(&old), ROUNDS);
}

fn build_library(into: &Path) -> PathBuf {
    let library = into.join("power_cut.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success(), "cc, which links this test too, builds the library");
    library
}

/// Puts the synced copies below `inode` together at `to`. A name whose file was never synced is an empty file.
fn restore(shadow: &Path, inode: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let Ok(names) = std::fs::read_to_string(shadow.join(inode)) else { return };
    for line in names.lines() {
        let [kind, inode, name] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let target = to.join(name);
        match (kind, std::fs::metadata(shadow.join(inode))) {
            ("d", _) => restore(shadow, inode, &target),
            // fjall's journal is 64 MiB of nothing.
            (_, Ok(copy)) if copy.len() > 16 << 20 => {
                std::fs::File::create(target).unwrap().set_len(copy.len()).unwrap();
            }
            (_, Ok(_)) => _ = std::fs::copy(shadow.join(inode), target).unwrap(),
            (_, Err(_)) => _ = std::fs::File::create(target).unwrap(),
        }
    }
}

#[test]
fn the_power_goes_at_every_sync_of_the_old_generation() {
    use std::os::unix::fs::MetadataExt;
    let build = TempDir::new().unwrap();
    let library = build_library(build.path());
    let (mut rounds_seen, mut opened) = (Vec::new(), 0);
    for cut_at in 0.. {
        let (run, shadow, after) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "run_the_rounds", "--test-threads=1"])
            .env("LD_PRELOAD", &library)
            .env("POWER_CUT_SHADOW", shadow.path())
            .env("POWER_CUT_AT", cut_at.to_string())
            .env(DIRECTORY, run.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "cut at {cut_at}: {}", String::from_utf8_lossy(&child.stdout));
        let finished = String::from_utf8_lossy(&child.stdout).contains("test result: ok");
        let reported = std::fs::metadata(run.path().join("report")).map_or(0, |report| report.len());
        let root = std::fs::metadata(run.path()).unwrap().ino().to_string();
        restore(shadow.path(), &root, after.path());
        // Until the first report the database may be half made: nothing was promised.
        if reported > 0 {
            let rounds = verify(&open(&after.path().join("old")));
            assert!(rounds >= reported, "cut at {cut_at}: {rounds} rounds, {reported} were reported");
            rounds_seen.push(rounds);
            opened += 1;
        }
        if finished {
            assert_eq!(rounds_seen.last(), Some(&ROUNDS));
            assert!(opened > 20, "{opened} cuts after the first report");
            return;
        }
    }
}
