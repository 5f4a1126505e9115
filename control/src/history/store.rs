//! The steps on disk: one file, two orders.
//!
//! ```text
//! steps       position ─► message, time, JSON     oldest first: for readers that go on, and for what is too old
//! by_message  (message, position)                 the life of one message
//! totals      name ─► number                      version of the format, rows, bytes
//! ```
//!
//! A commit takes in a batch and lets go of what is too old or too much, all of it or nothing. Shown is what a commit holds;
//! on disk it is with the next *kept* one. After a crash what came behind that is gone, and its positions are never given again:
//! they are times, too.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use postroad_base::{MessageId, WallMillis};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition,
};

use super::row::{StepRow, Wanted};

const STEPS: TableDefinition<'_, u64, (u128, u64, &[u8])> = TableDefinition::new("steps");
const BY_MESSAGE: TableDefinition<'_, (u128, u64), ()> = TableDefinition::new("by_message");
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
const VERSION: &str = "version";
const BYTES: &str = "bytes";

/// Of this format.
const VERSION_NOW: u64 = 1;
/// What a row takes beside its text: keys, time, and their places in two trees.
const ROW_BYTES: u64 = 128;
/// Rows that one commit lets go of at most.
const TRIM_MAX: usize = 4096;
/// Memory for pages.
const CACHE_BYTES: usize = 8 << 20;

/// Why a step can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The disk, or what is on it.
    #[error(transparent)]
    Disk(Box<redb::Error>),
    /// Written by another release.
    #[error("its format is {0}, not {VERSION_NOW}")]
    Version(u64),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Disk(Box::new(error.into()))
    }
}

impl StoreError {
    /// Whether the file is none that can be read, now or later.
    pub fn is_unusable(&self) -> bool {
        match self {
            Self::Version(_) => true,
            Self::Disk(error) => match &**error {
                redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
                // The file begins with something else.
                redb::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
                _ => false,
            },
        }
    }
}

/// What is kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Nothing from before that.
    pub since: WallMillis,
    /// Bytes of the rows.
    pub bytes_max: u64,
}

/// How a commit is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// For readers.
    Shown,
    /// On disk, with all that was shown before.
    OnDisk,
}

/// What a reader gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub rows: Vec<StepRow>,
    /// Everything up to here has been looked at.
    pub upto: u64,
    /// There may be more behind it.
    pub more: bool,
}

/// See the module head.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    position: u64,
    rows: u64,
    bytes: u64,
}

impl Store {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // It tells who talks to whom of what.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(redb::Error::Io)?;
        let mut builder = Database::builder();
        Self::begin(builder.set_cache_size(CACHE_BYTES).create(path)?)
    }

    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        Self::begin(builder.set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
    }

    /// Writes nothing to a file that has its tables: so one on a full disk can be read.
    fn begin(database: Database) -> Result<Self, StoreError> {
        match version_of(&database)? {
            Some(VERSION_NOW) => {}
            None => make(&database)?,
            Some(other) => return Err(StoreError::Version(other)),
        }
        let read = database.begin_read()?;
        let (totals, steps) = (read.open_table(TOTALS)?, read.open_table(STEPS)?);
        let position = steps.last()?.map_or(0, |(position, _)| position.value());
        let bytes = totals.get(BYTES)?.map_or(0, |bytes| bytes.value());
        Ok(Self { position, rows: steps.len()?, bytes, database })
    }

    /// Steps, and their bytes.
    pub fn size(&self) -> (u64, u64) {
        (self.rows, self.bytes)
    }

    /// The newest position.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes these in, in their order; `micros` is the time, in microseconds since 1970. Whether there is more to let go of.
    pub fn commit(
        &mut self,
        batch: &[(MessageId, StepRow)],
        micros: u64,
        bounds: Bounds,
        keep: Keep,
    ) -> Result<bool, StoreError> {
        let mut write = self.database.begin_write()?;
        write.set_durability(match keep {
            Keep::Shown => Durability::None,
            Keep::OnDisk => Durability::Immediate,
        })?;
        let (mut position, mut rows, mut bytes) = (self.position, self.rows, self.bytes);
        let mut more = false;
        {
            let mut steps = write.open_table(STEPS)?;
            let mut by_message = write.open_table(BY_MESSAGE)?;
            for (id, row) in batch {
                position = (position + 1).max(micros);
                let text = serde_json::to_vec(row).expect("texts and numbers");
                steps.insert(position, (id.0, row.at_unix_ms, text.as_slice()))?;
                by_message.insert((id.0, position), ())?;
                rows += 1;
                bytes += text.len() as u64 + ROW_BYTES;
            }
            let mut gone = 0;
            while let Some((first, id, at, size)) = oldest(&steps)? {
                if at >= bounds.since.0 && bytes <= bounds.bytes_max {
                    break;
                }
                if gone == TRIM_MAX {
                    more = true;
                    break;
                }
                steps.remove(first)?;
                by_message.remove((id, first))?;
                rows -= 1;
                bytes = bytes.saturating_sub(size);
                gone += 1;
            }
            write.open_table(TOTALS)?.insert(BYTES, bytes)?;
        }
        write.commit()?;
        (self.position, self.rows, self.bytes) = (position, rows, bytes);
        Ok(more)
    }

    /// The steps of a message behind this position, in the order in which they were told.
    pub fn life(&self, id: MessageId, after: u64, limit: usize) -> Result<Page, StoreError> {
        let read = self.database.begin_read()?;
        let (steps, by_message) = (read.open_table(STEPS)?, read.open_table(BY_MESSAGE)?);
        let mut page = Page { upto: after, ..Page::default() };
        for entry in by_message.range((id.0, after.saturating_add(1))..=(id.0, u64::MAX))? {
            let (_, position) = entry?.0.value();
            if page.rows.len() == limit {
                page.more = true;
                break;
            }
            page.upto = position;
            if let Some(value) = steps.get(position)? {
                page.rows.extend(row_of(position, value.value().2));
            }
        }
        Ok(page)
    }

    /// Steps behind this position that are wanted, at most so many, looking at no more than `looks`.
    pub fn behind(&self, after: u64, wanted: &Wanted, limit: usize, looks: usize) -> Result<Page, StoreError> {
        if let Some(id) = wanted.message {
            let mut page = self.life(id, after, limit)?;
            page.rows.retain(|row| wanted.fits(row));
            return Ok(page);
        }
        let read = self.database.begin_read()?;
        let steps = read.open_table(STEPS)?;
        let mut page = Page { upto: after, ..Page::default() };
        for (looked, entry) in steps.range(after.saturating_add(1)..)?.enumerate() {
            if looked == looks || page.rows.len() == limit {
                page.more = true;
                break;
            }
            let (position, value) = entry?;
            page.upto = position.value();
            page.rows.extend(row_of(page.upto, value.value().2).filter(|row| wanted.fits(row)));
        }
        Ok(page)
    }
}

/// `None`: it has no tables yet.
fn version_of(database: &Database) -> Result<Option<u64>, StoreError> {
    match database.begin_read()?.open_table(TOTALS) {
        Ok(totals) => Ok(totals.get(VERSION)?.map(|version| version.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn make(database: &Database) -> Result<(), StoreError> {
    let write = database.begin_write()?;
    write.open_table(TOTALS)?.insert(VERSION, VERSION_NOW)?;
    write.open_table(STEPS)?;
    write.open_table(BY_MESSAGE)?;
    Ok(write.commit()?)
}

/// Position, message, time and size of the oldest step.
fn oldest(steps: &redb::Table<'_, u64, (u128, u64, &[u8])>) -> Result<Option<(u64, u128, u64, u64)>, StoreError> {
    let Some((position, value)) = steps.first()? else { return Ok(None) };
    let (id, at, text) = value.value();
    Ok(Some((position.value(), id, at, text.len() as u64 + ROW_BYTES)))
}

/// What another release wrote and this one can't read is passed by.
fn row_of(position: u64, text: &[u8]) -> Option<StepRow> {
    let row: StepRow = serde_json::from_slice(text).ok()?;
    Some(StepRow { position, ..row })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use redb::backends::InMemoryBackend;

    use super::*;

    const ALL: Bounds = Bounds { since: WallMillis(0), bytes_max: u64::MAX };

    fn step(id: u128, at: u64, receipt: Option<&str>) -> (MessageId, StepRow) {
        let row = StepRow {
            message_id: format!("{id:032x}"),
            at_unix_ms: at,
            step: "queued".into(),
            receipt: receipt.map(str::to_owned),
            user: Some(format!("user-{id}")),
            ..StepRow::default()
        };
        (MessageId(id), row)
    }

    fn times(page: &Page) -> Vec<u64> {
        page.rows.iter().map(|row| row.at_unix_ms).collect()
    }

    #[test]
    fn the_life_of_a_message_is_found_among_others() {
        let mut store = Store::with_backend(InMemoryBackend::new()).expect("memory");
        let batch = [step(1, 10, None), step(2, 11, None), step(1, 12, None)];
        assert!(!store.commit(&batch, 1000, ALL, Keep::Shown).expect("memory"));
        store.commit(&[step(1, 13, None)], 1000, ALL, Keep::OnDisk).expect("memory");
        let page = store.life(MessageId(1), 0, 2).expect("memory");
        assert_eq!((times(&page), page.more), (vec![10, 12], true));
        let rest = store.life(MessageId(1), page.upto, 2).expect("memory");
        assert_eq!((times(&rest), rest.more), (vec![13], false));
        assert_eq!(store.life(MessageId(3), 0, 9).expect("memory").rows, []);
    }

    #[test]
    fn readers_go_on_where_they_were_and_see_what_they_may() {
        let mut store = Store::with_backend(InMemoryBackend::new()).expect("memory");
        let batch = [step(1, 1, Some("stored")), step(2, 2, Some("sent")), step(1, 3, None), step(1, 4, Some("sent"))];
        store.commit(&batch, 0, ALL, Keep::Shown).expect("memory");
        let read = |after, wanted: &Wanted, limit, looks| store.behind(after, wanted, limit, looks).expect("memory");
        let mine = Wanted { user: Some("user-1".into()), ..Wanted::default() };
        assert_eq!(times(&read(0, &Wanted::default(), 9, 9)), [1, 2, 4]);
        assert_eq!(times(&read(0, &mine, 9, 9)), [1, 4]);
        assert_eq!(times(&read(0, &Wanted { message: Some(MessageId(2)), ..mine.clone() }, 9, 9)), [0; 0]);
        let first = read(0, &mine, 1, 9);
        assert_eq!((times(&first), first.more), (vec![1], true));
        let second = read(first.upto, &mine, 1, 2);
        assert_eq!((times(&second), second.more), (vec![], true), "it has looked at two");
        let third = read(second.upto, &mine, 1, 2);
        assert_eq!((times(&third), third.more), (vec![4], false));
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_from_the_oldest_on() {
        let mut store = Store::with_backend(InMemoryBackend::new()).expect("memory");
        let batch: Vec<_> = (0..10).map(|at| step(at.into(), at, None)).collect();
        store.commit(&batch, 0, ALL, Keep::Shown).expect("memory");
        let old = Bounds { since: WallMillis(4), ..ALL };
        store.commit(&[], 0, old, Keep::Shown).expect("memory");
        assert_eq!(store.size().0, 6);
        let (_, bytes) = store.size();
        let half = Bounds { bytes_max: bytes / 2, ..ALL };
        store.commit(&[], 0, half, Keep::Shown).expect("memory");
        assert_eq!(store.size(), (3, bytes / 2));
        assert!(store.life(MessageId(6), 0, 9).expect("memory").rows.is_empty(), "both orders forget it");
        assert_eq!(store.life(MessageId(7), 0, 9).expect("memory").rows.len(), 1);
    }

    #[test]
    fn one_commit_lets_go_of_so_many() {
        let mut store = Store::with_backend(InMemoryBackend::new()).expect("memory");
        let batch: Vec<_> = (0..2 * TRIM_MAX as u64 + 1).map(|at| step(1, at, None)).collect();
        store.commit(&batch, 0, ALL, Keep::Shown).expect("memory");
        let none = Bounds { bytes_max: 0, ..ALL };
        let more: Vec<bool> = (0..3).map(|_| store.commit(&[], 0, none, Keep::Shown).expect("memory")).collect();
        assert_eq!((more, store.size()), (vec![true, true, false], (0, 0)));
    }

    /// A file of which nothing is synced that was not committed as kept, and which takes only so many bytes.
    #[derive(Clone, Debug)]
    struct Disk {
        file: Arc<std::sync::Mutex<(Vec<u8>, Vec<u8>)>>,
        room: Arc<AtomicU64>,
    }

    impl Disk {
        fn new(room: u64) -> Self {
            Self { file: Arc::default(), room: Arc::new(AtomicU64::new(room)) }
        }

        /// As after a power cut: what was not synced is gone.
        fn after_power_cut(&self) -> Self {
            let synced = self.file.lock().expect("one thread").1.clone();
            Self { file: Arc::new(std::sync::Mutex::new((synced.clone(), synced))), room: Arc::clone(&self.room) }
        }

        /// As after kill -9: what was written is there.
        fn after_kill(&self) -> Self {
            let written = self.file.lock().expect("one thread").0.clone();
            Self { file: Arc::new(std::sync::Mutex::new((written.clone(), written))), room: Arc::clone(&self.room) }
        }
    }

    fn full() -> std::io::Error {
        std::io::ErrorKind::StorageFull.into()
    }

    impl StorageBackend for Disk {
        fn len(&self) -> Result<u64, std::io::Error> {
            Ok(self.file.lock().expect("one thread").0.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            let file = self.file.lock().expect("one thread");
            let begin = offset as usize;
            out.copy_from_slice(&file.0[begin..begin + out.len()]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            if len > self.room.load(Ordering::Relaxed) {
                return Err(full());
            }
            self.file.lock().expect("one thread").0.resize(len as usize, 0);
            Ok(())
        }

        fn sync_data(&self) -> Result<(), std::io::Error> {
            let mut file = self.file.lock().expect("one thread");
            file.1 = file.0.clone();
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            let mut file = self.file.lock().expect("one thread");
            let begin = offset as usize;
            file.0[begin..begin + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    #[test]
    fn a_crash_takes_what_was_only_shown_and_no_position_comes_again() {
        let disk = Disk::new(u64::MAX);
        let mut store = Store::with_backend(disk.clone()).expect("it has room");
        store.commit(&[step(1, 1, None)], 1_000, ALL, Keep::OnDisk).expect("it has room");
        store.commit(&[step(1, 2, None)], 2_000, ALL, Keep::Shown).expect("it has room");
        let shown = store.position();
        for disk in [disk.after_kill(), disk.after_power_cut()] {
            let mut again = Store::with_backend(disk).expect("it is whole");
            let kept = times(&again.life(MessageId(1), 0, 9).expect("it is whole"));
            assert_eq!(kept, [1]);
            again.commit(&[step(1, 3, None)], 3_000, ALL, Keep::OnDisk).expect("it has room");
            assert!(again.position() > shown);
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_what_was_kept_stays() {
        let disk = Disk::new(u64::MAX);
        let mut store = Store::with_backend(disk.clone()).expect("it has room");
        store.commit(&[step(1, 1, None)], 1, ALL, Keep::OnDisk).expect("it has room");
        disk.room.store(disk.len().expect("memory"), Ordering::Relaxed);
        let many: Vec<_> = (0..20_000).map(|at| step(2, at, None)).collect();
        let failure = store.commit(&many, 1, ALL, Keep::OnDisk).expect_err("it has no room");
        assert!(!failure.is_unusable(), "{failure}");
        drop(store);
        let again = Store::with_backend(disk.clone()).expect("it can be read without room");
        assert_eq!(times(&again.life(MessageId(1), 0, 9).expect("it can be read without room")), [1]);
        drop(again);
        disk.room.store(u64::MAX, Ordering::Relaxed);
        let mut again = Store::with_backend(disk.after_kill()).expect("there is room again");
        assert_eq!(again.size().0, 1);
        again.commit(&many, 1, ALL, Keep::OnDisk).expect("there is room again");
        assert_eq!(again.size().0, 20_001);
    }

    #[test]
    fn another_format_is_none_that_can_be_read() {
        let disk = Disk::new(u64::MAX);
        let store = Store::with_backend(disk.clone()).expect("it has room");
        let write = store.database.begin_write().expect("it has room");
        write.open_table(TOTALS).expect("it has room").insert(VERSION, 77).expect("it has room");
        write.commit().expect("it has room");
        drop(store);
        let failure = Store::with_backend(disk).expect_err("it is of another release");
        assert!(failure.is_unusable(), "{failure}");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.redb");
        std::fs::write(&path, vec![7; 10_000]).expect("it has room");
        let failure = Store::open(&path).expect_err("it is no such file");
        assert!(failure.is_unusable(), "{failure:?}");
    }

    /// What is documented of `trace.bytes_max`, however long steps come and go.
    #[test]
    fn the_file_stays_within_twice_its_bound_and_what_a_batch_takes() {
        let disk = Disk::new(u64::MAX);
        let mut store = Store::with_backend(disk.clone()).expect("it has room");
        let bounds = Bounds { bytes_max: 2 << 20, ..ALL };
        for turn in 0..40_u64 {
            let batch: Vec<_> =
                (0..1000).map(|n| step(u128::from(turn * 1000 + n) << 64, turn, Some("sent"))).collect();
            let keep = if turn % 4 == 0 { Keep::OnDisk } else { Keep::Shown };
            let mut more = store.commit(&batch, turn, bounds, keep).expect("it has room");
            while more {
                more = store.commit(&[], turn, bounds, keep).expect("it has room");
            }
        }
        let file = disk.len().expect("memory");
        assert!(
            store.size().1 <= bounds.bytes_max && file <= 2 * bounds.bytes_max + (4 << 20),
            "{file} bytes, {:?}",
            store.size()
        );
    }
}
