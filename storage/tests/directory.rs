//! The data directory: making, locking, versions, another number of shards.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use postroad_base::{
    ClientId, KeyedPublish, Message, MessageId, Outcome, Qos, QueueId, QueueOwner, ReasonCode, Recipient, Record,
    RegisteredBy, Sequence, SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter, TopicName, WallMillis,
};
use postroad_storage::directory::{DataDirectory, DirectoryError, DirectoryOptions};
use postroad_storage::record::{RecordError, decode, encode};
use support::{begin, inbound, keyed, life, message, publish, publish_once, queue, recipient, settle};
use tempfile::TempDir;

const ONE: DirectoryOptions = DirectoryOptions { shards: 1, partitions: 16 };

fn manifest_path(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("postroad.json")
}

#[test]
fn a_directory_is_made_once_and_keeps_its_key_and_partitions() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("data");
    let made = DataDirectory::open(&path, DirectoryOptions { shards: 2, partitions: 32 }).unwrap().manifest().clone();
    assert_eq!((made.shards(), made.partitions), (2, 32));
    assert_ne!(made.logs[0], made.logs[1]);
    let opened = DataDirectory::open(&path, DirectoryOptions { shards: 2, partitions: 256 }).unwrap();
    assert_eq!(*opened.manifest(), made);
    assert_eq!((opened.placement().partitions(), opened.placement().shards()), (32, 2));
}

#[test]
fn a_second_server_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let first = DataDirectory::open(directory.path(), ONE).unwrap();
    let error = DataDirectory::open(directory.path(), ONE).unwrap_err();
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    assert!(matches!(DataDirectory::open_existing(directory.path()), Err(DirectoryError::InUse { .. })));
    drop(first);
    DataDirectory::open_existing(directory.path()).unwrap();
}

#[test]
fn foreign_files_missing_directories_and_bad_numbers_are_refused() {
    let directory = TempDir::new().unwrap();
    let missing = DataDirectory::open_existing(&directory.path().join("none")).unwrap_err();
    assert!(matches!(missing, DirectoryError::Missing { .. }), "{missing}");
    let shards = DataDirectory::open(&directory.path().join("a"), DirectoryOptions { shards: 17, partitions: 16 });
    assert!(matches!(shards, Err(DirectoryError::Shards { shards: 17, partitions: 16 })));
    std::fs::write(directory.path().join("holiday.jpg"), b"x").unwrap();
    let foreign = DataDirectory::open(directory.path(), ONE).unwrap_err();
    assert!(matches!(foreign, DirectoryError::Foreign { .. }), "{foreign}");
}

/// A server with `durability = "memory"` makes no data directory, but its crash leaves a report. The next start may have
/// another durability.
#[test]
fn what_a_crash_has_left_is_not_foreign() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("crash.json"), b"{}").unwrap();
    std::fs::create_dir(directory.path().join("quarantine")).unwrap();
    DataDirectory::open(directory.path(), ONE).unwrap();
    assert!(directory.path().join("crash.json").exists());
}

#[test]
fn a_newer_format_is_refused_and_a_damaged_manifest_named() {
    let directory = TempDir::new().unwrap();
    drop(DataDirectory::open(directory.path(), ONE).unwrap());
    let text = std::fs::read_to_string(manifest_path(&directory)).unwrap();
    let refuse = |text: &str| {
        std::fs::write(manifest_path(&directory), text).unwrap();
        DataDirectory::open(directory.path(), ONE).unwrap_err()
    };
    let newer = refuse(r#"{"format":3,"something":"new"}"#);
    assert!(matches!(newer, DirectoryError::Newer { found: 3, .. }), "{newer}");
    for wrong in [
        text.replace("\"shards\": 1", "\"shards\": 2"),
        text.replace("\"partitions\": 16", "\"partitions\": 0"),
        text.replace("\"format\": 2", "\"format\": 0"),
        text.replace("\"generation\"", "\"generatoin\""),
        text[..text.len() / 2].to_owned(),
    ] {
        assert_ne!(wrong, text);
        let error = refuse(&wrong);
        assert!(matches!(error, DirectoryError::Manifest { .. }), "{error}");
    }
    std::fs::write(manifest_path(&directory), text).unwrap();
    DataDirectory::open(directory.path(), ONE).unwrap();
}

/// Everything that clients could miss or get twice: what waits (queue and message, in order), the state, and who has what
/// may be repeated.
type Everything = (BTreeMap<(QueueId, Sequence), u128>, Vec<String>, BTreeMap<MessageId, life::Takers>);

fn everything(shards: &[life::Shard]) -> Everything {
    let waiting = shards.iter().flat_map(|shard| shard.waiting());
    let waiting = waiting.map(|(delivery, message)| (delivery, message.id.0)).collect();
    let records = shards.iter().flat_map(|shard| shard.lasting_records());
    let mut records: Vec<_> = records.map(|record| format!("{record:?}")).collect();
    records.sort();
    (waiting, records, life::taken(shards))
}

/// The session that publishes at QoS 2.
fn publisher() -> QueueId {
    queue(0, 1)
}

/// The number of the QoS 2 message of a round.
fn once(n: u64) -> u64 {
    1_000 + n
}

/// A QoS 2 message on its way out, each delivery as far as another one.
fn live_once(shard: &mut life::Shard, n: u64, queues: &[QueueId]) {
    let sequence = shard.write(publish_once(once(n), 40, queues));
    for (&queue, progress) in queues.iter().zip((0..3).cycle()) {
        if progress > 0 {
            shard.write(Record::Tagged { queue, sequence, tag: Tag::new(n as u16).unwrap() });
        }
        if progress > 1 {
            shard.write(Record::Received { queue, sequence });
        }
    }
}

/// It may be repeated. All shards have confirmed every second one, every third one is over.
fn live_inbound(shard: &mut life::Shard, n: u64) {
    for _ in 0..1 + n % 2 {
        shard.write(inbound(publisher(), n as u16, message(once(n), 0).id));
    }
    if n.is_multiple_of(3) {
        shard.write(Record::InboundEnd { queue: publisher(), tag: Tag::new(n as u16).unwrap() });
    }
}

/// A key that is under way, answered, or refused by some shard, and a message that waits for its time or has been published.
fn live_wishes(directory: &DataDirectory, shards: &mut [life::Shard], n: u64) {
    let placement = directory.placement();
    let key = keyed("user", &format!("key {n}"), u128::from(n) << 70, None);
    let shard = &mut shards[usize::from(placement.home_of_key(&key.name).0)];
    shard.write(Record::Key { publish: Box::new(key.clone()) });
    let answer = [None, Some(ReasonCode::Success), Some(ReasonCode::QuotaExceeded)][n as usize % 3];
    if answer.is_some() {
        shard.write(Record::Key { publish: Box::new(KeyedPublish { answer, ..key }) });
    }
    let shard = &mut shards[usize::from(placement.shard_of(scheduled().partition()).0)];
    let sequence = shard.write(put_off(2_000 + n));
    if n.is_multiple_of(4) {
        shard.write(settle(scheduled(), sequence));
    }
}

/// The queue of what is to be published later.
fn scheduled() -> QueueId {
    queue(0, 9)
}

fn put_off(n: u64) -> Record {
    let Record::Publish { message, mut recipients } = publish(n, 100, &[scheduled()]) else {
        unreachable!("it is one")
    };
    recipients[0].given = true;
    Record::Publish { message, recipients }
}

/// Clients with subscriptions, retained messages, registrations and messages in both generations.
fn live(directory: &DataDirectory, shards: &mut [life::Shard], rounds: std::ops::Range<u64>) {
    let placement = directory.placement();
    let queues: Vec<_> = (0..24).map(|n| queue(n % 16, 1 + u64::from(n / 16))).collect();
    for n in rounds {
        live_wishes(directory, shards, n);
        let targets: Vec<_> = queues.iter().copied().filter(|queue| (queue.0 >> 48 ^ queue.0 ^ n) % 3 == 0).collect();
        for shard in shards.iter_mut() {
            let ours: Vec<_> =
                targets.iter().copied().filter(|queue| placement.shard_of(queue.partition()) == shard.id).collect();
            if n % 7 == 4 {
                live_once(shard, n, &ours);
            }
            if n % 7 == 4 && placement.shard_of(publisher().partition()) == shard.id {
                live_inbound(shard, n);
            }
            let sequence = shard.write(publish(n, 700, &ours));
            if let Some(first) = ours.first().filter(|_| n % 2 == 0) {
                shard.write(settle(*first, sequence));
            }
            let old = shard.waiting().into_keys().next();
            if let Some((queue, sequence)) = old.filter(|_| n % 5 == 0) {
                shard.write(settle(queue, sequence));
            }
            if n % 16 == 7 {
                shard.retire();
            }
        }
    }
}

fn begin_scheduled(directory: &DataDirectory, shards: &mut [life::Shard]) {
    let home = directory.placement().shard_of(scheduled().partition());
    let (owner, expiry) = (QueueOwner::Scheduled, SessionExpiry::NEVER);
    shards[usize::from(home.0)].write(Record::QueueBegin { queue: scheduled(), owner, expiry, at: WallMillis(1) });
}

fn begin_all(directory: &DataDirectory, shards: &mut [life::Shard]) {
    begin_scheduled(directory, shards);
    let placement = directory.placement();
    for n in 0..24_u16 {
        let queue = queue(n % 16, 1 + u64::from(n / 16));
        let shard = &mut shards[usize::from(placement.shard_of(queue.partition()).0)];
        shard.write(begin(queue, &format!("client-{n}")));
        let filter = TopicFilter::new(format!("a/{n}/#")).unwrap();
        shard.write(Record::Subscribe { queue, filter, options: SubscriptionOptions::default() });
        let client = ClientId::from(format!("client-{n}").as_str());
        let home = usize::from(placement.home(client.as_str().as_bytes()).0);
        shards[home].write(Record::Register {
            client,
            by: RegisteredBy::File,
            seen: WallMillis(7),
            user: None,
            groups: vec!["all".into()],
        });
        let topic = TopicName::new(format!("topic/{n}")).unwrap();
        let home = usize::from(placement.home(topic.as_str().as_bytes()).0);
        shards[home].write(Record::Retain { message: message(u64::from(n), 30) });
    }
}

#[test]
fn one_shard_to_eight_and_back_keeps_everything() {
    let directory = TempDir::new().unwrap();
    let (data, mut shards) = life::open(directory.path(), 1);
    begin_all(&data, &mut shards);
    live(&data, &mut shards, 0..60);
    let before = everything(&shards);
    assert!(before.0.len() > 200 && shards[0].old.upto() > Sequence(0), "both generations hold something");
    let taken = before.2.values().filter(|(partitions, _)| !partitions.is_empty());
    assert!(
        taken.count() > 3 && before.2.len() > 40,
        "keys that nobody has taken may be routed again, too: {:?}",
        before.2
    );
    let last = shards[0].log.writer().last_sequence();
    drop((data, shards));

    let (data, mut shards) = life::open(directory.path(), 8);
    assert_eq!(everything(&shards), before);
    for shard in &mut shards {
        let placement = data.placement();
        assert!(shard.waiting().keys().all(|(queue, _)| placement.shard_of(queue.partition()) == shard.id));
        assert_eq!(shard.log.writer().last_sequence(), last, "new sequences are above every old one");
        let records = shard.records();
        for (queue, _) in shard.waiting().into_keys() {
            assert!(
                records.contains(&Record::Watermark { queue, upto: last }),
                "all that waits is below the watermark"
            );
        }
    }
    live(&data, &mut shards, 60..120);
    let before = everything(&shards);
    drop((data, shards));

    let (data, mut shards) = life::open(directory.path(), 1);
    assert_eq!(everything(&shards), before);
    live(&data, &mut shards, 120..150);
    let before = everything(&shards);
    drop((data, shards));
    let (_data, shards) = life::open(directory.path(), 1);
    assert_eq!(everything(&shards), before);
    let sets = std::fs::read_dir(directory.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("generation-"));
    assert_eq!(sets.count(), 1, "old sets are removed");
}

/// Killed between a message that is put off and the second record of its tag or key: it is taken in, and no repeat may be taken in
/// again with another number of shards.
#[test]
fn what_was_put_off_is_taken_in_without_a_second_record() {
    let folder = TempDir::new().unwrap();
    let (directory, mut shards) = life::open(folder.path(), 1);
    begin_scheduled(&directory, &mut shards);
    let shard = &mut shards[0];
    shard.write(begin(publisher(), "publisher"));
    for (tag, n) in [(5, 1), (6, 2)] {
        shard.write(inbound(publisher(), tag, message(n, 0).id));
    }
    shard.write(put_off(1));
    for n in [3, 4] {
        let key = keyed("user", &format!("key {n}"), message(n, 0).id.0, None);
        shard.write(Record::Key { publish: Box::new(key) });
    }
    shard.write(put_off(3));
    // It is due, and on its way: that is not over.
    shard.write(inbound(scheduled(), 1, message(1, 0).id));
    drop((directory, shards));
    let (_directory, shards) = life::open(folder.path(), 3);
    let open: BTreeSet<_> = shards.iter().flat_map(|shard| shard.state.repeatable()).collect();
    assert_eq!(open, [1, 2, 4].map(|n| message(n, 0).id).into());
    let records: Vec<_> = shards.iter().flat_map(life::Shard::records).collect();
    let times = |record: &Record| records.iter().filter(|other| *other == record).count();
    let begins = [(publisher(), 5, 1), (publisher(), 6, 2), (scheduled(), 1, 1)];
    assert_eq!(begins.map(|(queue, tag, n)| times(&inbound(queue, tag, message(n, 0).id))), [2, 1, 1]);
    let answered = |n| {
        records.iter().any(|record| matches!(record, Record::Key { publish } if publish.id == message(n, 0).id && publish.answer == Some(ReasonCode::Success)))
    };
    assert_eq!((answered(3), answered(4)), (true, false));
}

/// What a shard knows of this message: the partitions whose subscribers have it, and the groups.
fn takers(shard: &life::Shard, id: MessageId) -> (Vec<u16>, Vec<&str>) {
    let Some(takers) = shard.state.known().get(id) else { return Default::default() };
    let groups = takers.groups.iter().map(|group| group.as_str()).collect();
    ((0..16).filter(|partition| takers.has(queue(*partition, 1))).collect(), groups)
}

/// A QoS 2 publish was taken by some shards, not by others, when the server was killed and the number of shards was
/// changed: of each subscriber it stays known whether he has it, and of the publisher's shard whether all have.
/// (All that was forgotten: a repeat was delivered once more.)
#[test]
fn who_has_a_qos_2_message_is_known_with_any_number_of_shards() {
    let directory = TempDir::new().unwrap();
    let (data, mut shards) = life::open(directory.path(), 3);
    let (publisher, subscriber) = (queue(3, 1), queue(4, 1)); // on shard 0 and 1
    let [in_part, by_all, refused, released, by_group, given] = [1, 2, 3, 4, 5, 6].map(|n| MessageId(n << 64 | 7));
    shards[0].write(begin(publisher, "publisher"));
    for (id, n) in [in_part, by_all, refused, released, by_group, given].into_iter().zip(1..) {
        shards[0].write(inbound(publisher, n, id));
    }
    shards[0].write(inbound(publisher, 2, by_all));
    shards[0].write(Record::InboundEnd { queue: publisher, tag: Tag::new(4).unwrap() });
    shards[1].write(begin(subscriber, "subscriber"));
    for n in [1, 2, 4, 6] {
        let message = Arc::new(Message { qos: Qos::ExactlyOnce, ..(*message(n, 10)).clone() });
        let recipients = vec![Recipient { given: n == 6, ..recipient(subscriber) }];
        let sequence = shards[1].write(Record::Publish { message, recipients });
        shards[1].write(settle(subscriber, sequence));
    }
    let known_ids = QueueId::of_known_ids(ShardId(2));
    shards[2].write(inbound(known_ids, 1, refused));
    shards[2].write(inbound(known_ids, 2, by_group));
    let filter = TopicFilter::new("$share/g/a").unwrap();
    shards[2].write(Record::Subscribe { queue: known_ids, filter, options: SubscriptionOptions::default() });
    drop((data, shards));

    for count in [2, 5, 1] {
        let (_data, shards) = life::open(directory.path(), count);
        for shard in &shards {
            let (of_shard_1, of_shard_2) = (vec![1, 4, 7, 10, 13], vec![2, 5, 8, 11, 14]);
            assert_eq!(takers(shard, in_part), (of_shard_1.clone(), vec![]));
            assert_eq!(takers(shard, by_all), (of_shard_1, vec![]));
            assert_eq!(takers(shard, refused), (of_shard_2, vec![]));
            assert_eq!(takers(shard, released), (vec![], vec![]));
            assert_eq!(takers(shard, given), (vec![], vec![]), "one subscriber was given it as retained");
            assert_eq!(takers(shard, by_group), (vec![], vec!["$share/g/a"]));
        }
        let records: Vec<_> = shards.iter().flat_map(life::Shard::records).collect();
        let times = |n, id| records.iter().filter(|record| **record == inbound(publisher, n, id)).count();
        assert_eq!((times(1, in_part), times(2, by_all), times(4, released)), (1, 2, 0));
    }
}

/// A crash before the rename leaves a part of the new set, one after it the old set: neither counts.
#[test]
fn leftovers_of_a_crashed_change_are_removed_and_the_current_set_is_used() {
    let directory = TempDir::new().unwrap();
    let (data, mut shards) = life::open(directory.path(), 2);
    begin_all(&data, &mut shards);
    live(&data, &mut shards, 0..20);
    let before = everything(&shards);
    let current = data.manifest().generation;
    drop((data, shards));
    for leftover in [current + 1, current - 1] {
        let path = directory.path().join(format!("generation-{leftover}/shard-0/young"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("00000000.seg"), b"half").unwrap();
    }
    std::fs::write(directory.path().join("postroad.json.new"), b"{").unwrap();
    let (_, shards) = life::open(directory.path(), 2);
    assert_eq!(everything(&shards), before);
    drop(shards);
    let (data, shards) = life::open(directory.path(), 5);
    assert_eq!(everything(&shards), before);
    assert_eq!(data.manifest().generation, current + 1);
}

#[test]
fn a_shards_log_is_checked_and_repaired_with_a_copy_in_quarantine() {
    let directory = TempDir::new().unwrap();
    let (data, mut shards) = life::open(directory.path(), 1);
    begin_all(&data, &mut shards);
    drop(shards);
    let reports = data.check().unwrap();
    assert!(reports.len() == 1 && reports[0].is_sound() && reports[0].records == 97, "{reports:?}");
    let segment = data.young_path(postroad_base::ShardId(0)).join("00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    assert!(!data.check().unwrap()[0].is_sound());
    let repaired = data.repair().unwrap();
    assert!(!repaired[0].cut.is_empty());
    assert!(data.check().unwrap()[0].is_sound());
    let kept: Vec<_> = std::fs::read_dir(directory.path().join("quarantine")).unwrap().collect();
    assert!(!kept.is_empty());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the fixture of this name.
fn fixture(name: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name), directory.path());
    directory
}

/// What the release of format 1 wrote must open for ever.
#[test]
fn a_directory_of_format_1_opens() {
    let directory = fixture("format-1");
    for shards in [1, 3] {
        let (_data, shards) = life::open(directory.path(), shards);
        let mut waiting = BTreeMap::<QueueId, Vec<u64>>::new();
        for ((queue, _), message) in shards.iter().flat_map(|shard| shard.waiting()) {
            let n = (message.id.0 >> 64) as u64;
            assert_eq!(*message, *support::message(n, 500));
            waiting.entry(queue).or_default().push(n);
        }
        for first in 0..4 {
            let expected = (0..20).filter(|n| n % 4 >= first && (first > 0 || n % 3 != 0)).collect::<Vec<_>>();
            assert_eq!(waiting[&queue(first as u16, 1)], expected);
        }
        let records: Vec<_> = shards.iter().flat_map(|shard| shard.records()).collect();
        assert!(records.contains(&Record::Retain { message: message(77, 20) }));
        assert!(records.contains(&begin(queue(2, 1), "client-2")));
        assert_eq!(records.iter().filter(|record| matches!(record, Record::Subscribe { .. })).count(), 4);
    }
}

/// As format 1; what is found in it is what the same life leaves in a directory of today, with any number of shards.
#[test]
fn a_directory_of_format_2_opens() {
    let (then, now) = (fixture("format-2"), TempDir::new().unwrap());
    support::fixture::live(&mut life::open(now.path(), 1).1[0]);
    for shards in [1, 3, 2, 1] {
        let found = |directory: &TempDir| {
            let (_data, shards) = life::open(directory.path(), shards);
            let waiting: Vec<_> = shards.iter().flat_map(|shard| shard.waiting()).collect();
            let mut records: Vec<_> =
                shards.iter().flat_map(|shard| shard.records()).map(|r| format!("{r:?}")).collect();
            records.sort();
            (waiting, records, life::taken(&shards))
        };
        let (waiting, records, taken) = found(&then);
        assert!(waiting.len() > 10 && records.len() > 20, "{waiting:?} {records:?}");
        assert_eq!((waiting, records, taken), found(&now), "{shards} shards");
    }
}

/// Whoever adds a kind of record, an owner or an outcome writes one into the fixture, too (`support/fixture.rs`).
#[test]
fn every_kind_is_in_the_fixture() {
    let directory = fixture("format-2");
    let data = DataDirectory::open(directory.path(), ONE).unwrap();
    let records = life::raw_records(&data, ShardId(0));
    let (mut kinds, mut owners, mut outcomes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for record in &records {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        kinds.insert(bytes[0]);
        match record {
            Record::QueueBegin { owner, .. } => _ = owners.insert(owner_number(owner)),
            Record::Settle { outcome, .. } => _ = outcomes.insert(*outcome as u8),
            _ => {}
        }
    }
    let unknown = (1..=u8::MAX).find(|&kind| decode(&mut &[kind][..]) == Err(RecordError::UnknownKind(kind)));
    assert_eq!(kinds, (1..unknown.unwrap()).collect(), "kinds of records");
    assert_eq!(owners, (0..=owner_number(&QueueOwner::Group("".into()))).collect(), "owners");
    assert_eq!(outcomes, Outcome::ALL.iter().map(|outcome| *outcome as u8).collect(), "outcomes");
}

/// If you add an owner: a number here, the highest one in the test above, and one in the fixture.
fn owner_number(owner: &QueueOwner) -> u8 {
    match owner {
        QueueOwner::Session(_) => 0,
        QueueOwner::Registration(_) => 1,
        QueueOwner::Share(..) => 2,
        QueueOwner::Dead => 3,
        QueueOwner::Scheduled => 4,
        QueueOwner::Group(_) => 5,
    }
}
