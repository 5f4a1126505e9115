//! Writes the fixture directory of the current format: `cargo run -p postroad-storage --example make_fixture -- <directory>`.
//! Run it once per released format; the result is kept for ever in `tests/fixtures/`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;

use postroad_base::{Record, SubscriptionOptions, TopicFilter};
use support::{begin, life, message, publish, queue, settle};

fn main() {
    let path = std::env::args().nth(1).expect("usage: make_fixture <directory>");
    let path = Path::new(&path);
    let (_directory, mut shards) = life::open(path, 1);
    let shard = &mut shards[0];
    for n in 0..4 {
        let queue = queue(n, 1);
        shard.write(begin(queue, &format!("client-{n}")));
        let filter = TopicFilter::new(format!("topic/{n}/#")).expect("valid");
        shard.write(Record::Subscribe { queue, filter, options: SubscriptionOptions::default() });
    }
    shard.write(Record::Retain { message: message(77, 20) });
    let queues: Vec<_> = (0..4).map(|n| queue(n, 1)).collect();
    for n in 0..20 {
        let sequence = shard.write(publish(n, 500, &queues[..1 + n as usize % 4]));
        if n % 3 == 0 {
            shard.write(settle(queues[0], sequence));
        }
        if n == 12 {
            shard.retire();
        }
    }
}
