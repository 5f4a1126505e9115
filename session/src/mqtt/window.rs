//! Publications of QoS 1 and 2 that came in on this connection and are not finished: what our receive maximum counts
//! (MQTT 5, section 4.9), and which of PUBACK and PUBREC is the answer.
//!
//! ```text
//! QoS 1   PUBLISH ─► unanswered ─► PUBACK
//! QoS 2   PUBLISH ─► unanswered ─► PUBREC ─► unreleased ─► PUBCOMP      (PUBREC ≥ 0x80: over)
//! ```
//! Whether a QoS 2 publication was seen before is the broker's to know: that outlives the connection.

use std::collections::VecDeque;

use base::{Qos, Tag};
use postroad_base as base;

#[derive(Debug, Default)]
pub(super) struct Window {
    /// In the order of receipt, which is the order of the answers `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
    unanswered: VecDeque<(Tag, Qos)>,
    /// PUBREC sent, PUBCOMP not.
    unreleased: Vec<Tag>,
}

impl Window {
    /// What counts against the receive maximum.
    pub(super) fn unfinished(&self) -> usize {
        self.unanswered.len() + self.unreleased.len()
    }

    /// What ends without another packet of the client.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    pub(super) fn publish(&mut self, tag: Tag, qos: Qos) {
        self.unanswered.push_back((tag, qos));
    }

    /// The level at which `tag` was published; from here on it is answered. `None`: it was not published here.
    pub(super) fn answered(&mut self, tag: Tag) -> Option<Qos> {
        let index = self.unanswered.iter().position(|(known, _)| *known == tag)?;
        self.unanswered.remove(index).map(|(_, qos)| qos)
    }

    /// PUBREC leaves: a PUBREL is due.
    pub(super) fn received(&mut self, tag: Tag) {
        if !self.unreleased.contains(&tag) {
            self.unreleased.push(tag);
        }
    }

    /// PUBCOMP leaves. A tag of an earlier connection is not here, and took nothing from the window of this one.
    pub(super) fn completed(&mut self, tag: Tag) {
        if let Some(index) = self.unreleased.iter().position(|&known| known == tag) {
            self.unreleased.swap_remove(index);
        }
    }

    pub(super) fn shrink(&mut self) {
        self.unanswered.shrink_to_fit();
        self.unreleased.shrink_to_fit();
    }
}
