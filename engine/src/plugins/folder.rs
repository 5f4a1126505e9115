//! `plugins.dir`: what is there, and whether somebody has touched it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use postroad_plugins::Set;

/// What is there; without a folder no plugins.
///
/// # Errors
/// Why it can't be read.
pub(super) fn read(folder: Option<&Path>) -> Result<Set, String> {
    let set = match folder {
        Some(folder) => Set::read(folder),
        None => Set::from_sources(Vec::new()),
    };
    set.map_err(|error| format!("plugins.dir: {error}"))
}

/// Names, sizes and times of its scripts: as long as they stay, nobody writes there. `None`: it can't be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Glance(BTreeMap<OsString, Option<(u64, Option<SystemTime>)>>);

impl Glance {
    /// A folder that can't be looked at is empty.
    pub(super) fn at(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let scripts = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "lua"));
        let looked = scripts.map(|entry| {
            let file = std::fs::metadata(entry.path()).ok();
            (entry.file_name(), file.map(|file| (file.len(), file.modified().ok())))
        });
        Self(looked.collect())
    }
}

/// Sees changes once they are over.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// As it was last used, and as it was at the last look.
    used: Glance,
    last: Glance,
}

impl Watcher {
    /// It is read now.
    pub(super) fn use_now(&mut self, folder: Option<&Path>) {
        self.used = folder.map(Glance::at).unwrap_or_default();
        self.last = self.used.clone();
    }

    /// Whether it has changed since it was used, and is as it was at the look before: an editor, or a copy of many files, is done.
    pub(super) fn look(&mut self, folder: &Path) -> bool {
        let seen = Glance::at(folder);
        let is_quiet = std::mem::replace(&mut self.last, seen.clone()) == seen;
        is_quiet && seen != self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_it_is_over() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writable");
        let mut watcher = Watcher::default();
        write("a.lua", "1");
        watcher.use_now(Some(folder.path()));
        write("notes.txt", "nobody minds");
        assert!(!watcher.look(folder.path()));
        write("a.lua", "12");
        assert!(!watcher.look(folder.path()), "it may go on");
        write("a.lua", "123");
        assert!(!watcher.look(folder.path()), "it does");
        assert!(watcher.look(folder.path()));
        watcher.use_now(Some(folder.path()));
        assert!(!watcher.look(folder.path()));
        std::fs::remove_file(folder.path().join("a.lua")).expect("it was there");
        assert!(!watcher.look(folder.path()));
        assert!(watcher.look(folder.path()));
    }

    #[test]
    fn no_folder_is_no_plugins_and_a_missing_one_is_an_error() {
        assert_eq!(read(None).expect("empty").sources().len(), 0);
        let missing = read(Some(Path::new("/nowhere/at/all"))).expect_err("missing");
        assert!(missing.starts_with("plugins.dir: ") && missing.contains("/nowhere/at/all"), "{missing}");
    }
}
