//! Dead letters: what nobody has got is kept, found, acted on, and survives (REL-6, REL-7, REL-8, PER-3, PER-4).

use crate::world::{World, durable, memory};
use expect_test::{Expect, expect};
use postroad_broker::QueuePolicy;

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// The session of `a` has subscribed, the publisher is 9, and the watcher of letters is 8.
const BEGIN: &str = "
    connect 1 a expiry=60
    sub 1 1 t/#:1 u:2
    connect 8 w expiry=60
    sub 8 1 $dead/#:1
    connect 9 pub
";

fn begun(mut world: World) -> World {
    world.run(BEGIN);
    world.showing_log()
}

/// One record ends the delivery and makes the letter; it is told of on `$dead/…`, and found after a crash.
#[test]
fn a_refused_delivery_becomes_a_letter() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 hello qos=1 tag=1
        ack 1 1 reason=131
        letters
        crash
        letters
        ",
        expect![[r#"
            pub 9 t/1 hello qos=1 tag=1
                log 12 Publish to 1
                1: deliver t/1 "hello" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 13 QueueBegin
                log 14 Transfer 12 Refused
                log 15 Publish to 1
                8: deliver $dead/refused/t/1 "hello" qos=1 tag=1
            letters
                letter 0-0-14 t/1 "hello" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            crash
                log 16 Disconnected
                log 17 Disconnected
            letters
                letter 0-0-14 t/1 "hello" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
        "#]],
    );
}

/// The letter of a QoS 2 delivery that was refused by PUBREC; the client gets it again at QoS 2.
#[test]
fn a_letter_of_qos_2_is_requeued_at_qos_2() {
    check(
        begun(durable().open()),
        "
        pub 9 u hello qos=2 tag=1
        rel 9 1
        rec 1 1 reason=153
        letters
        letter 0-0-15 requeue payload=better ttl=60
        rec 1 2
        comp 1 2
        letters
        ",
        expect![[r#"
            pub 9 u hello qos=2 tag=1
                log 12 Publish to 1
                log 13 Tagged 12 tag=1
                1: deliver u "hello" qos=2 tag=1
                9: published 1 success
            rel 9 1
                9: completed 1 success
            rec 1 1 reason=153
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 12 Refused
                log 16 Publish to 1
                8: deliver $dead/refused/u "hello" qos=1 tag=1
            letters
                letter 0-0-15 u "hello" qos=2 of a refused code=153 attempts=1 requeues=0 at 1001000
                that was all
            letter 0-0-15 requeue payload=better ttl=60
                log 17 Transfer 15 Requeued
                log 18 Tagged 17 tag=2
                1: deliver u "better" qos=2 tag=2
                done, as a new message
            rec 1 2
                log 19 Received 17
                1: release 2 success
            comp 1 2
                log 20 Settle 17 Acknowledged
            letters
                that was all
        "#]],
    );
}

/// Stored letters are read, in memory ones are behind them; pages go on where the last one ended, and what is over is not found,
/// whether the old generation has forgotten it or not.
#[test]
fn stored_letters_are_found_page_by_page() {
    check(
        begun(durable().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        pub 9 t/3 three qos=1 tag=3
        ack 1 1 reason=131
        ack 1 2 reason=131
        retire
        ack 1 3 reason=131
        letters limit=1
        letters limit=1 after=0-0-17
        letters topic=t/3
        letters client=b
        letter 0-0-17 drop
        letters
        letter 0-0-17 drop
        crash
        letters
        letter 0-0-19 drop
        retire
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                log 14 Publish to 1
                1: deliver t/2 "two" qos=1 tag=2
                9: published 2 success
            pub 9 t/3 three qos=1 tag=3
                log 15 Publish to 1
                1: deliver t/3 "three" qos=1 tag=3
                9: published 3 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 16 QueueBegin
                log 17 Transfer 13 Refused
                log 18 Publish to 1
            ack 1 2 reason=131
                count refused_by_receiver 1
                log 19 Transfer 14 Refused
                log 20 Publish to 1
            retire
                ingest: 5 pending, 0 settled
            ack 1 3 reason=131
                count refused_by_receiver 1
                log 21 Transfer 15 Refused
                log 22 Publish to 1
            letters limit=1
                read backlog: 2 entries, end=true
                letter 0-0-17 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                more behind 0-0-17
            letters limit=1 after=0-0-17
                read backlog: 1 entries, end=true
                letter 0-0-19 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                more behind 0-0-19
            letters topic=t/3
                read backlog: 2 entries, end=true
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letters client=b
                read backlog: 2 entries, end=true
                that was all
            letter 0-0-17 drop
                read backlog: 1 entries, end=false
                log 23 Settle 17 Dropped
                done
            letters
                read backlog: 2 entries, end=true
                letter 0-0-19 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letter 0-0-17 drop
                read backlog: 1 entries, end=false
                Gone
            crash
                log 24 Disconnected
            letters
                read backlog: 2 entries, end=true
                letter 0-0-19 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letter 0-0-19 drop
                read backlog: 1 entries, end=false
                log 25 Settle 19 Dropped
                done
            retire
                ingest: 2 pending, 3 settled
            letters
                read backlog: 1 entries, end=true
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
        "#]],
    );
}

/// Who leases a letter has it alone until the time is over, or until it gives it back.
#[test]
fn a_lease_ends_by_itself() {
    check(
        begun(memory().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        ack 1 1 reason=131
        ack 1 2 reason=131
        letters free limit=1 lease=5000
        letters free lease=5000
        letters free
        letter 0-140737488355332-3 release
        letters free
        at 7000
        letters free
        ",
        expect![[r#"
            disc 8
            pub 9 t/1 one qos=1 tag=1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                1: deliver t/2 "two" qos=1 tag=2
                9: published 2 success
            ack 1 1 reason=131
                count refused_by_receiver 1
            ack 1 2 reason=131
                count refused_by_receiver 1
            letters free limit=1 lease=5000
                letter 0-140737488355332-3 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                more behind 0-140737488355332-3
            letters free lease=5000
                letter 0-140737488355332-5 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letters free
                that was all
            letter 0-140737488355332-3 release
                done
            letters free
                letter 0-140737488355332-3 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            at 7000
            letters free
                letter 0-140737488355332-3 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-140737488355332-5 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
        "#]],
    );
}

/// A human's letter keeps its note through crash and retirement.
#[test]
fn a_parked_letter_keeps_its_note() {
    check(
        begun(durable().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        ack 1 1 reason=131
        letter 0-0-15 park note=why
        crash
        retire
        letters parked
        crash
        letters parked
        letter 0-0-15 unpark
        letters parked
        letter 0-0-15 show
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
                log 16 Publish to 1
            letter 0-0-15 park note=why
                log 17 Park 15 Some("why")
                done
            crash
                log 18 Disconnected
            retire
                ingest: 2 pending, 0 settled
            letters parked
                read backlog: 1 entries, end=true
                letter 0-0-15 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000 parked "why"
                that was all
            crash
            letters parked
                read backlog: 1 entries, end=true
                letter 0-0-15 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000 parked "why"
                that was all
            letter 0-0-15 unpark
                read backlog: 1 entries, end=false
                log 19 Park 15 None
                done
            letters parked
                read backlog: 1 entries, end=true
                that was all
            letter 0-0-15 show
                read backlog: 1 entries, end=false
                letter 0-0-15 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
        "#]],
    );
}

/// What is too large for its client (149) is so again after a requeue, at each level, here or when the client is back: a letter each
/// time, never sent and never lost, and for a human in the end.
#[test]
fn what_is_too_large_is_a_letter_again_after_a_requeue() {
    let world = World::new(1, true, |config| config.limits.requeues_max = 2);
    check(
        begun(world.open()),
        "
        disc 8
        pub 9 t/1 large qos=1 tag=1
        ack 1 1 reason=149
        pub 9 u large qos=2 tag=2
        rec 1 2 reason=149
        letters
        letter 0-0-15 requeue
        ack 1 3 reason=149
        letters
        disc 1 lost
        letter 0-0-19 requeue
        letter 0-0-22 requeue
        letters
        crash
        connect 2 a expiry=60
        rec 2 3 reason=149
        ack 2 4 reason=149
        letters
        stats
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 large qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "large" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=149
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 TooLarge
                log 16 Publish to 1
            pub 9 u large qos=2 tag=2
                log 17 Publish to 1
                log 18 Tagged 17 tag=2
                1: deliver u "large" qos=2 tag=2
                9: published 2 success
            rec 1 2 reason=149
                count refused_by_receiver 1
                log 19 Transfer 17 TooLarge
                log 20 Publish to 1
            letters
                letter 0-0-15 t/1 "large" qos=1 of a too_large code=0 attempts=0 requeues=0 at 1001000
                letter 0-0-19 u "large" qos=2 of a too_large code=0 attempts=0 requeues=0 at 1001000
                that was all
            letter 0-0-15 requeue
                log 21 Transfer 15 Requeued
                1: deliver t/1 "large" qos=1 tag=3
                done, as a new message
            ack 1 3 reason=149
                count refused_by_receiver 1
                log 22 Transfer 21 TooLarge
                log 23 Publish to 1
            letters
                letter 0-0-19 u "large" qos=2 of a too_large code=0 attempts=0 requeues=0 at 1001000
                letter 0-0-22 t/1 "large" qos=1 of a too_large code=0 attempts=0 requeues=1 at 1001000
                that was all
            disc 1 lost
                log 24 Disconnected
            letter 0-0-19 requeue
                log 25 Transfer 19 Requeued
                done, as a new message
            letter 0-0-22 requeue
                log 26 Transfer 22 Requeued
                done, as a new message
            letters
                that was all
            crash
            connect 2 a expiry=60
                log 27 Connected
                2: connected present=true
                log 28 Tagged 25 tag=3
                2: deliver u "large" qos=2 tag=3
                2: deliver t/1 "large" qos=1 tag=4 dup
            rec 2 3 reason=149
                count refused_by_receiver 1
                log 29 Transfer 25 TooLarge
                log 30 Publish to 1
            ack 2 4 reason=149
                count refused_by_receiver 1
                log 31 Transfer 26 TooLarge
                log 32 Park 31 Some("died again after 2 requeues")
                log 33 Publish to 1
            letters
                letter 0-0-29 u "large" qos=2 of a too_large code=0 attempts=0 requeues=1 at 1001000
                letter 0-0-31 t/1 "large" qos=1 of a too_large code=0 attempts=1 requeues=2 at 1001000 parked "died again after 2 requeues"
                that was all
            stats
                sessions=2 registrations=0 connections=1 subscriptions=3 retained=0 queued=5 bytes=116 inflight=0 log=33
        "#]],
    );
}

/// What has been requeued too often is for a human.
#[test]
fn after_too_many_requeues_it_is_parked() {
    let world = World::new(1, true, |config| config.limits.requeues_max = 1);
    check(
        begun(world.open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        ack 1 1 reason=131
        letter 0-0-15 requeue
        ack 1 2 reason=131
        letters
        crash
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
                log 16 Publish to 1
            letter 0-0-15 requeue
                log 17 Transfer 15 Requeued
                1: deliver t/1 "one" qos=1 tag=2
                done, as a new message
            ack 1 2 reason=131
                count refused_by_receiver 1
                log 18 Transfer 17 Refused
                log 19 Park 18 Some("died again after 1 requeues")
                log 20 Publish to 1
            letters
                letter 0-0-18 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=1 at 1001000 parked "died again after 1 requeues"
                that was all
            crash
                log 21 Disconnected
            letters
                letter 0-0-18 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=1 at 1001000 parked "died again after 1 requeues"
                that was all
        "#]],
    );
}

/// A client that is away gets it when it comes; one that is gone can't.
#[test]
fn a_letter_waits_for_its_client_or_has_none() {
    check(
        begun(durable().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        ack 1 1 reason=131
        disc 1
        letter 0-0-15 requeue
        connect 2 a expiry=60
        ack 2 2 reason=131
        disc 2 expiry=0
        letters
        letter 0-0-20 requeue
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
                log 16 Publish to 1
            disc 1
                log 17 Disconnected
            letter 0-0-15 requeue
                log 18 Transfer 15 Requeued
                done, as a new message
            connect 2 a expiry=60
                log 19 Connected
                2: connected present=true
                2: deliver t/1 "one" qos=1 tag=2
            ack 2 2 reason=131
                count refused_by_receiver 1
                log 20 Transfer 18 Refused
                log 21 Publish to 1
            disc 2 expiry=0
                log 22 QueueEnd
            letters
                letter 0-0-20 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=1 at 1001000
                that was all
            letter 0-0-20 requeue
                NoClient
            letters
                letter 0-0-20 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=1 at 1001000
                that was all
        "#]],
    );
}

/// The oldest of a full queue becomes a letter, also if it was stored.
#[test]
fn what_makes_room_becomes_a_letter() {
    let tune = |config: &mut postroad_broker::Config| {
        config.limits.queue_policy = QueuePolicy::DeadLetterOldest;
        config.limits.queue_messages_max = 2;
    };
    check(
        begun(World::new(1, true, tune).open()),
        "
        disc 8
        disc 1
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        pub 9 t/3 three qos=1 tag=3
        retire
        pub 9 t/4 four qos=1 tag=4
        letters
        connect 1 a expiry=60
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            disc 1
                log 13 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 14 Publish to 1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                log 15 Publish to 1
                9: published 2 success
            pub 9 t/3 three qos=1 tag=3
                log 16 Publish to 1
                log 17 QueueBegin
                log 18 Transfer 14 Overflow
                count queue_overflow 1
                9: published 3 success
                log 19 Publish to 1
            retire
                ingest: 4 pending, 0 settled
            pub 9 t/4 four qos=1 tag=4
                log 20 Publish to 1
                read backlog: 2 entries, end=true
                log 21 Transfer 15 Overflow
                count queue_overflow 1
                9: published 4 success
                log 22 Publish to 1
            letters
                read backlog: 1 entries, end=true
                letter 0-0-18 t/1 "one" qos=1 of a overflow code=0 attempts=0 requeues=0 at 1001000
                letter 0-0-21 t/2 "two" qos=1 of a overflow code=0 attempts=0 requeues=0 at 1001000
                that was all
            connect 1 a expiry=60
                log 23 Connected
                1: connected present=true
                1: deliver t/3 "three" qos=1 tag=1
                1: deliver t/4 "four" qos=1 tag=2
        "#]],
    );
}

/// Too many or too old: the oldest go, stored or not.
#[test]
fn letters_are_kept_within_bounds() {
    let tune = |config: &mut postroad_broker::Config| {
        config.limits.letters_max = 2;
        config.limits.letters_age_max_ms = 100_000;
    };
    check(
        begun(World::new(1, true, tune).open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        pub 9 t/3 three qos=1 tag=3
        ack 1 1 reason=131
        ack 1 2 reason=131
        retire
        ack 1 3 reason=131
        letters
        at 50000
        pub 9 t/4 four qos=1 tag=4
        ack 1 4 reason=131
        at 120000
        letters
        crash
        at 300000
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                log 14 Publish to 1
                1: deliver t/2 "two" qos=1 tag=2
                9: published 2 success
            pub 9 t/3 three qos=1 tag=3
                log 15 Publish to 1
                1: deliver t/3 "three" qos=1 tag=3
                9: published 3 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 16 QueueBegin
                log 17 Transfer 13 Refused
                log 18 Publish to 1
            ack 1 2 reason=131
                count refused_by_receiver 1
                log 19 Transfer 14 Refused
                log 20 Publish to 1
            retire
                ingest: 5 pending, 0 settled
            ack 1 3 reason=131
                count refused_by_receiver 1
                log 21 Transfer 15 Refused
                read backlog: 2 entries, end=true
                log 22 Settle 17 Retention
                log 23 Publish to 1
            letters
                read backlog: 2 entries, end=true
                letter 0-0-19 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            at 50000
            pub 9 t/4 four qos=1 tag=4
                log 24 Publish to 1
                1: deliver t/4 "four" qos=1 tag=4
                9: published 4 success
            ack 1 4 reason=131
                count refused_by_receiver 1
                log 25 Transfer 24 Refused
                read backlog: 2 entries, end=true
                log 26 Settle 19 Retention
                log 27 Publish to 1
            at 120000
                count session_expired 1
                count session_ended 4
                log 28 QueueEnd
                log 29 Settle 21 Retention
            letters
                letter 0-0-25 t/4 "four" qos=1 of a refused code=131 attempts=1 requeues=0 at 1050000
                that was all
            crash
                log 30 Disconnected
            at 300000
                log 31 Settle 25 Retention
                count session_expired 1
                log 32 Disconnected
                read backlog: 1 entries, end=true
                log 33 QueueEnd
            letters
                that was all
        "#]],
    );
}

/// What tells of letters ends without one, and so does what the server gave up itself.
#[test]
fn a_letter_does_not_follow_from_a_letter() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        ack 1 1 reason=131
        ack 8 1 reason=131
        letters
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 12 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 13 QueueBegin
                log 14 Transfer 12 Refused
                log 15 Publish to 1
                8: deliver $dead/refused/t/1 "one" qos=1 tag=1
            ack 8 1 reason=131
                count refused_by_receiver 1
                log 16 Settle 15 Refused
            letters
                letter 0-0-14 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
        "#]],
    );
}

/// Found by the simulator (seed 344 on three shards): a letter was requeued while the first batch that held it was under way. It
/// had left memory, but no backlog was there yet to note that what is stored of it is over; with `Ingested` the letters around
/// it became one, and the next look read it among them: it was requeued once more.
#[test]
fn what_is_over_before_its_first_batch_is_stored_stays_over() {
    check(
        begun(durable().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        pub 9 t/3 three qos=1 tag=3
        ack 1 1 reason=131
        ack 1 2 reason=131
        ack 1 3 reason=131
        hold
        pub 9 t/4 four qos=1 tag=4
        retire
        letter 0-0-19 drop
        flow
        letters
        letter 0-0-19 drop
        stats letters
        retire
        crash
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                log 14 Publish to 1
                1: deliver t/2 "two" qos=1 tag=2
                9: published 2 success
            pub 9 t/3 three qos=1 tag=3
                log 15 Publish to 1
                1: deliver t/3 "three" qos=1 tag=3
                9: published 3 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 16 QueueBegin
                log 17 Transfer 13 Refused
                log 18 Publish to 1
            ack 1 2 reason=131
                count refused_by_receiver 1
                log 19 Transfer 14 Refused
                log 20 Publish to 1
            ack 1 3 reason=131
                count refused_by_receiver 1
                log 21 Transfer 15 Refused
                log 22 Publish to 1
            hold
            pub 9 t/4 four qos=1 tag=4
                log 23 Publish to 1
            retire
            letter 0-0-19 drop
                log 24 Settle 19 Dropped
            flow
                1: deliver t/4 "four" qos=1 tag=4
                9: published 4 success
                ingest: 6 pending, 0 settled
                done
            letters
                read backlog: 3 entries, end=true
                letter 0-0-17 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letter 0-0-19 drop
                read backlog: 1 entries, end=false
                Gone
            stats letters
                letters=2 bytes=14
            retire
                ingest: 1 pending, 1 settled
            crash
                log 25 Disconnected
            letters
                read backlog: 2 entries, end=true
                letter 0-0-17 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-21 t/3 "three" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
        "#]],
    );
}

/// The same, and the letters in front of them go for want of room meanwhile: with the last stored one went what was known of
/// those that are over.
#[test]
fn what_is_over_stays_over_when_all_that_was_stored_goes() {
    check(
        begun(World::new(1, true, |config| config.limits.letters_max = 3).open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        pub 9 t/3 three qos=1 tag=3
        pub 9 t/4 four qos=1 tag=4
        pub 9 t/5 five qos=1 tag=5
        ack 1 1 reason=131
        retire
        ack 1 2 reason=131
        ack 1 3 reason=131
        hold
        pub 9 t/6 six qos=1 tag=6
        retire
        letter 0-0-23 drop
        ack 1 4 reason=131
        ack 1 5 reason=131
        flow
        letters
        stats letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                log 14 Publish to 1
                1: deliver t/2 "two" qos=1 tag=2
                9: published 2 success
            pub 9 t/3 three qos=1 tag=3
                log 15 Publish to 1
                1: deliver t/3 "three" qos=1 tag=3
                9: published 3 success
            pub 9 t/4 four qos=1 tag=4
                log 16 Publish to 1
                1: deliver t/4 "four" qos=1 tag=4
                9: published 4 success
            pub 9 t/5 five qos=1 tag=5
                log 17 Publish to 1
                1: deliver t/5 "five" qos=1 tag=5
                9: published 5 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 18 QueueBegin
                log 19 Transfer 13 Refused
                log 20 Publish to 1
            retire
                ingest: 6 pending, 0 settled
            ack 1 2 reason=131
                count refused_by_receiver 1
                log 21 Transfer 14 Refused
                log 22 Publish to 1
            ack 1 3 reason=131
                count refused_by_receiver 1
                log 23 Transfer 15 Refused
                log 24 Publish to 1
            hold
            pub 9 t/6 six qos=1 tag=6
                log 25 Publish to 1
            retire
            letter 0-0-23 drop
                log 26 Settle 23 Dropped
            ack 1 4 reason=131
                count refused_by_receiver 1
                log 27 Transfer 16 Refused
            ack 1 5 reason=131
                count refused_by_receiver 1
                log 28 Transfer 17 Refused
                read backlog: 1 entries, end=true
                log 29 Settle 19 Retention
            flow
                1: deliver t/6 "six" qos=1 tag=6
                9: published 6 success
                ingest: 4 pending, 2 settled
                done
                log 30 Publish to 1
                log 31 Publish to 1
            letters
                read backlog: 3 entries, end=true
                letter 0-0-21 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-27 t/4 "four" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-28 t/5 "five" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            stats letters
                letters=3 bytes=20
        "#]],
    );
}

/// Found by the simulator (seed 31 on three shards): all that had been stored was over and forgotten, but after a crash the shard
/// said that it had one letter more than it had. Of an ordinary queue that is a guess that lasts until it is read in its turn; the
/// letters are never.
#[test]
fn after_a_crash_no_letter_is_counted_that_is_not_there() {
    check(
        begun(durable().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        ack 1 1 reason=131
        retire
        letter 0-0-15 drop
        retire
        crash
        stats letters
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
                log 16 Publish to 1
            retire
                ingest: 2 pending, 0 settled
            letter 0-0-15 drop
                read backlog: 1 entries, end=false
                log 17 Settle 15 Dropped
                done
            retire
                ingest: 0 pending, 1 settled
            crash
                log 18 Disconnected
            stats letters
                letters=0 bytes=0
            letters
                that was all
        "#]],
    );
}

/// Found by the simulator (seed 375 on three shards): a look told of a letter that was not committed, a crash took it, and
/// its name was given to the next record. Whoever had been told of it could have dropped another letter by that name.
#[test]
fn a_letter_is_told_of_once_it_is_safe() {
    check(
        begun(durable().open()),
        "
        disc 8
        pub 9 t/1 one qos=1 tag=1
        hold
        ack 1 1 reason=131
        letters
        crash
        letters
        flow
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            hold
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
            letters
            crash
                log 14 Disconnected
            letters
            flow
                that was all
            letters
                that was all
        "#]],
    );
}

/// A portion of one queue was taken for one of the first queue that had letters by then; and where the first queue had only young
/// ones, those of the second grew old for ever.
#[test]
fn each_queue_of_letters_is_kept_within_bounds() {
    let tune = |config: &mut postroad_broker::Config| config.limits.letters_age_max_ms = 100_000;
    check(
        begun(World::new(1, true, tune).open()),
        "
        disc 8
        pub 9 t/0 old qos=1 tag=1
        ack 1 1 reason=131
        bring 3
        crash
        connect 2 a expiry=6000
        connect 9 pub
        at 90000
        letter 0-0-15 drop
        pub 9 t/1 young qos=1 tag=1
        ack 2 1 reason=131
        at 160000
        letters
        stats letters
        at 300000
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/0 old qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/0 "old" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
                log 16 Publish to 1
            bring 3
            crash
                log 17 Disconnected
            connect 2 a expiry=6000
                log 18 Connected
                2: connected present=true
            connect 9 pub
                9: connected present=false
            at 90000
                read backlog: 3 entries, end=true
                count session_expired 1
                count session_ended 1
                log 19 QueueEnd
            letter 0-0-15 drop
                log 20 Settle 15 Dropped
                done
            pub 9 t/1 young qos=1 tag=1
                log 21 Publish to 1
                2: deliver t/1 "young" qos=1 tag=1
                9: published 1 success
            ack 2 1 reason=131
                count refused_by_receiver 1
                log 22 Transfer 21 Refused
            at 160000
                read backlog: 3 entries, end=true
                log 23 Settle 1 Retention
                log 24 Settle 2 Retention
                log 25 Settle 3 Retention
            letters
                letter 0-0-22 t/1 "young" qos=1 of a refused code=131 attempts=1 requeues=0 at 1090000
                that was all
            stats letters
                letters=1 bytes=8
            at 300000
                log 26 Settle 22 Retention
            letters
                that was all
        "#]],
    );
}

/// Whoever follows letters names the last one that it has seen of each queue, stored or not, and is told where they end.
#[test]
fn what_was_seen_is_not_found_again() {
    check(
        begun(durable().open()),
        "
        letters limit=0
        disc 8
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/2 two qos=1 tag=2
        ack 1 1 reason=131
        letters limit=0
        retire
        ack 1 2 reason=131
        letters limit=0
        letters seen=0-0-16
        letters seen=0-0-16 client=b
        letters seen=0-0-18
        letters seen=0-0-18,7-0-1
        letters seen=7-0-1
        crash
        letters seen=0-0-16
        ",
        expect![[r#"
            letters limit=0
                the last ones are []
            disc 8
                log 12 Disconnected
            pub 9 t/1 one qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            pub 9 t/2 two qos=1 tag=2
                log 14 Publish to 1
                1: deliver t/2 "two" qos=1 tag=2
                9: published 2 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 15 QueueBegin
                log 16 Transfer 13 Refused
                log 17 Publish to 1
            letters limit=0
                the last ones are ["0-0-16"]
            retire
                ingest: 3 pending, 0 settled
            ack 1 2 reason=131
                count refused_by_receiver 1
                log 18 Transfer 14 Refused
                log 19 Publish to 1
            letters limit=0
                the last ones are ["0-0-18"]
            letters seen=0-0-16
                letter 0-0-18 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            letters seen=0-0-16 client=b
                that was all
            letters seen=0-0-18
                that was all
            letters seen=0-0-18,7-0-1
                that was all
            letters seen=7-0-1
                read backlog: 1 entries, end=true
                letter 0-0-16 t/1 "one" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                letter 0-0-18 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
            crash
                log 20 Disconnected
            letters seen=0-0-16
                read backlog: 0 entries, end=true
                letter 0-0-18 t/2 "two" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000
                that was all
        "#]],
    );
}

/// To park a letter does not stop its age: what nobody has seen to by then goes as any other.
#[test]
fn a_parked_letter_grows_old() {
    let tune = |config: &mut postroad_broker::Config| config.limits.letters_age_max_ms = 100_000;
    check(
        begun(World::new(1, true, tune).open()),
        "
        disc 8
        pub 9 t/0 old qos=1 tag=1
        ack 1 1 reason=131
        at 90000
        letter 0-0-15 park note=ask-Ann
        letters
        at 170000
        letters
        ",
        expect![[r#"
            disc 8
                log 12 Disconnected
            pub 9 t/0 old qos=1 tag=1
                log 13 Publish to 1
                1: deliver t/0 "old" qos=1 tag=1
                9: published 1 success
            ack 1 1 reason=131
                count refused_by_receiver 1
                log 14 QueueBegin
                log 15 Transfer 13 Refused
                log 16 Publish to 1
            at 90000
                count session_expired 1
                count session_ended 1
                log 17 QueueEnd
            letter 0-0-15 park note=ask-Ann
                log 18 Park 15 Some("ask-Ann")
                done
            letters
                letter 0-0-15 t/0 "old" qos=1 of a refused code=131 attempts=1 requeues=0 at 1001000 parked "ask-Ann"
                that was all
            at 170000
                log 19 Settle 15 Retention
            letters
                that was all
        "#]],
    );
}
