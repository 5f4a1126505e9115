//! What all listeners of the control plane do, whatever is spoken on them: take connections up to a limit, count them, and end
//! each at its age.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::metrics::ListenerFigures;
use crate::server::{Settings, wait_for_stop};
use crate::shared::{Peer, Server};
use crate::unread::Unread;

/// What is counted of one protocol.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Connections.
    open: watch::Sender<usize>,
    requests: AtomicU64,
    refused: AtomicU64,
    cut_off: AtomicU64,
}

impl Figures {
    pub fn read(&self) -> ListenerFigures {
        let figures = [&self.requests, &self.refused, &self.cut_off];
        let [requests, refused, cut_off] = figures.map(|figure| figure.load(Ordering::Relaxed));
        ListenerFigures { requests, refused, cut_off }
    }

    /// Resolves when no connection is open.
    pub async fn all_closed(&self) {
        let mut open = self.open.subscribe();
        let _gone = open.wait_for(|open| *open == 0).await;
    }

    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// A protocol on a connection.
pub(crate) trait Protocol: Clone + Send + 'static {
    /// Its name, for logs.
    const NAME: &str;

    /// Where it is counted.
    fn figures(server: &Server) -> &Figures;

    /// Speaks it until the connection ends.
    fn speak(self, server: Arc<Server>, stream: TcpStream, peer: Peer) -> impl Future<Output = ()> + Send;
}

/// Takes connections on these, for as long as the runtime lives.
pub(crate) fn serve<P: Protocol>(server: &Arc<Server>, protocol: &P, listeners: Vec<TcpListener>) {
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(Arc::clone(server), protocol.clone(), listener))),
            Err(error) => tracing::error!(%error, protocol = P::NAME, "a listener could not be registered"),
        }
    }
}

async fn accept<P: Protocol>(server: Arc<Server>, protocol: P, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if *P::figures(&server).open.borrow() < server.settings.connections_max => {
                let open = Open::<P>::new(Arc::clone(&server));
                let spoken = protocol.clone().speak(Arc::clone(&server), stream, Peer(peer));
                tokio::spawn(async move {
                    spoken.await;
                    drop(open);
                });
            }
            Ok(_) => drop(P::figures(&server).refused.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                // Out of descriptors, or the peer was faster: wait, or this loop would spin.
                tracing::debug!(%error, protocol = P::NAME, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open<P: Protocol>(Arc<Server>, std::marker::PhantomData<P>);

impl<P: Protocol> Open<P> {
    fn new(server: Arc<Server>) -> Self {
        P::figures(&server).open.send_modify(|open| *open += 1);
        Self(server, std::marker::PhantomData)
    }
}

impl<P: Protocol> Drop for Open<P> {
    fn drop(&mut self) {
        P::figures(&self.0).open.send_modify(|open| *open -= 1);
    }
}

/// How a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By its peer, or since what it said can't be.
    ByPeer,
    /// By us, after what was owed.
    ByUs,
    /// Its peer took nothing of its answers for too long.
    CutOff,
}

/// Serves a connection until it ends, is as old as it may become, its peer takes nothing of what it has asked for, or the server
/// stops: then it takes no more requests, and the answers that it owes may still come. `before_the_end` is called at that
/// moment.
pub(crate) async fn serve_to_its_end<P: Protocol, C>(
    connection: C,
    server: &Server,
    unread: &Unread,
    before_the_end: impl FnOnce(),
) -> Ended
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let Settings { connection_age_max, request_timeout, publish_timeout, .. } = server.settings;
    let mut connection = std::pin::pin!(connection);
    let ends = std::pin::pin!(timeout(connection_age_max, wait_for_stop(server.stopped.clone())));
    let is_unread = std::pin::pin!(unread.for_too_long(request_timeout));
    match select(connection.as_mut(), select(ends, is_unread)).await {
        Either::Left((ended, _)) => {
            note_end(ended);
            return Ended::ByPeer;
        }
        Either::Right((Either::Left(_), _)) => {}
        Either::Right((Either::Right(_), _)) => {
            P::figures(server).cut_off.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(protocol = P::NAME, "a peer does not read its answers: it is cut off");
            return Ended::CutOff;
        }
    }
    tracing::debug!("a connection of the control plane is asked to end");
    before_the_end();
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(publish_timeout, connection).await {
        note_end(ended);
    }
    Ended::ByUs
}

fn note_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the control plane ended");
    }
}
