//! `postroad plugin fmt-check`.

use std::io::Write;

use anyhow::{Context, Result};
use postroad_plugins::text::{Flaw, flaws};
use serde_json::json;

use super::args::FmtCheckArgs;
use super::files::lua_files;

/// Runs the command; whether everything is formatted.
pub fn fmt_check(args: &FmtCheckArgs) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    let (mut is_good, files) = (true, lua_files(&args.paths)?);
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        for Flaw { line, column, rule, text } in flaws(&text) {
            is_good = false;
            if args.json {
                let flaw = json!({ "file": file, "line": line, "column": column, "rule": rule, "message": text });
                writeln!(out, "{flaw}")?;
            } else {
                writeln!(out, "{}:{line}:{column}: {rule}: {text}", file.display())?;
            }
        }
    }
    if is_good && !args.json {
        writeln!(out, "{} files are formatted", files.len())?;
    }
    Ok(is_good)
}
