//! Idempotency keys: a repeat is answered, not published again (DESIGN 3, `keys`).

use expect_test::{Expect, expect};
use postroad_broker::Config;

use crate::world::World;

/// A subscriber on connection 1, two connections of one user on 8 and 9.
fn world(shards: u16, durable: bool, tune: impl Fn(&mut Config)) -> World {
    let mut world = World::new(shards, durable, tune).open();
    world.run("connect 1 a expiry=600\n sub 1 1 t:2\n connect 8 r user=u\n connect 9 q user=u expiry=600");
    if durable { world.showing_log() } else { world }
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

#[test]
fn a_repeat_is_answered_as_the_first_publish_was() {
    check(
        world(1, true, |_| {}),
        "
        pub 8 t one qos=1 tag=1 key=k
        pub 8 t one qos=1 tag=2 key=k
        pub 9 t one qos=1 tag=3 key=k dup
        pub 9 t two qos=1 tag=4 key=k
        pub 9 nobody x qos=1 tag=5 key=l
        pub 9 nobody x qos=1 tag=6 key=l
        pub 9 t zero key=m
        pub 9 t zero key=m
        pub 9 t other key=m
        stats wishes
        ",
        expect![[r#"
            pub 8 t one qos=1 tag=1 key=k
                log 8 Key k ?
                log 9 Publish to 1
                log 10 Key k success
                1: deliver t "one" qos=1 tag=1
                8: published 1 success
            pub 8 t one qos=1 tag=2 key=k
                8: published 2 success
            pub 9 t one qos=1 tag=3 key=k dup
                9: published 3 success
            pub 9 t two qos=1 tag=4 key=k
                count key_conflict 1
                9: published 4 packet_identifier_in_use
            pub 9 nobody x qos=1 tag=5 key=l
                count no_subscriber 1
                log 11 Key l no_matching_subscribers
                9: published 5 no_matching_subscribers
            pub 9 nobody x qos=1 tag=6 key=l
                9: published 6 no_matching_subscribers
            pub 9 t zero key=m
                log 12 Key m ?
                1: deliver t "zero" qos=0
                log 13 Key m success
            pub 9 t zero key=m
            pub 9 t other key=m
                count key_conflict 1
            stats wishes
                keys=3 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// A repeat of QoS 2 under its tag is answered by the tag, as long as that is not released, however old the key is.
#[test]
fn at_qos_2_tag_and_key_both_hold() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t one qos=2 tag=1 key=k
        pub 9 t one qos=2 tag=1 key=k dup
        pub 9 t one qos=2 tag=2 key=k
        at 700000
        stats wishes
        pub 9 t one qos=2 tag=1 key=k dup
        rel 9 1
        pub 9 t one qos=2 tag=1 key=k
        ",
        expect![[r#"
            pub 9 t one qos=2 tag=1 key=k
                log 8 Key k ?
                log 9 Publish to 1
                log 10 Tagged 9 tag=1
                log 11 Key k success
                log 12 InboundBegin
                1: deliver t "one" qos=2 tag=1
                9: published 1 success
            pub 9 t one qos=2 tag=1 key=k dup
                9: published 1 success
            pub 9 t one qos=2 tag=2 key=k
                log 13 InboundBegin
                9: published 2 success
            at 700000
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
            pub 9 t one qos=2 tag=1 key=k dup
                9: published 1 success
            rel 9 1
                log 14 InboundEnd
                9: completed 1 success
            pub 9 t one qos=2 tag=1 key=k
                log 15 Key k ?
                log 16 Publish to 1
                log 17 Tagged 16 tag=2
                log 18 Key k success
                log 19 InboundBegin
                1: deliver t "one" qos=2 tag=2
                9: published 1 success
        "#]],
    );
}

#[test]
fn a_key_is_over_after_its_window_and_a_crowd_goes_in_steps() {
    let mut world = world(1, true, |config| config.limits.keys_window_ms = 10_000);
    for key in 0..2_000 {
        world.run(&format!("pub 9 nobody x qos=1 tag=1 key=k{key}"));
    }
    world.run("at 8000\n pub 9 t late qos=1 tag=1 key=late\n ack 1 1");
    assert_eq!(world.stats(|stats| stats.keys), 2_001);
    let ticks = world.ticks;
    world.run("at 11001");
    assert_eq!(world.stats(|stats| stats.keys), 1);
    assert!(world.ticks - ticks >= 3, "{} ticks have forgotten 2,000 keys", world.ticks - ticks);
    check(
        world,
        "
        pub 9 t late qos=1 tag=1 key=late
        pub 9 t new qos=1 tag=1 key=k7
        at 18000
        pub 9 t later qos=1 tag=2 key=late
        stats wishes
        ",
        expect![[r#"
            pub 9 t late qos=1 tag=1 key=late
                9: published 1 success
            pub 9 t new qos=1 tag=1 key=k7
                log 2012 Key k7 ?
                log 2013 Publish to 1
                log 2014 Key k7 success
                1: deliver t "new" qos=1 tag=2
                9: published 1 success
            at 18000
            pub 9 t later qos=1 tag=2 key=late
                log 2015 Key late ?
                log 2016 Publish to 1
                log 2017 Key late success
                1: deliver t "later" qos=1 tag=3
                9: published 2 success
            stats wishes
                keys=2 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

#[test]
fn keys_are_bounded_for_each_publisher_and_for_all() {
    let tune = |config: &mut Config| (config.limits.keys_max, config.limits.keys_total_max) = (2, 3);
    check(
        world(1, true, tune),
        "
        connect 5 x
        pub 8 t one qos=1 tag=1 key=a
        pub 9 t two qos=1 tag=1 key=b
        pub 9 t three qos=1 tag=2 key=c
        pub 9 t two qos=1 tag=3 key=b
        pub 5 t four qos=1 tag=1 key=a
        pub 5 t five qos=1 tag=2 key=b
        at 700000
        pub 9 t three qos=1 tag=2 key=c
        ",
        expect![[r#"
            connect 5 x
                5: connected present=false
            pub 8 t one qos=1 tag=1 key=a
                log 8 Key a ?
                log 9 Publish to 1
                log 10 Key a success
                1: deliver t "one" qos=1 tag=1
                8: published 1 success
            pub 9 t two qos=1 tag=1 key=b
                log 11 Key b ?
                log 12 Publish to 1
                log 13 Key b success
                1: deliver t "two" qos=1 tag=2
                9: published 1 success
            pub 9 t three qos=1 tag=2 key=c
                count key_limit 1
                9: published 2 quota_exceeded
            pub 9 t two qos=1 tag=3 key=b
                9: published 3 success
            pub 5 t four qos=1 tag=1 key=a
                log 14 Key a ?
                log 15 Publish to 1
                log 16 Key a success
                1: deliver t "four" qos=1 tag=3
                5: published 1 success
            pub 5 t five qos=1 tag=2 key=b
                count key_limit 1
                5: published 2 quota_exceeded
            at 700000
            pub 9 t three qos=1 tag=2 key=c
                log 17 Key c ?
                log 18 Publish to 1
                log 19 Key c success
                1: deliver t "three" qos=1 tag=4
                9: published 2 success
        "#]],
    );
}

/// Without a user a client is its own publisher.
#[test]
fn keys_of_two_publishers_have_nothing_to_do_with_each_other() {
    check(
        World::new(1, true, |_| {}).open(),
        "
        connect 1 a
        sub 1 1 t:1
        connect 2 b
        connect 3 c
        connect 4 b2 user=b
        pub 2 t one qos=1 tag=1 key=k
        pub 3 t two qos=1 tag=1 key=k
        pub 4 t three qos=1 tag=1 key=k
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            connect 2 b
                2: connected present=false
            connect 3 c
                3: connected present=false
            connect 4 b2 user=b
                4: connected present=false
            pub 2 t one qos=1 tag=1 key=k
                1: deliver t "one" qos=1 tag=1
                2: published 1 success
            pub 3 t two qos=1 tag=1 key=k
                1: deliver t "two" qos=1 tag=2
                3: published 1 success
            pub 4 t three qos=1 tag=1 key=k
                1: deliver t "three" qos=1 tag=3
                4: published 1 success
        "#]],
    );
}

#[test]
fn what_is_refused_frees_its_key() {
    let tune = |config: &mut Config| config.limits.queue_messages_max = 1;
    check(
        world(1, true, tune),
        "
        pub 9 t fills qos=1 tag=1
        pub 9 t refused qos=1 tag=2 key=k
        stats wishes
        ack 1 1
        pub 9 t another qos=1 tag=2 key=k
        stats wishes
        ",
        expect![[r#"
            pub 9 t fills qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "fills" qos=1 tag=1
                9: published 1 success
            pub 9 t refused qos=1 tag=2 key=k
                count queue_overflow 1
                9: published 2 quota_exceeded
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
            ack 1 1
                log 9 Settle 8 Acknowledged
            pub 9 t another qos=1 tag=2 key=k
                log 10 Key k ?
                log 11 Publish to 1
                log 12 Key k success
                1: deliver t "another" qos=1 tag=2
                9: published 2 success
            stats wishes
                keys=1 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// In the log a key stands in front of its message, and its answer behind it: whatever a crash cuts off, the repeat neither is lost nor
/// comes twice.
#[test]
fn a_crash_between_any_two_records() {
    let mut all = String::new();
    for kept in 0..4 {
        let mut world = world(1, true, |_| {});
        all.push_str(&world.run(&format!(
            "
            hold
            pub 8 t one qos=1 tag=1 key=k
            commit 0 {kept}
            crash
            flow
            connect 1 a expiry=600
            connect 8 r user=u
            pub 8 t one qos=1 tag=1 key=k dup
            pub 8 t one qos=1 tag=2 key=k
            pub 8 t two qos=1 tag=3 key=k
            "
        )));
        assert_eq!(world.remembered(0).0, 0, "with the answer nothing is remembered any more");
    }
    expect![[r#"
        hold
        pub 8 t one qos=1 tag=1 key=k
            log 8 Key k ?
            log 9 Publish to 1
            log 10 Key k success
        commit 0 0
        crash
            log 8 Disconnected
            log 9 Disconnected
        flow
        connect 1 a expiry=600
            log 10 Connected
            1: connected present=true
        connect 8 r user=u
            8: connected present=false
        pub 8 t one qos=1 tag=1 key=k dup
            log 11 Key k ?
            log 12 Publish to 1
            log 13 Key k success
            1: deliver t "one" qos=1 tag=1
            8: published 1 success
        pub 8 t one qos=1 tag=2 key=k
            8: published 2 success
        pub 8 t two qos=1 tag=3 key=k
            count key_conflict 1
            8: published 3 packet_identifier_in_use
        hold
        pub 8 t one qos=1 tag=1 key=k
            log 8 Key k ?
            log 9 Publish to 1
            log 10 Key k success
        commit 0 1
        crash
            log 9 Disconnected
            log 10 Disconnected
        flow
        connect 1 a expiry=600
            log 11 Connected
            1: connected present=true
        connect 8 r user=u
            8: connected present=false
        pub 8 t one qos=1 tag=1 key=k dup
            log 12 Publish to 1
            log 13 Key k success
            1: deliver t "one" qos=1 tag=1
            8: published 1 success
        pub 8 t one qos=1 tag=2 key=k
            8: published 2 success
        pub 8 t two qos=1 tag=3 key=k
            count key_conflict 1
            8: published 3 packet_identifier_in_use
        hold
        pub 8 t one qos=1 tag=1 key=k
            log 8 Key k ?
            log 9 Publish to 1
            log 10 Key k success
        commit 0 2
            1: deliver t "one" qos=1 tag=1
        crash
            log 10 Disconnected
            log 11 Disconnected
        flow
        connect 1 a expiry=600
            log 12 Connected
            1: connected present=true
            1: deliver t "one" qos=1 tag=1 dup
        connect 8 r user=u
            8: connected present=false
        pub 8 t one qos=1 tag=1 key=k dup
            log 13 Key k success
            8: published 1 success
        pub 8 t one qos=1 tag=2 key=k
            8: published 2 success
        pub 8 t two qos=1 tag=3 key=k
            count key_conflict 1
            8: published 3 packet_identifier_in_use
        hold
        pub 8 t one qos=1 tag=1 key=k
            log 8 Key k ?
            log 9 Publish to 1
            log 10 Key k success
        commit 0 3
            1: deliver t "one" qos=1 tag=1
            8: published 1 success
        crash
            log 11 Disconnected
            log 12 Disconnected
        flow
        connect 1 a expiry=600
            log 13 Connected
            1: connected present=true
            1: deliver t "one" qos=1 tag=1 dup
        connect 8 r user=u
            8: connected present=false
        pub 8 t one qos=1 tag=1 key=k dup
            8: published 1 success
        pub 8 t one qos=1 tag=2 key=k
            8: published 2 success
        pub 8 t two qos=1 tag=3 key=k
            count key_conflict 1
            8: published 3 packet_identifier_in_use
    "#]]
    .assert_eq(&all);
}

#[test]
fn keys_outlive_the_young_log() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t one qos=1 tag=1 key=k
        ack 1 1
        pub 9 nobody x qos=1 tag=1 key=l
        retire
        crash
        connect 9 q user=u
        pub 9 t one qos=1 tag=1 key=k
        pub 9 t two qos=1 tag=1 key=k
        pub 9 nobody x qos=1 tag=1 key=l
        at 700000
        stats wishes
        retire
        crash
        stats wishes
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 key=k
                log 8 Key k ?
                log 9 Publish to 1
                log 10 Key k success
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            ack 1 1
                log 11 Settle 9 Acknowledged
            pub 9 nobody x qos=1 tag=1 key=l
                count no_subscriber 1
                log 12 Key l no_matching_subscribers
                9: published 1 no_matching_subscribers
            retire
                ingest: 0 pending, 0 settled
            crash
                log 13 Disconnected
                log 14 Disconnected
            connect 9 q user=u
                log 15 Connected
                9: connected present=true
            pub 9 t one qos=1 tag=1 key=k
                9: published 1 success
            pub 9 t two qos=1 tag=1 key=k
                count key_conflict 1
                9: published 1 packet_identifier_in_use
            pub 9 nobody x qos=1 tag=1 key=l
                9: published 1 no_matching_subscribers
            at 700000
                count session_expired 1
                log 16 QueueEnd
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
            retire
                ingest: 0 pending, 0 settled
            crash
                log 17 Disconnected
                count session_expired 1
                log 18 QueueEnd
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

#[test]
fn in_memory_keys_are_there_as_long_as_the_server() {
    check(
        world(1, false, |_| {}),
        "
        pub 9 t one qos=2 tag=1 key=k
        pub 9 t one qos=1 tag=2 key=l
        pub 8 t one qos=1 tag=2 key=l
        pub 8 t two qos=1 tag=2 key=l
        ",
        expect![[r#"
            pub 9 t one qos=2 tag=1 key=k
                1: deliver t "one" qos=2 tag=1
                9: published 1 success
            pub 9 t one qos=1 tag=2 key=l
                1: deliver t "one" qos=1 tag=2
                9: published 2 success
            pub 8 t one qos=1 tag=2 key=l
                8: published 2 success
            pub 8 t two qos=1 tag=2 key=l
                count key_conflict 1
                8: published 2 packet_identifier_in_use
        "#]],
    );
}

// ---- two shards: "a" and "q" live on shard 0, "r" on shard 1; so does the key "there" of their user, "here" on shard 0 ----

fn two_shards(tune: impl Fn(&mut Config)) -> World {
    let world = world(2, true, tune);
    let homes = ["a", "r", "q"].map(|name| world.home(name));
    let keys = ["there", "here"].map(|key| world.home_of_key("u", key));
    assert_eq!((homes, keys), ([0, 1, 0], [1, 0]));
    world
}

/// The home of the key takes it in; the publisher's shard waits for it. A repeat waits for the same answer.
#[test]
fn a_key_lives_on_one_shard_whoever_uses_it() {
    check(
        two_shards(|_| {}),
        "
        pub 9 t one qos=1 tag=1 key=there
        pub 8 t one qos=1 tag=1 key=there
        pub 8 t two qos=2 tag=2 key=here
        pub 9 t two qos=2 tag=2 key=here
        pub 8 t three qos=2 tag=3 key=here
        rel 8 2
        rel 9 2
        stats wishes
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 key=there
                log 2 Key there ?
                log 7 Publish to 1
                1: deliver t "one" qos=1 tag=1
                log 3 Key there success
                9: published 1 success
            pub 8 t one qos=1 tag=1 key=there
                8: published 1 success
            pub 8 t two qos=2 tag=2 key=here
                log 8 Key here ?
                log 9 Publish to 1
                log 10 Tagged 9 tag=2
                log 11 Key here success
                1: deliver t "two" qos=2 tag=2
                8: published 2 success
            pub 9 t two qos=2 tag=2 key=here
                log 12 InboundBegin
                9: published 2 success
            pub 8 t three qos=2 tag=3 key=here
                count key_conflict 1
                8: published 3 packet_identifier_in_use
            rel 8 2
                8: completed 2 success
            rel 9 2
                log 13 InboundEnd
                9: completed 2 success
            stats wishes
                keys=1 scheduled=0 bytes=0 under_way=0
                keys=1 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

#[test]
fn a_repeat_while_it_is_under_way_waits_for_the_same_answer() {
    check(
        two_shards(|_| {}),
        "
        stop 0
        pub 8 t one qos=1 tag=1 key=there
        pub 8 t one qos=1 tag=2 key=there
        pub 8 t two qos=1 tag=3 key=there
        pub 9 t one qos=2 tag=1 key=there
        go
        ",
        expect![[r#"
            stop 0
            pub 8 t one qos=1 tag=1 key=there
                log 2 Key there ?
                log 7 Publish to 1
                1: deliver t "one" qos=1 tag=1
            pub 8 t one qos=1 tag=2 key=there
            pub 8 t two qos=1 tag=3 key=there
                count key_conflict 1
            pub 9 t one qos=2 tag=1 key=there
                log 8 InboundBegin
            go
                log 3 Key there success
                8: published 1 success
                8: published 2 success
                8: published 3 packet_identifier_in_use
                count key_conflict 1
                log 9 InboundEnd
                9: published 1 packet_identifier_in_use
        "#]],
    );
}

/// The answer of the other shard is lost with the crash: a repeat is routed again under the same id, and who has it is left out.
#[test]
fn a_crash_while_another_shard_answers() {
    check(
        two_shards(|_| {}),
        "
        stop 0
        pub 8 t one qos=1 tag=1 key=there
        crash
        go
        connect 1 a expiry=600
        connect 8 r user=u
        pub 8 t other qos=1 tag=1 key=there
        pub 8 t one qos=1 tag=1 key=there dup
        ack 1 1
        pub 8 t one qos=1 tag=2 key=there
        ",
        expect![[r#"
            stop 0
            pub 8 t one qos=1 tag=1 key=there
                log 2 Key there ?
                log 7 Publish to 1
                1: deliver t "one" qos=1 tag=1
            crash
                log 8 Disconnected
                log 9 Disconnected
            go
            connect 1 a expiry=600
                log 10 Connected
                1: connected present=true
                1: deliver t "one" qos=1 tag=1 dup
            connect 8 r user=u
                8: connected present=false
            pub 8 t other qos=1 tag=1 key=there
                count key_conflict 1
                8: published 1 packet_identifier_in_use
            pub 8 t one qos=1 tag=1 key=there dup
                log 3 Key there success
                8: published 1 success
            ack 1 1
                log 11 Settle 7 Acknowledged
            pub 8 t one qos=1 tag=2 key=there
                8: published 2 success
        "#]],
    );
}

/// The same, and the other shard has it, and has let it go from its young log.
#[test]
fn a_crash_before_the_answer_is_logged() {
    let mut world = two_shards(|_| {});
    let out = world.run(
        "
        cut 0 1
        pub 8 t one qos=1 tag=1 key=there
        ack 1 1
        retire
        crash
        join 0 1
        connect 1 a expiry=600
        connect 8 r user=u
        pub 8 t one qos=1 tag=1 key=there dup
        ",
    );
    assert_eq!([0, 1].map(|shard| world.remembered(shard).0), [0, 0]);
    expect![[r#"
        cut 0 1
        pub 8 t one qos=1 tag=1 key=there
            log 2 Key there ?
            log 7 Publish to 1
            1: deliver t "one" qos=1 tag=1
        ack 1 1
            log 8 Settle 7 Acknowledged
        retire
            ingest: 0 pending, 0 settled
            ingest: 0 pending, 0 settled
        crash
            log 9 Disconnected
            log 10 Disconnected
        join 0 1
        connect 1 a expiry=600
            log 11 Connected
            1: connected present=true
        connect 8 r user=u
            8: connected present=false
        pub 8 t one qos=1 tag=1 key=there dup
            log 3 Key there success
            8: published 1 success
    "#]]
    .assert_eq(&out);
}

/// Another shard has no room: its publisher hears it. The same body goes to those who have not got it, another one takes the key.
#[test]
fn what_another_shard_refuses_can_be_sent_again() {
    let tune = |config: &mut Config| config.limits.queue_messages_max = 1;
    let mut world = two_shards(tune);
    let out = world.run(
        "
        connect 2 p2 expiry=600
        sub 2 1 t:1
        pub 9 t fills qos=1 tag=1
        ack 2 1
        pub 8 t one qos=1 tag=1 key=there
        ack 1 1
        pub 8 t one qos=1 tag=2 key=there
        ack 2 2
        ack 1 2
        pub 9 t fills qos=1 tag=1
        ack 2 3
        pub 8 t two qos=1 tag=3 key=here
        pub 8 t three qos=1 tag=4 key=here
        ack 1 3
        ack 2 4
        pub 8 t three qos=1 tag=4 key=here
        pub 8 t two qos=1 tag=4 key=here
        ",
    );
    assert_eq!(world.home("p2"), 1);
    expect![[r#"
        connect 2 p2 expiry=600
            log 2 QueueBegin
            2: connected present=false
        sub 2 1 t:1
            log 3 Subscribe
            log 4 RetainedDue
            2: subscribed 1 granted_qos_1
            log 5 RetainedGiven
        pub 9 t fills qos=1 tag=1
            log 7 Publish to 1
            log 6 Publish to 1
            1: deliver t "fills" qos=1 tag=1
            2: deliver t "fills" qos=1 tag=1
            9: published 1 success
        ack 2 1
            log 7 Settle 6 Acknowledged
        pub 8 t one qos=1 tag=1 key=there
            log 8 Key there ?
            log 9 Publish to 1
            2: deliver t "one" qos=1 tag=2
            log 10 Key there quota_exceeded
            8: published 1 quota_exceeded
        ack 1 1
            log 8 Settle 7 Acknowledged
        pub 8 t one qos=1 tag=2 key=there
            log 9 Publish to 1
            1: deliver t "one" qos=1 tag=2
            log 11 Key there success
            8: published 2 success
        ack 2 2
            log 12 Settle 9 Acknowledged
        ack 1 2
            log 10 Settle 9 Acknowledged
        pub 9 t fills qos=1 tag=1
            log 11 Publish to 1
            log 13 Publish to 1
            1: deliver t "fills" qos=1 tag=3
            2: deliver t "fills" qos=1 tag=3
            9: published 1 success
        ack 2 3
            log 14 Settle 13 Acknowledged
        pub 8 t two qos=1 tag=3 key=here
            count queue_overflow 1
            8: published 3 quota_exceeded
        pub 8 t three qos=1 tag=4 key=here
            count queue_overflow 1
            8: published 4 quota_exceeded
        ack 1 3
            log 12 Settle 11 Acknowledged
        ack 2 4
            count unknown_tag 1
        pub 8 t three qos=1 tag=4 key=here
            log 13 Key here ?
            log 14 Publish to 1
            1: deliver t "three" qos=1 tag=4
            log 15 Publish to 1
            2: deliver t "three" qos=1 tag=4
            log 15 Key here success
            8: published 4 success
        pub 8 t two qos=1 tag=4 key=here
            count key_conflict 1
            8: published 4 packet_identifier_in_use
    "#]]
    .assert_eq(&out);
}

/// One credit of each kind: each shard's keyed publish waits on the other for a credit of data, and both go on.
#[test]
fn two_shards_that_ask_each_other_do_not_wait_for_ever() {
    let tune = |config: &mut Config| config.mesh_credits = 1;
    check(
        two_shards(tune),
        "
        connect 2 p2 expiry=600
        sub 2 1 t:1
        connect 7 p4 user=u
        stop 0
        stop 1
        pub 9 t one qos=1 tag=1 key=there
        pub 9 t two qos=1 tag=2 key=k2
        pub 8 t three qos=1 tag=1 key=here
        pub 8 t four qos=1 tag=2 key=here
        pub 7 t five qos=1 tag=1
        go
        ",
        expect![[r#"
            connect 2 p2 expiry=600
                log 2 QueueBegin
                2: connected present=false
            sub 2 1 t:1
                log 3 Subscribe
                log 4 RetainedDue
                2: subscribed 1 granted_qos_1
                log 5 RetainedGiven
            connect 7 p4 user=u
                log 6 Register
                7: connected present=false
            stop 0
            stop 1
            pub 9 t one qos=1 tag=1 key=there
            pub 9 t two qos=1 tag=2 key=k2
                9: park
            pub 8 t three qos=1 tag=1 key=here
            pub 8 t four qos=1 tag=2 key=here
                8: park
            pub 7 t five qos=1 tag=1
                log 7 Publish to 1
                2: deliver t "five" qos=1 tag=1
            go
                log 7 Key here ?
                log 8 Publish to 1
                log 9 Publish to 1
                1: deliver t "three" qos=1 tag=1
                1: deliver t "five" qos=1 tag=2
                log 8 Publish to 1
                7: published 1 success
                log 9 Key there ?
                log 10 Publish to 1
                2: deliver t "three" qos=1 tag=2
                2: deliver t "one" qos=1 tag=3
                log 10 Key here success
                log 11 Publish to 1
                8: published 1 success
                8: unpark
                count key_conflict 1
                8: published 2 packet_identifier_in_use
                1: deliver t "one" qos=1 tag=3
                log 11 Key there success
                9: published 1 success
                9: unpark
                log 12 Key k2 ?
                log 13 Publish to 1
                2: deliver t "two" qos=1 tag=4
                log 12 Publish to 1
                1: deliver t "two" qos=1 tag=4
                log 14 Key k2 success
                9: published 2 success
        "#]],
    );
}

/// Without an answer from a slow shard: what is newer need not be kept for it, only the oldest are.
#[test]
fn a_slow_shard_does_not_make_the_others_keep_all() {
    let mut world = two_shards(|config| config.routing_max = 2);
    world.run("stop 0");
    for number in 0..20 {
        world.run(&format!("pub 8 t {number} qos=1 tag={} key=k{number}", number + 1));
    }
    world.run("go");
    let remembered = [0, 1].map(|shard| world.remembered(shard));
    assert!(remembered.iter().all(|(told, kept)| *told == 0 && *kept <= 4), "{remembered:?}");
}

/// QoS 0 that is parked when its client leaves is taken in under its key.
#[test]
fn a_client_leaves_with_a_keyed_message_behind() {
    check(
        two_shards(|config| config.mesh_credits = 1),
        "
        stop 0
        pub 8 t one qos=1 tag=1
        pub 8 t zero key=there
        disc 8
        go
        connect 8 r user=u
        pub 8 t other key=there
        ",
        expect![[r#"
            stop 0
            pub 8 t one qos=1 tag=1
                log 7 Publish to 1
                1: deliver t "one" qos=1 tag=1
            pub 8 t zero key=there
                8: park
            disc 8
            go
                log 2 Key there ?
                log 3 Key there no_matching_subscribers
                1: deliver t "zero" qos=0
            connect 8 r user=u
                8: connected present=false
            pub 8 t other key=there
                count key_conflict 1
        "#]],
    );
}

/// Callers of the API hear which message the key holds: each time the same.
#[test]
fn callers_hear_which_message_it_is() {
    check(
        two_shards(|_| {}),
        "
        connect 7 p4 caller user=u
        pub 7 t one qos=1 tag=1 key=there
        at 5000
        pub 7 t one qos=1 tag=2 key=there
        pub 7 t zero key=k2
        pub 7 t zero key=k2
        pub 7 t one key=k2
        ",
        expect![[r#"
            connect 7 p4 caller user=u
                7: connected present=false
            pub 7 t one qos=1 tag=1 key=there
                log 2 Key there ?
                log 7 Publish to 1
                1: deliver t "one" qos=1 tag=1
                log 3 Key there success
                7: taken Some(1) at 1001000
                7: published 1 success
            at 5000
            pub 7 t one qos=1 tag=2 key=there
                7: taken Some(2) at 1001000
                7: published 2 success
            pub 7 t zero key=k2
                log 4 Key k2 ?
                log 5 Key k2 no_matching_subscribers
                7: taken None at 1005000
                1: deliver t "zero" qos=0
            pub 7 t zero key=k2
                7: taken None at 1005000
            pub 7 t one key=k2
                count key_conflict 1
        "#]],
    );
}

/// What one shard has refused and another one has taken leaves its key free for another message.
#[test]
fn after_a_refusal_by_some_another_body_takes_the_key() {
    let mut world = two_shards(|config| config.limits.queue_messages_max = 1);
    let out = world.run(
        "
        connect 2 p2 expiry=600
        sub 2 1 t:1
        pub 9 t fills qos=1 tag=1
        ack 2 1
        pub 8 t one qos=1 tag=1 key=there
        crash
        connect 1 a expiry=600
        ack 1 1
        connect 2 p2 expiry=600
        ack 2 1
        connect 8 r user=u
        pub 8 t two qos=1 tag=1 key=there
        pub 8 t one qos=1 tag=1 key=there
        ",
    );
    assert_eq!([0, 1].map(|shard| world.remembered(shard).0), [0, 0]);
    expect![[r#"
        connect 2 p2 expiry=600
            log 2 QueueBegin
            2: connected present=false
        sub 2 1 t:1
            log 3 Subscribe
            log 4 RetainedDue
            2: subscribed 1 granted_qos_1
            log 5 RetainedGiven
        pub 9 t fills qos=1 tag=1
            log 7 Publish to 1
            log 6 Publish to 1
            1: deliver t "fills" qos=1 tag=1
            2: deliver t "fills" qos=1 tag=1
            9: published 1 success
        ack 2 1
            log 7 Settle 6 Acknowledged
        pub 8 t one qos=1 tag=1 key=there
            log 8 Key there ?
            log 9 Publish to 1
            2: deliver t "one" qos=1 tag=2
            log 10 Key there quota_exceeded
            8: published 1 quota_exceeded
        crash
            log 8 Disconnected
            log 9 Disconnected
            log 11 Disconnected
        connect 1 a expiry=600
            log 10 Connected
            1: connected present=true
            1: deliver t "fills" qos=1 tag=1 dup
        ack 1 1
            log 11 Settle 7 Acknowledged
        connect 2 p2 expiry=600
            log 12 Connected
            2: connected present=true
            2: deliver t "one" qos=1 tag=1 dup
        ack 2 1
            log 13 Settle 9 Acknowledged
        connect 8 r user=u
            8: connected present=false
        pub 8 t two qos=1 tag=1 key=there
            log 14 Key there ?
            log 15 Publish to 1
            2: deliver t "two" qos=1 tag=2
            log 12 Publish to 1
            1: deliver t "two" qos=1 tag=2
            log 16 Key there success
            8: published 1 success
        pub 8 t one qos=1 tag=1 key=there
            count key_conflict 1
            8: published 1 packet_identifier_in_use
    "#]]
    .assert_eq(&out);
}
