//! Following dead letters: each is told once it is safe, behind the ones that were told, for as long as somebody listens.
//!
//! ```text
//!   shard ─ LettersBell ─► follower: look at each shard, behind what was seen ─► a page ─► one letter after the other
//!                              ▲ with leases: from the beginning again, once those of the last round have ended ┘
//! ```
//!
//! A follower asks a shard only when its page is empty and its reader wants more: it holds one page, whatever there is to tell.
//! What it has seen is a place in each queue of letters; as text that is what its reader names to go on after a break, also on
//! another connection and after a restart. A queue that is not named there has come about since, and is told from its beginning.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use postroad_base::{LetterFilter, LetterId, LetterQuery, QueueId, Sequence, ShardId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::LetterReport;
use crate::api::NoAnswer;
use crate::problem::Problem;
use crate::shared::Server;

/// Letters of one page, and of one that is leased: what waits in a page has less and less of its lease left.
const PAGE_MAX: usize = 100;
const LEASED_MAX: usize = 16;
/// Time between two rounds, so that a flood of letters is told in pages, not one by one.
const PAUSE: Duration = Duration::from_millis(50);
/// Time after which a shard that took no question, or did not answer, is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Rung by shards when dead letters have come about. Never waits; cheap when nobody follows.
#[derive(Clone, Debug, Default)]
pub struct LettersBell(Arc<watch::Sender<()>>);

impl LettersBell {
    /// Whoever follows letters looks again.
    pub fn there_are_new_ones(&self) {
        self.0.send_replace(());
    }
}

/// The last letter of each queue that a follower has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen(BTreeMap<QueueId, Sequence>);

/// Queues that a reader may name: more than there are, since each shard has one, and one of former shards until it is empty.
const QUEUES_MAX: usize = 4096;
/// What stands for no queue at all: text that is empty is none to browsers.
const NONE_SEEN: &str = "-";

impl Seen {
    fn add(&mut self, id: LetterId) {
        let last = self.0.entry(id.queue).or_insert(id.sequence);
        *last = id.sequence.max(*last);
    }

    fn letters(&self) -> Vec<LetterId> {
        self.0.iter().map(|(&queue, &sequence)| LetterId { queue, sequence }).collect()
    }

    pub fn text(&self) -> String {
        let letters: Vec<String> = self.letters().iter().map(LetterId::to_string).collect();
        if letters.is_empty() { NONE_SEEN.to_owned() } else { letters.join(",") }
    }

    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut seen = Self::default();
        if text == NONE_SEEN {
            return Ok(seen);
        }
        for letter in text.split(',') {
            let wrong = |_| Problem::bad("the place to go on from must be what came with a letter");
            seen.add(letter.parse().map_err(wrong)?);
            if seen.0.len() > QUEUES_MAX {
                return Err(Problem::bad(format!("the place to go on from names more than {QUEUES_MAX} queues")));
            }
        }
        Ok(seen)
    }
}

/// Where a follower begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With what comes from now on.
    Now,
    /// With all that there are.
    Oldest,
    /// Behind what it has been told.
    Behind(Seen),
}

/// What a follower hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A letter, and what it has seen with it.
    Letter(Box<LetterReport>, String),
    /// Nothing for a while.
    Nothing,
    /// It ends so.
    End(Problem),
}

/// See the module head.
pub(crate) struct Follower {
    server: Arc<Server>,
    news: watch::Receiver<()>,
    filter: LetterFilter,
    /// Each letter is leased for so long.
    lease: Option<Duration>,
    /// Where it has begun: what it leases may come again from there on.
    begun: Seen,
    seen: Seen,
    /// Of the shard at hand, and until when it may be told.
    page: VecDeque<LetterReport>,
    page_until: Option<Instant>,
    /// Where the queues of that shard ended, if the page is its last: seen once the page is told, not before. A reader that breaks
    /// off within the page would never get the rest of it.
    ends: Vec<LetterId>,
    round: Option<Round>,
    /// A shard could not be asked in the last round: the next one begins then, if not before.
    again_at: Option<Instant>,
    /// What was leased comes again, if nobody has acted on it: then it is looked for from the beginning.
    anew_at: Option<Instant>,
    end: Pin<Box<dyn Future<Output = Problem> + Send>>,
}

/// A look at all shards, one after the other.
struct Round {
    shard: ShardId,
    /// The letter behind which to go on there.
    after: Option<LetterId>,
    /// Where the queues of this shard ended when the look at it began.
    ends: Option<Vec<LetterId>>,
    /// A shard could not be asked.
    is_incomplete: bool,
}

impl Round {
    fn of(shard: ShardId) -> Self {
        Self { shard, after: None, ends: None, is_incomplete: false }
    }
}

impl Follower {
    /// One that begins there, and ends with a problem when `end` resolves.
    pub async fn begin(
        server: Arc<Server>,
        filter: LetterFilter,
        lease: Option<Duration>,
        begin: Begin,
        end: impl Future<Output = Problem> + Send + 'static,
    ) -> Result<Self, Problem> {
        let news = server.shards.borrow().letters.0.subscribe();
        let seen = match begin {
            Begin::Now => ends(&server).await?,
            Begin::Oldest => Seen::default(),
            Begin::Behind(ref seen) => seen.clone(),
        };
        let begun = begun(lease.is_some(), &begin, &seen);
        let (round, end) = (Some(Round::of(ShardId(0))), Box::pin(end));
        let (page, page_until, ends, again_at, anew_at) = (VecDeque::new(), None, Vec::new(), None, None);
        Ok(Self { server, news, filter, lease, begun, seen, page, page_until, ends, round, again_at, anew_at, end })
    }

    /// What it has seen, as text.
    pub fn seen(&self) -> String {
        self.seen.text()
    }

    /// What comes next, or that nothing has come for so long.
    pub async fn next(&mut self, patience: Duration) -> Heard {
        let mut end = std::mem::replace(&mut self.end, Box::pin(std::future::pending()));
        let heard = match select(end.as_mut(), std::pin::pin!(self.listen(Instant::now() + patience))).await {
            Either::Left((problem, _)) => Heard::End(problem),
            Either::Right((heard, _)) => heard,
        };
        self.end = end;
        heard
    }

    async fn listen(&mut self, until: Instant) -> Heard {
        loop {
            if self.page_until.is_some_and(|until| until <= Instant::now()) {
                self.page.clear(); // somebody else may have them by now
                self.ends.clear(); // what was not told was not seen
                self.page_until = None;
            }
            if let Some(report) = self.page.pop_front() {
                self.seen.add(report.letter.id);
                self.see_ends();
                return Heard::Letter(Box::new(report), self.seen.text());
            }
            match self.round.take() {
                Some(round) => match self.look(round).await {
                    Ok(next) => self.round = next,
                    Err(problem) => return Heard::End(problem),
                },
                None if self.wait(until).await => self.round = Some(Round::of(ShardId(0))),
                None => return Heard::Nothing,
            }
        }
    }

    /// Asks a shard for a page; what is left of the round.
    async fn look(&mut self, mut round: Round) -> Result<Option<Round>, Problem> {
        if round.shard == ShardId(0) && round.ends.is_none() {
            self.news.borrow_and_update(); // what comes about from here on is for the next round
        }
        let limit = if self.lease.is_some() { LEASED_MAX } else { PAGE_MAX };
        let lease_ms = self.lease.and_then(|lease| u64::try_from(lease.as_millis()).ok());
        let (filter, seen) = (self.filter.clone(), self.seen.letters());
        let query = LetterQuery { after: round.after, filter, seen, limit, lease_ms };
        let asked = Instant::now();
        let next = match self.server.api.some_letters(round.shard, query).await {
            Ok(found) => {
                let ends = round.ends.get_or_insert(found.ends);
                if found.next.is_none() {
                    self.ends = std::mem::take(ends);
                }
                self.page = found.letters.into();
                self.page_until = self.lease.map(|lease| asked + lease);
                self.see_ends();
                found.next
            }
            Err(why @ (NoAnswer::NotServing | NoAnswer::NoShard)) => return Err(why.into()),
            Err(NoAnswer::NotTaken | NoAnswer::Late) => {
                round.is_incomplete = true;
                None
            }
        };
        if next.is_some() {
            return Ok(Some(Round { after: next, ..round }));
        }
        let shard = ShardId(round.shard.0 + 1);
        if usize::from(shard.0) < self.server.shards.borrow().lines.len() {
            return Ok(Some(Round { is_incomplete: round.is_incomplete, ..Round::of(shard) }));
        }
        self.round_is_over(round.is_incomplete);
        Ok(None)
    }

    fn see_ends(&mut self) {
        if self.page.is_empty() {
            self.ends.drain(..).for_each(|end| self.seen.add(end));
        }
    }

    fn round_is_over(&mut self, is_incomplete: bool) {
        let now = Instant::now();
        self.again_at = is_incomplete.then_some(now + AGAIN);
        if let Some(lease) = self.lease {
            self.anew_at.get_or_insert(now + lease);
        }
    }

    /// Waits for news, or for what else begins a round; `false` if neither has come until then.
    async fn wait(&mut self, until: Instant) -> bool {
        let due = self.again_at.into_iter().chain(self.anew_at).min().filter(|due| *due <= until);
        let news = timeout_at(due.unwrap_or(until), self.news.changed()).await;
        match news {
            Ok(Ok(())) => sleep(PAUSE).await,
            Ok(Err(_)) => sleep_until(due.unwrap_or(until)).await, // the shards have gone: the end is near
            Err(_) => {}
        }
        if self.anew_at.is_some_and(|at| at <= Instant::now()) {
            self.seen = self.begun.clone();
            self.anew_at = None;
        }
        matches!(news, Ok(Ok(()))) || due.is_some()
    }
}

/// From where on what is leased may come again. Who goes on behind a place may have leased what stands before it, and have ended
/// without acting on it: that comes again once its lease has ended, so it is looked for from the beginning.
fn begun(is_leasing: bool, begin: &Begin, seen: &Seen) -> Seen {
    match begin {
        Begin::Behind(_) if is_leasing => Seen::default(),
        _ => seen.clone(),
    }
}

/// The last letter of each queue there is.
async fn ends(server: &Server) -> Result<Seen, Problem> {
    let count = server.shards.borrow().lines.len();
    let mut seen = Seen::default();
    for shard in (0..count).filter_map(|shard| u16::try_from(shard).ok()) {
        let page = server.api.some_letters(ShardId(shard), LetterQuery::default()).await?;
        page.ends.into_iter().for_each(|end| seen.add(end));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leases_and_goes_on_gets_again_what_stands_before() {
        let seen = Seen::parse("0-0-16").expect("a place");
        let behind = Begin::Behind(seen.clone());
        assert_eq!(begun(true, &behind, &seen), Seen::default());
        assert_eq!((begun(false, &behind, &seen), begun(true, &Begin::Now, &seen)), (seen.clone(), seen));
    }

    #[test]
    fn what_was_seen_is_read_back() {
        for text in ["-", "0-0-16", "0-0-16,0-3-7,200-1-99"] {
            assert_eq!(Seen::parse(text).map(|seen| seen.text()).as_deref(), Ok(text));
        }
        let twice = Seen::parse("0-0-16,0-0-20,0-0-3").expect("places");
        assert_eq!(twice.text(), "0-0-20");
        for wrong in ["", "16", "0-0", "0-0-16,", "-,0-0-16", "all"] {
            assert!(Seen::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A text of megabytes made a map, and questions to shards, as large as it liked.
    #[test]
    fn so_many_queues_may_be_named_and_no_more() {
        let of = |count: usize| {
            let places: Vec<String> = (0..count).map(|place| format!("{}-{}-1", place % 256, place / 256)).collect();
            Seen::parse(&places.join(","))
        };
        assert_eq!(of(QUEUES_MAX).map(|seen| seen.0.len()), Ok(QUEUES_MAX));
        let problem = of(QUEUES_MAX + 1).expect_err("one too many");
        assert_eq!(problem.detail, "the place to go on from names more than 4096 queues");
    }
}
