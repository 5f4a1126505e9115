//! Pushes that wait for their ack, by what the device calls them.
//!
//! | the codec's pushes | called | taken by an ack |
//! |---|---|---|
//! | have a tag of 16 bits or more | as the broker calls them; 0 at QoS 0 | with that tag |
//! | have a smaller tag | by the smallest number that is free, from 1; 0 at QoS 0 | with that number |
//! | have none | – | the oldest, at QoS 0 too: a device acknowledges each |

use std::collections::VecDeque;

use postroad_base::{Qos, Tag};
use postroad_protocol::frame::Acknowledgement;

/// Entries whose room is kept when nothing waits any more: an idle connection owns next to nothing.
const ROOM_KEPT_MAX: usize = 32;
/// Pushes of QoS 0 that may wait for an ack in turn; the broker does not count them.
const PLAIN_MAX: usize = 1024;

/// A tag of so many bits is the broker's own.
pub(super) const BROKER_TAG_BITS: u8 = 16;

/// See the module head.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// In the order in which they were sent.
    pushes: VecDeque<Push>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Push {
    number: u16,
    /// `None` at QoS 0.
    pub(super) tag: Option<Tag>,
    pub(super) qos: Qos,
}

impl InFlight {
    /// What to call a push, which is in flight from now on; `None`: there is no name left for it.
    pub(super) fn send(&mut self, tag: Option<Tag>, qos: Qos, how: Acknowledgement) -> Option<u64> {
        let number = match (how, tag) {
            (Acknowledgement::None, _) => return Some(0),
            (Acknowledgement::Tagged { .. }, None) => return Some(0),
            (Acknowledgement::Tagged { bits }, Some(tag)) if bits >= BROKER_TAG_BITS => tag.get(),
            (Acknowledgement::Tagged { bits }, Some(_)) => self.smallest_free(most_in_flight(bits))?,
            (Acknowledgement::InTurn, _) if self.pushes.len() >= PLAIN_MAX => return None,
            (Acknowledgement::InTurn, _) => 0,
        };
        // What is sent again is in flight once.
        if tag.is_none() || self.pushes.iter().all(|push| push.tag != tag) {
            self.pushes.push_back(Push { number, tag, qos });
        }
        Some(number.into())
    }

    /// It could not be sent after all.
    pub(super) fn take_back(&mut self, tag: Option<Tag>) {
        if self.pushes.back().is_some_and(|push| push.tag == tag) {
            self.pushes.pop_back();
        }
        self.give_back_room();
    }

    /// An ack came: what it is for. With a tag that is not in flight: none.
    pub(super) fn acknowledge(&mut self, tag: Option<u64>, how: Acknowledgement) -> Option<Push> {
        let taken = match how {
            Acknowledgement::None => None,
            Acknowledgement::InTurn => self.pushes.pop_front(),
            Acknowledgement::Tagged { .. } => {
                let place = self.pushes.iter().position(|push| tag == Some(push.number.into()));
                place.and_then(|place| self.pushes.remove(place))
            }
        };
        self.give_back_room();
        taken
    }

    fn smallest_free(&self, most: u16) -> Option<u16> {
        (1..=most).find(|number| self.pushes.iter().all(|push| push.number != *number))
    }

    fn give_back_room(&mut self) {
        if self.pushes.is_empty() && self.pushes.capacity() > ROOM_KEPT_MAX {
            self.pushes = VecDeque::new();
        }
    }
}

/// How many pushes a device can tell apart by tags of so many bits; 0 is none.
pub(super) fn most_in_flight(bits: u8) -> u16 {
    if bits >= BROKER_TAG_BITS { u16::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u16) -> Option<Tag> {
        Tag::new(number)
    }

    const NARROW: Acknowledgement = Acknowledgement::Tagged { bits: 2 };
    const WIDE: Acknowledgement = Acknowledgement::Tagged { bits: 16 };

    #[test]
    fn narrow_tags_are_the_smallest_that_are_free() {
        let mut pushes = InFlight::default();
        let mut send = |number| pushes.send(tag(number), Qos::AtLeastOnce, NARROW);
        assert_eq!([send(700), send(701), send(702), send(703)], [Some(1), Some(2), Some(3), None]);
        let taken = pushes.acknowledge(Some(2), NARROW).unwrap();
        assert_eq!(taken.tag, tag(701));
        assert_eq!(pushes.acknowledge(Some(2), NARROW), None);
        assert_eq!(pushes.send(tag(704), Qos::AtLeastOnce, NARROW), Some(2));
        assert_eq!(pushes.send(None, Qos::AtMostOnce, NARROW), Some(0));
    }

    #[test]
    fn wide_tags_are_the_broker_s_and_sent_again_they_are_in_flight_once() {
        let mut pushes = InFlight::default();
        for _ in 0..2 {
            assert_eq!(pushes.send(tag(700), Qos::AtLeastOnce, WIDE), Some(700));
        }
        assert_eq!(pushes.acknowledge(Some(700), WIDE).unwrap().tag, tag(700));
        assert_eq!(pushes.acknowledge(Some(700), WIDE), None);
        assert_eq!(pushes.acknowledge(None, WIDE), None);
    }

    #[test]
    fn without_tags_the_oldest_is_meant() {
        let mut pushes = InFlight::default();
        let how = Acknowledgement::InTurn;
        assert_eq!(pushes.send(None, Qos::AtMostOnce, how), Some(0));
        assert_eq!(pushes.send(tag(9), Qos::AtLeastOnce, how), Some(0));
        assert_eq!(pushes.acknowledge(None, how).unwrap().tag, None);
        assert_eq!(pushes.acknowledge(Some(3), how).unwrap().tag, tag(9));
        assert_eq!(pushes.acknowledge(None, how), None);
        let sent = (0..PLAIN_MAX).map(|_| pushes.send(None, Qos::AtMostOnce, how)).filter(Option::is_some).count();
        assert_eq!((sent, pushes.send(None, Qos::AtMostOnce, how)), (PLAIN_MAX, None));
        (0..PLAIN_MAX).for_each(|_| assert!(pushes.acknowledge(None, how).is_some()));
        assert!(pushes.pushes.capacity() <= ROOM_KEPT_MAX);
    }
}
