//! `postroad plugin bench`.

use std::io::Write;

use anyhow::{Result, bail};
use postroad_plugins::trial::{Measured, Subjects, Trial, measure};
use serde_json::json;

use super::args::BenchArgs;
use super::files::{limits, set, told};
use super::messages::{self, Kept};

/// Runs the command; whether no call failed.
pub fn bench(args: &BenchArgs) -> Result<bool> {
    let now = messages::now()?;
    let mut trial = match Trial::new(&set(&args.plugins)?, &limits(&args.plugins)?, now) {
        Ok(trial) => trial,
        Err(flaws) => return told(&flaws),
    };
    let messages = args.messages.as_deref().map(messages::read).transpose()?.unwrap_or_default();
    let messages = messages.into_iter().map(|Kept { message, .. }| message).collect();
    let subjects = Subjects { messages, payload_bytes: args.payload };
    let measured = measure(&mut trial, &subjects, args.calls as usize, now);
    if measured.is_empty() {
        bail!("there is no hook to measure");
    }
    let mut out = std::io::stdout().lock();
    if !args.json {
        writeln!(
            out,
            "HOOK                      CALLS  ERRORS  MEDIAN NS     P99 NS    MEAN NS  BYTES/CALL  INSTRUCTIONS/CALL"
        )?;
    }
    for one in &measured {
        writeln!(out, "{}", if args.json { as_json(one) } else { as_line(one) })?;
    }
    Ok(measured.iter().all(|one| one.errors == 0))
}

fn as_line(measured: &Measured) -> String {
    let Measured { hook, calls, errors, median_ns, p99_ns, mean_ns, bytes, instructions } = measured;
    format!(
        "{hook:<21} {calls:>9} {errors:>7} {median_ns:>10} {p99_ns:>10} {mean_ns:>10.0} {bytes:>11.1} {instructions:>18.0}"
    )
}

fn as_json(measured: &Measured) -> String {
    let Measured { hook, calls, errors, median_ns, p99_ns, mean_ns, bytes, instructions } = measured;
    json!({
        "hook": hook, "calls": calls, "errors": errors, "median_ns": median_ns, "p99_ns": p99_ns, "mean_ns": mean_ns,
        "bytes_per_call": bytes, "instructions_per_call": instructions,
    })
    .to_string()
}
