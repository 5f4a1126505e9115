//! Retained messages for new subscribers, while they are published, across shards and crashes.

use postroad_sim::{Canary, RetainedOptions, RetainedReport, run_retained};

fn options(seed: u64, shards: u16) -> RetainedOptions {
    RetainedOptions { seed, shards, steps: 2_500, canary: None }
}

fn check(seeds: std::ops::Range<u64>, shards: u16) {
    let mut total = RetainedReport::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let report = run_retained(options(seed, shards)).unwrap_or_else(|what| panic!("{shards} shards, {what}"));
        total.acknowledged += report.acknowledged;
        total.live += report.live;
        total.retained += report.retained;
        total.subscribed += report.subscribed;
        total.crashes += report.crashes;
    }
    let at_least = |number: usize, each: u64| number as u64 >= each * count;
    assert!(at_least(total.acknowledged, 10) && at_least(total.live, 10), "an idle run proves nothing: {total:?}");
    assert!(at_least(total.retained, 10) && at_least(total.subscribed, 8), "{total:?}");
    assert!(total.crashes as u64 > count / 4, "{total:?}");
}

/// [MQTT-3.3.1-9]
#[test]
fn a_new_subscriber_gets_the_last_of_each_topic_once() {
    check(0..600, 3);
    check(1_000..1_200, 4);
    check(2_000..2_200, 2);
    check(3_000..3_100, 1);
}

/// Without fences a retained message is missed, or comes twice, or after a newer one.
#[test]
fn a_fence_that_overtakes_is_found() {
    let canary = Some(Canary::OvertakingFence);
    let found = (0..300).find_map(|seed| run_retained(RetainedOptions { canary, ..options(seed, 3) }).err());
    assert!(found.is_some(), "not found within 300 seeds");
}
