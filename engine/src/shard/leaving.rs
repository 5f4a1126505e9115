//! How connections end, and how the shard does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postroad_base::{ConnectionId, ReasonCode};
use postroad_broker::api::DisconnectCause;

use super::{Phase, Shard};
use crate::connection::{Connection, Stage, connection_index};
use crate::session::Ending;

/// How long a connection may take to read our last words and close.
const LINGER_MILLIS: u64 = 5_000;

impl Shard {
    /// The session says that it has to end.
    pub(super) fn close_for(&mut self, id: ConnectionId, ending: impl Into<Ending>) {
        let Ending { cause, reason, detail, by_client, broken } = ending.into();
        tracing::debug!(shard = self.id.0, connection = id.0, ?reason, ?broken, %detail, "closing");
        self.forget(id, cause);
        if by_client {
            self.remove(id);
            return;
        }
        let Some((connection, codec)) = self.speaking(id) else { return };
        if let Stage::Serving(session) = &mut connection.stage {
            let output = &mut connection.output;
            if crate::crash::guarded(|| session.close(codec, reason, &detail, output)).is_none() {
                return self.speaking_panicked(id);
            }
        }
        let listener = usize::from(connection.listener);
        match broken {
            Some(broken) => self.counters.broken(listener, broken),
            None => self.counters.protocol_error(listener, reason),
        }
        self.linger(id);
    }

    /// It broke, or the peer closed it.
    pub(super) fn lost(&mut self, id: ConnectionId, cause: DisconnectCause) {
        self.forget(id, cause);
        self.remove(id);
    }

    /// Writes what is left, then closes in a way that lets the peer read it.
    pub(super) fn linger(&mut self, id: ConnectionId) {
        let deadline = self.now.mono.after(LINGER_MILLIS);
        let Some(connection) = self.connection(id) else { return };
        connection.stage = Stage::Lingering { discarded: 0 };
        connection.flags.closing = true;
        connection.deadline = deadline;
        connection.input = crate::input::Input::default();
        self.schedule(id);
        self.mark_dirty(id);
    }

    /// All is written: now wait for the peer to close, too.
    pub(super) fn said_goodbye(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        connection.flags.closing = false;
        connection.output.shrink();
        if connection.shut_down_writing().is_err() || connection.flags.hangup {
            self.remove(id);
            return;
        }
        self.read_again(id);
    }

    /// Takes a connection out. Dropping it closes it.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.connection(id)?;
        let connection = self.connections.remove(connection_index(id));
        self.jams.remove(&id);
        debug_assert!(!connection.flags.known || !matches!(connection.stage, Stage::Serving(_)));
        self.counters.interfaces[usize::from(connection.listener)].open -= 1;
        self.common.connections.fetch_sub(1, Ordering::Relaxed);
        Some(connection)
    }

    /// Its time is over, unless what it has sent waits for us.
    pub(super) fn deadline_passed(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(connection) = self.connection(id) else { return };
        match &mut connection.stage {
            Stage::Serving(session) if connection.flags.parked || connection.flags.again => session.touch(now),
            Stage::Handshake if connection.flags.again => {}
            Stage::Serving(session) => match crate::crash::guarded(|| session.on_deadline(now)) {
                Some(Some(closing)) => return self.close_for(id, closing),
                Some(None) => {}
                None => return self.speaking_panicked(id),
            },
            Stage::Handshake | Stage::Lingering { .. } if connection.deadline <= now.mono => {
                self.remove(id);
                return;
            }
            _ => {}
        }
        self.schedule(id);
    }

    /// Stop accepting, say goodbye to everybody, let the log finish.
    pub(super) fn begin_drain(&mut self) {
        if !matches!(self.phase, Phase::Announcing | Phase::Gathering | Phase::Serving) {
            return;
        }
        tracing::info!(shard = self.id.0, connections = self.connections.len(), "draining");
        self.phase = Phase::Draining { gone: false };
        let timeout = u64::try_from(self.live.config.drain_timeout.as_millis()).unwrap_or(u64::MAX);
        self.drain_until = self.now.mono.after(timeout);
        self.doors.clear();
        self.turn_callers_away();
        let ids: Vec<_> = self.connections.iter().map(|(_, connection)| connection.id).collect();
        for id in ids {
            self.dismiss(id);
        }
    }

    /// Who has not left by now, leaves now.
    fn remove_all(&mut self) {
        let ids: Vec<_> = self.connections.iter().map(|(_, connection)| connection.id).collect();
        for id in ids {
            self.lost(id, DisconnectCause::ServerShutdown);
        }
    }

    fn dismiss(&mut self, id: ConnectionId) {
        self.forget(id, DisconnectCause::ServerShutdown);
        self.drain_effects(); // what was owed to it goes out before the goodbye
        let Some((connection, codec)) = self.speaking(id) else { return };
        match &mut connection.stage {
            Stage::Serving(session) => {
                session.close(codec, ReasonCode::ServerShuttingDown, "", &mut connection.output);
                self.linger(id);
            }
            Stage::Authenticating(_) => self.refuse(id, ReasonCode::ServerShuttingDown, ""),
            Stage::Handshake => {
                self.remove(id);
            }
            Stage::Lingering { .. } => {}
        }
    }

    /// Whether the end has come. What members without a logged session have not acknowledged is in memory only: the
    /// other members get it first, as far as the time for draining allows.
    pub(super) fn advance_drain(&mut self) {
        let is_late = self.now.mono >= self.drain_until;
        if is_late && !self.connections.is_empty() {
            self.remove_all();
            self.settle(); // what that brings about is in the log before it is asked whether it is idle
        }
        let has_left = self.connections.is_empty()
            && (is_late || !(self.broker.is_giving_back() || self.callers_are_owed() || self.consumers_are_owed()));
        let log_is_idle = self.log_is_idle();
        if self.phase == (Phase::Draining { gone: false }) && has_left && log_is_idle {
            self.phase = Phase::Draining { gone: true };
            let common = Arc::clone(&self.common);
            common.arrive_at(&common.drained);
        }
        if self.phase == (Phase::Draining { gone: true }) && self.common.all_at(&self.common.drained) && log_is_idle {
            self.phase = Phase::Stopped;
        }
    }
}
