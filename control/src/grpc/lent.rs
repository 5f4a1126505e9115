//! A socket that comes back from whom it was lent to.
//!
//! HTTP/2 ends while its peer may still be sending. Closing a socket with unread bytes resets it, and a reset takes with it what
//! the peer has not read yet: the last answers. So who has ended a connection gets its socket back, and closes it when the peer
//! has, or soon.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a peer may be silent that has the last answers to hear and its side to close.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// What is read at once of what nobody wants.
const WASTE_BYTES: usize = 16 << 10;

/// The socket, while it is lent.
#[derive(Debug)]
pub(super) struct Lent {
    stream: Option<TcpStream>,
    /// To be read before all else: it was taken from the socket to look at it.
    ahead: &'static [u8],
    owner: Option<oneshot::Sender<TcpStream>>,
}

impl Lent {
    /// Lends it; it comes back when this is dropped.
    pub fn new(stream: TcpStream, ahead: &'static [u8]) -> (Self, oneshot::Receiver<TcpStream>) {
        let (owner, returned) = oneshot::channel();
        (Self { stream: Some(stream), ahead, owner: Some(owner) }, returned)
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("it is given back by drop alone"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(stream), Some(owner)) = (self.stream.take(), self.owner.take()) {
            let _owner_gone = owner.send(stream);
        }
    }
}

/// Says that nothing more comes, and waits for the peer to have said so, for as long as it still sends, and at most so long: its
/// connection has a place until then.
pub(super) async fn close(mut stream: TcpStream, patience: Duration) {
    let closing = async {
        stream.shutdown().await?;
        let mut waste = vec![0; WASTE_BYTES];
        while timeout(SILENCE_MAX, stream.read(&mut waste)).await?? > 0 {}
        io::Result::Ok(())
    };
    let _closed = timeout(patience, closing).await;
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return self.stream().poll_read(context, buffer);
        }
        let (now, later) = self.ahead.split_at(self.ahead.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.ahead = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true // as a TcpStream is
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use super::*;

    /// What the peer reads to the end of a connection on which it has sent what nobody reads.
    fn heard(end: impl AsyncFnOnce(TcpStream)) -> io::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut peer = net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        peer.write_all(&[0; 4_000]).expect("it is taken");
        let (stream, _) = listener.accept().expect("somebody has come");
        stream.set_nonblocking(true).expect("a socket option");
        let reader = std::thread::spawn(move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).map(|_| heard)
        });
        runtime.block_on(async {
            let mut stream = TcpStream::from_std(stream).expect("registered");
            stream.readable().await.expect("the bytes have come");
            stream.write_all(b"last words").await.expect("it is taken");
            end(stream).await;
        });
        reader.join().expect("no panic")
    }

    #[test]
    fn last_words_are_heard_by_who_still_sends() {
        let closed = heard(async |stream| close(stream, Duration::from_secs(30)).await);
        assert_eq!(closed.expect("no reset"), b"last words");
        let dropped = heard(async |stream| drop(stream));
        assert_eq!(dropped.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset, "then `close` is not needed");
    }

    #[test]
    fn a_socket_comes_back_and_what_was_taken_is_read_again() {
        let mut said = [0; 10];
        let heard = heard(async |stream| {
            let (mut lent, returned) = Lent::new(stream, b"preface");
            lent.read_exact(&mut said).await.expect("seven bytes ahead, and three more");
            drop(lent);
            close(returned.await.expect("it comes back"), Duration::from_secs(30)).await;
        });
        assert_eq!((&said, &heard.expect("no reset")[..]), (b"preface\0\0\0", &b"last words"[..]));
    }
}
