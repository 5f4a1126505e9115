//! What happened to the messages that somebody follows, kept for a while (ADR 25).
//!
//! ```text
//!  shards ── Recorder::tell ──► bounded queue ──► thread "history" ──► history.redb
//!            never waits             ▲                  └─► newest position ─► readers go on
//!                                 questions of the API
//! ```
//!
//! Invariants
//! - A shard never waits for the history: what finds the queue full is dropped, and counted.
//! - A question is answered from what was told before it.
//! - A reader holds nothing here: it asks for the next page when it has room for one.
//! - A disk that is full or broken stops the history alone: steps are lost and counted until it can be written again. What it
//!   holds is shown meanwhile, as long as it can be read: room is a question of writing.
//! - One question looks at so many rows and no more: whoever wants to know more asks again, behind the others.
//!
//! Crash story: each second what has come is made safe with one sync, and so is what a life shows before it is shown.

mod row;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postroad_base::{MessageId, Moved, Step, WallMillis};
use redb::backends::InMemoryBackend;
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use row::{StepRow, Wanted};
pub(crate) use store::Page;

use row::Origin;
use store::{Bounds, Keep, Store, StoreError};

/// How long a step waits at most until readers see it.
const SHOW_WITHIN: Duration = Duration::from_millis(50);
/// … and until it is on disk.
const KEEP_WITHIN: Duration = Duration::from_secs(1);
/// Time between two tries to write what could not be written, or to open what could not be opened.
pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Time between two looks for what is too old.
const SWEEP: Duration = Duration::from_secs(60);
/// Steps of one commit.
const BATCH_MAX: usize = 4096;
/// Messages whose publication is remembered, so that it need not be looked up for each of their steps.
const ORIGINS_MAX: usize = 65_536;
/// Rows that one question looks at: the others, and what is told, wait for it.
const LOOKS_MAX: usize = 1_000;

/// Where and how much the history keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryOptions {
    /// The file; `None`: in memory.
    pub path: Option<PathBuf>,
    /// For how long a step is kept.
    pub retention: Duration,
    /// Bytes of the steps that are kept; the file takes up to twice that and 4 MiB.
    pub bytes_max: u64,
    /// Nothing is written while the disk has less room than that.
    pub free_bytes_min: u64,
    /// Time between two tries to write what could not be written, or to open what could not be opened.
    pub try_again: Duration,
}

/// The way of the shards to the history; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    orders: flume::Sender<Order>,
    figures: Arc<Figures>,
}

/// The other end, until the history begins to read it.
#[derive(Debug)]
pub(crate) struct Recording {
    orders: flume::Receiver<Order>,
    figures: Arc<Figures>,
    newest: watch::Sender<u64>,
}

/// The way of the API to it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    orders: flume::Sender<Order>,
    pub figures: Arc<Figures>,
    /// The newest position that readers can see.
    pub newest: watch::Receiver<u64>,
    patience: Duration,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    kept: AtomicU64,
    dropped: AtomicU64,
    lost: AtomicU64,
    steps: AtomicU64,
    bytes: AtomicU64,
}

/// The figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryFigures {
    /// Steps that were taken in.
    pub kept: u64,
    /// Steps that came faster than the history takes them.
    pub dropped: u64,
    /// Steps that could not be written; with those that were taken in and seen before they were on disk, and did not get there.
    pub lost: u64,
    /// Steps that are there.
    pub steps: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Figures {
    pub fn read(&self) -> HistoryFigures {
        let [kept, dropped, lost, steps, bytes] =
            [&self.kept, &self.dropped, &self.lost, &self.steps, &self.bytes].map(|one| one.load(Ordering::Relaxed));
        HistoryFigures { kept, dropped, lost, steps, bytes }
    }
}

/// What the thread is told. Closed: a new need is a new variant.
#[derive(Debug)]
enum Order {
    Step(Box<Moved>),
    Life { id: MessageId, after: u64, limit: usize, answer: Answer },
    Behind { after: Option<u64>, wanted: Box<Wanted>, limit: usize, answer: Answer },
    Stop,
}

/// Where a page goes; `None`: the history can't be read now.
type Answer = flume::Sender<Option<Page>>;

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoHistory;

/// The history, as far as it does not run yet: what is told waits in a queue of so many.
pub(crate) fn history(queue_max: usize, patience: Duration) -> (Recorder, Recording, History) {
    let (orders, taken) = flume::bounded(queue_max);
    let figures = Arc::new(Figures::default());
    let (newest, newest_seen) = watch::channel(0);
    let history = History { orders: orders.clone(), figures: Arc::clone(&figures), newest: newest_seen, patience };
    let recorder = Recorder { orders, figures: Arc::clone(&figures) };
    (recorder, Recording { orders: taken, figures, newest }, history)
}

impl Recorder {
    /// Tells of a step, unless so many wait that there is no room: then it is dropped, and counted.
    pub fn tell(&self, moved: Box<Moved>) {
        if self.orders.try_send(Order::Step(moved)).is_err() {
            self.figures.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl History {
    /// The steps of a message behind this position. What is shown is on disk.
    pub async fn life(&self, id: MessageId, after: u64, limit: usize) -> Result<Page, NoHistory> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Order::Life { id, after, limit, answer }, answered).await
    }

    /// Steps behind this position that are wanted, as far as one question looks; behind none: nothing, and up to where all is old.
    pub async fn behind(&self, after: Option<u64>, wanted: Wanted, limit: usize) -> Result<Page, NoHistory> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Order::Behind { after, wanted: Box::new(wanted), limit, answer }, answered).await
    }

    async fn ask(&self, order: Order, answered: flume::Receiver<Option<Page>>) -> Result<Page, NoHistory> {
        let asked = async {
            self.orders.send_async(order).await.ok()?;
            answered.recv_async().await.ok()?
        };
        timeout(self.patience, asked).await.ok().flatten().ok_or(NoHistory)
    }

    /// Ends the thread once it has kept what was told.
    pub fn stop(&self) {
        let _gone = self.orders.send(Order::Stop);
    }
}

impl Recording {
    /// Begins to take in what is told, on a thread of its own.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(self, options: HistoryOptions) -> std::io::Result<JoinHandle<()>> {
        let keeper = Keeper::new(self, options);
        std::thread::Builder::new().name("history".into()).spawn(move || keeper.run())
    }
}

impl Recording {
    /// Wakes readers if there is something new.
    fn show(&self, position: u64) {
        self.newest.send_if_modified(|newest| std::mem::replace(newest, position) != position);
    }
}

/// The thread.
struct Keeper {
    recording: Recording,
    options: HistoryOptions,
    /// Opened when it is needed first: who follows nothing has no file.
    store: Option<Store>,
    batch: Vec<(MessageId, StepRow)>,
    origins: std::collections::HashMap<MessageId, Arc<Origin>>,
    show_due: Option<Instant>,
    keep_due: Option<Instant>,
    sweep_due: Instant,
    /// Steps that readers can see and that are not on disk.
    unsynced: u64,
    /// While it can't be written.
    outage: Option<Outage>,
    /// When it could not be opened last; `None`: it could.
    unopened_at: Option<Instant>,
}

/// A time in which steps are lost.
struct Outage {
    tried_at: Instant,
    lost: u64,
}

impl Keeper {
    fn new(recording: Recording, options: HistoryOptions) -> Self {
        Self {
            recording,
            options,
            store: None,
            batch: Vec::new(),
            origins: std::collections::HashMap::new(),
            show_due: None,
            keep_due: None,
            sweep_due: Instant::now() + SWEEP,
            unsynced: 0,
            outage: None,
            unopened_at: None,
        }
    }

    fn run(mut self) {
        self.open_what_is_there();
        let orders = self.recording.orders.clone();
        loop {
            let due = [self.show_due, self.keep_due].into_iter().flatten().fold(self.sweep_due, Instant::min);
            match orders.recv_deadline(due) {
                Ok(Order::Stop) | Err(flume::RecvTimeoutError::Disconnected) => return self.commit(Keep::OnDisk),
                Ok(order) => self.take(order),
                Err(flume::RecvTimeoutError::Timeout) => {}
            }
            self.commit_what_is_due();
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Step(moved) => self.step(&moved),
            Order::Life { id, after, limit, answer } => {
                self.commit(Keep::OnDisk);
                let too_old = self.too_old();
                self.answer(&answer, |store| store.life(id, after.max(store.position().min(too_old)), limit));
            }
            Order::Behind { after, wanted, limit, answer } => {
                self.commit(Keep::Shown);
                let too_old = self.too_old();
                self.answer(&answer, |store| match after {
                    Some(after) => store.behind(after.max(store.position().min(too_old)), &wanted, limit, LOOKS_MAX),
                    None => Ok(Page { upto: store.position(), ..Page::default() }),
                });
            }
            Order::Stop => unreachable!("the loop ends with it"),
        }
    }

    /// Up to which position nothing is shown any more: while there is no room for a commit nothing is let go of, and what is too
    /// old must not be seen for longer because of that. Positions are times in microseconds.
    fn too_old(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.saturating_sub(self.options.retention).as_micros()).unwrap_or(u64::MAX)
    }

    fn answer(&mut self, answer: &Answer, read: impl FnOnce(&Store) -> Result<Page, StoreError>) {
        self.open_what_is_there();
        let page = match self.store.as_ref().map(read) {
            Some(Ok(page)) => Some(page),
            Some(Err(error)) => {
                self.unopened_at = Some(Instant::now());
                self.break_off(&error);
                None
            }
            // Nothing was ever told; or it was, and nothing is there.
            None => self.outage.is_none().then(Page::default),
        };
        let _gone = answer.try_send(page);
    }

    fn step(&mut self, moved: &Moved) {
        let origin = self.origin(moved);
        self.batch.push((moved.id, StepRow::new(moved, &origin)));
        let now = Instant::now();
        self.show_due.get_or_insert(now + SHOW_WITHIN);
        self.keep_due.get_or_insert(now + KEEP_WITHIN);
        if self.batch.len() >= BATCH_MAX {
            self.commit(Keep::Shown);
        }
    }

    fn origin(&mut self, moved: &Moved) -> Arc<Origin> {
        if let Step::Published(published) = &moved.step {
            return self.remember(moved.id, Origin::of(published));
        }
        if let Some(origin) = self.origins.get(&moved.id) {
            return Arc::clone(origin);
        }
        let first = self.store.as_ref().and_then(|store| store.life(moved.id, 0, 1).ok());
        let first = first.and_then(|page| page.rows.into_iter().next());
        self.remember(moved.id, first.as_ref().map(Origin::of_row).unwrap_or_default())
    }

    /// A message is in the store or here: what is forgotten here can be looked up there.
    fn remember(&mut self, id: MessageId, origin: Origin) -> Arc<Origin> {
        if self.origins.len() >= ORIGINS_MAX {
            self.commit(Keep::Shown);
            self.origins.clear();
        }
        let origin = Arc::new(origin);
        self.origins.insert(id, Arc::clone(&origin));
        origin
    }

    fn commit_what_is_due(&mut self) {
        let now = Instant::now();
        let is_past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if now >= self.sweep_due {
            self.sweep_due = now + SWEEP;
            if self.store.is_some() {
                self.keep_due = Some(now);
            }
        }
        if is_past(self.keep_due) {
            self.commit(Keep::OnDisk);
        } else if is_past(self.show_due) {
            self.commit(Keep::Shown);
        }
    }

    /// Takes in what was told, if there is something to do.
    fn commit(&mut self, keep: Keep) {
        let is_needed = !self.batch.is_empty() || (keep == Keep::OnDisk && self.keep_due.is_some());
        if !is_needed {
            return;
        }
        self.show_due = None;
        if keep == Keep::OnDisk {
            self.keep_due = None;
        }
        let batch = std::mem::take(&mut self.batch);
        if self.may_write() {
            return self.write(&batch, keep);
        }
        self.lose(batch.len() as u64);
        if keep == Keep::OnDisk && self.unsynced > 0 {
            self.write(&[], keep); // what was shown when there was room
        }
    }

    /// Whether there is a store, and room for more.
    fn may_write(&mut self) -> bool {
        let may_try = self.outage.as_ref().is_none_or(|outage| outage.tried_at.elapsed() >= self.options.try_again);
        if !may_try {
            return false;
        }
        match self.room() {
            Ok(()) => self.open(),
            Err(why) => {
                self.stop_writing(&why);
                false
            }
        }
    }

    fn write(&mut self, batch: &[(MessageId, StepRow)], keep: Keep) {
        let Some(store) = &mut self.store else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(self.options.retention);
        let bounds = Bounds { since: WallMillis(millis(since)), bytes_max: self.options.bytes_max };
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        match store.commit(batch, micros, bounds, keep) {
            Ok(more) => {
                let count = batch.len() as u64;
                self.unsynced = if keep == Keep::Shown { self.unsynced + count } else { 0 };
                self.committed(count);
                if more {
                    self.keep_due = Some(Instant::now());
                }
            }
            Err(error) => {
                self.break_off(&error);
                self.lose(batch.len() as u64);
            }
        }
    }

    fn committed(&mut self, count: u64) {
        let Some(store) = &self.store else { return };
        let ((steps, bytes), figures) = (store.size(), &self.recording.figures);
        figures.kept.fetch_add(count, Ordering::Relaxed);
        figures.steps.store(steps, Ordering::Relaxed);
        figures.bytes.store(bytes, Ordering::Relaxed);
        self.recording.show(store.position());
        if count > 0
            && let Some(Outage { lost, .. }) = self.outage.take()
        {
            tracing::info!(lost, "the history of messages is kept again");
        }
    }

    fn lose(&mut self, count: u64) {
        self.recording.figures.lost.fetch_add(count, Ordering::Relaxed);
        if let Some(outage) = &mut self.outage {
            outage.lost += count;
        }
    }

    /// Who only asks makes no file, and needs no room.
    fn open_what_is_there(&mut self) {
        if self.options.path.as_deref().is_some_and(Path::exists) {
            self.open();
        }
    }

    /// Opens the file, if that was not done, or if it is time to try again. Whether it is open.
    fn open(&mut self) -> bool {
        let may_try = self.unopened_at.is_none_or(|at| at.elapsed() >= self.options.try_again);
        if self.store.is_some() || !may_try {
            return self.store.is_some();
        }
        match self.opened() {
            Ok(store) => {
                self.recording.show(store.position());
                self.store = Some(store);
                self.unopened_at = None;
            }
            Err(error) => {
                self.unopened_at = Some(Instant::now());
                self.break_off(&error);
            }
        }
        self.store.is_some()
    }

    fn opened(&self) -> Result<Store, StoreError> {
        let Some(path) = &self.options.path else { return Store::with_backend(InMemoryBackend::new()) };
        match Store::open(path) {
            Err(error) if error.is_unusable() => {
                let aside = path.with_extension("unusable");
                tracing::warn!(%error, aside = %aside.display(), "the history of messages can't be read: it begins anew");
                std::fs::rename(path, aside).map_err(|error| StoreError::from(redb::Error::Io(error)))?;
                Store::open(path)
            }
            opened => opened,
        }
    }

    /// Whether the disk has room for more.
    fn room(&self) -> Result<(), String> {
        let Some(directory) = self.options.path.as_deref().and_then(Path::parent) else { return Ok(()) };
        match rustix::fs::statvfs(directory) {
            Ok(disk) if disk.f_bavail.saturating_mul(disk.f_frsize) < self.options.free_bytes_min => {
                Err("the disk has less room than storage.free_bytes_min".into())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// After an error nothing of a store can be relied upon: the next one is made of what is on disk. What was shown and is not
    /// there is lost, though it was counted as kept.
    fn break_off(&mut self, error: &StoreError) {
        self.store = None;
        self.stop_writing(&error.to_string());
        let unsynced = std::mem::take(&mut self.unsynced);
        self.lose(unsynced);
    }

    /// One line for each outage, not for each step.
    fn stop_writing(&mut self, why: &str) {
        let outage = self.outage.get_or_insert_with(|| {
            tracing::warn!(why, "the history of messages stops for now: steps are lost, messages are not");
            Outage { tried_at: Instant::now(), lost: 0 }
        });
        outage.tried_at = Instant::now();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use postroad_base::{Published, Qos, ReceiptLevel, ShardId, TopicName};

    use super::*;

    fn options(path: Option<PathBuf>) -> HistoryOptions {
        HistoryOptions {
            path,
            retention: Duration::from_secs(3600),
            bytes_max: 1 << 20,
            free_bytes_min: 0,
            try_again: Duration::ZERO,
        }
    }

    fn moved(id: u128, step: Step) -> Box<Moved> {
        let at = WallMillis(millis(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")));
        let receipt = Some(ReceiptLevel::Acknowledged);
        let topic = TopicName::new("t/1").expect("a topic");
        Box::new(Moved { id: MessageId(id), topic, at, shard: ShardId(0), to: None, receipt, is_kept: true, step })
    }

    fn published(user: &str) -> Step {
        Step::Published(Box::new(Published {
            by: Some("truck-7".into()),
            user: Some(user.into()),
            qos: Qos::AtLeastOnce,
            bytes: 5,
            original: None,
        }))
    }

    fn steps(page: &Page) -> Vec<&str> {
        page.rows.iter().map(|row| row.step.as_str()).collect()
    }

    /// Blocks on one question.
    fn ask<T>(question: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(question)
    }

    fn life(history: &History, id: u128) -> Result<Page, NoHistory> {
        ask(history.life(MessageId(id), 0, 100))
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_told_before_a_question_is_in_its_answer_and_survives() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.redb");
        let (recorder, recording, history) = history(100, PATIENCE);
        let thread = recording.start(options(Some(path.clone()))).expect("a thread");
        assert_eq!(life(&history, 1).expect("it answers").rows, []);
        assert!(!path.exists(), "who follows nothing has no file");
        recorder.tell(moved(1, published("anna")));
        recorder.tell(moved(1, Step::Stored { matched: true }));
        let page = life(&history, 1).expect("it answers");
        assert_eq!(steps(&page), ["published", "stored"]);
        assert_eq!((page.rows[1].user.as_deref(), page.rows[1].topic.as_str()), (Some("anna"), "t/1"));
        history.stop();
        thread.join().expect("it ends when it is asked to");

        let (recorder, recording, history) = super::history(100, PATIENCE);
        let thread = recording.start(options(Some(path))).expect("a thread");
        recorder.tell(moved(1, Step::Acknowledged { attempts: 1 }));
        let page = life(&history, 1).expect("it answers");
        assert_eq!(steps(&page), ["published", "stored", "acknowledged"]);
        assert_eq!(page.rows[2].user.as_deref(), Some("anna"), "its publication is looked up");
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    #[test]
    fn a_full_queue_drops_steps_and_nobody_waits() {
        let (recorder, recording, history) = history(2, PATIENCE);
        (0..5).for_each(|_| recorder.tell(moved(1, Step::Queued)));
        assert_eq!(history.figures.read().dropped, 3);
        let thread = recording.start(options(None)).expect("a thread");
        assert_eq!(life(&history, 1).expect("it answers").rows.len(), 2);
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    #[test]
    fn a_disk_without_room_stops_the_history_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (recorder, recording, history) = history(100, PATIENCE);
        let full = HistoryOptions { free_bytes_min: u64::MAX, ..options(Some(directory.path().join("history.redb"))) };
        let thread = recording.start(full).expect("a thread");
        recorder.tell(moved(1, Step::Queued));
        assert_eq!(life(&history, 1), Err(NoHistory));
        assert_eq!(history.figures.read(), HistoryFigures { lost: 1, ..HistoryFigures::default() });
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    /// It was shut, and stayed so until there was room again.
    #[test]
    fn what_is_kept_can_be_read_on_a_disk_without_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.redb");
        let (_, recording, _) = history(100, PATIENCE);
        let mut keeper = Keeper::new(recording, options(Some(path.clone())));
        keeper.step(&moved(1, published("anna")));
        keeper.commit(Keep::Shown);
        keeper.options.free_bytes_min = u64::MAX; // the disk fills up while the file is open
        keeper.step(&moved(1, Step::Queued));
        keeper.commit(Keep::OnDisk);
        assert_eq!((keeper.recording.figures.read().kept, keeper.recording.figures.read().lost), (1, 1));
        assert!(keeper.store.is_some() && keeper.unsynced == 0, "what was shown is on disk");
        drop(keeper);

        let (recorder, recording, history) = history(100, PATIENCE);
        let full = HistoryOptions { free_bytes_min: u64::MAX, ..options(Some(path)) };
        let thread = recording.start(full).expect("a thread");
        recorder.tell(moved(1, Step::Queued));
        assert_eq!(steps(&life(&history, 1).expect("it can be read")), ["published"]);
        assert_eq!(history.figures.read().lost, 1);
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    /// They were counted as kept, and as lost by nobody.
    #[test]
    fn what_was_shown_and_does_not_get_to_the_disk_is_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, recording, _) = history(100, PATIENCE);
        let mut keeper = Keeper::new(recording, options(Some(directory.path().join("history.redb"))));
        keeper.step(&moved(1, published("anna")));
        keeper.commit(Keep::OnDisk);
        keeper.step(&moved(1, Step::Queued));
        keeper.step(&moved(1, Step::Stored { matched: true }));
        keeper.commit(Keep::Shown);
        keeper.break_off(&StoreError::Version(7));
        keeper.break_off(&StoreError::Version(7));
        let figures = keeper.recording.figures.read();
        assert_eq!((figures.kept, figures.lost), (3, 2));
    }

    /// Nothing is let go of without room, so it was shown for as long as the disk was full.
    #[test]
    fn what_is_too_old_is_not_shown_on_a_disk_without_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, recording, _) = history(100, PATIENCE);
        let mut keeper = Keeper::new(recording, options(Some(directory.path().join("history.redb"))));
        keeper.step(&moved(1, published("anna")));
        keeper.commit(Keep::OnDisk);
        keeper.options.free_bytes_min = u64::MAX;
        let position = *keeper.recording.newest.borrow();
        let shown = |keeper: &mut Keeper| {
            let ((life, of_life), (behind, of_behind)) = (flume::bounded(1), flume::bounded(1));
            let wanted = Box::new(Wanted { message: Some(MessageId(1)), ..Wanted::default() });
            keeper.take(Order::Life { id: MessageId(1), after: 0, limit: 9, answer: life });
            keeper.take(Order::Behind { after: Some(0), wanted, limit: 9, answer: behind });
            [of_life, of_behind].map(|answer| answer.try_recv().expect("an answer").expect("it can be read"))
        };
        assert_eq!(shown(&mut keeper).map(|page| page.upto), [position; 2]);
        keeper.options.retention = Duration::ZERO;
        let none = Page { upto: position, ..Page::default() };
        assert_eq!(shown(&mut keeper), [none.clone(), none]);
    }

    /// It was opened again by the next step alone, and there may be none for hours.
    #[test]
    fn a_question_opens_what_could_not_be_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, aside) = (directory.path().join("history.redb"), directory.path().join("aside"));
        let (_, recording, _) = history(100, PATIENCE);
        let mut keeper = Keeper::new(recording, options(Some(path.clone())));
        keeper.step(&moved(1, published("anna")));
        keeper.commit(Keep::OnDisk);
        drop(keeper);
        std::fs::rename(&path, &aside).expect("it is there");
        std::fs::create_dir(&path).expect("the name is free");

        let (_, recording, history) = history(100, PATIENCE);
        let thread = recording.start(options(Some(path.clone()))).expect("a thread");
        assert_eq!(life(&history, 1), Err(NoHistory));
        std::fs::remove_dir(&path).expect("it is empty");
        std::fs::rename(&aside, &path).expect("the name is free");
        assert_eq!(steps(&life(&history, 1).expect("it is readable again")), ["published"]);
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    /// Those of what was not stored yet were forgotten with the others: nobody saw whose the next steps were.
    #[test]
    fn whose_a_message_is_is_known_however_many_there_are() {
        let (_, recording, _) = history(1, PATIENCE);
        let mut keeper = Keeper::new(recording, options(None));
        keeper.origins.extend((1..ORIGINS_MAX as u128).map(|id| (MessageId(id), Arc::default())));
        let last = ORIGINS_MAX as u128;
        keeper.step(&moved(last, published("anna")));
        keeper.step(&moved(last + 1, published("bert")));
        keeper.step(&moved(last, Step::Stored { matched: true }));
        let (id, row) = keeper.batch.last().expect("it is not stored yet");
        assert_eq!((*id, row.user.as_deref()), (MessageId(last), Some("anna")));
    }

    /// One that looked at 10,000 rows held up all others, and what was told meanwhile was dropped.
    #[test]
    fn a_question_looks_at_so_many_rows_and_no_more() {
        let (recorder, recording, history) = history(2 * LOOKS_MAX, PATIENCE);
        (0..=LOOKS_MAX).for_each(|_| recorder.tell(moved(1, Step::Stored { matched: true })));
        let thread = recording.start(options(None)).expect("a thread");
        let dead = Wanted { level: Some(ReceiptLevel::Dead), ..Wanted::default() };
        let first = ask(history.behind(Some(0), dead.clone(), 10)).expect("it answers");
        assert_eq!((first.rows.len(), first.more), (0, true));
        let second = ask(history.behind(Some(first.upto), dead, 10)).expect("it answers");
        assert_eq!((second.more, second.upto), (false, *history.newest.borrow()));
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    /// A reader that came before the file was open began with the oldest.
    #[test]
    fn behind_nothing_is_where_all_is_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.redb");
        let (_, recording, _) = history(100, PATIENCE);
        let mut keeper = Keeper::new(recording, options(Some(path.clone())));
        keeper.step(&moved(1, published("anna")));
        keeper.commit(Keep::OnDisk);
        let newest = *keeper.recording.newest.borrow();
        drop(keeper);
        let (_, recording, history) = history(100, PATIENCE);
        let early = std::thread::spawn({
            let history = history.clone();
            move || ask(history.behind(None, Wanted::default(), 10))
        });
        let thread = recording.start(options(Some(path))).expect("a thread");
        let page = early.join().expect("it asks").expect("it answers");
        assert_eq!((page.rows.len(), page.upto), (0, newest));
        assert_ne!(newest, 0);
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    #[test]
    fn a_file_that_is_none_is_set_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.redb");
        std::fs::write(&path, "not a database".repeat(1000)).expect("it has room");
        let (recorder, recording, history) = history(100, PATIENCE);
        let thread = recording.start(options(Some(path.clone()))).expect("a thread");
        recorder.tell(moved(1, Step::Queued));
        assert_eq!(steps(&life(&history, 1).expect("it answers")), ["queued"]);
        assert!(path.with_extension("unusable").exists());
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }

    #[test]
    fn readers_hear_of_what_is_new() {
        let (recorder, recording, mut history) = history(100, PATIENCE);
        let thread = recording.start(options(None)).expect("a thread");
        recorder.tell(moved(1, Step::Stored { matched: true }));
        ask(history.newest.changed()).expect("the thread runs");
        let after = *history.newest.borrow();
        let page = ask(history.behind(Some(0), Wanted::default(), 10)).expect("it answers");
        assert_eq!((steps(&page), page.upto), (vec!["stored"], after));
        assert_eq!(ask(history.behind(Some(after), Wanted::default(), 10)).expect("it answers").rows, []);
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }
}
