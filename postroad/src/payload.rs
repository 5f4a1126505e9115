//! What `postroad pub` and `postroad publish` publish: a text, a file, or standard input.

use std::io::{BufRead, Read};
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::PayloadArgs;

/// The message, unless each line is one.
pub fn whole(args: &PayloadArgs) -> Result<Vec<u8>> {
    Ok(given(args.message.as_deref(), args.file.as_deref(), args.stdin)?.unwrap_or_default())
}

/// The text, what a file holds, or all of standard input; `None`: nothing of these is wanted.
pub fn given(text: Option<&str>, file: Option<&Path>, stdin: bool) -> Result<Option<Vec<u8>>> {
    if let Some(text) = text {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    if let Some(path) = file {
        return std::fs::read(path).map(Some).with_context(|| format!("can't read {}", path.display()));
    }
    if !stdin {
        return Ok(None);
    }
    let mut payload = Vec::new();
    std::io::stdin().lock().read_to_end(&mut payload).context("can't read standard input")?;
    Ok(Some(payload))
}

/// The lines of standard input, without their ends.
pub fn lines() -> impl Iterator<Item = std::io::Result<Vec<u8>>> {
    let without_cr = |mut line: Vec<u8>| {
        line.pop_if(|last| *last == b'\r');
        line
    };
    std::io::stdin().lock().split(b'\n').map(move |line| line.map(without_cr))
}
