//! The I/O of one shard's log. Where bytes go is decided by `storage`; here they are written.
//!
//! ```text
//! Effect::Append ─► Writer ─(one commit at a time)─► Carrier: io_uring write, fdatasync ─► Committed
//! Retire ─► broker ─► Ingest ─► worker thread: old generation ─► Ingested, segment recycled
//! ReadBacklog ────────────────► worker thread ────────────────► Backlog
//! ```
//! - While one commit is on its way to the disk, the next gathers: the disk sets the pace, nobody waits for
//!   a batch to fill.
//! - The file of the next segment is made ahead of need: a commit waits for it only if it is larger than a
//!   segment, or if segments fill faster than the worker makes them.
//! - The young generation is bounded: see [`ShardLog::is_held`].
//! - A write or sync that fails poisons the log: the shard stops acknowledging, the process ends with an
//!   error, and recovery reads what the disk really has. It is never tried again: after a failed fsync the
//!   kernel may say "done" about pages that it has dropped.

mod carrier;
mod ring;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use postroad_base::{MonoMillis, Now, QueueId, Record, Sequence};
use postroad_broker::api::{BacklogEntry, Event, Retirement};
use postroad_control::LogReport;
use postroad_storage::young::{Commit, Retired, SegmentDirectory, SegmentNumber, Writer};

use crate::shard::{Order, Shard};

pub(crate) use carrier::Carrier;
use carrier::{Carried, in_segment};
pub(crate) use ring::probe as probe_ring;
use worker::FileWork;
pub(crate) use worker::Worker;

/// What the worker has done.
pub(crate) enum WorkDone {
    Ingested {
        old_bytes: u64,
    },
    Backlog {
        queue: QueueId,
        entries: Vec<BacklogEntry>,
        end: bool,
    },
    /// A segment is ready to be written.
    Prepared(SegmentNumber),
    /// There was no room for it.
    Unprepared(SegmentNumber, io::Error),
    Failed(String),
}

/// What a shard's log is made of.
pub(crate) struct ShardLog {
    writer: Writer,
    worker: Worker,
    carrier: Carrier,
    /// The data directory, whose disk is watched.
    pub(crate) data_dir: PathBuf,
    young_bytes: u64,
    young_age_millis: u64,
    /// Segments in use, in order, with the time of their first commit.
    ages: VecDeque<(SegmentNumber, MonoMillis)>,
    /// Recovery is over, see [`ShardLog::recovered`].
    may_retire: bool,
    /// The last of the segments that the broker was asked to let go.
    retiring: Option<SegmentNumber>,
    /// Their contents are with the worker, which needs nothing more of this log to finish.
    ingesting: bool,
    /// The commit in flight, while its file is made: it is larger than a segment, or segments fill faster than they are made.
    without_file: Option<Commit>,
    disk_full: bool,
    /// What the broker was told last of [`ShardLog::is_pressed`].
    pressed: bool,
    /// A spare could not be made: it is tried again a second later, not with each commit.
    spare_failed: bool,
    figures: LogReport,
}

/// What [`ShardLog::new`] needs to know.
pub(crate) struct LogOptions {
    pub(crate) data_dir: PathBuf,
    pub(crate) young_bytes: u64,
    pub(crate) young_age_millis: u64,
    /// When the log was opened: recovered segments count as that old.
    pub(crate) opened: MonoMillis,
}

impl ShardLog {
    /// Its first commit finds a file that is ready, unless `writer` has none: see [`make_first_segment`].
    pub(crate) fn new(writer: Writer, worker: Worker, carrier: Carrier, options: LogOptions) -> Self {
        let LogOptions { data_dir, young_bytes, young_age_millis, opened } = options;
        // What was recovered is as old as this run. Not older: it would be let go while clients are coming back for it.
        let ages = writer.segments().map(|segment| (segment, opened)).collect();
        Self {
            writer,
            worker,
            carrier,
            data_dir,
            young_bytes,
            young_age_millis,
            ages,
            may_retire: false,
            retiring: None,
            ingesting: false,
            without_file: None,
            disk_full: false,
            pressed: false,
            spare_failed: false,
            figures: LogReport::default(),
        }
    }

    /// All shards have told which QoS 2 messages may be repeated. Before that every one in the young log would have to be
    /// remembered when its segment goes.
    pub(crate) fn recovered(&mut self) {
        self.may_retire = true;
    }

    /// Whether everything appended is safe.
    pub(crate) fn is_idle(&self) -> bool {
        self.writer.is_idle()
    }

    /// Readable when a commit may have reached the disk.
    pub(crate) fn descriptor(&self) -> impl AsFd {
        self.carrier.descriptor()
    }

    /// The figures for a report.
    pub(crate) fn report(&self) -> LogReport {
        LogReport { young_bytes: self.writer.window_bytes(), ..self.figures.clone() }
    }

    /// Whether commits wait for the old generation, which does not keep up: publishers get their answers when it has
    /// taken in what it is busy with, and those with a window stop sending.
    ///
    /// The bound: a commit begins only below twice `log.young_bytes`, or before the worker has what it is to take in,
    /// since that leaves only after all that was appended before it. So the window never holds more than twice
    /// `log.young_bytes`, what was gathered while it was that large, one commit, and what the broker appends while it puts a
    /// batch together: a record for four pieces of what had changed, in each of four rounds at most.
    ///
    /// What is published later stops before that ([`ShardLog::is_pressed`]): else who publishes now would wait for it.
    fn is_held(&self) -> bool {
        self.ingesting && self.writer.window_bytes() >= 2 * self.young_bytes
    }

    /// Whether the old generation is busy and there is work for it again when it is done.
    fn is_pressed(&self) -> bool {
        self.retiring.is_some() && self.writer.window_bytes() >= self.young_bytes
    }

    /// What to write next; `None` if nothing is pending or the log is held.
    fn begin_commit(&mut self, now: Now) -> Option<Commit> {
        if self.is_held() {
            return None;
        }
        let commit = self.writer.begin_commit()?;
        if self.ages.back().is_none_or(|(segment, _)| *segment != commit.segment) {
            self.ages.push_back((commit.segment, now.mono));
        }
        Some(commit)
    }

    /// Lets the worker make the next segment's file, if there is none. What room is left on a full disk is for the
    /// acknowledgements that go on.
    fn prepare_ahead(&mut self) {
        if self.disk_full || self.spare_failed {
            return;
        }
        if let Some((segment, bytes)) = self.writer.spare_wanted() {
            self.worker.files(FileWork::Prepare(segment, bytes));
        }
    }

    /// Begins to write the next commit, if there is one and none is under way.
    fn carry(&mut self, now: Now) -> io::Result<()> {
        let Some(commit) = self.begin_commit(now) else { return Ok(()) };
        if commit.new_segment {
            self.worker.files(FileWork::Prepare(commit.segment, commit.file_bytes));
            self.without_file = Some(commit);
        } else {
            self.write(commit)?;
        }
        self.prepare_ahead(); // behind the file that somebody waits for
        Ok(())
    }

    fn write(&mut self, commit: Commit) -> io::Result<()> {
        if let Some(before) = self.carrier.begin(commit)? {
            self.worker.files(FileWork::Close(before)); // not here: one that was deleted is truncated by it
        }
        Ok(())
    }

    /// A file is made: that of the commit that waits for it, or a spare.
    fn prepared(&mut self, segment: SegmentNumber) -> io::Result<()> {
        if let Some(commit) = self.without_file.take_if(|commit| commit.segment == segment) {
            return self.write(commit);
        }
        self.writer.spare_ready(segment);
        self.prepare_ahead();
        Ok(())
    }

    /// There was no room for a file: a spare is made later, a commit fails.
    fn unprepared(&mut self, segment: SegmentNumber, error: io::Error) -> io::Result<()> {
        if self.without_file.as_ref().is_some_and(|commit| commit.segment == segment) {
            return Err(in_segment(segment, &error));
        }
        tracing::warn!(segment = %segment.file_name(), %error, "a segment can't be made ahead of need now");
        self.writer.spare_failed(segment);
        self.spare_failed = true;
        Ok(())
    }

    /// A second later there may be room.
    fn prepare_again(&mut self) {
        self.spare_failed = false;
        self.prepare_ahead();
    }

    fn finish_commit(&mut self, commit: Commit) {
        self.figures.commits += 1;
        self.figures.bytes += commit.bytes.len() as u64;
        self.writer.finish_commit(commit);
    }

    /// The segments that it is time to let go, too many bytes or too old, named by the last of them and the last record
    /// in it. All at once: each retirement costs a round trip through broker, commit and worker, and one segment per
    /// round trip fell behind a burst (seen: 218 MB with a bound of 64).
    fn due_for_retirement(&mut self, now: Now) -> Option<(SegmentNumber, Sequence)> {
        if !self.may_retire || self.retiring.is_some() || self.writer.window_bytes() == 0 {
            return None;
        }
        let is_old = |since: &MonoMillis| now.mono.since(*since) >= self.young_age_millis;
        let old = self.ages.iter().take_while(|(_, since)| is_old(since)).count();
        // The one that is written to goes too, if it is old.
        if old > 0 && old >= self.ages.len() {
            self.writer.seal();
        }
        let mut left = self.writer.window_bytes();
        let mut due = None;
        for (index, (segment, last, bytes)) in self.writer.closed_segments().enumerate() {
            if index >= old && left <= self.young_bytes {
                break;
            }
            left -= bytes;
            due = Some((segment, last));
        }
        due
    }

    /// The old generation covers the segments that were let go.
    fn retired(&mut self) {
        self.ingesting = false;
        let Some(last) = self.retiring.take() else { return };
        let gone: Vec<_> = self.writer.closed_segments().map(|(segment, ..)| segment).collect();
        let count = gone.iter().position(|segment| *segment == last).map_or(0, |place| place + 1);
        for segment in &gone[..count] {
            if self.ages.front().is_some_and(|(oldest, _)| oldest == segment) {
                self.ages.pop_front();
            }
            if self.writer.retire(*segment) == Retired::Remove {
                self.worker.files(FileWork::Remove(*segment));
            }
        }
    }
}

impl Shard {
    /// A record for the log.
    pub(crate) fn append(&mut self, record: &Record) {
        if let Some(log) = &mut self.log {
            log.writer.append(record);
            log.figures.records += 1;
        }
    }

    pub(crate) fn ingest(&mut self, batch: Box<Retirement>) {
        if let Some(log) = &mut self.log {
            log.ingesting = true;
            log.worker.ingest(batch);
        }
    }

    pub(crate) fn read_backlog(&mut self, queue: QueueId, after: Sequence, messages_max: usize, bytes_max: usize) {
        if let Some(log) = &self.log {
            log.worker.read(worker::Read { queue, after, messages_max, bytes_max });
        }
    }

    pub(crate) fn work_done(&mut self, done: WorkDone) {
        match done {
            WorkDone::Ingested { old_bytes } => {
                if let Some(log) = &mut self.log {
                    log.figures.old_bytes = old_bytes;
                    log.retired();
                }
                self.handle(Event::Ingested);
                self.drain_effects();
                self.retire_if_due();
                self.watch_disk();
            }
            WorkDone::Backlog { queue, entries, end } => {
                self.handle(Event::Backlog { queue, entries, end });
                self.drain_effects();
            }
            WorkDone::Prepared(segment) => {
                self.with_disk(|log| log.prepared(segment));
                self.watch_disk();
            }
            WorkDone::Unprepared(segment, error) => {
                self.with_disk(|log| log.unprepared(segment, error));
                self.watch_disk();
            }
            WorkDone::Failed(reason) => self.poison(reason),
        }
    }

    /// Lets the oldest segment go if it is time.
    pub(crate) fn retire_if_due(&mut self) {
        let now = self.now;
        let Some(log) = &mut self.log else { return };
        let Some((segment, upto)) = log.due_for_retirement(now) else { return };
        log.retiring = Some(segment);
        self.handle(Event::Retire { upto });
        self.drain_effects();
    }

    /// Once a second: segments that have grown old, room on the disk, and a spare that could not be made.
    pub(crate) fn housekeeping(&mut self) {
        self.retire_if_due();
        self.watch_disk();
        if let Some(log) = &mut self.log {
            log.prepare_again();
        }
    }

    /// Also at the start, and whenever files were made: a second is long, a disk may fill up within it.
    pub(crate) fn watch_disk(&mut self) {
        let least = self.live.config.storage_free_bytes_min;
        let Some(log) = &mut self.log else { return };
        let full = match postroad_storage::space::free_bytes(&log.data_dir) {
            Ok(free) => free < least,
            Err(error) => {
                tracing::warn!(shard = self.id.0, %error, "can't ask for the room on the disk");
                return;
            }
        };
        if std::mem::replace(&mut log.disk_full, full) != full {
            tracing::warn!(shard = self.id.0, full, least, "free room on the disk crossed storage.free_bytes_min");
            self.handle(Event::DiskFull { full });
        }
    }

    /// Does something with the log's disk, unless the shard has stopped; what fails there poisons the log.
    fn with_disk<T>(&mut self, act: impl FnOnce(&mut ShardLog) -> io::Result<T>) -> Option<T> {
        if self.is_stopped() {
            return None;
        }
        match act(self.log.as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.poison(error.to_string());
                None
            }
        }
    }

    /// Begins to write what is gathered, unless a commit is under way: at the end of each turn.
    pub(crate) fn carry_commit(&mut self) {
        self.tell_pressure();
        let now = self.now;
        self.with_disk(|log| log.carry(now));
    }

    fn tell_pressure(&mut self) {
        let Some(log) = &mut self.log else { return };
        let pressed = log.is_pressed();
        if std::mem::replace(&mut log.pressed, pressed) != pressed {
            self.handle(Event::LogPressed { pressed });
        }
    }

    /// The disk has something to say: what waited for the commit goes out.
    pub(crate) fn commit_ended(&mut self) {
        let finished = self.with_disk(|log| log.carrier.finished()).flatten();
        let Some(Carried { commit, micros }) = finished else { return };
        let upto = commit.last;
        let Some(log) = &mut self.log else { return };
        log.figures.commit.observe(micros);
        log.finish_commit(commit);
        self.handle(Event::Committed { upto });
        self.drain_effects();
        self.retire_if_due();
    }
}

/// Makes the file that the first commit is written to, if there is none with room. Blocks: before the doors open.
///
/// # Errors
/// As the file system says.
pub(crate) fn make_first_segment(writer: &mut Writer, files: &mut dyn SegmentDirectory) -> std::io::Result<()> {
    if !writer.has_room()
        && let Some((segment, bytes)) = writer.spare_wanted()
    {
        files.prepare(segment, bytes)?;
        writer.spare_ready(segment);
    }
    Ok(())
}

/// Puts what the worker has done where its shard finds it.
pub(crate) fn done(inbox: &crate::shard::Inbox, work: WorkDone) {
    inbox.order(Order::Work(work));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use postroad_base::{Message, MessageId, Qos, TopicName};
    use postroad_storage::young::{LogId, Position, WriterConfig};

    use super::*;

    const SEGMENT_BYTES: u64 = 64 << 10;
    const YOUNG_BYTES: u64 = 1 << 20;
    const YOUNG_AGE_MILLIS: u64 = 1_000;
    /// Bytes that a commit of [`Bench::commit`] takes.
    const COMMIT_BYTES: u64 = 16 << 10;

    /// A log whose disk and worker are the test's hands.
    struct Bench {
        log: ShardLog,
        files: flume::Receiver<FileWork>,
        now: Now,
        removed: usize,
    }

    impl Bench {
        fn new() -> Self {
            let config = WriterConfig::new(LogId(1), SEGMENT_BYTES, YOUNG_BYTES);
            Self::of(Writer::new(config, Position::fresh(Sequence(1))), MonoMillis(0))
        }

        fn of(writer: Writer, opened: MonoMillis) -> Self {
            let (worker, files) = Worker::by_hand();
            let options = LogOptions {
                data_dir: PathBuf::new(),
                young_bytes: YOUNG_BYTES,
                young_age_millis: YOUNG_AGE_MILLIS,
                opened,
            };
            let now = Now { mono: opened, ..Now::default() };
            let carrier = Carrier::new(PathBuf::new(), true).expect("a ring");
            let mut log = ShardLog::new(writer, worker, carrier, options);
            log.recovered();
            Self { log, files, now, removed: 0 }
        }

        fn append(&mut self) {
            let message = Message {
                id: MessageId(1),
                topic: TopicName::new("t").expect("a topic"),
                payload: Bytes::from(vec![0; COMMIT_BYTES as usize - 1_000]),
                properties: Bytes::new(),
                qos: Qos::AtLeastOnce,
                retain: false,
                expires_at: None,
                publisher: QueueId::NONE,
                extras: None,
            };
            self.log.writer.append(&Record::Retain { message: message.into() });
        }

        /// Writes the next commit; `None` if there is none. Files are made in no time.
        fn commit(&mut self) -> Option<Commit> {
            let commit = self.log.begin_commit(self.now)?;
            self.log.prepare_ahead();
            let shown = Commit { bytes: Vec::new(), ..commit };
            self.log.finish_commit(commit);
            for work in self.files.try_iter().collect::<Vec<_>>() {
                match work {
                    FileWork::Prepare(segment, _) => self.log.prepared(segment).expect("a spare"),
                    FileWork::Remove(_) => self.removed += 1,
                    FileWork::Close(_) => panic!("no file was opened"),
                }
            }
            Some(shown)
        }

        /// What the shard does after each commit: the broker answers at once, the worker gets it.
        fn retire_if_due(&mut self) {
            if let Some((segment, _)) = self.log.due_for_retirement(self.now) {
                self.log.retiring = Some(segment);
                self.log.ingesting = true;
            }
        }

        fn window(&self) -> u64 {
            self.log.writer.window_bytes()
        }
    }

    /// Seen with one segment per round trip: 218 MB of window where 64 were allowed. Here a round trip takes as long as
    /// 300 KB of commits, more than four segments, all the time.
    #[test]
    fn retirement_keeps_up_with_a_burst_whatever_a_round_trip_takes() {
        let mut bench = Bench::new();
        const ROUND_TRIP: u64 = 18;
        let mut highest = 0;
        for n in 0..5_000 {
            bench.append();
            bench.commit().expect("not held");
            bench.retire_if_due();
            highest = highest.max(bench.window());
            if n % ROUND_TRIP == 0 {
                bench.log.retired();
            }
        }
        let most = YOUNG_BYTES + 2 * ROUND_TRIP * COMMIT_BYTES + SEGMENT_BYTES;
        assert!(highest > YOUNG_BYTES && highest <= most, "{highest} bytes, {most} allowed");
    }

    /// The worker makes one file after the other, each with a sync.
    #[test]
    fn the_file_that_a_commit_waits_for_is_made_before_any_spare() {
        let mut bench = Bench::new();
        bench.append();
        bench.log.carry(bench.now).expect("waits for its file");
        let waiting = bench.log.without_file.as_ref().expect("there was no file").segment;
        let made: Vec<_> = bench.files.try_iter().collect();
        assert!(
            matches!(made[..], [FileWork::Prepare(first, _), FileWork::Prepare(spare, _)] if first == waiting && spare != waiting)
        );
        assert!(!bench.log.is_idle());
    }

    /// A disk without room, where nothing warned of it: each commit asked for a spare again, and each failure was a line of the log,
    /// some 700 of them in a second.
    #[test]
    fn a_spare_that_can_t_be_made_is_not_asked_for_with_each_commit() {
        let mut bench = Bench::new();
        bench.append();
        bench.log.carry(bench.now).expect("waits for its file");
        let commit = bench.log.without_file.take().expect("there was no file");
        bench.log.finish_commit(commit);
        let made: Vec<_> = bench.files.try_iter().collect();
        let [_, FileWork::Prepare(spare, _)] = made[..] else { panic!("no spare was asked for") };
        bench.log.unprepared(spare, io::ErrorKind::StorageFull.into()).expect("no commit waits for it");
        for _ in 0..3 {
            bench.log.prepare_ahead();
        }
        assert_eq!(bench.files.try_iter().count(), 0);
        bench.log.prepare_again();
        assert!(matches!(bench.files.try_iter().collect::<Vec<_>>()[..], [FileWork::Prepare(..)]));
    }

    /// The worker does nothing at all: commits stop at the bound, and go on when it has done its work.
    #[test]
    fn a_worker_that_stands_still_holds_the_commits() {
        let mut bench = Bench::new();
        let mut commits = 0;
        for _ in 0..1_000 {
            bench.append();
            commits += u64::from(bench.commit().is_some());
            bench.retire_if_due();
        }
        assert_eq!(bench.window(), 2 * YOUNG_BYTES, "the bound");
        assert_eq!(commits, 2 * YOUNG_BYTES / COMMIT_BYTES);
        assert!(!bench.log.is_idle(), "a drain waits for what is held");
        bench.log.retired();
        assert!(bench.window() < 2 * YOUNG_BYTES);
        let commit = bench.commit().expect("goes on");
        assert!(commit.last.0 > commits, "with all that was gathered meanwhile, as far as one commit takes it");
    }

    /// Until the batch has left the broker it waits for commits: they are not held, whatever the window.
    #[test]
    fn a_retirement_that_waits_for_commits_is_not_held_up_by_them() {
        let mut bench = Bench::new();
        bench.log.retiring = Some(SegmentNumber(0));
        for _ in 0..200 {
            bench.append();
            assert!(bench.commit().is_some());
        }
        assert!(bench.window() > 2 * YOUNG_BYTES);
    }

    /// The clock is that of the machine. Recovered segments counted as old as it, and were let go with the first commit,
    /// while clients came back for what is in them.
    #[test]
    fn what_was_recovered_is_as_old_as_this_run() {
        let mut before = Bench::new();
        before.append();
        before.commit().expect("written");
        let started = MonoMillis(5_000_000);
        let mut bench = Bench::of(before.log.writer, started);
        bench.append();
        bench.commit().expect("written");
        assert_eq!(bench.log.due_for_retirement(bench.now), None);
        bench.now.mono = started.after(YOUNG_AGE_MILLIS);
        assert!(bench.log.due_for_retirement(bench.now).is_some());
    }

    /// The commit of what recovery had written let segments go, whose QoS 2 messages publishers on other shards could
    /// repeat, as these had not told yet.
    #[test]
    fn nothing_is_let_go_before_all_shards_have_told_what_may_be_repeated() {
        let mut bench = Bench::new();
        bench.log.may_retire = false;
        while bench.window() <= 2 * YOUNG_BYTES {
            bench.append();
            bench.commit().expect("not held");
        }
        bench.now.mono = MonoMillis(YOUNG_AGE_MILLIS);
        assert_eq!(bench.log.due_for_retirement(bench.now), None, "large and old");
        bench.log.recovered();
        assert!(bench.log.due_for_retirement(bench.now).is_some());
    }

    #[test]
    fn what_is_old_is_let_go_together_and_the_files_are_used_again() {
        let mut bench = Bench::new();
        for _ in 0..12 {
            bench.append();
            bench.commit().expect("written");
        }
        assert_eq!(bench.log.due_for_retirement(bench.now), None, "neither large nor old");
        bench.now.mono = MonoMillis(YOUNG_AGE_MILLIS);
        bench.retire_if_due();
        bench.log.retired();
        assert_eq!((bench.window(), bench.log.ages.len()), (0, 0), "also the one that was written to");
        for _ in 0..12 {
            bench.append();
            let commit = bench.commit().expect("written");
            assert!(!commit.new_segment && commit.segment < SegmentNumber(6), "{:?}", commit.segment);
        }
        assert_eq!(bench.removed, 0);
    }
}
