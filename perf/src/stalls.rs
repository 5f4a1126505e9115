//! What the machine withholds from a thread that only reads the clock: the floor of every tail that is measured on it.
//!
//! On an idle core of a machine of one's own there are gaps of microseconds. On a shared one the host takes the core away
//! for milliseconds, most of all while the others are busy, too, without a trace in the accounts of the guest; no server
//! answers during that.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use crate::clock::{self, seconds};

/// Measure how much of the time a core is taken away from a thread that does nothing but read the clock.
#[derive(Args, Clone, Debug)]
pub struct StallsOptions {
    /// Time of the run.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Gaps of this many microseconds and more count.
    #[arg(long, default_value_t = 1000.0)]
    pub over_us: f64,
    /// Also write the findings here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl StallsOptions {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        if !(self.seconds > 0.0 && self.seconds <= 1e6 && self.over_us > 0.0) {
            bail!("--seconds must lie in 0..=1000000, --over-us above 0");
        }
        Ok(())
    }
}

/// Findings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StallsReport {
    /// Gaps that count.
    pub gaps: u64,
    /// Time in them, in percent of the run.
    pub percent: f64,
    /// The longest one, microseconds.
    pub max_us: f64,
}

/// Runs the tool.
pub fn run(options: &StallsOptions) -> StallsReport {
    let end = clock::now() + seconds(options.seconds);
    of_readings(std::iter::repeat_with(clock::now).take_while(|now| *now < end), options.over_us)
}

/// The gaps between readings of a clock, in nanoseconds.
fn of_readings(mut readings: impl Iterator<Item = u64>, over_us: f64) -> StallsReport {
    let Some(first) = readings.next() else { return StallsReport::default() };
    let (mut last, mut gaps, mut total, mut max) = (first, 0, 0, 0);
    for now in readings {
        let gap = now - last;
        max = max.max(gap);
        if gap as f64 >= over_us * 1e3 {
            gaps += 1;
            total += gap;
        }
        last = now;
    }
    let percent = if last > first { 100.0 * total as f64 / (last - first) as f64 } else { 0.0 };
    StallsReport { gaps, percent, max_us: max as f64 / 1e3 }
}

impl fmt::Display for StallsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gaps, percent, max_us } = self;
        writeln!(f, "stalls: {gaps} gaps, {percent:.2} % of the time, longest {max_us:.0} µs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_from_the_bound_on_and_their_time_is_a_share_of_all() {
        let report = of_readings([0, 10, 1_000_010, 1_999_000, 9_000_000, 10_000_000].into_iter(), 1000.0);
        assert_eq!((report.gaps, report.max_us), (3, 7001.0));
        assert!((report.percent - 90.01).abs() < 0.01, "{report}");
        assert_eq!(of_readings([5].into_iter(), 1.0), StallsReport::default());
    }

    #[test]
    fn it_ends_in_time() {
        let report = run(&StallsOptions { seconds: 0.02, over_us: 1000.0, json: None });
        assert!(report.percent <= 100.0 && report.max_us > 0.0, "{report}");
    }
}
