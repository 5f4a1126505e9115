//! One shard: sessions, QoS 0 to 2 both ways, order, expiry, overlapping subscriptions, retained, wills.

use crate::world::{World, durable, memory};
use expect_test::{Expect, expect};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// Persist, then acknowledge `[REL-3]`, so that a PUBACK says that the message is owned [MQTT-4.3.2-4]: nothing that promises safety leaves before the commit.
#[test]
fn a_durable_qos_1_message_waits_for_its_commit_at_every_step() {
    check(
        durable().showing_log(),
        "
        hold
        connect 1 sub expiry=60
        commit
        sub 1 1 a/#:1
        commit
        connect 2 pub
        pub 2 a/b hello qos=1 tag=7
        commit
        ack 1 1
        commit
        stats
        ",
        expect![[r#"
            hold
            connect 1 sub expiry=60
                log 1 QueueBegin
            commit
                1: connected present=false
            sub 1 1 a/#:1
                log 2 Subscribe
                log 3 RetainedDue
            commit
                1: subscribed 1 granted_qos_1
                log 4 RetainedGiven
            connect 2 pub
            pub 2 a/b hello qos=1 tag=7
                log 5 Publish to 1
            commit
                2: connected present=false
                2: published 7 success
                1: deliver a/b "hello" qos=1 tag=1
            ack 1 1
                log 6 Settle 5 Acknowledged
            commit
            stats
                sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=6
        "#]],
    );
}

/// [MQTT-4.3.3]: exactly once, both ways; the tag is committed before its PUBLISH leaves.
#[test]
fn qos_2_both_ways() {
    check(
        durable().showing_log(),
        "
        connect 1 sub expiry=60
        sub 1 1 a/#:2
        connect 2 pub expiry=60
        hold
        pub 2 a/b hello qos=2 tag=7
        commit
        pub 2 a/b hello qos=2 tag=7 dup
        rec 1 1
        commit
        comp 1 1
        rel 2 7
        commit
        rel 2 7
        stats
        ",
        expect![[r#"
            connect 1 sub expiry=60
                log 1 QueueBegin
                1: connected present=false
            sub 1 1 a/#:2
                log 2 Subscribe
                log 3 RetainedDue
                1: subscribed 1 granted_qos_2
                log 4 RetainedGiven
            connect 2 pub expiry=60
                log 5 QueueBegin
                2: connected present=false
            hold
            pub 2 a/b hello qos=2 tag=7
                log 6 InboundBegin
                log 7 Publish to 1
                log 8 Tagged 7 tag=1
            commit
                1: deliver a/b "hello" qos=2 tag=1
                2: published 7 success
            pub 2 a/b hello qos=2 tag=7 dup
                2: published 7 success
            rec 1 1
                log 9 Received 7
            commit
                1: release 1 success
            comp 1 1
                log 10 Settle 7 Acknowledged
            rel 2 7
                log 11 InboundEnd
            commit
                2: completed 7 success
            rel 2 7
                count unknown_tag 1
                2: completed 7 packet_identifier_not_found
            stats
                sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=11
        "#]],
    );
}

/// [MQTT-4.4.0-1], [MQTT-4.6.0-1]: what was in flight goes again, with the same tag, DUP, and in order; the release for what was received.
#[test]
fn a_reconnect_repeats_what_was_in_flight() {
    let script = "
        connect 1 sub expiry=60 max=3
        sub 1 1 a:1 b:2
        connect 2 pub
        pub 2 a 1 qos=1 tag=1
        pub 2 b 2 qos=2 tag=2
        pub 2 b 3 qos=2 tag=3
        pub 2 a 4 qos=1 tag=4
        rec 1 3
        disc 1 lost
        pub 2 a 5 qos=1 tag=5
        pub 2 a lost qos=0
        connect 3 sub expiry=60 max=2
        ack 3 1
        comp 3 3
        rec 3 2
        comp 3 2
        ack 3 9
        ";
    let in_memory = memory().run(script);
    assert_eq!(in_memory, durable().run(script));
    expect![[r#"
        connect 1 sub expiry=60 max=3
            1: connected present=false
        sub 1 1 a:1 b:2
            1: subscribed 1 granted_qos_1 granted_qos_2
        connect 2 pub
            2: connected present=false
        pub 2 a 1 qos=1 tag=1
            1: deliver a "1" qos=1 tag=1
            2: published 1 success
        pub 2 b 2 qos=2 tag=2
            1: deliver b "2" qos=2 tag=2
            2: published 2 success
        pub 2 b 3 qos=2 tag=3
            1: deliver b "3" qos=2 tag=3
            2: published 3 success
        pub 2 a 4 qos=1 tag=4
            2: published 4 success
        rec 1 3
            1: release 3 success
        disc 1 lost
        pub 2 a 5 qos=1 tag=5
            2: published 5 success
        pub 2 a lost qos=0
            count dropped_qos0_offline 1
        connect 3 sub expiry=60 max=2
            3: connected present=true
            3: deliver a "1" qos=1 tag=1 dup
            3: deliver b "2" qos=2 tag=2 dup
            3: release 3 success
        ack 3 1
        comp 3 3
            3: deliver a "4" qos=1 tag=4
        rec 3 2
            3: release 2 success
        comp 3 2
            3: deliver a "5" qos=1 tag=5
        ack 3 9
            count unknown_tag 1
    "#]]
    .assert_eq(&in_memory);
}

/// A clean session's QoS 1 and 2 wait for nothing and leave nothing in the log.
#[test]
fn a_session_that_ends_with_its_connection_writes_nothing() {
    check(
        durable().showing_log(),
        "
        hold
        connect 1 sub
        sub 1 1 a:2
        connect 2 pub
        pub 2 a x qos=1 tag=1
        pub 2 a y qos=2 tag=2
        rel 2 2
        ack 1 1
        rec 1 2
        comp 1 2
        disc 1
        pub 2 a z qos=1 tag=3
        stats
        ",
        expect![[r#"
            hold
            connect 1 sub
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            connect 2 pub
                2: connected present=false
            pub 2 a x qos=1 tag=1
                1: deliver a "x" qos=1 tag=1
                2: published 1 success
            pub 2 a y qos=2 tag=2
                1: deliver a "y" qos=2 tag=2
                2: published 2 success
            rel 2 2
                2: completed 2 success
            ack 1 1
            rec 1 2
                1: release 2 success
            comp 1 2
            disc 1
            pub 2 a z qos=1 tag=3
                count no_subscriber 1
                2: published 3 no_matching_subscribers
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
        "#]],
    );
}

/// [MQTT-4.6.0-2]: an answer that needs no commit does not overtake one that does.
#[test]
fn pubacks_leave_in_the_order_of_receipt() {
    check(
        durable(),
        "
        connect 1 sub expiry=60
        sub 1 1 a:1
        connect 2 pub
        hold
        pub 2 a x qos=1 tag=1
        pub 2 nobody x qos=1 tag=2
        commit
        ",
        expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 pub
                2: connected present=false
            hold
            pub 2 a x qos=1 tag=1
            pub 2 nobody x qos=1 tag=2
                count no_subscriber 1
            commit
                1: deliver a "x" qos=1 tag=1
                2: published 1 success
                2: published 2 no_matching_subscribers
        "#]],
    );
}

/// [MQTT-3.1.4-3], [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
#[test]
fn take_over_clean_start_and_expiry() {
    check(
        durable(),
        "
        connect 1 anna expiry=10
        sub 1 1 a:1
        connect 2 anna expiry=10
        connect 3 anna expiry=10 clean
        sub 3 1 b:1
        disc 3
        stats
        at 10999
        stats
        at 11000
        stats
        connect 4 anna
        connect 5 anna
        stats
        connect 6 bert expiry=10
        disc 6 expiry=0
        stats
        ",
        expect![[r#"
            connect 1 anna expiry=10
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 anna expiry=10
                count taken_over 1
                1: close session_taken_over
                2: connected present=true
            connect 3 anna expiry=10 clean
                count taken_over 1
                2: close session_taken_over
                3: connected present=false
            sub 3 1 b:1
                3: subscribed 1 granted_qos_1
            disc 3
            stats
                sessions=1 registrations=0 connections=0 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=13
            at 10999
            stats
                sessions=1 registrations=0 connections=0 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=13
            at 11000
                count session_expired 1
            stats
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=14
            connect 4 anna
                4: connected present=false
            connect 5 anna
                count taken_over 1
                4: close session_taken_over
                5: connected present=false
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=14
            connect 6 bert expiry=10
                6: connected present=false
            disc 6 expiry=0
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=16
        "#]],
    );
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-3.8.3-3], [MQTT-3.3.1-12], [MQTT-3.3.1-13]; and several filters
/// of one UNSUBSCRIBE [MQTT-3.10.4-6]
#[test]
fn overlapping_subscriptions_give_one_delivery() {
    check(
        memory(),
        "
        connect 1 anna
        sub 1 1 a/#:0,id=9 a/+:2,id=3 a/b:1
        pub 1 a/b x qos=1 tag=1
        sub 1 2 own:1,nl c:0,rap
        pub 1 own x qos=1 tag=2
        pub 1 c x retain
        pub 1 a/b y retain
        sub 1 3 a/b:0
        unsub 1 4 a/b a/+ nothing
        pub 1 a/b z qos=1 tag=3
        ",
        expect![[r#"
            connect 1 anna
                1: connected present=false
            sub 1 1 a/#:0,id=9 a/+:2,id=3 a/b:1
                1: subscribed 1 success granted_qos_2 granted_qos_1
            pub 1 a/b x qos=1 tag=1
                1: deliver a/b "x" qos=1 tag=1 ids=[3, 9]
                1: published 1 success
            sub 1 2 own:1,nl c:0,rap
                1: subscribed 2 granted_qos_1 success
            pub 1 own x qos=1 tag=2
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            pub 1 c x retain
                1: deliver c "x" qos=0 retain
            pub 1 a/b y retain
                1: deliver a/b "y" qos=0 ids=[3, 9]
            sub 1 3 a/b:0
                1: subscribed 3 success
                1: deliver a/b "y" qos=0 retain
            unsub 1 4 a/b a/+ nothing
                1: unsubscribed 4 success success no_subscription_existed
            pub 1 a/b z qos=1 tag=3
                1: deliver a/b "z" qos=0 ids=[9]
                1: published 3 success
        "#]],
    );
}

/// [MQTT-3.3.1-5] to [MQTT-3.3.1-11]
#[test]
fn retained_messages() {
    check(
        durable(),
        "
        connect 1 pub
        pub 1 a/1 one qos=1 tag=1 retain
        pub 1 a/2 two retain
        pub 1 a/2 three retain
        pub 1 a/3 short retain expires=500
        connect 2 sub expiry=60
        sub 2 1 a/+:2,id=4
        sub 2 2 a/1:1,rh1
        sub 2 3 a/1:1,rh1
        sub 2 4 a/+:1,rh2
        pub 1 a/1 - retain
        stats
        at 2000
        sub 2 5 a/#:1
        crash
        connect 3 other
        sub 3 1 #:0
        ",
        expect![[r#"
            connect 1 pub
                1: connected present=false
            pub 1 a/1 one qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            pub 1 a/2 two retain
                count no_subscriber 1
            pub 1 a/2 three retain
                count no_subscriber 1
            pub 1 a/3 short retain expires=500
                count no_subscriber 1
            connect 2 sub expiry=60
                2: connected present=false
            sub 2 1 a/+:2,id=4
                2: subscribed 1 granted_qos_2
                2: deliver a/2 "three" qos=0 retain ids=[4]
                2: deliver a/3 "short" qos=0 retain ids=[4]
                2: deliver a/1 "one" qos=1 tag=1 retain ids=[4]
            sub 2 2 a/1:1,rh1
                2: subscribed 2 granted_qos_1
                2: deliver a/1 "one" qos=1 tag=2 retain
            sub 2 3 a/1:1,rh1
                2: subscribed 3 granted_qos_1
            sub 2 4 a/+:1,rh2
                2: subscribed 4 granted_qos_1
            pub 1 a/1 - retain
                2: deliver a/1 "" qos=0
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=2 queued=0 bytes=12 inflight=2 log=16
            at 2000
                count expired 1
            sub 2 5 a/#:1
                2: subscribed 5 granted_qos_1
                2: deliver a/2 "three" qos=0 retain
            crash
            connect 3 other
                3: connected present=false
            sub 3 1 #:0
                3: subscribed 1 success
                3: deliver a/2 "three" qos=0 retain
        "#]],
    );
}

/// [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.1.3-9], [MQTT-3.14.4-3]
#[test]
fn wills() {
    check(
        durable(),
        "
        connect 1 watcher
        sub 1 1 w/#:1
        connect 2 a will=w/a:gone willqos=1
        disc 2 lost
        connect 3 a will=w/a:gone
        disc 3
        connect 4 a will=w/a:gone
        disc 4 will
        connect 5 b expiry=60 will=w/b:late willdelay=5
        disc 5 lost
        at 5999
        connect 6 b expiry=60 will=w/b:later willdelay=5
        at 9000
        disc 6 lost
        at 13999
        at 14000
        connect 7 c expiry=2 will=w/c:at-the-end willdelay=50
        disc 7 lost
        at 16000
        connect 8 d expiry=60 will=w/d:shutdown
        disc 8 shutdown
        ",
        expect![[r#"
            connect 1 watcher
                1: connected present=false
            sub 1 1 w/#:1
                1: subscribed 1 granted_qos_1
            connect 2 a will=w/a:gone willqos=1
                2: connected present=false
            disc 2 lost
                count will_published 1
                1: deliver w/a "gone" qos=1 tag=1
            connect 3 a will=w/a:gone
                3: connected present=false
            disc 3
            connect 4 a will=w/a:gone
                4: connected present=false
            disc 4 will
                count will_published 1
                1: deliver w/a "gone" qos=0
            connect 5 b expiry=60 will=w/b:late willdelay=5
                5: connected present=false
            disc 5 lost
            at 5999
            connect 6 b expiry=60 will=w/b:later willdelay=5
                6: connected present=true
            at 9000
            disc 6 lost
            at 13999
            at 14000
                count will_published 1
                1: deliver w/b "later" qos=0
            connect 7 c expiry=2 will=w/c:at-the-end willdelay=50
                7: connected present=false
            disc 7 lost
            at 16000
                count session_expired 1
                count will_published 1
                1: deliver w/c "at-the-end" qos=0
            connect 8 d expiry=60 will=w/d:shutdown
                8: connected present=false
            disc 8 shutdown
        "#]],
    );
}

/// [MQTT-3.3.2-5]: what expires while it waits is not delivered, and counted.
#[test]
fn message_expiry() {
    check(
        durable().showing_log(),
        "
        connect 1 sub expiry=60
        sub 1 1 a:1
        disc 1 lost
        connect 2 pub
        pub 2 a short qos=1 tag=1 expires=100
        pub 2 a long qos=1 tag=2 expires=100000
        at 1100
        connect 3 sub expiry=60
        ",
        expect![[r#"
            connect 1 sub expiry=60
                log 1 QueueBegin
                1: connected present=false
            sub 1 1 a:1
                log 2 Subscribe
                log 3 RetainedDue
                1: subscribed 1 granted_qos_1
                log 4 RetainedGiven
            disc 1 lost
                log 5 Disconnected
            connect 2 pub
                2: connected present=false
            pub 2 a short qos=1 tag=1 expires=100
                log 6 Publish to 1
                2: published 1 success
            pub 2 a long qos=1 tag=2 expires=100000
                log 7 Publish to 1
                2: published 2 success
            at 1100
            connect 3 sub expiry=60
                log 8 Connected
                3: connected present=true
                count expired 1
                log 9 Settle 6 Expired
                3: deliver a "long" qos=1 tag=1
        "#]],
    );
}

/// [SPD-2], [MQTT-3.3.4-9]: a jammed road gets no QoS 0, and QoS 1 when it is free again.
#[test]
fn a_congested_connection() {
    check(
        durable(),
        "
        connect 1 sub expiry=60
        sub 1 1 a:1
        connect 2 pub
        congested 1
        pub 2 a 0
        pub 2 a 1 qos=1 tag=1
        pub 2 a 2 qos=1 tag=2
        writable 1
        ack 1 2 reason=135
        ack 1 1
        stats
        ",
        expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 pub
                2: connected present=false
            congested 1
            pub 2 a 0
                count dropped_qos0_congested 1
            pub 2 a 1 qos=1 tag=1
                2: published 1 success
            pub 2 a 2 qos=1 tag=2
                2: published 2 success
            writable 1
                1: deliver a "1" qos=1 tag=1
                1: deliver a "2" qos=1 tag=2
            ack 1 2 reason=135
                count refused_by_receiver 1
            ack 1 1
            stats
                sessions=2 registrations=0 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=9
        "#]],
    );
}

#[test]
fn a_full_queue_follows_the_policy() {
    use postroad_broker::QueuePolicy::{DropNew, DropOldest, RejectPublisher};
    for (policy, expected) in [
        (
            RejectPublisher,
            expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 pub
                2: connected present=false
            pub 2 a 1 qos=1 tag=1
                2: published 1 success
            pub 2 a 2 qos=1 tag=2
                2: published 2 success
            pub 2 a 3 qos=1 tag=3
                count queue_overflow 1
                2: published 3 quota_exceeded
            connect 3 sub expiry=60
                3: connected present=true
                3: deliver a "1" qos=1 tag=1
                3: deliver a "2" qos=1 tag=2
        "#]],
        ),
        (
            DropOldest,
            expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 pub
                2: connected present=false
            pub 2 a 1 qos=1 tag=1
                2: published 1 success
            pub 2 a 2 qos=1 tag=2
                2: published 2 success
            pub 2 a 3 qos=1 tag=3
                count queue_overflow 1
                2: published 3 success
            connect 3 sub expiry=60
                3: connected present=true
                3: deliver a "2" qos=1 tag=1
                3: deliver a "3" qos=1 tag=2
        "#]],
        ),
        (
            DropNew,
            expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 pub
                2: connected present=false
            pub 2 a 1 qos=1 tag=1
                2: published 1 success
            pub 2 a 2 qos=1 tag=2
                2: published 2 success
            pub 2 a 3 qos=1 tag=3
                count queue_overflow 1
                2: published 3 success
            connect 3 sub expiry=60
                3: connected present=true
                3: deliver a "1" qos=1 tag=1
                3: deliver a "2" qos=1 tag=2
        "#]],
        ),
    ] {
        let world = World::new(1, true, |config| {
            config.limits.queue_messages_max = 2;
            config.limits.queue_policy = policy;
        });
        check(
            world,
            "
            connect 1 sub expiry=60
            sub 1 1 a:1
            disc 1 lost
            connect 2 pub
            pub 2 a 1 qos=1 tag=1
            pub 2 a 2 qos=1 tag=2
            pub 2 a 3 qos=1 tag=3
            connect 3 sub expiry=60
            ",
            expected,
        );
    }
}

#[test]
fn limits_are_answered_with_a_reason() {
    let world = World::new(1, true, |config| {
        config.limits.subscriptions_max = 1;
        config.sessions_max = 2;
        config.limits.retained_max = 1;
    });
    check(
        world,
        "
        connect 1 a
        sub 1 1 x:1 y:1 x:2
        pub 1 $client/other/x y qos=1 tag=1
        pub 1 r1 1 retain
        pub 1 r2 2 retain
        connect 2 b
        connect 3 c
        sub 1 2 $share/g/x:1
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            sub 1 1 x:1 y:1 x:2
                count subscription_limit 1
                1: subscribed 1 granted_qos_1 quota_exceeded granted_qos_2
            pub 1 $client/other/x y qos=1 tag=1
                count not_authorized 1
                1: published 1 not_authorized
            pub 1 r1 1 retain
                count no_subscriber 1
            pub 1 r2 2 retain
                count retained_limit 1
                count no_subscriber 1
            connect 2 b
                2: connected present=false
            connect 3 c
                3: refused quota_exceeded
            sub 1 2 $share/g/x:1
                count subscription_limit 1
                1: subscribed 2 quota_exceeded
        "#]],
    );
}

/// A publisher is read no further while too many of its publishes are not answered.
#[test]
fn unanswered_publishes_are_bounded() {
    let world = World::new(1, true, |config| config.answers_max = 2);
    check(
        world,
        "
        connect 1 sub expiry=60
        sub 1 1 a:1
        connect 2 pub
        hold
        pub 2 a 1 qos=1 tag=1
        pub 2 a 2 qos=1 tag=2
        pub 2 a 3 qos=1 tag=3
        commit
        commit
        ",
        expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 pub
                2: connected present=false
            hold
            pub 2 a 1 qos=1 tag=1
            pub 2 a 2 qos=1 tag=2
            pub 2 a 3 qos=1 tag=3
                2: park
            commit
                1: deliver a "1" qos=1 tag=1
                2: published 1 success
                2: published 2 success
                2: unpark
                1: deliver a "2" qos=1 tag=2
            commit
                1: deliver a "3" qos=1 tag=3
                2: published 3 success
        "#]],
    );
}

/// A retained message for a new subscription pushes nothing out of a full queue: it waits, also across a crash.
#[test]
fn a_full_queue_takes_no_retained_message() {
    let world = World::new(1, true, |config| config.limits.queue_messages_max = 1);
    check(
        world,
        "
        connect 1 pub
        pub 1 r kept qos=1 tag=1 retain
        connect 2 sub expiry=60
        sub 2 1 a:1
        pub 1 a 1 qos=1 tag=2
        sub 2 2 r:1
        crash
        connect 3 sub expiry=60
        ack 3 1
        ",
        expect![[r#"
            connect 1 pub
                1: connected present=false
            pub 1 r kept qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            connect 2 sub expiry=60
                2: connected present=false
            sub 2 1 a:1
                2: subscribed 1 granted_qos_1
            pub 1 a 1 qos=1 tag=2
                2: deliver a "1" qos=1 tag=1
                1: published 2 success
            sub 2 2 r:1
                2: subscribed 2 granted_qos_1
            crash
            connect 3 sub expiry=60
                3: connected present=true
                3: deliver a "1" qos=1 tag=1 dup
            ack 3 1
                3: deliver r "kept" qos=1 tag=2 retain
        "#]],
    );
}

/// New access rules hold for the next publish, also to a topic that was allowed a moment ago.
#[test]
fn new_rules_hold_at_once() {
    let mut world = memory().open();
    let script = "pub 1 a/b x qos=1 tag=1";
    world.run("connect 1 pub");
    assert!(world.run(script).contains("no_matching_subscribers"));
    world.close();
    assert!(world.run(script).contains("not_authorized"));
}

/// Who logs in under the client id of another user's session gets nothing of it, and does not cut its connection; the
/// owner comes back to it, also after a crash.
#[test]
fn a_session_belongs_to_its_user() {
    check(
        durable(),
        "
        connect 1 phone expiry=60 user=anna
        sub 1 1 a:1
        connect 2 phone expiry=60 user=bob
        connect 3 phone expiry=60
        connect 4 pub
        pub 4 a hello qos=1 tag=1
        crash
        connect 5 phone expiry=60 user=bob
        connect 6 phone expiry=60 user=anna
        ",
        expect![[r#"
            connect 1 phone expiry=60 user=anna
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 phone expiry=60 user=bob
                2: refused not_authorized
            connect 3 phone expiry=60
                3: refused not_authorized
            connect 4 pub
                4: connected present=false
            pub 4 a hello qos=1 tag=1
                1: deliver a "hello" qos=1 tag=1
                4: published 1 success
            crash
            connect 5 phone expiry=60 user=bob
                5: refused not_authorized
            connect 6 phone expiry=60 user=anna
                6: connected present=true
                6: deliver a "hello" qos=1 tag=1 dup
        "#]],
    );
}

/// [XCH-1] A caller of the API: it hears the ids of what it publishes, is no client that is counted, and nothing is
/// registered for it.
#[test]
fn a_caller_of_the_api() {
    check(
        durable(),
        "
        connect 1 sub
        sub 1 1 t:1
        connect 2 api user=billing group=$api caller
        pub 2 t one qos=1 tag=1
        pub 2 t two qos=2 tag=2
        pub 2 nobody three qos=1 tag=3
        pub 2 t four
        rel 2 2
        stats
        pub 2 $all/news five qos=1 tag=4
        stats
        disc 2
        stats
        ",
        expect![[r#"
            connect 1 sub
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            connect 2 api user=billing group=$api caller
                2: connected present=false
            pub 2 t one qos=1 tag=1
                2: taken Some(1) at 1001000
                1: deliver t "one" qos=1 tag=1
                2: published 1 success
            pub 2 t two qos=2 tag=2
                2: taken Some(2) at 1001000
                1: deliver t "two" qos=1 tag=2
                2: published 2 success
            pub 2 nobody three qos=1 tag=3
                2: taken Some(3) at 1001000
                count no_subscriber 1
                2: published 3 no_matching_subscribers
            pub 2 t four
                2: taken None at 1001000
                1: deliver t "four" qos=0
            rel 2 2
                2: completed 2 success
            stats
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=8 inflight=2 log=0
            pub 2 $all/news five qos=1 tag=4
                2: taken Some(4) at 1001000
                1: deliver news "five" qos=1 tag=3
                2: published 4 success
            stats
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=21 inflight=3 log=0
            disc 2
            stats
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=21 inflight=3 log=0
        "#]],
    );
}
