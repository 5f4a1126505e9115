//! A disk that misbehaves, by hand: it forgets what was not synced, whole or page by page, stops at a chosen
//! sync, and flips bits.

use std::collections::BTreeSet;
use std::io;

use super::MemoryDirectory;
use crate::young::{BLOCK_BYTES, SegmentDirectory, SegmentNumber};

/// What a power cut does to the bytes that were written but not synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// None of them arrived.
    ForgetAll,
    /// All of them arrived.
    KeepAll,
    /// All arrived but these pages, counted over [`FaultyDirectory::unsynced_pages`].
    Forget(BTreeSet<usize>),
}

/// Segment files of which only what was synced is safe.
#[derive(Clone, Debug, Default)]
pub struct FaultyDirectory {
    /// As the running process sees it.
    cache: MemoryDirectory,
    /// As a power cut leaves it at least.
    disk: MemoryDirectory,
    /// Files whose names the directory was not synced with.
    nameless: BTreeSet<SegmentNumber>,
    /// Pages written since their segment was last synced, in the order of writing.
    unsynced: Vec<(SegmentNumber, u64)>,
    /// Syncs (and preparations) until the power goes, if it does.
    syncs_left: Option<usize>,
    power_gone: bool,
    /// How many there were.
    syncs: usize,
}

impl FaultyDirectory {
    /// A disk whose power goes at the sync number `cut_at` (from 0): that one fails, and so does everything after it.
    pub fn cut_at_sync(cut_at: usize) -> Self {
        Self { syncs_left: Some(cut_at), ..Self::default() }
    }

    /// What a `prepare` leaves that is killed between the sync of its file and that of the directory.
    ///
    /// # Errors
    /// Once the power is gone.
    pub fn prepare_without_name(&mut self, segment: SegmentNumber, bytes: u64) -> io::Result<()> {
        self.prepare(segment, bytes)?;
        self.nameless.insert(segment);
        Ok(())
    }

    /// Syncs and preparations so far.
    pub fn syncs(&self) -> usize {
        self.syncs
    }

    /// Pages that were written and not synced, oldest first.
    pub fn unsynced_pages(&self) -> &[(SegmentNumber, u64)] {
        &self.unsynced
    }

    /// What is on the disk when the power comes back.
    pub fn power_cut(&self, damage: &Damage) -> MemoryDirectory {
        let mut after = self.disk.clone();
        for (index, (segment, offset)) in self.unsynced.iter().enumerate() {
            let arrives = match damage {
                Damage::ForgetAll => false,
                Damage::KeepAll => true,
                Damage::Forget(pages) => !pages.contains(&index),
            };
            if arrives {
                copy_page(&self.cache, &mut after, *segment, *offset);
            }
        }
        self.nameless.iter().for_each(|segment| drop(after.files.remove(segment)));
        after
    }

    /// Flips one bit on the disk and in the cache.
    pub fn flip_bit(&mut self, segment: SegmentNumber, byte: usize, bit: u8) {
        for side in [&mut self.cache, &mut self.disk] {
            if let Some(byte) = side.files.get_mut(&segment).and_then(|file| file.get_mut(byte)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.power_gone { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.power_gone |= self.syncs_left == Some(0);
        self.check_power()?;
        self.syncs += 1;
        self.syncs_left = self.syncs_left.map(|left| left - 1);
        Ok(())
    }
}

fn copy_page(from: &MemoryDirectory, to: &mut MemoryDirectory, segment: SegmentNumber, offset: u64) {
    let Some(source) = from.files.get(&segment) else { return };
    let start = usize::try_from(offset).expect("a segment in memory has a usize length").min(source.len());
    let end = (start + BLOCK_BYTES as usize).min(source.len());
    let target = to.files.entry(segment).or_default();
    target.resize(target.len().max(source.len()), 0);
    target[start..end].copy_from_slice(&source[start..end]);
}

impl SegmentDirectory for FaultyDirectory {
    fn list(&self) -> io::Result<Vec<SegmentNumber>> {
        self.cache.list()
    }

    fn read(&self, segment: SegmentNumber) -> io::Result<Vec<u8>> {
        self.cache.read(segment)
    }

    fn prepare(&mut self, segment: SegmentNumber, bytes: u64) -> io::Result<()> {
        self.count_sync()?;
        self.nameless.remove(&segment);
        self.cache.prepare(segment, bytes)?;
        self.disk.prepare(segment, bytes)
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_power()?;
        self.cache.write(segment, offset, bytes)?;
        let first = offset / BLOCK_BYTES * BLOCK_BYTES;
        let pages = (first..offset + bytes.len() as u64).step_by(BLOCK_BYTES as usize);
        self.unsynced.extend(pages.map(|page| (segment, page)));
        Ok(())
    }

    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.count_sync()?;
        let (cache, disk) = (&self.cache, &mut self.disk);
        self.unsynced.retain(|(number, offset)| {
            if *number == segment {
                copy_page(cache, disk, *number, *offset);
            }
            *number != segment
        });
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.count_sync()?;
        self.nameless.clear();
        Ok(())
    }

    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.check_power()?;
        self.unsynced.retain(|(number, _)| *number != segment);
        self.cache.remove(segment)?;
        self.disk.remove(segment)
    }
}
