//! Messages that somebody follows: each step is told once it is so, and publishers get receipts (DESIGN 6).

use crate::world::{World, durable, memory};
use expect_test::{Expect, expect};
use postroad_broker::QueuePolicy;

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// `a` has subscribed, `pub` has subscribed to receipts, and so has `w`, who publishes nothing.
const BEGIN: &str = "
    connect 1 a expiry=60
    sub 1 1 t/#:1 u:2
    connect 8 w expiry=60
    sub 8 1 $receipt/#:1 $share/g/$receipt/#:1
    connect 9 pub expiry=60
    sub 9 1 $receipt/#:1
";

fn begun(mut world: World) -> World {
    world.run(BEGIN);
    world
}

/// What is told of a step is told after the commit that makes it so; receipts go to the publisher alone.
#[test]
fn an_acknowledged_message_is_told_of_step_by_step() {
    check(
        begun(durable().open()),
        "
        hold
        pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
        commit
        commit
        ack 1 1
        commit
        commit
        ",
        expect![[r#"
            hold
            pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
            commit
                step 0 a queued
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "hello" qos=1 tag=1
                step 0 - stored matched=true, told
                9: published 1 success
            commit
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=2
            ack 1 1
            commit
                step 0 a acknowledged after 1 sends, told
            commit
                9: deliver $receipt/0000000f462800000000000000000007/acknowledged/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"acknowledged\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=3
        "#]],
    );
}

#[test]
fn each_level_is_told_what_it_asked_for() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1 receipt=stored
        ack 1 1
        pub 9 t/1 two qos=1 tag=2 receipt=sent
        ack 1 2
        pub 9 t/1 three qos=1 tag=3 receipt=dead
        ack 1 3
        pub 9 nobody four qos=1 tag=4 receipt=stored
        pub 9 t/1 five qos=0 receipt=sent
        pub 9 u six qos=2 tag=6 receipt=acknowledged
        rec 1 4
        comp 1 4
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1 receipt=stored
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "one" qos=1 tag=1
                step 0 - stored matched=true, told
                9: published 1 success
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
            ack 1 1
                step 0 a acknowledged after 1 sends
            pub 9 t/1 two qos=1 tag=2 receipt=sent
                9: taken Some(2) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a queued
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "two" qos=1 tag=2
                step 0 - stored matched=true, told
                9: published 2 success
                9: deliver $receipt/0000000f462800000002000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000002000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=2
                9: deliver $receipt/0000000f462800000002000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000002000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=3
            ack 1 2
                step 0 a acknowledged after 1 sends
            pub 9 t/1 three qos=1 tag=3 receipt=dead
                9: taken Some(3) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "three" qos=1 tag=3
                step 0 - stored matched=true
                9: published 3 success
            ack 1 3
                step 0 a acknowledged after 1 sends
            pub 9 nobody four qos=1 tag=4 receipt=stored
                9: taken Some(4) at 1001000
                step 0 - published by pub - to nobody qos=1 4 B
                count no_subscriber 1
                step 0 - stored matched=false, told
                9: published 4 no_matching_subscribers
                9: deliver $receipt/0000000f462800000006000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000006000000000007\",\"original\":null,\"reason\":null,\"topic\":\"nobody\"}" qos=1 tag=4
            pub 9 t/1 five qos=0 receipt=sent
                step 0 - published by pub - to t/1 qos=0 4 B
                step 0 a sent 1 qos=0, told
                1: deliver t/1 "five" qos=0
                step 0 - stored matched=true, told
                9: deliver $receipt/0000000f462800000008000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000008000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=5
                9: deliver $receipt/0000000f462800000008000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000008000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=6
            pub 9 u six qos=2 tag=6 receipt=acknowledged
                9: taken Some(6) at 1001000
                step 0 - published by pub - to u qos=2 3 B
                step 0 a queued
                step 0 a sent 1 qos=2, told
                1: deliver u "six" qos=2 tag=4
                step 0 - stored matched=true, told
                9: published 6 success
                9: deliver $receipt/0000000f46280000000b000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f46280000000b000000000007\",\"original\":null,\"reason\":null,\"topic\":\"u\"}" qos=1 tag=7
                9: deliver $receipt/0000000f46280000000b000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f46280000000b000000000007\",\"original\":null,\"reason\":null,\"topic\":\"u\"}" qos=1 tag=8
            rec 1 4
                1: release 4 success
                step 0 a acknowledged after 1 sends, told
                9: deliver $receipt/0000000f46280000000b000000000007/acknowledged/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"acknowledged\",\"message\":\"0000000f46280000000b000000000007\",\"original\":null,\"reason\":null,\"topic\":\"u\"}" qos=1 tag=9
            comp 1 4
        "#]],
    );
}

/// A refused delivery, its letter, the requeue of it (a new message with the wish of the old one), and its end.
#[test]
fn what_died_is_told_of_and_what_became_of_it() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 hello qos=1 tag=1 receipt=dead
        ack 1 1 reason=131
        letters
        letter 0-0-19 requeue
        ack 1 2 reason=131
        letters
        letter 0-0-22 drop
        ",
        expect![[r#"
            pub 9 t/1 hello qos=1 tag=1 receipt=dead
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "hello" qos=1 tag=1
                step 0 - stored matched=true
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                step 0 a dead refused 131 after 1 sends letter 0-0-19, told
                9: deliver $receipt/0000000f462800000000000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":\"refused\",\"topic\":\"t/1\"}" qos=1 tag=1
            letters
                letter 0-0-19 t/1 "hello" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letter 0-0-19 requeue
                step 0 - published by pub - to t/1 qos=1 5 B, again
                step 0 a requeued letter 0-0-19
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "hello" qos=1 tag=2
                done, as a new message
            ack 1 2 reason=131
                count refused_by_receiver 1
                step 0 a dead refused 131 after 1 sends letter 0-0-22, told
                9: deliver $receipt/0000000f462800000003000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000003000000000007\",\"original\":\"0000000f462800000000000000000007\",\"reason\":\"refused\",\"topic\":\"t/1\"}" qos=1 tag=2
            letters
                letter 0-0-22 t/1 "hello" qos=1 of a refused code=131 attempts=1 requeues=1 at 1001000
                that was all
            letter 0-0-22 drop
                step 0 a letter_over letter 0-0-22 dropped
                done
        "#]],
    );
}

/// The publisher is away: receipts wait for it. Its session ended: nobody is told, and nobody else.
#[test]
fn receipts_wait_for_a_publisher_that_is_away() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
        disc 9
        ack 1 1
        connect 9 pub expiry=60
        ack 9 1
        ack 9 2
        ack 9 3
        pub 9 t/1 again qos=1 tag=1 receipt=acknowledged
        connect 9 pub expiry=60 clean
        sub 9 1 $receipt/#:1
        ack 1 2
        ",
        expect![[r#"
            pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "hello" qos=1 tag=1
                step 0 - stored matched=true, told
                9: published 1 success
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=2
            disc 9
            ack 1 1
                step 0 a acknowledged after 1 sends, told
            connect 9 pub expiry=60
                9: connected present=true
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1 dup
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=2 dup
                9: deliver $receipt/0000000f462800000000000000000007/acknowledged/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"acknowledged\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=3
            ack 9 1
            ack 9 2
            ack 9 3
            pub 9 t/1 again qos=1 tag=1 receipt=acknowledged
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "again" qos=1 tag=2
                step 0 - stored matched=true, told
                9: published 1 success
                9: deliver $receipt/0000000f462800000004000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000004000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=4
                9: deliver $receipt/0000000f462800000004000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000004000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=5
            connect 9 pub expiry=60 clean
                count taken_over 1
                9: close session_taken_over
                count session_ended 2
                9: connected present=false
            sub 9 1 $receipt/#:1
                9: subscribed 1 granted_qos_1
            ack 1 2
                step 0 a acknowledged after 1 sends, told
        "#]],
    );
}

/// The names of queues that the log does not know begin anew with each start: the first session after it must not hear of what
/// another one has published before.
#[test]
fn after_a_crash_no_other_session_is_taken_for_the_publisher() {
    check(
        durable().open(),
        "
        connect 1 a expiry=60
        sub 1 1 t/#:1
        disc 1
        connect 9 pub
        pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
        crash
        connect 8 other
        sub 8 1 $receipt/#:1
        connect 1 a expiry=60
        ack 1 1
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            sub 1 1 t/#:1
                1: subscribed 1 granted_qos_1
            disc 1
            connect 9 pub
                9: connected present=false
            pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 - stored matched=true, told
                9: published 1 success
            crash
            connect 8 other
                8: connected present=false
            sub 8 1 $receipt/#:1
                8: subscribed 1 granted_qos_1
            connect 1 a expiry=60
                1: connected present=true
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "hello" qos=1 tag=1 dup
            ack 1 1
                step 0 a acknowledged after 1 sends, told
        "#]],
    );
}

/// After a crash steps go on where they were; the publisher's session is one that the log knows.
#[test]
fn after_a_crash_the_publisher_still_gets_receipts() {
    check(
        begun(durable().open()),
        "
        disc 1
        pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
        ack 9 1
        crash
        connect 9 pub expiry=60
        connect 1 a expiry=60
        ack 1 1
        ",
        expect![[r#"
            disc 1
            pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 - stored matched=true, told
                9: published 1 success
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
            ack 9 1
            crash
            connect 9 pub expiry=60
                9: connected present=true
            connect 1 a expiry=60
                1: connected present=true
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "hello" qos=1 tag=1 dup
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
            ack 1 1
                step 0 a acknowledged after 1 sends, told
                9: deliver $receipt/0000000f462800000000000000000007/acknowledged/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"acknowledged\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=2
        "#]],
    );
}

#[test]
fn other_ends_are_told_of_too() {
    let world = World::new(1, true, |config| {
        config.limits.queue_messages_max = 2;
        config.limits.queue_policy = QueuePolicy::DropOldest;
    });
    check(
        begun(world.open()),
        "
        disc 1
        pub 9 t/1 none qos=0 receipt=dead
        pub 9 t/1 old qos=1 tag=1 receipt=dead
        pub 9 t/1 short qos=1 tag=2 receipt=dead expires=500
        pub 9 t/1 third qos=1 tag=3 receipt=dead
        at 5000
        connect 1 a expiry=60
        pub 9 t/1 last qos=1 tag=4 receipt=dead
        connect 1 a clean
        ",
        expect![[r#"
            disc 1
            pub 9 t/1 none qos=0 receipt=dead
                step 0 - published by pub - to t/1 qos=0 4 B
                count dropped_qos0_offline 1
                step 0 a over offline 0 after 0 sends, told
                step 0 - stored matched=true
                9: deliver $receipt/0000000f462800000000000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":\"offline\",\"topic\":\"t/1\"}" qos=1 tag=1
            pub 9 t/1 old qos=1 tag=1 receipt=dead
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a queued
                step 0 - stored matched=true
                9: published 1 success
            pub 9 t/1 short qos=1 tag=2 receipt=dead expires=500
                9: taken Some(2) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 - stored matched=true
                9: published 2 success
            pub 9 t/1 third qos=1 tag=3 receipt=dead
                9: taken Some(3) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                count queue_overflow 1
                step 0 a over overflow 0 after 0 sends, told
                step 0 a queued
                step 0 - stored matched=true
                9: published 3 success
                9: deliver $receipt/0000000f462800000002000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000002000000000007\",\"original\":null,\"reason\":\"overflow\",\"topic\":\"t/1\"}" qos=1 tag=2
            at 5000
            connect 1 a expiry=60
                1: connected present=true
                count expired 1
                1: deliver t/1 "third" qos=1 tag=1
                step 0 a over expired 0 after 0 sends, told
                step 0 a sent 1 qos=1
                count queue_overflow 1
            pub 9 t/1 last qos=1 tag=4 receipt=dead
                9: taken Some(4) at 1005000
                step 0 - published by pub - to t/1 qos=1 4 B
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "last" qos=1 tag=2
                step 0 - stored matched=true
                9: published 4 success
            connect 1 a clean
                count taken_over 1
                1: close session_taken_over
                count session_ended 2
                step 0 a over session_ended 0 after 1 sends, told
                step 0 a over session_ended 0 after 1 sends, told
                1: connected present=false
                count queue_overflow 1
                count queue_overflow 1
        "#]],
    );
}

/// A sampled message is followed, and nobody is told; a watched one is not even kept.
#[test]
fn sampled_and_watched_messages_are_followed() {
    let mut world = World::new(1, false, |config| config.limits.trace_sample = 1_000_000).open();
    world.run(BEGIN);
    check(
        world,
        "
        pub 9 t/1 hello qos=1 tag=1
        ack 1 1
        ",
        expect![[r#"
            pub 9 t/1 hello qos=1 tag=1
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "hello" qos=1 tag=1
                step 0 - stored matched=true
                9: published 1 success
            ack 1 1
                step 0 a acknowledged after 1 sends
        "#]],
    );
    check(
        begun(memory().open()),
        "
        pub 9 t/1 hello qos=1 tag=1
        ack 1 1
        watch
        pub 9 t/1 hello qos=1 tag=2
        ack 1 2
        unwatch
        pub 9 t/1 hello qos=1 tag=3
        ack 1 3
        ",
        expect![[r#"
            pub 9 t/1 hello qos=1 tag=1
                1: deliver t/1 "hello" qos=1 tag=1
                9: published 1 success
            ack 1 1
            watch
            pub 9 t/1 hello qos=1 tag=2
                step 0 - published by pub - to t/1 qos=1 5 B, not kept
                step 0 a queued, not kept
                step 0 a sent 1 qos=1, not kept
                1: deliver t/1 "hello" qos=1 tag=2
                step 0 - stored matched=true, not kept
                9: published 2 success
            ack 1 2
                step 0 a acknowledged after 1 sends, not kept
            unwatch
            pub 9 t/1 hello qos=1 tag=3
                1: deliver t/1 "hello" qos=1 tag=3
                9: published 3 success
            ack 1 3
        "#]],
    );
}

/// Publisher and recipient live on two shards, and receipts go back.
#[test]
fn receipts_cross_shards() {
    let mut world = World::new(2, true, |_| {}).open();
    let named =
        |shard: usize| (0..).map(|n| format!("c{n}")).find(|name| world.home(name) == shard).expect("one of them");
    let (publisher, receiver) = (named(0), named(1));
    let script = format!(
        "
        connect 1 {receiver} expiry=60
        sub 1 1 t/#:1
        connect 9 {publisher} expiry=60
        sub 9 1 $receipt/+/acknowledged/#:1
        pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
        ack 1 1
        "
    );
    expect![[r#"
        connect 1 c3 expiry=60
            1: connected present=false
        sub 1 1 t/#:1
            1: subscribed 1 granted_qos_1
        connect 9 c0 expiry=60
            9: connected present=false
        sub 9 1 $receipt/+/acknowledged/#:1
            9: subscribed 1 granted_qos_1
        pub 9 t/1 hello qos=1 tag=1 receipt=acknowledged
            9: taken Some(1) at 1001000
            step 0 - published by c0 - to t/1 qos=1 5 B
            step 1 c3 queued
            step 1 c3 sent 1 qos=1, told
            1: deliver t/1 "hello" qos=1 tag=1
            9: published 1 success
            step 0 - stored matched=true, told
        ack 1 1
            step 1 c3 acknowledged after 1 sends, told
            9: deliver $receipt/0000000f462800000000000000000007/acknowledged/c3 "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"c3\",\"group\":null,\"level\":\"acknowledged\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
    "#]].assert_eq(&world.run(&script));
}

/// What a share group's member leaves moves on: that is no end.
#[test]
fn what_moves_within_a_group_goes_on() {
    check(
        durable().open(),
        "
        connect 1 a expiry=60
        sub 1 1 $share/g/t:1
        connect 9 pub expiry=60
        sub 9 1 $receipt/#:1
        pub 9 t hello qos=1 tag=1 receipt=dead
        connect 2 b expiry=60
        sub 2 1 $share/g/t:1
        disc 1 expiry=0
        ack 2 1
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            sub 1 1 $share/g/t:1
                1: subscribed 1 granted_qos_1
            connect 9 pub expiry=60
                9: connected present=false
            sub 9 1 $receipt/#:1
                9: subscribed 1 granted_qos_1
            pub 9 t hello qos=1 tag=1 receipt=dead
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t "hello" qos=1 tag=1
                step 0 - stored matched=true
                9: published 1 success
            connect 2 b expiry=60
                2: connected present=false
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            disc 1 expiry=0
                step 0 b queued
                step 0 b sent 1 qos=1
                2: deliver t "hello" qos=1 tag=1
                step 0 a over moved 0 after 1 sends
            ack 2 1
                step 0 b acknowledged after 1 sends
        "#]],
    );
}

/// Who publishes below `$receipt/` reaches nobody but itself, whatever the rules say.
#[test]
fn receipts_can_not_be_forged() {
    check(
        begun(memory().open()),
        "
        pub 9 $receipt/00/dead/a hello qos=1 tag=1
        pub 8 $receipt/00/dead/a hello qos=1 tag=1
        ",
        expect![[r#"
            pub 9 $receipt/00/dead/a hello qos=1 tag=1
                9: deliver $receipt/00/dead/a "hello" qos=1 tag=1
                9: published 1 success
            pub 8 $receipt/00/dead/a hello qos=1 tag=1
                8: deliver $receipt/00/dead/a "hello" qos=1 tag=1
                8: published 1 success
        "#]],
    );
}

/// Of a key only the newest is sent: the one that it replaces is told of as what it is.
#[test]
fn what_is_collapsed_is_told_of() {
    check(
        begun(durable().open()),
        "
        disc 1
        pub 9 t/1 old qos=1 tag=1 receipt=dead collapse=k
        pub 9 t/1 new qos=1 tag=2 receipt=dead collapse=k
        ",
        expect![[r#"
            disc 1
            pub 9 t/1 old qos=1 tag=1 receipt=dead collapse=k
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a queued
                step 0 - stored matched=true
                9: published 1 success
            pub 9 t/1 new qos=1 tag=2 receipt=dead collapse=k
                9: taken Some(2) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a over collapsed 0 after 0 sends, told
                step 0 a queued
                step 0 - stored matched=true
                9: published 2 success
                9: deliver $receipt/0000000f462800000000000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":\"collapsed\",\"topic\":\"t/1\"}" qos=1 tag=1
        "#]],
    );
}

/// Each end is told behind the record that makes it so, else a crash in between would make it a lie.
#[test]
fn no_end_is_told_before_it_is_committed() {
    let world = World::new(1, true, |config| {
        config.limits.queue_messages_max = 2;
        config.limits.queue_policy = QueuePolicy::DropOldest;
    });
    check(
        begun(world.open()),
        "
        disc 1
        pub 9 t/1 one qos=1 tag=1 receipt=dead collapse=k
        pub 9 t/1 two qos=1 tag=2 receipt=dead collapse=k
        pub 9 t/1 three qos=1 tag=3 receipt=dead expires=500
        hold
        pub 9 t/1 four qos=1 tag=4 receipt=dead
        commit
        at 5000
        connect 1 a expiry=60
        commit
        commit
        ack 1 1 reason=131
        commit
        connect 1 a clean
        commit
        ",
        expect![[r#"
            disc 1
            pub 9 t/1 one qos=1 tag=1 receipt=dead collapse=k
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a queued
                step 0 - stored matched=true
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2 receipt=dead collapse=k
                9: taken Some(2) at 1001000
                step 0 - published by pub - to t/1 qos=1 3 B
                step 0 a over collapsed 0 after 0 sends, told
                step 0 a queued
                step 0 - stored matched=true
                9: published 2 success
                9: deliver $receipt/0000000f462800000000000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":\"collapsed\",\"topic\":\"t/1\"}" qos=1 tag=1
            pub 9 t/1 three qos=1 tag=3 receipt=dead expires=500
                9: taken Some(3) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 - stored matched=true
                9: published 3 success
            hold
            pub 9 t/1 four qos=1 tag=4 receipt=dead
                9: taken Some(4) at 1001000
                step 0 - published by pub - to t/1 qos=1 4 B
                count queue_overflow 1
            commit
                step 0 a over overflow 0 after 0 sends, told
                step 0 a queued
                step 0 - stored matched=true
                9: published 4 success
            at 5000
            connect 1 a expiry=60
            commit
                9: deliver $receipt/0000000f462800000001000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":\"a\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000001000000000007\",\"original\":null,\"reason\":\"overflow\",\"topic\":\"t/1\"}" qos=1 tag=2
                1: connected present=true
                count expired 1
                1: deliver t/1 "four" qos=1 tag=1
            commit
                step 0 a over expired 0 after 0 sends, told
                step 0 a sent 1 qos=1
                count queue_overflow 1
            ack 1 1 reason=131
                count refused_by_receiver 1
            commit
                step 0 a dead refused 131 after 1 sends letter 0-0-31, told
                count queue_overflow 1
            connect 1 a clean
                count taken_over 1
                1: close session_taken_over
            commit
                1: connected present=false
        "#]],
    );
}

/// A message that comes back after its connection broke is told of with the number of its sends.
#[test]
fn each_send_is_counted() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 hello qos=1 tag=1 receipt=sent
        disc 1 lost
        connect 1 a expiry=60
        ack 1 1
        ",
        expect![[r#"
            pub 9 t/1 hello qos=1 tag=1 receipt=sent
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                step 0 a queued
                step 0 a sent 1 qos=1, told
                1: deliver t/1 "hello" qos=1 tag=1
                step 0 - stored matched=true, told
                9: published 1 success
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=2
            disc 1 lost
            connect 1 a expiry=60
                1: connected present=true
                1: deliver t/1 "hello" qos=1 tag=1 dup
                step 0 a sent 2 qos=1, told
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":2,\"client\":\"a\",\"group\":null,\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=3
            ack 1 1
                step 0 a acknowledged after 2 sends
        "#]],
    );
}

/// Published when it is put off, once; if it ends without having been routed, that is told, too.
#[test]
fn what_is_put_off_is_told_of_when_it_is_taken_in_and_when_it_ends() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 later qos=1 tag=1 receipt=stored deliver=5000
        pub 9 t/1 never qos=1 tag=2 receipt=dead deliver=5000 expires=4000
        at 7000
        ",
        expect![[r#"
            pub 9 t/1 later qos=1 tag=1 receipt=stored deliver=5000
                9: taken Some(1) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                9: published 1 success
            pub 9 t/1 never qos=1 tag=2 receipt=dead deliver=5000 expires=4000
                9: taken Some(2) at 1001000
                step 0 - published by pub - to t/1 qos=1 5 B
                9: published 2 success
            at 7000
                count expired 1
                step 0 a queued
                step 0 a sent 1 qos=1
                1: deliver t/1 "later" qos=1 tag=1
                step 0 - stored matched=true, told
                step 0 - over expired 0 after 0 sends, told
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1007000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"t/1\"}" qos=1 tag=1
                9: deliver $receipt/0000000f462800000001000000000007/dead/- "{\"at_unix_ms\":1007000,\"attempts\":0,\"client\":null,\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000001000000000007\",\"original\":null,\"reason\":\"expired\",\"topic\":\"t/1\"}" qos=1 tag=2
        "#]],
    );
}

/// The key's shard is not that of its publisher: the key says whose message it is.
#[test]
fn who_publishes_under_a_key_is_known_on_another_shard() {
    let mut world = World::new(2, true, |_| {}).open();
    let keys = (0..20).map(|n| format!("key-{n}"));
    let pubs: String =
        keys.enumerate().map(|(n, key)| format!("pub 9 t k qos=1 tag={} key={key} receipt=stored\n", n + 1)).collect();
    let told = world.run(&format!("connect 9 pub user=ann\n{pubs}"));
    let published: Vec<&str> = told.lines().filter(|line| line.contains("published by")).collect();
    assert_eq!(published.len(), 20, "{told}");
    assert!(published.iter().any(|line| line.trim_start().starts_with("step 0")), "{told}");
    assert!(published.iter().any(|line| line.trim_start().starts_with("step 1")), "{told}");
    assert!(published.iter().all(|line| line.contains("ann")), "{told}");
}

/// A client that wants receipts hears under which id its publish was taken in, before its answer: in memory, put off, under a key of
/// this shard or another one, and again when it repeats what it has no answer to. Others hear nothing.
#[test]
fn the_publisher_hears_the_id() {
    let mut world = World::new(2, true, |_| {}).open();
    let home = world.home("pub");
    let key = |of: usize| (0..).map(|n| format!("k{n}")).find(|key| world.home_of_key("u", key) == of).unwrap();
    let (here, there) = (key(home), key(1 - home));
    let taken = |world: &mut World, line: &str| {
        let output = world.run(line);
        let places: Vec<_> = ["taken Some(1)", "published 1"].iter().map(|what| output.find(what)).collect();
        assert!(places[1].is_some(), "{output}");
        (places[0].is_some() && places[0] < places[1], output)
    };
    world.run("connect 1 sub expiry=600\n sub 1 1 t:1\n connect 9 pub user=u expiry=600");
    for (wish, is_told) in
        [("", false), ("receipt=stored", true), ("receipt=dead deliver=5000", true), ("priority=high", false)]
    {
        let (told, output) = taken(&mut world, &format!("pub 9 t x qos=1 tag=1 {wish}"));
        assert_eq!(told, is_told, "{output}");
    }
    for key in [&here, &there] {
        for _ in 0..2 {
            let (told, output) = taken(&mut world, &format!("pub 9 t x qos=1 tag=1 receipt=stored key={key}"));
            assert!(told, "{output}");
        }
        let (told, output) = taken(&mut world, &format!("pub 9 t other qos=1 tag=1 receipt=stored key={key}"));
        assert!(!told, "{output}");
    }
    let (told, first) = taken(&mut world, "pub 9 t x qos=2 tag=1 receipt=sent");
    let (again, second) = taken(&mut world, "pub 9 t x qos=2 tag=1 dup receipt=sent");
    let id = |output: &str| output.lines().find(|line| line.contains("taken")).unwrap().to_owned();
    assert!(told && again && id(&first) == id(&second), "{first} {second}");
    let refused = world.run("disk full\n pub 9 t x qos=1 tag=3 receipt=stored");
    assert!(!refused.contains("taken"), "{refused}");
}

/// The name of a group stood where that of a client does: nobody could tell one from the other.
#[test]
fn a_consumer_group_is_told_from_a_client() {
    check(
        begun(durable().open()),
        "
        group a set g/#
        pub 9 g/1 hello qos=1 tag=1 receipt=acknowledged
        ack 9 1
        group a take
        group a ack 12-1-19-7-1
        pub 9 g/1 more qos=1 tag=2 receipt=dead
        group a delete
        ",
        expect![[r#"
            group a set g/#
                group 1: Set { is_new: true }
            pub 9 g/1 hello qos=1 tag=1 receipt=acknowledged
                9: taken Some(1) at 1001000
                step 0 - published by pub - to g/1 qos=1 5 B
                step 0 group a queued
                step 0 - stored matched=true, told
                9: published 1 success
                9: deliver $receipt/0000000f462800000000000000000007/stored/- "{\"at_unix_ms\":1001000,\"attempts\":null,\"client\":null,\"group\":null,\"level\":\"stored\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"g/1\"}" qos=1 tag=1
            ack 9 1
            group a take
                step 0 group a sent 1 qos=1, told
                group 2: 1 leased
                    12-1-19-7-1 g/1 "hello"
                9: deliver $receipt/0000000f462800000000000000000007/sent/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":null,\"group\":\"a\",\"level\":\"sent\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"g/1\"}" qos=1 tag=2
            group a ack 12-1-19-7-1
                step 0 group a acknowledged after 1 sends, told
                group 3: Answered([true])
                9: deliver $receipt/0000000f462800000000000000000007/acknowledged/a "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":null,\"group\":\"a\",\"level\":\"acknowledged\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":null,\"topic\":\"g/1\"}" qos=1 tag=3
            pub 9 g/1 more qos=1 tag=2 receipt=dead
                9: taken Some(2) at 1001000
                step 0 - published by pub - to g/1 qos=1 4 B
                step 0 group a queued
                step 0 - stored matched=true
                9: published 2 success
            group a delete
                count group_deleted 1
                step 0 group a over session_ended 0 after 0 sends, told
                group 4: Deleted
                9: deliver $receipt/0000000f462800000004000000000007/dead/a "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":null,\"group\":\"a\",\"level\":\"dead\",\"message\":\"0000000f462800000004000000000007\",\"original\":null,\"reason\":\"session_ended\",\"topic\":\"g/1\"}" qos=1 tag=4
        "#]],
    );
}

/// What was leased for the first time when its group was deleted was told as sent never.
#[test]
fn what_is_in_flight_when_its_session_ends_was_sent() {
    check(
        begun(durable().open()),
        "
        connect 2 b
        sub 2 1 u/#:1
        pub 9 u/1 hello qos=1 tag=1 receipt=dead
        disc 2
        group g set v/#
        pub 9 v/1 hello qos=1 tag=2 receipt=dead
        pub 9 v/2 hello qos=1 tag=3 receipt=dead
        group g take limit=1
        group g delete
        ",
        expect![[r#"
            connect 2 b
                2: connected present=false
            sub 2 1 u/#:1
                2: subscribed 1 granted_qos_1
            pub 9 u/1 hello qos=1 tag=1 receipt=dead
                9: taken Some(1) at 1001000
                step 0 - published by pub - to u/1 qos=1 5 B
                step 0 b queued
                step 0 b sent 1 qos=1
                2: deliver u/1 "hello" qos=1 tag=1
                step 0 - stored matched=true
                9: published 1 success
            disc 2
                count session_ended 1
                step 0 b over session_ended 0 after 1 sends, told
                9: deliver $receipt/0000000f462800000000000000000007/dead/b "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":\"b\",\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":\"session_ended\",\"topic\":\"u/1\"}" qos=1 tag=1
            group g set v/#
                group 1: Set { is_new: true }
            pub 9 v/1 hello qos=1 tag=2 receipt=dead
                9: taken Some(2) at 1001000
                step 0 - published by pub - to v/1 qos=1 5 B
                step 0 group g queued
                step 0 - stored matched=true
                9: published 2 success
            pub 9 v/2 hello qos=1 tag=3 receipt=dead
                9: taken Some(3) at 1001000
                step 0 - published by pub - to v/2 qos=1 5 B
                step 0 group g queued
                step 0 - stored matched=true
                9: published 3 success
            group g take limit=1
                step 0 group g sent 1 qos=1
                group 2: 1 leased
                    11-0-20-7-1 v/1 "hello"
            group g delete
                count group_deleted 2
                step 0 group g over session_ended 0 after 1 sends, told
                step 0 group g over session_ended 0 after 0 sends, told
                group 3: Deleted
                9: deliver $receipt/0000000f462800000002000000000007/dead/g "{\"at_unix_ms\":1001000,\"attempts\":1,\"client\":null,\"group\":\"g\",\"level\":\"dead\",\"message\":\"0000000f462800000002000000000007\",\"original\":null,\"reason\":\"session_ended\",\"topic\":\"v/1\"}" qos=1 tag=2
                9: deliver $receipt/0000000f462800000003000000000007/dead/g "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":null,\"group\":\"g\",\"level\":\"dead\",\"message\":\"0000000f462800000003000000000007\",\"original\":null,\"reason\":\"session_ended\",\"topic\":\"v/2\"}" qos=1 tag=3
        "#]],
    );
}
