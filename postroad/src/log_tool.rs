//! `postroad log check` and `postroad log repair`: looks at the message log while no server runs on it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use postroad_engine::data_directory::DataDirectory;

use crate::cli::LogAction;

/// Runs the command: exit code 1 if the server would refuse to open the log.
pub fn log(action: &LogAction) -> Result<ExitCode> {
    match action {
        LogAction::Check { directory } => check(directory),
        LogAction::Repair { directory } => repair(directory),
    }
}

fn check(directory: &Path) -> Result<ExitCode> {
    let reports = DataDirectory::open_existing(directory)?.check()?;
    let mut sound = true;
    for (shard, report) in reports.iter().enumerate() {
        let (segments, commits, records, last) = (report.segments, report.commits, report.records, report.last.0);
        println!("shard {shard}: {segments} segments, {commits} commits, {records} records, the last is {last}");
        for torn in &report.torn {
            println!(
                "  torn tail, normal after a crash: {} offset {}: {}",
                torn.segment.file_name(),
                torn.offset,
                torn.text
            );
        }
        for problem in &report.problems {
            println!("  DAMAGED: {} offset {}: {}", problem.segment.file_name(), problem.offset, problem.text);
        }
        for cut in &report.cut {
            println!("  repair would cut: {} offset {}: {}", cut.segment.file_name(), cut.offset, cut.text);
        }
        sound &= report.is_sound();
    }
    println!("{}", if sound { "the log is sound" } else { VERDICT_DAMAGED });
    Ok(ExitCode::from(u8::from(!sound)))
}

const VERDICT_DAMAGED: &str = "the log is damaged: restore the data directory from a backup, or accept the loss of \
                               what would be cut with: postroad log repair";

fn repair(directory: &Path) -> Result<ExitCode> {
    let reports = DataDirectory::open_existing(directory)?.repair()?;
    let mut cut = 0;
    for (shard, report) in reports.iter().enumerate() {
        for commit in &report.cut {
            println!("shard {shard}: cut {} offset {}: {}", commit.segment.file_name(), commit.offset, commit.text);
        }
        cut += report.cut.len();
    }
    match cut {
        0 => println!("nothing had to be cut"),
        _ => println!("{cut} commits are cut; their segments are kept in {}", directory.join("quarantine").display()),
    }
    Ok(ExitCode::SUCCESS)
}
