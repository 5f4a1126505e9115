//! A queue that overflows into one message (`queue.policy = "full_sync"`) `[REL-1]`.

use expect_test::{Expect, expect};
use postroad_broker::{Config, QueuePolicy};

use crate::world::World;

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// A queue holds so many deliveries.
fn limit(messages: usize) -> impl Fn(&mut Config) {
    move |config| {
        config.limits.queue_policy = QueuePolicy::FullSync;
        config.limits.queue_messages_max = messages;
    }
}

/// One shard, with a log, and a client "anna" that is away.
fn away(tune: impl Fn(&mut Config)) -> World {
    let mut world = World::new(1, true, tune);
    world.run("connect 1 anna expiry=600\nsub 1 1 a:2\ndisc 1 lost\nconnect 9 pub");
    world
}

fn publish(world: &mut World, range: std::ops::RangeInclusive<u16>) -> String {
    range.map(|n| world.run(&format!("pub 9 a {n} qos=1 tag={n}"))).collect()
}

/// What connection `connection` was sent, in order.
fn delivered(output: &str, connection: u64) -> Vec<String> {
    let deliveries = output.lines().filter(|line| line.trim_start().starts_with(&format!("{connection}: deliver")));
    deliveries.map(|line| line.split('"').nth(1).unwrap_or_default().to_owned()).collect()
}

/// All that waits goes, the newcomer too, and the device gets one message instead; what comes later waits behind it.
#[test]
fn what_waits_becomes_one_message() {
    check(
        away(limit(3)).showing_log(),
        "pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=2 tag=2
         pub 9 a 3 qos=1 tag=3
         pub 9 a 4 qos=1 tag=4
         pub 9 a 5 qos=1 tag=5
         clients 10
         at 2000
         connect 2 anna expiry=600
         ack 2 1
         ack 2 2
         stats",
        expect![[r#"
            pub 9 a 1 qos=1 tag=1
                log 6 Publish to 1
                9: published 1 success
            pub 9 a 2 qos=2 tag=2
                log 7 Publish to 1
                9: published 2 success
            pub 9 a 3 qos=1 tag=3
                log 8 Publish to 1
                9: published 3 success
            pub 9 a 4 qos=1 tag=4
                log 9 Publish to 1
                log 10 Transfer 9 Overflow
                log 11 FullSync 10 from 6 dropped 4
                count queue_overflow 4
                log 12 Settle 6 Overflow
                log 13 Settle 7 Overflow
                log 14 Settle 8 Overflow
                9: published 4 success
            pub 9 a 5 qos=1 tag=5
                log 15 Publish to 1
                9: published 5 success
            clients 10
                anna - session 1 subscriptions 2+0 (53 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            at 2000
            connect 2 anna expiry=600
                log 16 Connected
                2: connected present=true
                2: deliver $sync/overflow "{\"dropped\":4,\"since_unix_ms\":1001000}" qos=1 tag=1
                2: deliver a "5" qos=1 tag=2
            ack 2 1
                log 17 Settle 10 Acknowledged
            ack 2 2
                log 18 Settle 15 Acknowledged
            stats
                sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=18
        "#]],
    );
}

/// A second overflow before the message has left: one message tells of both. Until one is acknowledged, the next one tells of all again.
#[test]
fn what_overflows_again_is_added() {
    check(
        away(limit(2)),
        "pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=1 tag=2
         pub 9 a 3 qos=1 tag=3
         at 2000
         pub 9 a 4 qos=1 tag=4
         pub 9 a 5 qos=1 tag=5
         connect 2 anna expiry=600 max=1
         pub 9 a 6 qos=1 tag=6
         pub 9 a 7 qos=1 tag=7
         pub 9 a 8 qos=1 tag=8
         ack 2 1
         ack 2 2
         pub 9 a 9 qos=1 tag=9
         pub 9 a 10 qos=1 tag=10
         pub 9 a 11 qos=1 tag=11
         ack 2 3",
        expect![[r#"
            pub 9 a 1 qos=1 tag=1
                9: published 1 success
            pub 9 a 2 qos=1 tag=2
                9: published 2 success
            pub 9 a 3 qos=1 tag=3
                count queue_overflow 3
                9: published 3 success
            at 2000
            pub 9 a 4 qos=1 tag=4
                9: published 4 success
            pub 9 a 5 qos=1 tag=5
                count queue_overflow 2
                9: published 5 success
            connect 2 anna expiry=600 max=1
                2: connected present=true
                2: deliver $sync/overflow "{\"dropped\":5,\"since_unix_ms\":1001000}" qos=1 tag=1
            pub 9 a 6 qos=1 tag=6
                9: published 6 success
            pub 9 a 7 qos=1 tag=7
                count queue_overflow 2
                9: published 7 success
            pub 9 a 8 qos=1 tag=8
                count queue_overflow 1
                9: published 8 success
            ack 2 1
                2: deliver $sync/overflow "{\"dropped\":8,\"since_unix_ms\":1001000}" qos=1 tag=2
            ack 2 2
            pub 9 a 9 qos=1 tag=9
                2: deliver a "9" qos=1 tag=3
                9: published 9 success
            pub 9 a 10 qos=1 tag=10
                9: published 10 success
            pub 9 a 11 qos=1 tag=11
                count queue_overflow 2
                9: published 11 success
            ack 2 3
                2: deliver $sync/overflow "{\"dropped\":2,\"since_unix_ms\":1002000}" qos=1 tag=4
        "#]],
    );
}

/// What is in flight stays, and is sent again after a reconnect, before the message.
#[test]
fn what_is_in_flight_stays() {
    check(
        World::new(1, true, limit(3)),
        "connect 1 anna expiry=600 max=2
         sub 1 1 a:2
         connect 9 pub
         pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=2 tag=2
         pub 9 a 3 qos=1 tag=3
         pub 9 a 4 qos=1 tag=4
         disc 1 lost
         connect 2 anna expiry=600 max=9
         ack 2 1
         rec 2 2
         comp 2 2
         ack 2 3",
        expect![[r#"
            connect 1 anna expiry=600 max=2
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            connect 9 pub
                9: connected present=false
            pub 9 a 1 qos=1 tag=1
                1: deliver a "1" qos=1 tag=1
                9: published 1 success
            pub 9 a 2 qos=2 tag=2
                1: deliver a "2" qos=2 tag=2
                9: published 2 success
            pub 9 a 3 qos=1 tag=3
                9: published 3 success
            pub 9 a 4 qos=1 tag=4
                count queue_overflow 2
                9: published 4 success
            disc 1 lost
            connect 2 anna expiry=600 max=9
                2: connected present=true
                2: deliver a "1" qos=1 tag=1 dup
                2: deliver a "2" qos=2 tag=2 dup
                2: deliver $sync/overflow "{\"dropped\":2,\"since_unix_ms\":1001000}" qos=1 tag=3
            ack 2 1
            rec 2 2
                2: release 2 success
            comp 2 2
            ack 2 3
        "#]],
    );
}

/// All of the queue is in flight: there is no room, and the message waits behind it and counts each newcomer.
#[test]
fn a_full_window_leaves_room_for_the_message_only() {
    check(
        World::new(1, true, limit(2)),
        "connect 1 anna expiry=600 max=2
         sub 1 1 a:1
         connect 9 pub
         pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=1 tag=2
         pub 9 a 3 qos=1 tag=3
         pub 9 a 4 qos=1 tag=4
         pub 9 a 5 qos=1 tag=5
         ack 1 1
         ack 1 2
         ack 1 3
         pub 9 a 6 qos=1 tag=6",
        expect![[r#"
            connect 1 anna expiry=600 max=2
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a 1 qos=1 tag=1
                1: deliver a "1" qos=1 tag=1
                9: published 1 success
            pub 9 a 2 qos=1 tag=2
                1: deliver a "2" qos=1 tag=2
                9: published 2 success
            pub 9 a 3 qos=1 tag=3
                count queue_overflow 1
                9: published 3 success
            pub 9 a 4 qos=1 tag=4
                count queue_overflow 1
                9: published 4 success
            pub 9 a 5 qos=1 tag=5
                count queue_overflow 1
                9: published 5 success
            ack 1 1
                1: deliver $sync/overflow "{\"dropped\":3,\"since_unix_ms\":1001000}" qos=1 tag=3
            ack 1 2
            ack 1 3
            pub 9 a 6 qos=1 tag=6
                1: deliver a "6" qos=1 tag=4
                9: published 6 success
        "#]],
    );
}

/// Bytes are a bound, too; a message that is larger than a queue may be is never queued, and told of.
#[test]
fn bytes_are_a_bound() {
    check(
        away(|config| {
            config.limits.queue_policy = QueuePolicy::FullSync;
            config.limits.queue_bytes_max = 80;
        }),
        "pub 9 a 0123456789012345678901234567890123456789 qos=1 tag=1
         pub 9 a 0123456789012345678901234567890123456789 qos=1 tag=2
         pub 9 a small qos=1 tag=3
         pub 9 a 012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 qos=1 tag=4
         connect 2 anna expiry=600",
        expect![[r#"
            pub 9 a 0123456789012345678901234567890123456789 qos=1 tag=1
                9: published 1 success
            pub 9 a 0123456789012345678901234567890123456789 qos=1 tag=2
                count queue_overflow 2
                9: published 2 success
            pub 9 a small qos=1 tag=3
                9: published 3 success
            pub 9 a 012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 qos=1 tag=4
                count queue_overflow 2
                9: published 4 success
            connect 2 anna expiry=600
                2: connected present=true
                2: deliver $sync/overflow "{\"dropped\":4,\"since_unix_ms\":1001000}" qos=1 tag=1
        "#]],
    );
}

/// The message survives a crash with its count, and what it stands for stays dropped, wherever the log was cut.
#[test]
fn a_crash_keeps_the_message_and_its_count() {
    let mut world = away(limit(3));
    publish(&mut world, 1..=3);
    world.run("hold");
    publish(&mut world, 4..=4);
    let output = world.run("crash\nflow\nconnect 2 anna expiry=600");
    assert_eq!(delivered(&output, 2), ["1", "2", "3"], "nobody was told of the fourth: {output}");
    let mut world = away(limit(3));
    publish(&mut world, 1..=5);
    world.run("crash\nconnect 9 pub");
    publish(&mut world, 6..=8);
    let output = world.run("connect 2 anna expiry=600");
    assert!(output.contains("dropped\\\":7,") && delivered(&output, 2).len() == 2, "four, then three: {output}");
}

/// What is stored is read to be dropped, in portions, whether its client is there or not, and counts no more meanwhile.
#[test]
fn what_is_stored_is_dropped_in_portions() {
    let tune = |config: &mut Config| {
        limit(10)(config);
        config.backlog_messages_max = 4;
    };
    let mut world = away(tune);
    publish(&mut world, 1..=8);
    world.run("retire");
    publish(&mut world, 9..=10);
    expect![[r#"
        pub 9 a 11 qos=1 tag=11
            count queue_overflow 11
            read backlog: 4 entries, end=false
            read backlog: 4 entries, end=false
            read backlog: 0 entries, end=true
            9: published 11 success
        pub 9 a 12 qos=1 tag=12
            9: published 12 success
        clients 10
            anna - session 1 subscriptions 2+0 (55 B)
            pub - here session 0 subscriptions 0+0 (0 B)
        retire
            ingest: 2 pending, 8 settled
    "#]]
    .assert_eq(&world.run("pub 9 a 11 qos=1 tag=11\npub 9 a 12 qos=1 tag=12\nclients 10\nretire"));
    let output = world.run("connect 2 anna expiry=600\nack 2 1\nack 2 2\nclients 10");
    assert_eq!(delivered(&output, 2).len(), 2, "{output}");
    assert!(output.contains("dropped\\\":11,") && output.contains("0+0 (0 B)"), "{output}");
}

/// The message itself may be retired, and the queue overflow again: its count is known.
#[test]
fn a_message_that_is_stored_is_replaced_as_well() {
    for crash in ["", "crash\nconnect 9 pub\n"] {
        let mut world = away(limit(3));
        publish(&mut world, 1..=5);
        world.run(&format!("retire\n{crash}"));
        publish(&mut world, 6..=8);
        world.run("retire");
        let output = world.run(&format!("{crash}connect 2 anna expiry=600"));
        assert!(output.contains("dropped\\\":7,"), "{crash:?}: {output}");
        assert_eq!(delivered(&output, 2).len(), 2, "{crash:?}: {output}");
    }
}

/// A crash while what is stored is being dropped: the rest is dropped after it, not delivered.
#[test]
fn a_crash_in_the_middle_drops_the_rest() {
    let tune = |config: &mut Config| {
        limit(10)(config);
        config.backlog_messages_max = 2;
        config.retired_per_step = 1;
    };
    let mut world = away(tune);
    publish(&mut world, 1..=6);
    world.run("retire");
    publish(&mut world, 7..=10);
    world.run("rest\nhold\npub 9 a 11 qos=1 tag=11\ncommit\ncrash\nwork\nflow\nconnect 9 pub");
    publish(&mut world, 12..=13);
    let output = world.run("retire\nconnect 2 anna expiry=600\nack 2 1\nack 2 2\nack 2 3\nclients 10");
    assert_eq!(delivered(&output, 2)[1..], ["12", "13"], "{output}");
    assert!(output.contains("dropped\\\":11,") && output.contains("0+0 (0 B)"), "{output}");
}

/// What was in flight when the server crashed and is older than what was dropped comes again.
#[test]
fn a_crash_does_not_take_what_was_in_flight() {
    let mut world = World::new(1, true, limit(4));
    world.run("connect 1 anna expiry=600 max=2\nsub 1 1 a:2\nconnect 9 pub");
    publish(&mut world, 1..=5);
    let output = world.run("crash\nconnect 2 anna expiry=600 max=9");
    assert_eq!(delivered(&output, 2)[1..], ["1", "2"], "the message goes first: {output}");
    assert!(output.contains("dropped\\\":3,"), "{output}");
}

/// A long queue is dropped in steps, and what the next overflow finds of it goes first.
#[test]
fn a_long_queue_is_dropped_in_steps() {
    let tune = |config: &mut Config| {
        limit(100)(config);
        config.retired_per_step = 8;
    };
    let mut world = away(tune).showing_log();
    publish(&mut world, 1..=100);
    let settled = |output: &str| output.matches("Settle").count();
    let now = world.run("rest\npub 9 a 101 qos=1 tag=101");
    assert_eq!(settled(&now), 8, "a step, {now}");
    let later = world.run("work");
    assert_eq!(settled(&later), 92, "{later}");
    publish(&mut world, 102..=200);
    let now = world.run("rest\npub 9 a 201 qos=1 tag=201");
    let again: usize = (202..=301).map(|n| settled(&world.run(&format!("pub 9 a {n} qos=1 tag={n}")))).sum();
    assert_eq!(settled(&now) + again, 8 + 92 + 8, "all of one before the next");
    let output = world.run("work\nconnect 2 anna expiry=600");
    assert!(output.contains("dropped\\\":301,"), "{output}");
}

/// In memory it is the same, but for the crash; and a session that the log does not know has no records.
#[test]
fn in_memory_as_well() {
    for (durable, expiry) in [(false, 600), (true, 0)] {
        let mut world = World::new(1, durable, limit(3));
        world.run(&format!("connect 1 anna expiry={expiry} pull\nsub 1 1 a:1\nconnect 9 pub"));
        publish(&mut world, 1..=8);
        let output = world.run("pub 1 $pull/9");
        assert!(output.contains("dropped\\\":7,") && delivered(&output, 1)[1..] == ["8"], "{output}");
        let output = publish(&mut world, 9..=10);
        assert!(output.contains("dropped\\\":1,") && delivered(&output, 1)[0] == "9", "it begins anew: {output}");
    }
}

/// Pushes wait in a queue of their own, which overflows by itself.
#[test]
fn a_registration_overflows_by_itself() {
    let mut world = World::new(1, true, limit(2)).open();
    world.run("connect 1 anna user=anna expiry=600\nsub 1 1 a:1\ndisc 1 lost\nconnect 9 pub");
    check(
        world,
        "pub 9 a 1 qos=1 tag=1
         pub 9 $client/anna/cmd 2 qos=1 tag=2
         pub 9 $client/anna/cmd 3 qos=1 tag=3
         pub 9 $client/anna/cmd 4 qos=1 tag=4
         connect 2 anna user=anna expiry=600",
        expect![[r#"
            pub 9 a 1 qos=1 tag=1
                9: published 1 success
            pub 9 $client/anna/cmd 2 qos=1 tag=2
                9: published 2 success
            pub 9 $client/anna/cmd 3 qos=1 tag=3
                9: published 3 success
            pub 9 $client/anna/cmd 4 qos=1 tag=4
                count queue_overflow 3
                9: published 4 success
            connect 2 anna user=anna expiry=600
                2: connected present=true
                2: deliver $sync/overflow "{\"dropped\":3,\"since_unix_ms\":1001000}" qos=1 tag=32768
                2: deliver a "1" qos=1 tag=1
        "#]],
    );
}

/// It is a delivery like any other: it is refused without becoming a letter, pulled by credit, and goes with its session.
#[test]
fn the_message_is_a_delivery_like_any_other() {
    check(
        away(limit(2)),
        "pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=1 tag=2
         pub 9 a 3 qos=1 tag=3
         connect 2 anna expiry=600 pull
         pub 2 $pull/1
         ack 2 1 reason=131
         letters
         pub 9 a 4 qos=1 tag=4
         pub 9 a 5 qos=1 tag=5
         pub 9 a 6 qos=1 tag=6
         connect 3 anna clean
         stats",
        expect![[r#"
            pub 9 a 1 qos=1 tag=1
                9: published 1 success
            pub 9 a 2 qos=1 tag=2
                9: published 2 success
            pub 9 a 3 qos=1 tag=3
                count queue_overflow 3
                9: published 3 success
            connect 2 anna expiry=600 pull
                2: connected present=true
            pub 2 $pull/1
                2: deliver $sync/overflow "{\"dropped\":3,\"since_unix_ms\":1001000}" qos=1 tag=1
            ack 2 1 reason=131
                count refused_by_receiver 1
            letters
                that was all
            pub 9 a 4 qos=1 tag=4
                9: published 4 success
            pub 9 a 5 qos=1 tag=5
                9: published 5 success
            pub 9 a 6 qos=1 tag=6
                count queue_overflow 3
                9: published 6 success
            connect 3 anna clean
                count taken_over 1
                2: close session_taken_over
                count session_ended 1
                3: connected present=false
            stats
                sessions=2 registrations=0 connections=2 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=23
        "#]],
    );
}

/// A member of a share group that overflows: what came by the group is dropped with the rest.
#[test]
fn a_member_of_a_group_overflows() {
    let mut world = World::new(1, true, limit(2));
    world.run("connect 1 anna expiry=600\nsub 1 1 $share/g/a:1\ndisc 1 lost\nconnect 9 pub");
    publish(&mut world, 1..=4);
    let output = world.run("connect 2 anna expiry=600");
    assert!(output.contains("dropped\\\":3,") && delivered(&output, 2).len() == 2, "{output}");
}

/// Other policies take over where the queue stands.
#[test]
fn a_new_policy_finds_the_message_in_its_place() {
    let mut world = away(limit(3));
    publish(&mut world, 1..=5);
    world.run("policy drop_oldest");
    publish(&mut world, 6..=7);
    let output = world.run("connect 2 anna expiry=600");
    assert_eq!(delivered(&output, 2)[1..], ["6", "7"], "the message is of high priority: {output}");
    assert!(output.contains("dropped\\\":4,"), "{output}");
    let mut world = away(|config| config.limits.queue_messages_max = 3);
    publish(&mut world, 1..=3);
    world.run("policy full_sync");
    publish(&mut world, 4..=4);
    let output = world.run("connect 2 anna expiry=600");
    assert!(output.contains("dropped\\\":4,") && delivered(&output, 2).len() == 1, "{output}");
}

/// One was sent, and whether it came is not known: after a crash it waits again, and when it has to make room itself, the next one
/// tells of what it told. (It was counted as one delivery, by seed 20315 of the simulator.)
#[test]
fn what_was_told_and_not_acknowledged_is_told_again() {
    let mut world = away(limit(2));
    publish(&mut world, 1..=3);
    let output = world.run("connect 2 anna expiry=600 max=1");
    assert!(output.contains("dropped\\\":3,"), "{output}");
    publish(&mut world, 4..=6);
    world.run("crash\nconnect 9 pub");
    publish(&mut world, 7..=7);
    let output = world.run("connect 3 anna expiry=600");
    let last = output.rsplit("dropped\\\":").next().unwrap().split(',').next().unwrap();
    assert!(last.parse::<u32>().unwrap() >= 7, "{output}");
}
