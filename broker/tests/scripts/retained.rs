//! Retained messages for new subscribers: all of them, in portions, nothing twice, nothing older after newer. And the
//! limits of what is retained and queued.
//!
//! With the test's placement on three shards, clients "a" and "h" live on shard 0, "b" on 1, "c" on 2; the topics
//! r/3 and r/4 on 0, r/2 and r/5 on 1, r/1 and r/6 on 2. On two shards, "a" and r/1 live on 0, "b" and r/3 on 1.

use crate::world::{World, durable, memory};
use expect_test::{Expect, expect};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

fn three() -> World {
    World::new(3, true, |_| {})
}

/// The deliveries of a run, in order: the payloads.
fn payloads(output: &str) -> Vec<String> {
    let lines = output.lines().filter(|line| line.contains(": deliver "));
    lines.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())).collect()
}

fn publish_retained(world: &mut World, count: usize, qos: u8) {
    for number in 0..count {
        let tag = if qos > 0 { format!("qos={qos} tag={}", number % 60_000 + 1) } else { String::new() };
        world.run(&format!("pub 1 r/{number:05} {number} {tag} retain"));
    }
}

/// A retained message was under way to its home when somebody subscribed, and its publisher did not know of the
/// subscription yet: the home answered without it, and it never came. Now the answer waits for a fence.
#[test]
fn what_is_on_its_way_to_its_home_is_not_missed() {
    check(
        three(),
        "
        connect 1 a
        connect 2 b
        cut 1 2
        pub 2 r/1 x qos=1 tag=1 retain
        sub 1 1 r/1:1
        join 1 2
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            cut 1 2
            pub 2 r/1 x qos=1 tag=1 retain
            sub 1 1 r/1:1
                1: subscribed 1 granted_qos_1
            join 1 2
                count no_subscriber 1
                2: published 1 no_matching_subscribers
                1: deliver r/1 "x" qos=1 tag=1 retain
        "#]],
    );
}

/// The same where the way to the home is held up by a commit: a QoS 2 message leaves after its own.
#[test]
fn what_waits_for_its_commit_is_not_missed() {
    check(
        three(),
        "
        connect 1 a
        connect 2 b expiry=60
        hold
        pub 2 r/1 x qos=2 tag=1 retain
        sub 1 1 r/1:1
        flow
        stats
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b expiry=60
                2: connected present=false
            hold
            pub 2 r/1 x qos=2 tag=1 retain
            sub 1 1 r/1:1
                1: subscribed 1 granted_qos_1
            flow
                count no_subscriber 1
                2: published 1 no_matching_subscribers
                1: deliver r/1 "x" qos=1 tag=1 retain
            stats
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=4 inflight=1 log=0
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=3
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=1 queued=0 bytes=0 inflight=0 log=1
        "#]],
    );
}

/// A retained message was at its home, and its live copy under way to a subscriber: it came twice, and with two of
/// them the older one came after the newer. Now a portion from another shard waits for what is under way.
#[test]
fn what_is_on_its_way_to_the_subscriber_comes_once_and_in_order() {
    check(
        three(),
        "
        connect 1 a
        connect 2 b
        connect 3 h
        sub 3 1 r/1
        cut 1 0
        pub 2 r/1 older qos=1 tag=1 retain
        pub 2 r/1 newer qos=1 tag=2 retain
        sub 1 1 r/1:1
        join 1 0
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 3 h
                3: connected present=false
            sub 3 1 r/1
                3: subscribed 1 success
            cut 1 0
            pub 2 r/1 older qos=1 tag=1 retain
            pub 2 r/1 newer qos=1 tag=2 retain
            sub 1 1 r/1:1
                1: subscribed 1 granted_qos_1
            join 1 0
                3: deliver r/1 "older" qos=0
                1: deliver r/1 "older" qos=1 tag=1
                3: deliver r/1 "newer" qos=0
                1: deliver r/1 "newer" qos=1 tag=2
                2: published 1 success
                2: published 2 success
        "#]],
    );
}

/// It comes live while the SUBACK waits, for a commit here or for another shard: that copy is the one.
#[test]
fn what_comes_live_before_the_suback_comes_once() {
    check(
        durable(),
        "
        connect 1 a expiry=60
        connect 2 b
        hold
        sub 1 1 r/#:1
        pub 2 r/1 x qos=1 tag=1 retain
        commit
        flow
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b
                2: connected present=false
            hold
            sub 1 1 r/#:1
            pub 2 r/1 x qos=1 tag=1 retain
            commit
                1: subscribed 1 granted_qos_1
                1: deliver r/1 "x" qos=1 tag=1
                2: published 1 success
            flow
        "#]],
    );
    check(
        three(),
        "
        connect 1 a
        connect 2 b
        cut 2 0
        sub 1 1 r/1:1
        pub 2 r/1 x qos=1 tag=1 retain
        join 2 0
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            cut 2 0
            sub 1 1 r/1:1
            pub 2 r/1 x qos=1 tag=1 retain
                1: deliver r/1 "x" qos=1 tag=1
                2: published 1 success
            join 2 0
                1: subscribed 1 granted_qos_1
        "#]],
    );
}

/// Cleared live while an answer with the older message is under way: the older one is not given.
#[test]
fn what_was_cleared_meanwhile_is_not_given() {
    check(
        three(),
        "
        connect 1 a
        connect 2 b
        connect 3 h
        sub 3 1 r/1
        pub 2 r/1 x qos=1 tag=1 retain
        cut 2 0
        sub 1 1 r/1:1
        pub 2 r/1 - qos=1 tag=2 retain
        join 2 0
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 3 h
                3: connected present=false
            sub 3 1 r/1
                3: subscribed 1 success
            pub 2 r/1 x qos=1 tag=1 retain
                3: deliver r/1 "x" qos=0
                2: published 1 success
            cut 2 0
            sub 1 1 r/1:1
                1: subscribed 1 granted_qos_1
            pub 2 r/1 - qos=1 tag=2 retain
                3: deliver r/1 "" qos=0
                1: deliver r/1 "" qos=1 tag=1
                2: published 2 success
            join 2 0
        "#]],
    );
}

/// Each subscription of a SUBSCRIBE gets its own `[MQTT-3.3.1-9]`; one that ends meanwhile gets no more.
#[test]
fn each_subscription_is_given_its_own() {
    check(
        three(),
        "
        connect 1 a
        connect 2 b
        pub 2 r/1 x retain
        pub 2 r/2 y retain
        sub 1 1 r/+:0,id=1 r/1:0,id=2 $share/g/r/1:0,id=3
        cut 2 0
        sub 1 2 r/1:0,id=4
        unsub 1 3 r/1
        join 2 0
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            pub 2 r/1 x retain
            pub 2 r/2 y retain
                count no_subscriber 1
            sub 1 1 r/+:0,id=1 r/1:0,id=2 $share/g/r/1:0,id=3
                1: subscribed 1 success success success
                1: deliver r/2 "y" qos=0 retain ids=[1]
                1: deliver r/1 "x" qos=0 retain ids=[1]
                1: deliver r/1 "x" qos=0 retain ids=[2]
            cut 2 0
            sub 1 2 r/1:0,id=4
                1: subscribed 2 success
            unsub 1 3 r/1
                1: unsubscribed 3 success
            join 2 0
        "#]],
    );
}

/// A thousand matches are a burst of a thousand deliveries no more: each turn gives a portion.
#[test]
fn a_turn_gives_a_portion() {
    let mut world = memory();
    world.run("connect 1 p");
    publish_retained(&mut world, 1_000, 0);
    world.run("connect 2 s");
    let got = payloads(&world.run("sub 2 1 #"));
    assert_eq!(got, (0..1_000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(world.burst_max <= 128, "{} deliveries in one turn", world.burst_max);
}

/// A client that subscribes again and again and takes nothing is given once in the end.
#[test]
fn subscribing_again_and_again_gives_once() {
    let mut world = World::new(1, true, |_| {});
    world.run("connect 1 p\nconnect 2 s expiry=60\ncongested 2");
    publish_retained(&mut world, 5, 0);
    for tag in 1..1_000 {
        world.run(&format!("sub 2 {tag} r/+:0 $SYS/x/{}:0", tag % 3));
    }
    assert_eq!(payloads(&world.run("writable 2")), ["0", "1", "2", "3", "4"]);
}

/// A connection that takes no more gets the rest when it does, and nothing that is retained is dropped.
#[test]
fn a_congested_connection_gets_the_rest_later() {
    let mut world = memory();
    world.run("connect 1 p");
    publish_retained(&mut world, 300, 0);
    world.run("connect 2 s");
    assert_eq!(payloads(&world.run("congested 2\nsub 2 1 #")), Vec::<String>::new());
    // It is dropped on its live way, since the connection is congested: the retained one is given later.
    let output = world.run("pub 1 r/00007 new retain");
    assert!(output.contains("count dropped_qos0_congested 1"), "{output}");
    let got = payloads(&world.run("writable 2"));
    assert_eq!(got.len(), 300);
    assert_eq!((&*got[6], &*got[7], &*got[8]), ("6", "new", "8"));
}

/// A live QoS 0 message is dropped while a portion is under way that holds the older one: that portion is asked for
/// again, else the newer one would never come.
#[test]
fn a_portion_that_lacks_what_was_dropped_is_asked_for_again() {
    check(
        World::new(2, true, |_| {}),
        "
        connect 1 a
        connect 2 h
        sub 2 1 r/3
        pub 2 r/3 older retain
        cut 1 0
        sub 1 1 r/3
        congested 1
        pub 2 r/3 newer retain
        writable 1
        join 1 0
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 h
                2: connected present=false
            sub 2 1 r/3
                2: subscribed 1 success
            pub 2 r/3 older retain
                2: deliver r/3 "older" qos=0
            cut 1 0
            sub 1 1 r/3
                1: subscribed 1 success
            congested 1
            pub 2 r/3 newer retain
                2: deliver r/3 "newer" qos=0
                count dropped_qos0_congested 1
            writable 1
            join 1 0
                1: deliver r/3 "newer" qos=0 retain
        "#]],
    );
}

/// A fence that is under way has passed some shard already: who comes now waits for the next one. On four shards, r/2
/// and u live on 2.
#[test]
fn a_fence_under_way_is_not_joined() {
    check(
        World::new(4, true, |_| {}),
        "
        connect 1 a
        connect 2 b
        connect 3 h
        cut 3 2
        sub 3 1 u
        cut 1 2
        pub 2 r/2 x qos=1 tag=1 retain
        sub 1 1 r/2:1
        join 3 2
        join 1 2
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 3 h
                3: connected present=false
            cut 3 2
            sub 3 1 u
                3: subscribed 1 success
            cut 1 2
            pub 2 r/2 x qos=1 tag=1 retain
            sub 1 1 r/2:1
                1: subscribed 1 granted_qos_1
            join 3 2
            join 1 2
                count no_subscriber 1
                2: published 1 no_matching_subscribers
                1: deliver r/2 "x" qos=1 tag=1 retain
        "#]],
    );
}

/// A hundred who subscribe at once wait for two rounds of fences, not for a hundred (ADR 7).
#[test]
fn a_crowd_shares_its_fences() {
    let mut world = three();
    let names = (0..).map(|number| format!("client-{number}"));
    let at_home: Vec<String> = names.filter(|name| world.home(name) == 0).take(100).collect();
    for (number, name) in at_home.iter().enumerate() {
        world.run(&format!("connect {number} {name}"));
    }
    let subscribe = |tag: usize| (0..100).map(|number| format!("sub {number} {tag} r/1\n")).collect::<String>();
    world.run(&subscribe(1));
    assert_eq!((world.fences, world.questions), (100 * 2, 100), "one after the other: each has its own round");
    (world.fences, world.questions) = (0, 0);
    world.run("cut 2 1");
    world.run(&subscribe(2));
    world.run("join 2 1");
    assert_eq!((world.fences, world.questions), (2 * 2, 100), "two rounds to two shards each");
}

/// The queue's limit is no limit of what a subscriber is given: it waits until there is room. So with a queue of
/// length 1.
#[test]
fn retained_messages_wait_for_room_in_the_queue() {
    for (messages_max, shards) in [(1, 1), (1, 2), (3, 1), (100_000, 2)] {
        let mut world = World::new(shards, true, |config| config.limits.queue_messages_max = messages_max);
        world.run("connect 1 b");
        publish_retained(&mut world, 300, 1);
        world.run("connect 2 a expiry=60 max=1");
        let mut output = world.run("sub 2 1 #:1");
        let mut got = Vec::new();
        for _ in 0..1_000 {
            let Some(line) = output.lines().rfind(|line| line.contains(": deliver ")) else { break };
            let tag = line.split("tag=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
            got.extend(payloads(&output));
            output = world.run(&format!("ack 2 {tag}"));
        }
        got.sort_by_key(|number| number.parse::<usize>().unwrap());
        let all: Vec<_> = (0..300).map(|number| number.to_string()).collect();
        assert_eq!(got, all, "{messages_max} messages at most, {shards} shards");
        assert!(world.queued_max() <= messages_max.min(64 + 128), "{} waited", world.queued_max());
    }
}

/// What does not fit into the bytes of a queue waits until it is empty; what never fits is counted.
#[test]
fn retained_messages_wait_for_bytes_in_the_queue() {
    let world = World::new(1, false, |config| config.limits.queue_bytes_max = 12);
    check(
        world,
        "
        connect 1 p
        pub 1 a 12345678 qos=1 tag=1 retain
        pub 1 b 12345678 qos=1 tag=2 retain
        pub 1 c 123456789012 qos=1 tag=3 retain
        pub 1 d 1 qos=1 tag=4 retain
        connect 2 s max=5
        sub 2 1 #:1
        ack 2 1
        ack 2 2
        ",
        expect![[r#"
            connect 1 p
                1: connected present=false
            pub 1 a 12345678 qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            pub 1 b 12345678 qos=1 tag=2 retain
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            pub 1 c 123456789012 qos=1 tag=3 retain
                count no_subscriber 1
                1: published 3 no_matching_subscribers
            pub 1 d 1 qos=1 tag=4 retain
                count no_subscriber 1
                1: published 4 no_matching_subscribers
            connect 2 s max=5
                2: connected present=false
            sub 2 1 #:1
                2: subscribed 1 granted_qos_1
                2: deliver a "12345678" qos=1 tag=1 retain
            ack 2 1
                2: deliver b "12345678" qos=1 tag=2 retain
            ack 2 2
                count queue_overflow 1
                2: deliver d "1" qos=1 tag=3 retain
        "#]],
    );
}

/// A session that loses its connection is given the rest when it is back; the queue holds no more for it meanwhile.
#[test]
fn a_reconnect_goes_on_where_it_was() {
    let mut world = World::new(2, true, |_| {});
    world.run("connect 1 b");
    publish_retained(&mut world, 500, 1);
    world.run("connect 2 a expiry=60 max=5");
    let first = payloads(&world.run("sub 2 1 #:1"));
    assert_eq!(first.len(), 5);
    world.run("disc 2 lost");
    assert!(world.queued_max() <= 64 + 128, "{} waited", world.queued_max());
    let mut output = world.run("connect 3 a expiry=60 max=5");
    let mut got = std::collections::BTreeSet::new();
    loop {
        let lines: Vec<&str> = output.lines().filter(|line| line.contains(": deliver ")).collect();
        let script: String = lines
            .iter()
            .filter_map(|line| line.split("tag=").nth(1)?.split(' ').next())
            .map(|tag| format!("ack 3 {tag}\n"))
            .collect();
        got.extend(payloads(&output));
        if script.is_empty() {
            break;
        }
        output = world.run(&script);
    }
    assert_eq!(got.len(), 500);
}

/// A crash, or two, does not end the giving: what was due is given when the client is back, from the old generation's
/// state as from the log; what had been given, or was unsubscribed from, is not due any more.
#[test]
fn what_is_due_is_given_after_a_crash() {
    check(
        World::new(2, true, |config| config.limits.queue_messages_max = 1),
        "
        connect 1 b
        pub 1 r/1 one qos=1 tag=1 retain
        pub 1 r/3 three qos=1 tag=2 retain
        pub 1 full x qos=1 tag=3 retain
        connect 2 a expiry=60
        sub 2 1 r/3:1
        ack 2 1
        sub 2 2 full:1 r/1:1 r/4:1
        unsub 2 3 r/4
        crash
        connect 3 a expiry=60
        retire
        crash
        connect 4 a expiry=60
        ack 4 1
        ack 4 2
        crash
        connect 5 a expiry=60
        stats
        ",
        expect![[r#"
            connect 1 b
                1: connected present=false
            pub 1 r/1 one qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            pub 1 r/3 three qos=1 tag=2 retain
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            pub 1 full x qos=1 tag=3 retain
                count no_subscriber 1
                1: published 3 no_matching_subscribers
            connect 2 a expiry=60
                2: connected present=false
            sub 2 1 r/3:1
                2: subscribed 1 granted_qos_1
                2: deliver r/3 "three" qos=1 tag=1 retain
            ack 2 1
            sub 2 2 full:1 r/1:1 r/4:1
                2: subscribed 2 granted_qos_1 granted_qos_1 granted_qos_1
                2: deliver full "x" qos=1 tag=2 retain
            unsub 2 3 r/4
                2: unsubscribed 3 success
            crash
            connect 3 a expiry=60
                3: connected present=true
                3: deliver full "x" qos=1 tag=1 dup retain
            retire
                ingest: 1 pending, 0 settled
                ingest: 0 pending, 0 settled
            crash
            connect 4 a expiry=60
                4: connected present=true
                read backlog: 1 entries, end=true
                4: deliver full "x" qos=1 tag=1 dup retain
            ack 4 1
                4: deliver r/1 "one" qos=1 tag=2 retain
            ack 4 2
            crash
            connect 5 a expiry=60
                5: connected present=true
                read backlog: 1 entries, end=true
            stats
                sessions=1 registrations=0 connections=1 subscriptions=3 retained=1 queued=0 bytes=0 inflight=0 log=8
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=2 queued=0 bytes=0 inflight=0 log=0
        "#]],
    );
}

/// No-local is about one's own messages. The number of a session that the log does not know was given again after a
/// restart: a message retained by the session of old was withheld from another client's.
#[test]
fn a_publisher_of_a_former_run_is_nobody() {
    check(
        durable(),
        "
        connect 1 a
        pub 1 r/1 x qos=1 tag=1 retain
        sub 1 1 r/1:1,nl
        crash
        connect 2 a
        sub 2 1 r/1:1,nl
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            pub 1 r/1 x qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            sub 1 1 r/1:1,nl
                1: subscribed 1 granted_qos_1
            crash
            connect 2 a
                2: connected present=false
            sub 2 1 r/1:1,nl
                2: subscribed 1 granted_qos_1
                2: deliver r/1 "x" qos=1 tag=1 retain
        "#]],
    );
}

/// A shard refuses a QoS 2 message that its home retains, and a new subscriber there is given it. After a crash the repeat
/// goes to those who had no room. (The one delivery stood for the whole shard: the publisher heard of success, and they got
/// nothing.)
#[test]
fn what_one_is_given_the_others_have_not_taken() {
    let mut world = World::new(2, true, |config| config.limits.queue_messages_max = 1);
    let new = ["c", "d", "e", "f", "g", "h"].into_iter().find(|name| world.home(name) == world.home("b"));
    let new = new.expect("some client lives there");
    assert!(world.home("a") == world.home("r/1") && world.home("a") != world.home("b"));
    let came = world.run(&format!(
        "
        connect 1 a expiry=60 v3
        connect 2 b expiry=60
        sub 2 1 r/1:2 full:1
        pub 1 full x qos=1 tag=1
        pub 1 r/1 once qos=2 tag=2 retain
        connect 3 {new} expiry=60
        sub 3 1 r/1:2
        rec 3 1
        comp 3 1
        "
    ));
    assert!(came.contains("1: published 2 quota_exceeded"), "{came}");
    assert!(came.contains("3: deliver r/1 \"once\" qos=2 tag=1 retain"), "{came}");
    let came = world.run(
        "
        crash
        connect 4 a expiry=60 v3
        connect 5 b expiry=60
        ack 5 1
        pub 4 r/1 once qos=2 tag=2 retain dup
        ",
    );
    assert!(came.contains("5: deliver r/1 \"once\" qos=2 tag=2"), "{came}");
    assert!(came.contains("4: published 2 success"), "{came}");
}

/// As many bytes as all retained messages may have; a newer one of the same size fits, a larger one does not, and the
/// older one stays. The publisher is told, also by another shard; what is cleared makes room.
#[test]
fn bytes_of_retained_messages_are_bounded() {
    let world = World::new(2, true, |config| config.limits.retained_bytes_max = 8);
    check(
        world,
        "
        connect 1 a
        connect 2 b
        pub 1 r/1 12345 qos=1 tag=1 retain
        pub 1 r/1 54321 qos=1 tag=2 retain
        pub 1 r/1 123456 qos=1 tag=3 retain
        pub 2 r/1 123456 qos=1 tag=1 retain
        pub 2 r/1 123456 qos=2 tag=2 retain
        pub 2 r/1 123456 retain
        pub 1 r/2 1 qos=1 tag=4 retain
        pub 1 r/1 - qos=1 tag=5 retain
        pub 1 r/2 12345 qos=1 tag=6 retain
        connect 3 h
        sub 3 1 #
        crash
        connect 4 a
        pub 4 r/1 1 qos=1 tag=1 retain
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            pub 1 r/1 12345 qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            pub 1 r/1 54321 qos=1 tag=2 retain
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            pub 1 r/1 123456 qos=1 tag=3 retain
                count retained_limit 1
                1: published 3 quota_exceeded
            pub 2 r/1 123456 qos=1 tag=1 retain
                count retained_limit 1
                2: published 1 quota_exceeded
            pub 2 r/1 123456 qos=2 tag=2 retain
                count retained_limit 1
                2: published 2 quota_exceeded
            pub 2 r/1 123456 retain
                count retained_limit 1
            pub 1 r/2 1 qos=1 tag=4 retain
                count retained_limit 1
                1: published 4 quota_exceeded
            pub 1 r/1 - qos=1 tag=5 retain
                count no_subscriber 1
                1: published 5 no_matching_subscribers
            pub 1 r/2 12345 qos=1 tag=6 retain
                count no_subscriber 1
                1: published 6 no_matching_subscribers
            connect 3 h
                3: connected present=false
            sub 3 1 #
                3: subscribed 1 success
                3: deliver r/2 "12345" qos=0 retain
            crash
            connect 4 a
                4: connected present=false
            pub 4 r/1 1 qos=1 tag=1 retain
                count retained_limit 1
                4: published 1 quota_exceeded
        "#]],
    );
}

/// Levels of a topic cost memory and time: beyond the limit a publish, a subscription and a will are refused.
#[test]
fn levels_of_a_topic_are_bounded() {
    let world = World::new(1, true, |config| config.limits.topic_levels_max = 3);
    check(
        world,
        "
        connect 1 a
        sub 1 1 a/b/c a/b/c/d +/+/+/# $share/g/a/b/c
        pub 1 a/b/c x qos=1 tag=1
        pub 1 a/b/c/d x qos=1 tag=2
        pub 1 ///// x qos=2 tag=3
        pub 1 a/b/c/d x
        connect 2 b will=a/b/c/d:x
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            sub 1 1 a/b/c a/b/c/d +/+/+/# $share/g/a/b/c
                count topic_levels 2
                1: subscribed 1 success topic_filter_invalid topic_filter_invalid success
            pub 1 a/b/c x qos=1 tag=1
                1: deliver a/b/c "x" qos=0
                1: deliver a/b/c "x" qos=0
                1: published 1 success
            pub 1 a/b/c/d x qos=1 tag=2
                count topic_levels 1
                1: published 2 topic_name_invalid
            pub 1 ///// x qos=2 tag=3
                count topic_levels 1
                1: published 3 topic_name_invalid
            pub 1 a/b/c/d x
                count topic_levels 1
            connect 2 b will=a/b/c/d:x
                2: refused topic_name_invalid
        "#]],
    );
}

/// What has moved to the old generation counts against the queue's limits, in messages and bytes, also after a restart.
#[test]
fn stored_deliveries_count_against_the_limits() {
    let world = World::new(1, true, |config| config.limits.queue_bytes_max = 16);
    check(
        world,
        "
        connect 1 s expiry=60
        sub 1 1 t:1
        disc 1 lost
        connect 2 p
        pub 2 t 1234567 qos=1 tag=1
        pub 2 t 1234567 qos=1 tag=2
        pub 2 t 1 qos=1 tag=3
        retire
        stats
        pub 2 t 1 qos=1 tag=4
        crash
        connect 3 p
        pub 3 t 1 qos=1 tag=1
        connect 4 s expiry=60
        ack 4 1
        pub 3 t 1 qos=1 tag=2
        ",
        expect![[r#"
            connect 1 s expiry=60
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 p
                2: connected present=false
            pub 2 t 1234567 qos=1 tag=1
                2: published 1 success
            pub 2 t 1234567 qos=1 tag=2
                2: published 2 success
            pub 2 t 1 qos=1 tag=3
                count queue_overflow 1
                2: published 3 quota_exceeded
            retire
                ingest: 2 pending, 0 settled
            stats
                sessions=2 registrations=0 connections=1 subscriptions=1 retained=0 queued=2 bytes=0 inflight=0 log=0
            pub 2 t 1 qos=1 tag=4
                count queue_overflow 1
                2: published 4 quota_exceeded
            crash
            connect 3 p
                3: connected present=false
            pub 3 t 1 qos=1 tag=1
                count queue_overflow 1
                3: published 1 quota_exceeded
            connect 4 s expiry=60
                4: connected present=true
                read backlog: 2 entries, end=true
                4: deliver t "1234567" qos=1 tag=1 dup
                4: deliver t "1234567" qos=1 tag=2 dup
            ack 4 1
            pub 3 t 1 qos=1 tag=2
                4: deliver t "1" qos=1 tag=3
                3: published 2 success
        "#]],
    );
    let world = World::new(1, true, |config| config.limits.queue_messages_max = 2);
    check(
        world,
        "
        connect 1 s expiry=60
        sub 1 1 t:1
        disc 1 lost
        connect 2 p
        pub 2 t 1 qos=1 tag=1
        pub 2 t 2 qos=1 tag=2
        retire
        crash
        connect 3 p
        pub 3 t 3 qos=1 tag=1
        ",
        expect![[r#"
            connect 1 s expiry=60
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 p
                2: connected present=false
            pub 2 t 1 qos=1 tag=1
                2: published 1 success
            pub 2 t 2 qos=1 tag=2
                2: published 2 success
            retire
                ingest: 2 pending, 0 settled
            crash
            connect 3 p
                3: connected present=false
            pub 3 t 3 qos=1 tag=1
                count queue_overflow 1
                3: published 1 quota_exceeded
        "#]],
    );
}

/// `drop_oldest` drops the oldest, also where those are stored: they are read to be dropped.
#[test]
fn the_oldest_is_dropped_where_it_is_stored() {
    let world = World::new(1, true, |config| {
        config.limits.queue_messages_max = 3;
        config.limits.queue_policy = postroad_broker::QueuePolicy::DropOldest;
    });
    check(
        world,
        "
        connect 1 s expiry=60
        sub 1 1 t:1
        disc 1 lost
        connect 2 p
        pub 2 t 1 qos=1 tag=1
        pub 2 t 2 qos=1 tag=2
        pub 2 t 3 qos=1 tag=3
        retire
        pub 2 t 4 qos=1 tag=4
        pub 2 t 5 qos=1 tag=5
        stats
        connect 3 s expiry=60
        ",
        expect![[r#"
            connect 1 s expiry=60
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 p
                2: connected present=false
            pub 2 t 1 qos=1 tag=1
                2: published 1 success
            pub 2 t 2 qos=1 tag=2
                2: published 2 success
            pub 2 t 3 qos=1 tag=3
                2: published 3 success
            retire
                ingest: 3 pending, 0 settled
            pub 2 t 4 qos=1 tag=4
                read backlog: 3 entries, end=true
                count queue_overflow 1
                2: published 4 success
            pub 2 t 5 qos=1 tag=5
                count queue_overflow 1
                2: published 5 success
            stats
                sessions=2 registrations=0 connections=1 subscriptions=1 retained=0 queued=3 bytes=6 inflight=0 log=4
            connect 3 s expiry=60
                3: connected present=true
                3: deliver t "3" qos=1 tag=1
                3: deliver t "4" qos=1 tag=2
                3: deliver t "5" qos=1 tag=3
        "#]],
    );
}

/// 15,000 clients that came at once stood in line to hear that nothing is retained for them, and cost 1 KiB each
/// meanwhile: the holes that this left in the heap were a fifth of what they cost for ever.
#[test]
fn for_whom_nothing_is_retained_stands_in_no_line() {
    let mut world = memory();
    world.run("connect 1 a\npub 1 r/1 x retain\npub 1 r/2 y retain expires=500");
    let output = world.run("sub 1 1 q/1\nsub 1 2 q/+\nsub 1 3 r/1/+\nunsub 1 4 q/1\nsub 1 5 q/1");
    assert_eq!((payloads(&output), world.ticks), (vec![], 0), "{output}");
    let output = world.run("sub 1 6 r/1\nsub 1 7 r/+");
    assert_eq!(payloads(&output), ["x", "x", "y"], "{output}");
    assert!(world.ticks > 0);
    world.run("pub 1 r/1 - retain\nat 2000");
    world.ticks = 0;
    let output = world.run("sub 1 8 r/1\nsub 1 9 r/+");
    assert_eq!((payloads(&output), world.ticks), (vec![], 0), "{output}");
}

/// Only few topics are looked at for that: who has a match behind more of others than those is given it.
#[test]
fn a_match_behind_many_others_is_found() {
    let mut world = memory();
    world.run("connect 1 a");
    (0..50).for_each(|number| drop(world.run(&format!("pub 1 t/{number:02}/other x retain"))));
    world.run("pub 1 t/99/last found retain");
    assert_eq!(payloads(&world.run("sub 1 1 t/+/last")), ["found"]);
}

/// It is noted as given: no crash brings it back, though something is retained by then.
#[test]
fn what_was_not_retained_is_not_given_after_a_crash() {
    check(
        durable(),
        "
        connect 1 a expiry=60
        connect 2 b
        sub 1 1 r/+:1
        pub 2 r/1 x qos=1 tag=1 retain
        ack 1 1
        crash
        connect 3 a expiry=60
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b
                2: connected present=false
            sub 1 1 r/+:1
                1: subscribed 1 granted_qos_1
            pub 2 r/1 x qos=1 tag=1 retain
                1: deliver r/1 "x" qos=1 tag=1
                2: published 1 success
            ack 1 1
            crash
            connect 3 a expiry=60
                3: connected present=true
        "#]],
    );
}
