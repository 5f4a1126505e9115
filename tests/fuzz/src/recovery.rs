//! Opening the young generation: a log of the writer's own that was torn and damaged, and files of any content.

use std::sync::Arc;

use bytes::Bytes;
use postroad_base::{Message, MessageId, Qos, QueueId, Record, Sequence, TopicName};
use postroad_storage::log::MemoryDirectory;
use postroad_storage::young::{
    BLOCK_BYTES, LogId, Position, Recovered, Retired, SegmentDirectory, SegmentNumber, Writer, WriterConfig, check,
    recover, repair,
};

use crate::input::Input;

const LOG: LogId = LogId(0x7E57);
const BLOCK: usize = BLOCK_BYTES as usize;
const HEADER: usize = 48;
const SEGMENT_BLOCKS: u64 = 3;
/// Steps of one life: enough for segments to be recycled a few times.
const STEPS_MAX: usize = 60;
const DAMAGE_MAX: usize = 6;

/// A life of a log, a crash, damage. What is opened then must be a beginning of what was written, whole commits only, and
/// must not hide that later commits are still there.
pub fn check_damaged(input: &[u8]) {
    let mut input = Input(input);
    let damages = input.below(DAMAGE_MAX);
    let mut life = Life::new();
    let steps = input.below(STEPS_MAX);
    for _ in 0..steps {
        life.step(&mut input);
    }
    life.crash(&mut input);
    let intact = life.files.clone();
    for _ in 0..damages {
        damage(&mut life.files, &mut input);
    }
    let is_damaged = life.files.files != intact.files;
    life.covered = Sequence(life.covered.0.max(life.first_covered(&mut input)));

    let said_sound = check(&life.files, LOG, life.covered).expect("files in memory can be read").is_sound();
    let mut files = life.files.clone();
    match open(&mut files, life.covered) {
        Some((recovered, records)) => {
            assert!(said_sound, "check refuses what recovery opens");
            life.assert_is_beginning(&records, !is_damaged);
            life.assert_nothing_left_behind(&records);
            assert_goes_on(&mut files, life.covered, recovered, &records);
        }
        None => {
            assert!(!said_sound, "recovery refuses what check finds sound");
            assert!(is_damaged, "a crash alone must never refuse a start");
            let mut kept = 0;
            let report = repair(&mut files, LOG, life.covered, &mut |_, bytes| {
                kept += bytes.len();
                Ok(())
            });
            assert!(!report.expect("files in memory can be repaired").cut.is_empty() && kept > 0);
            let (recovered, records) = open(&mut files, life.covered).expect("a repaired log opens");
            life.assert_is_beginning(&records, false);
            assert_goes_on(&mut files, life.covered, recovered, &records);
        }
    }
}

/// Files whose blocks the input wrote; those that it marks get a right magic, log id and checksum.
pub fn check_crafted(input: &[u8]) {
    let mut input = Input(input);
    let covered = Sequence(u64::from(input.byte()));
    let mut files = MemoryDirectory::default();
    for number in 0..1 + u32::from(input.byte() % 3) {
        let mut bytes = Vec::new();
        for _ in 0..input.byte() % 4 {
            bytes.extend_from_slice(&crafted_block(&mut input));
        }
        bytes.truncate(bytes.len() - bytes.len().min(usize::from(input.byte() % 4) * 50));
        files.files.insert(SegmentNumber(number), bytes);
    }
    let report = check(&files, LOG, covered);
    if let Some((recovered, records)) = open(&mut files, covered) {
        assert!(report.is_ok_and(|report| report.is_sound()), "check refuses what recovery opens");
        assert_goes_on(&mut files, covered, recovered, &records);
    }
}

fn crafted_block(input: &mut Input<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mark = input.byte();
    let (head, body) = block.split_at_mut(HEADER);
    head[0..4].copy_from_slice(b"PRC1");
    head[4..6].copy_from_slice(&u16::from(mark % 7 != 6).to_le_bytes());
    head[6..8].copy_from_slice(&(HEADER as u16).to_le_bytes());
    head[16..24].copy_from_slice(&LOG.0.to_le_bytes());
    let small = mark & 1 == 0;
    let mut number = || if small { u64::from(input.byte()) } else { u64::from_le_bytes(input.array()) };
    let (first, previous, records) = (number(), number(), number());
    head[24..32].copy_from_slice(&first.to_le_bytes());
    head[32..36].copy_from_slice(&(records as u32).to_le_bytes());
    head[40..48].copy_from_slice(&previous.to_le_bytes());
    let len = input.below(body.len());
    let content = input.slice(len);
    body[..content.len()].copy_from_slice(content);
    head[36..40].copy_from_slice(&(content.len() as u32).to_le_bytes());
    if mark & 2 == 0 {
        let crc = crc32c::crc32c(&block[..HEADER + content.len()]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    block
}

type Records = Vec<(Sequence, Record)>;

fn open(files: &mut MemoryDirectory, covered: Sequence) -> Option<(Recovered, Records)> {
    let mut records = Vec::new();
    let outcome = recover(files, LOG, covered, &mut |sequence, record| records.push((sequence, record)));
    let recovered = outcome.inspect_err(|error| assert!(!error.to_string().is_empty())).ok()?;
    assert_eq!(recovered.records, records.len() as u64);
    assert!(records.is_sorted_by(|a, b| a.0 < b.0), "sequences ascend");
    assert!(records.first().is_none_or(|first| first.0 > covered), "what is covered is not replayed");
    Some((recovered, records))
}

/// A second recovery finds the same and nothing torn; the log can be written on, and then holds the new record too.
fn assert_goes_on(files: &mut MemoryDirectory, covered: Sequence, recovered: Recovered, records: &Records) {
    let (again, same) = open(files, covered).expect("what opened once opens again");
    assert_eq!(&same, records);
    assert_eq!((again.torn, &again.position), (None, &recovered.position));

    let mut writer = Writer::new(config(), recovered.position);
    let record = retain(99, 10);
    let sequence = writer.append(&record);
    assert!(sequence > covered && records.last().is_none_or(|last| sequence > last.0), "no sequence is given twice");
    while let Some(commit) = writer.begin_commit() {
        if commit.new_segment {
            files.prepare(commit.segment, commit.file_bytes).expect("memory");
        }
        files.write(commit.segment, commit.offset, &commit.bytes).expect("a commit has room in its segment");
        writer.finish_commit(commit);
    }
    let (_, longer) = open(files, covered).expect("a log that was written on opens");
    assert_eq!(longer.split_last(), Some((&(sequence, record), &records[..])));
}

fn config() -> WriterConfig {
    WriterConfig { commit_bytes_max: 3000, ..WriterConfig::new(LOG, SEGMENT_BLOCKS * BLOCK_BYTES, 64 * 1024) }
}

/// No two blocks of payloads are alike: else a damage that copies one could put back what a crash took. No byte is 0: a
/// block that never reached the disk would read as if it had.
fn payload(number: u64, bytes: usize) -> Bytes {
    let noise = |index: u64| (number * 40_961 + index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    (0..bytes as u64).map(|index| noise(index) as u8 | 1).collect()
}

fn retain(number: u64, bytes: usize) -> Record {
    Record::Retain {
        message: Arc::new(Message {
            id: MessageId(u128::from(number)),
            topic: TopicName::new(format!("t/{number}")).expect("a topic name"),
            payload: payload(number, bytes),
            properties: Bytes::new(),
            qos: Qos::AtLeastOnce,
            retain: true,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        }),
    }
}

/// A commit as it was written: header and body, without the padding, which nothing protects.
struct Written {
    segment: SegmentNumber,
    offset: usize,
    bytes: Vec<u8>,
    last: Sequence,
}

/// A log with what is known of it.
struct Life {
    writer: Writer,
    files: MemoryDirectory,
    /// What was appended; the record of sequence n is at n - 1.
    records: Vec<Record>,
    /// Finished commits, in order.
    written: Vec<Written>,
    covered: Sequence,
}

impl Life {
    fn new() -> Self {
        Self {
            writer: Writer::new(config(), Position::fresh(Sequence(1))),
            files: MemoryDirectory::default(),
            records: Vec::new(),
            written: Vec::new(),
            covered: Sequence(0),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0..=3 => self.append(input),
            4 | 5 => while self.commit(&mut |_| true) {},
            6 => self.writer.seal(),
            _ => self.retire(),
        }
    }

    fn append(&mut self, input: &mut Input<'_>) {
        let record = retain(self.records.len() as u64, 1 + usize::from(input.byte()) * 40);
        let sequence = self.writer.append(&record);
        self.records.push(record);
        assert_eq!(sequence.0, self.records.len() as u64);
    }

    /// Writes the blocks that `reach` the disk of the next commit. Whether there was one.
    fn commit(&mut self, reach: &mut dyn FnMut(usize) -> bool) -> bool {
        let Some(commit) = self.writer.begin_commit() else { return false };
        if commit.new_segment {
            self.files.prepare(commit.segment, commit.file_bytes).expect("memory");
        }
        let mut is_whole = true;
        for (number, block) in commit.bytes.chunks(BLOCK).enumerate() {
            let at = commit.offset + (number * BLOCK) as u64;
            if reach(number) {
                self.files.write(commit.segment, at, block).expect("a commit has room in its segment");
            } else {
                is_whole = false;
            }
        }
        if is_whole {
            let body = u32::from_le_bytes(*commit.bytes[36..].first_chunk().expect("a header")) as usize;
            let offset = usize::try_from(commit.offset).expect("a small file");
            let bytes = commit.bytes[..HEADER + body].to_vec();
            self.written.push(Written { segment: commit.segment, offset, bytes, last: commit.last });
        }
        self.writer.finish_commit(commit);
        true
    }

    /// The old generation takes over what the oldest segment holds.
    fn retire(&mut self) {
        let Some((segment, last)) = self.writer.oldest_segment_last_sequence() else { return };
        self.covered = last;
        if self.writer.retire(segment) == Retired::Remove {
            self.files.remove(segment).expect("it was written");
        }
    }

    /// The process ends while a commit is being written: any of its blocks may be missing.
    fn crash(&mut self, input: &mut Input<'_>) {
        let reached = input.byte();
        self.commit(&mut |block| reached >> (block % 8) & 1 == 1);
    }

    fn last_written(&self) -> u64 {
        self.written.last().map_or(0, |commit| commit.last.0)
    }

    /// Somewhere up to the end of the log: what the old generation covers need not end with a commit.
    fn first_covered(&self, input: &mut Input<'_>) -> u64 {
        if input.byte() % 4 == 0 { input.below(self.last_written() as usize + 1) as u64 } else { 0 }
    }

    fn assert_is_beginning(&self, records: &Records, whole: bool) {
        for (index, (sequence, record)) in records.iter().enumerate() {
            assert_eq!(sequence.0, self.covered.0 + 1 + index as u64, "no gap");
            assert_eq!(self.records.get(sequence.0 as usize - 1), Some(record));
        }
        let last = self.covered.0 + records.len() as u64;
        assert!(last <= self.last_written().max(self.covered.0), "a commit that was not written whole is replayed");
        if whole {
            assert_eq!(last, self.last_written().max(self.covered.0), "a commit that was finished is lost");
        }
    }

    /// A commit that is still there, but not replayed, would be a silent loss.
    fn assert_nothing_left_behind(&self, records: &Records) {
        let last = self.covered.0 + records.len() as u64;
        for commit in self.written.iter().filter(|commit| commit.last.0 > last) {
            let file = self.files.files.get(&commit.segment).and_then(|file| file.get(commit.offset..));
            let is_there = file.is_some_and(|rest| rest.starts_with(&commit.bytes));
            assert!(!is_there, "the commit up to {:?} is whole, the log ends at {last}", commit.last);
        }
    }
}

/// One thing that may happen to a disk.
fn damage(files: &mut MemoryDirectory, input: &mut Input<'_>) {
    let kind = input.byte();
    let numbers: Vec<SegmentNumber> = files.files.keys().copied().collect();
    if numbers.is_empty() {
        return;
    }
    let number = numbers[input.below(numbers.len())];
    let bytes = files.files.get_mut(&number).expect("listed");
    let blocks = bytes.len() / BLOCK;
    if blocks == 0 {
        return;
    }
    let at = input.below(blocks) * BLOCK;
    match kind % 5 {
        0 => bytes[at + input.below(BLOCK)] ^= input.byte().max(1),
        1 => bytes[at..at + BLOCK].fill(0),
        2 => bytes.copy_within(at..at + BLOCK, input.below(blocks) * BLOCK),
        3 => bytes.truncate(at + input.below(BLOCK)),
        _ => drop(files.files.remove(&number)),
    }
}
