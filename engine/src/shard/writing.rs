//! From outputs to sockets: once per turn and connection, in one call.

use postroad_base::ConnectionId;
use postroad_broker::api::{DisconnectCause, Event};

use super::Shard;

impl Shard {
    /// Writes every dirty output as far as the kernel takes it.
    pub(super) fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.write(id);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty; // keep its room
        }
    }

    /// Writes one output now.
    pub(super) fn write(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        connection.flags.dirty = false;
        if connection.flags.blocked {
            return; // the next edge marks it dirty again
        }
        let listener = usize::from(connection.listener);
        match connection.write() {
            Ok(count) => {
                self.counters.interfaces[listener].sent_bytes += count as u64;
                self.counters.writes += 1;
                if !self.watchers.is_empty() {
                    self.watched_write(id, count);
                }
                self.after_write(id);
            }
            Err(error) => {
                tracing::debug!(shard = self.id.0, connection = id.0, %error, "sending ended");
                self.lost(id, DisconnectCause::Lost);
            }
        }
    }

    fn after_write(&mut self, id: ConnectionId) {
        let half = self.live.config.output_bytes_max / 2;
        let Some(connection) = self.connection(id) else { return };
        if connection.output.is_empty() && connection.flags.closing {
            return self.said_goodbye(id);
        }
        let relieved = connection.flags.congested && connection.output.len() <= half;
        if relieved {
            connection.flags.congested = false;
        }
        let reads_on = connection.flags.flooding && connection.output.len() <= half;
        if reads_on {
            connection.flags.flooding = false;
        }
        if connection.buffer_bytes() > 0 {
            self.mark_warm(id);
        }
        if relieved {
            self.handle(Event::Writable { connection: id });
        }
        if reads_on {
            self.read_again(id);
        }
    }

    /// Something was added to the output: write at the end of the turn; beyond the limit write at once, and
    /// if the kernel does not take it, tell the broker to hold back.
    pub(super) fn output_grew(&mut self, id: ConnectionId) {
        self.mark_dirty(id);
        let most = self.live.config.output_bytes_max;
        let Some(connection) = self.connection(id) else { return };
        if connection.output.len() <= most || connection.flags.congested {
            return;
        }
        if !connection.flags.blocked {
            self.write(id);
        }
        let Some(connection) = self.connection(id) else { return };
        if connection.output.len() > most && !connection.flags.congested && connection.flags.known {
            connection.flags.congested = true;
            self.counters.congested += 1;
            self.handle(Event::Congested { connection: id });
        }
    }

    /// Gives back the buffers of connections that have had nothing to say for a while: an idle connection owns
    /// none.
    pub(super) fn sweep(&mut self) {
        for id in std::mem::take(&mut self.warm) {
            let Some(connection) = self.connection(id) else { continue };
            connection.flags.warm = false;
            connection.output.shrink();
        }
    }
}
