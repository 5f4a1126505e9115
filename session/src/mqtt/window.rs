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

#[derive(Debug, Default)]
pub(super) struct Window {
    /// In the order of receipt, which is the order of the answers `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
    unanswered: VecDeque<Waiting>,
    /// PUBREC sent, PUBCOMP not. No tag twice.
    unreleased: Vec<Tag>,
    /// How many of `unanswered` are repeats.
    repeats: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    tag: Tag,
    qos: Qos,
    /// A QoS 2 publication that is here already: it is answered once more, and counts once.
    repeats: bool,
}

impl Window {
    /// What counts against the receive maximum.
    pub(super) fn unfinished(&self) -> usize {
        self.unanswered.len() - self.repeats + self.unreleased.len()
    }

    /// Publications that wait for PUBACK or PUBREC.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether this is a QoS 2 publication that is not finished.
    pub(super) fn is_open(&self, tag: Tag, qos: Qos) -> bool {
        let is_same = |waiting: &Waiting| waiting.tag == tag && waiting.qos == Qos::ExactlyOnce;
        qos == Qos::ExactlyOnce && (self.unreleased.contains(&tag) || self.unanswered.iter().any(is_same))
    }

    /// PUBLISH came.
    pub(super) fn publish(&mut self, tag: Tag, qos: Qos) {
        let repeats = self.is_open(tag, qos);
        self.repeats += usize::from(repeats);
        self.unanswered.push_back(Waiting { tag, qos, repeats });
    }

    /// PUBACK or PUBREC leaves: the level of the oldest publication of `tag`, `None` if none waits. After a PUBREC that is
    /// no refusal a PUBREL is due.
    pub(super) fn answer(&mut self, tag: Tag, is_refused: bool) -> Option<Qos> {
        let index = self.unanswered.iter().position(|waiting| waiting.tag == tag)?;
        let Waiting { qos, repeats, .. } = self.unanswered.remove(index)?;
        self.repeats -= usize::from(repeats);
        if qos == Qos::ExactlyOnce && !is_refused && !self.unreleased.contains(&tag) {
            self.unreleased.push(tag);
        }
        Some(qos)
    }

    /// PUBCOMP leaves. A tag of an earlier connection is not here, and took nothing from the window of this one.
    pub(super) fn complete(&mut self, tag: Tag) {
        if let Some(index) = self.unreleased.iter().position(|&known| known == tag) {
            self.unreleased.swap_remove(index);
        }
    }
}
