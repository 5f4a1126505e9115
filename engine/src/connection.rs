//! One connection: its transport and what waits on both sides of it. What is said over it is `session`'s.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use postroad_base::{ConnectionId, MonoMillis, ShardId};
use postroad_broker::api::Road;
use postroad_protocol::gather::Gather;
use rustix::io::ioctl_fionread;
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::input::Input;
use crate::session::{Request, Session};

/// Where a connection is in its life.
pub(crate) enum Stage {
    /// The CONNECT, or the hello, is not complete.
    Handshake,
    /// It is complete, the answer to "who is it" is not there.
    Authenticating(Box<Request>),
    /// On its home shard.
    Serving(Session),
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
    /// Bytes that the kernel has taken on this shard.
    pub(crate) written: u64,
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
            written: 0,
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
                    self.written += count as u64;
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

    /// How far what is meant for the peer has come.
    pub(crate) fn road(&self) -> io::Result<Road> {
        let has_unread =
            !self.may_read() || self.flags.again || !self.input.is_empty() || ioctl_fionread(&self.socket)? > 0;
        Ok(Road { sent: self.written + self.output.len() as u64, arrived: self.arrived()?, has_unread })
    }

    /// Bytes that the peer's kernel has acknowledged.
    pub(crate) fn arrived(&self) -> io::Result<u64> {
        Ok(self.written.saturating_sub(unacknowledged_bytes(&self.socket)?))
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

/// Bytes that the kernel holds for the peer: not sent, or sent and not acknowledged (SIOCOUTQ, tcp(7)).
fn unacknowledged_bytes(socket: &OwnedFd) -> io::Result<u64> {
    /// Linux has one number for SIOCOUTQ of sockets and TIOCOUTQ of terminals.
    const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
    // SAFETY: SIOCOUTQ is a valid opcode, and the kernel writes a C int for it.
    let asked = unsafe { ioctl(socket, Getter::<SIOCOUTQ, libc::c_int>::new()) };
    Ok(u64::try_from(asked?).unwrap_or(0))
}

/// Most connections are idle: each byte counts as often as there are connections.
const _: () = assert!(size_of::<Connection>() <= 144);

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
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    /// Our end as a shard has it, and the peer's.
    fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (ours, _) = listener.accept().expect("accepted");
        ours.set_nonblocking(true).expect("non-blocking");
        (Connection::new(ConnectionId(1), ours.into(), 0, MonoMillis(0)), peer)
    }

    /// The road once all has arrived: the peer's kernel may take a moment to say so.
    fn clear_road(connection: &Connection) -> Road {
        loop {
            let road = connection.road().expect("asked");
            if road.arrived == road.sent {
                return road;
            }
            std::thread::yield_now();
        }
    }

    /// `[REL-4]` Once the peer's kernel has a byte it has arrived, whether the peer reads it or not; what fits into no buffer
    /// has not.
    #[test]
    fn what_the_kernel_holds_has_not_arrived() {
        let (mut connection, mut peer) = pair();
        connection.output.head().extend_from_slice(b"hello");
        assert_eq!(connection.road().expect("asked"), Road { sent: 5, arrived: 0, has_unread: false });
        connection.write().expect("written");
        assert_eq!(clear_road(&connection), Road { sent: 5, arrived: 5, has_unread: false });

        while !connection.flags.blocked {
            connection.output.head().extend_from_slice(&[7; 100_000]);
            connection.write().expect("written");
        }
        let Road { sent, arrived, .. } = connection.road().expect("asked");
        assert!(arrived >= 5 && arrived < connection.written && connection.written < sent, "{sent} {arrived}");

        let mut left = vec![0; usize::try_from(sent).expect("megabytes")];
        let mut read = 0;
        while read < left.len() {
            read += peer.read(&mut left[read..]).expect("read");
            connection.write().expect("written");
        }
        assert_eq!(clear_road(&connection), Road { sent, arrived: sent, has_unread: false });
    }

    #[test]
    fn what_the_peer_has_sent_lies_unread_until_it_is_read() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"ack").expect("written");
        assert!(connection.road().expect("asked").has_unread);
        let (received, _) = connection.receive(&mut [0; 16]);
        assert_eq!(received.expect("received"), 3);
        assert!(!connection.road().expect("asked").has_unread);
        connection.flags.again = true;
        assert!(connection.road().expect("asked").has_unread, "it has more to be read, says who stopped reading");
    }

    #[test]
    fn ids_of_one_place_differ_and_name_it() {
        let ids = [0, 1, 2].map(|serial| connection_id(ShardId(3), serial, 77));
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        assert!(ids.iter().all(|id| connection_index(*id) == 77));
        assert_ne!(connection_id(ShardId(4), 0, 77), ids[0]);
    }
}
