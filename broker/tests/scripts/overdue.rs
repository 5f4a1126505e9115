//! Deliveries that nobody acknowledges: sent again after a break, given up in the end (REL-2, REL-6, RTM-1).

use crate::world::World;
use expect_test::{Expect, expect};

/// Three attempts, 10 s.
fn world(durable: bool) -> World {
    let tune = |config: &mut postroad_broker::Config| {
        config.limits.retry.attempts_max = 3;
        config.limits.retry.age_max_ms = 10_000;
    };
    let mut world = World::new(1, durable, tune).open();
    world.run("connect 1 a expiry=600\n sub 1 1 t:1 u:2\n connect 9 pub");
    if durable { world.showing_log() } else { world }
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// The age counts while the client is here. What is given up becomes a letter at once, and its packet identifier is free
/// once the client answers.
#[test]
fn what_is_not_acknowledged_for_long_is_given_up() {
    check(
        world(true),
        "
        pub 9 t one qos=1 tag=1
        at 6000
        disc 1 lost
        at 100000
        connect 2 a expiry=600
        pub 9 t two qos=1 tag=2
        at 102000
        ack 2 2
        at 105500
        ack 2 1
        ack 2 1
        letters
        crash
        letters
        connect 3 a expiry=600
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 6000
            disc 1 lost
                log 9 Disconnected
            at 100000
            connect 2 a expiry=600
                log 10 Connected
                2: connected present=true
                log 11 Attempt 8 2
                2: deliver t "one" qos=1 tag=1 dup
            pub 9 t two qos=1 tag=2
                log 12 Publish to 1
                2: deliver t "two" qos=1 tag=2
                9: published 2 success
            at 102000
            ack 2 2
                log 13 Settle 12 Acknowledged
            at 105500
                log 14 QueueBegin
                log 15 Transfer 8 Unacknowledged
            ack 2 1
                count late_acknowledgement 1
            ack 2 1
                count unknown_tag 1
            letters
                letter 0-0-15 t "one" qos=1 of a unacknowledged code=0 attempts=2 requeues=0 at 1105500
                that was all
            crash
                log 16 Disconnected
            letters
                letter 0-0-15 t "one" qos=1 of a unacknowledged code=0 attempts=2 requeues=0 at 1105500
                that was all
            connect 3 a expiry=600
                log 17 Connected
                3: connected present=true
        "#]],
    );
}

/// At QoS 2 the client may have it: only the release is left, now or after a reconnect, also after a crash.
#[test]
fn at_qos_2_the_release_is_left() {
    check(
        world(true),
        "
        pub 9 u one qos=2 tag=1
        pub 9 u two qos=2 tag=2
        at 12000
        letters
        rec 1 1
        comp 1 1
        crash
        connect 2 a expiry=600
        comp 2 2
        crash
        connect 3 a expiry=600
        letters
        ",
        expect![[r#"
            pub 9 u one qos=2 tag=1
                log 8 Publish to 1
                log 9 Tagged 8 tag=1
                1: deliver u "one" qos=2 tag=1
                9: published 1 success
            pub 9 u two qos=2 tag=2
                log 10 Publish to 1
                log 11 Tagged 10 tag=2
                1: deliver u "two" qos=2 tag=2
                9: published 2 success
            at 12000
                log 12 QueueBegin
                log 13 Publish to 1
                log 14 Received 8
                log 15 Publish to 1
                log 16 Received 10
            letters
                letter 0-0-13 u "one" qos=2 of a unacknowledged code=0 attempts=1 requeues=0 at 1012000
                letter 0-0-15 u "two" qos=2 of a unacknowledged code=0 attempts=1 requeues=0 at 1012000
                that was all
            rec 1 1
                count late_acknowledgement 1
                1: release 1 success
            comp 1 1
                log 17 Settle 8 Unacknowledged
            crash
                log 18 Disconnected
            connect 2 a expiry=600
                log 19 Connected
                2: connected present=true
                2: release 2 success
            comp 2 2
                log 20 Settle 10 Acknowledged
            crash
                log 21 Disconnected
            connect 3 a expiry=600
                log 22 Connected
                3: connected present=true
            letters
                letter 0-0-13 u "one" qos=2 of a unacknowledged code=0 attempts=1 requeues=0 at 1012000
                letter 0-0-15 u "two" qos=2 of a unacknowledged code=0 attempts=1 requeues=0 at 1012000
                that was all
        "#]],
    );
}

/// Each break of the connection is an attempt, and is counted through a crash. The fourth is not made.
#[test]
fn what_was_sent_too_often_is_given_up() {
    check(
        world(true),
        "
        pub 9 t one qos=1 tag=1
        pub 9 u two qos=2 tag=2
        disc 1 lost
        connect 2 a expiry=600
        disc 2 lost
        crash
        connect 3 a expiry=600
        disc 3 lost
        connect 4 a expiry=600
        comp 4 1
        letters
        retire
        crash
        connect 5 a expiry=600
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            pub 9 u two qos=2 tag=2
                log 9 Publish to 1
                log 10 Tagged 9 tag=2
                1: deliver u "two" qos=2 tag=2
                9: published 2 success
            disc 1 lost
                log 11 Disconnected
            connect 2 a expiry=600
                log 12 Connected
                2: connected present=true
                log 13 Attempt 8 2
                2: deliver t "one" qos=1 tag=1 dup
                log 14 Attempt 9 2
                2: deliver u "two" qos=2 tag=2 dup
            disc 2 lost
                log 15 Disconnected
            crash
            connect 3 a expiry=600
                log 16 Connected
                3: connected present=true
                log 17 Attempt 8 3
                3: deliver t "one" qos=1 tag=3 dup
                log 18 Attempt 9 3
                3: deliver u "two" qos=2 tag=2 dup
            disc 3 lost
                log 19 Disconnected
            connect 4 a expiry=600
                log 20 Connected
                4: connected present=true
                log 21 QueueBegin
                log 22 Transfer 8 Attempts
                log 23 Publish to 1
                log 24 Received 9
                4: release 2 success
            comp 4 1
                count unknown_tag 1
            letters
                letter 0-0-22 t "one" qos=1 of a attempts code=0 attempts=3 requeues=0 at 1001000
                letter 0-0-23 u "two" qos=2 of a attempts code=0 attempts=3 requeues=0 at 1001000
                that was all
            retire
                ingest: 2 pending, 0 settled
            crash
                log 25 Disconnected
            connect 5 a expiry=600
                log 26 Connected
                5: connected present=true
                5: release 2 success
        "#]],
    );
}

/// Without a log it is the same.
#[test]
fn in_memory_too() {
    check(
        world(false),
        "
        pub 9 t one qos=1 tag=1
        at 12000
        letters
        ack 1 1
        pub 9 t two qos=1 tag=2
        disc 1 lost
        connect 2 a expiry=600
        disc 2 lost
        connect 3 a expiry=600
        disc 3 lost
        connect 4 a expiry=600
        letters
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 12000
            letters
                letter 0-140737488355331-2 t "one" qos=1 of a unacknowledged code=0 attempts=1 requeues=0 at 1012000
                that was all
            ack 1 1
                count late_acknowledgement 1
            pub 9 t two qos=1 tag=2
                1: deliver t "two" qos=1 tag=2
                9: published 2 success
            disc 1 lost
            connect 2 a expiry=600
                2: connected present=true
                2: deliver t "two" qos=1 tag=2 dup
            disc 2 lost
            connect 3 a expiry=600
                3: connected present=true
                3: deliver t "two" qos=1 tag=2 dup
            disc 3 lost
            connect 4 a expiry=600
                4: connected present=true
            letters
                letter 0-140737488355331-2 t "one" qos=1 of a unacknowledged code=0 attempts=1 requeues=0 at 1012000
                letter 0-140737488355331-5 t "two" qos=1 of a attempts code=0 attempts=3 requeues=0 at 1012000
                that was all
        "#]],
    );
}

/// A connection whose whole window was given up consumes nothing: it is closed, and its session gets the rest when it is back.
#[test]
fn a_stuck_consumer_is_closed() {
    let mut world = world(true);
    world.run("connect 2 a expiry=600 max=2");
    check(
        world,
        "
        pub 9 t one qos=1 tag=1
        pub 9 t two qos=1 tag=2
        pub 9 t three qos=1 tag=3
        at 12000
        connect 3 a expiry=600
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 10 Publish to 1
                2: deliver t "one" qos=1 tag=1
                9: published 1 success
            pub 9 t two qos=1 tag=2
                log 11 Publish to 1
                2: deliver t "two" qos=1 tag=2
                9: published 2 success
            pub 9 t three qos=1 tag=3
                log 12 Publish to 1
                9: published 3 success
            at 12000
                log 13 QueueBegin
                log 14 Transfer 10 Unacknowledged
                log 15 Transfer 11 Unacknowledged
                count stuck_consumer 1
                2: close implementation_specific_error
                log 16 Disconnected
            connect 3 a expiry=600
                log 17 Connected
                3: connected present=true
                3: deliver t "three" qos=1 tag=3
        "#]],
    );
}

/// Who acknowledges in time is left alone, and nothing is looked at while nothing is in flight.
#[test]
fn an_idle_connection_is_not_looked_at() {
    let mut world = world(false);
    world.run("pub 9 t one qos=1 tag=1\n ack 1 1");
    let before = world.ticks;
    world.run("at 2000\n at 4000\n at 20000\n at 40000");
    assert!(world.ticks - before <= 2, "{} ticks", world.ticks - before);
}

/// What becomes of a QoS 2 delivery that was sent too often is told when its release is over: it ended for its attempts.
#[test]
fn a_release_ends_what_was_given_up_for_its_own_reason() {
    let mut world = World::new(1, true, |_| {}).open();
    world.run("connect 1 a expiry=600 v3\n sub 1 1 t:2\n connect 9 pub");
    check(
        world.showing_log(),
        "
        pub 9 t one qos=2 tag=1 attempts=1
        pub 9 t two qos=2 tag=2 attempts=1
        at 6000
        road 1 80 of 80
        rec 1 1
        comp 1 1
        rec 1 2 reason=128
        ",
        expect![[r#"
            pub 9 t one qos=2 tag=1 attempts=1
                log 5 Publish to 1
                log 6 Tagged 5 tag=1
                1: deliver t "one" qos=2 tag=1
                9: published 1 success
            pub 9 t two qos=2 tag=2 attempts=1
                log 7 Publish to 1
                log 8 Tagged 7 tag=2
                1: deliver t "two" qos=2 tag=2
                9: published 2 success
            at 6000
                1: probe
            road 1 80 of 80
                log 9 QueueBegin
                log 10 Publish to 1
                log 11 Received 5
                log 12 Publish to 1
                log 13 Received 7
            rec 1 1
                count late_acknowledgement 1
                1: release 1 success
            comp 1 1
                log 14 Settle 5 Attempts
            rec 1 2 reason=128
                count late_acknowledgement 1
                log 15 Settle 7 Attempts
        "#]],
    );
}

/// From a parked connection nothing is read, acknowledgements neither: its clocks stand still.
#[test]
fn what_is_parked_does_not_grow_too_old() {
    let mut world = World::new(1, true, |config| config.answers_max = 1).open();
    world.run("connect 1 a expiry=600\n sub 1 1 t:1\n connect 9 pub expiry=600\n sub 9 1 u:1");
    check(
        world,
        "
        pub 9 t one qos=1 tag=1 age=3000
        hold
        pub 1 u x qos=1 tag=1
        pub 1 u y qos=1 tag=2
        pub 1 u z qos=1 tag=3
        at 4000
        at 9000
        at 13950
        flow
        commit
        at 14050
        ack 1 1
        letters
        stats
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 age=3000
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            hold
            pub 1 u x qos=1 tag=1
            pub 1 u y qos=1 tag=2
                1: park
            pub 1 u z qos=1 tag=3
            at 4000
            at 9000
            at 13950
            flow
                9: deliver u "x" qos=1 tag=1
                1: published 1 success
                9: deliver u "y" qos=1 tag=2
                1: published 2 success
                9: deliver u "z" qos=1 tag=3
                1: published 3 success
                1: unpark
            commit
            at 14050
            ack 1 1
            letters
                that was all
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=6 inflight=3 log=13
        "#]],
    );
}

/// Nothing is read from a connection for ten seconds: that was no time in which its client could acknowledge, also once it is over.
#[test]
fn the_time_of_parking_is_no_age() {
    let mut world = World::new(1, true, |config| config.answers_max = 1).open();
    world.run("connect 1 a expiry=600\n sub 1 1 t:1\n connect 9 pub expiry=600\n sub 9 1 u:1");
    let output = world.run(
        "
        pub 9 t one qos=1 tag=1 age=3000
        hold
        pub 1 u x qos=1 tag=1
        pub 1 u y qos=1 tag=2
        at 4000
        at 9000
        at 13950
        flow
        commit
        at 14100
        at 14300
        ack 1 1",
    );
    assert!(!output.contains("late_acknowledgement"), "{output}");
}
