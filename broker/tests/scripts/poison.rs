//! Messages that make the server panic are set aside, whole, and everything else goes on.

use crate::world::{World, durable};
use expect_test::{Expect, expect};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// Among the young records: of two sessions, one has settled it before the crash. Neighbours keep their order, and the
/// next crash finds nothing left of it.
#[test]
fn a_poisoned_message_of_the_young_log_is_set_aside_once() {
    check(
        durable().showing_log(),
        "
        connect 1 a expiry=60
        sub 1 1 t:1
        connect 2 b expiry=60
        sub 2 1 t:2
        connect 3 c expiry=60
        sub 3 1 t:1
        connect 4 pub
        pub 4 t before qos=2 tag=1
        pub 4 t bad qos=2 tag=2
        pub 4 t after qos=2 tag=3
        ack 3 1
        ack 3 2
        poison bad
        crash
        connect 5 a expiry=60
        connect 6 b expiry=60
        connect 7 c expiry=60
        crash
        ",
        expect![[r#"
            connect 1 a expiry=60
                log 1 QueueBegin
                1: connected present=false
            sub 1 1 t:1
                log 2 Subscribe
                log 3 RetainedDue
                1: subscribed 1 granted_qos_1
                log 4 RetainedGiven
            connect 2 b expiry=60
                log 5 QueueBegin
                2: connected present=false
            sub 2 1 t:2
                log 6 Subscribe
                log 7 RetainedDue
                2: subscribed 1 granted_qos_2
                log 8 RetainedGiven
            connect 3 c expiry=60
                log 9 QueueBegin
                3: connected present=false
            sub 3 1 t:1
                log 10 Subscribe
                log 11 RetainedDue
                3: subscribed 1 granted_qos_1
                log 12 RetainedGiven
            connect 4 pub
                4: connected present=false
            pub 4 t before qos=2 tag=1
                log 13 Publish to 3
                log 14 Tagged 13 tag=1
                1: deliver t "before" qos=1 tag=1
                2: deliver t "before" qos=2 tag=1
                3: deliver t "before" qos=1 tag=1
                4: published 1 success
            pub 4 t bad qos=2 tag=2
                log 15 Publish to 3
                log 16 Tagged 15 tag=2
                1: deliver t "bad" qos=1 tag=2
                2: deliver t "bad" qos=2 tag=2
                3: deliver t "bad" qos=1 tag=2
                4: published 2 success
            pub 4 t after qos=2 tag=3
                log 17 Publish to 3
                log 18 Tagged 17 tag=3
                1: deliver t "after" qos=1 tag=3
                2: deliver t "after" qos=2 tag=3
                3: deliver t "after" qos=1 tag=3
                4: published 3 success
            ack 3 1
                log 19 Settle 13 Acknowledged
            ack 3 2
                log 20 Settle 15 Acknowledged
            poison bad
            crash
                set aside "bad" of ["b", "a"]
                count poison 2
                log 21 Settle 15 Poison
                log 22 Settle 15 Poison
                log 23 Disconnected
                log 24 Disconnected
                log 25 Disconnected
            connect 5 a expiry=60
                log 26 Connected
                5: connected present=true
                5: deliver t "before" qos=1 tag=1 dup
                5: deliver t "after" qos=1 tag=2 dup
            connect 6 b expiry=60
                log 27 Connected
                6: connected present=true
                log 28 Attempt 13 2
                6: deliver t "before" qos=2 tag=1 dup
                log 29 Attempt 17 2
                6: deliver t "after" qos=2 tag=3 dup
            connect 7 c expiry=60
                log 30 Connected
                7: connected present=true
                7: deliver t "after" qos=1 tag=1 dup
            crash
                log 31 Disconnected
                log 32 Disconnected
                log 33 Disconnected
        "#]],
    );
}

/// QoS 2: a client that has it (PUBREC) is owed the release, which has no body.
#[test]
fn a_poisoned_message_that_was_received_is_released() {
    check(
        durable(),
        "
        connect 1 a expiry=60
        sub 1 1 t:2
        connect 2 b expiry=60
        sub 2 1 t:2
        connect 4 pub
        pub 4 t bad qos=2 tag=2
        rec 1 1
        poison bad
        crash
        connect 5 a expiry=60
        comp 5 1
        connect 6 b expiry=60
        rec 6 1
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            sub 1 1 t:2
                1: subscribed 1 granted_qos_2
            connect 2 b expiry=60
                2: connected present=false
            sub 2 1 t:2
                2: subscribed 1 granted_qos_2
            connect 4 pub
                4: connected present=false
            pub 4 t bad qos=2 tag=2
                1: deliver t "bad" qos=2 tag=1
                2: deliver t "bad" qos=2 tag=1
                4: published 2 success
            rec 1 1
                1: release 1 success
            poison bad
            crash
                set aside "bad" of ["b"]
                count poison 1
            connect 5 a expiry=60
                5: connected present=true
                5: release 1 success
            comp 5 1
            connect 6 b expiry=60
                6: connected present=true
            rec 6 1
                count unknown_tag 1
                6: release 1 packet_identifier_not_found
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=0 inflight=0 log=18
        "#]],
    );
}

/// In the old generation it is found when its turn comes.
#[test]
fn a_stored_poisoned_message_is_set_aside_when_it_is_read() {
    check(
        durable(),
        "
        connect 1 a expiry=60
        sub 1 1 t:2
        connect 4 pub
        pub 4 t flying qos=2 tag=1
        pub 4 t bad qos=2 tag=2
        disc 1
        pub 4 t bad qos=1 tag=3
        pub 4 t good qos=1 tag=4
        retire
        poison bad
        crash
        connect 5 a expiry=60
        rec 5 1
        comp 5 1
        retire
        crash
        connect 6 a expiry=60
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            sub 1 1 t:2
                1: subscribed 1 granted_qos_2
            connect 4 pub
                4: connected present=false
            pub 4 t flying qos=2 tag=1
                1: deliver t "flying" qos=2 tag=1
                4: published 1 success
            pub 4 t bad qos=2 tag=2
                1: deliver t "bad" qos=2 tag=2
                4: published 2 success
            disc 1
            pub 4 t bad qos=1 tag=3
                4: published 3 success
            pub 4 t good qos=1 tag=4
                4: published 4 success
            retire
                ingest: 4 pending, 0 settled
            poison bad
            crash
            connect 5 a expiry=60
                5: connected present=true
                read backlog: 4 entries, end=true
                set aside "bad" of ["a"]
                count poison 1
                set aside "bad" of ["a"]
                count poison 1
                5: deliver t "flying" qos=2 tag=1 dup
                5: deliver t "good" qos=1 tag=3 dup
            rec 5 1
                5: release 1 success
            comp 5 1
            retire
                ingest: 0 pending, 3 settled
            crash
            connect 6 a expiry=60
                6: connected present=true
                read backlog: 1 entries, end=true
                6: deliver t "good" qos=1 tag=1 dup
        "#]],
    );
}

#[test]
fn a_poisoned_retained_message_is_cleared() {
    check(
        durable().showing_log(),
        "
        connect 1 pub
        pub 1 t bad retain
        pub 1 u good retain
        poison bad
        crash
        connect 2 sub
        sub 2 1 #:0
        ",
        expect![[r#"
            connect 1 pub
                1: connected present=false
            pub 1 t bad retain
                log 1 Retain
                count no_subscriber 1
            pub 1 u good retain
                log 2 Retain
                count no_subscriber 1
            poison bad
            crash
                set aside "bad" of []
                count poison 1
                log 3 RetainClear
            connect 2 sub
                2: connected present=false
            sub 2 1 #:0
                2: subscribed 1 success
                2: deliver u "good" qos=0 retain
        "#]],
    );
}

/// What ended with its session is not kept: it was dropped, and counted, before.
#[test]
fn what_was_over_before_the_crash_is_not_set_aside() {
    check(
        durable(),
        "
        connect 1 a expiry=60
        sub 1 1 t:1
        connect 4 pub
        disc 1
        pub 4 t bad qos=1 tag=3
        connect 5 a clean
        poison bad
        crash
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            connect 4 pub
                4: connected present=false
            disc 1
            pub 4 t bad qos=1 tag=3
                4: published 3 success
            connect 5 a clean
                count session_ended 1
                5: connected present=false
            poison bad
            crash
        "#]],
    );
}

/// A directed push waits in another queue of the client; it is found there, too, before and after its client came.
#[test]
fn a_poisoned_push_is_set_aside() {
    check(
        durable().open(),
        "
        connect 1 back-end
        connect 2 car clean user=anna
        disc 2
        pub 1 $client/car/cmd bad qos=1 tag=1
        pub 1 $client/car/cmd worse qos=1 tag=2
        pub 1 $client/car/cmd good qos=1 tag=3
        poison bad
        crash
        connect 3 car clean user=anna
        aside 3 32768
        ",
        expect![[r#"
            connect 1 back-end
                1: connected present=false
            connect 2 car clean user=anna
                2: connected present=false
            disc 2
            pub 1 $client/car/cmd bad qos=1 tag=1
                1: published 1 success
            pub 1 $client/car/cmd worse qos=1 tag=2
                1: published 2 success
            pub 1 $client/car/cmd good qos=1 tag=3
                1: published 3 success
            poison bad
            crash
                set aside "bad" of ["car"]
                count poison 1
            connect 3 car clean user=anna
                3: connected present=false
                3: deliver cmd "worse" qos=1 tag=32768 dup
                3: deliver cmd "good" qos=1 tag=32769 dup
            aside 3 32768
                set aside "worse" of ["car"]
                count poison 1
        "#]],
    );
}

/// While the server runs: the delivery ends, the connection and what waits behind it go on.
#[test]
fn a_delivery_in_flight_is_set_aside() {
    check(
        durable().showing_log(),
        "
        connect 1 a expiry=60 max=1
        sub 1 1 t:1
        connect 4 pub
        pub 4 t bad qos=1 tag=3
        pub 4 t good qos=1 tag=4
        aside 1 1
        aside 1 9
        ",
        expect![[r#"
            connect 1 a expiry=60 max=1
                log 1 QueueBegin
                1: connected present=false
            sub 1 1 t:1
                log 2 Subscribe
                log 3 RetainedDue
                1: subscribed 1 granted_qos_1
                log 4 RetainedGiven
            connect 4 pub
                4: connected present=false
            pub 4 t bad qos=1 tag=3
                log 5 Publish to 1
                1: deliver t "bad" qos=1 tag=1
                4: published 3 success
            pub 4 t good qos=1 tag=4
                log 6 Publish to 1
                4: published 4 success
            aside 1 1
                set aside "bad" of ["a"]
                count poison 1
                log 7 Settle 5 Poison
                1: deliver t "good" qos=1 tag=2
            aside 1 9
        "#]],
    );
}
