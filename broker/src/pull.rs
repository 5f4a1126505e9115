//! Pull instead of push `[REL-1]`, `[PER-7]`: a client that paces itself says how many deliveries it wants.
//!
//! ```text
//! CONNECT ─► push ──────── $pull/<n> ───────┐      another $pull/<m>: + m, at most 65,535
//!    │  what comes leaves                   ▼      each delivery that leaves: − 1
//!    └───────────────────────────► pull, allowance n  $pull/0: none any more
//! ```
//! MQTT has no packet for it, and the receive maximum is fixed at CONNECT and no pull: acknowledging would ask for more. So it
//! is a publish to `$pull/<n>`, which goes to nobody, is stored nowhere, and needs no access rule: a client asks for what is
//! its own. A connection is in pull mode from its CONNECT on (a property, its entry in `auth.file`, or the option
//! `delivery.mode` says so), or from its first pull on.
//!
//! What takes allowance is each delivery of QoS 1 and 2 as it is put in flight for the first time on any connection of the client.
//! What takes none: QoS 0, which does not wait; what was in flight when the last connection ended, which is sent again at once
//! `[MQTT-4.4.0-1]`; what expires on the way. After a crash nobody knows what of QoS 1 had been sent: it stands in its queue and
//! takes allowance.
//!
//! Without allowance nothing is read from the old generation, and what comes waits as for a client that is away: within the
//! queue's bounds, and in memory until it is retired.

use base::{MessageId, Qos, ReasonCode, Sequence, TopicName};
use postroad_base as base;

use crate::api::{Counted, Inbound};
use crate::broker::Broker;
use crate::config::DeliveryMode;
use crate::hooks::Waiting;
use crate::session::{AnswerKind, Connection, ConnectionIndex, InboundState, Progress, Session, SessionIndex};

/// What a publish to the root of pulls asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// So many deliveries more; none: those that were asked for and have not left are not wanted any more.
    Of(u16),
    /// It is no number from 0 to 65,535.
    Malformed,
}

/// Stands for the message under a tag by which a client has pulled at QoS 2. Nothing of it is stored, and it ends with its connection.
pub(crate) const NO_MESSAGE: MessageId = MessageId(0);

impl Pull {
    /// `None`: the topic is another one.
    pub fn of_topic(topic: &TopicName) -> Option<Self> {
        if !topic.is_reserved() {
            return None;
        }
        let rest = topic.as_str().strip_prefix("$pull")?;
        match rest.strip_prefix('/') {
            Some(count) => Some(count.parse().map_or(Self::Malformed, Self::Of)), // a topic name holds no `+`
            None => rest.is_empty().then_some(Self::Malformed),
        }
    }
}

impl Connection {
    /// Deliveries that a connection may be sent to begin with; `None`: all.
    pub fn allowance_of(mode: DeliveryMode) -> Option<u16> {
        match mode {
            DeliveryMode::Push => None,
            DeliveryMode::Pull => Some(0),
        }
    }

    /// It is in pull mode, and has been sent all that it asked for.
    #[inline]
    pub fn has_no_allowance(&self) -> bool {
        self.allowance == Some(0)
    }
}

impl Session {
    /// Its connection is over, and with it what was asked for: a pull that is repeated on the next one counts.
    pub fn forget_pulls(&mut self) {
        self.inbound.retain(|(_, state)| state.id != NO_MESSAGE);
    }
}

impl Broker {
    /// A client asks for deliveries, or for none any more.
    pub(crate) fn pull(&mut self, place: ConnectionIndex, waiting: &Waiting, pull: Pull) {
        let inbound = &waiting.inbound;
        let index = self.session_of(place);
        if let Some(tag) = inbound.tag.filter(|_| inbound.message.qos == Qos::ExactlyOnce)
            && let Some(&mut state) = self.sessions[index as usize].inbound_mut(tag)
            && state.id == NO_MESSAGE
        {
            return self.answer_repeat(place, tag, state); // it has been counted [MQTT-4.3.3-10]
        }
        let connection = &mut self.connections[place as usize];
        let count = match pull {
            Pull::Of(count) if !connection.is_caller() => count,
            _ => return self.refuse(place, waiting, ReasonCode::TopicNameInvalid, Counted::BadPull),
        };
        let had_no_allowance = connection.has_no_allowance();
        connection.allowance = Some(match count {
            0 => 0,
            count => connection.allowance.unwrap_or(0).saturating_add(count),
        });
        let changes = connection.has_no_allowance() != had_no_allowance;
        self.stats.pulls += 1;
        self.answer_pull(place, inbound);
        if changes {
            self.share_presence(self.session_of(place));
        }
        self.pump_connection(place);
    }

    /// Nothing is stored for it, so there is nothing to wait for. At QoS 2 the tag is taken until it is released, or its connection
    /// is over (see `forget_pulls`).
    fn answer_pull(&mut self, place: ConnectionIndex, inbound: &Inbound) {
        let Some(tag) = inbound.tag else { return };
        let (reason, need) = (ReasonCode::Success, Sequence(0));
        let index = self.session_of(place);
        if inbound.message.qos == Qos::ExactlyOnce && self.sessions[index as usize].inbound_mut(tag).is_none() {
            let state = InboundState { id: NO_MESSAGE, progress: Progress::Routed { reason, need }, told: false };
            self.note_inbound(index, tag, state);
        }
        self.answer(place, tag, AnswerKind::Published, reason, need, false);
    }

    /// A delivery has been put in flight on this connection for the first time.
    #[inline]
    pub(crate) fn spend_allowance(&mut self, place: ConnectionIndex) {
        let connection = &mut self.connections[place as usize];
        if let Some(allowance) = &mut connection.allowance {
            *allowance -= 1;
            if *allowance == 0 {
                self.share_presence(self.session_of(place));
            }
        }
    }

    /// The session's connection, if it takes a delivery that has not been sent before.
    #[inline]
    pub(crate) fn ready_for_next(&self, index: SessionIndex) -> Option<ConnectionIndex> {
        self.ready_for_queued(index).filter(|place| !self.connections[*place as usize].has_no_allowance())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_a_number_and_nothing_else() {
        let check = |topic: &'static str| Pull::of_topic(&TopicName::new(topic).unwrap());
        for (topic, count) in [("$pull/1", 1), ("$pull/0", 0), ("$pull/65535", 65_535), ("$pull/007", 7)] {
            assert_eq!(check(topic), Some(Pull::Of(count)), "{topic}");
        }
        for topic in ["$pull", "$pull/", "$pull/x", "$pull/65536", "$pull/-1", "$pull/1/2", "$pull/1 ", "$pull/٣"] {
            assert_eq!(check(topic), Some(Pull::Malformed), "{topic}");
        }
        for topic in ["pull/1", "$pulled/1", "$SYS/pull/1", "a/$pull/1", "$pul"] {
            assert_eq!(check(topic), None, "{topic}");
        }
    }
}
