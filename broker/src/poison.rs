//! Messages that make the server itself panic: their deliveries end, and the message is kept whole outside of the log.
//!
//! Whoever judges crashes names their ids before anything is replayed. A delivery is found where it would come back to
//! life: among the young records, among the retained messages, or in a portion read from the old generation. One that
//! panics per connection is named while the server runs (`Event::SetAside`).
//!
//! Crash story: `Effect::SetAside` comes before the records that end the deliveries. Killed in between, the message is
//! kept and its deliveries are still pending, so it is kept once more.

use std::sync::Arc;

use ahash::AHashSet;
use base::{ClientId, ConnectionId, Ended, Message, MessageId, Outcome, QueueId, Sequence, Step, Tag};
use postroad_base as base;

use crate::api::{Counted, Effect};
use crate::broker::Broker;
use crate::recover::tag_at;
use crate::session::SessionIndex;

/// What must not be handled.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    ids: AHashSet<MessageId>,
    /// Recovery: deliveries found and not settled so far.
    replayed: Vec<(Arc<Message>, QueueId, Sequence)>,
}

impl Poison {
    pub fn has(&self, id: MessageId) -> bool {
        !self.ids.is_empty() && self.ids.contains(&id)
    }

    pub fn replay(&mut self, message: &Arc<Message>, queue: QueueId, sequence: Sequence) {
        self.replayed.push((Arc::clone(message), queue, sequence));
    }

    pub fn is_replayed(&self, queue: QueueId, sequence: Sequence) -> bool {
        self.replayed.iter().any(|(_, other, at)| (*other, *at) == (queue, sequence))
    }

    /// The log says later that it was over before the crash.
    pub fn replay_settle(&mut self, queue: QueueId, sequence: Sequence) {
        self.replayed.retain(|(_, other, at)| (*other, *at) != (queue, sequence));
    }
}

impl Broker {
    /// Names the messages whose handling has made the server panic twice. To be called before the first record is
    /// replayed.
    pub fn set_poison(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        self.poison.ids = ids.into_iter().collect();
    }

    /// The client that publishes into or receives from this queue, for a report about a crash.
    pub fn client_of_queue(&self, queue: QueueId) -> Option<&ClientId> {
        self.session_of_queue(queue).map(|index| &self.sessions[index as usize].client)
    }

    /// The client of this connection, for a report about a crash.
    pub fn client_of(&self, connection: ConnectionId) -> Option<&ClientId> {
        let place = self.place_of(connection)?;
        Some(&self.sessions[self.session_of(place) as usize].client)
    }

    /// What the replay has found.
    pub(crate) fn set_replayed_aside(&mut self) {
        let mut found = std::mem::take(&mut self.poison.replayed);
        // The session may have ended after.
        found.retain(|(_, queue, _)| self.session_of_queue(*queue).is_some());
        found.sort_by_key(|(message, queue, _)| (message.id, *queue));
        for of_one in found.chunk_by(|a, b| a.0.id == b.0.id) {
            let pending = of_one.iter().filter_map(|(_, queue, at)| Some((self.session_of_queue(*queue)?, *at, false)));
            let deliveries: Vec<_> = pending.collect();
            self.end_poisoned(&of_one[0].0, &deliveries);
        }
        let retained = &mut self.retiring.replayed_retained;
        let poisoned: Vec<_> = retained.values().filter(|message| self.poison.has(message.id)).cloned().collect();
        for message in poisoned {
            self.retiring.replayed_retained.remove(&message.topic);
            self.end_poisoned(&message, &[]);
            self.log_retained(&message.topic, None);
        }
    }

    /// A portion of the old generation held these.
    pub(crate) fn set_stored_aside(&mut self, index: SessionIndex, found: Vec<(Arc<Message>, Sequence)>) {
        for (message, sequence) in found {
            self.end_poisoned(&message, &[(index, sequence, true)]);
        }
    }

    /// A delivery in flight.
    pub(crate) fn set_aside(&mut self, connection: ConnectionId, tag: Tag) {
        let Some(place) = self.place_of(connection) else { return };
        let Some(index) = self.connections[place as usize].owner_of(tag) else { return };
        let slot = self.sessions[index as usize].queue.window.get(tag);
        let Some(entry) = slot.and_then(|slot| slot.entry.as_ref()) else { return };
        let message = Arc::clone(&entry.message);
        self.tell_aside(&message, vec![self.sessions[index as usize].client.clone()]);
        self.finish(place, tag, Outcome::Poison, 0);
    }

    /// Ends deliveries that no queue holds, or the window without their body: session, sequence, whether the old generation has them.
    pub(crate) fn end_poisoned(&mut self, message: &Arc<Message>, deliveries: &[(SessionIndex, Sequence, bool)]) {
        let clients = deliveries.iter().map(|(index, ..)| self.sessions[*index as usize].client.clone()).collect();
        self.tell_aside(message, clients);
        for &(index, sequence, stored) in deliveries {
            let window = &mut self.sessions[index as usize].queue.window;
            if let Some(tag) = tag_at(window, sequence) {
                window.remove(tag);
            }
            let attempts = self.sessions[index as usize].queue.attempts_at(sequence).map_or(0, |known| known.count);
            self.settle(index, sequence, stored, Outcome::Poison);
            if self.is_followed(message) {
                let how = Ended::With(Outcome::Poison);
                self.tell_of(index, message, Step::Over { how, reason_code: 0, attempts });
            }
        }
    }

    fn tell_aside(&mut self, message: &Arc<Message>, clients: Vec<ClientId>) {
        let count = clients.len().max(1) as u64;
        self.effects.push_back(Effect::SetAside { message: Arc::clone(message), clients });
        self.count_by(Counted::Poison, count);
    }
}
