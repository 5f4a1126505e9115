//! Answers on their way to a peer: who takes none of them for too long is cut off, else what it asked for would be held for it
//! as long as its connection may last.
//!
//! ```text
//!   answer ─ Answer (pieces, its place) ─► hyper ─► socket ─► peer
//!               │ a piece was given, the next one is not asked for
//!               └──────► Unread (of the connection) ─ too long ─► the connection ends
//! ```
//!
//! hyper asks for the next piece once it has room: as long as it does not, the peer has not read. A large answer is given in
//! pieces, since one that is given whole counts as read.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

/// What is given of an answer at once.
const PIECE_BYTES: usize = 16 << 10;
/// How often in the time that a peer has it is looked after.
const LOOKS: u32 = 4;

/// What a connection's peer has been given and has not taken. All of it is used by the control thread alone; the lock is for the
/// compiler, since hyper's tasks may move in general.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<Mutex<Given>>);

#[derive(Debug, Default)]
struct Given {
    answers: u64,
    /// Since when a piece of each answer waits for its reader.
    waiting: BTreeMap<u64, Instant>,
}

impl Unread {
    /// The answer as it is given from here on; it keeps `place` until its last piece is taken.
    pub fn watch(&self, answer: Response, place: Option<OwnedSemaphorePermit>) -> Response {
        let number = {
            let mut given = self.lock();
            given.answers += 1;
            given.answers
        };
        answer.map(|body| {
            let unread = self.clone();
            Body::new(Answer { body, rest: Bytes::new(), number, unread, _place: place })
        })
    }

    /// Resolves once a piece has waited for its reader for so long.
    pub async fn for_too_long(&self, patience: Duration) {
        loop {
            sleep(patience / LOOKS).await;
            if self.has_waited(patience, Instant::now()) {
                return;
            }
        }
    }

    fn has_waited(&self, patience: Duration, now: Instant) -> bool {
        let oldest = self.lock().waiting.values().min().copied();
        oldest.is_some_and(|since| now.duration_since(since) >= patience)
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer that is watched.
struct Answer {
    body: Body,
    /// Of the frame at hand.
    rest: Bytes,
    number: u64,
    unread: Unread,
    _place: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// A piece of what is at hand. Copied from a long one, which would else stay whole as long as any piece does.
    fn piece(&mut self) -> Bytes {
        if self.rest.len() <= PIECE_BYTES {
            return std::mem::take(&mut self.rest);
        }
        Bytes::copy_from_slice(&self.rest.split_to(PIECE_BYTES))
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let number = self.number;
        self.unread.lock().waiting.remove(&number); // there is room: what was given is taken
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.unread.lock().waiting.insert(number, Instant::now());
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, ahead) = (self.body.size_hint(), self.rest.len() as u64);
        let mut all = SizeHint::new();
        all.set_lower(hint.lower() + ahead);
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + ahead);
        }
        all
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let number = self.number;
        self.unread.lock().waiting.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use hyper::body::Body as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test);
    }

    #[test]
    fn a_large_answer_comes_in_pieces_and_keeps_its_place_to_the_last_one() {
        run(async {
            let places = Arc::new(tokio::sync::Semaphore::new(1));
            let place = Arc::clone(&places).try_acquire_owned().expect("it is free");
            let bytes: Vec<u8> = (0..100_000).map(|number: u32| number as u8).collect();
            let unread = Unread::default();
            let mut body = unread.watch(Response::new(Body::from(bytes.clone())), Some(place)).into_body();
            let mut read = Vec::new();
            while read.len() < bytes.len() {
                assert_eq!(body.size_hint().exact(), Some((bytes.len() - read.len()) as u64));
                assert_eq!(places.available_permits(), 0, "after {} bytes", read.len());
                let piece = body.frame().await.expect("there is more").expect("no error").into_data().expect("data");
                assert!(piece.len() <= PIECE_BYTES);
                read.extend_from_slice(&piece);
                assert_eq!(unread.lock().waiting.len(), 1);
            }
            assert_eq!(read, bytes);
            assert!(body.is_end_stream());
            drop(body);
            assert_eq!((places.available_permits(), unread.lock().waiting.len()), (1, 0));
        });
    }

    #[test]
    fn who_takes_nothing_for_too_long_is_found() {
        run(async {
            let unread = Unread::default();
            let later = |wait: Duration| Instant::now() + wait;
            let nothing = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
            let mut idle = unread.watch(Response::new(Body::from_stream(nothing)), None).into_body();
            assert!(idle.frame().now_or_never().is_none(), "there is nothing to read");
            assert!(!unread.has_waited(PATIENCE, later(PATIENCE * 10)), "who is owed nothing");
            let mut body = unread.watch(Response::new(Body::from(vec![0; 100_000])), None).into_body();
            let _first = body.frame().await;
            assert!(!unread.has_waited(PATIENCE, later(PATIENCE / 2)), "who has time");
            assert!(unread.has_waited(PATIENCE, later(PATIENCE)), "who takes nothing");
            let _others = body.collect().await;
            assert!(!unread.has_waited(PATIENCE, later(PATIENCE * 10)), "who has taken all");
        });
    }
}
