//! What the broker wants done.

use postroad_base::{ConnectionId, MessageId, ReasonCode, Tag};
use postroad_broker::api::{DisconnectCause, Effect, Event};
use postroad_protocol::frame::Codec;
use postroad_protocol::gather::Gather;

use super::Shard;
use crate::connection::{Connection, Stage};
use crate::counters::Refused;
use crate::session::{Delivered, Session};

impl Shard {
    /// Does all that is wanted, and what follows from it.
    pub(crate) fn drain_effects(&mut self) {
        while let Some(effect) = self.broker.poll() {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        if !self.watchers.is_empty() {
            self.watched_effect(&effect);
        }
        match effect {
            Effect::Deliver { connection, delivery } => {
                crate::crash::delivering(delivery.message.id, || self.deliver(connection, &delivery));
            }
            Effect::Taken { connection, tag, id } => self.taken(connection, tag, id),
            Effect::Published { connection, tag, reason } => self.published(connection, tag, reason),
            Effect::Completed { connection, tag, reason } => {
                self.say_mqtt(connection, |session, out| session.completed(tag, reason, out));
            }
            Effect::ReleaseDelivery { connection, tag, reason } => {
                self.release(connection, tag, reason);
            }
            Effect::Subscribed { connection, tag, reasons } => {
                self.say_mqtt(connection, |session, out| session.subscribed(tag, &reasons, out));
            }
            Effect::Unsubscribed { connection, tag, reasons } => {
                self.say_mqtt(connection, |session, out| session.unsubscribed(tag, &reasons, out));
            }
            Effect::Connected { connection, session_present, inbound } => {
                let live = std::sync::Arc::clone(&self.live);
                self.say(connection, |session, codec, out| {
                    session.connected(codec, (session_present, &inbound), &live.limits, out);
                });
                self.schedule(connection);
                self.read_again(connection); // what came behind the CONNECT
            }
            Effect::ConnectRefused { connection: id, reason } => {
                self.say(id, |session, codec, out| session.connect_refused(codec, reason, out));
                if let Some(connection) = self.connection(id) {
                    connection.flags.known = false;
                    let listener = usize::from(connection.listener);
                    self.counters.refused(listener, Refused::of(reason));
                }
                self.linger(id);
                self.caller_gone(id, reason);
            }
            Effect::Probe { connection } => self.tell_road(connection),
            Effect::Close { connection: id, reason } => {
                self.say(id, |session, codec, out| session.close(codec, reason, "", out));
                self.forget(id, DisconnectCause::Lost);
                self.linger(id);
                self.caller_gone(id, reason);
            }
            Effect::Park { connection } => {
                self.counters.parked += 1;
                match self.flags(connection) {
                    Some(flags) => flags.parked = true,
                    None => self.caller_parked(connection, true),
                }
            }
            Effect::Unpark { connection } => self.unpark(connection),
            Effect::Mesh { to, message } => {
                crate::fault::point("mesh");
                self.counters.forwarded += 1;
                self.mesh.send(to, message);
            }
            Effect::Append { record } => self.append(&record),
            Effect::ReadBacklog { queue, after, messages_max, bytes_max } => {
                self.read_backlog(queue, after, messages_max, bytes_max);
            }
            Effect::Ingest { batch } => self.ingest(batch),
            Effect::LettersFound { token, letters, next, ends } => self.letters_found(token, letters, next, ends),
            Effect::ClientDone { token, answer } => self.client_done(token, answer),
            Effect::Peeked { token, page } => self.peeked(token, page.map(|page| *page)),
            Effect::PendingEnded { token, answer } => self.pending_ended(token, answer),
            Effect::ScheduledFound { token, page } => self.scheduled_found(token, page.map(|page| *page)),
            Effect::CancelDone { token, answer } => self.scheduled_cancelled(token, answer),
            Effect::LetterKept { token, id } => self.letter_kept(token, id),
            Effect::LetterDone { token, answer } => self.letter_done(token, answer),
            Effect::Moved(moved) => self.moved(moved),
            Effect::GroupDone { token, answer } => self.group_done(token, *answer),
            Effect::SetAside { message, clients } => self.keep_aside(&message, &clients),
            Effect::PluginsSettled { generation } => self.plugins_settled(generation),
            Effect::Count { what, by } => tracing::debug!(shard = self.id.0, what = what.name(), by, "counted"),
        }
    }

    fn taken(&mut self, connection: ConnectionId, tag: Option<Tag>, id: MessageId) {
        match self.connection(connection) {
            None => self.caller_taken(connection, tag, id),
            Some(Connection { stage: Stage::Serving(session), .. }) => {
                let taken = session.mqtt().zip(tag);
                taken.into_iter().for_each(|(session, tag)| session.taken(tag, id));
            }
            Some(_) => {}
        }
    }

    fn published(&mut self, id: ConnectionId, tag: Tag, reason: ReasonCode) {
        let Some(connection) = self.connection(id) else { return self.caller_answered(id, tag, reason) };
        let Stage::Serving(session) = &mut connection.stage else { return };
        match session.refusal_ends(reason) {
            Some(closing) => self.close_for(id, closing),
            None => self.say(id, |session, codec, out| session.published(codec, tag, reason, out)),
        }
    }

    /// The second half of QoS 2, which frames do not have: for them it is over at once.
    fn release(&mut self, id: ConnectionId, tag: Tag, reason: ReasonCode) {
        let Some(Connection { stage: Stage::Serving(session), .. }) = self.connection(id) else { return };
        match session {
            Session::Mqtt(_) => self.say_mqtt(id, |session, out| session.release(tag, reason, out)),
            Session::Framed(session) => {
                let event = session.release(tag);
                self.handle(event);
            }
        }
    }

    /// Lets the session of a connection say something that only MQTT has.
    fn say_mqtt(&mut self, id: ConnectionId, what: impl FnOnce(&mut postroad_session::mqtt::Connection, &mut Gather)) {
        self.say(id, |session, _, out| {
            session.mqtt().into_iter().zip(Some(what)).for_each(|(session, what)| what(session, out));
        });
    }

    /// Lets the session of a connection say something.
    fn say(&mut self, id: ConnectionId, what: impl FnOnce(&mut Session, &mut dyn Codec, &mut Gather)) {
        let Some((Connection { stage: Stage::Serving(session), output, listener, .. }, codec)) = self.speaking(id)
        else {
            return;
        };
        let said = crate::crash::guarded(|| what(session, codec, output));
        let listener = usize::from(*listener);
        if said.is_none() {
            return self.speaking_panicked(id);
        }
        self.counters.interfaces[listener].sent_packets += 1;
        self.output_grew(id);
    }

    fn deliver(&mut self, id: ConnectionId, delivery: &postroad_broker::api::Delivery) {
        let now = self.now;
        let Some((Connection { stage: Stage::Serving(session), output, listener, .. }, codec)) = self.speaking(id)
        else {
            return;
        };
        let listener = usize::from(*listener);
        crate::fault::planted("panic-deliver", delivery.message.topic.as_str().as_bytes());
        let delivered = crate::crash::guarded(|| {
            crate::fault::planted("panic-encode", delivery.message.topic.as_str().as_bytes());
            session.deliver(codec, now, delivery, output)
        });
        let event = match delivered {
            None => return self.sending_panicked(id, delivery),
            Some(Delivered::Sent(event)) => {
                self.counters.interfaces[listener].sent_packets += 1;
                self.output_grew(id);
                event
            }
            Some(Delivered::Refused(event)) => {
                self.counters.too_large += 1;
                event
            }
        };
        if let Some(event) = event {
            self.handle(event);
        }
    }

    fn unpark(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connection(id) else { return self.caller_parked(id, false) };
        connection.flags.parked = false;
        if let Stage::Serving(session) = &mut connection.stage {
            session.touch(now); // its clocks stood still
        }
        self.read_again(id);
    }

    /// Tells the broker that the connection is over, unless it knows.
    pub(super) fn forget(&mut self, id: ConnectionId, cause: DisconnectCause) {
        let Some(flags) = self.flags(id) else { return };
        if std::mem::replace(&mut flags.known, false) {
            if !self.watchers.is_empty() {
                self.watched_end(id, &format!("the connection ends: {cause:?}"));
            }
            self.handle(Event::Disconnect { connection: id, cause });
        }
    }
}
