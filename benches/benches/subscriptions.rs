//! What does it cost to find the subscribers of a topic, and to come and go, at up to a million filters?
//!
//! Topics are visited in a scattered order: at a million filters almost every one misses the caches, as it
//! would in life. One filter per device, one subscriber per filter; `fan-out` has all on one filter.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postroad_base::SubscriptionOptions;
use postroad_broker::index::{Retained, Subscriptions};

const COUNTS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Topics made beforehand, so that their making is not measured.
const TOPICS: u32 = 1 << 16;
/// A prime that no count shares a factor with: its multiples visit every device, far apart.
const STRIDE: u32 = 7_919;

type Index = Subscriptions<u32, SubscriptionOptions>;

/// A kind of filter: its name, and the filter of one device.
type Kind = (&'static str, fn(u32) -> String);

const KINDS: [Kind; 3] = [
    ("exact", topic),
    ("plus", |device| format!("fleet/{device}/+/door")),
    ("hash", |device| format!("fleet/{device}/#")),
];

fn topic(device: u32) -> String {
    format!("fleet/{device}/signals/door")
}

fn index((_, filter): Kind, count: u32) -> Index {
    let mut index = Index::default();
    for device in 0..count {
        index.insert(&filter(device), device, SubscriptionOptions::default());
    }
    index
}

fn scattered(count: u32, text: fn(u32) -> String) -> Vec<String> {
    (0..TOPICS).map(|n| text((u64::from(n) * u64::from(STRIDE) % u64::from(count)) as u32)).collect()
}

fn count_matches(index: &Index, topic: &str) -> u32 {
    let mut matches = 0;
    index.matches(topic, &mut |key, options| {
        black_box((key, options));
        matches += 1;
    });
    matches
}

fn one_subscriber(c: &mut Criterion) {
    for kind in KINDS {
        for count in COUNTS {
            let mut index = index(kind, count);
            let topics = scattered(count, topic);
            let mut next = topics.iter().cycle();
            assert_eq!(count_matches(&index, &topics[0]), 1);
            c.bench_function(&format!("match/{}/{count}", kind.0), |b| {
                b.iter(|| count_matches(&index, next.next().expect("endless")));
            });
            let others = scattered(count, |device| topic(device + 10_000_000));
            let mut next_other = others.iter().cycle();
            c.bench_function(&format!("match none/{}/{count}", kind.0), |b| {
                b.iter(|| count_matches(&index, next_other.next().expect("endless")));
            });
            let filters: Vec<String> = (count..count + TOPICS).map(kind.1).collect();
            let mut next_filter = filters.iter().cycle();
            c.bench_function(&format!("insert and remove/{}/{count}", kind.0), |b| {
                b.iter(|| {
                    let filter = next_filter.next().expect("endless");
                    index.insert(filter, 0, SubscriptionOptions::default());
                    index.remove(filter, 0)
                });
            });
        }
    }
}

fn all_kinds_at_once(c: &mut Criterion) {
    let mut index = Index::default();
    for (kind, device) in (0..1_000_000).map(|n| (KINDS[n as usize % 3], n / 3)) {
        index.insert(&kind.1(device), device, SubscriptionOptions::default());
    }
    let topics = scattered(333_333, topic);
    let mut next = topics.iter().cycle();
    assert_eq!(count_matches(&index, &topics[0]), 3);
    c.bench_function("match/3 of mixed/1000000", |b| {
        b.iter(|| count_matches(&index, next.next().expect("endless")));
    });
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    for count in [1_000, 1_000_000] {
        let mut index = Index::default();
        for key in 0..count {
            index.insert("all", key, SubscriptionOptions::default());
        }
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(BenchmarkId::new("match", count), |b| b.iter(|| count_matches(&index, "all")));
        let mut key = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("leave and join", count), |b| {
            b.iter(|| {
                key = (key + STRIDE) % count;
                index.remove("all", key);
                index.insert("all", key, SubscriptionOptions::default())
            });
        });
    }
}

fn retained(c: &mut Criterion) {
    for count in COUNTS {
        let mut index = Retained::default();
        for device in 0..count {
            index.insert(&topic(device), device);
        }
        let topics = scattered(count, topic);
        let mut next = topics.iter().cycle();
        c.bench_function(&format!("retained/replace/{count}"), |b| {
            b.iter(|| index.insert(next.next().expect("endless"), 0));
        });
        let filters = scattered(count, KINDS[2].1);
        let mut next = filters.iter().cycle();
        c.bench_function(&format!("retained/match 1 by #/{count}"), |b| {
            b.iter(|| {
                let mut matches = 0;
                index.matches(next.next().expect("endless"), &mut |_, _| matches += 1);
                assert_eq!(matches, 1);
            });
        });
        c.bench_function(&format!("retained/match 1,000 by +/{count}"), |b| {
            b.iter(|| {
                let mut matches = 0;
                index.portion("fleet/+/signals/door", Default::default(), 1_000, &mut |_, _| matches += 1);
                assert_eq!(matches, 1_000);
            });
        });
    }
}

criterion_group!(benches, one_subscriber, all_kinds_at_once, fan_out, retained);
criterion_main!(benches);
