//! Persist, then acknowledge: the one place where what must not be said too early waits for its commit.
//!
//! Everything waits in one line, in the order of the log, so that a commit wakes a prefix of it. A waiter
//! names what it is about (connection, tag) and is looked at again when woken: the connection may be gone.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{ConnectionId, Message, Record, Sequence, Tag};
use postroad_base as base;

use crate::api::Effect;
use crate::broker::Broker;
use crate::followed::Moving;

/// What a commit wakes.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// The connection's line of answers may go on.
    Answers(ConnectionId),
    /// A delivery's PUBLISH may leave.
    Deliver(ConnectionId, Tag),
    /// A delivery's PUBREL may leave.
    Release(ConnectionId, Tag),
    /// CONNACK may leave.
    Connected { connection: ConnectionId, session_present: bool },
    /// A SUBSCRIBE's records are safe.
    Subscribe(u64),
    /// A share group's message is safe with its member here.
    Placed(u64),
    /// A message of the server's own about something that is safe now.
    Announce(Arc<Message>),
    /// A step of a message that somebody follows is so.
    Moved(Box<Moving>),
    /// UNSUBACK, a confirmation to another shard, a forward: as it is.
    Emit(Box<Effect>),
}

/// The log as the broker sees it.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Sequence of the next record.
    next: Sequence,
    committed: Sequence,
    line: VecDeque<(Sequence, Waiter)>,
}

impl Gate {
    pub fn new(first: Sequence) -> Self {
        Self { next: first, committed: Sequence(first.0.saturating_sub(1)), line: VecDeque::new() }
    }

    /// The last record that was appended.
    pub fn appended(&self) -> Sequence {
        Sequence(self.next.0.saturating_sub(1))
    }

    pub fn is_committed(&self, sequence: Sequence) -> bool {
        sequence <= self.committed
    }

    /// Takes the next number, with or without a record.
    pub fn number(&mut self) -> Sequence {
        let sequence = self.next;
        self.next = sequence.next();
        sequence
    }

    /// Recovery: the log holds this record.
    pub fn advance(&mut self, sequence: Sequence) {
        self.next = self.next.max(sequence.next());
    }

    /// Nothing is appended: what was numbered counts as committed.
    pub fn commit_all(&mut self) {
        self.committed = self.appended();
    }
}

impl Broker {
    /// Appends a record; its sequence.
    pub(crate) fn append(&mut self, record: Record) -> Sequence {
        debug_assert!(self.config.durable, "nothing is appended without a log");
        self.effects.push_back(Effect::Append { record });
        self.gate.number()
    }

    /// Wakes `waiter` once all that has been appended so far is committed; now, if it is already.
    pub(crate) fn after_commit(&mut self, waiter: Waiter) {
        let need = self.gate.appended();
        if self.gate.is_committed(need) {
            return self.wake(waiter);
        }
        self.gate.line.push_back((need, waiter));
    }

    pub(crate) fn committed(&mut self, upto: Sequence) {
        self.gate.committed = self.gate.committed.max(upto);
        while let Some((need, _)) = self.gate.line.front() {
            if !self.gate.is_committed(*need) {
                break;
            }
            if let Some((_, waiter)) = self.gate.line.pop_front() {
                self.wake(waiter);
            }
        }
    }

    fn wake(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Answers(connection) => self.answer_ready(connection),
            Waiter::Deliver(connection, tag) => self.deliver_held(connection, tag),
            Waiter::Release(connection, tag) => self.release_held(connection, tag),
            Waiter::Connected { connection, session_present } => self.opened(connection, session_present),
            Waiter::Subscribe(operation) => self.subscribe_committed(operation),
            Waiter::Placed(token) => self.placed_here(token),
            Waiter::Announce(message) => self.announce_later(message),
            Waiter::Moved(moving) => self.moved(*moving),
            Waiter::Emit(effect) => self.effects.push_back(*effect),
        }
    }
}
