//! `postroad plugin check`.

use std::io::Write;

use anyhow::Result;
use postroad_plugins::check::{self, Severity};

use super::args::CheckArgs;
use super::files::{Author, find, limits};
use super::test::described;

/// Runs the command; whether nothing is wrong.
pub fn check(args: &CheckArgs) -> Result<bool> {
    let (authors, limits) = (find(&args.plugins)?, limits(&args.plugins)?);
    let mut out = std::io::stdout().lock();
    let (mut errors, mut warnings) = (0, 0);
    for Author { source, test } in &authors {
        for finding in check::check(source, test.as_ref(), &limits) {
            let is_error = finding.severity == Severity::Error;
            errors += usize::from(is_error);
            warnings += usize::from(!is_error);
            if args.json {
                let mut line = described(&finding.diagnostic);
                line["severity"] = if is_error { "error" } else { "warning" }.into();
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{finding}")?;
            }
        }
    }
    if !args.json {
        writeln!(out, "{} plugins: {errors} errors, {warnings} warnings", authors.len())?;
    }
    Ok(errors == 0 && (warnings == 0 || !args.strict))
}
