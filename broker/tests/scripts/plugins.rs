//! What plugins decide is done (PLG-1, PLG-2): rewritten, split, dropped, refused, parked, left out, repaired; and what a publisher hears.
//!
//! The plugins here are rules (see `Rules`): the broker sees only the answers, whoever gives them.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use base::{ClientId, Message, MessageId, Now, Qos, QueueId, ReasonCode, Requeue, TopicFilter, TopicName, Wishes};
use bytes::Bytes;
use expect_test::{Expect, expect};
use postroad_base as base;
use postroad_broker::api::{Connect, DisconnectCause};
use postroad_broker::hooks::{Admission, Answer, Decision, Hooks, Peer, Repair, Stamp};

use crate::world::{World, durable};

/// Rules, one a line: `HOOK FILTER DO WORDS…`, the first that fits counts. Messages: `topic=payload`, without a payload the message's.
/// ```text
/// publish t/# keep | become m | split m m | besides m | lower | drop | refuse 135 | park note | later 500 m
/// deliver t/# without anna ben        letter t/# requeue fixed | become m | besides m (and drop) | drop | park note
/// connect ben deny | groups g         subscribe t/# qos 0 | deny          gone ben tell m
/// ```
#[derive(Debug)]
pub struct Rules {
    generation: u32,
    lines: Vec<Vec<String>>,
    /// Who was asked what.
    asked: Rc<RefCell<String>>,
}

impl Rules {
    pub fn new(generation: u32, text: &str, asked: &Rc<RefCell<String>>) -> Self {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(words).collect();
        Self { generation, lines, asked: Rc::clone(asked) }
    }

    fn find(&self, hook: &str, what: &str) -> Option<&[String]> {
        let fits = |line: &&Vec<String>| line[0] == hook && (line[1] == what || base::filter_matches(&line[1], what));
        self.lines.iter().find(fits).map(|line| &line[2..])
    }

    fn note(&self, words: std::fmt::Arguments<'_>) {
        writeln!(self.asked.borrow_mut(), "    plugins {}: {words}", self.generation).unwrap();
    }
}

fn made(from: &Message, word: &str) -> Message {
    let (topic, payload) = word.split_once('=').map_or((word, None), |(topic, payload)| (topic, Some(payload)));
    let payload = payload.map_or_else(|| from.payload.clone(), |payload| Bytes::copy_from_slice(payload.as_bytes()));
    Message { topic: TopicName::new(topic).unwrap(), payload, ..from.clone() }
}

/// Of a hook that has no message.
fn said(word: &str) -> Message {
    let (topic, properties) = (TopicName::new("x").unwrap(), Bytes::new());
    let nothing = Message {
        id: MessageId(0),
        topic,
        payload: Bytes::new(),
        properties,
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    };
    made(&nothing, word)
}

fn reason(word: &str) -> ReasonCode {
    ReasonCode::from_number(word.parse().unwrap()).unwrap()
}

impl Hooks for Rules {
    fn publish(&mut self, now: Now, message: &Message, from: Peer<'_>) -> (Stamp, Answer<Decision>) {
        let payload = String::from_utf8_lossy(&message.payload);
        self.note(format_args!("publish {} {payload:?} of {}", message.topic, from.client.as_str()));
        let words = self.find("publish", message.topic.as_str()).unwrap_or_default();
        let all = || words[1..].iter().map(|word| made(message, word)).collect();
        let mut publish = Vec::new();
        let decision = match words.first().map(String::as_str) {
            None | Some("keep") => Decision::Keep,
            Some("become" | "split") => Decision::Replace(all()),
            Some("besides") => {
                publish = all();
                Decision::Keep
            }
            Some("later") => {
                let at = now.wall.after(words[1].parse().unwrap());
                let wishes = Wishes { deliver_at: Some(at), ..Wishes::default() };
                let later = Message { extras: base::Extras::of_wishes(wishes), ..made(message, &words[2]) };
                Decision::Replace(vec![later, message.clone()])
            }
            Some("lower") => Decision::Replace(vec![Message { qos: Qos::AtMostOnce, ..message.clone() }]),
            Some("drop") => Decision::Drop,
            Some("refuse") => Decision::Refuse(reason(&words[1])),
            Some("park") => Decision::Park(words[1].as_str().into()),
            other => panic!("no rule says {other:?}"),
        };
        (Stamp(self.generation), Answer { answer: decision, publish })
    }

    fn wants_deliveries(&self, _: Stamp, topic: &str) -> bool {
        self.find("deliver", topic).is_some()
    }

    fn deliver(&mut self, _: Now, stamp: Stamp, message: &Message, to: &[&ClientId]) -> Vec<usize> {
        let names: Vec<_> = to.iter().map(|client| client.as_str()).collect();
        self.note(format_args!("deliver {} stamp {} to {}", message.topic, stamp.0, names.join(" ")));
        let words = self.find("deliver", message.topic.as_str()).unwrap_or_default();
        let is_meant = |place: &usize| words.iter().any(|word| word == names[*place]);
        (0..to.len()).filter(is_meant).collect()
    }

    fn wants_letters(&self, topic: &str) -> bool {
        self.find("letter", topic).is_some()
    }

    fn dead_letter(&mut self, _: Now, letter: &Message) -> Answer<Repair> {
        let death = letter.death().unwrap();
        self.note(format_args!("letter {} of {} {}", letter.topic, death.client.as_str(), death.outcome.name()));
        let words = self.find("letter", letter.topic.as_str()).unwrap_or_default();
        match words[0].as_str() {
            "requeue" => {
                let payload = Some(Bytes::copy_from_slice(words[1].as_bytes()));
                Repair::Requeue(Requeue { payload, ttl_seconds: None })
            }
            "become" => Repair::Publish(Box::new(made(letter, &words[1]))),
            "besides" => {
                let publish = vec![made(letter, &words[1])];
                return Answer { answer: Repair::Drop, publish };
            }
            "drop" => Repair::Drop,
            "park" => Repair::Park(words[1].as_str().into()),
            other => panic!("no rule says {other}"),
        }
        .into()
    }

    fn connect(&mut self, _: Now, connect: &Connect) -> Answer<Admission> {
        let words = self.find("connect", connect.client.as_str()).unwrap_or_default();
        match words.first().map(String::as_str) {
            None => Admission::Allow,
            Some("deny") => Admission::Deny(ReasonCode::NotAuthorized),
            Some(_) => Admission::AllowWith(words[1..].iter().map(|group| group.as_str().into()).collect()),
        }
        .into()
    }

    fn disconnected(&mut self, _: Now, peer: Peer<'_>, _: DisconnectCause) -> Vec<Message> {
        let words = self.find("gone", peer.client.as_str()).unwrap_or_default();
        words.iter().skip(1).map(|word| said(word)).collect()
    }

    fn subscribe(&mut self, _: Now, _: Peer<'_>, filter: &TopicFilter, qos: Qos) -> Answer<Result<Qos, ReasonCode>> {
        let words = self.find("subscribe", filter.as_str()).unwrap_or_default();
        match words.first().map(String::as_str) {
            None => Ok(qos),
            Some("qos") => Ok(Qos::from_number(words[1].parse().unwrap()).unwrap()),
            Some(_) => Err(ReasonCode::NotAuthorized),
        }
        .into()
    }
}

/// Subscribed to all of `t`, `u` and `v`: anna (1) and ben (2). The publisher is 9. Of two shards, ben lives on the first, the others on the second.
fn begun(mut world: World, rules: &str) -> World {
    world.run("connect 1 anna expiry=60\nsub 1 1 t/#:2 u/#:2 v/#:2\nconnect 2 ben expiry=60\nsub 2 1 t/#:2 u/#:2 v/#:2\nconnect 9 pub");
    world.set_plugins(1, rules);
    world
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

fn two() -> World {
    World::new(2, true, |_| {}).open()
}

#[test]
fn a_message_is_rewritten_once_and_its_publisher_answered_once() {
    check(
        begun(durable().open(), "publish t/# become u/2=new"),
        "
        pub 9 t/1 old qos=1 tag=5
        pub 9 t/1 old qos=0
        pub 9 t/1 old qos=2 tag=6
        rel 9 6
        pub 9 v/1 kept qos=1 tag=7
        stats
        ",
        expect![[r#"
            pub 9 t/1 old qos=1 tag=5
                plugins 1: publish t/1 "old" of pub
                1: deliver u/2 "new" qos=1 tag=1
                2: deliver u/2 "new" qos=1 tag=1
                9: published 5 success
            pub 9 t/1 old qos=0
                plugins 1: publish t/1 "old" of pub
                1: deliver u/2 "new" qos=0
                2: deliver u/2 "new" qos=0
            pub 9 t/1 old qos=2 tag=6
                plugins 1: publish t/1 "old" of pub
                1: deliver u/2 "new" qos=2 tag=2
                2: deliver u/2 "new" qos=2 tag=2
                9: published 6 success
            rel 9 6
                9: completed 6 success
            pub 9 v/1 kept qos=1 tag=7
                plugins 1: publish v/1 "kept" of pub
                1: deliver v/1 "kept" qos=1 tag=3
                2: deliver v/1 "kept" qos=1 tag=3
                9: published 7 success
            stats
                sessions=3 registrations=0 connections=3 subscriptions=6 retained=0 queued=0 bytes=38 inflight=6 log=25
        "#]],
    );
}

/// The answer comes when all parts are on disk, on whichever shard.
#[test]
fn the_publisher_of_a_split_message_is_answered_once_all_parts_are_safe() {
    check(
        begun(two(), "publish t/# split u/1=a u/2=b u/3=c"),
        "
        hold
        pub 9 t/1 x qos=1 tag=5
        commit
        commit
        commit
        flow
        pub 9 t/1 x qos=2 tag=6
        pub 9 t/1 x qos=2 tag=6 dup
        rel 9 6
        ",
        expect![[r#"
            hold
            pub 9 t/1 x qos=1 tag=5
                plugins 1: publish t/1 "x" of pub
            commit
                2: deliver u/1 "a" qos=1 tag=1
                2: deliver u/2 "b" qos=1 tag=2
                2: deliver u/3 "c" qos=1 tag=3
                1: deliver u/1 "a" qos=1 tag=1
                1: deliver u/2 "b" qos=1 tag=2
                1: deliver u/3 "c" qos=1 tag=3
                9: published 5 success
            commit
            commit
            flow
            pub 9 t/1 x qos=2 tag=6
                plugins 1: publish t/1 "x" of pub
                9: park
                2: deliver u/1 "a" qos=2 tag=4
                2: deliver u/2 "b" qos=2 tag=5
                1: deliver u/1 "a" qos=2 tag=4
                1: deliver u/2 "b" qos=2 tag=5
                9: unpark
                2: deliver u/3 "c" qos=2 tag=6
                1: deliver u/3 "c" qos=2 tag=6
                9: published 6 success
            pub 9 t/1 x qos=2 tag=6 dup
                9: published 6 success
            rel 9 6
                9: completed 6 success
        "#]],
    );
}

/// That nobody has subscribed is told if it is so of all parts, wherever they stand in the line.
#[test]
fn a_split_message_has_subscribers_if_one_of_its_parts_has() {
    for (parts, expected) in
        [("u/1=a nobody/1=b", "first"), ("nobody/1=a u/1=b", "last"), ("nobody/1=a nobody/2=b", "none")]
    {
        check(
            begun(two(), &format!("publish t/# split {parts}")),
            "
            pub 9 t/1 x qos=1 tag=5
            pub 9 t/1 x qos=2 tag=6
            pub 9 nobody/3 x qos=1 tag=7
            ",
            match expected {
                "first" => expect![[r#"
                    pub 9 t/1 x qos=1 tag=5
                        plugins 1: publish t/1 "x" of pub
                        count no_subscriber 1
                        2: deliver u/1 "a" qos=1 tag=1
                        1: deliver u/1 "a" qos=1 tag=1
                        9: published 5 success
                    pub 9 t/1 x qos=2 tag=6
                        plugins 1: publish t/1 "x" of pub
                        9: park
                        2: deliver u/1 "a" qos=2 tag=2
                        1: deliver u/1 "a" qos=2 tag=2
                        count no_subscriber 1
                        9: published 6 success
                        9: unpark
                    pub 9 nobody/3 x qos=1 tag=7
                        plugins 1: publish nobody/3 "x" of pub
                        count no_subscriber 1
                        9: published 7 no_matching_subscribers
                "#]],
                "last" => expect![[r#"
                    pub 9 t/1 x qos=1 tag=5
                        plugins 1: publish t/1 "x" of pub
                        count no_subscriber 1
                        2: deliver u/1 "b" qos=1 tag=1
                        1: deliver u/1 "b" qos=1 tag=1
                        9: published 5 success
                    pub 9 t/1 x qos=2 tag=6
                        plugins 1: publish t/1 "x" of pub
                        count no_subscriber 1
                        2: deliver u/1 "b" qos=2 tag=2
                        1: deliver u/1 "b" qos=2 tag=2
                        9: published 6 success
                    pub 9 nobody/3 x qos=1 tag=7
                        plugins 1: publish nobody/3 "x" of pub
                        count no_subscriber 1
                        9: published 7 no_matching_subscribers
                "#]],
                _ => expect![[r#"
                    pub 9 t/1 x qos=1 tag=5
                        plugins 1: publish t/1 "x" of pub
                        count no_subscriber 2
                        9: published 5 no_matching_subscribers
                    pub 9 t/1 x qos=2 tag=6
                        plugins 1: publish t/1 "x" of pub
                        count no_subscriber 2
                        9: published 6 no_matching_subscribers
                    pub 9 nobody/3 x qos=1 tag=7
                        plugins 1: publish nobody/3 "x" of pub
                        count no_subscriber 1
                        9: published 7 no_matching_subscribers
                "#]],
            },
        );
    }
}

/// Two parts go to another shard that has one credit: the rest waits, in order, and the plugins are not asked again.
#[test]
fn parts_wait_for_credit_in_their_order() {
    let world = World::new(2, true, |config| config.mesh_credits = 1).open();
    check(
        begun(world, "publish t/# split u/1=a u/2=b u/3=c"),
        "
        stop 0
        stop 1
        pub 9 t/1 x qos=1 tag=5
        pub 9 v/1 behind qos=1 tag=6
        go
        ",
        expect![[r#"
            stop 0
            stop 1
            pub 9 t/1 x qos=1 tag=5
                plugins 1: publish t/1 "x" of pub
                9: park
                1: deliver u/1 "a" qos=1 tag=1
            pub 9 v/1 behind qos=1 tag=6
            go
                2: deliver u/1 "a" qos=1 tag=1
                2: deliver u/2 "b" qos=1 tag=2
                1: deliver u/2 "b" qos=1 tag=2
                plugins 1: publish v/1 "behind" of pub
                2: deliver u/3 "c" qos=1 tag=3
                1: deliver u/3 "c" qos=1 tag=3
                9: published 5 success
                9: unpark
                2: deliver v/1 "behind" qos=1 tag=4
                1: deliver v/1 "behind" qos=1 tag=4
                9: published 6 success
        "#]],
    );
}

fn with_one_place(shards: u16) -> World {
    World::new(shards, true, |config| {
        config.limits.queue_messages_max = 1;
        config.limits.queue_policy = postroad_broker::QueuePolicy::RejectPublisher;
    })
    .open()
}

/// Ben's shard refuses a part when the message itself has been taken in: its publisher hears of it. At QoS 2 the message waits until that is known.
#[test]
fn a_part_that_another_shard_refuses_is_told() {
    check(
        begun(with_one_place(2), "publish t/# split u/1=a w/1=c"),
        "
        disc 2
        pub 9 v/1 first qos=1 tag=4
        ack 1 1
        pub 9 t/1 x qos=1 tag=5
        ack 1 2
        pub 9 t/1 x qos=2 tag=6
        rel 9 6
        pub 9 w/1 other qos=1 tag=7
        ",
        expect![[r#"
            disc 2
            pub 9 v/1 first qos=1 tag=4
                plugins 1: publish v/1 "first" of pub
                1: deliver v/1 "first" qos=1 tag=1
                9: published 4 success
            ack 1 1
            pub 9 t/1 x qos=1 tag=5
                plugins 1: publish t/1 "x" of pub
                count no_subscriber 1
                1: deliver u/1 "a" qos=1 tag=2
                9: published 5 quota_exceeded
            ack 1 2
            pub 9 t/1 x qos=2 tag=6
                plugins 1: publish t/1 "x" of pub
                9: park
                1: deliver u/1 "a" qos=2 tag=3
                count plugin_refused 1
                9: published 6 quota_exceeded
                9: unpark
            rel 9 6
                count unknown_tag 1
                9: completed 6 packet_identifier_not_found
            pub 9 w/1 other qos=1 tag=7
                plugins 1: publish w/1 "other" of pub
                count no_subscriber 1
                9: published 7 no_matching_subscribers
        "#]],
    );
}

/// A part has no room in anna's queue (one message): the publisher hears of it.
#[test]
fn a_refused_part_is_told() {
    let world = with_one_place(1);
    check(
        begun(world, "publish t/# split u/1=a u/2=b v/1=c"),
        "
        disc 1
        disc 2
        pub 9 t/1 x qos=1 tag=5
        pub 9 t/1 x qos=2 tag=6
        pub 9 t/1 x qos=2 tag=6
        pub 9 v/1 other qos=1 tag=7
        ",
        expect![[r#"
            disc 1
            disc 2
            pub 9 t/1 x qos=1 tag=5
                plugins 1: publish t/1 "x" of pub
                count queue_overflow 1
                count plugin_refused 1
                9: published 5 quota_exceeded
            pub 9 t/1 x qos=2 tag=6
                plugins 1: publish t/1 "x" of pub
                count queue_overflow 2
                count plugin_refused 1
                9: published 6 quota_exceeded
            pub 9 t/1 x qos=2 tag=6
                plugins 1: publish t/1 "x" of pub
                count queue_overflow 2
                count plugin_refused 1
                9: published 6 quota_exceeded
            pub 9 v/1 other qos=1 tag=7
                plugins 1: publish v/1 "other" of pub
                count queue_overflow 1
                9: published 7 quota_exceeded
        "#]],
    );
}

#[test]
fn dropped_refused_and_parked_publishes_are_answered_and_counted() {
    check(
        begun(
            durable().open(),
            "publish t/drop drop
             publish t/refuse refuse 131
             publish t/park park odd",
        ),
        "
        pub 9 t/drop x qos=1 tag=1
        pub 9 t/drop x qos=2 tag=2
        rel 9 2
        pub 9 t/refuse x qos=1 tag=3
        pub 9 t/refuse x qos=2 tag=4
        pub 9 t/refuse x
        hold
        pub 9 t/park x qos=2 tag=5
        commit
        flow
        rel 9 5
        letters
        crash
        letters
        letter 0-0-22 requeue
        letter 0-0-22 drop
        letters
        ",
        expect![[r#"
            pub 9 t/drop x qos=1 tag=1
                plugins 1: publish t/drop "x" of pub
                count plugin_dropped 1
                9: published 1 success
            pub 9 t/drop x qos=2 tag=2
                plugins 1: publish t/drop "x" of pub
                count plugin_dropped 1
                9: published 2 success
            rel 9 2
                9: completed 2 success
            pub 9 t/refuse x qos=1 tag=3
                plugins 1: publish t/refuse "x" of pub
                count plugin_refused 1
                9: published 3 implementation_specific_error
            pub 9 t/refuse x qos=2 tag=4
                plugins 1: publish t/refuse "x" of pub
                count plugin_refused 1
                9: published 4 implementation_specific_error
            pub 9 t/refuse x
                plugins 1: publish t/refuse "x" of pub
                count plugin_refused 1
            hold
            pub 9 t/park x qos=2 tag=5
                plugins 1: publish t/park "x" of pub
                count plugin_parked 1
            commit
                9: published 5 success
            flow
            rel 9 5
                9: completed 5 success
            letters
                letter 0-0-22 t/park "x" qos=2 of pub quarantined code=0 attempts=0 requeues=0 at 1001000 parked "odd"
                that was all
            crash
            letters
                letter 0-0-22 t/park "x" qos=2 of pub quarantined code=0 attempts=0 requeues=0 at 1001000 parked "odd"
                that was all
            letter 0-0-22 requeue
                NoClient
            letter 0-0-22 drop
                done
            letters
                that was all
        "#]],
    );
}

/// A repeat after a crash is asked about again: the message with the tag is left out where it has arrived, the other parts come twice.
#[test]
fn a_repeat_of_qos_2_after_a_crash() {
    check(
        begun(durable().open(), "publish t/# split u/1=part u/2=last"),
        "
        disc 9
        connect 7 pub expiry=60
        pub 7 t/1 x qos=2 tag=6
        crash
        connect 1 anna expiry=60
        connect 7 pub expiry=60
        plugins 1 publish t/# split u/1=part u/2=last
        pub 7 t/1 x qos=2 tag=6 dup
        rel 7 6
        ",
        expect![[r#"
            disc 9
            connect 7 pub expiry=60
                7: connected present=false
            pub 7 t/1 x qos=2 tag=6
                plugins 1: publish t/1 "x" of pub
                7: park
                1: deliver u/1 "part" qos=2 tag=1
                2: deliver u/1 "part" qos=2 tag=1
                7: unpark
                1: deliver u/2 "last" qos=2 tag=2
                2: deliver u/2 "last" qos=2 tag=2
                7: published 6 success
            crash
            connect 1 anna expiry=60
                1: connected present=true
                1: deliver u/1 "part" qos=2 tag=1 dup
                1: deliver u/2 "last" qos=2 tag=2 dup
            connect 7 pub expiry=60
                7: connected present=true inbound=[6]
            plugins 1 publish t/# split u/1=part u/2=last
            pub 7 t/1 x qos=2 tag=6 dup
                plugins 1: publish t/1 "x" of pub
                7: park
                1: deliver u/1 "part" qos=2 tag=3
                7: published 6 success
                7: unpark
            rel 7 6
                7: completed 6 success
        "#]],
    );
}

/// The key is that of what was published; another body conflicts, also if plugins make it the same.
#[test]
fn an_idempotency_key_compares_what_came() {
    check(
        begun(two(), "publish t/# become u/2=same"),
        "
        pub 9 t/1 a qos=1 tag=1 key=k
        pub 9 t/1 a qos=1 tag=2 key=k
        pub 9 t/1 b qos=1 tag=3 key=k
        ",
        expect![[r#"
            pub 9 t/1 a qos=1 tag=1 key=k
                plugins 1: publish t/1 "a" of pub
                2: deliver u/2 "same" qos=1 tag=1
                1: deliver u/2 "same" qos=1 tag=1
                9: published 1 success
            pub 9 t/1 a qos=1 tag=2 key=k
                plugins 1: publish t/1 "a" of pub
                9: published 2 success
            pub 9 t/1 b qos=1 tag=3 key=k
                plugins 1: publish t/1 "b" of pub
                count key_conflict 1
                9: published 3 packet_identifier_in_use
        "#]],
    );
}

#[test]
fn a_part_for_later_waits_for_its_time() {
    check(
        begun(durable().open(), "publish t/# later 500 u/1=later"),
        "
        pub 9 t/1 now qos=1 tag=1
        at 2000
        ",
        expect![[r#"
            pub 9 t/1 now qos=1 tag=1
                plugins 1: publish t/1 "now" of pub
                9: published 1 success
                1: deliver t/1 "now" qos=1 tag=1
                2: deliver t/1 "now" qos=1 tag=1
            at 2000
                1: deliver u/1 "later" qos=1 tag=2
                2: deliver u/1 "later" qos=1 tag=2
        "#]],
    );
}

/// The generation that has seen a message is asked on the other shard, too.
#[test]
fn whom_plugins_leave_out_does_not_get_it() {
    check(
        begun(two(), "deliver t/# without ben"),
        "
        pub 9 t/1 x qos=1 tag=1
        pub 9 u/1 y qos=1 tag=2
        pub 9 t/1 z
        ",
        expect![[r#"
            pub 9 t/1 x qos=1 tag=1
                plugins 1: publish t/1 "x" of pub
                plugins 1: deliver t/1 stamp 1 to anna
                plugins 1: deliver t/1 stamp 1 to ben
                count plugin_left_out 1
                1: deliver t/1 "x" qos=1 tag=1
                9: published 1 success
            pub 9 u/1 y qos=1 tag=2
                plugins 1: publish u/1 "y" of pub
                2: deliver u/1 "y" qos=1 tag=1
                1: deliver u/1 "y" qos=1 tag=2
                9: published 2 success
            pub 9 t/1 z
                plugins 1: publish t/1 "z" of pub
                plugins 1: deliver t/1 stamp 1 to anna
                1: deliver t/1 "z" qos=0
                plugins 1: deliver t/1 stamp 1 to ben
                count plugin_left_out 1
        "#]],
    );
}

#[test]
fn wills_and_what_was_parked_go_through_the_plugins() {
    check(
        begun(durable().open(), "publish t/# become u/1"),
        "
        connect 5 willy will=t/w:gone
        disc 5 lost
        ",
        expect![[r#"
            connect 5 willy will=t/w:gone
                5: connected present=false
            disc 5 lost
                plugins 1: publish t/w "gone" of willy
                count will_published 1
                1: deliver u/1 "gone" qos=0
                2: deliver u/1 "gone" qos=0
        "#]],
    );
}

#[test]
fn a_plugin_repairs_a_letter() {
    check(
        begun(
            durable().open(),
            "letter t/fix requeue fixed
             letter t/move become u/9=moved
             letter t/nobody become w/9=lost
             letter t/drop drop
             letter t/park park look",
        ),
        "
        disc 2
        pub 9 t/fix x qos=1 tag=1
        ack 1 1 reason=131
        ack 1 2
        pub 9 t/move x qos=1 tag=2
        ack 1 3 reason=131
        ack 1 4
        pub 9 t/nobody x qos=1 tag=3
        ack 1 5 reason=131
        pub 9 t/drop x qos=1 tag=4
        ack 1 6 reason=131
        pub 9 t/park x qos=1 tag=5
        ack 1 7 reason=131
        letters
        crash
        letters
        ",
        expect![[r#"
            disc 2
            pub 9 t/fix x qos=1 tag=1
                plugins 1: publish t/fix "x" of pub
                1: deliver t/fix "x" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/fix of anna refused
                1: deliver t/fix "fixed" qos=1 tag=2
            ack 1 2
            pub 9 t/move x qos=1 tag=2
                plugins 1: publish t/move "x" of pub
                1: deliver t/move "x" qos=1 tag=3
                9: published 2 success
            ack 1 3 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/move of anna refused
                1: deliver u/9 "moved" qos=1 tag=4
            ack 1 4
            pub 9 t/nobody x qos=1 tag=3
                plugins 1: publish t/nobody "x" of pub
                1: deliver t/nobody "x" qos=1 tag=5
                9: published 3 success
            ack 1 5 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/nobody of anna refused
                count no_subscriber 1
                count plugin_repair_failed 1
            pub 9 t/drop x qos=1 tag=4
                plugins 1: publish t/drop "x" of pub
                1: deliver t/drop "x" qos=1 tag=6
                9: published 4 success
            ack 1 6 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/drop of anna refused
            pub 9 t/park x qos=1 tag=5
                plugins 1: publish t/park "x" of pub
                1: deliver t/park "x" qos=1 tag=7
                9: published 5 success
            ack 1 7 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/park of anna refused
            letters
                letter 0-0-33 t/nobody "x" qos=1 of anna refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-38 t/park "x" qos=1 of anna refused code=131 attempts=1 requeues=0 at 1001000 parked "look"
                that was all
            crash
            letters
                letter 0-0-33 t/nobody "x" qos=1 of anna refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-38 t/park "x" qos=1 of anna refused code=131 attempts=1 requeues=0 at 1001000 parked "look"
                that was all
        "#]],
    );
}

/// What is published in the place of a letter ends it when the other shard has it, not before.
#[test]
fn a_letter_ends_when_what_is_in_its_place_is_safe() {
    check(
        begun(two(), "letter t/# become u/9=moved"),
        "
        disc 2
        pub 9 t/1 x qos=1 tag=1
        stop 0
        ack 1 1 reason=131
        letters
        letters shard=1
        go
        letters
        letters shard=1
        ",
        expect![[r#"
            disc 2
            pub 9 t/1 x qos=1 tag=1
                plugins 1: publish t/1 "x" of pub
                1: deliver t/1 "x" qos=1 tag=1
                9: published 1 success
            stop 0
            ack 1 1 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/1 of anna refused
                1: deliver u/9 "moved" qos=1 tag=2
            letters
                that was all
            letters shard=1
                letter 1-0-13 t/1 "x" qos=1 of anna refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            go
            letters
                that was all
            letters shard=1
                that was all
        "#]],
    );
}

#[test]
fn a_plugin_decides_who_connects_and_subscribes() {
    check(
        begun(
            durable().open(),
            "connect ben deny
             connect carl groups vip
             subscribe t/secret deny
             subscribe t/# qos 0
             gone carl tell v/gone=carl",
        ),
        "
        connect 3 ben
        connect 4 carl
        sub 4 1 t/secret:1 t/a:2 u/a:2
        pub 9 $group/vip/hello x qos=1 tag=1
        disc 4
        ",
        expect![[r#"
            connect 3 ben
                count plugin_refused 1
                3: refused not_authorized
            connect 4 carl
                4: connected present=false
            sub 4 1 t/secret:1 t/a:2 u/a:2
                count plugin_refused 1
                4: subscribed 1 not_authorized success granted_qos_2
            pub 9 $group/vip/hello x qos=1 tag=1
                plugins 1: publish $group/vip/hello "x" of pub
                4: deliver hello "x" qos=1 tag=32768
                9: published 1 success
            disc 4
                1: deliver v/gone "carl" qos=1 tag=1
                2: deliver v/gone "carl" qos=1 tag=1
        "#]],
    );
}

/// Peers are told behind what has an older stamp; once all have been, the older generation may go.
#[test]
fn a_generation_is_settled_when_nothing_older_is_under_way() {
    let world = World::new(2, true, |config| config.mesh_credits = 1).open();
    check(
        begun(world, "deliver t/# without nobody"),
        "
        stop 0
        stop 1
        pub 9 t/1 a qos=1 tag=1
        pub 9 t/1 b qos=1 tag=2
        plugins 2 deliver t/# without nobody
        committed 2 0
        committed 2 1
        pub 9 t/1 c qos=1 tag=3
        go
        ",
        expect![[r#"
            stop 0
            stop 1
            pub 9 t/1 a qos=1 tag=1
                plugins 1: publish t/1 "a" of pub
                plugins 1: deliver t/1 stamp 1 to anna
                1: deliver t/1 "a" qos=1 tag=1
            pub 9 t/1 b qos=1 tag=2
                plugins 1: publish t/1 "b" of pub
                9: park
            plugins 2 deliver t/# without nobody
            committed 2 0
            committed 2 1
            pub 9 t/1 c qos=1 tag=3
            go
                plugins 2: deliver t/1 stamp 1 to ben
                2: deliver t/1 "a" qos=1 tag=1
                plugins 2: deliver t/1 stamp 1 to anna
                plugins 2: publish t/1 "c" of pub
                9: published 1 success
                plugins settled 2
                plugins 2: deliver t/1 stamp 1 to ben
                2: deliver t/1 "b" qos=1 tag=2
                1: deliver t/1 "b" qos=1 tag=2
                plugins settled 2
                plugins 2: deliver t/1 stamp 2 to anna
                9: published 2 success
                9: unpark
                plugins 2: deliver t/1 stamp 2 to ben
                2: deliver t/1 "c" qos=1 tag=3
                1: deliver t/1 "c" qos=1 tag=3
                9: published 3 success
        "#]],
    );
}

/// What plugins make is shown to none.
#[test]
fn there_are_no_loops() {
    check(
        begun(durable().open(), "publish t/# besides t/2=more\ngone anna tell t/3=gone\ndeliver t/# without nobody"),
        "
        pub 9 t/1 x qos=1 tag=1
        disc 1
        ",
        expect![[r#"
            pub 9 t/1 x qos=1 tag=1
                plugins 1: publish t/1 "x" of pub
                plugins 1: deliver t/1 stamp 1 to anna ben
                1: deliver t/2 "more" qos=1 tag=1
                2: deliver t/2 "more" qos=1 tag=1
                1: deliver t/1 "x" qos=1 tag=2
                2: deliver t/1 "x" qos=1 tag=2
                9: published 1 success
            disc 1
                2: deliver t/3 "gone" qos=1 tag=3
        "#]],
    );
}

/// Who follows a message sees what plugins did.
#[test]
fn what_plugins_did_is_told() {
    check(
        begun(
            durable().open(),
            "publish t/drop drop
             publish t/refuse refuse 131
             publish t/park park odd
             publish t/# become u/1
             deliver u/# without ben",
        ),
        "
        watch
        pub 9 t/drop x qos=1 tag=1
        pub 9 t/refuse x qos=1 tag=2
        pub 9 t/park x qos=1 tag=3
        pub 9 t/9 x qos=1 tag=4
        ",
        expect![[r#"
            watch
            pub 9 t/drop x qos=1 tag=1
                plugins 1: publish t/drop "x" of pub
                count plugin_dropped 1
                step 0 - published by pub - to t/drop qos=1 1 B, not kept
                step 0 - plugins dropped, not kept
                9: published 1 success
            pub 9 t/refuse x qos=1 tag=2
                plugins 1: publish t/refuse "x" of pub
                step 0 - published by pub - to t/refuse qos=1 1 B, not kept
                step 0 - plugins refused, not kept
                count plugin_refused 1
                9: published 2 implementation_specific_error
            pub 9 t/park x qos=1 tag=3
                plugins 1: publish t/park "x" of pub
                count plugin_parked 1
                step 0 - published by pub - to t/park qos=1 1 B, not kept
                step 0 - plugins parked, not kept
                9: published 3 success
            pub 9 t/9 x qos=1 tag=4
                plugins 1: publish t/9 "x" of pub
                plugins 1: deliver u/1 stamp 1 to anna ben
                step 0 - published by pub - to u/1 qos=1 1 B, not kept
                step 0 ben over left_out 0 after 0 sends, not kept
                count plugin_left_out 1
                step 0 anna queued, not kept
                step 0 anna sent 1 qos=1, not kept
                1: deliver u/1 "x" qos=1 tag=1
                step 0 - stored matched=true, not kept
                9: published 4 success
                step 0 - plugins changed, not kept
        "#]],
    );
}

/// A caller releases an older tag while parts wait in front of its next publish: that goes on all the same. (It once waited for an empty line, which
/// was never looked at again.)
#[test]
fn what_waits_for_parts_goes_on_whatever_else_is_answered() {
    check(
        begun(two(), "publish t/# split u/1=a u/2=b"),
        "
        stop 0
        pub 9 v/1 first qos=2 tag=1
        pub 9 t/1 x qos=2 tag=2
        rel 9 1
        go
        rel 9 2
        pub 9 v/1 next qos=1 tag=3
        ",
        expect![[r#"
            stop 0
            pub 9 v/1 first qos=2 tag=1
                plugins 1: publish v/1 "first" of pub
                2: deliver v/1 "first" qos=2 tag=1
                1: deliver v/1 "first" qos=2 tag=1
            pub 9 t/1 x qos=2 tag=2
                plugins 1: publish t/1 "x" of pub
                9: park
                2: deliver u/1 "a" qos=2 tag=2
                1: deliver u/1 "a" qos=2 tag=2
            rel 9 1
            go
                9: published 1 success
                9: unpark
                2: deliver u/2 "b" qos=2 tag=3
                1: deliver u/2 "b" qos=2 tag=3
                9: completed 1 success
                9: published 2 success
            rel 9 2
                9: completed 2 success
            pub 9 v/1 next qos=1 tag=3
                plugins 1: publish v/1 "next" of pub
                2: deliver v/1 "next" qos=1 tag=4
                1: deliver v/1 "next" qos=1 tag=4
                9: published 3 success
        "#]],
    );
}

/// Split, it is published once all the same: its key is that of the last part.
#[test]
fn a_split_message_keeps_its_key() {
    check(
        begun(two(), "publish t/# split u/1=a u/2=b"),
        "
        pub 9 t/1 x qos=1 tag=1 key=k
        pub 9 t/1 y qos=1 tag=2 key=k
        ",
        expect![[r#"
            pub 9 t/1 x qos=1 tag=1 key=k
                plugins 1: publish t/1 "x" of pub
                2: deliver u/1 "a" qos=1 tag=1
                2: deliver u/2 "b" qos=1 tag=2
                1: deliver u/1 "a" qos=1 tag=1
                1: deliver u/2 "b" qos=1 tag=2
                9: published 1 success
            pub 9 t/1 y qos=1 tag=2 key=k
                plugins 1: publish t/1 "y" of pub
                count key_conflict 1
                2: deliver u/1 "a" qos=1 tag=3
                1: deliver u/1 "a" qos=1 tag=3
                9: published 2 packet_identifier_in_use
        "#]],
    );
}

/// What a plugin publishes for a letter dies again, and again: it counts as a repeat, and is parked in the end.
#[test]
fn a_plugin_that_repairs_for_ever_is_ended() {
    let world = World::new(1, true, |config| config.limits.requeues_max = 2).open();
    check(
        begun(world, "letter t/# besides t/2=again"),
        "
        disc 2
        pub 9 t/1 x qos=1 tag=1
        ack 1 1 reason=131
        ack 1 2 reason=131
        ack 1 3 reason=131
        letters
        ",
        expect![[r#"
            disc 2
            pub 9 t/1 x qos=1 tag=1
                plugins 1: publish t/1 "x" of pub
                1: deliver t/1 "x" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/1 of anna refused
                1: deliver t/2 "again" qos=1 tag=2
            ack 1 2 reason=131
                count refused_by_receiver 1
                plugins 1: letter t/2 of anna refused
                1: deliver t/2 "again" qos=1 tag=3
            ack 1 3 reason=131
                count refused_by_receiver 1
            letters
                letter 0-0-30 t/2 "again" qos=1 of anna refused code=131 attempts=1 requeues=2 at 1001000 parked "died again after 2 requeues"
                that was all
        "#]],
    );
}

/// The handshake is the publisher's: QoS 2 stays. QoS 1 may be lowered, and is answered.
#[test]
fn the_level_of_a_handshake_stays() {
    check(
        begun(durable().open(), "publish t/# lower\npublish v/# lower"),
        "
        pub 9 t/1 x qos=2 tag=1
        pub 9 t/1 x qos=2 tag=1 dup
        rel 9 1
        pub 9 v/1 x qos=1 tag=2
        ",
        expect![[r#"
            pub 9 t/1 x qos=2 tag=1
                plugins 1: publish t/1 "x" of pub
                1: deliver t/1 "x" qos=2 tag=1
                2: deliver t/1 "x" qos=2 tag=1
                9: published 1 success
            pub 9 t/1 x qos=2 tag=1 dup
                9: published 1 success
            rel 9 1
                9: completed 1 success
            pub 9 v/1 x qos=1 tag=2
                plugins 1: publish v/1 "x" of pub
                1: deliver v/1 "x" qos=0
                2: deliver v/1 "x" qos=0
                9: published 2 success
        "#]],
    );
}
