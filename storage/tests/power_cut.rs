//! The old generation on a disk that keeps only what was synced: the power goes at every sync of a run, and what was
//! reported stored is there, whole, and nothing of a later retirement in part.
//!
//! The run is this same test binary, started again under `power_cut.c` by `LD_PRELOAD`.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postroad_base::{MessageId, Placement, Record, Sequence, Tag};
use postroad_storage::directory::{DataDirectory, DirectoryOptions};
use postroad_storage::old::{IngestBatch, Old, OldConfig, Pending, StateKey};
use support::{begin, inbound, life, message, publish_once, queue, recipient};
use tempfile::TempDir;

const DIRECTORY: &str = "POWER_CUT_DIRECTORY";
const ROUNDS: u64 = 8;
const PER_ROUND: u64 = 40;

/// One test of this file at a time: a child that one of them has just forked holds copies of the other's descriptors, its
/// directory lock among them, until it has become its program. `InUse` was seen once for that.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    let _alone = alone();
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
            (_, Ok(copy)) => copy_file(&shadow.join(inode), copy.len(), &target),
            (_, Err(_)) => _ = std::fs::File::create(target).unwrap(),
        }
    }
}

fn copy_file(from: &Path, bytes: u64, to: &Path) {
    // fjall's journal is 64 MiB of nothing.
    if bytes > 16 << 20 {
        std::fs::File::create(to).unwrap().set_len(bytes).unwrap();
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// Runs a test of this binary in `run` with the power going at a sync. What is left, and whether it finished before.
fn cut(library: &Path, test: &str, run: &Path, cut_at: usize) -> (TempDir, bool) {
    use std::os::unix::fs::MetadataExt;
    let (shadow, after) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env("LD_PRELOAD", library)
        .env("POWER_CUT_SHADOW", shadow.path())
        .env("POWER_CUT_AT", cut_at.to_string())
        .env(DIRECTORY, run)
        .output()
        .unwrap();
    assert!(child.status.success(), "cut at {cut_at}: {}", String::from_utf8_lossy(&child.stdout));
    let root = std::fs::metadata(run).unwrap().ino().to_string();
    restore(shadow.path(), &root, after.path());
    (after, String::from_utf8_lossy(&child.stdout).contains("test result: ok"))
}

#[test]
fn the_power_goes_at_every_sync_of_the_old_generation() {
    let _alone = alone();
    let build = TempDir::new().unwrap();
    let library = build_library(build.path());
    let (mut rounds_seen, mut opened) = (Vec::new(), 0);
    for cut_at in 0.. {
        let run = TempDir::new().unwrap();
        let (after, finished) = cut(&library, "run_the_rounds", run.path(), cut_at);
        let reported = std::fs::metadata(run.path().join("report")).map_or(0, |report| report.len());
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

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => copy(&entry.path(), &target),
            metadata => copy_file(&entry.path(), metadata.len(), &target),
        }
    }
}

/// Syncs a whole tree, names and all; how many syncs that took.
fn sync_tree(path: &Path) -> usize {
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    if !path.is_dir() {
        return 1;
    }
    1 + std::fs::read_dir(path).unwrap().map(|entry| sync_tree(&entry.unwrap().path())).sum::<usize>()
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1");

/// The fixture, and QoS 2 messages on their way in and out.
fn prepare_move(path: &Path) {
    copy(Path::new(FIXTURE), path);
    let (_directory, mut shards) = life::open(path, 1);
    let (publisher, subscriber, shard) = (queue(0, 1), queue(1, 1), &mut shards[0]);
    for n in 101..105 {
        let sequence = shard.write(publish_once(n, 40, &[subscriber, queue(2, 1)]));
        shard.write(inbound(publisher, n as u16, message(n, 0).id));
        shard.write(Record::Tagged { queue: subscriber, sequence, tag: Tag::new(n as u16).unwrap() });
        if n == 103 {
            shard.write(Record::Received { queue: subscriber, sequence });
            shard.retire();
        }
    }
}

/// Everything that waits, the state, and who has what may be repeated, of a directory with so many shards.
fn everything(path: &Path, shards: u16) -> (Vec<String>, Vec<String>, BTreeMap<MessageId, life::Takers>) {
    let (_directory, shards) = life::open(path, shards);
    let mut waiting: Vec<_> = shards.iter().flat_map(|shard| shard.waiting()).map(|one| format!("{one:?}")).collect();
    let state = shards.iter().flat_map(|shard| shard.lasting_records());
    let mut state: Vec<_> = state.map(|one| format!("{one:?}")).collect();
    waiting.sort();
    state.sort();
    (waiting, state, life::taken(&shards))
}

/// Moves a directory from one shard to two. Under the preloaded library, where one is given, it ends somewhere in it.
#[test]
fn move_to_two_shards() {
    let _alone = alone();
    let own = TempDir::new().unwrap();
    let directory = std::env::var_os(DIRECTORY).map(PathBuf::from).unwrap_or_else(|| {
        prepare_move(own.path());
        own.path().to_owned()
    });
    sync_tree(&directory);
    let moved = DataDirectory::open(&directory, DirectoryOptions { shards: 2, partitions: 16 }).unwrap();
    assert_eq!(moved.manifest().shards(), 2);
}

/// Wherever it is cut, the old set is whole or the new one, and the move can be done again.
#[test]
fn the_power_goes_at_every_sync_of_a_change_of_shards() {
    let _alone = alone();
    let (build, source, whole) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let library = build_library(build.path());
    prepare_move(source.path());
    let prepared = sync_tree(source.path());
    copy(source.path(), whole.path());
    let expected = everything(whole.path(), 1);
    assert!(expected.0.len() > 30 && expected.2.len() == 4);
    let mut seen = BTreeSet::new();
    for cut_at in prepared.. {
        let run = TempDir::new().unwrap();
        copy(source.path(), run.path());
        let (after, finished) = cut(&library, "move_to_two_shards", run.path(), cut_at);
        let shards = DataDirectory::open_existing(after.path()).unwrap().manifest().shards();
        seen.insert(shards);
        assert_eq!(everything(after.path(), shards), expected, "cut at {cut_at}, {shards} shards");
        if cut_at % 8 == 0 {
            assert_eq!(everything(after.path(), 2), expected, "cut at {cut_at}, moved again");
        }
        if finished {
            assert!(shards == 2 && seen.contains(&1));
            return;
        }
    }
}
