//! The young generation against power cuts, damage and recycling.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod support;

use std::collections::BTreeSet;

use postroad_base::{Record, Sequence};
use postroad_storage::log::{Damage, FaultyDirectory, Log, MemoryDirectory, SegmentLog, Sync};
use postroad_storage::old::Covered;
use postroad_storage::young::{
    BLOCK_BYTES, LogId, Position, RecoverError, Retired, SegmentDirectory, SegmentNumber, Writer, WriterConfig, check,
    recover, repair,
};
use proptest::prelude::*;
use support::{publish, queue};

const LOG: LogId = LogId(0x1122_3344_5566_7788);

/// Small segments, so that tests see many.
fn config() -> WriterConfig {
    WriterConfig {
        log: LOG,
        segment_bytes: 8 * BLOCK_BYTES,
        commit_bytes_max: 5 * BLOCK_BYTES as usize,
        free_segments_max: 4,
    }
}

fn record(n: u64, bytes: usize) -> Record {
    publish(n, bytes, &[queue(1, 2)])
}

type Replayed = Vec<(Sequence, Record)>;

fn recovered(files: &mut dyn SegmentDirectory, covered: u64) -> Result<(Replayed, Position, bool), RecoverError> {
    let mut replayed = Vec::new();
    let result = recover(files, LOG, Sequence(covered), &mut |sequence, record| replayed.push((sequence, record)))?;
    assert_eq!(result.records, replayed.len() as u64);
    Ok((replayed, result.position, result.torn.is_some()))
}

fn open<D: SegmentDirectory>(files: D) -> SegmentLog<D> {
    SegmentLog::open(files, config(), Sequence(0), Sync::Data, &mut |_, _| {}).unwrap().0
}

/// Commits of these many records of these sizes; what was written and where each commit ended.
fn fill<D: SegmentDirectory>(log: &mut SegmentLog<D>, commits: &[&[usize]]) -> (Replayed, Vec<u64>) {
    let mut written = Vec::new();
    let mut ends = Vec::new();
    for sizes in commits {
        for size in *sizes {
            let record = record(log.last_sequence().0 + 1, *size);
            let sequence = log.append(&record);
            written.push((sequence, record));
        }
        ends.push(log.commit().unwrap().0);
    }
    (written, ends)
}

#[test]
fn what_was_committed_comes_back_in_order_and_the_log_goes_on() {
    let mut log = open(MemoryDirectory::default());
    let (mut written, _) = fill(&mut log, &[&[10], &[5000, 20, 9000], &[30_000], &[60_000], &[1; 300]]);
    let mut log = open(log.into_files());
    assert_eq!(log.last_sequence(), Sequence(written.len() as u64));
    written.extend(fill(&mut log, &[&[7, 7], &[20_000]]).0);
    let (replayed, position, torn) = recovered(&mut log.into_files(), 0).unwrap();
    assert_eq!(replayed, written);
    assert_eq!((position.next(), torn), (Sequence(written.len() as u64 + 1), false));
}

#[test]
fn commits_are_whole_blocks_in_one_segment_and_gather_while_one_is_in_flight() {
    let mut writer = Writer::new(config(), Position::fresh(Sequence(1)));
    assert!(writer.begin_commit().is_none());
    writer.append(&record(1, 10));
    let first = writer.begin_commit().unwrap();
    assert_eq!((first.offset, first.bytes.len() as u64, first.new_segment), (0, BLOCK_BYTES, true));
    assert_eq!(writer.append(&record(2, 10)), Sequence(2));
    assert!(writer.has_pending() && writer.begin_commit().is_none(), "one commit in flight");
    writer.finish_commit(first);
    let second = writer.begin_commit().unwrap();
    assert_eq!((second.offset, second.new_segment, second.last), (BLOCK_BYTES, false, Sequence(2)));
    writer.finish_commit(second);
    assert_eq!((writer.window_bytes(), writer.pending_bytes()), (2 * BLOCK_BYTES, 0));
}

#[test]
fn a_large_gathering_is_split_and_an_oversized_record_gets_a_segment_that_is_removed() {
    let mut writer = Writer::new(config(), Position::fresh(Sequence(1)));
    for n in 0..10 {
        writer.append(&record(n, 6000));
    }
    writer.append(&record(10, 100_000));
    let mut commits = Vec::new();
    while let Some(commit) = writer.begin_commit() {
        assert!(commit.offset + commit.bytes.len() as u64 <= commit.file_bytes);
        commits.push((commit.segment, commit.bytes.len(), commit.last, commit.file_bytes));
        writer.finish_commit(commit);
    }
    assert!(commits.len() >= 4, "{commits:?}");
    assert_eq!(commits.last().unwrap().2, Sequence(11));
    assert!(commits.last().unwrap().3 > config().segment_bytes);
    writer.seal();
    let mut fates = Vec::new();
    while let Some((segment, _)) = writer.oldest_segment_last_sequence() {
        fates.push(writer.retire(segment));
    }
    assert_eq!(fates.pop(), Some(Retired::Remove));
    assert!(fates.iter().all(|fate| *fate == Retired::Recycled), "{fates:?}");
    assert_eq!(writer.window_bytes(), 0);
}

/// Every page that the last, unsynced commit consists of, missing alone and with any of the others: the synced
/// commits are there, the torn one is not, in whole or in part.
#[test]
fn each_page_of_the_unsynced_tail_missing() {
    let mut log = open(FaultyDirectory::default());
    let (written, _) = fill(&mut log, &[&[100], &[5000, 5000], &[100]]);
    let mut files = log.into_files();
    let syncs = files.syncs();
    // The next commit of four pages: written, the power goes before its sync.
    let (_, position, _) = recovered(&mut files, 0).unwrap();
    let mut writer = Writer::new(config(), position);
    let tail = record(99, 13_000);
    writer.append(&tail);
    let commit = writer.begin_commit().unwrap();
    if commit.new_segment {
        files.prepare(commit.segment, commit.file_bytes).unwrap();
    }
    files.write(commit.segment, commit.offset, &commit.bytes).unwrap();
    assert!(files.syncs() > syncs);
    let pages = files.unsynced_pages().len();
    assert_eq!(pages, 4);
    for missing in 0..1_u32 << pages {
        let missing: BTreeSet<usize> = (0..pages).filter(|page| missing & 1 << page != 0).collect();
        let mut after = files.power_cut(&Damage::Forget(missing.clone()));
        let (replayed, ..) = recovered(&mut after, 0).unwrap();
        let expected = if missing.is_empty() {
            [written.clone(), vec![(commit.last, tail.clone())]].concat()
        } else {
            written.clone()
        };
        assert_eq!(replayed, expected, "missing {missing:?}");
        // It goes on, and what was cut does not come back.
        let mut log = open(after);
        let (more, _) = fill(&mut log, &[&[50], &[60]]);
        assert_eq!(recovered(&mut log.into_files(), 0).unwrap().0, [expected, more].concat());
    }
}

/// The power goes at the n-th sync, for every n, and of what was not synced nothing, everything, or any one page less
/// arrives: all that `commit` reported is there, in order, and then at most whole commits of what was on its way.
#[test]
fn the_power_goes_at_every_sync() {
    let commits: Vec<Vec<usize>> = (0..24).map(|n| vec![100 + n * 700; 1 + n % 4]).collect();
    for cut_at in 1.. {
        // Sync number 0 is that of the opening, before which there is nothing.
        let files = FaultyDirectory::cut_at_sync(cut_at);
        let mut log = SegmentLog::open(files, config(), Sequence(0), Sync::Data, &mut |_, _| {}).unwrap().0;
        let (mut written, mut safe, mut poisoned) = (Vec::new(), Sequence(0), false);
        for sizes in &commits {
            for size in sizes {
                let record = record(log.last_sequence().0 + 1, *size);
                written.push((log.append(&record), record));
            }
            match log.commit() {
                Ok(upto) => safe = upto,
                Err(_) => {
                    poisoned = true;
                    assert!(log.commit().is_err(), "a poisoned log stays poisoned");
                    break;
                }
            }
        }
        let files = log.into_files();
        let pages = files.unsynced_pages().len();
        let single = (0..pages).map(|page| Damage::Forget(BTreeSet::from([page])));
        for damage in [Damage::ForgetAll, Damage::KeepAll].into_iter().chain(single) {
            let (replayed, ..) = recovered(&mut files.power_cut(&damage), 0).unwrap();
            assert!(replayed.len() as u64 >= safe.0, "cut at {cut_at}, {damage:?}: {} of {safe:?}", replayed.len());
            assert_eq!(replayed, written[..replayed.len()]);
        }
        if !poisoned {
            assert!(cut_at > 24);
            return;
        }
    }
}

/// What recovery has handed out, a second power cut can't take back.
#[test]
fn what_was_replayed_is_synced() {
    let mut log =
        SegmentLog::open(FaultyDirectory::default(), config(), Sequence(0), Sync::Never, &mut |_, _| {}).unwrap().0;
    let (written, _) = fill(&mut log, &[&[100], &[20_000], &[20_000]]);
    let mut files = log.into_files();
    assert!(!files.unsynced_pages().is_empty());
    assert_eq!(recovered(&mut files, 0).unwrap().0, written);
    assert!(files.unsynced_pages().is_empty());
    assert_eq!(recovered(&mut files.power_cut(&Damage::ForgetAll), 0).unwrap().0, written);
}

fn flip(files: &MemoryDirectory, segment: SegmentNumber, byte: usize, bit: u8) -> MemoryDirectory {
    let mut files = files.clone();
    files.files.get_mut(&segment).unwrap()[byte] ^= 1 << bit;
    files
}

/// One flipped bit anywhere: the log is whole, or recovery refuses, or only the very last commit is taken for a torn tail.
/// Never a wrong record, never a hole.
#[test]
fn a_flipped_bit_anywhere_is_harmless_or_detected() {
    let mut log = open(MemoryDirectory::default());
    let (written, ends) = fill(&mut log, &[&[100], &[3000, 3000], &[9000], &[10; 20], &[16_000], &[50]]);
    let files = log.into_files();
    let before_last = ends[ends.len() - 2] as usize;
    let (mut refused, mut cut) = (0, 0);
    for (segment, bytes) in &files.files {
        // Every bit of the headers, and one bit of each 61st byte.
        for byte in (0..bytes.len()).filter(|byte| byte % 4096 < 48 || byte % 61 == 0) {
            for bit in if byte % 4096 < 48 { 0..8 } else { (byte % 8) as u8..(byte % 8) as u8 + 1 } {
                match recovered(&mut flip(&files, *segment, byte, bit), 0) {
                    Ok((replayed, ..)) if replayed == written => {}
                    Ok((replayed, ..)) => {
                        assert_eq!(replayed, written[..before_last], "segment {segment:?} byte {byte} bit {bit}");
                        cut += 1;
                    }
                    Err(RecoverError::Gap { .. } | RecoverError::Overlap { .. }) => refused += 1,
                    Err(other) => panic!("segment {segment:?} byte {byte} bit {bit}: {other}"),
                }
            }
        }
    }
    assert!(refused > 100 && cut > 10, "{refused} refused, {cut} cut");
}

/// Retires all that can be and says what that covers.
fn retire_all<D: SegmentDirectory>(log: &mut SegmentLog<D>) -> u64 {
    let mut covered = 0;
    while let Some((segment, last)) = log.oldest() {
        covered = last.0;
        log.retire(segment).unwrap();
    }
    covered
}

#[test]
fn recycled_segments_show_only_their_new_life() {
    let mut log = open(MemoryDirectory::default());
    let mut covered = 0;
    let mut written = Vec::new();
    for round in 0..30 {
        let (more, _) = fill(&mut log, &[&[3000 + round * 10, 100], &[5000], &[12_000]]);
        written.extend(more);
        if round % 3 == 0 {
            covered = retire_all(&mut log).max(covered);
        }
        let expected: Vec<_> = written.iter().filter(|(sequence, _)| sequence.0 > covered).cloned().collect();
        let mut files = log.into_files();
        assert_eq!(recovered(&mut files, covered).unwrap().0, expected);
        log = SegmentLog::open(files, config(), Sequence(covered), Sync::Data, &mut |_, _| {}).unwrap().0;
    }
    assert!(log.into_files().files.len() < 12, "segments are used again");
}

/// Bytes of another log with the same sequences, say of a copied file, are not seen.
#[test]
fn commits_of_another_log_are_not_seen() {
    let mut log = open(MemoryDirectory::default());
    fill(&mut log, &[&[100], &[200], &[300]]);
    let mut files = log.into_files();
    let result = recover(&mut files, LogId(1), Sequence(0), &mut |_, _| panic!("not ours")).unwrap();
    assert_eq!(result.position.next(), Sequence(1));
}

#[test]
fn a_lost_segment_is_refused_and_repair_keeps_what_it_cuts() {
    let mut log = open(MemoryDirectory::default());
    let (written, _) = fill(&mut log, &[&[20_000], &[20_000], &[20_000], &[20_000]]);
    let mut files = log.into_files();
    assert!(files.files.len() >= 3, "{:?}", files.list());
    let lost = *files.files.keys().nth(1).unwrap();
    files.files.insert(lost, vec![0; config().segment_bytes as usize]);
    let error = recovered(&mut files, 0).unwrap_err();
    assert!(matches!(error, RecoverError::Gap { missing: 2, beyond: 4, .. }), "{error}");
    assert!(error.to_string().contains("00000000.seg offset 20480"), "{error}");

    let report = check(&files, LOG, Sequence(0)).unwrap();
    assert!(!report.is_sound());
    assert_eq!((report.commits, report.records, report.last, report.cut.len()), (1, 1, Sequence(1), 2));
    let before = files.files.clone();
    let mut kept = Vec::new();
    repair(&mut files, LOG, Sequence(0), &mut |segment, bytes| {
        kept.push((segment, bytes.to_vec()));
        Ok(())
    })
    .unwrap();
    assert!(!kept.is_empty() && kept.iter().all(|(segment, bytes)| before[segment] == *bytes));
    assert!(check(&files, LOG, Sequence(0)).unwrap().is_sound());
    assert_eq!(recovered(&mut files, 0).unwrap().0, written[..1]);
    // What was cut stays cut when the log reaches its sequences again.
    let mut log = open(files);
    fill(&mut log, &[&[10]]);
    assert_eq!(recovered(&mut log.into_files(), 0).unwrap().0.len(), 2);
}

#[test]
fn without_the_covered_records_the_log_does_not_open() {
    let mut log = open(MemoryDirectory::default());
    for _ in 0..6 {
        fill(&mut log, &[&[20_000]]);
    }
    let (segment, covered) = log.oldest().unwrap();
    log.retire(segment).unwrap();
    let mut files = log.into_files();
    files.files.insert(segment, vec![0; 4096]);
    assert!(recovered(&mut files, covered.0).is_ok());
    assert!(matches!(recovered(&mut files, covered.0 - 1), Err(RecoverError::Gap { missing: 1, .. })));
}

/// With `durability = "os"` the synced old generation may have seen records that a power cut took from the young one: their
/// sequences are not given again, and the skip is no gap.
#[test]
fn sequences_that_the_old_generation_has_seen_are_not_given_again() {
    let mut log = open(MemoryDirectory::default());
    let (mut written, _) = fill(&mut log, &[&[100], &[100, 200]]);
    let covered = Covered { as_of: Sequence(7), upto: Sequence(1) };
    let reopen = |files| SegmentLog::open(files, config(), covered, Sync::Data, &mut |_, _| {}).unwrap().0;
    let mut log = reopen(log.into_files());
    assert_eq!(log.last_sequence(), Sequence(7));
    written.extend(fill(&mut log, &[&[10], &[20, 30]]).0);
    assert_eq!(written[3].0, Sequence(8));
    let mut files = reopen(log.into_files()).into_files();
    for upto in [0, 1, 2, 3, 5, 7, 8] {
        let expected: Vec<_> = written.iter().filter(|(sequence, _)| sequence.0 > upto).cloned().collect();
        assert_eq!(recovered(&mut files, upto).unwrap().0, expected);
    }
    // A commit lost in front of the skip is still found out.
    let first = files.files.values_mut().next().unwrap();
    first[BLOCK_BYTES as usize + 100] ^= 1;
    assert!(matches!(recovered(&mut files, 1), Err(RecoverError::Gap { missing: 2, beyond: 10, .. })));
}

#[test]
fn a_newer_format_is_refused() {
    let mut log = open(MemoryDirectory::default());
    fill(&mut log, &[&[100]]);
    let mut files = log.into_files();
    let segment = files.files.values_mut().next().unwrap();
    segment[4] = 2;
    segment[8..12].fill(0);
    let body = u32::from_le_bytes(segment[36..40].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&segment[..48 + body]);
    segment[8..12].copy_from_slice(&crc.to_le_bytes());
    let error = recovered(&mut files, 0).unwrap_err();
    assert!(matches!(error, RecoverError::Newer { version: 2, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random sizes, restarts and retirements, a power cut that forgets any set of unsynced pages: what was reported safe
    /// comes back, what comes back is what was written.
    #[test]
    fn random_lives_of_a_log(
        steps in prop::collection::vec((prop::collection::vec(0_usize..9000, 1..5), 0_u8..8), 1..25),
        forget in any::<u64>(),
        cut_at in 5_usize..60,
    ) {
        let files = FaultyDirectory::cut_at_sync(cut_at);
        let mut log = SegmentLog::open(files, config(), Sequence(0), Sync::Data, &mut |_, _| {}).unwrap().0;
        let (mut written, mut safe, mut covered) = (Vec::new(), 0, 0);
        for (sizes, action) in &steps {
            for size in sizes {
                let record = record(log.last_sequence().0 + 1, *size);
                written.push((log.append(&record), record));
            }
            let Ok(upto) = log.commit() else { break };
            safe = upto.0;
            if *action == 0 {
                covered = retire_all(&mut log).max(covered);
            }
        }
        let files = log.into_files();
        let missing = (0..files.unsynced_pages().len()).filter(|page| forget & 1 << (page % 64) != 0).collect();
        let (replayed, ..) = recovered(&mut files.power_cut(&Damage::Forget(missing)), covered).unwrap();
        prop_assert!(covered + replayed.len() as u64 >= safe);
        prop_assert_eq!(&replayed[..], &written[covered as usize..covered as usize + replayed.len()]);
    }
}

/// A process was killed between making a segment and syncing its directory. Its successor finds the file whole, hence
/// free, and wrote into it without ever syncing the name: a power cut took the file with commits that were confirmed.
#[test]
fn a_file_that_a_killed_process_left_has_a_name_that_stays() {
    let mut files = FaultyDirectory::default();
    files.prepare_without_name(SegmentNumber(0), config().segment_bytes).unwrap();
    let mut log = open(files);
    let (written, _) = fill(&mut log, &[&[100]]);
    let mut disk = log.into_files().power_cut(&Damage::ForgetAll);
    assert_eq!(recovered(&mut disk, 0).unwrap().0, written);
}

/// Found by the fuzz target `recovery`: the first commit is damaged, and a copy of it, which is whole, stands behind the last one. What opened
/// with it went on behind the last one, so its next commit overwrote the copy, and the log never opened again.
#[test]
fn a_commit_that_stands_behind_later_ones_is_not_overwritten() {
    let mut log = open(MemoryDirectory::default());
    let (written, _) = fill(&mut log, &[&[100], &[100], &[100]]);
    let mut files = log.into_files();
    let block = BLOCK_BYTES as usize;
    let segment = files.files.values_mut().next().unwrap();
    segment.copy_within(0..block, 2 * block);
    segment[60] ^= 1;
    let (replayed, position, _) = recovered(&mut files, 0).unwrap();
    assert_eq!(replayed, written[..2]);
    let mut log = SegmentLog::open(files, config(), Sequence(0), Sync::Data, &mut |_, _| {}).unwrap().0;
    assert_eq!(position.next(), Sequence(3));
    let (more, _) = fill(&mut log, &[&[50]]);
    let (replayed, ..) = recovered(&mut log.into_files(), 0).unwrap();
    assert_eq!(replayed, [&written[..2], &more].concat());
}

fn writer(position: Position) -> Writer {
    Writer::new(config(), position)
}

/// The next file is made while the one before it is written, and no commit but the first of an empty log needs one made.
#[test]
fn files_are_wanted_ahead_of_need() {
    let bytes = config().segment_bytes;
    let mut writer = writer(Position::fresh(Sequence(1)));
    assert!(!writer.has_room());
    let first = writer.spare_wanted().unwrap();
    assert_eq!(first, (SegmentNumber(0), bytes));
    assert_eq!(writer.spare_wanted(), None, "one at a time");
    writer.spare_ready(first.0);
    assert!(writer.has_room());
    let mut made = vec![first.0];
    for n in 1..100 {
        if let Some((number, _)) = writer.spare_wanted() {
            made.push(number);
            writer.spare_ready(number);
        }
        writer.append(&record(n, 4 * BLOCK_BYTES as usize));
        let commit = writer.begin_commit().unwrap();
        assert!(!commit.new_segment && made.contains(&commit.segment), "commit {n} waits for nobody");
        writer.finish_commit(commit);
    }
}

/// A file that was half made when the process was killed is finished first; one that is too short is not counted as room.
#[test]
fn a_short_file_is_finished_before_it_is_used() {
    let mut files = MemoryDirectory::default();
    files.prepare(SegmentNumber(3), BLOCK_BYTES).unwrap();
    let (_, position, _) = recovered(&mut files, 0).unwrap();
    let mut writer = writer(position);
    assert!(!writer.has_room());
    assert_eq!(writer.spare_wanted(), Some((SegmentNumber(3), config().segment_bytes)));
    writer.append(&record(1, 10));
    let commit = writer.begin_commit().unwrap();
    assert!(commit.new_segment && commit.segment != SegmentNumber(3), "it can't wait, and takes another one");
    writer.finish_commit(commit);
    writer.spare_ready(SegmentNumber(3));
    assert!(writer.has_room());
}
