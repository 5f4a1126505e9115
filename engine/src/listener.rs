//! Sockets that take connections: one per shard and address, sharing the port (SO_REUSEPORT), so that
//! the kernel spreads connections and no shard accepts for another.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::SocketFlags;
use rustix::net::sockopt::{self};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What `accept` came back with.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection, non-blocking.
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

/// What the kernel does for the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// Unsent bytes above which the kernel says "not writable".
    pub(crate) not_sent_bytes_max: u32,
    /// How long sent bytes may stay unacknowledged, or the peer's window shut; zero: as long as the kernel thinks fit.
    pub(crate) stall_timeout: Duration,
}

/// Keepalive probes of a silent peer before `stall_timeout` is over: one that gets lost says nothing.
const PROBES: u32 = 4;

impl SocketOptions {
    /// Sets them on a listening socket, from which its connections inherit them: no call per connection.
    ///
    /// TCP_NOTSENT_LOWAT: what is not sent yet stays with us, where it can still expire or be re-ordered.
    /// TCP_USER_TIMEOUT: a peer that vanished without a FIN is noticed by what it does not acknowledge `[CON-4]`.
    /// The keepalive times are for those who are watched by [`watch_silent`]; the last of [`PROBES`] is over when
    /// `stall_timeout` is, at which the kernel gives up.
    pub(crate) fn apply(self, listener: &TcpListener) -> io::Result<()> {
        let socket = SockRef::from(listener);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(self.not_sent_bytes_max)?;
        let timeout = Some(self.stall_timeout).filter(|timeout| !timeout.is_zero());
        socket.set_tcp_user_timeout(Some(timeout.unwrap_or_default()))?;
        if let Some(timeout) = timeout {
            let second = Duration::from_secs(1);
            sockopt::set_tcp_keepidle(listener, (timeout / 2).max(second))?;
            sockopt::set_tcp_keepintvl(listener, (timeout / (2 * PROBES)).max(second))?;
            sockopt::set_tcp_keepcnt(listener, PROBES)?;
        }
        Ok(())
    }
}

/// Lets the kernel probe a connection whose client promised no sign of life (keep alive 0): nothing else would ever
/// tell that it is gone. Others are not probed: it would wake phones that have told how long they sleep.
pub(crate) fn watch_silent(connection: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_keepalive(connection, true)?)
}

/// From now on connections come in.
pub(crate) fn open(listener: &TcpListener, options: SocketOptions) -> io::Result<()> {
    options.apply(listener)?;
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

/// Takes one waiting connection. It has the options of its listener.
pub(crate) fn accept(listener: &TcpListener) -> Accepted {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(connection) => Accepted::Connection(connection),
        Err(error) => classify(error.into()),
    }
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

    const OPTIONS: SocketOptions =
        SocketOptions { not_sent_bytes_max: 16 << 10, stall_timeout: Duration::from_secs(120) };

    #[test]
    fn accept_does_not_wait() {
        let listeners = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).expect("bound");
        open(&listeners[0], OPTIONS).expect("listens");
        assert!(matches!(accept(&listeners[0]), Accepted::Nobody));
    }

    /// The next connection of this listener.
    fn accepted(listener: &TcpListener) -> (OwnedFd, std::net::TcpStream) {
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let Accepted::Connection(connection) = accept(listener) else { panic!("somebody waits") };
        (connection, client)
    }

    /// `[CON-4]`. Connections inherit what their listener has at that time, also after a reload.
    #[test]
    fn connections_inherit_the_options_of_their_listener() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).expect("bound").remove(0);
        open(&listener, OPTIONS).expect("listens");
        let (first, _client) = accepted(&listener);
        let socket = SockRef::from(&first);
        assert!(socket.tcp_nodelay().expect("asked"));
        assert!(rustix::fs::fcntl_getfl(&first).expect("asked").contains(rustix::fs::OFlags::NONBLOCK));
        assert_eq!(socket.tcp_notsent_lowat().expect("asked"), 16 << 10);
        assert_eq!(socket.tcp_user_timeout().expect("asked"), Some(Duration::from_secs(120)));
        assert!(!socket.keepalive().expect("asked"), "who promised signs of life is not probed");
        watch_silent(&first).expect("watched");
        assert!(socket.keepalive().expect("asked"));
        assert_eq!(sockopt::tcp_keepidle(&first).expect("asked"), Duration::from_secs(60));
        assert_eq!(sockopt::tcp_keepintvl(&first).expect("asked"), Duration::from_secs(15));
        assert_eq!(sockopt::tcp_keepcnt(&first).expect("asked"), PROBES);

        SocketOptions { not_sent_bytes_max: 1 << 20, stall_timeout: Duration::ZERO }.apply(&listener).expect("applied");
        let (second, _client) = accepted(&listener);
        let socket = SockRef::from(&second);
        assert_eq!(socket.tcp_notsent_lowat().expect("asked"), 1 << 20);
        assert_eq!(socket.tcp_user_timeout().expect("asked"), None, "off");
    }
}
