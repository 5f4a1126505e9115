//! Where the entries of a slab stand, by one of their keys.
//!
//! ```text
//! key ─hash─► table: 4 bytes a place ─► slab: does the entry there have this key?
//! ```
//! A key stands once, in its entry: a map that held it too cost 40 to 90 bytes for each session, most of it empty room. The
//! price is that whoever looks has to bring the slab, which he is about to look into anyway.
//!
//! Invariants
//! - An entry is in the slab before its place is noted, and its place is forgotten before it leaves the slab.
//! - The key of an entry does not change while its place is known.
//! - Hashes are keyed at random: clients choose their names, and must not choose that they collide.

use std::hash::{BuildHasher, Hash};

use ahash::RandomState;
use slab::Slab;

use crate::table::Table;

/// By what entries are found.
pub(crate) trait By {
    type Entry;
    type Key: Hash + Eq + ?Sized;

    fn key(entry: &Self::Entry) -> &Self::Key;
}

/// The places of entries, each key once. Not each entry of the slab has to be here.
#[derive(Debug)]
pub(crate) struct Places<B, S = RandomState> {
    table: Table<u32>,
    hasher: S,
    by: std::marker::PhantomData<B>,
}

impl<B, S: Default> Default for Places<B, S> {
    fn default() -> Self {
        Self { table: Table::default(), hasher: S::default(), by: std::marker::PhantomData }
    }
}

impl<B: By, S: BuildHasher> Places<B, S> {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// All places, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.table.iter().copied()
    }

    /// Where the entry with this key stands.
    pub fn find(&self, entries: &Slab<B::Entry>, key: &B::Key) -> Option<u32> {
        self.table.find(self.hasher.hash_one(key), |&place| B::key(&entries[place as usize]) == key).copied()
    }

    /// Notes where an entry stands, instead of another one with the same key.
    pub fn insert(&mut self, entries: &Slab<B::Entry>, place: u32) {
        let key = B::key(&entries[place as usize]);
        let hash = self.hasher.hash_one(key);
        if let Some(known) = self.table.find_mut(hash, |&other| B::key(&entries[other as usize]) == key) {
            *known = place;
            return;
        }
        let hasher = &self.hasher;
        self.table.insert(hash, place, |&other| hasher.hash_one(B::key(&entries[other as usize])));
    }

    /// Forgets where this entry stands; `false` if nobody knew, or another one stands for its key.
    pub fn remove(&mut self, entries: &Slab<B::Entry>, place: u32) -> bool {
        let hasher = &self.hasher;
        let hash_of = |&other: &u32| hasher.hash_one(B::key(&entries[other as usize]));
        self.table.remove(hash_of(&place), |&known| known == place, hash_of).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::{BuildHasherDefault, Hasher};

    use proptest::prelude::*;

    use super::*;

    struct ByName;

    impl By for ByName {
        type Entry = (String, u32);
        type Key = str;

        fn key(entry: &(String, u32)) -> &str {
            &entry.0
        }
    }

    /// Everything collides.
    #[derive(Default)]
    struct Constant;

    impl Hasher for Constant {
        fn finish(&self) -> u64 {
            7
        }

        fn write(&mut self, _bytes: &[u8]) {}
    }

    fn add<S: BuildHasher>(
        entries: &mut Slab<(String, u32)>,
        places: &mut Places<ByName, S>,
        name: &str,
        n: u32,
    ) -> u32 {
        let place = u32::try_from(entries.insert((name.to_owned(), n))).unwrap();
        places.insert(entries, place);
        place
    }

    fn drop_at<S: BuildHasher>(entries: &mut Slab<(String, u32)>, places: &mut Places<ByName, S>, place: u32) -> bool {
        let was_known = places.remove(entries, place);
        entries.remove(place as usize);
        was_known
    }

    /// Names come, go, and come again at places that others have left; a newer entry of a name stands for it while the
    /// older one is still in the slab. Against a plain map, across growth and shrinking.
    fn behaves_like_a_map<S: BuildHasher + Default>(steps: Vec<(u8, u16)>) -> Result<(), TestCaseError> {
        let (mut entries, mut places) = (Slab::new(), Places::<ByName, S>::default());
        let (mut model, mut replaced) = (BTreeMap::new(), Vec::new());
        for (n, (what, name)) in steps.into_iter().enumerate() {
            let (n, name) = (u32::try_from(n).unwrap(), name.to_string());
            match (what % 4, model.get(&name).copied()) {
                (0 | 1, known) => {
                    model.insert(name.clone(), add(&mut entries, &mut places, &name, n));
                    replaced.extend(known);
                }
                (2, Some(place)) => {
                    prop_assert!(drop_at(&mut entries, &mut places, place));
                    model.remove(&name);
                }
                (2, None) => {}
                _ => {
                    if let Some(place) = replaced.pop() {
                        prop_assert!(!drop_at(&mut entries, &mut places, place), "a newer one stands for its name");
                    }
                }
            }
            prop_assert_eq!(places.find(&entries, &name), model.get(&name).copied());
            prop_assert_eq!(places.len(), model.len());
        }
        let mut all: Vec<u32> = places.iter().collect();
        let mut expected: Vec<u32> = model.values().copied().collect();
        all.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_by_any_hash(steps in prop::collection::vec((any::<u8>(), 0_u16..200), 0..2000)) {
            behaves_like_a_map::<RandomState>(steps)?;
        }

        #[test]
        fn behaves_like_a_map_when_all_collide(steps in prop::collection::vec((any::<u8>(), 0_u16..60), 0..600)) {
            behaves_like_a_map::<BuildHasherDefault<Constant>>(steps)?;
        }
    }

    #[test]
    fn a_place_that_is_used_again_is_found_by_its_new_key_only() {
        let (mut entries, mut places) = (Slab::new(), Places::<ByName>::default());
        let place = add(&mut entries, &mut places, "truck-7", 1);
        assert!(drop_at(&mut entries, &mut places, place));
        assert_eq!(add(&mut entries, &mut places, "truck-8", 2), place);
        assert_eq!((places.find(&entries, "truck-7"), places.find(&entries, "truck-8")), (None, Some(place)));
    }

    /// Two shards, and two starts of one, must not agree on what collides.
    #[test]
    fn hashes_are_keyed_at_random() {
        let hash = || Places::<ByName>::default().hasher.hash_one("truck-7");
        assert_ne!(hash(), hash());
    }
}
