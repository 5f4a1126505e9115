//! `postroad-bench`; see the library.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use postroad_perf::options::{Cli, Options, Tool};
use postroad_perf::report::Report;
use postroad_perf::{disturb, flamegraph, loopback, null_server, plot, scenario, stalls, summary, sync_probe};
use serde::Serialize;

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
    match Cli::parse() {
        Cli { tool: Some(tool), .. } => run_tool(&tool),
        Cli { load: Some(options), .. } => run_load(&options),
        Cli { tool: None, load: None } => Cli::command().print_help().map(|()| false).context("cannot print"),
    }
}

fn run_load(options: &Options) -> Result<bool> {
    options.check()?;
    let mut print = |report: &mut Report| {
        report.command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        hand_out(report, options.json.as_deref())
    };
    let report = scenario::run(options, &mut print)?;
    Ok(report.faults.is_empty() || options.tolerate_loss)
}

fn run_tool(tool: &Tool) -> Result<bool> {
    match tool {
        Tool::SyncProbe(options) => {
            options.check()?;
            hand_out(&sync_probe::run(options)?, options.json.as_deref())?;
        }
        Tool::Stalls(options) => {
            options.check()?;
            hand_out(&stalls::run(options), options.json.as_deref())?;
        }
        Tool::Loopback(options) => {
            options.check()?;
            hand_out(&loopback::run(options)?, options.json.as_deref())?;
        }
        Tool::NullServer(options) => null_server::run(options)?,
        Tool::Flamegraph(options) => flamegraph::run(options)?,
        Tool::Plot(options) => {
            options.check()?;
            plot::run(options)?;
        }
        Tool::Disturb(options) => {
            options.check()?;
            let report = disturb::run(options)?;
            hand_out(&report, options.json.as_deref())?;
            return Ok(report.opened > 0);
        }
        Tool::Summarize(options) => {
            options.check()?;
            print!("{}", summary::run(options)?);
        }
    }
    Ok(true)
}

/// Prints the findings and writes them as JSON, if a file was named.
fn hand_out(findings: &(impl Display + Serialize), json: Option<&Path>) -> Result<()> {
    print!("{findings}");
    let Some(path) = json else { return Ok(()) };
    fs::write(path, serde_json::to_vec_pretty(findings).expect("findings are plain data"))
        .with_context(|| format!("cannot write {}", path.display()))
}
