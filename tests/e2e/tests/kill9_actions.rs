//! kill -9 of the real daemon in the midst of everything that one can do with messages. What must hold is said in `actions::ledger`.
//!
//! `POSTROAD_ROUNDS` kills (`make kill9 ROUNDS=200`); without it as many as fit into a run of all tests.

use postroad_e2e::actions::ledger::Ledger;
use std::fs::File;
use std::io::Write;

use postroad_e2e::actions::{self, SETTINGS};
use postroad_e2e::daemon::{Daemon, wait_until};
use postroad_e2e::random::Random;

const ROUNDS: usize = 50;
/// Deeds between two kills, at most.
const DEEDS_MAX: u64 = 60;
const SMALL_DISK_BYTES: u64 = 48 << 20;

/// Something of everything was done, and told in a line.
fn assert_tested(ledger: &Ledger, what: &str, deeds: &[&str]) {
    println!("{what}; {}", ledger.report());
    for deed in deeds {
        assert!(ledger.counted(deed) > 0, "the test did not test: nothing was counted as {deed}");
    }
}

/// [PER-1..6], [REL-1..8]
#[test]
fn whatever_is_half_done_when_the_server_is_killed_is_done_or_not() {
    let rounds = std::env::var("POSTROAD_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let random = Random::seeded("kill9-actions");
    let mut daemon = Daemon::start_with(&SETTINGS);
    let ledger = actions::run(&mut daemon, false, random, |daemon, siege| {
        for _ in 0..rounds {
            siege.wait_for_deeds(DEEDS_MAX);
            siege.kill(daemon);
            siege.restart(daemon);
        }
    });
    let deeds = [
        "taken",
        "given again",
        "requeued",
        "dropped",
        "imported",
        "parked or taken back",
        "looks that lease",
        "keys repeated",
    ];
    assert_tested(&ledger, &format!("{rounds} kills"), &deeds);
}

/// A daemon on a small disk of its own, if the system allows that.
fn on_a_small_disk(settings: &[&str]) -> Option<Daemon> {
    let mut daemon = Daemon::prepared(&[&SETTINGS[..], settings].concat());
    if let Err(why) = daemon.shrink_disk(SMALL_DISK_BYTES) {
        println!(
            "no small file system can be mounted here ({why}): faults.rs shows the same by an option and by a write that is made to fail"
        );
        return None;
    }
    daemon.restart();
    Some(daemon)
}

/// Takes all room but so many bytes of its disk; the daemon takes some meanwhile, too.
fn fill(daemon: &Daemon, left: u64) {
    const CHUNK: u64 = 64 << 10;
    let mut filler = File::create(daemon.data().join("filler")).expect("it is mounted");
    loop {
        let disk = rustix::fs::statvfs(daemon.data()).expect("it is mounted");
        let room = (disk.f_bavail * disk.f_frsize).saturating_sub(left);
        let chunk = vec![1; usize::try_from(room.min(CHUNK)).expect("a chunk is small")];
        if chunk.is_empty() || filler.write_all(&chunk).is_err() {
            return;
        }
    }
}

fn make_room(daemon: &Daemon) {
    std::fs::remove_file(daemon.data().join("filler")).expect("it was filled");
}

/// Below `storage.free_bytes_min` publishers, and callers of actions that store something, are told why; deliveries go on. Once there is room all goes
/// on; also where the server is killed while there is none.
#[test]
fn a_full_disk_refuses_what_has_to_be_stored_and_loses_nothing() {
    let Some(mut daemon) = on_a_small_disk(&["storage.free_bytes_min=8MiB"]) else { return };
    let ledger = actions::run(&mut daemon, true, Random::seeded("full-disk"), |daemon, siege| {
        for round in 0..4 {
            siege.wait_for_publishes(60);
            let before = siege.counted("publishes refused");
            fill(daemon, 4 << 20);
            wait_until("publishes are refused", || siege.counted("publishes refused") > before + 20);
            wait_until("imports are refused, too", || siege.is_import_refused());
            if round % 2 == 1 {
                siege.kill(daemon);
                siege.restart(daemon);
                siege.wait_for_publishes(5);
            }
            make_room(daemon);
            let before = siege.counted("taken");
            wait_until("all goes on", || siege.counted("taken") > before + 20);
            siege.kill(daemon);
            siege.restart(daemon);
        }
    });
    assert_tested(&ledger, "a full disk", &["taken", "publishes refused"]);
}

/// No room at all, and nothing that warns of it: the server ends, and says why. Once there is room, it has all that it has answered.
#[test]
fn a_disk_without_room_ends_the_server_and_loses_nothing() {
    let Some(mut daemon) = on_a_small_disk(&["storage.free_bytes_min=0B"]) else { return };
    let ledger = actions::run(&mut daemon, true, Random::seeded("no-room"), |daemon, siege| {
        for _ in 0..3 {
            siege.wait_for_publishes(60);
            fill(daemon, 0);
            let status = siege.wait_for_end(daemon);
            assert_eq!(status.code(), Some(1), "{status}");
            assert!(daemon.log().contains("No space left on device"), "{}", daemon.log());
            make_room(daemon);
            siege.restart(daemon);
        }
    });
    assert_tested(&ledger, "a disk without room", &["taken", "given again"]);
}
