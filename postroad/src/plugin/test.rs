//! `postroad plugin test`.

use std::io::Write;

use anyhow::{Result, bail};
use postroad_plugins::Diagnostic;
use postroad_plugins::kit::{self, CaseReport, Report};
use serde_json::{Value, json};

use super::args::TestArgs;
use super::files::{Author, find, limits};

/// Runs the command; whether every case went well.
pub fn test(args: &TestArgs) -> Result<bool> {
    let (authors, limits) = (find(&args.plugins)?, limits(&args.plugins)?);
    let mut out = std::io::stdout().lock();
    let mut total = Total::default();
    for Author { source, test } in &authors {
        let named = |case: &str| format!("{}: {case}", source.name);
        let wanted = |case: &str| args.filter.as_ref().is_none_or(|text| named(case).contains(text.as_str()));
        let report = kit::test(source, test.as_ref(), &limits, wanted);
        total.add(&report);
        if args.json { tell_json(&mut out, &report)? } else { tell(&mut out, &report)? }
    }
    if args.json {
        writeln!(out, "{}", json!({ "cases": total.cases, "failed": total.failed, "broken": total.broken }))?;
    } else {
        writeln!(out, "{}", total.text())?;
    }
    if total.cases == 0 && total.broken == 0 {
        bail!("no case was run: there is no NAME_test.lua and no self-test, or none of that name");
    }
    Ok(total.failed == 0 && total.broken == 0)
}

#[derive(Default)]
struct Total {
    cases: usize,
    failed: usize,
    /// Plugins and test files that could not be run.
    broken: usize,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.cases += report.cases.len();
        self.failed += report.cases.iter().filter(|case| case.failure.is_some()).count();
        self.broken += usize::from(!report.broken.is_empty());
    }

    fn text(&self) -> String {
        let Self { cases, failed, broken } = self;
        let mut text = format!("{cases} cases: {} ok, {failed} failed", cases - failed);
        if *broken > 0 {
            text += &format!("; {broken} plugins could not be tested");
        }
        text
    }
}

fn tell(out: &mut impl Write, report: &Report) -> Result<()> {
    for CaseReport { name, printed, failure } in &report.cases {
        let word = if failure.is_some() { "FAILED" } else { "ok" };
        writeln!(out, "{word:<6} {}: {name}", report.plugin)?;
        for line in printed {
            writeln!(out, "       | {line}")?;
        }
        if let Some(failure) = failure {
            writeln!(out, "{failure}")?;
        }
    }
    for flaw in &report.broken {
        writeln!(out, "FAILED {}\n{flaw}", report.plugin)?;
    }
    Ok(())
}

fn tell_json(out: &mut impl Write, report: &Report) -> Result<()> {
    for CaseReport { name, printed, failure } in &report.cases {
        let mut line = json!({ "plugin": report.plugin.as_str(), "case": name, "ok": failure.is_none() });
        if !printed.is_empty() {
            line["printed"] = json!(printed);
        }
        if let Some(failure) = failure {
            line["failure"] = described(failure);
        }
        writeln!(out, "{line}")?;
    }
    for flaw in &report.broken {
        writeln!(out, "{}", json!({ "plugin": report.plugin.as_str(), "ok": false, "failure": described(flaw) }))?;
    }
    Ok(())
}

/// A diagnostic as JSON.
pub fn described(diagnostic: &Diagnostic) -> Value {
    let Diagnostic { file, line, column, plugin, hook, message } = diagnostic;
    json!({ "file": file, "line": line, "column": column, "plugin": plugin.as_str(), "hook": hook, "message": message })
}
