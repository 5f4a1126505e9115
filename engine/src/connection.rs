//! One connection: its transport and what waits on both sides of it. What is said over it is `session`'s.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use postroad_base::{ConnectionId, MonoMillis, ShardId};
use postroad_protocol::gather::Gather;
use postroad_session::mqtt;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::input::Input;

/// Where a connection is in its life.
pub(crate) enum Stage {
    /// The CONNECT is not complete.
    Handshake,
    /// The CONNECT is complete, the answer to "who is it" is not there.
    Authenticating(Box<mqtt::ConnectRequest>),
    /// On its home shard.
    Serving(Box<mqtt::Connection>),
    /// Everything has been said: what it still sends is thrown away until it closes, too, so that the
    /// kernel does not answer with a reset that would destroy our last words in its receive buffer.
    Lingering { discarded: usize },
}

/// What is true of a connection at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// It is in the list of connections with output.
    pub(crate) dirty: bool,
    /// The kernel takes no more: wait for the next edge.
    pub(crate) blocked: bool,
    /// The broker was told to deliver nothing more.
    pub(crate) congested: bool,
    /// Its answers pile up: nothing is read from it before it has read most of them.
    pub(crate) flooding: bool,
    /// The broker wants nothing to be read; its clocks stand still.
    pub(crate) parked: bool,
    /// The peer has closed its side: read until that is seen, no edge will tell again.
    pub(crate) hangup: bool,
    /// It is in the list of connections to read again.
    pub(crate) again: bool,
    /// It is in the list of connections whose buffers may be given back.
    pub(crate) warm: bool,
    /// The broker knows it: its end must be told.
    pub(crate) known: bool,
    /// Close it when the output is gone.
    pub(crate) closing: bool,
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) socket: OwnedFd,
    pub(crate) stage: Stage,
    pub(crate) flags: Flags,
    /// Index of the listener that it came by.
    pub(crate) listener: u16,
    /// When a connection that is not served yet, or any more, is over.
    pub(crate) deadline: MonoMillis,
    /// The wheel has an entry for it at this time.
    pub(crate) timer_at: MonoMillis,
    /// Received and not used yet.
    pub(crate) input: Input,
    pub(crate) output: Gather,
}

/// Slices of one write; more than this wait for the next.
const SLICES_MAX: usize = 64;

impl Connection {
    pub(crate) fn new(id: ConnectionId, socket: OwnedFd, listener: u16, deadline: MonoMillis) -> Self {
        Self {
            id,
            socket,
            stage: Stage::Handshake,
            flags: Flags::default(),
            listener,
            deadline,
            timer_at: MonoMillis(u64::MAX),
            input: Input::default(),
            output: Gather::new(),
        }
    }

    /// Receives behind what is kept, then into `shared`: [`Input::received`] tells which. Also says how much there was
    /// room for. 0 bytes: the peer has closed its side.
    pub(crate) fn receive(&mut self, shared: &mut [u8]) -> (io::Result<usize>, usize) {
        if self.input.is_empty() {
            let received = rustix::net::recv(&self.socket, &mut *shared, RecvFlags::DONTWAIT);
            return (received.map(|(count, _)| count).map_err(io::Error::from), shared.len());
        }
        let mut slices = self.input.slices(shared);
        let room = slices.iter().map(|slice| slice.len()).sum();
        let mut control = RecvAncillaryBuffer::default();
        let received = rustix::net::recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::DONTWAIT);
        (received.map(|message| message.bytes).map_err(io::Error::from), room)
    }

    /// Writes what waits, as far as the kernel takes it, and returns how many bytes it took.
    pub(crate) fn write(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.output.io_slices(&mut slices);
            let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let mut control = SendAncillaryBuffer::default();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &slices[..filled], &mut control, flags) {
                Ok(count) => {
                    self.output.consume(count);
                    written += count;
                    // A short write means a full socket buffer: the next edge will say when to go on.
                    if count < offered {
                        self.flags.blocked = true;
                        break;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    self.flags.blocked = true;
                    break;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }

    /// Says to the peer that nothing more will come.
    pub(crate) fn shut_down_writing(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.socket, Shutdown::Write)?)
    }

    /// When something has to happen if nothing else does; `None`: never.
    pub(crate) fn next_deadline(&self) -> Option<MonoMillis> {
        match &self.stage {
            Stage::Serving(session) if session.is_connected() => session.deadline(),
            Stage::Serving(_) | Stage::Authenticating(_) => None,
            Stage::Handshake | Stage::Lingering { .. } => Some(self.deadline),
        }
    }

    /// Whether it may be read from now.
    pub(crate) fn may_read(&self) -> bool {
        match &self.stage {
            Stage::Handshake | Stage::Lingering { .. } => true,
            Stage::Authenticating(_) => false,
            Stage::Serving(session) => session.is_connected() && !self.flags.parked && !self.flags.flooding,
        }
    }

    /// Bytes of memory that its buffers own.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }
}

/// Most connections are idle: each byte counts as often as there are connections.
const _: () = assert!(size_of::<Connection>() <= 136);

const INDEX_BITS: u32 = 24;
const SERIAL_BITS: u32 = 28;

/// The id of a connection at `index` of the slab of `shard`; `serial` tells it from those that had the same place before.
pub(crate) fn connection_id(shard: ShardId, serial: u64, index: usize) -> ConnectionId {
    assert!(index < 1 << INDEX_BITS, "connections are capped far below 16 million per shard");
    let serial = serial & ((1 << SERIAL_BITS) - 1);
    ConnectionId(u64::from(shard.0 & 0xfff) << (INDEX_BITS + SERIAL_BITS) | serial << INDEX_BITS | index as u64)
}

/// The id of a caller of the API, which is in no slab: the places from the top are never reached by connections.
pub(crate) fn caller_id(shard: ShardId, serial: u64, index: usize) -> ConnectionId {
    connection_id(shard, serial, (1 << INDEX_BITS) - 1 - index)
}

/// Its place in the slab.
pub(crate) fn connection_index(id: ConnectionId) -> usize {
    (id.0 & ((1 << INDEX_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_place_differ_and_name_it() {
        let ids = [0, 1, 2].map(|serial| connection_id(ShardId(3), serial, 77));
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        assert!(ids.iter().all(|id| connection_index(*id) == 77));
        assert_ne!(connection_id(ShardId(4), 0, 77), ids[0]);
    }
}
