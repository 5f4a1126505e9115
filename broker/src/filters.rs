//! The subscriptions of one session, in ascending order of the filter.
//!
//! Most sessions have one or a few, which stand in a `Vec` of just that size. Above [`FEW_MAX`] they stand in a tree:
//! a SUBSCRIBE of very many lines would shift the rest of the list with each of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use base::{SubscriptionOptions, TopicFilter};
use postroad_base as base;

/// Up to this many they are a list.
const FEW_MAX: usize = 64;

type Many = BTreeMap<TopicFilter, SubscriptionOptions>;

/// See the head of the module.
#[derive(Clone, Debug)]
pub(crate) enum Filters {
    Few(Vec<(TopicFilter, SubscriptionOptions)>),
    Many(Box<Many>),
}

impl Default for Filters {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Filters {
    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub fn get(&self, filter: &TopicFilter) -> Option<&SubscriptionOptions> {
        match self {
            Self::Few(few) => few.binary_search_by(|(known, _)| known.cmp(filter)).ok().map(|place| &few[place].1),
            Self::Many(many) => many.get(filter),
        }
    }

    /// Adds or replaces; the old options if it was there `[MQTT-3.8.4-3]`.
    pub fn insert(&mut self, filter: &TopicFilter, options: SubscriptionOptions) -> Option<SubscriptionOptions> {
        let few = match self {
            Self::Few(few) => few,
            Self::Many(many) => return many.insert(filter.clone(), options),
        };
        match few.binary_search_by(|(known, _)| known.cmp(filter)) {
            Ok(place) => return Some(std::mem::replace(&mut few[place].1, options)),
            Err(_) if few.len() == FEW_MAX => {
                let mut many: Many = std::mem::take(few).into_iter().collect();
                many.insert(filter.clone(), options);
                *self = Self::Many(Box::new(many));
            }
            Err(place) => {
                // Most have one, and the first push of a Vec would make room for four.
                if few.is_empty() {
                    few.reserve_exact(1);
                }
                few.insert(place, (filter.clone(), options));
            }
        }
        None
    }

    /// Whether it was there.
    pub fn remove(&mut self, filter: &TopicFilter) -> bool {
        match self {
            Self::Few(few) => {
                let place = few.binary_search_by(|(known, _)| known.cmp(filter));
                place.map(|place| few.remove(place)).is_ok()
            }
            Self::Many(many) => {
                let was_there = many.remove(filter).is_some();
                // Not at once, so that one that comes and goes at the limit does not move all of them.
                if many.len() <= FEW_MAX / 2 {
                    *self = Self::Few(std::mem::take(&mut **many).into_iter().collect());
                }
                was_there
            }
        }
    }

    /// Those that are greater than this one; all, if there is none.
    pub fn behind(
        &self,
        last: Option<&TopicFilter>,
    ) -> impl Iterator<Item = (&TopicFilter, &SubscriptionOptions)> + use<'_> {
        let (few, many) = match self {
            Self::Few(few) => {
                let start = last.map_or(0, |last| few.partition_point(|(filter, _)| filter <= last));
                (&few[start..], None)
            }
            Self::Many(many) => {
                let from = last.map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
                (&[][..], Some(many.range((from, Bound::Unbounded))))
            }
        };
        few.iter().map(|(filter, options)| (filter, options)).chain(many.into_iter().flatten())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicFilter, &SubscriptionOptions)> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter().map(|(filter, options)| (filter, options)).chain(many.into_iter().flat_map(|many| many.iter()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(n: u8) -> TopicFilter {
        TopicFilter::new(format!("a/{n}")).unwrap()
    }

    /// In memory of a size that a session can afford.
    #[test]
    fn a_few_are_a_list_of_their_size_and_many_a_tree() {
        let mut filters = Filters::default();
        filters.insert(&filter(0), SubscriptionOptions::default());
        assert!(matches!(&filters, Filters::Few(few) if few.capacity() == 1));
        (0..100).for_each(|n| _ = filters.insert(&filter(n), SubscriptionOptions::default()));
        assert!(matches!(&filters, Filters::Many(_)));
        (33..100).for_each(|n| _ = filters.remove(&filter(n)));
        assert!(matches!(&filters, Filters::Many(_)));
        assert!(filters.remove(&filter(0)));
        assert!(matches!(&filters, Filters::Few(few) if few.len() == 32));
    }

    proptest! {
        #[test]
        fn they_are_a_map(changes in proptest::collection::vec((any::<u8>(), 0..4_u8), 0..600)) {
            let (mut filters, mut model) = (Filters::default(), Many::new());
            for (n, change) in changes {
                let filter = filter(n);
                let no_local = change == 1;
                let options = SubscriptionOptions { no_local, ..SubscriptionOptions::default() };
                if change == 0 {
                    prop_assert_eq!(filters.remove(&filter), model.remove(&filter).is_some());
                } else {
                    prop_assert_eq!(filters.insert(&filter, options), model.insert(filter.clone(), options));
                }
                prop_assert_eq!(filters.get(&filter), model.get(&filter));
                prop_assert_eq!(filters.len(), model.len());
            }
            prop_assert!(filters.iter().eq(model.iter()) && filters.behind(None).eq(model.iter()));
            let behind = filters.behind(Some(&filter(100)));
            prop_assert!(behind.eq(model.iter().filter(|(known, _)| **known > filter(100))));
        }
    }
}
