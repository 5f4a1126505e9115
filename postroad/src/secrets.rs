//! Files that hold secrets' hashes, and secrets that are shown once.
//!
//! A file is written beside the old one and renamed over it: a reader sees the old file or the new one.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, Result};

/// The text of a file; nothing if there is none.
pub fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("can't read {}", path.display())),
    }
}

/// Writes the text where it belongs; without a file it is printed.
pub fn give_out(file: Option<&Path>, text: &str) -> Result<()> {
    let Some(path) = file else {
        print!("{text}");
        return Ok(());
    };
    write(path, text)
}

/// Shows a secret this once: on standard output, so that a script can take it, unless the file is printed there.
pub fn show(secret: &str, file: Option<&Path>) {
    if file.is_some() { println!("{secret}") } else { eprintln!("{secret}") }
}

/// Keeps mode, owner and group of a file that is there; a new one is for its owner alone.
fn write(path: &Path, text: &str) -> Result<()> {
    let there = fs::metadata(path).ok();
    let mode = there.as_ref().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    let mut name = path.file_name().context("the file has no name")?.to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        if let Some(there) = &there {
            fchown(&file, Some(there.uid()), Some(there.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.with_context(|| format!("can't write {}", path.display()))
}
