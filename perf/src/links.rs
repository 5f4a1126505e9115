//! Sockets and buffers of all connections, on one edge-triggered epoll instance.
//!
//! Invariants: a descriptor is registered once, for reading and writing, and never modified; after an event it
//! is read until it would block or a read came back short (both mean: a new edge will come). Received bytes are
//! parsed in one shared buffer; only the split tail of a packet is copied to its link, so an idle link owns no
//! buffer. What a handler writes while a read is parsed leaves in one `write`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;
use crate::wire::{self, Packet, Version};

const SCRATCH_BYTES: usize = 256 * 1024;
const EVENTS_PER_TURN: usize = 1024;
/// Most unsent bytes that a link takes before [`Link::writable`] says no.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Connections per loopback source address, well below the 28,000 ephemeral ports.
const LINKS_PER_ADDRESS: usize = 2_000;

/// Number of a link, from 0.
pub type LinkId = usize;

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The address refused the connection.
    Refused,
    /// Reset, end of stream, or another socket error.
    Lost,
    /// The broker sent no MQTT.
    Malformed,
    /// This side has closed it.
    Local,
}

/// What a scenario does with what happens. Handlers append to `link.out`; the loop sends it.
pub trait Handler {
    /// TCP is connected: time to write CONNECT.
    fn connected(&mut self, id: LinkId, link: &mut Link);
    /// A packet came; `now` is the time of the read that completed it.
    fn packet(&mut self, id: LinkId, link: &mut Link, packet: Packet<'_>, now: u64);
    /// A wake-up of the link was handled and its output is about to be sent: time to append more.
    fn turned(&mut self, id: LinkId, link: &mut Link, now: u64);
    /// The link ended.
    fn closed(&mut self, id: LinkId, why: Closed);
}

/// One connection.
#[derive(Debug, Default)]
pub struct Link {
    stream: Option<TcpStream>,
    connected: bool,
    blocked: bool,
    closing: bool,
    tail: Vec<u8>,
    /// Bytes to be sent.
    pub out: Vec<u8>,
    out_at: usize,
    written_at: u64,
}

impl Link {
    /// Whether it has a socket.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it would be wise to append more.
    pub fn writable(&self) -> bool {
        self.out.len() - self.out_at < OUT_BYTES_MAX
    }

    /// Whether all that was appended is in the kernel's hands.
    pub fn is_drained(&self) -> bool {
        self.out.is_empty()
    }

    /// Close once all that was appended has been sent.
    pub fn close_after_writing(&mut self) {
        self.closing = true;
    }

    /// Sends what it can; false if the socket is dead.
    fn flush(&mut self, now: u64) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        if !self.connected || self.blocked {
            return true;
        }
        while self.out_at < self.out.len() {
            match stream.write(&self.out[self.out_at..]) {
                Ok(bytes) => self.out_at += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.out_at > 0 {
            self.written_at = now;
            self.out_at = 0;
            self.out.clear();
            if self.out.capacity() > OUT_BYTES_MAX {
                self.out = Vec::new();
            }
        }
        !self.closing
    }
}

/// All links of a run.
pub struct Links {
    epoll: OwnedFd,
    target: SocketAddr,
    version: Version,
    /// By [`LinkId`].
    pub all: Vec<Link>,
    scratch: Vec<u8>,
    events: Vec<libc::epoll_event>,
}

impl Links {
    /// `count` unopened links to `target`.
    pub fn new(target: SocketAddr, version: Version, count: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            target,
            version,
            all: std::iter::repeat_with(Link::default).take(count).collect(),
            scratch: vec![0; SCRATCH_BYTES],
            events: Vec::with_capacity(EVENTS_PER_TURN),
        })
    }

    /// Begins to connect link `id`, which must be closed.
    pub fn open(&mut self, id: LinkId) -> io::Result<()> {
        let socket = connect_socket(self.target, id, None)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET | epoll::EventFlags::RDHUP;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(id as u64), flags)?;
        self.all[id] = Link { stream: Some(socket.into()), ..Link::default() };
        Ok(())
    }

    /// Closes link `id` at once; the handler is not told.
    pub fn close(&mut self, id: LinkId) {
        self.all[id] = Link::default();
    }

    /// Sends what link `id` holds.
    pub fn flush(&mut self, id: LinkId, handler: &mut impl Handler) {
        if !self.all[id].flush(clock::now()) {
            let why = if self.all[id].closing { Closed::Local } else { Closed::Lost };
            self.end(id, why, handler);
        }
    }

    /// Appends a PINGREQ wherever nothing was sent since `before`.
    pub fn ping(&mut self, before: u64, handler: &mut impl Handler) {
        for id in 0..self.all.len() {
            let link = &mut self.all[id];
            if link.connected && link.out.is_empty() && link.written_at < before {
                link.out.extend(wire::PINGREQ);
                self.flush(id, handler);
            }
        }
    }

    /// Waits until something happens or `deadline` (0 = do not wait), and handles it.
    pub fn turn(&mut self, deadline: u64, handler: &mut impl Handler) -> io::Result<()> {
        let wait = deadline.saturating_sub(clock::now()).min(1_000_000_000);
        let mut events = std::mem::take(&mut self.events);
        wait_for_events(&self.epoll, &mut events, wait)?;
        for event in &events {
            self.ready(event.u64 as LinkId, epoll::EventFlags::from_bits_retain(event.events), handler);
        }
        self.events = events;
        Ok(())
    }

    fn ready(&mut self, id: LinkId, flags: epoll::EventFlags, handler: &mut impl Handler) {
        let now = clock::now();
        if flags.contains(epoll::EventFlags::OUT) {
            let link = &mut self.all[id];
            link.blocked = false;
            if !link.connected && link.is_open() && !flags.contains(epoll::EventFlags::ERR) {
                link.connected = true;
                link.written_at = now;
                handler.connected(id, link);
            }
        }
        if flags.intersects(epoll::EventFlags::ERR) && !self.all[id].connected {
            return self.end(id, Closed::Refused, handler);
        }
        let readable = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::HUP;
        let end = if flags.intersects(readable) { self.read(id, handler, now) } else { None };
        if let Some(why) = end {
            return self.end(id, why, handler);
        }
        if self.all[id].connected {
            handler.turned(id, &mut self.all[id], now);
        }
        self.flush(id, handler);
    }

    fn end(&mut self, id: LinkId, why: Closed, handler: &mut impl Handler) {
        if self.all[id].is_open() {
            self.close(id);
            handler.closed(id, why);
        }
    }

    /// Reads and parses until the socket is empty; says why if it has ended.
    fn read(&mut self, id: LinkId, handler: &mut impl Handler, now: u64) -> Option<Closed> {
        let link = &mut self.all[id];
        loop {
            let kept = link.tail.len();
            if self.scratch.len() < kept + SCRATCH_BYTES / 2 {
                self.scratch.resize(kept + SCRATCH_BYTES, 0);
            }
            self.scratch[..kept].copy_from_slice(&link.tail);
            let room = &mut self.scratch[kept..];
            let room_bytes = room.len();
            let bytes = match link.stream.as_mut()?.read(room) {
                Ok(0) => return Some(Closed::Lost),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Some(Closed::Lost),
            };
            let filled = &self.scratch[..kept + bytes];
            let Some(used) =
                parse_all(filled, self.version, |link, packet| handler.packet(id, link, packet, now), link)
            else {
                return Some(Closed::Malformed);
            };
            keep_tail(&mut link.tail, &filled[used..]);
            if bytes < room_bytes {
                return None;
            }
        }
    }
}

/// Hands on every complete packet; the bytes used, or `None` if they are no MQTT.
fn parse_all(
    input: &[u8],
    version: Version,
    mut take: impl FnMut(&mut Link, Packet<'_>),
    link: &mut Link,
) -> Option<usize> {
    let mut used = 0;
    while let Some((packet, bytes)) = wire::decode(&input[used..], version).ok()? {
        take(link, packet);
        used += bytes;
    }
    Some(used)
}

fn keep_tail(tail: &mut Vec<u8>, rest: &[u8]) {
    if rest.is_empty() {
        *tail = Vec::new();
    } else {
        tail.clear();
        tail.extend_from_slice(rest);
    }
}

/// A socket of link `id` that has begun to connect, without blocking. `receive_bytes` bounds the kernel's receive buffer.
pub(crate) fn connect_socket(target: SocketAddr, id: LinkId, receive_bytes: Option<usize>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?; // before connecting: the window is announced then
    }
    if target.ip().is_loopback() && target.is_ipv4() {
        late_port(&socket)?;
        socket.bind(&SocketAddr::new(source_address(id), 0).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// 127.0.0.1, 127.0.0.2, …: one address for each 2,000 links.
fn source_address(id: LinkId) -> IpAddr {
    let host = id / LINKS_PER_ADDRESS + 1;
    IpAddr::V4(Ipv4Addr::new(127, 0, (host >> 8) as u8, (host & 0xFF) as u8))
}

/// Waits for so many nanoseconds at most. By a call of its own: rustix waits in whole milliseconds unless a feature is on, which
/// would change the server, too, when both are built together.
fn wait_for_events(epoll: &OwnedFd, events: &mut Vec<libc::epoll_event>, nanos: u64) -> io::Result<()> {
    let timeout = libc::timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
    events.clear();
    let room = libc::c_int::try_from(events.capacity()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel writes at most `room` events to the spare capacity of `events`, which has that many; `timeout` lives
    // until the call returns; no signal mask is given.
    let count = unsafe {
        libc::epoll_pwait2(epoll.as_raw_fd(), events.as_mut_ptr(), room, &raw const timeout, std::ptr::null())
    };
    match usize::try_from(count) {
        // SAFETY: so many were written.
        Ok(count) => unsafe { events.set_len(count) },
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        },
    }
    Ok(())
}

/// Lets `connect` choose the source port, when the whole 4-tuple is known.
fn late_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the size describe `on`, which outlives the call; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_spread() {
        assert_eq!(source_address(1_999).to_string(), "127.0.0.1");
        assert_eq!(source_address(2_000).to_string(), "127.0.0.2");
        assert_eq!(source_address(600_000).to_string(), "127.0.1.45");
    }

    #[test]
    fn an_idle_link_owns_no_buffer() {
        let mut tail = vec![1; 100];
        keep_tail(&mut tail, &[]);
        assert_eq!(tail.capacity(), 0);
        keep_tail(&mut tail, &[1, 2]);
        assert_eq!(tail, [1, 2]);
    }
}
