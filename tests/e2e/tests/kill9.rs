//! kill -9 of the real daemon, again and again, under traffic. What must hold is said in `storm`.

use postroad_e2e::daemon::Daemon;
use postroad_e2e::random::Random;
use postroad_e2e::storm;

const KILLS: usize = 12;
/// Acknowledged messages between two kills: from this many to twice as many, or one.
const MESSAGES_PER_LIFE: u64 = 400;

#[test]
fn nothing_acknowledged_is_lost() {
    let mut random = Random::seeded("kill9");
    let mut daemon = Daemon::start_with(&["shards=2"]);
    let kills = if daemon.is_foreign() { 0 } else { KILLS };
    storm::run(&mut daemon, kills, |daemon, traffic| {
        // Now and then at once, in the midst of the reconnects and what they resend.
        let messages = if random.below(3) == 0 { 1 } else { MESSAGES_PER_LIFE + random.below(MESSAGES_PER_LIFE) };
        traffic.wait_for(messages);
        daemon.kill();
        daemon.restart();
    });
}

/// Each life with another number of shards, and a young generation so small that much is in the old one.
#[test]
fn nothing_is_lost_or_doubled_with_another_number_of_shards() {
    let mut random = Random::seeded("kill9-shards");
    let mut daemon = Daemon::start_with(&["shards=2", "log.segment_bytes=64KiB", "log.young_bytes=1MiB"]);
    let kills = if daemon.is_foreign() { 0 } else { KILLS };
    let mut shards = 2;
    storm::run(&mut daemon, kills, |daemon, traffic| {
        let messages = if random.below(3) == 0 { 1 } else { MESSAGES_PER_LIFE + random.below(MESSAGES_PER_LIFE) };
        traffic.wait_for(messages);
        daemon.kill();
        shards = (shards + random.below(4)) % 5 + 1;
        daemon.set(&format!("shards={shards}"));
        daemon.restart();
    });
}
