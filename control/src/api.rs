//! What the server does for applications, whatever the transport: which shard is asked, how long, and what if there is no
//! answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use postroad_base::{
    LetterAction, LetterFilter, LetterId, LetterQuery, PendingAnswer, PendingId, ShardId, TopicFilter,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clients::{
    ClientAction, ClientChange, ClientChanged, ClientOrder, ClientReport, ClientsCursor, ClientsFilter, ClientsQuery,
};
use crate::cursor::Cursor;
use crate::letters::{
    ImportedLetter, LetterImport, LetterOrder, LetterReport, LetterResult, LettersCursor, LettersPage, LettersQuestion,
};
use crate::line::{Line, Shards};
use crate::pending::{PendingOrder, PendingQuestion, PendingReports};
use crate::publication::{Batch, Caller, Outcome, Publication, Turn};
use crate::report::Request;
use crate::server::{Phase, Settings, Status};
use crate::topics::{
    FilterCounts, FilterReport, FiltersQuery, FiltersWanted, RetainedCursor, RetainedQuery, RetainedReport,
    SubscriptionReport, SubscriptionsCursor, SubscriptionsFilter, SubscriptionsQuery,
};

/// Bytes of the payloads of letters in one answer, at most one shard's answer more.
const LETTERS_BYTES_MAX: usize = 2 << 20;

/// See the module head.
#[derive(Debug)]
pub(crate) struct Api {
    shards: watch::Receiver<Arc<Shards>>,
    status: watch::Receiver<Status>,
    publish_timeout: Duration,
    shard_timeout: Duration,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The server does not serve now.
    NotServing,
    /// A cursor names a shard that is not there: it is no cursor of this server.
    NoShard,
    /// A shard took no question: nothing was done.
    NotTaken,
    /// A shard did not answer in time: what was asked may have been done, or be later.
    Late,
}

/// What is under way: all of it is with the shards that took it.
pub(crate) struct Pending {
    outcomes: Vec<Outcome>,
    asked: Vec<Asked>,
    deadline: Instant,
}

/// Messages of one request for one shard, with their places in the request.
#[derive(Default)]
struct Share {
    places: Vec<usize>,
    messages: Vec<Publication>,
}

/// A share that a shard has.
struct Asked {
    places: Vec<usize>,
    answer: flume::Receiver<Vec<Outcome>>,
}

impl Api {
    pub fn new(shards: watch::Receiver<Arc<Shards>>, status: watch::Receiver<Status>, settings: &Settings) -> Self {
        let Settings { publish_timeout, shard_timeout, .. } = *settings;
        Self { shards, status, publish_timeout, shard_timeout }
    }

    fn is_serving(&self) -> bool {
        self.status.borrow().phase == Phase::Serving
    }

    /// When a publish that begins now is given up, if its caller does not give up before.
    pub fn publish_deadline(&self) -> Instant {
        Instant::now() + self.publish_timeout
    }

    /// Publishes; the outcomes stand in the order of the messages. What is for one topic and has no idempotency key keeps its order,
    /// also from one request to the next of the same caller.
    pub async fn publish(&self, caller: &Caller, messages: Vec<Publication>, deadline: Instant) -> Vec<Outcome> {
        self.begin(caller, messages, deadline).await.outcomes().await
    }

    /// Gives the messages to their shards, once those have room for them. What is begun after it comes after it, also while
    /// neither is answered.
    pub async fn begin(&self, caller: &Caller, messages: Vec<Publication>, deadline: Instant) -> Pending {
        if !self.is_serving() {
            return Pending { outcomes: vec![Outcome::NotServing; messages.len()], asked: Vec::new(), deadline };
        }
        let mut pending = Pending { outcomes: vec![Outcome::Busy; messages.len()], asked: Vec::new(), deadline };
        let shards = Arc::clone(&self.shards.borrow());
        for (shard, share) in shares(&shards, caller, messages) {
            let line = &shards.lines[usize::from(shard.0)];
            pending.asked.extend(give(line, caller, share, deadline).await);
        }
        pending
    }
}

impl Pending {
    /// What became of the messages, in their order, once all is known or the deadline has passed.
    pub async fn outcomes(self) -> Vec<Outcome> {
        let Self { mut outcomes, asked, deadline } = self;
        for Asked { places, answer } in asked {
            let unknown = || vec![Outcome::Unknown; places.len()];
            let answered = timeout_at(deadline, answer.recv_async()).await;
            let given = answered.ok().and_then(Result::ok).unwrap_or_else(unknown);
            places.into_iter().zip(given).for_each(|(place, outcome)| outcomes[place] = outcome);
        }
        outcomes
    }
}

impl Api {
    /// The next clients that fit, from `from` on, at most `limit`; and where to go on, if those were not all.
    pub async fn clients(
        &self,
        filter: &ClientsFilter,
        from: ClientsCursor,
        limit: usize,
    ) -> Result<(Vec<ClientReport>, Option<ClientsCursor>), NoAnswer> {
        let mut found = Vec::new();
        let mut cursor = Some(from);
        while let Some(at) = cursor
            && found.len() < limit
        {
            let (page, next) = self.some_clients(filter, at, limit - found.len()).await?;
            found.extend(page);
            cursor = next;
        }
        Ok((found, cursor))
    }

    /// Those with the largest backlogs of all that fit, the largest first.
    pub async fn clients_behind(&self, filter: &ClientsFilter, limit: usize) -> Result<Vec<ClientReport>, NoAnswer> {
        let mut top: Vec<ClientReport> = Vec::new();
        let mut cursor = Some(ClientsCursor::default());
        while let Some(at) = cursor {
            let least = if top.len() < limit { 1 } else { top.last().map_or(1, |last| last.backlog + 1) };
            let filter = ClientsFilter { backlog_min: filter.backlog_min.max(least), ..filter.clone() };
            let (page, next) = self.some_clients(&filter, at, usize::MAX).await?;
            top.extend(page);
            top.sort_by(|a, b| b.backlog.cmp(&a.backlog).then_with(|| a.client.cmp(&b.client)));
            top.truncate(limit);
            cursor = next;
        }
        Ok(top)
    }

    /// What one look of a shard finds.
    async fn some_clients(
        &self,
        filter: &ClientsFilter,
        at: ClientsCursor,
        limit: usize,
    ) -> Result<(Vec<ClientReport>, Option<ClientsCursor>), NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let query = ClientsQuery { from: at.place, limit, filter: filter.clone(), answer };
        let page = self.ask(at.shard, Request::Clients(Box::new(query)), answered).await?;
        Ok((page.clients, Cursor::behind(at.shard, page.next, self.shard_count())))
    }

    /// One client, after something was done to it; `None`: nothing is known of it.
    pub async fn client(&self, client: &str, action: ClientAction) -> Result<Option<ClientReport>, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let home = self.shards.borrow().home_of_client(client);
        self.ask(home, Request::Client { client: client.into(), action, answer }, answered).await
    }

    /// Changes what is known of a client.
    pub async fn change_client(&self, client: ByteString, change: ClientChange) -> Result<ClientChanged, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let home = self.shards.borrow().home_of_client(&client);
        let order = ClientOrder { client, change, answer };
        self.ask(home, Request::ChangeClient(Box::new(order)), answered).await
    }

    /// The next subscriptions that fit, from there on, at most `limit`; and where to go on, if those were not all.
    pub async fn subscriptions(
        &self,
        filter: &SubscriptionsFilter,
        from: Option<SubscriptionsCursor>,
        limit: usize,
    ) -> Result<(Vec<SubscriptionReport>, Option<SubscriptionsCursor>), NoAnswer> {
        let home = filter.client.as_ref().map(|client| self.shards.borrow().home_of_client(client));
        let first = home.map_or_else(SubscriptionsCursor::default, SubscriptionsCursor::first_of);
        let (mut found, mut cursor) = (Vec::new(), Some(from.unwrap_or(first)));
        while let Some(at) = cursor.take_if(|_| found.len() < limit) {
            let (answer, answered) = flume::bounded(1);
            let (shard, left) = (at.shard, limit - found.len());
            let query = SubscriptionsQuery { from: at.place, limit: left, filter: filter.clone(), answer };
            let page = self.ask(shard, Request::Subscriptions(Box::new(query)), answered).await?;
            found.extend(page.subscriptions);
            // All of a client are where it lives.
            cursor = Cursor::behind(shard, page.next, self.shard_count())
                .filter(|next| home.is_none_or(|home| next.shard == home));
        }
        Ok((found, cursor))
    }

    /// The first filters that fit, at most `limit`, with how many have subscribed to each; and behind which to go on, if those were
    /// not all. For each page all subscriptions are looked at.
    pub async fn filters(
        &self,
        wanted: &FiltersWanted,
        limit: usize,
    ) -> Result<(Vec<FilterReport>, Option<TopicFilter>), NoAnswer> {
        let (most, mut found) = (limit + 1, FilterCounts::default()); // one more tells whether there is one
        let mut cursor = Some(SubscriptionsCursor::default());
        while let Some(SubscriptionsCursor { shard, place }) = cursor {
            let (answer, answered) = flume::bounded(1);
            let query = FiltersQuery { from: place, wanted: wanted.clone(), limit: most, answer };
            let page = self.ask(shard, Request::Filters(Box::new(query)), answered).await?;
            found.merge(page.filters, most);
            cursor = Cursor::behind(shard, page.next, self.shard_count());
        }
        Ok(found.page(limit))
    }

    /// The next retained messages whose topics match, likewise.
    pub async fn retained(
        &self,
        filter: &TopicFilter,
        from: RetainedCursor,
        limit: usize,
    ) -> Result<(Vec<RetainedReport>, Option<RetainedCursor>), NoAnswer> {
        let (mut found, mut cursor) = (Vec::new(), Some(from));
        while let Some(at) = cursor.take_if(|_| found.len() < limit) {
            let (answer, answered) = flume::bounded(1);
            let (shard, left) = (at.shard, limit - found.len());
            let query = RetainedQuery { from: at.place, limit: left, filter: filter.clone(), answer };
            let page = self.ask(shard, Request::Retained(Box::new(query)), answered).await?;
            found.extend(page.retained);
            cursor = Cursor::behind(shard, page.next.map(Some), self.shard_count());
        }
        Ok((found, cursor))
    }

    /// What waits for a client or is in flight to it, behind this delivery, at most so many; `None`: nothing is known of it.
    pub async fn pending(
        &self,
        client: &str,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Option<PendingReports>, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let home = self.shards.borrow().home_of_client(client);
        let question = PendingQuestion { client: client.into(), after, limit, answer };
        self.ask(home, Request::Pending(Box::new(question)), answered).await
    }

    /// These are acknowledged in the place of their client.
    pub async fn end_pending(&self, client: &str, ids: Vec<PendingId>) -> Result<PendingAnswer, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let home = self.shards.borrow().home_of_client(client);
        let order = PendingOrder { client: client.into(), ids, answer };
        self.ask(home, Request::EndPending(Box::new(order)), answered).await
    }

    /// Looks for letters on one shard after the other, from there on, until it has found so many. `lease_ms`: they are leased for so
    /// long.
    pub async fn letters(
        &self,
        filter: &LetterFilter,
        from: LettersCursor,
        limit: usize,
        lease_ms: Option<u64>,
    ) -> Result<(Vec<LetterReport>, Option<LettersCursor>), NoAnswer> {
        let (mut found, mut bytes, mut cursor) = (Vec::new(), 0, Some(from));
        while let Some(at) = cursor
            && found.len() < limit
            && bytes < LETTERS_BYTES_MAX
        {
            let limit = limit - found.len();
            let query =
                LetterQuery { after: at.place, filter: filter.clone(), limit, lease_ms, ..LetterQuery::default() };
            let page = match self.some_letters(at.shard, query).await {
                // What was found may be leased: it must not be lost for want of the rest.
                Err(_) if !found.is_empty() => break,
                page => page?,
            };
            bytes += page.letters.iter().map(|report| report.letter.message.payload.len()).sum::<usize>();
            found.extend(page.letters);
            cursor = Cursor::behind(at.shard, page.next.map(Some), self.shard_count());
        }
        Ok((found, cursor))
    }

    /// What one look of a shard finds.
    pub async fn some_letters(&self, shard: ShardId, query: LetterQuery) -> Result<LettersPage, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        self.ask(shard, Request::Letters(Box::new(LettersQuestion { query, answer })), answered).await
    }

    /// Does something with a letter.
    pub async fn act_on_letter(&self, id: LetterId, action: LetterAction) -> Result<LetterResult, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let shards = Arc::clone(&self.shards.borrow());
        let Some(placement) = &shards.placement else { return Err(NoAnswer::NotServing) };
        if id.queue.partition().0 >= placement.partitions() {
            return Ok(LetterResult::Gone);
        }
        let home = placement.shard_of(id.queue.partition());
        self.ask(home, Request::Letter(Box::new(LetterOrder { id, action, answer })), answered).await
    }

    /// Keeps a letter from elsewhere, where its client lives; its name here, or `None` if none are kept.
    pub async fn import_letter(&self, import: ImportedLetter) -> Result<Option<LetterId>, NoAnswer> {
        let (answer, answered) = flume::bounded(1);
        let home = self.shards.borrow().home_of_client(import.death.client.as_str());
        self.ask(home, Request::ImportLetter(Box::new(LetterImport { import, answer })), answered).await
    }

    /// All shards, if the server serves.
    pub fn all_lines(&self) -> Result<Arc<Shards>, NoAnswer> {
        if self.is_serving() { Ok(Arc::clone(&self.shards.borrow())) } else { Err(NoAnswer::NotServing) }
    }

    pub fn shard_count(&self) -> usize {
        self.shards.borrow().lines.len()
    }

    /// The shard on which this name lives, and the way to it.
    pub fn home_line(&self, name: &str) -> Result<(ShardId, Line), NoAnswer> {
        if !self.is_serving() {
            return Err(NoAnswer::NotServing);
        }
        let shards = Arc::clone(&self.shards.borrow());
        let home = shards.home_of_client(name);
        let line = shards.lines.get(usize::from(home.0)).ok_or(NoAnswer::NotServing)?;
        Ok((home, line.clone()))
    }

    /// For how long a question waits whose answer needs a commit and no more.
    pub fn answer_timeout(&self) -> Duration {
        self.publish_timeout
    }

    pub async fn ask<T>(&self, shard: ShardId, request: Request, answered: flume::Receiver<T>) -> Result<T, NoAnswer> {
        if !self.is_serving() {
            return Err(NoAnswer::NotServing);
        }
        let shards = Arc::clone(&self.shards.borrow());
        let line = shards.lines.get(usize::from(shard.0)).ok_or(NoAnswer::NoShard)?;
        if !line.ask(request) {
            return Err(NoAnswer::NotTaken);
        }
        let answer = timeout(self.shard_timeout, answered.recv_async()).await;
        answer.ok().and_then(Result::ok).ok_or(NoAnswer::Late)
    }
}

fn shares(shards: &Shards, caller: &Caller, messages: Vec<Publication>) -> BTreeMap<ShardId, Share> {
    let mut shares: BTreeMap<ShardId, Share> = BTreeMap::new();
    for (place, message) in messages.into_iter().enumerate() {
        let share = shares.entry(shards.home_of_publication(caller, &message)).or_default();
        share.places.push(place);
        share.messages.push(message);
    }
    shares
}

/// Waits for a turn, and gives the shard its share; `None` if it took none by the deadline.
async fn give(line: &Line, caller: &Caller, share: Share, deadline: Instant) -> Option<Asked> {
    let turn = timeout_at(deadline, Arc::clone(&line.batches).acquire_owned()).await.ok()?.ok()?;
    let (answer, answered) = flume::bounded(1);
    let batch = Batch { caller: caller.clone(), messages: share.messages, answer, turn: Turn { _permit: turn } };
    let is_asked = line.ask(Request::Publish(Box::new(batch)));
    is_asked.then_some(Asked { places: share.places, answer: answered })
}
