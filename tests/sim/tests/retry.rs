//! What is not acknowledged on connections that live, through jams, breaks and crashes.

use postroad_sim::{Canary, RetryOptions, RetryReport, run_retry};

fn options(seed: u64) -> RetryOptions {
    RetryOptions { seed, steps: 3_000, canary: None }
}

/// [REL-2], [REL-4], [REL-6], [MQTT-4.4.0-1]
#[test]
fn what_is_acknowledged_does_not_come_again_and_what_is_not_does() {
    let mut total = RetryReport::default();
    for seed in 0..700 {
        let report = run_retry(options(seed)).unwrap_or_else(|what| panic!("{what}"));
        total.published += report.published;
        total.resent += report.resent;
        total.jams += report.jams;
        total.letters += report.letters;
        total.echoes += report.echoes;
        total.crashes += report.crashes;
    }
    assert!(total.published > 13_000 && total.resent > 13_000 && total.jams > 4_300, "{total:?}");
    assert!(total.letters > 2_100 && total.echoes > 4_300 && total.crashes > 340, "{total:?}");
}

/// A simulator that does not find a planted bug proves nothing.
#[test]
fn every_canary_is_found() {
    for canary in [Canary::RoadSaysClear, Canary::AttemptForgotten, Canary::SentAgainOnMqtt5] {
        let found = (0..100).find_map(|seed| run_retry(RetryOptions { canary: Some(canary), ..options(seed) }).err());
        println!("{canary:?}: {}", found.unwrap_or_else(|| panic!("{canary:?} was not found")));
    }
}
