//! Many seeds without a bug, and few until a planted bug is found.

use postroad_sim::{Canary, Options, Report, run};

fn sum(total: Report, report: Report) -> Report {
    Report {
        published: total.published + report.published,
        acknowledged: total.acknowledged + report.acknowledged,
        received: total.received + report.received,
        crashes: total.crashes + report.crashes,
        disconnects: total.disconnects + report.disconnects,
        parks: total.parks + report.parks,
        retirements: total.retirements + report.retirements,
        portions: total.portions + report.portions,
    }
}

fn check(seeds: std::ops::Range<u64>, options: impl Fn(u64) -> Options) {
    let runs = seeds.clone().map(|seed| run(options(seed)).unwrap_or_else(|what| panic!("{what}")));
    let total = runs.fold(Report::default(), sum);
    let count = seeds.count();
    assert!(total.acknowledged > 10 * count, "an idle simulation proves nothing: {total:?}");
    assert!(total.received > 10 * count && total.disconnects > count, "{total:?}");
    assert!(total.crashes > count / 2 && total.retirements > count && total.portions > count / 10, "{total:?}");
}

/// [PER-1], [MQTT-4.3.2], [MQTT-4.3.3], [MQTT-4.6.0-6]
#[test]
fn promises_hold_on_three_shards_with_a_single_credit() {
    check(0..150, Options::new);
}

#[test]
fn promises_hold_on_one_shard() {
    check(1_000..1_080, |seed| Options { shards: 1, ..Options::new(seed) });
}

#[test]
fn promises_hold_on_two_shards_with_many_credits() {
    check(2_000..2_080, |seed| Options { shards: 2, credits: 100, ..Options::new(seed) });
}

/// A simulator that does not find a planted bug proves nothing.
#[test]
fn every_canary_is_found() {
    for canary in [
        Canary::CommitTooEarly,
        Canary::LostForward,
        Canary::NoTagRecords,
        Canary::NoRegistrationQueue,
        Canary::BacklogOutOfOrder,
    ] {
        let found = (0..100).find_map(|seed| run(Options { canary: Some(canary), ..Options::new(seed) }).err());
        assert!(found.is_some(), "{canary:?} was not found within 100 seeds");
    }
}

/// `SEED=7 SHARDS=3 cargo test -p postroad-sim one_seed -- --nocapture` shows a run; without a seed, seed 0.
#[test]
fn one_seed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SEED").unwrap_or(0);
    let shards = number("SHARDS").map_or(3, |shards| shards as u16);
    let credits = number("CREDITS").map_or(1, |credits| credits as u32);
    let trace = number("SEED").is_some();
    run(Options { shards, credits, trace, ..Options::new(seed) }).unwrap_or_else(|what| panic!("{what}"));
}
