//! What is not acknowledged on a connection that lives: sent again, later and later, given up in the end (REL-2, REL-4 to REL-6,
//! RTM-1).

use crate::world::World;
use expect_test::{Expect, expect};

/// Deadlines of 5 s, 10 s, 20 s …; one resend at once, then a backoff of 1 s that is all chance but for half of it.
fn world(durable: bool) -> World {
    let tune = |config: &mut postroad_broker::Config| {
        config.limits.retry.immediate = 1;
        config.limits.retry.backoff_min_ms = 1_000;
        config.limits.retry.attempts_max = 4;
    };
    let mut world = World::new(1, durable, tune).open();
    world.run("connect 1 a expiry=600 v3\n sub 1 1 t/#:1 u:2\n connect 9 pub");
    if durable { world.showing_log() } else { world }
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// [RTM-1] The deadline is over, the road is clear: it goes out again at once, as one more attempt.
#[test]
fn what_is_late_is_sent_again_at_once() {
    check(
        world(true),
        "
        pub 9 t one qos=1 tag=1
        at 5900
        due
        at 6000
        road 1 40 of 40
        at 8000
        ack 1 1
        ack 1 1
        stats
        at 60000
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 5900
            due
                due in 100 ms
            at 6000
                1: probe
            road 1 40 of 40
                log 9 Attempt 8 2
                1: deliver t "one" qos=1 tag=1 dup
            at 8000
            ack 1 1
                log 10 Settle 8 Acknowledged
            ack 1 1
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=0 inflight=0 log=10
            at 60000
        "#]],
    );
}

/// [REL-4] Connected is not deliverable: while a byte of the last copy is on its way nothing is sent, and the acknowledgement
/// may lie unread.
#[test]
fn nothing_is_sent_while_the_road_is_busy() {
    check(
        world(false),
        "
        pub 9 t one qos=1 tag=1
        at 6000
        road 1 30 of 40
        at 11000
        road 1 39 of 900
        at 16000
        road 1 40 of 900 unread
        client a
        at 21000
        road 1 40 of 900
        client a
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 30 of 40
            at 11000
                1: probe
            road 1 39 of 900
            at 16000
                1: probe
            road 1 40 of 900 unread
            client a
                RoadState { round_trip_ms: None, ack_timeout_ms: Some(5000), overdue: 1 }
            at 21000
                1: probe
            road 1 40 of 900
                1: deliver t "one" qos=1 tag=1 dup
            client a
                RoadState { round_trip_ms: None, ack_timeout_ms: Some(5000), overdue: 0 }
        "#]],
    );
}

/// The mark is where the last copies ended: what was sent behind it is not covered.
#[test]
fn what_was_sent_behind_the_mark_waits_for_its_own() {
    check(
        world(false),
        "
        pub 9 t one qos=1 tag=1
        at 6000
        road 1 0 of 40
        pub 9 t two qos=1 tag=2
        at 11000
        road 1 40 of 80
        at 16000
        road 1 40 of 120
        at 21000
        road 1 120 of 120
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 0 of 40
            pub 9 t two qos=1 tag=2
                1: deliver t "two" qos=1 tag=2
                9: published 2 success
            at 11000
                1: probe
            road 1 40 of 80
                1: deliver t "one" qos=1 tag=1 dup
            at 16000
                1: probe
            road 1 40 of 120
            at 21000
                1: probe
            road 1 120 of 120
                1: deliver t "two" qos=1 tag=2 dup
        "#]],
    );
}

/// One resend at once, then with a backoff; the fourth attempt is the last.
#[test]
fn later_resends_wait_besides_and_the_last_attempt_is_followed_by_a_letter() {
    check(
        world(true),
        "
        pub 9 t one qos=1 tag=1
        at 6000
        road 1 40 of 40
        at 16000
        due
        at 17000
        road 1 80 of 80
        at 37000
        due
        at 39000
        road 1 120 of 120
        at 79000
        road 1 120 of 120
        ack 1 1
        ack 1 1
        ack 1 1
        ack 1 1
        ack 1 1
        letters
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 40 of 40
                log 9 Attempt 8 2
                1: deliver t "one" qos=1 tag=1 dup
            at 16000
            due
                due in 600 ms
            at 17000
                1: probe
            road 1 80 of 80
                log 10 Attempt 8 3
                1: deliver t "one" qos=1 tag=1 dup
            at 37000
            due
                due in 1700 ms
            at 39000
                1: probe
            road 1 120 of 120
                log 11 Attempt 8 4
                1: deliver t "one" qos=1 tag=1 dup
            at 79000
                1: probe
            road 1 120 of 120
                log 12 QueueBegin
                log 13 Transfer 8 Attempts
            ack 1 1
                count late_acknowledgement 1
            ack 1 1
            ack 1 1
            ack 1 1
            ack 1 1
                count unknown_tag 1
            letters
                letter 0-0-13 t "one" qos=1 of a attempts code=0 attempts=4 requeues=0 at 1079000
                that was all
        "#]],
    );
}

/// Age ends it, however many attempts are left, and on whichever connection.
#[test]
fn age_counts_through_resends_and_reconnects() {
    let mut world = world(true);
    world.run("retry t/# age=12000");
    check(
        world,
        "
        pub 9 t one qos=1 tag=1
        at 6000
        road 1 40 of 40
        disc 1 lost
        at 100000
        connect 2 a expiry=600 v3
        at 105000
        road 2 40 of 40
        at 106900
        at 107000
        letters
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 40 of 40
                log 9 Attempt 8 2
                1: deliver t "one" qos=1 tag=1 dup
            disc 1 lost
                log 10 Disconnected
            at 100000
            connect 2 a expiry=600 v3
                log 11 Connected
                2: connected present=true
                log 12 Attempt 8 3
                2: deliver t "one" qos=1 tag=1 dup
            at 105000
                2: probe
            road 2 40 of 40
                log 13 Attempt 8 4
                2: deliver t "one" qos=1 tag=1 dup
            at 106900
            at 107000
                log 14 QueueBegin
                log 15 Transfer 8 Unacknowledged
            letters
                letter 0-0-15 t "one" qos=1 of a unacknowledged code=0 attempts=4 requeues=0 at 1107000
                that was all
        "#]],
    );
}

/// The answer to the first copy comes when the second one is out: it is settled once, and its packet identifier is used
/// again only after the second answer. Else that would acknowledge another message.
#[test]
fn a_tag_is_taken_until_every_copy_is_answered() {
    let mut world = world(false);
    world.run("pub 9 t one qos=1 tag=1\n at 6000\n road 1 40 of 40\n ack 1 1");
    let next: String = (2..=17).map(|n| format!("pub 9 t n{n} qos=1 tag={n}\n ack 1 {}\n", (n - 1) % 16 + 1)).collect();
    let sent = world.run(&next);
    assert!(sent.contains("\"n17\" qos=1 tag=2"), "tag 1 is passed by: {sent}");
    check(
        world,
        "
        ack 1 2
        ack 1 1
        pub 9 t last qos=1 tag=40
        stats
        ",
        expect![[r#"
            ack 1 2
            ack 1 1
                count unknown_tag 1
            pub 9 t last qos=1 tag=40
                1: deliver t "last" qos=1 tag=3
                9: published 40 success
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=5 inflight=1 log=0
        "#]],
    );
}

/// Both halves: PUBLISH until PUBREC, PUBREL until PUBCOMP.
#[test]
fn qos_2_repeats_the_half_that_is_not_answered() {
    check(
        world(true),
        "
        pub 9 u one qos=2 tag=1
        at 6000
        road 1 40 of 40
        at 8000
        rec 1 1
        rec 1 1
        at 13000
        road 1 50 of 50
        at 23000
        at 24000
        road 1 60 of 60
        comp 1 1
        comp 1 1
        comp 1 1
        comp 1 1
        comp 1 1
        stats
        ",
        expect![[r#"
            pub 9 u one qos=2 tag=1
                log 8 Publish to 1
                log 9 Tagged 8 tag=1
                1: deliver u "one" qos=2 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 40 of 40
                log 10 Attempt 8 2
                1: deliver u "one" qos=2 tag=1 dup
            at 8000
            rec 1 1
                log 11 Received 8
                1: release 1 success
            rec 1 1
                1: release 1 success
            at 13000
                1: probe
            road 1 50 of 50
                1: release 1 success
            at 23000
            at 24000
                1: probe
            road 1 60 of 60
                1: release 1 success
            comp 1 1
                log 12 Settle 8 Acknowledged
            comp 1 1
            comp 1 1
            comp 1 1
            comp 1 1
                count unknown_tag 1
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=0 inflight=0 log=12
        "#]],
    );
}

/// A client that answers each delivery once, however often it was sent, uses up all packet identifiers in the end: its
/// connection is closed, and the next one has all of them.
#[test]
fn a_client_that_leaves_copies_unanswered_is_closed_when_no_tag_is_left() {
    let tune = |config: &mut postroad_broker::Config| {
        (config.limits.inflight_max, config.resent_per_tick) = (u16::MAX, 1 << 20)
    };
    let mut world = World::new(1, false, tune).open();
    world.run("connect 1 a expiry=600 v3 max=65535\n sub 1 1 t:1\n connect 9 pub");
    let all = |verb: &str| (1..=32_767).map(|n| verb.replace('N', &n.to_string()) + "\n").collect::<String>();
    world.run(&all("pub 9 t x qos=1 tag=N"));
    let resent = world.run("at 6000\n road 1 40 of 40\n road 1 40 of 40\n road 1 40 of 40\n road 1 40 of 40");
    assert_eq!(resent.matches("dup").count(), 32_767);
    world.run(&all("ack 1 N"));
    check(
        world,
        "
        stats
        pub 9 t last qos=1 tag=7
        connect 2 a expiry=600 v3
        ",
        expect![[r#"
            stats
                sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=0
            pub 9 t last qos=1 tag=7
                9: published 7 success
                count stuck_consumer 1
                1: close implementation_specific_error
            connect 2 a expiry=600 v3
                2: connected present=true
                2: deliver t "last" qos=1 tag=1
        "#]],
    );
}

/// An operator may want it as MQTT 5 has it for everybody.
#[test]
fn nothing_is_sent_again_live_if_an_operator_wants_it_so() {
    let mut world = World::new(1, false, |config: &mut postroad_broker::Config| {
        config.limits.resend = postroad_broker::Resend::Reconnect
    })
    .open();
    world.run("connect 1 a expiry=600 v3\n sub 1 1 t:1\n connect 9 pub");
    check(
        world,
        "
        pub 9 t one qos=1 tag=1
        at 1000000
        client a
        disc 1 lost
        connect 2 a expiry=600 v3
        at 2000000
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 1000000
            client a
                RoadState { round_trip_ms: None, ack_timeout_ms: None, overdue: 0 }
            disc 1 lost
            connect 2 a expiry=600 v3
                2: connected present=true
                2: deliver t "one" qos=1 tag=1 dup
            at 2000000
        "#]],
    );
}

/// [MQTT-4.4.0-1] Never on MQTT 5.
#[test]
fn mqtt_5_is_never_sent_anything_again() {
    let mut world = world(false);
    world.run("connect 5 b expiry=600\n sub 5 1 t:1");
    check(
        world,
        "
        pub 9 t one qos=1 tag=1
        ack 1 1
        due
        at 1000000
        road 5 0 of 0
        at 2000000
        client b
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                5: deliver t "one" qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            ack 1 1
            due
                due in 5000 ms
            at 1000000
            road 5 0 of 0
            at 2000000
            client b
                RoadState { round_trip_ms: None, ack_timeout_ms: None, overdue: 0 }
        "#]],
    );
}

/// [REL-6] What a topic says goes before the configuration, what a publisher wishes before both, whatever its receivers speak.
#[test]
fn topics_and_publishers_have_policies_of_their_own() {
    let mut world = world(false);
    world.run("connect 5 b expiry=600\n sub 5 1 t/old:1 t/wish:1\n retry t/twice attempts=2 immediate=9\n retry t/old age=3000");
    check(
        world,
        "
        pub 9 t/twice one qos=1 tag=1
        pub 9 t/old two qos=1 tag=2
        pub 9 t/wish three qos=1 tag=3 attempts=1 age=4500
        at 4000
        at 5500
        at 6000
        road 1 100 of 100
        at 16000
        road 1 150 of 150
        letters
        ",
        expect![[r#"
            pub 9 t/twice one qos=1 tag=1
                1: deliver t/twice "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/old two qos=1 tag=2
                5: deliver t/old "two" qos=1 tag=1
                1: deliver t/old "two" qos=1 tag=2
                9: published 2 success
            pub 9 t/wish three qos=1 tag=3 attempts=1 age=4500
                5: deliver t/wish "three" qos=1 tag=2
                1: deliver t/wish "three" qos=1 tag=3
                9: published 3 success
            at 4000
            at 5500
            at 6000
                1: probe
            road 1 100 of 100
                1: deliver t/twice "one" qos=1 tag=1 dup
            at 16000
                1: probe
            road 1 150 of 150
            letters
                letter 0-140737488355332-4 t/old "two" qos=1 of a unacknowledged code=0 attempts=1 requeues=0 at 1004000
                letter 0-140737488355332-5 t/old "two" qos=1 of b unacknowledged code=0 attempts=1 requeues=0 at 1004000
                letter 0-140737488355332-8 t/wish "three" qos=1 of b unacknowledged code=0 attempts=1 requeues=0 at 1005500
                letter 0-140737488355332-9 t/wish "three" qos=1 of a unacknowledged code=0 attempts=1 requeues=0 at 1005500
                letter 0-140737488355332-12 t/twice "one" qos=1 of a attempts code=0 attempts=2 requeues=0 at 1016000
                that was all
        "#]],
    );
}

/// A wish for one attempt: not sent again, live or after a reconnect.
#[test]
fn a_wish_for_one_attempt_holds_live_and_after_a_reconnect() {
    let mut world = world(true);
    world.run("connect 5 b expiry=600\n sub 5 1 t:1");
    check(
        world,
        "
        pub 9 t one qos=1 tag=1 attempts=1
        disc 5 lost
        connect 6 b expiry=600
        at 6000
        road 1 40 of 40
        letters
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 attempts=1
                log 12 Publish to 2
                5: deliver t "one" qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            disc 5 lost
                log 13 Disconnected
            connect 6 b expiry=600
                log 14 Connected
                6: connected present=true
                log 15 QueueBegin
                log 16 Transfer 12 Attempts
            at 6000
                1: probe
            road 1 40 of 40
                log 17 Transfer 12 Attempts
            letters
                letter 0-0-16 t "one" qos=1 of b attempts code=0 attempts=1 requeues=0 at 1001000
                letter 0-0-17 t "one" qos=1 of a attempts code=0 attempts=1 requeues=0 at 1006000
                that was all
        "#]],
    );
}

/// [PER-2] Attempts are counted through a crash; the resends of a connection begin anew with the next one.
#[test]
fn a_crash_keeps_the_attempts() {
    check(
        world(true),
        "
        pub 9 t one qos=1 tag=1
        at 6000
        road 1 40 of 40
        at 17000
        road 1 80 of 80
        crash
        connect 2 a expiry=600 v3
        at 22000
        road 2 40 of 40
        letters
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                log 8 Publish to 1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 40 of 40
                log 9 Attempt 8 2
                1: deliver t "one" qos=1 tag=1 dup
            at 17000
                1: probe
            road 1 80 of 80
                log 10 Attempt 8 3
                1: deliver t "one" qos=1 tag=1 dup
            crash
                log 11 Disconnected
            connect 2 a expiry=600 v3
                log 12 Connected
                2: connected present=true
                log 13 Attempt 8 4
                2: deliver t "one" qos=1 tag=1 dup
            at 22000
                2: probe
            road 2 40 of 40
                log 14 QueueBegin
                log 15 Transfer 8 Attempts
            letters
                letter 0-0-15 t "one" qos=1 of a attempts code=0 attempts=4 requeues=0 at 1022000
                that was all
        "#]],
    );
}

/// [RTM-1] Each tick has a budget, each connection its share of it, in the order in which the roads were clear.
#[test]
fn resends_leave_by_a_budget_in_turn() {
    let tune =
        |config: &mut postroad_broker::Config| (config.resent_per_tick, config.limits.resent_per_second) = (2, 10);
    let mut world = World::new(1, false, tune).open();
    world.run("connect 1 a expiry=600 v3\n sub 1 1 t:1\n connect 2 b expiry=600 v3\n sub 2 1 t:1\n connect 9 pub");
    check(
        world,
        "
        pub 9 t 1 qos=1 tag=1
        pub 9 t 2 qos=1 tag=2
        pub 9 t 3 qos=1 tag=3
        at 6000
        road 1 120 of 120
        road 2 120 of 120
        due
        at 6100
        at 6200
        at 6500
        at 6600
        ",
        expect![[r#"
            pub 9 t 1 qos=1 tag=1
                1: deliver t "1" qos=1 tag=1
                2: deliver t "1" qos=1 tag=1
                9: published 1 success
            pub 9 t 2 qos=1 tag=2
                1: deliver t "2" qos=1 tag=2
                2: deliver t "2" qos=1 tag=2
                9: published 2 success
            pub 9 t 3 qos=1 tag=3
                1: deliver t "3" qos=1 tag=3
                2: deliver t "3" qos=1 tag=3
                9: published 3 success
            at 6000
                2: probe
                1: probe
            road 1 120 of 120
                1: deliver t "1" qos=1 tag=1 dup
            road 2 120 of 120
            due
                due in 100 ms
            at 6100
                1: deliver t "2" qos=1 tag=2 dup
            at 6200
                2: deliver t "1" qos=1 tag=1 dup
            at 6500
                1: deliver t "3" qos=1 tag=3 dup
            at 6600
                2: deliver t "2" qos=1 tag=2 dup
        "#]],
    );
}

/// A connection that takes nothing at the moment gets nothing again either.
#[test]
fn a_congested_connection_is_spared() {
    check(
        world(false),
        "
        pub 9 t one qos=1 tag=1
        congested 1
        at 6000
        road 1 40 of 40
        client a
        writable 1
        at 11000
        road 1 40 of 40
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            congested 1
            at 6000
                1: probe
            road 1 40 of 40
            client a
                RoadState { round_trip_ms: None, ack_timeout_ms: Some(5000), overdue: 1 }
            writable 1
            at 11000
                1: probe
            road 1 40 of 40
                1: deliver t "one" qos=1 tag=1 dup
        "#]],
    );
}

/// [SPD-2] The deadline follows what the client needs, and is measured on first sends only.
#[test]
fn the_deadline_follows_the_client() {
    let mut world = world(false);
    world.run("pub 9 t one qos=1 tag=1\n at 4000\n ack 1 1");
    check(
        world,
        "
        client a
        pub 9 t two qos=1 tag=2
        at 12900
        at 13000
        road 1 40 of 40
        at 14000
        ack 1 2
        client a
        client nobody
        ",
        expect![[r#"
            client a
                RoadState { round_trip_ms: Some(3000), ack_timeout_ms: Some(9000), overdue: 0 }
            pub 9 t two qos=1 tag=2
                1: deliver t "two" qos=1 tag=2
                9: published 2 success
            at 12900
            at 13000
                1: probe
            road 1 40 of 40
                1: deliver t "two" qos=1 tag=2 dup
            at 14000
            ack 1 2
            client a
                RoadState { round_trip_ms: Some(3000), ack_timeout_ms: Some(9000), overdue: 0 }
            client nobody
                none
        "#]],
    );
}

/// Who acknowledges in time is looked at once per deadline, not once per message.
#[test]
fn who_acknowledges_in_time_costs_nothing() {
    let mut world = world(false);
    let before = world.ticks;
    for n in 0..1_000_u64 {
        let tag = n % 16 + 1;
        world.run(&format!("at {}\n pub 9 t x qos=1 tag={tag}\n ack 1 {tag}", 1_000 + n * 10));
    }
    assert!(world.ticks - before <= 3, "{} ticks in 10 s", world.ticks - before);
    assert_eq!(world.run("at 60000"), "at 60000\n");
}

/// A new configuration holds for what is under way.
#[test]
fn a_reload_holds_for_what_is_in_flight() {
    check(
        world(false),
        "
        pub 9 t one qos=1 tag=1
        at 2000
        retry # age=3000
        at 4000
        letters
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                9: published 1 success
            at 2000
            retry # age=3000
            at 4000
            letters
                letter 0-140737488355331-2 t "one" qos=1 of a unacknowledged code=0 attempts=1 requeues=0 at 1004000
                that was all
        "#]],
    );
}

/// [MQTT-4.6.0-1] With priorities the order in which deliveries were sent first is not that of the log: it is the one in which they
/// are sent again, live and after a reconnect.
#[test]
fn what_is_sent_again_keeps_the_order_of_its_first_sending() {
    let mut world = world(true);
    world.run("disc 1 lost\n pub 9 t low qos=1 tag=1 priority=low\n pub 9 t high qos=2 tag=2 priority=high");
    check(
        world,
        "
        connect 2 a expiry=600 v3
        at 6000
        road 2 80 of 80
        disc 2 lost
        connect 3 a expiry=600 v3
        ",
        expect![[r#"
            connect 2 a expiry=600 v3
                log 11 Connected
                2: connected present=true
                2: deliver t "high" qos=1 tag=1
                2: deliver t "low" qos=1 tag=2
            at 6000
                2: probe
            road 2 80 of 80
                log 12 Attempt 10 2
                2: deliver t "high" qos=1 tag=1 dup
                log 13 Attempt 9 2
                2: deliver t "low" qos=1 tag=2 dup
            disc 2 lost
                log 14 Disconnected
            connect 3 a expiry=600 v3
                log 15 Connected
                3: connected present=true
                log 16 Attempt 10 3
                3: deliver t "high" qos=1 tag=1 dup
                log 17 Attempt 9 3
                3: deliver t "low" qos=1 tag=2 dup
        "#]],
    );
}

/// What a crash leaves of QoS 2 goes in the order of the log, among what is older; and in that order again after a reconnect.
#[test]
fn after_a_crash_the_order_is_that_of_the_log() {
    let mut world = world(true);
    world.run(
        "pub 9 t one qos=1 tag=1\n pub 9 t two qos=1 tag=2\n pub 9 u x qos=0\n sub 1 2 t:2\n pub 9 t 3 qos=2 tag=3",
    );
    check(
        world,
        "
        crash
        connect 2 a expiry=600 v3
        disc 2 lost
        connect 3 a expiry=600 v3
        ",
        expect![[r#"
            crash
                log 15 Disconnected
            connect 2 a expiry=600 v3
                log 16 Connected
                2: connected present=true
                2: deliver t "one" qos=1 tag=4 dup
                2: deliver t "two" qos=1 tag=5 dup
                log 17 Attempt 13 2
                2: deliver t "3" qos=2 tag=3 dup
            disc 2 lost
                log 18 Disconnected
            connect 3 a expiry=600 v3
                log 19 Connected
                3: connected present=true
                log 20 Attempt 8 2
                3: deliver t "one" qos=1 tag=4 dup
                log 21 Attempt 9 2
                3: deliver t "two" qos=1 tag=5 dup
                log 22 Attempt 13 3
                3: deliver t "3" qos=2 tag=3 dup
        "#]],
    );
}

/// A second PUBREC of what is over is answered by a PUBREL: the packet identifier is taken until its PUBCOMP has come.
#[test]
fn an_identifier_is_taken_while_a_late_release_is_out() {
    let mut world = world(false);
    world.run("sub 1 2 t/#:2");
    check(
        world,
        "
        pub 9 t one qos=2 tag=1
        at 6000
        road 1 40 of 40
        rec 1 1
        comp 1 1
        rec 1 1
        comp 1 1
        comp 1 1
        ",
        expect![[r#"
            pub 9 t one qos=2 tag=1
                1: deliver t "one" qos=2 tag=1
                9: published 1 success
            at 6000
                1: probe
            road 1 40 of 40
                1: deliver t "one" qos=2 tag=1 dup
            rec 1 1
                1: release 1 success
            comp 1 1
            rec 1 1
                1: release 1 packet_identifier_not_found
            comp 1 1
            comp 1 1
                count unknown_tag 1
        "#]],
    );
}
