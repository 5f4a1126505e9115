//! `cargo run --release -p postroad-broker --example turns`: milliseconds of the turns that one packet makes long.

use std::sync::Arc;
use std::time::Instant;

use base::{ConnectionId, Placement, Qos, Sequence, SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter};
use postroad_base as base;
use postroad_broker::access::Acl;
use postroad_broker::api::{Event, Inbound, Subscribe};
use postroad_broker::{Broker, Config};
use support::{NOW, connect, message, settle};

mod support;

const EVERYTHING: &str =
    "[[rule]]\nprincipal = \"*\"\naction = [\"connect\", \"publish\", \"subscribe\"]\neffect = \"allow\"\n";

/// Events one after another, each committed; the longest turn of an event that is measured.
struct Shard {
    broker: Broker,
    appended: u64,
}

fn main() {
    for lines in [1_000, 10_000] {
        for order in ["in order", "backwards", "at random"] {
            subscribe(lines, order);
        }
    }
    for clients in [1_000, 10_000, 100_000] {
        push_to_all(clients);
    }
}

fn subscribe(lines: u64, order: &str) {
    let mut shard = Shard::new();
    shard.handle(connect(1, SessionExpiry::NEVER));
    let line = |n: u64| {
        let number = match order {
            "in order" => n,
            "backwards" => lines - n,
            _ => n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32,
        };
        let filter = TopicFilter::new(format!("building/{number:012}/temperature")).expect("a filter");
        Subscribe { filter: Ok(filter), options: SubscriptionOptions::default() }
    };
    let subscribe = |tag| {
        let filters = (0..lines).map(line).collect();
        Event::Subscribe { connection: ConnectionId(1), tag: Tag::new(tag).expect("not 0"), filters }
    };
    let (first, again) = (shard.handle(subscribe(1)), shard.handle(subscribe(2)));
    let filters = (0..lines).filter_map(|n| line(n).filter.ok()).map(Ok).collect();
    let end =
        shard.handle(Event::Unsubscribe { connection: ConnectionId(1), tag: Tag::new(3).expect("not 0"), filters });
    println!("SUBSCRIBE of {lines:6} lines, {order:9}: {first:7.2} ms, again {again:7.2} ms, UNSUBSCRIBE {end:7.2} ms");
}

fn push_to_all(clients: u64) {
    let mut shard = Shard::new();
    (0..clients).for_each(|number| _ = shard.handle(connect(number, SessionExpiry::NEVER)));
    let push = |tag| {
        let message = Inbound {
            message: message("$all/news", Qos::AtLeastOnce).into(),
            tag: Tag::new(tag),
            dup: false,
            flaw: None,
        };
        Event::Publish { connection: ConnectionId(0), message }
    };
    let (first, second) = (shard.handle(push(1)), shard.handle(push(2)));
    println!("$all/ to {clients:6} clients: {first:7.2} ms, the next {second:7.2} ms");
}

impl Shard {
    fn new() -> Self {
        let mut config = Config::new(ShardId(0), Placement::new(256, 1, [0; 16]), true, 1);
        config.limits.subscriptions_max = usize::MAX;
        let mut broker = Broker::new(config, Sequence(1));
        broker.set_access(Arc::new(Acl::parse(EVERYTHING).expect("rules")));
        Self { broker, appended: 0 }
    }

    /// Milliseconds until the event itself is handled; then what came of it is committed and acknowledged.
    fn handle(&mut self, event: Event) -> f64 {
        let begin = Instant::now();
        self.broker.handle(NOW, event);
        let took = begin.elapsed().as_secs_f64() * 1e3;
        settle(&mut self.broker, &mut self.appended, false);
        took
    }
}
