//! Subscriptions that exist are judged by the rules of today: at the resume of a session, and when the rules change.

use crate::world::{World, durable};
use expect_test::{Expect, expect};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// After a reload of the rules a subscription that they no longer allow went on delivering. It ends at once, for good
/// (logged), whether its session has a connection or not; what was queued while it was allowed is delivered.
#[test]
fn new_rules_end_what_they_no_longer_allow() {
    check(
        durable().showing_log(),
        "
        connect 1 here expiry=60
        sub 1 1 a/#:1 b/#:1
        connect 2 away expiry=60
        sub 2 1 a/#:1 b/#:1 $share/g/b/c:1
        disc 2 lost
        connect 3 p
        pub 3 b/c queued qos=1 tag=1
        allow a/#
        pub 3 b/c x qos=1 tag=2
        pub 3 a/c y qos=1 tag=3
        crash
        connect 5 p
        pub 5 b/c x
        connect 4 away expiry=60
        stats
        ",
        expect![[r#"
            connect 1 here expiry=60
                log 1 QueueBegin
                1: connected present=false
            sub 1 1 a/#:1 b/#:1
                log 2 Subscribe
                log 3 Subscribe
                log 4 RetainedDue
                log 5 RetainedDue
                1: subscribed 1 granted_qos_1 granted_qos_1
                log 6 RetainedGiven
                log 7 RetainedGiven
            connect 2 away expiry=60
                log 8 QueueBegin
                2: connected present=false
            sub 2 1 a/#:1 b/#:1 $share/g/b/c:1
                log 9 Subscribe
                log 10 Subscribe
                log 11 Subscribe
                log 12 RetainedDue
                log 13 RetainedDue
                2: subscribed 1 granted_qos_1 granted_qos_1 granted_qos_1
                log 14 RetainedGiven
                log 15 RetainedGiven
            disc 2 lost
                log 16 Disconnected
            connect 3 p
                3: connected present=false
            pub 3 b/c queued qos=1 tag=1
                log 17 Publish to 2
                log 18 Publish to 1
                1: deliver b/c "queued" qos=1 tag=1
                3: published 1 success
            allow a/#
                log 19 Unsubscribe
                count subscription_revoked 1
                log 20 Unsubscribe
                log 21 Unsubscribe
                count subscription_revoked 2
            pub 3 b/c x qos=1 tag=2
                count no_subscriber 1
                3: published 2 no_matching_subscribers
            pub 3 a/c y qos=1 tag=3
                log 22 Publish to 2
                1: deliver a/c "y" qos=1 tag=2
                3: published 3 success
            crash
                log 23 Disconnected
            connect 5 p
                5: connected present=false
            pub 5 b/c x
                count no_subscriber 1
            connect 4 away expiry=60
                log 24 Connected
                4: connected present=true
                4: deliver b/c "queued" qos=1 tag=1 dup
                4: deliver b/c "queued" qos=1 tag=2 dup
                4: deliver a/c "y" qos=1 tag=3 dup
            stats
                sessions=3 registrations=0 connections=2 subscriptions=2 retained=0 queued=2 bytes=35 inflight=3 log=24
        "#]],
    );
}

/// Other shards hear of it as of an unsubscribe: nothing is sent to them in vain.
#[test]
fn other_shards_hear_of_it() {
    check(
        World::new(2, true, |_| {}),
        "
        connect 1 a expiry=60
        sub 1 1 x/#:1
        disc 1 lost
        connect 2 b
        pub 2 x/1 1 qos=1 tag=1
        allow y/#
        pub 2 x/1 2 qos=1 tag=2
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            sub 1 1 x/#:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 b
                2: connected present=false
            pub 2 x/1 1 qos=1 tag=1
                2: published 1 success
            allow y/#
                count subscription_revoked 1
            pub 2 x/1 2 qos=1 tag=2
                count no_subscriber 1
                2: published 2 no_matching_subscribers
        "#]],
    );
}

/// The rules did not change, but who the client is: it comes as another one, or in other groups, and is judged as that.
#[test]
fn a_resumed_session_is_judged_by_who_comes() {
    check(
        durable(),
        "
        allow a/# to=group:g
        connect 1 s expiry=60 user=u group=g
        sub 1 1 a/#:1
        disc 1 lost
        connect 2 p
        pub 2 a/1 queued qos=1 tag=1
        connect 3 s expiry=60 user=u group=h
        pub 2 a/1 x qos=1 tag=2
        stats
        ",
        expect![[r#"
            allow a/# to=group:g
            connect 1 s expiry=60 user=u group=g
                1: connected present=false
            sub 1 1 a/#:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            connect 2 p
                2: connected present=false
            pub 2 a/1 queued qos=1 tag=1
                2: published 1 success
            connect 3 s expiry=60 user=u group=h
                count subscription_revoked 1
                3: connected present=true
                3: deliver a/1 "queued" qos=1 tag=1
            pub 2 a/1 x qos=1 tag=2
                count no_subscriber 1
                2: published 2 no_matching_subscribers
            stats
                sessions=2 registrations=1 connections=2 subscriptions=0 retained=0 queued=0 bytes=9 inflight=1 log=10
        "#]],
    );
}

/// Retained messages that are still to be given for a subscription that ends are not.
#[test]
fn what_is_still_to_be_given_is_not() {
    let mut world = World::new(1, true, |_| {});
    world.run("connect 1 p\nconnect 2 s expiry=60 max=1");
    for number in 0..300 {
        world.run(&format!("pub 1 a/{number} x qos=1 tag={} retain", number + 1));
    }
    world.run("sub 2 1 a/#:1");
    world.run("allow b/#");
    let mut given = 1;
    while world.run(&format!("ack 2 {}", (given - 1) % 16 + 1)).contains(": deliver ") {
        given += 1;
    }
    assert!(given <= 128 + 64, "{given} were given: one portion or two were under way");
}

/// A reload with many subscriptions is no long turn: 3,000 of them take more than ten steps, and all are judged.
#[test]
fn many_are_judged_in_portions() {
    let mut world = World::new(1, false, |_| {});
    for client in 0..300 {
        world.run(&format!("connect {client} c{client}"));
        world.run(&format!("sub {client} 1 a/0 a/1 a/2 a/3 a/4 b/5 b/6 b/7 b/8 b/9"));
    }
    world.revoked_max = 0;
    world.run("allow a/#");
    assert_eq!(world.stats(|stats| stats.subscriptions), 1_500);
    assert_eq!(world.stats(|stats| stats.count(postroad_broker::api::Counted::SubscriptionRevoked) as usize), 1_500);
    assert!((1..=4 * 140).contains(&world.revoked_max), "{} ended in one turn", world.revoked_max);
}
