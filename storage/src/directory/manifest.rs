//! `postroad.json`: what is fixed for a data directory, and which set of logs is current.

use std::io;
use std::path::Path;

use base::Placement;
use postroad_base as base;
use serde::{Deserialize, Serialize};

use super::{DirectoryError, at};
use crate::space::write_new;
use crate::young::LogId;

/// The format that is written; older ones open, newer ones are refused.
pub const DIRECTORY_FORMAT: u32 = 2;
pub(super) const FILE_NAME: &str = "postroad.json";

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Units of placement; fixed.
    pub partitions: u16,
    /// Key of the hash that places names; fixed.
    pub placement_key: [u8; 16],
    /// Number of the current set of logs.
    pub generation: u64,
    /// Id of each shard's log.
    pub logs: Vec<LogId>,
    /// The format that it was read in.
    pub(super) format: u32,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    partitions: u16,
    placement_key: String,
    generation: u64,
    shards: u16,
    logs: Vec<String>,
}

/// Read first, so that a newer format is named as such and not as an unknown key.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Manifest {
    pub(super) fn new(shards: u16, partitions: u16, random: &mut dyn FnMut() -> u64) -> Result<Self, DirectoryError> {
        let key = u128::from(random()) << 64 | u128::from(random());
        let manifest = Self {
            partitions,
            placement_key: key.to_be_bytes(),
            generation: 0,
            logs: Vec::new(),
            format: DIRECTORY_FORMAT,
        };
        manifest.with_shards(shards, random)
    }

    /// The same directory with the next set of logs for so many shards.
    pub(super) fn with_shards(&self, shards: u16, random: &mut dyn FnMut() -> u64) -> Result<Self, DirectoryError> {
        if shards == 0 || shards > self.partitions {
            return Err(DirectoryError::Shards { shards, partitions: self.partitions });
        }
        let logs = (0..shards).map(|_| LogId(random())).collect();
        Ok(Self { generation: self.generation + 1, logs, format: DIRECTORY_FORMAT, ..self.clone() })
    }

    /// Number of shards that the current set of logs is for.
    pub fn shards(&self) -> u16 {
        u16::try_from(self.logs.len()).expect("checked when it was made or read")
    }

    pub(super) fn placement(&self) -> Placement {
        Placement::new(self.partitions, self.shards(), self.placement_key)
    }

    /// The manifest of the directory; `None` if there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, DirectoryError> {
        let path = directory.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let wrong = |text: String| DirectoryError::Manifest { path: path.clone(), text };
        let format = serde_json::from_str::<FormatOnly>(&text).map_err(|error| wrong(error.to_string()))?.format;
        if format > DIRECTORY_FORMAT {
            return Err(DirectoryError::Newer { path: directory.to_owned(), found: format });
        }
        let file: File = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Self::from_file(&file).map(Some).map_err(wrong)
    }

    fn from_file(file: &File) -> Result<Self, String> {
        let key = hex(&file.placement_key, 32).ok_or("placement_key is not 32 hex digits")?;
        let logs: Option<Vec<_>> = file.logs.iter().map(|log| Some(LogId(hex(log, 16)? as u64))).collect();
        let logs = logs.ok_or("a log id is not 16 hex digits")?;
        if file.format == 0 || file.shards == 0 || logs.len() != usize::from(file.shards) {
            return Err(format!("format {} with {} shards and {} logs", file.format, file.shards, logs.len()));
        }
        if file.partitions < file.shards {
            return Err(format!("{} partitions for {} shards", file.partitions, file.shards));
        }
        let File { format, partitions, generation, .. } = *file;
        Ok(Self { partitions, placement_key: key.to_be_bytes(), generation, logs, format })
    }

    /// Says that what comes is of our format. Before anything is written in it: an older server must refuse the directory as newer,
    /// not find records that it does not know.
    pub(super) fn upgraded(self, directory: &Path) -> Result<Self, DirectoryError> {
        let manifest = Self { format: DIRECTORY_FORMAT, ..self };
        if self.format < DIRECTORY_FORMAT {
            manifest.write(directory)?;
        }
        Ok(manifest)
    }

    /// Makes this the directory's manifest: one rename.
    pub(super) fn write(&self, directory: &Path) -> Result<(), DirectoryError> {
        let file = File {
            format: DIRECTORY_FORMAT,
            partitions: self.partitions,
            placement_key: format!("{:032x}", u128::from_be_bytes(self.placement_key)),
            generation: self.generation,
            shards: self.shards(),
            logs: self.logs.iter().map(|log| format!("{:016x}", log.0)).collect(),
        };
        let mut text = serde_json::to_string_pretty(&file).expect("text and numbers are JSON");
        text.push('\n');
        write_new(directory, FILE_NAME, text.as_bytes()).map_err(at(directory))
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}
