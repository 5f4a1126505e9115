//! Where a walk over all shards, one after the other, goes on.

use std::fmt::Display;
use std::str::FromStr;

use postroad_base::{LetterId, PendingId, ShardId};

/// A shard, and a place in it; the default place is its beginning. What text it is to callers stands with each kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<P> {
    pub shard: ShardId,
    pub place: P,
}

impl<P: Default> Cursor<P> {
    /// The beginning of a shard.
    pub fn first_of(shard: ShardId) -> Self {
        Self { shard, place: P::default() }
    }

    /// Where it goes on behind a look at `shard` that told this place; `None`: all `count` shards are done.
    pub fn behind(shard: ShardId, next: Option<P>, count: usize) -> Option<Self> {
        match next {
            Some(place) => Some(Self { shard, place }),
            None => Some(Self::first_of(ShardId(shard.0 + 1))).filter(|next| usize::from(next.shard.0) < count),
        }
    }
}

impl<P: Default> Default for Cursor<P> {
    fn default() -> Self {
        Self::first_of(ShardId(0))
    }
}

/// What is named by three numbers: `0-3-1017`.
pub(crate) trait Numbered: Display + FromStr {}

impl Numbered for LetterId {}
impl Numbered for PendingId {}

/// Behind one of those.
impl<I: Numbered> Cursor<Option<I>> {
    /// As it is given to callers: `2`, or `2.0-3-1017`.
    pub fn text(self) -> String {
        let after = self.place.map_or(String::new(), |after| format!(".{after}"));
        format!("{}{after}", self.shard.0)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (shard, place) = match text.split_once('.') {
            Some((shard, after)) => (shard, Some(after.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { shard: ShardId(shard.parse().ok()?), place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back<I: Numbered>() {
        for text in ["0", "12", "1.0-3-1017"] {
            assert_eq!(Cursor::<Option<I>>::parse(text).map(Cursor::<Option<I>>::text).as_deref(), Some(text));
        }
        for wrong in ["", "a", "1.", "1.0-3", "70000"] {
            assert!(Cursor::<Option<I>>::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cursor_behind_a_number_is_read_back() {
        reads_back::<LetterId>();
        reads_back::<PendingId>();
    }

    #[test]
    fn a_walk_goes_from_shard_to_shard_to_the_last_one() {
        let at = |shard, place| Some(Cursor { shard: ShardId(shard), place });
        assert_eq!(Cursor::behind(ShardId(0), Some(7), 2), at(0, 7));
        assert_eq!(Cursor::<u32>::behind(ShardId(0), None, 2), at(1, 0));
        assert_eq!(Cursor::<u32>::behind(ShardId(1), None, 2), None);
        assert_eq!(Cursor::behind(ShardId(1), Some(7), 2), at(1, 7));
    }
}
