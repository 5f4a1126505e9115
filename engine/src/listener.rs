//! Sockets that take connections: one per shard and address, sharing the port (SO_REUSEPORT), so that
//! the kernel spreads connections and no shard accepts for another.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What `accept` came back with.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection, non-blocking, with its options set.
    Connection(OwnedFd),
    /// Nobody waits.
    Nobody,
    /// The peer was gone already; try again.
    Gone,
    /// No descriptor or memory is left: pause.
    Exhausted(io::Error),
}

/// Binds one socket per shard to `address`; with port 0 the kernel picks one, the same for all. None takes
/// connections before [`open`].
///
/// A first bind without SO_REUSEPORT proves that nobody else has the port: with the option on, two servers
/// of one user would silently share it.
pub(crate) fn bind(address: SocketAddr, shards: u16) -> io::Result<Vec<TcpListener>> {
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    let bound = probe.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet address"))?;
    drop(probe);
    (0..shards)
        .map(|_| {
            let socket = socket(bound)?;
            socket.set_reuse_port(true)?;
            socket.bind(&bound.into())?;
            Ok(socket.into())
        })
        .collect()
}

/// From now on connections come in.
pub(crate) fn open(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).listen(backlog())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections of the last run may linger in TIME_WAIT
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// As many waiting connections as the kernel allows.
fn backlog() -> i32 {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(4096)
}

/// Unsent bytes that the kernel takes before it says "not writable": what is beyond stays with us, where it
/// can still expire or be reordered.
const NOT_SENT_LOW_WATER: u32 = 16 * 1024;

/// Takes one waiting connection.
pub(crate) fn accept(listener: &TcpListener) -> Accepted {
    match listener.accept() {
        Ok((stream, _)) => match prepare(&stream) {
            Ok(()) => Accepted::Connection(stream.into()),
            Err(_) => Accepted::Gone,
        },
        Err(error) => classify(error),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)
}

fn classify(error: io::Error) -> Accepted {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Accepted::Nobody,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Accepted::Exhausted(error),
        // What accept(2) reports of the new connection's network counts as a connection that is gone.
        _ => Accepted::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn all_shards_share_the_port_that_the_kernel_picked() {
        let listeners = bind((Ipv4Addr::LOCALHOST, 0).into(), 3).expect("bound");
        let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let error = bind(other.local_addr().expect("bound"), 2).expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn accept_does_not_wait() {
        let listeners = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).expect("bound");
        open(&listeners[0]).expect("listens");
        assert!(matches!(accept(&listeners[0]), Accepted::Nobody));
    }
}
