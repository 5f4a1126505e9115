//! `postroad plugin stubs`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use postroad_plugins::api;

/// The file of the stubs in its folder.
pub const STUBS_FILE: &str = "postroad.lua";

/// Runs the command.
pub fn stubs(folder: Option<&Path>) -> Result<bool> {
    let Some(folder) = folder else {
        std::io::stdout().lock().write_all(api::stubs().as_bytes())?;
        return Ok(true);
    };
    write(folder)?;
    Ok(true)
}

/// Writes them into the folder, over those of an earlier version.
pub fn write(folder: &Path) -> Result<()> {
    let file = folder.join(STUBS_FILE);
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    std::fs::write(&file, api::stubs()).with_context(|| format!("can't write {}", file.display()))
}
