//! Plugins and their tests on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use postroad_plugins::kit::TestFile;
use postroad_plugins::{Diagnostic, Limits, Set, Source};

use super::args::PluginsArgs;
use crate::options::{self, Sources};

/// A plugin with what stands beside it.
pub struct Author {
    pub source: Source,
    pub test: Option<TestFile>,
}

/// The plugins that are meant, each once, in the order of their paths.
pub fn find(args: &PluginsArgs) -> Result<Vec<Author>> {
    let mut found = BTreeMap::new();
    for path in &args.paths {
        for path in plugin_files(path)? {
            if let std::collections::btree_map::Entry::Vacant(place) = found.entry(path) {
                let author = read(place.key())?;
                place.insert(author);
            }
        }
    }
    if found.is_empty() {
        bail!("there is no plugin: a file NAME.lua is one");
    }
    Ok(found.into_values().collect())
}

/// The limits of the server that is meant.
pub fn limits(args: &PluginsArgs) -> Result<Limits> {
    let sources = Sources { file: args.config.clone(), data: None, sets: args.set.clone() };
    Ok(options::load(&sources)?.engine.plugins.limits)
}

/// All plugins that are meant, as a server would have them.
pub fn set(args: &PluginsArgs) -> Result<Set> {
    Ok(Set::from_sources(find(args)?.into_iter().map(|author| author.source).collect())?)
}

/// Tells why plugins can't be loaded, so that an editor can jump there: that is no success.
pub fn told(flaws: &[Diagnostic]) -> Result<bool> {
    flaws.iter().for_each(|flaw| eprintln!("{flaw}"));
    Ok(false)
}

/// All files that are named, and those of folders that end in `.lua`, in order.
pub fn lua_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = std::collections::BTreeSet::new();
    for path in paths {
        if !path.is_dir() {
            files.insert(path.clone());
            continue;
        }
        let unreadable = || format!("can't read {}", path.display());
        for entry in fs::read_dir(path).with_context(unreadable)? {
            let file = entry.with_context(unreadable)?.path();
            if file.extension().is_some_and(|end| end == "lua") && file.is_file() {
                files.insert(file);
            }
        }
    }
    Ok(files.into_iter().collect())
}

fn plugin_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![plugin_of(path)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))? {
        let file = entry.with_context(|| format!("can't read {}", path.display()))?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.ends_with(".lua") || name.starts_with('.') || file.is_dir() {
            continue; // as the server: a link that leads nowhere is an error
        }
        let plugin = plugin_of(&file);
        if plugin != file && !plugin.is_file() {
            bail!("{} tests {}, which is not there", file.display(), plugin.display());
        }
        files.push(plugin);
    }
    Ok(files)
}

/// What `NAME_test.lua` tests.
fn plugin_of(file: &Path) -> PathBuf {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match name.strip_suffix("_test.lua") {
        Some(plugin) => file.with_file_name(format!("{plugin}.lua")),
        None => file.to_owned(),
    }
}

fn read(path: &Path) -> Result<Author> {
    let source = Source::read(path)?;
    let test = path.with_file_name(format!("{}_test.lua", source.name));
    let test = if test.is_file() {
        let text = fs::read_to_string(&test).with_context(|| format!("can't read {}", test.display()))?;
        Some(TestFile { file: test.display().to_string(), text })
    } else {
        None
    };
    Ok(Author { source, test })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the server does: it would not start, and who checks is told before.
    #[test]
    fn a_link_that_leads_nowhere_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::write(folder.path().join("a.lua"), "return {}").expect("writable");
        let args = PluginsArgs { paths: vec![folder.path().to_owned()], config: None, set: Vec::new() };
        assert_eq!(find(&args).map(|found| found.len()).ok(), Some(1));
        std::os::unix::fs::symlink("nowhere", folder.path().join("b.lua")).expect("linked");
        let error = find(&args).err().expect("it is no plugin").to_string();
        assert!(error.contains("b.lua"), "{error}");
    }
}
