//! What all listeners of the control plane do, whatever is spoken on them: take connections up to a limit, count them, and end
//! each at its age.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::metrics::ListenerFigures;
use crate::server::Settings;
use crate::shared::{Peer, Server};

/// What is counted of one protocol.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Connections.
    open: AtomicUsize,
    requests: AtomicU64,
    refused: AtomicU64,
}

impl Figures {
    pub fn read(&self) -> ListenerFigures {
        let [requests, refused] = [&self.requests, &self.refused].map(|figure| figure.load(Ordering::Relaxed));
        ListenerFigures { requests, refused }
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
            Ok((stream, peer))
                if P::figures(&server).open.load(Ordering::Relaxed) < server.settings.connections_max =>
            {
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
        P::figures(&server).open.fetch_add(1, Ordering::Relaxed);
        Self(server, std::marker::PhantomData)
    }
}

impl<P: Protocol> Drop for Open<P> {
    fn drop(&mut self) {
        P::figures(&self.0).open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection until it ends or is as old as it may become: then it takes no more requests, and the answers that it
/// owes may still come. `at_age` is called at that moment.
pub(crate) async fn serve_to_its_age<C>(connection: C, settings: &Settings, at_age: impl FnOnce())
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = std::pin::pin!(connection);
    let mut ended = timeout(settings.connection_age_max, connection.as_mut()).await;
    if ended.is_err() {
        tracing::debug!("a connection of the control plane reached its maximum age");
        at_age();
        connection.as_mut().graceful_shutdown();
        ended = timeout(settings.publish_timeout, connection).await;
    }
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "a connection of the control plane ended");
    }
}
