//! A hash table in [`PARTS`] parts, so that it never stops the shard to grow.
//!
//! One table of a million entries moves all of them when it grows: a stall of more than 100 ms. The
//! parts reach their limits one by one, and each moves a few thousand entries. They give memory back
//! in the same small steps.

use hashbrown::HashTable;

/// A power of two. At a million entries a part holds 4,000.
const PARTS: usize = 256;
/// Below this capacity a part is not worth shrinking.
const SHRINK_MIN: usize = 64;

/// Entries that know their own hash by a function that the owner passes in.
#[derive(Debug)]
pub(crate) struct Table<T> {
    /// Empty until the first entry comes.
    parts: Vec<HashTable<T>>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn find(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts.get(part(hash))?.find(hash, is)
    }

    pub fn find_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.parts.get_mut(part(hash))?.find_mut(hash, is)
    }

    /// Adds an entry that is not there yet.
    pub fn insert(&mut self, hash: u64, entry: T, rehash: impl Fn(&T) -> u64) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashTable::new);
        }
        self.parts[part(hash)].insert_unique(hash, entry, rehash);
        self.len += 1;
    }

    pub fn remove(&mut self, hash: u64, is: impl FnMut(&T) -> bool, rehash: impl Fn(&T) -> u64) -> Option<T> {
        let table = self.parts.get_mut(part(hash))?;
        let (entry, _) = table.find_entry(hash, is).ok()?.remove();
        if table.capacity() >= SHRINK_MIN && table.len() * 8 < table.capacity() {
            let room = table.len() * 2;
            table.shrink_to(room, rehash);
        }
        self.len -= 1;
        Some(entry)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().flat_map(HashTable::iter)
    }
}

/// Bits that a table of any likely size uses neither for the place (the lower ones) nor for the tag (the upper 7).
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
