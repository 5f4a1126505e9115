//! What `postroad pub` and `postroad publish` publish: a text, a file, or standard input.

use std::io::{BufRead, Read};

use anyhow::{Context, Result};

use crate::cli::PayloadArgs;

/// The message, unless each line is one.
pub fn whole(args: &PayloadArgs) -> Result<Vec<u8>> {
    if let Some(text) = &args.message {
        return Ok(text.clone().into_bytes());
    }
    if let Some(path) = &args.file {
        return std::fs::read(path).with_context(|| format!("can't read {}", path.display()));
    }
    let mut payload = Vec::new();
    if args.stdin {
        std::io::stdin().lock().read_to_end(&mut payload).context("can't read standard input")?;
    }
    Ok(payload)
}

/// The lines of standard input, without their ends.
pub fn lines() -> impl Iterator<Item = std::io::Result<Vec<u8>>> {
    let without_cr = |mut line: Vec<u8>| {
        line.pop_if(|last| *last == b'\r');
        line
    };
    std::io::stdin().lock().split(b'\n').map(move |line| line.map(without_cr))
}
