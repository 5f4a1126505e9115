//! What systemd wants to hear (`sd_notify(3)`): one datagram per message to the socket named in the
//! environment. Without that, nothing is sent.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET");
        let socket = path.and_then(|path| connect(path.as_bytes()).inspect_err(complain).ok());
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// How often the watchdog wants to be fed: half of its patience.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 2)
    }

    /// The server takes clients.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Every shard has taken a turn since the last time.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// The server drains and stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _sent = socket.send(message.as_bytes()).inspect_err(complain);
        }
    }
}

fn complain(error: &std::io::Error) {
    tracing::warn!(%error, "the service manager can't be told");
}

/// A path, or with a leading `@` a name in the abstract namespace.
fn connect(path: &[u8]) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match path.strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(std::ffi::OsStr::from_bytes(path))?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bind");
        let name = format!("postroad-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bind");
        let abstract_name = format!("@{name}");
        for (receiver, target) in [(by_path, path.as_os_str().as_bytes()), (by_name, abstract_name.as_bytes())] {
            let notifier = Notifier { socket: Some(connect(target).expect("connect")), watchdog: None };
            notifier.ready("serving");
            let mut buffer = [0; 64];
            let size = receiver.recv(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..size], b"READY=1\nSTATUS=serving");
        }
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let silent = Notifier::default();
        silent.watchdog();
        silent.stopping();
        silent.status("x");
        assert_eq!(silent.watchdog_interval(), None);
    }
}
