//! Our own mistakes: what a panic ends, and what is kept away after the process has ended for one.

use std::sync::Arc;
use std::time::Duration;

use postroad_base::{ClientId, ConnectionId, Message, QueueId};
use postroad_broker::api::{Delivery, DisconnectCause, Event};
use postroad_control::Note;

use super::{Order, Shard};
use crate::crash::{self, Doing, InHand};

/// Connections that may end over one message before it is set aside for the client: else that client would come back
/// for it for ever.
const SENDS_THAT_PANIC_MAX: u32 = 3;
/// Messages that are remembered for that.
const PANICS_REMEMBERED_MAX: usize = 256;
/// How long the last words wait for the name of a publisher who lives on another shard.
const NAME_WAIT: Duration = Duration::from_secs(2);

impl Shard {
    /// Runs a change of the shard. If it panics, nothing here can be trusted any more: what was in hand is written
    /// down, and the process ends.
    pub(super) fn witnessed<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        match crash::witnessed(|| act(self)) {
            Ok(value) => value,
            Err(in_hand) => crash::stop(self.suspect(in_hand)),
        }
    }

    fn suspect(&self, in_hand: InHand) -> Option<ClientId> {
        if in_hand.doing == Doing::Forward {
            return self.publisher(in_hand.publisher);
        }
        self.broker.client_of(in_hand.connection?).cloned()
    }

    /// The shard of the publisher is asked, since it alone knows.
    fn publisher(&self, queue: QueueId) -> Option<ClientId> {
        if queue == QueueId::NONE {
            return None;
        }
        let home = self.common.placement.shard_of(queue.partition());
        if home == self.id {
            return self.broker.client_of_queue(queue).cloned();
        }
        let (answer, answered) = flume::bounded(1);
        self.common.inboxes[usize::from(home.0)].order(Order::WhoIs { queue, answer });
        answered.recv_timeout(NAME_WAIT).ok()
    }

    pub(super) fn tell_who(&self, queue: QueueId, answer: &flume::Sender<ClientId>) {
        if let Some(client) = self.broker.client_of_queue(queue) {
            let _gone = answer.try_send(client.clone());
        }
    }

    pub(super) fn is_barred(&self, client: &ClientId) -> bool {
        self.live.verdict.barred.get(client).is_some_and(|until| self.now.wall < *until)
    }

    /// Our code panicked while it wrote to this connection: what is in its output may be half a packet.
    pub(super) fn speaking_panicked(&mut self, id: ConnectionId) {
        tracing::error!(shard = self.id.0, connection = id.0, "writing to a connection panicked: it is closed");
        self.counters.panics += 1;
        self.lost(id, DisconnectCause::Lost);
    }

    /// Encoding this delivery panicked: the connection ends. The client comes back for it, so after some attempts the
    /// delivery is set aside.
    pub(super) fn sending_panicked(&mut self, id: ConnectionId, delivery: &Delivery) {
        let message = delivery.message.id;
        tracing::error!(shard = self.id.0, connection = id.0, %message, "encoding a delivery panicked");
        if self.panics_by_message.len() >= PANICS_REMEMBERED_MAX {
            self.panics_by_message.clear();
        }
        let times = self.panics_by_message.entry(message).or_default();
        *times += 1;
        if let Some(tag) = delivery.tag.filter(|_| *times >= SENDS_THAT_PANIC_MAX) {
            self.handle(Event::SetAside { connection: id, tag });
        }
        self.speaking_panicked(id);
    }

    /// Keeps a message whole before its deliveries end. If that fails they must not end: the process does.
    pub(super) fn keep_aside(&mut self, message: &Arc<Message>, clients: &[ClientId]) {
        let data_dir = self.live.config.data_dir.clone();
        let convicted = self.live.verdict.poison.get(&message.id);
        let why = convicted.map_or("sending it to a client made the server panic, again and again", String::as_str);
        let id = message.id;
        if let Err(error) = crash::quarantine::keep(&data_dir, message, clients, why) {
            return self.poison(format!("message {id} can't be set aside in {}: {error}", data_dir.display()));
        }
        let topic = message.topic.as_str();
        tracing::warn!(shard = self.id.0, id = %id, topic, ?clients, why, "a poisoned message is set aside");
        let text = format!("message {id} on {topic:?} is set aside in quarantine/poison-{id}.json: {why}");
        let _nobody_listens = self.common.notes.try_send(Note { text, until: None });
    }
}
