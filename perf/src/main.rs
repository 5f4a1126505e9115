//! `postroad-bench`; see the library.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use postroad_perf::options::Options;
use postroad_perf::report::Report;
use postroad_perf::scenario;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("postroad-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn run() -> Result<bool> {
    let options = Options::parse();
    options.check()?;
    let mut print = |report: &mut Report| {
        report.command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        print!("{report}");
        match &options.json {
            Some(path) => fs::write(path, serde_json::to_vec_pretty(report).expect("a report is plain data"))
                .with_context(|| format!("cannot write {}", path.display())),
            None => Ok(()),
        }
    };
    let report = scenario::run(&options, &mut print)?;
    Ok(report.faults.is_empty() || options.tolerate_loss)
}
