//! `postroad.store`: what a plugin remembers on one shard, beyond its generation. Bounded, each entry with a time to live.
//!
//! Invariants
//! - `bytes` is the sum over the entries of key and value.
//! - An entry that is over is as good as none, and is removed when it is met, or when room is needed.

use std::collections::{BTreeSet, HashMap};

use base::MonoMillis;
use bytes::Bytes;
use postroad_base as base;

use crate::PluginName;

/// What a plugin may store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Bytes(Bytes),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            _ => 8,
        }
    }
}

#[derive(Clone)]
struct Entry {
    value: Value,
    until: Option<MonoMillis>,
}

/// The entries of one plugin.
#[derive(Clone, Default)]
pub(crate) struct Store {
    entries: HashMap<Bytes, Entry, ahash::RandomState>,
    by_end: BTreeSet<(MonoMillis, Bytes)>,
    bytes: usize,
}

/// How much a store may hold.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub entries: usize,
    pub bytes: usize,
}

impl Store {
    /// What is stored under `key` and not over.
    pub(crate) fn get(&mut self, now: MonoMillis, key: &[u8]) -> Option<&Value> {
        let is_over = self.entries.get(key)?.until.is_some_and(|until| until <= now);
        if is_over {
            self.remove(key);
        }
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// When what is stored under `key` is over.
    pub(crate) fn until(&self, key: &[u8]) -> Option<MonoMillis> {
        self.entries.get(key)?.until
    }

    /// Stores it; whether there was room.
    pub(crate) fn set(
        &mut self,
        now: MonoMillis,
        key: &[u8],
        value: Value,
        until: Option<MonoMillis>,
        room: Room,
    ) -> bool {
        self.remove(key);
        let size = key.len() + value.bytes();
        if !self.has_room(size, room) {
            self.sweep(now);
        }
        if !self.has_room(size, room) {
            return false;
        }
        let key = Bytes::copy_from_slice(key);
        self.bytes += size;
        if let Some(until) = until {
            self.by_end.insert((until, key.clone()));
        }
        self.entries.insert(key, Entry { value, until });
        true
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.bytes -= key.len() + entry.value.bytes();
        if let Some(until) = entry.until {
            self.by_end.remove(&(until, key));
        }
        true
    }

    fn has_room(&self, size: usize, room: Room) -> bool {
        self.entries.len() < room.entries && self.bytes + size <= room.bytes
    }

    /// Removes what is over: each entry once, so it costs no more than storing them did.
    fn sweep(&mut self, now: MonoMillis) {
        while let Some((until, key)) = self.by_end.first().cloned() {
            if until > now {
                break;
            }
            self.remove(&key);
        }
    }
}

/// The stores of all plugins of one shard. They outlive a generation.
#[derive(Clone, Default)]
pub struct Stores {
    by_plugin: HashMap<PluginName, Store>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.by_plugin.iter().map(|(name, store)| (name.as_str(), store.entries.len()))).finish()
    }
}

impl Stores {
    /// No plugin has stored anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries and bytes of this plugin's store.
    pub fn used_by(&self, plugin: &PluginName) -> (usize, usize) {
        self.by_plugin.get(plugin).map_or((0, 0), |store| (store.entries.len(), store.bytes))
    }

    /// Forgets what plugins stored that are none of these.
    pub fn keep_only(&mut self, is_kept: impl Fn(&PluginName) -> bool) {
        self.by_plugin.retain(|name, _| is_kept(name));
    }

    pub(crate) fn of(&mut self, plugin: &PluginName) -> &mut Store {
        if !self.by_plugin.contains_key(plugin) {
            self.by_plugin.insert(plugin.clone(), Store::default());
        }
        self.by_plugin.get_mut(plugin).expect("just put there")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room { entries: 3, bytes: 40 };

    fn at(ms: u64) -> MonoMillis {
        MonoMillis(ms)
    }

    #[test]
    fn an_entry_is_over_at_its_time() {
        let mut store = Store::default();
        assert!(store.set(at(0), b"a", Value::Integer(1), Some(at(10)), ROOM));
        assert_eq!(store.get(at(9), b"a"), Some(&Value::Integer(1)));
        assert_eq!(store.get(at(10), b"a"), None);
        assert_eq!((store.entries.len(), store.bytes, store.by_end.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_over_makes_room_and_what_is_not_does_not() {
        let mut store = Store::default();
        for key in [b"a", b"b", b"c"] {
            assert!(store.set(at(0), key, Value::Integer(1), Some(at(10)), ROOM));
        }
        assert!(!store.set(at(9), b"d", Value::Integer(1), None, ROOM));
        assert!(store.set(at(10), b"d", Value::Integer(1), None, ROOM));
        assert!(!store.set(at(10), b"e", Value::Bytes(Bytes::from(vec![0; 40])), None, ROOM));
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_map_with_ends(steps in prop::collection::vec((0u8..3, 0u8..5, 0u64..20, 0usize..20), 0..60)) {
            let mut store = Store::default();
            let mut model: std::collections::BTreeMap<u8, (usize, Option<u64>)> = Default::default();
            for (now, (what, key, ttl, size)) in steps.into_iter().enumerate() {
                let now = now as u64;
                model.retain(|_, (_, until)| until.is_none_or(|until| until > now));
                match what {
                    0 => {
                        let until = (ttl > 0).then_some(now + ttl);
                        model.remove(&key);
                        let used: usize = model.values().map(|(size, _)| size + 1).sum();
                        let fits = model.len() < ROOM.entries && used + size < ROOM.bytes;
                        let value = Value::Bytes(Bytes::from(vec![0; size]));
                        prop_assert_eq!(store.set(at(now), &[key], value, until.map(at), ROOM), fits);
                        if fits {
                            model.insert(key, (size, until));
                        }
                    }
                    1 => {
                        let _was_there = store.remove(&[key]);
                        model.remove(&key);
                    }
                    _ => prop_assert_eq!(store.get(at(now), &[key]).is_some(), model.contains_key(&key)),
                }
            }
        }
    }
}
