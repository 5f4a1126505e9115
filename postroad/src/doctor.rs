//! `postroad doctor`: looks at what the server needs from the machine, in the words of `engine::probe`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use postroad_engine::probe::{Finding, State, probe};

use crate::options::{self, Sources};

/// Runs the command: exit code 1 if the server could not run.
pub fn doctor(sources: &Sources) -> Result<ExitCode> {
    let settings = options::load(sources)?;
    let data = &settings.engine.data_dir;
    let made = !data.exists();
    std::fs::create_dir_all(data).with_context(|| format!("can't make {}", data.display()))?;
    let findings = probe(data);
    if made {
        // Only looked: leave no trace. A directory that is not empty stays.
        let _stays = std::fs::remove_dir(data);
    }
    findings.iter().for_each(print);
    let missing = findings.iter().any(|finding| finding.state == State::Missing);
    println!("{}", if missing { "the server can't run here yet" } else { "the server can run here" });
    Ok(ExitCode::from(u8::from(missing)))
}

fn print(finding: &Finding) {
    let state = match finding.state {
        State::Good => "ok",
        State::Weak => "weak",
        State::Missing => "MISSING",
    };
    println!("{state:8}{}: {}", finding.name, finding.text);
}
