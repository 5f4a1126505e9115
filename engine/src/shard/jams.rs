//! A client that talks is alive, also while nothing moves towards it: it reads nothing, but what it sends is progress (DESIGN 6).
//!
//! TCP_USER_TIMEOUT ([`crate::listener::SocketOptions`]) ends a connection on which bytes stay unacknowledged, or the peer's
//! window stays shut, for `connections.stall_timeout`, whatever comes from the peer. So for who talks meanwhile it is put off
//! by as much as has passed. What the kernel holds is asked for at the first packet of each quarter of that time, hence hardly
//! ever; a client that says nothing costs nothing, and is ended by the kernel.

use std::os::fd::AsFd;
use std::time::Duration;

use ahash::AHashMap;
use postroad_base::{ConnectionId, MonoMillis};
use socket2::SockRef;

use super::Shard;
use crate::config::millis;
use crate::connection::Stage;

/// So often in `connections.stall_timeout` a client that talks is looked at.
const LOOKS_PER_TIMEOUT: u64 = 4;

/// Connections with something on the road when they were looked at last.
pub(super) type Jams = AHashMap<ConnectionId, Jam>;

/// What the last look found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jam {
    at: MonoMillis,
    /// Bytes that had arrived.
    arrived: u64,
    /// By how many milliseconds the kernel's timeout was put off.
    granted: u64,
}

impl Shard {
    /// Something has come from a client.
    pub(super) fn heard_from(&mut self, id: ConnectionId) {
        let period = millis(self.live.config.stall_timeout) / LOOKS_PER_TIMEOUT;
        let now = self.now.mono;
        let Some(connection) = self.connection(id) else { return };
        let Stage::Serving(session) = &connection.stage else { return };
        if period > 0 && session.last_heard().0 / period < now.0 / period {
            self.look_at_road(id, period);
        }
    }

    fn look_at_road(&mut self, id: ConnectionId, period: u64) {
        let (now, before) = (self.now.mono, self.jams.get(&id).copied());
        let Some(connection) = self.connection(id) else { return };
        let Ok(arrived) = connection.arrived() else { return };
        let granted = match before {
            // It may have stood still since shortly after the look before that.
            Some(jam) if jam.arrived == arrived => jam.granted.max(period) + now.since(jam.at),
            _ => 0,
        };
        let is_clear = arrived == connection.written;
        if granted != before.map_or(0, |jam| jam.granted) {
            self.put_off(id, granted);
        }
        if is_clear {
            self.jams.remove(&id);
        } else {
            self.jams.insert(id, Jam { at: now, arrived, granted });
        }
    }

    fn put_off(&mut self, id: ConnectionId, granted: u64) {
        let timeout = self.live.config.stall_timeout + Duration::from_millis(granted);
        let Some(connection) = self.connection(id) else { return };
        if let Err(error) = SockRef::from(&connection.socket.as_fd()).set_tcp_user_timeout(Some(timeout)) {
            tracing::debug!(shard = self.id.0, connection = id.0, %error, "a timeout is not put off");
        }
    }
}
