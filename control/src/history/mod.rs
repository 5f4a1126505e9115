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
//! - A disk that is full or broken stops the history alone: steps are lost and counted until it can be written again.
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
/// Time between two tries to write to a disk that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Time between two looks for what is too old.
const SWEEP: Duration = Duration::from_secs(60);
/// Steps of one commit.
const BATCH_MAX: usize = 4096;
/// Messages whose publication is remembered, so that it need not be looked up for each of their steps.
const ORIGINS_MAX: usize = 65_536;
/// Rows that one question looks at: others wait for it.
const LOOKS_MAX: usize = 10_000;

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
    /// Steps that could not be written.
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
    Behind { after: u64, wanted: Box<Wanted>, limit: usize, answer: Answer },
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

    /// Steps behind this position that are wanted.
    pub async fn behind(&self, after: u64, wanted: Wanted, limit: usize) -> Result<Page, NoHistory> {
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
        let keeper = Keeper {
            recording: self,
            options,
            store: None,
            batch: Vec::new(),
            origins: std::collections::HashMap::new(),
            show_due: None,
            keep_due: None,
            sweep_due: Instant::now() + SWEEP,
            failed: None,
        };
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
    /// When it could not be written, or read; and how many steps were lost since.
    failed: Option<(Instant, u64)>,
}

impl Keeper {
    fn run(mut self) {
        if self.options.path.as_deref().is_some_and(Path::exists) {
            self.open();
        }
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
                self.answer(&answer, |store| store.life(id, after, limit));
            }
            Order::Behind { after, wanted, limit, answer } => {
                self.commit(Keep::Shown);
                self.answer(&answer, |store| store.behind(after, &wanted, limit, LOOKS_MAX));
            }
            Order::Stop => unreachable!("the loop ends with it"),
        }
    }

    fn answer(&mut self, answer: &Answer, read: impl FnOnce(&Store) -> Result<Page, StoreError>) {
        let page = match (&self.store, self.failed) {
            (Some(store), _) => read(store),
            (None, None) => Ok(Page::default()), // nothing was ever told
            (None, Some(_)) => {
                let _gone = answer.try_send(None);
                return;
            }
        };
        let _gone = answer.try_send(page.map_err(|error| self.fail(&error)).ok());
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

    fn remember(&mut self, id: MessageId, origin: Origin) -> Arc<Origin> {
        if self.origins.len() >= ORIGINS_MAX {
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
        self.open();
        let count = batch.len() as u64;
        let Some(store) = &mut self.store else { return self.lose(count) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(self.options.retention);
        let bounds = Bounds { since: WallMillis(millis(since)), bytes_max: self.options.bytes_max };
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        match store.commit(&batch, micros, bounds, keep) {
            Ok(more) => {
                self.committed(count);
                if more {
                    self.keep_due = Some(Instant::now());
                }
            }
            Err(error) => {
                self.fail(&error);
                self.lose(count);
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
    }

    fn lose(&mut self, count: u64) {
        self.recording.figures.lost.fetch_add(count, Ordering::Relaxed);
        if let Some((_, lost)) = &mut self.failed {
            *lost += count;
        }
    }

    /// Opens the file, if that was not done, or if it is time to try again.
    fn open(&mut self) {
        let may_try = self.failed.is_none_or(|(since, _)| since.elapsed() >= TRY_AGAIN);
        if let (Some(_), Err(why)) = (&self.store, self.room()) {
            self.stop_writing(&why);
            return;
        }
        if self.store.is_some() || !may_try {
            return;
        }
        if let Err(why) = self.room() {
            return self.stop_writing(&why);
        }
        match self.opened() {
            Ok(store) => {
                if let Some((_, lost)) = self.failed.take() {
                    tracing::info!(lost, "the history of messages is kept again");
                }
                self.recording.show(store.position());
                self.store = Some(store);
            }
            Err(error) => self.fail(&error),
        }
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

    fn fail(&mut self, error: &StoreError) {
        self.stop_writing(&error.to_string());
    }

    /// One line for each outage, not for each step.
    fn stop_writing(&mut self, why: &str) {
        self.store = None;
        let (_, lost) = self.failed.take().unwrap_or_else(|| {
            tracing::warn!(why, "the history of messages stops for now: steps are lost, messages are not");
            (Instant::now(), 0)
        });
        self.failed = Some((Instant::now(), lost));
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
        HistoryOptions { path, retention: Duration::from_secs(3600), bytes_max: 1 << 20, free_bytes_min: 0 }
    }

    fn moved(id: u128, step: Step) -> Box<Moved> {
        let at = WallMillis(millis(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")));
        let receipt = Some(ReceiptLevel::Acknowledged);
        let topic = TopicName::new("t/1").expect("a topic");
        Box::new(Moved { id: MessageId(id), topic, at, shard: ShardId(0), client: None, receipt, is_kept: true, step })
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
        let page = ask(history.behind(0, Wanted::default(), 10)).expect("it answers");
        assert_eq!((steps(&page), page.upto), (vec!["stored"], after));
        assert_eq!(ask(history.behind(after, Wanted::default(), 10)).expect("it answers").rows, []);
        history.stop();
        thread.join().expect("it ends when it is asked to");
    }
}
