//! What waits for a client goes by priority, and of one collapse key the newest (`waiting`, `collapse`).

use crate::world::World;
use expect_test::{Expect, expect};
use postroad_broker::QueuePolicy;

/// A client that takes one delivery at a time, and is away; two deliveries are read at once.
fn world(durable: bool, policy: QueuePolicy) -> World {
    let tune = |config: &mut postroad_broker::Config| {
        config.limits.queue_messages_max = 4;
        config.limits.queue_policy = policy;
        config.backlog_messages_max = 2;
    };
    let mut world = World::new(1, durable, tune).open();
    world.run("connect 1 a expiry=600 max=1\n sub 1 1 t:1 u:1\n connect 9 pub\n disc 1 lost");
    world
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

const MIXED: &str = "
    pub 9 t low1 qos=1 priority=low
    pub 9 t one qos=1
    pub 9 t high1 qos=1 priority=high
    pub 9 u high2 qos=1 priority=high
";

const ACKNOWLEDGED: &str = "
    connect 2 a expiry=600 max=1
    ack 2 1
    ack 2 2
    ack 2 3
    ack 2 4
    ack 2 5
";

#[test]
fn high_goes_first_and_low_last() {
    let script = format!("{MIXED} {ACKNOWLEDGED}");
    let in_memory = world(false, QueuePolicy::RejectPublisher).run(&script);
    assert_eq!(world(true, QueuePolicy::RejectPublisher).run(&script), in_memory);
    check(
        world(true, QueuePolicy::RejectPublisher),
        &script,
        expect![[r#"
        pub 9 t low1 qos=1 priority=low
        pub 9 t one qos=1
        pub 9 t high1 qos=1 priority=high
        pub 9 u high2 qos=1 priority=high
        connect 2 a expiry=600 max=1
            2: connected present=true
            2: deliver t "high1" qos=1 tag=1
        ack 2 1
            2: deliver u "high2" qos=1 tag=2
        ack 2 2
            2: deliver t "one" qos=1 tag=3
        ack 2 3
            2: deliver t "low1" qos=1 tag=4
        ack 2 4
        ack 2 5
            count unknown_tag 1
    "#]],
    );
}

/// What has been sent is not overtaken, also when it is sent again.
#[test]
fn what_is_in_flight_stays_first() {
    check(
        world(true, QueuePolicy::RejectPublisher),
        "
        pub 9 t low qos=1 priority=low
        connect 2 a expiry=600 max=1
        pub 9 t high qos=1 priority=high
        disc 2 lost
        connect 3 a expiry=600 max=1
        ack 3 1
        ack 3 2
        ",
        expect![[r#"
            pub 9 t low qos=1 priority=low
            connect 2 a expiry=600 max=1
                2: connected present=true
                2: deliver t "low" qos=1 tag=1
            pub 9 t high qos=1 priority=high
            disc 2 lost
            connect 3 a expiry=600 max=1
                3: connected present=true
                3: deliver t "low" qos=1 tag=1 dup
            ack 3 1
                3: deliver t "high" qos=1 tag=2
            ack 3 2
        "#]],
    );
}

/// The old generation is read out of turn for those of high priority, also after a restart, and each is delivered once.
#[test]
fn high_is_read_out_of_turn() {
    let script = format!(
        "
        pub 9 t one qos=1
        pub 9 t two qos=1
        pub 9 t low qos=1 priority=low
        pub 9 t high qos=1 priority=high
        retire
        {ACKNOWLEDGED}
        "
    );
    check(
        world(true, QueuePolicy::RejectPublisher),
        &script,
        expect![[r#"
        pub 9 t one qos=1
        pub 9 t two qos=1
        pub 9 t low qos=1 priority=low
        pub 9 t high qos=1 priority=high
        retire
            ingest: 4 pending, 0 settled
        connect 2 a expiry=600 max=1
            2: connected present=true
            read backlog: 1 entries, end=true
            2: deliver t "high" qos=1 tag=1
            read backlog: 2 entries, end=false
        ack 2 1
            2: deliver t "one" qos=1 tag=2
            read backlog: 2 entries, end=false
            read backlog: 0 entries, end=true
        ack 2 2
            2: deliver t "two" qos=1 tag=3
        ack 2 3
            2: deliver t "low" qos=1 tag=4
        ack 2 4
        ack 2 5
            count unknown_tag 1
    "#]],
    );
    check(
        world(true, QueuePolicy::RejectPublisher),
        &script.replace("retire", "retire\ncrash"),
        expect![[r#"
        pub 9 t one qos=1
        pub 9 t two qos=1
        pub 9 t low qos=1 priority=low
        pub 9 t high qos=1 priority=high
        retire
            ingest: 4 pending, 0 settled
        crash
        connect 2 a expiry=600 max=1
            2: connected present=true
            read backlog: 1 entries, end=true
            2: deliver t "high" qos=1 tag=1 dup
            read backlog: 2 entries, end=false
        ack 2 1
            2: deliver t "one" qos=1 tag=2 dup
            read backlog: 2 entries, end=false
            read backlog: 0 entries, end=true
        ack 2 2
            2: deliver t "two" qos=1 tag=3 dup
        ack 2 3
            2: deliver t "low" qos=1 tag=4 dup
        ack 2 4
        ack 2 5
            count unknown_tag 1
    "#]],
    );
}

/// A retirement in the middle of a drain writes down what is known of what is not read.
#[test]
fn what_is_known_of_stored_deliveries_outlives_two_restarts() {
    check(
        world(true, QueuePolicy::RejectPublisher),
        "
        pub 9 t one qos=1
        pub 9 t high qos=1 priority=high
        pub 9 t keyed qos=1 collapse=k
        retire
        crash
        connect 2 a expiry=600 max=1
        ack 2 1
        disc 2 lost
        connect 9 pub
        pub 9 t newer qos=1 collapse=k
        retire
        crash
        connect 3 a expiry=600 max=1
        ack 3 1
        ack 3 2
        ack 3 3
        stats
        ",
        expect![[r#"
            pub 9 t one qos=1
            pub 9 t high qos=1 priority=high
            pub 9 t keyed qos=1 collapse=k
            retire
                ingest: 3 pending, 0 settled
            crash
            connect 2 a expiry=600 max=1
                2: connected present=true
                read backlog: 2 entries, end=false
                2: deliver t "high" qos=1 tag=1 dup
                read backlog: 2 entries, end=false
                read backlog: 1 entries, end=true
            ack 2 1
                2: deliver t "one" qos=1 tag=2 dup
            disc 2 lost
            connect 9 pub
                9: connected present=false
            pub 9 t newer qos=1 collapse=k
            retire
                ingest: 1 pending, 2 settled
            crash
            connect 3 a expiry=600 max=1
                3: connected present=true
                read backlog: 2 entries, end=false
                3: deliver t "one" qos=1 tag=1 dup
                read backlog: 0 entries, end=true
            ack 3 1
                3: deliver t "newer" qos=1 tag=2 dup
            ack 3 2
            ack 3 3
                count unknown_tag 1
            stats
                sessions=1 registrations=0 connections=1 subscriptions=2 retained=0 queued=0 bytes=0 inflight=0 log=3
        "#]],
    );
}

/// The oldest of the lowest priority makes room.
#[test]
fn room_is_made_by_the_least_urgent() {
    let script = format!(
        "{MIXED}
        pub 9 t two qos=1
        pub 9 t three qos=1
        retire
        pub 9 t high3 qos=1 priority=high
        {ACKNOWLEDGED}"
    );
    check(
        world(true, QueuePolicy::DropOldest),
        &script,
        expect![[r#"
        pub 9 t low1 qos=1 priority=low
        pub 9 t one qos=1
        pub 9 t high1 qos=1 priority=high
        pub 9 u high2 qos=1 priority=high
        pub 9 t two qos=1
            count queue_overflow 1
        pub 9 t three qos=1
            count queue_overflow 1
        retire
            ingest: 4 pending, 0 settled
        pub 9 t high3 qos=1 priority=high
            read backlog: 2 entries, end=false
            read backlog: 2 entries, end=false
            count queue_overflow 1
        connect 2 a expiry=600 max=1
            2: connected present=true
            2: deliver t "high1" qos=1 tag=1
        ack 2 1
            2: deliver u "high2" qos=1 tag=2
            read backlog: 0 entries, end=true
        ack 2 2
            2: deliver t "high3" qos=1 tag=3
        ack 2 3
            2: deliver t "three" qos=1 tag=4
        ack 2 4
        ack 2 5
            count unknown_tag 1
    "#]],
    );
}

/// What has been sent is not replaced, nor is what has another key; the newest takes its place in the line at the end.
#[test]
fn the_newest_of_a_key_replaces_what_was_not_sent() {
    let script = "
        pub 9 t k1 qos=1 collapse=k
        connect 2 a expiry=600 max=1
        pub 9 t k2 qos=1 collapse=k
        pub 9 u other qos=1 collapse=l
        pub 9 u k3 qos=2 tag=1 collapse=k
        ack 2 1
        ack 2 2
        ack 2 3
    ";
    let in_memory = world(false, QueuePolicy::RejectPublisher).run(script);
    assert_eq!(world(true, QueuePolicy::RejectPublisher).run(script), in_memory);
    check(
        world(true, QueuePolicy::RejectPublisher),
        script,
        expect![[r#"
        pub 9 t k1 qos=1 collapse=k
        connect 2 a expiry=600 max=1
            2: connected present=true
            2: deliver t "k1" qos=1 tag=1
        pub 9 t k2 qos=1 collapse=k
        pub 9 u other qos=1 collapse=l
        pub 9 u k3 qos=2 tag=1 collapse=k
            9: published 1 success
        ack 2 1
            2: deliver u "other" qos=1 tag=2
        ack 2 2
            2: deliver u "k3" qos=1 tag=3
        ack 2 3
    "#]],
    );
}

/// A full queue takes the newest of a key, stored or not, for ever; what was replaced is not counted any more.
#[test]
fn a_queue_of_one_key_is_never_full() {
    check(
        world(true, QueuePolicy::RejectPublisher),
        "
        pub 9 t a qos=1 tag=1
        pub 9 t b qos=1 tag=2
        pub 9 t c qos=1 tag=3
        pub 9 t k1 qos=1 tag=4 collapse=k
        pub 9 t d qos=1 tag=5
        pub 9 t k2 qos=1 tag=6 collapse=k
        retire
        pub 9 t k3 qos=1 tag=7 collapse=k
        retire
        pub 9 t k4 qos=1 tag=8 collapse=k
        retire
        pub 9 t e qos=1 tag=9
        crash
        connect 9 pub
        pub 9 t k5 qos=1 tag=10 collapse=k
        pub 9 t f qos=1 tag=11
        connect 2 a expiry=600 max=1
        ack 2 1
        ack 2 2
        ack 2 3
        ack 2 4
        stats
        ",
        expect![[r#"
            pub 9 t a qos=1 tag=1
                9: published 1 success
            pub 9 t b qos=1 tag=2
                9: published 2 success
            pub 9 t c qos=1 tag=3
                9: published 3 success
            pub 9 t k1 qos=1 tag=4 collapse=k
                9: published 4 success
            pub 9 t d qos=1 tag=5
                count queue_overflow 1
                9: published 5 quota_exceeded
            pub 9 t k2 qos=1 tag=6 collapse=k
                9: published 6 success
            retire
                ingest: 4 pending, 0 settled
            pub 9 t k3 qos=1 tag=7 collapse=k
                9: published 7 success
            retire
                ingest: 1 pending, 1 settled
            pub 9 t k4 qos=1 tag=8 collapse=k
                9: published 8 success
            retire
                ingest: 1 pending, 1 settled
            pub 9 t e qos=1 tag=9
                count queue_overflow 1
                9: published 9 quota_exceeded
            crash
            connect 9 pub
                9: connected present=false
            pub 9 t k5 qos=1 tag=10 collapse=k
                9: published 10 success
            pub 9 t f qos=1 tag=11
                count queue_overflow 1
                9: published 11 quota_exceeded
            connect 2 a expiry=600 max=1
                2: connected present=true
                read backlog: 2 entries, end=false
                2: deliver t "a" qos=1 tag=1 dup
                read backlog: 2 entries, end=false
            ack 2 1
                2: deliver t "b" qos=1 tag=2 dup
                read backlog: 0 entries, end=true
            ack 2 2
                2: deliver t "c" qos=1 tag=3 dup
            ack 2 3
                2: deliver t "k5" qos=1 tag=4
            ack 2 4
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=0 inflight=0 log=7
        "#]],
    );
}

/// What ended while low ones waited is not found again by the read for those, whenever the batch is stored.
#[test]
fn what_was_acknowledged_ahead_of_low_ones_stays_over() {
    let script = "
        connect 1 a expiry=600 max=1
        sub 1 1 t:2
        connect 9 pub
        disc 1 lost
        pub 9 t low5 qos=1 priority=low
        pub 9 t x qos=1
        retire
        connect 2 a expiry=600 max=1
        pub 9 t low20 qos=1 priority=low
        pub 9 t h21 qos=2 tag=7 priority=high
        pub 9 t low30 qos=1 priority=low
        store
        ack 2 1
        retire
        rec 2 2
        comp 2 2
        stored
        ack 2 3
        ack 2 4
        ack 2 5
        stats
    ";
    check(
        World::new(1, true, |config| config.backlog_messages_max = 2).open(),
        script,
        expect![[r#"
        connect 1 a expiry=600 max=1
            1: connected present=false
        sub 1 1 t:2
            1: subscribed 1 granted_qos_2
        connect 9 pub
            9: connected present=false
        disc 1 lost
        pub 9 t low5 qos=1 priority=low
        pub 9 t x qos=1
        retire
            ingest: 2 pending, 0 settled
        connect 2 a expiry=600 max=1
            2: connected present=true
            read backlog: 2 entries, end=false
            2: deliver t "x" qos=1 tag=1
            read backlog: 0 entries, end=true
        pub 9 t low20 qos=1 priority=low
        pub 9 t h21 qos=2 tag=7 priority=high
            9: published 7 success
        pub 9 t low30 qos=1 priority=low
        store
        ack 2 1
            2: deliver t "h21" qos=2 tag=2
        retire
            ingest: 3 pending, 1 settled
        rec 2 2
            2: release 2 success
        comp 2 2
            2: deliver t "low5" qos=1 tag=3
        stored
            read backlog: 2 entries, end=false
            read backlog: 1 entries, end=true
        ack 2 3
            2: deliver t "low20" qos=1 tag=4
        ack 2 4
            2: deliver t "low30" qos=1 tag=5
        ack 2 5
        stats
            sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=5
    "#]],
    );
}

/// A session that is not logged has deliveries of one sequence: the key says which one is meant.
#[test]
fn keys_hold_for_sessions_that_are_not_logged() {
    let script = "
        connect 1 a max=1
        sub 1 1 t:1
        connect 3 b expiry=600
        sub 3 1 u:1
        connect 9 pub
        pub 9 t first qos=1
        pub 9 t m1 qos=1
        pub 9 t k1 qos=1 collapse=k
        pub 9 t m2 qos=1
        pub 9 t k2 qos=1 collapse=k
        pub 9 u other qos=1
        pub 9 t k3 qos=1 collapse=k
        ack 1 1
        ack 1 2
        ack 1 3
        ack 1 4
    ";
    check(
        World::new(1, true, |_| {}).open(),
        script,
        expect![[r#"
        connect 1 a max=1
            1: connected present=false
        sub 1 1 t:1
            1: subscribed 1 granted_qos_1
        connect 3 b expiry=600
            3: connected present=false
        sub 3 1 u:1
            3: subscribed 1 granted_qos_1
        connect 9 pub
            9: connected present=false
        pub 9 t first qos=1
            1: deliver t "first" qos=1 tag=1
        pub 9 t m1 qos=1
        pub 9 t k1 qos=1 collapse=k
        pub 9 t m2 qos=1
        pub 9 t k2 qos=1 collapse=k
        pub 9 u other qos=1
            3: deliver u "other" qos=1 tag=1
        pub 9 t k3 qos=1 collapse=k
        ack 1 1
            1: deliver t "m1" qos=1 tag=2
        ack 1 2
            1: deliver t "m2" qos=1 tag=3
        ack 1 3
            1: deliver t "k3" qos=1 tag=4
        ack 1 4
    "#]],
    );
}

/// What comes late is not newer: what another member of a share group gives back, and what is retained.
#[test]
fn what_comes_late_replaces_nothing() {
    let given_back = "
        connect 1 a max=1
        sub 1 1 $share/g/t:1
        connect 2 b expiry=600 max=1
        sub 2 1 $share/g/t:1
        connect 9 pub
        pub 9 t one qos=1
        pub 9 t two qos=1
        pub 9 t three qos=1
        pub 9 t k1 qos=1 collapse=k
        pub 9 t k2 qos=1 collapse=k
        disc 1
        ack 2 1
        ack 2 2
        ack 2 3
        ack 2 4
        ack 2 5
    ";
    check(
        World::new(1, true, |_| {}).open(),
        given_back,
        expect![[r#"
        connect 1 a max=1
            1: connected present=false
        sub 1 1 $share/g/t:1
            1: subscribed 1 granted_qos_1
        connect 2 b expiry=600 max=1
            2: connected present=false
        sub 2 1 $share/g/t:1
            2: subscribed 1 granted_qos_1
        connect 9 pub
            9: connected present=false
        pub 9 t one qos=1
            2: deliver t "one" qos=1 tag=1
        pub 9 t two qos=1
            1: deliver t "two" qos=1 tag=1
        pub 9 t three qos=1
        pub 9 t k1 qos=1 collapse=k
        pub 9 t k2 qos=1 collapse=k
        disc 1
        ack 2 1
            2: deliver t "three" qos=1 tag=2
        ack 2 2
            2: deliver t "k2" qos=1 tag=3
        ack 2 3
            2: deliver t "two" qos=1 tag=4
        ack 2 4
            2: deliver t "k1" qos=1 tag=5
        ack 2 5
    "#]],
    );
    let retained = "
        connect 1 a expiry=600 max=2
        sub 1 1 u:1 t:1
        connect 9 pub
        pub 9 t k1 qos=1 retain collapse=k
        ack 1 1
        pub 9 u busy qos=1
        pub 9 u busy2 qos=1
        pub 9 t k2 qos=1 collapse=k
        sub 1 2 t:1
        ack 1 2
        ack 1 3
        ack 1 4
    ";
    check(
        World::new(1, true, |_| {}).open(),
        retained,
        expect![[r#"
        connect 1 a expiry=600 max=2
            1: connected present=false
        sub 1 1 u:1 t:1
            1: subscribed 1 granted_qos_1 granted_qos_1
        connect 9 pub
            9: connected present=false
        pub 9 t k1 qos=1 retain collapse=k
            1: deliver t "k1" qos=1 tag=1
        ack 1 1
        pub 9 u busy qos=1
            1: deliver u "busy" qos=1 tag=2
        pub 9 u busy2 qos=1
            1: deliver u "busy2" qos=1 tag=3
        pub 9 t k2 qos=1 collapse=k
        sub 1 2 t:1
            1: subscribed 2 granted_qos_1
        ack 1 2
            1: deliver t "k2" qos=1 tag=4
        ack 1 3
            1: deliver t "k1" qos=1 tag=5 retain
        ack 1 4
    "#]],
    );
}

/// A read that began before a retirement does not know of what that has stored.
#[test]
fn a_late_read_forgets_no_high_one() {
    let script = "
        connect 1 a expiry=600 max=1
        sub 1 1 t:1
        connect 9 pub
        disc 1 lost
        pub 9 t n1 qos=1
        pub 9 t n2 qos=1
        pub 9 t h1 qos=1 priority=high
        retire
        reading
        connect 2 a expiry=600 max=1
        pub 9 t h2 qos=1 priority=high
        retire
        pub 9 t h3 qos=1 priority=high
        read
        ack 2 1
        ack 2 2
        ack 2 3
        ack 2 4
        ack 2 5
    ";
    check(
        World::new(1, true, |config| config.backlog_messages_max = 2).open(),
        script,
        expect![[r#"
        connect 1 a expiry=600 max=1
            1: connected present=false
        sub 1 1 t:1
            1: subscribed 1 granted_qos_1
        connect 9 pub
            9: connected present=false
        disc 1 lost
        pub 9 t n1 qos=1
        pub 9 t n2 qos=1
        pub 9 t h1 qos=1 priority=high
        retire
            ingest: 3 pending, 0 settled
        reading
        connect 2 a expiry=600 max=1
            2: connected present=true
            read backlog: 1 entries, end=true
        pub 9 t h2 qos=1 priority=high
        retire
            ingest: 1 pending, 0 settled
        pub 9 t h3 qos=1 priority=high
        read
            2: deliver t "h1" qos=1 tag=1
            read backlog: 1 entries, end=true
            read backlog: 2 entries, end=false
        ack 2 1
            2: deliver t "h2" qos=1 tag=2
        ack 2 2
            2: deliver t "h3" qos=1 tag=3
        ack 2 3
            2: deliver t "n1" qos=1 tag=4
            read backlog: 2 entries, end=false
            read backlog: 0 entries, end=true
            read backlog: 0 entries, end=true
        ack 2 4
            2: deliver t "n2" qos=1 tag=5
        ack 2 5
    "#]],
    );
}

/// Retirement and ends in between: what waits is counted, no more and no less.
#[test]
fn what_goes_ahead_is_not_counted_twice() {
    let script = "
        connect 1 a expiry=600 max=1
        sub 1 1 t:1
        connect 9 pub
        disc 1 lost
        pub 9 t n1 qos=1
        pub 9 t h1 qos=1 priority=high
        pub 9 t h2 qos=1 priority=high
        pub 9 t h3 qos=1 priority=high
        pub 9 t h4 qos=1 priority=high
        pub 9 t n2 qos=1
        pub 9 t n3 qos=1
        connect 2 a expiry=600 max=1
        store
        retire
        ack 2 1
        ack 2 2
        ack 2 3
        stats
        stored
        stats
        ack 2 4
        ack 2 5
        ack 2 6
        ack 2 7
        stats
    ";
    check(
        World::new(1, true, |config| config.backlog_messages_max = 2).open(),
        script,
        expect![[r#"
        connect 1 a expiry=600 max=1
            1: connected present=false
        sub 1 1 t:1
            1: subscribed 1 granted_qos_1
        connect 9 pub
            9: connected present=false
        disc 1 lost
        pub 9 t n1 qos=1
        pub 9 t h1 qos=1 priority=high
        pub 9 t h2 qos=1 priority=high
        pub 9 t h3 qos=1 priority=high
        pub 9 t h4 qos=1 priority=high
        pub 9 t n2 qos=1
        pub 9 t n3 qos=1
        connect 2 a expiry=600 max=1
            2: connected present=true
            2: deliver t "h1" qos=1 tag=1
        store
        retire
            ingest: 7 pending, 0 settled
        ack 2 1
            2: deliver t "h2" qos=1 tag=2
        ack 2 2
            2: deliver t "h3" qos=1 tag=3
        ack 2 3
            2: deliver t "h4" qos=1 tag=4
        stats
            sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=3 bytes=12 inflight=1 log=3
        stored
            read backlog: 2 entries, end=false
            read backlog: 2 entries, end=false
            read backlog: 2 entries, end=false
        stats
            sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=3 bytes=9 inflight=1 log=3
        ack 2 4
            2: deliver t "n1" qos=1 tag=5
            read backlog: 1 entries, end=true
        ack 2 5
            2: deliver t "n2" qos=1 tag=6
        ack 2 6
            2: deliver t "n3" qos=1 tag=7
        ack 2 7
        stats
            sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=7
    "#]],
    );
}

/// What finds no room has no key that anything could be replaced by.
#[test]
fn a_message_that_was_not_taken_is_not_replaced() {
    let tune = |config: &mut postroad_broker::Config| {
        config.limits.queue_messages_max = 3;
        config.limits.queue_policy = QueuePolicy::DropOldest;
    };
    let script = "
        connect 1 a expiry=600
        sub 1 1 t:1
        connect 9 pub
        pub 9 t one qos=1
        pub 9 t two qos=1
        pub 9 t three qos=1
        disc 1 lost
        pub 9 t k1 qos=1 collapse=k
        pub 9 t k2 qos=1 collapse=k
        connect 2 a expiry=600
    ";
    check(
        World::new(1, true, tune).open().showing_log(),
        script,
        expect![[r#"
        connect 1 a expiry=600
            log 1 QueueBegin
            1: connected present=false
        sub 1 1 t:1
            log 2 Subscribe
            log 3 RetainedDue
            1: subscribed 1 granted_qos_1
            log 4 RetainedGiven
        connect 9 pub
            9: connected present=false
        pub 9 t one qos=1
            log 5 Publish to 1
            1: deliver t "one" qos=1 tag=1
        pub 9 t two qos=1
            log 6 Publish to 1
            1: deliver t "two" qos=1 tag=2
        pub 9 t three qos=1
            log 7 Publish to 1
            1: deliver t "three" qos=1 tag=3
        disc 1 lost
            log 8 Disconnected
        pub 9 t k1 qos=1 collapse=k
            log 9 Publish to 1
            count queue_overflow 1
            log 10 Settle 9 Overflow
        pub 9 t k2 qos=1 collapse=k
            log 11 Publish to 1
            count queue_overflow 1
            log 12 Settle 11 Overflow
        connect 2 a expiry=600
            log 13 Connected
            2: connected present=true
            log 14 Attempt 5 2
            2: deliver t "one" qos=1 tag=1 dup
            log 15 Attempt 6 2
            2: deliver t "two" qos=1 tag=2 dup
            log 16 Attempt 7 2
            2: deliver t "three" qos=1 tag=3 dup
    "#]],
    );
}

/// Of each priority the first ones may have been sent before a crash.
#[test]
fn what_may_have_been_sent_is_marked_in_each_line() {
    let script = "
        connect 1 a expiry=600
        sub 1 1 t:1
        connect 9 pub
        pub 9 t one qos=1
        pub 9 t two qos=1
        pub 9 t h1 qos=1 priority=high
        pub 9 t h2 qos=1 priority=high
        disc 1 lost
        retire
        crash
        connect 2 a expiry=600
        ack 2 1
        ack 2 2
    ";
    check(
        World::new(1, true, |config| config.limits.inflight_max = 2).open(),
        script,
        expect![[r#"
        connect 1 a expiry=600
            1: connected present=false
        sub 1 1 t:1
            1: subscribed 1 granted_qos_1
        connect 9 pub
            9: connected present=false
        pub 9 t one qos=1
            1: deliver t "one" qos=1 tag=1
        pub 9 t two qos=1
            1: deliver t "two" qos=1 tag=2
        pub 9 t h1 qos=1 priority=high
        pub 9 t h2 qos=1 priority=high
        disc 1 lost
        retire
            ingest: 4 pending, 0 settled
        crash
        connect 2 a expiry=600
            2: connected present=true
            read backlog: 2 entries, end=true
            2: deliver t "h1" qos=1 tag=1 dup
            2: deliver t "h2" qos=1 tag=2 dup
            read backlog: 4 entries, end=true
        ack 2 1
            2: deliver t "one" qos=1 tag=3 dup
        ack 2 2
            2: deliver t "two" qos=1 tag=4 dup
    "#]],
    );
}

/// What is wished for a will holds when it is published, also if a crash and a retirement lie between.
#[test]
fn a_will_has_its_wishes() {
    let mut world = World::new(1, true, |_| {}).open();
    world.run("connect 1 sub expiry=600\n sub 1 1 t:1\n disc 1 lost\n connect 9 pub\n pub 9 t before qos=1 tag=1");
    check(
        world,
        "
        connect 2 a expiry=600 will=t:gone willqos=1 priority=high collapse=state
        connect 3 b will=t:gone-too willqos=1 priority=high collapse=state
        disc 3 lost
        retire
        crash
        at 9000
        connect 4 sub expiry=600
        ",
        expect![[r#"
            connect 2 a expiry=600 will=t:gone willqos=1 priority=high collapse=state
                2: connected present=false
            connect 3 b will=t:gone-too willqos=1 priority=high collapse=state
                3: connected present=false
            disc 3 lost
                count will_published 1
            retire
                ingest: 2 pending, 0 settled
            crash
            at 9000
                count will_published 1
            connect 4 sub expiry=600
                4: connected present=true
                4: deliver t "gone" qos=1 tag=1
                read backlog: 2 entries, end=true
                4: deliver t "before" qos=1 tag=2 dup
        "#]],
    );
}
