//! The data directory: its manifest, its lock, the files of each shard (`docs/storage-format.md`).
//!
//! Everything here blocks and happens before the shards start, or after they ended.

mod manifest;
mod reshard;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use base::{Placement, Sequence, ShardId};
use postroad_base as base;

pub use manifest::{DIRECTORY_FORMAT, Manifest};

use crate::old::{Old, OldConfig, OldError};
use crate::space::write_new;
use crate::young::{self, FileDirectory, LogId, RecoverError, Report};

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The file system says no.
    #[error("data directory {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// Another server runs in it.
    #[error("data directory {} is in use by process {pid}: stop that server or choose another directory", path.display())]
    InUse { path: PathBuf, pid: String },
    /// Written by a newer release.
    #[error("data directory {} has format {found}, this release reads up to {}: use the newer release", path.display(), DIRECTORY_FORMAT)]
    Newer { path: PathBuf, found: u32 },
    /// The manifest is not what any release writes.
    #[error("manifest {}: {text}", path.display())]
    Manifest { path: PathBuf, text: String },
    /// There is no data directory here.
    #[error("{} is no data directory: it has no manifest", path.display())]
    Missing { path: PathBuf },
    /// The directory holds files, but none of ours: not touched.
    #[error("{} is not empty and no data directory: choose another one", path.display())]
    Foreign { path: PathBuf },
    /// More shards than partitions.
    #[error("{shards} shards can't share {partitions} partitions: use fewer shards, the partitions are fixed")]
    Shards { shards: u16, partitions: u16 },
    /// A shard's log.
    #[error("shard {}: {error}", shard.0)]
    Young { shard: ShardId, error: RecoverError },
    /// A shard's old generation.
    #[error("shard {}: {error}", shard.0)]
    Old { shard: ShardId, error: OldError },
}

/// What a server asks of its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Shards that will run. Another number than before moves the data.
    pub shards: u16,
    /// Partitions of a directory that is made now; an existing one keeps its own.
    pub partitions: u16,
}

/// An open, locked data directory.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    manifest: Manifest,
    /// Locked for as long as it is open.
    _lock: File,
}

/// Turns an error of the file system into ours.
fn at(path: &Path) -> impl Fn(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |error| DirectoryError::Io { path: path.clone(), error }
}

impl DataDirectory {
    /// Opens the directory at `path` for a server, makes it if it is not there, and moves the data if the number
    /// of shards has changed.
    ///
    /// # Errors
    /// As the variants of [`DirectoryError`] say. What was there is then still whole.
    pub fn open(path: &Path, options: DirectoryOptions) -> Result<Self, DirectoryError> {
        std::fs::create_dir_all(path).map_err(at(path))?;
        let lock = lock(path)?;
        let manifest = match Manifest::read(path)? {
            Some(manifest) => manifest.upgraded(path)?,
            None => create(path, options)?,
        };
        let mut directory = Self { path: path.to_owned(), manifest, _lock: lock };
        directory.remove_leftovers()?;
        if directory.manifest.shards() != options.shards {
            directory.reshard(options.shards)?;
        }
        Ok(directory)
    }

    /// Opens an existing directory with the shards that it has: for the command line.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_existing(path: &Path) -> Result<Self, DirectoryError> {
        let missing = || DirectoryError::Missing { path: path.to_owned() };
        if Manifest::read(path)?.is_none() {
            return Err(missing());
        }
        let lock = lock(path)?;
        let manifest = Manifest::read(path)?.ok_or_else(missing)?;
        Ok(Self { path: path.to_owned(), manifest, _lock: lock })
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where clients and names live.
    pub fn placement(&self) -> Placement {
        self.manifest.placement()
    }

    /// The id of a shard's log.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn log_id(&self, shard: ShardId) -> LogId {
        self.manifest.logs[usize::from(shard.0)]
    }

    /// The directory of a shard's segments.
    pub fn young_path(&self, shard: ShardId) -> PathBuf {
        self.shard_path(shard).join("young")
    }

    /// The directory of a shard's old generation.
    pub fn old_path(&self, shard: ShardId) -> PathBuf {
        self.shard_path(shard).join("old")
    }

    fn shard_path(&self, shard: ShardId) -> PathBuf {
        shard_path(&self.path, self.manifest.generation, shard)
    }

    /// Opens a shard's old generation.
    ///
    /// # Errors
    /// As [`Old::open`].
    pub fn open_old(&self, shard: ShardId) -> Result<Old, DirectoryError> {
        let config = OldConfig::new(self.placement());
        let old = Old::open(&self.old_path(shard), config).map_err(|error| DirectoryError::Old { shard, error })?;
        // fjall makes its directory, but does not sync the name of it.
        let parent = self.shard_path(shard);
        crate::space::sync_directory(&parent).map_err(at(&parent))?;
        Ok(old)
    }

    /// Looks at every shard's log and changes nothing.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn check(&self) -> Result<Vec<Report>, DirectoryError> {
        self.shards().map(|shard| self.check_shard(shard)).collect()
    }

    fn check_shard(&self, shard: ShardId) -> Result<Report, DirectoryError> {
        let covered = self.open_old(shard)?.upto();
        let files = FileDirectory::new(self.young_path(shard));
        young::check(&files, self.log_id(shard), covered).map_err(|error| DirectoryError::Young { shard, error })
    }

    /// Cuts every shard's log at its first gap; what goes is kept in `quarantine/`.
    ///
    /// # Errors
    /// If it can't be read or written.
    pub fn repair(&self) -> Result<Vec<Report>, DirectoryError> {
        self.shards().map(|shard| self.repair_shard(shard)).collect()
    }

    fn repair_shard(&self, shard: ShardId) -> Result<Report, DirectoryError> {
        let covered = self.open_old(shard)?.upto();
        let quarantine = self.path.join("quarantine");
        let log = self.log_id(shard);
        let mut keep = |segment: young::SegmentNumber, bytes: &[u8]| {
            std::fs::create_dir_all(&quarantine)?;
            write_new(&quarantine, &format!("shard-{}-{:016x}-{}", shard.0, log.0, segment.file_name()), bytes)
        };
        let mut files = FileDirectory::new(self.young_path(shard));
        young::repair(&mut files, log, covered, &mut keep).map_err(|error| DirectoryError::Young { shard, error })
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.manifest.shards()).map(ShardId)
    }

    /// Deletes what a crash during a change of the number of shards left: all sets but the current one.
    fn remove_leftovers(&self) -> Result<(), DirectoryError> {
        let current = generation_name(self.manifest.generation);
        for entry in std::fs::read_dir(&self.path).map_err(at(&self.path))? {
            let entry = entry.map_err(at(&self.path))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("generation-") && *name != *current {
                tracing::info!(directory = %entry.path().display(), "removing a set of logs that is not current");
                std::fs::remove_dir_all(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        Ok(())
    }
}

fn generation_name(generation: u64) -> String {
    format!("generation-{generation}")
}

fn shard_path(root: &Path, generation: u64, shard: ShardId) -> PathBuf {
    root.join(generation_name(generation)).join(format!("shard-{}", shard.0))
}

/// Makes and locks the lock file. The kernel gives the lock up with the process, however it ends.
fn lock(path: &Path) -> Result<File, DirectoryError> {
    let name = path.join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = open.map_err(at(&name))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid).map(|_| pid.trim().to_owned());
            let pid = read.ok().filter(|pid| !pid.is_empty()).unwrap_or_else(|| "unknown".to_owned());
            return Err(DirectoryError::InUse { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(at(&name)(error)),
    }
    let pid = std::process::id();
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{pid}"));
    written.map_err(at(&name))?;
    Ok(file)
}

fn create(path: &Path, options: DirectoryOptions) -> Result<Manifest, DirectoryError> {
    refuse_foreign(path)?;
    let manifest = Manifest::new(options.shards, options.partitions, &mut random(options.shards)?)?;
    prepare_generation(path, &manifest)?;
    manifest.write(path)?;
    Ok(manifest)
}

/// What a server that keeps no log (`durability = "memory"`) leaves behind when it crashes.
const LEFT_BY_CRASHES: [&str; 3] = ["crash.json", "crash.json.new", "quarantine"];

/// A directory with files that are not ours is a mistake of the configuration.
fn refuse_foreign(path: &Path) -> Result<(), DirectoryError> {
    for entry in std::fs::read_dir(path).map_err(at(path))? {
        let name = entry.map_err(at(path))?.file_name();
        let name = name.to_string_lossy();
        let ours = name == "lock" || name.starts_with("generation-") || name.starts_with(manifest::FILE_NAME);
        if !ours && name != "lost+found" && !LEFT_BY_CRASHES.contains(&&*name) {
            return Err(DirectoryError::Foreign { path: path.to_owned() });
        }
    }
    Ok(())
}

/// Makes the directories of a set of logs, empty, and syncs them. What a crash left there is removed.
fn prepare_generation(root: &Path, manifest: &Manifest) -> Result<(), DirectoryError> {
    let generation = root.join(generation_name(manifest.generation));
    if generation.exists() {
        std::fs::remove_dir_all(&generation).map_err(at(&generation))?;
    }
    for shard in (0..manifest.shards()).map(ShardId) {
        let shard = shard_path(root, manifest.generation, shard);
        let young = shard.join("young");
        std::fs::create_dir_all(&young).map_err(at(&young))?;
        crate::space::sync_directory(&young).map_err(at(&young))?;
        crate::space::sync_directory(&shard).map_err(at(&shard))?;
    }
    crate::space::sync_directory(&generation).map_err(at(&generation))?;
    crate::space::sync_directory(root).map_err(at(root))
}

/// Random numbers of the kernel for a manifest with so many shards.
fn random(shards: u16) -> Result<impl FnMut() -> u64 + use<>, DirectoryError> {
    const SOURCE: &str = "/dev/urandom";
    // Two for the placement key, one for each log.
    let mut bytes = vec![0; 8 * (usize::from(shards) + 2)];
    File::open(SOURCE).and_then(|mut file| file.read_exact(&mut bytes)).map_err(at(Path::new(SOURCE)))?;
    let numbers: Vec<_> = bytes.chunks_exact(8).map(|chunk| chunk.try_into().expect("chunks of 8")).collect();
    let mut numbers = numbers.into_iter().map(u64::from_le_bytes);
    Ok(move || numbers.next().expect("as many as a manifest draws"))
}

/// The highest of some sequences; 0 if there are none.
fn highest(sequences: impl Iterator<Item = Sequence>) -> Sequence {
    sequences.max().unwrap_or_default()
}
