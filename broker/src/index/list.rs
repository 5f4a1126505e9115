//! The subscribers of one filter.
//!
//! Most filters have one subscriber, which is stored in place. A fan-out is a slice scan. Above
//! [`SCAN_MAX`] subscribers a map says where each stands, so that a million sessions of one filter
//! come and go without scanning each other.

use std::hash::Hash;

use ahash::AHashMap;

/// Up to this many subscribers a search is a scan.
const SCAN_MAX: usize = 32;

/// Subscribers in no particular order, each key once.
#[derive(Debug, Default)]
pub(super) enum List<K, V> {
    #[default]
    Empty,
    One((K, V)),
    Many(Box<Many<K, V>>),
}

#[derive(Debug)]
pub(super) struct Many<K, V> {
    items: Vec<(K, V)>,
    /// Present above `SCAN_MAX` items: where each key stands.
    places: Option<AHashMap<K, u32>>,
}

impl<K: Copy + Eq + Hash, V> List<K, V> {
    pub fn as_slice(&self) -> &[(K, V)] {
        match self {
            Self::Empty => &[],
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(many) => &many.items,
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Adds a subscriber or replaces its value; the old value if it was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::Empty => {
                *self = Self::One((key, value));
                None
            }
            Self::One((known, old)) if *known == key => Some(std::mem::replace(old, value)),
            Self::One(_) => {
                let Self::One(first) = std::mem::take(self) else { unreachable!("matched above") };
                *self = Self::Many(Box::new(Many { items: vec![first, (key, value)], places: None }));
                None
            }
            Self::Many(many) => many.insert(key, value),
        }
    }

    /// Takes a subscriber out; its value if it was there.
    pub fn remove(&mut self, key: K) -> Option<V> {
        match self {
            Self::Empty => None,
            Self::One((known, _)) if *known != key => None,
            Self::One(_) => match std::mem::take(self) {
                Self::One((_, value)) => Some(value),
                _ => unreachable!("matched above"),
            },
            Self::Many(many) => {
                let value = many.remove(key)?;
                if many.items.len() == 1 {
                    *self = Self::One(many.items.pop().expect("one item is left"));
                }
                Some(value)
            }
        }
    }
}

impl<K: Copy + Eq + Hash, V> Many<K, V> {
    fn place(&self, key: K) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&key).map(|place| *place as usize),
            None => self.items.iter().position(|(known, _)| *known == key),
        }
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(place) = self.place(key) {
            return Some(std::mem::replace(&mut self.items[place].1, value));
        }
        let place = place_number(self.items.len());
        self.items.push((key, value));
        match &mut self.places {
            Some(places) => {
                places.insert(key, place);
            }
            None if self.items.len() > SCAN_MAX => {
                let places = self.items.iter().enumerate().map(|(place, (key, _))| (*key, place_number(place)));
                self.places = Some(places.collect());
            }
            None => {}
        }
        None
    }

    fn remove(&mut self, key: K) -> Option<V> {
        let place = self.place(key)?;
        let (_, value) = self.items.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&key);
            if let Some((moved, _)) = self.items.get(place) {
                places.insert(*moved, place_number(place));
            }
        }
        self.shrink();
        Some(value)
    }

    /// Gives memory back. The factors leave room, so that a size that swings does not allocate each time.
    fn shrink(&mut self) {
        let len = self.items.len();
        if len < SCAN_MAX / 2 {
            self.places = None;
        }
        if len * 4 < self.items.capacity() {
            self.items.shrink_to(len * 2);
            if let Some(places) = &mut self.places {
                places.shrink_to(len * 2);
            }
        }
    }
}

fn place_number(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than 4 billion subscribers")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain map, across both thresholds.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), 0_u8..60, any::<u16>()), 0..400)) {
            let mut list = List::default();
            let mut model = std::collections::BTreeMap::new();
            for (add, key, value) in steps {
                if add {
                    prop_assert_eq!(list.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(list.remove(key), model.remove(&key));
                }
                prop_assert_eq!(list.is_empty(), model.is_empty());
                let mut items = list.as_slice().to_vec();
                items.sort_unstable();
                prop_assert_eq!(items, model.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn memory_comes_back() {
        let mut list = List::default();
        (0..10_000_u32).for_each(|key| assert_eq!(list.insert(key, ()), None));
        (0..9_990).for_each(|key| assert_eq!(list.remove(key), Some(())));
        let List::Many(many) = &list else { panic!("ten are left") };
        assert!(many.items.capacity() <= 80, "{}", many.items.capacity());
        assert!(many.places.is_none());
    }
}
