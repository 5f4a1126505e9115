//! Following what becomes of messages, whatever the transport: page by page, as the reader has room for one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use postroad_base::MessageId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::history::{NoHistory, Page, StepRow, Wanted};
use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::server::wait_for_stop;
use crate::shared::{Server, connection_age, not_serving};
use crate::tokens::Right;

/// Steps that a reader is given at once.
const PAGE_MAX: usize = 100;
/// Looks that find nothing after which a reader hears how far they went, so that it need not begin again if it goes.
const LOOKS_MAX: usize = 10;
/// Time after which a reader hears something though there is nothing to say: so both sides notice that the other is gone.
const NOTHING_AFTER: Duration = Duration::from_secs(15);

/// A reader of receipts.
pub(crate) struct Following {
    server: Arc<Server>,
    wanted: Wanted,
    after: u64,
    /// Whether it waits for more once it has all that there is.
    waits: bool,
    newest: watch::Receiver<u64>,
    /// A connection may not be older, so the stream is not.
    ends: Instant,
    _place: Place,
}

/// A place of one that reads for as long as it likes.
#[derive(Debug)]
pub(crate) struct Place {
    _any: OwnedSemaphorePermit,
    /// Of those for who may read only what is its own.
    _own: Option<OwnedSemaphorePermit>,
}

/// What comes next for a reader.
#[derive(Debug)]
pub(crate) enum Came {
    Rows(Vec<StepRow>),
    /// Nothing, for a while: see [`Following::seen`].
    Nothing,
    /// That was all.
    End,
    Failed(Problem),
}

/// How a reader begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begin {
    /// Behind this position; `None`: with what is new, or, if it does not wait, with the oldest.
    pub after: Option<u64>,
    /// Whether it ends with what there is.
    pub once: bool,
}

impl Following {
    /// # Errors
    /// If so many read already, or the history can't be read.
    pub async fn begin(server: &Arc<Server>, wanted: Wanted, begin: Begin) -> Result<Self, Problem> {
        let Begin { after, once } = begin;
        let place = server.reader_place(wanted.user.is_some())?;
        let newest = server.history.newest.clone();
        let after = match after {
            Some(after) => after,
            None if once => 0,
            None => server.history.behind(None, wanted.clone(), 0).await.map_err(|NoHistory| no_history())?.upto,
        };
        let ends = Instant::now() + server.settings.connection_age_max;
        Ok(Self { server: Arc::clone(server), wanted, after, waits: !once, newest, ends, _place: place })
    }

    /// The position up to which all was looked at.
    pub fn seen(&self) -> u64 {
        self.after
    }

    pub async fn next(&mut self) -> Came {
        for _ in 0..LOOKS_MAX {
            self.newest.borrow_and_update(); // what comes from here on is new
            let page = match self.server.history.behind(Some(self.after), self.wanted.clone(), PAGE_MAX).await {
                Ok(page) => page,
                Err(NoHistory) => return Came::Failed(no_history()),
            };
            let Page { rows, upto, more } = page;
            self.after = upto.max(self.after);
            if !rows.is_empty() {
                return Came::Rows(rows);
            }
            match self.over() {
                // Whoever asks for what there is takes an end for the whole of it.
                Some(problem) if more && !self.waits => return Came::Failed(problem),
                Some(_) => return Came::End,
                None if !more && !self.waits => return Came::End,
                None => {}
            }
            if !more && !self.is_new().await && self.over().is_none() {
                return Came::Nothing;
            }
        }
        Came::Nothing
    }

    /// Why it ends though there may be more: another one goes on from where it was.
    fn over(&self) -> Option<Problem> {
        if *self.server.stopped.borrow() {
            return Some(not_serving());
        }
        (Instant::now() >= self.ends).then(connection_age)
    }

    /// Waits for something new; `false`: nothing came for a while, or the stream is to end.
    async fn is_new(&mut self) -> bool {
        let until = self.ends.min(Instant::now() + NOTHING_AFTER);
        let stops = std::pin::pin!(wait_for_stop(self.server.stopped.clone()));
        let changes = std::pin::pin!(timeout_at(until, self.newest.changed()));
        match select(stops, changes).await {
            Either::Left(_) => false,
            Either::Right((Ok(Ok(())), _)) => true,
            Either::Right((Ok(Err(_)), _)) => {
                sleep_until(until).await; // the history has ended: so will the server
                false
            }
            Either::Right((Err(_), _)) => false,
        }
    }
}

impl Server {
    /// Who calls, and what that one may see: `None`: all, as it has this right; else what this user has published.
    pub fn may_see(
        &self,
        all: Right,
        caller: impl Fn(Right) -> Result<Caller, Problem>,
    ) -> Result<(Caller, Option<String>), Problem> {
        match caller(all) {
            Ok(caller) => Ok((caller, None)),
            // Without tokens it is not for want of a right: to ask for another one would say so.
            Err(Problem { kind: Kind::Forbidden, .. }) if self.tokens.borrow().is_some() => {
                let neither = |problem: Problem| match problem.kind {
                    Kind::Forbidden => {
                        let why = format!("this token has neither the right {:?} nor \"publish\"", all.name());
                        Problem::new(Kind::Forbidden, why)
                    }
                    _ => problem,
                };
                let caller = caller(Right::Publish).map_err(neither)?;
                let own = caller.name.to_string();
                Ok((caller, Some(own)))
            }
            Err(problem) => Err(problem),
        }
    }

    /// A place for one more that reads for as long as it likes; `is_own`: only what is its own.
    ///
    /// # Errors
    /// If there is none.
    pub fn reader_place(&self, is_own: bool) -> Result<Place, Problem> {
        let place = |places: &Arc<Semaphore>, why| {
            Arc::clone(places).try_acquire_owned().map_err(|_| Problem::new(Kind::Busy, why))
        };
        let own_busy = "as many streams as half of trace.readers_max, rounded down, are read by callers without the right trace already";
        let own = is_own.then(|| place(&self.own_readers, own_busy)).transpose()?;
        let any = place(&self.readers, "trace.readers_max streams are read already")?;
        Ok(Place { _any: any, _own: own })
    }
}

/// It can't be read now.
pub(crate) fn no_history() -> Problem {
    Problem::new(Kind::Busy, "the history of messages can't be read now: see the server's log")
}

/// The message that a text names.
pub(crate) fn message_id(text: &str) -> Result<MessageId, Problem> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32 && !text.starts_with('+'));
    number.map(MessageId).ok_or_else(|| Problem::bad("a message is named by 32 hexadecimal digits"))
}
