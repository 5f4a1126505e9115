//! Plugins as text: one file, and all files of a folder.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Longest text of one plugin, in bytes: what is above it was meant otherwise.
pub const SOURCE_BYTES_MAX: u64 = 1 << 20;

/// Name of a plugin: `[a-z][a-z0-9_-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginName(Arc<str>);

impl PluginName {
    /// Checks `text`; `None` if it can't be a name.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        (begins && text.len() <= 63 && text.bytes().all(is_plain)).then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a plugin's text, or over the names and texts of a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetHash(pub [u8; 32]);

impl fmt::Display for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl SetHash {
    /// From 64 hex digits; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let is_right = digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit);
        let byte = |place: usize| u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok();
        let mut bytes = [0; 32];
        for (place, into) in bytes.iter_mut().enumerate().filter(|_| is_right) {
            *into = byte(place)?;
        }
        is_right.then_some(Self(bytes))
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetHash({self})")
    }
}

/// One plugin as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: PluginName,
    /// Where it was read: shown in messages.
    pub file: String,
    /// Its text.
    pub text: Arc<str>,
    /// Of its text.
    pub hash: SetHash,
}

impl Source {
    /// A plugin of this text; `file` is what messages call it.
    pub fn new(name: PluginName, file: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let hash = SetHash(Sha256::digest(text.as_bytes()).into());
        Self { name, file: file.into(), text, hash }
    }

    /// Reads `NAME.lua`.
    ///
    /// # Errors
    /// As the variants of [`SetError`] say.
    pub fn read(path: &Path) -> Result<Self, SetError> {
        let unreadable = |error| SetError::Unreadable { path: path.to_owned(), error };
        let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let name = PluginName::new(stem).ok_or_else(|| SetError::BadName(path.to_owned()))?;
        let about = fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() {
            return Err(unreadable(io::Error::other("it is no file"))); // a pipe would be waited for
        }
        let bytes = about.len();
        if bytes > SOURCE_BYTES_MAX {
            return Err(SetError::TooLarge { path: path.to_owned(), bytes });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Ok(Self::new(name, path.display().to_string(), text))
    }
}

/// All plugins of a folder, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    sources: Vec<Source>,
    hash: SetHash,
}

/// Why a folder is no set of plugins.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The folder, or a file in it.
    #[error("{path} can't be read: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file ends in `.lua`, and what is before is no name of a plugin.
    #[error(
        "{0}: a plugin's name has a-z, 0-9, '_' and '-', begins with a letter, and has at most 63 of them: rename the file"
    )]
    BadName(PathBuf),
    /// A file is larger than a plugin may be.
    #[error("{path} has {bytes} bytes: a plugin has at most {SOURCE_BYTES_MAX}")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How large.
        bytes: u64,
    },
    /// Two plugins have one name.
    #[error("there are two plugins named {0}")]
    Twice(PluginName),
}

impl Set {
    /// Reads the folder: each `NAME.lua` is a plugin, but `*_test.lua`; what else is there is ignored, and so are folders and names that
    /// begin with a dot. What is called like a plugin and can't be looked at is an error: a set without it would be another one.
    ///
    /// # Errors
    /// As the variants of [`SetError`] say.
    pub fn read(folder: &Path) -> Result<Self, SetError> {
        let unreadable = |path: &Path, error| SetError::Unreadable { path: path.to_owned(), error };
        let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, error))?;
        let mut sources = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unreadable(folder, error))?.path();
            if is_called_like_a_plugin(&path) && !path.is_dir() {
                sources.push(Source::read(&path)?);
            }
        }
        Self::from_sources(sources)
    }

    /// A set of these plugins.
    ///
    /// # Errors
    /// If two have one name.
    pub fn from_sources(mut sources: Vec<Source>) -> Result<Self, SetError> {
        sources.sort_by(|left, right| left.name.cmp(&right.name));
        if let Some(twice) = sources.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(SetError::Twice(twice[0].name.clone()));
        }
        let hash = hash_of(&sources);
        Ok(Self { sources, hash })
    }

    /// Its plugins, in the order of their names.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Over all names and texts: two sets with the same one do the same.
    pub fn hash(&self) -> SetHash {
        self.hash
    }
}

/// By its bytes: a name need not be text.
fn is_called_like_a_plugin(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.ends_with(b".lua") && !name.ends_with(b"_test.lua") && !name.starts_with(b".")
}

/// Length in front of each name, so that no two sets are hashed as one text. Hashes have one length.
fn hash_of(sources: &[Source]) -> SetHash {
    let mut hasher = Sha256::new();
    for source in sources {
        hasher.update((source.name.as_str().len() as u64).to_le_bytes());
        hasher.update(source.name.as_str());
        hasher.update(source.hash.0);
    }
    SetHash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PluginName {
        PluginName::new(text).expect("a name")
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "tenants-2", "a_b", &"x".repeat(63)] {
            assert!(PluginName::new(good).is_some(), "{good}");
        }
        for bad in ["", "A", "1a", "-a", "a.b", "a/b", "ä", &"x".repeat(64)] {
            assert!(PluginName::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names_without_tests() {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, text) in [("b.lua", "return {}"), ("a.lua", "return { }"), ("a_test.lua", "x"), ("notes.txt", "x")] {
            fs::write(folder.path().join(file), text).expect("written");
        }
        let set = Set::read(folder.path()).expect("read");
        assert_eq!(set.sources().iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        fs::write(folder.path().join("Bad.lua"), "").expect("written");
        assert!(matches!(Set::read(folder.path()), Err(SetError::BadName(_))));
        fs::remove_file(folder.path().join("Bad.lua")).expect("removed");
        fs::write(folder.path().join("c.lua"), "x".repeat(SOURCE_BYTES_MAX as usize + 1)).expect("written");
        assert!(matches!(Set::read(folder.path()), Err(SetError::TooLarge { .. })));
        assert!(matches!(Set::read(&folder.path().join("none")), Err(SetError::Unreadable { .. })));
    }

    /// They were left out without a word, and the smaller set was committed.
    #[cfg(unix)]
    #[test]
    fn what_can_t_be_looked_at_is_an_error_and_not_left_out() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.lua"), "return {}").expect("written");
        fs::create_dir(at("folder.lua")).expect("made");
        symlink("nowhere", at(".#a.lua")).expect("a lock of an editor");
        symlink("a.lua", at("b.lua")).expect("linked");
        assert_eq!(Set::read(folder.path()).expect("read").sources().len(), 2);
        for (name, target) in [("c.lua", "nowhere"), ("d.lua", "d.lua"), ("e.lua", "/dev/null")] {
            symlink(target, at(name)).expect("linked");
            let error = Set::read(folder.path()).expect_err(target);
            assert!(matches!(&error, SetError::Unreadable { path, .. } if *path == at(name)), "{error}");
            fs::remove_file(at(name)).expect("removed");
        }
        fs::write(folder.path().join(OsStr::from_bytes(b"f\xff.lua")), "return {}").expect("written");
        assert!(matches!(Set::read(folder.path()), Err(SetError::BadName(_))));
    }

    #[test]
    fn the_hash_is_of_names_and_texts() {
        let of = |sources: Vec<Source>| Set::from_sources(sources).expect("a set").hash();
        let a = |text: &str| Source::new(name("a"), "a.lua", text);
        let b = |text: &str| Source::new(name("b"), "b.lua", text);
        assert_eq!(of(vec![a("1"), b("2")]), of(vec![b("2"), a("1")]));
        assert_ne!(of(vec![a("1"), b("2")]), of(vec![a("2"), b("1")]));
        assert_eq!(of(vec![a("1")]), of(vec![Source::new(name("a"), "elsewhere/a.lua", "1")]));
        assert!(matches!(Set::from_sources(vec![a("1"), a("2")]), Err(SetError::Twice(_))));
    }
}
