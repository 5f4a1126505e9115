//! Publications of QoS 1 and 2 that came in on this connection and are not finished: what our receive maximum counts
//! (MQTT 5, section 4.9), and which of PUBACK and PUBREC is the answer.
//!
//! ```text
//! QoS 1   PUBLISH ─► unanswered ─► PUBACK
//! QoS 2   PUBLISH ─► unanswered ─► PUBREC ─► unreleased ─► PUBCOMP      (PUBREC ≥ 0x80: over)
//! ```
//! Whether a QoS 2 publication was seen before is the broker's to know: that outlives the connection, this does not
//! ("not preserved across network connections", section 4.9).

use std::collections::VecDeque;

use postroad_base::{Qos, Tag};

/// Entries whose room is kept when nothing waits any more: an idle connection owns next to nothing.
const ROOM_KEPT_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Window {
    /// In the order of receipt, which is the order of the answers `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
    unanswered: VecDeque<(Tag, Qos)>,
    /// PUBREC sent, PUBCOMP not. No tag twice.
    unreleased: Vec<Tag>,
}

impl Window {
    /// What counts against the receive maximum. A publication that is repeated on the same connection, which MQTT 5
    /// forbids `[MQTT-4.4.0-1]`, counts again: it is one more answer that we owe.
    pub(super) fn unfinished(&self) -> usize {
        self.unanswered.len() + self.unreleased.len()
    }

    /// Publications that wait for PUBACK or PUBREC.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// PUBLISH came.
    pub(super) fn publish(&mut self, tag: Tag, qos: Qos) {
        self.unanswered.push_back((tag, qos));
    }

    /// PUBACK or PUBREC leaves: the level of the oldest publication of `tag`, `None` if none waits. After a PUBREC that is
    /// no refusal a PUBREL is due.
    pub(super) fn answer(&mut self, tag: Tag, is_refused: bool) -> Option<Qos> {
        let index = self.unanswered.iter().position(|(known, _)| *known == tag)?;
        let (_, qos) = self.unanswered.remove(index)?;
        if qos == Qos::ExactlyOnce && !is_refused && !self.unreleased.contains(&tag) {
            self.unreleased.push(tag);
        }
        if self.unanswered.is_empty() && self.unanswered.capacity() > ROOM_KEPT_MAX {
            self.unanswered = VecDeque::new();
        }
        Some(qos)
    }

    /// PUBCOMP leaves. A tag of an earlier connection is not here, and took nothing from the window of this one.
    pub(super) fn complete(&mut self, tag: Tag) {
        if let Some(index) = self.unreleased.iter().position(|&known| known == tag) {
            self.unreleased.swap_remove(index);
        }
        if self.unreleased.is_empty() && self.unreleased.capacity() > ROOM_KEPT_MAX {
            self.unreleased = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Publish(u16, Qos),
        /// The oldest unanswered publication is answered, as the broker does; `true`: refused.
        Answer(bool),
        Complete(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let qos = prop_oneof![Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)];
        prop_oneof![
            (1_u16..5, qos).prop_map(|(tag, qos)| Step::Publish(tag, qos)),
            any::<bool>().prop_map(Step::Answer),
            (1_u16..5).prop_map(Step::Complete),
        ]
    }

    fn tag(number: u16) -> Tag {
        Tag::new(number).expect("not 0")
    }

    #[test]
    fn gives_back_its_room() {
        let mut window = Window::default();
        let tags = || (1..1000).map(tag);
        tags().for_each(|tag| window.publish(tag, Qos::ExactlyOnce));
        tags().for_each(|tag| assert_eq!(window.answer(tag, false), Some(Qos::ExactlyOnce)));
        assert_eq!((window.unanswered(), window.unfinished()), (0, 999));
        tags().for_each(|tag| window.complete(tag));
        assert_eq!(window.unfinished(), 0);
        assert!(window.unanswered.capacity() + window.unreleased.capacity() <= 2 * ROOM_KEPT_MAX);
    }

    proptest! {
        /// What is unfinished: every publication without its answer, and every tag that waits for its release.
        #[test]
        fn counts_as_the_plain_definition_does(steps in prop::collection::vec(step(), 0..60)) {
            let mut window = Window::default();
            let (mut waiting, mut unreleased) = (VecDeque::new(), std::collections::BTreeSet::new());
            for step in steps {
                match step {
                    Step::Publish(number, qos) => {
                        window.publish(tag(number), qos);
                        waiting.push_back((number, qos));
                    }
                    Step::Answer(is_refused) => {
                        let Some((number, qos)) = waiting.pop_front() else { continue };
                        prop_assert_eq!(window.answer(tag(number), is_refused), Some(qos));
                        if qos == Qos::ExactlyOnce && !is_refused {
                            unreleased.insert(number);
                        }
                    }
                    Step::Complete(number) => {
                        window.complete(tag(number));
                        unreleased.remove(&number);
                    }
                }
                prop_assert_eq!(window.unanswered(), waiting.len());
                prop_assert_eq!(window.unfinished(), waiting.len() + unreleased.len());
            }
        }
    }
}
