//! Who gets a message: the two indexes of a shard.
//!
//! - [`Subscriptions`]: from a topic name to the subscribers whose filters match it. Asked for every publish.
//! - [`Retained`]: from a topic filter to the retained messages whose topics match it. Asked for every
//!   subscribe.
//!
//! Both take filters as *patterns*: checked by `base::TopicFilter`, and without `$share/<name>/`. What
//! matches is defined by `base::filter_matches`; the tests compare every answer with it.
//!
//! Invariants: an empty list of subscribers, an empty node of the trie and an unused level text never
//! stay behind; no walk recurses, so a topic of 65,535 levels costs time, not stack.

mod list;
mod retained;
mod subscriptions;
mod text;
mod trie;

#[cfg(test)]
mod tests;

pub use retained::{Cursor, Retained};
pub use subscriptions::Subscriptions;

/// Whether a pattern holds `+` or `#`.
fn has_wildcard(pattern: &str) -> bool {
    pattern.bytes().any(|b| matches!(b, b'+' | b'#'))
}
