//! What the specification says of sessions and deliveries, statement by statement (docs/mqtt-statements.md).

use expect_test::{Expect, expect};

use crate::world::{World, durable, memory};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// [MQTT-3.1.2-6], [MQTT-3.1.2-23], [MQTT-4.1.0-1], [MQTT-4.1.0-2], [MQTT-4.5.0-1]
/// 3.1.1: [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-4.1.0-1], [MQTT-4.1.0-2], [MQTT-4.5.0-1]
///
/// A session is made where there was none, collects while it is away, and is there for as long as its expiry says;
/// while it is connected, time does not end it.
#[test]
fn a_session_lives_as_long_as_its_expiry_says() {
    check(
        durable(),
        "
        connect 1 sub expiry=60
        sub 1 1 a:1
        at 500000
        disc 1
        connect 2 pub
        pub 2 a collected qos=1 tag=1
        at 550000
        connect 3 sub expiry=60
        ack 3 1
        disc 3
        pub 2 a lost qos=1 tag=2
        at 611000
        connect 4 sub expiry=60
        ",
        expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            at 500000
            disc 1
            connect 2 pub
                2: connected present=false
            pub 2 a collected qos=1 tag=1
                2: published 1 success
            at 550000
            connect 3 sub expiry=60
                3: connected present=true
                3: deliver a "collected" qos=1 tag=1
            ack 3 1
            disc 3
            pub 2 a lost qos=1 tag=2
                2: published 2 success
            at 611000
                count session_expired 1
                count session_ended 1
            connect 4 sub expiry=60
                4: connected present=false
        "#]],
    );
}

/// [MQTT-3.1.4-4]; 3.1.1: [MQTT-3.1.2-6]
///
/// Clean start throws the session away, also that of a client that is connected.
#[test]
fn a_clean_start_takes_over_nothing_but_the_name() {
    check(
        durable(),
        "
        connect 1 sub expiry=60
        sub 1 1 a:1
        connect 2 pub
        connect 3 sub clean expiry=60
        pub 2 a hello qos=1 tag=1
        ",
        expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 pub
                2: connected present=false
            connect 3 sub clean expiry=60
                count taken_over 1
                1: close session_taken_over
                3: connected present=false
            pub 2 a hello qos=1 tag=1
                count no_subscriber 1
                2: published 1 no_matching_subscribers
        "#]],
    );
}

/// [MQTT-3.1.2-7], [MQTT-3.1.2-14], [MQTT-3.1.2-15]; 3.1.1: [MQTT-3.1.2-7], [MQTT-3.1.2-8], [MQTT-3.1.2-12]
///
/// A will is published as it was stored, retained or not; without one nothing is; retained messages outlive the session.
#[test]
fn wills_are_published_as_they_were_stored() {
    check(
        memory(),
        "
        connect 1 watcher
        sub 1 1 w/#:1,rap
        connect 2 plain will=w/plain:gone willqos=1
        disc 2 lost
        connect 3 kept will=w/kept:gone willqos=1 willretain
        disc 3 lost
        connect 4 none
        disc 4 lost
        connect 5 late
        sub 5 1 w/#:0
        ",
        expect![[r#"
            connect 1 watcher
                1: connected present=false
            sub 1 1 w/#:1,rap
                1: subscribed 1 granted_qos_1
            connect 2 plain will=w/plain:gone willqos=1
                2: connected present=false
            disc 2 lost
                count will_published 1
                1: deliver w/plain "gone" qos=1 tag=1
            connect 3 kept will=w/kept:gone willqos=1 willretain
                3: connected present=false
            disc 3 lost
                count will_published 1
                1: deliver w/kept "gone" qos=1 tag=2 retain
            connect 4 none
                4: connected present=false
            disc 4 lost
            connect 5 late
                5: connected present=false
            sub 5 1 w/#:0
                5: subscribed 1 success
                5: deliver w/kept "gone" qos=0 retain
        "#]],
    );
}

/// [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1], [MQTT-4.9.0-2], [MQTT-4.3.2-3], [MQTT-4.3.3-3]; 3.1.1: [MQTT-2.3.1-4]
///
/// Tags in flight are never given again; at the receive maximum nothing but QoS 0 goes out, until one is acknowledged.
#[test]
fn tags_in_flight_are_not_given_again() {
    check(
        memory(),
        "
        connect 1 sub max=2
        sub 1 1 a:2
        connect 2 pub
        pub 2 a one qos=1 tag=1
        pub 2 a two qos=2 tag=2
        pub 2 a three qos=1 tag=3
        pub 2 a zero
        ack 1 1
        pub 2 a four qos=1 tag=4
        rec 1 2
        comp 1 2
        ",
        expect![[r#"
            connect 1 sub max=2
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            connect 2 pub
                2: connected present=false
            pub 2 a one qos=1 tag=1
                1: deliver a "one" qos=1 tag=1
                2: published 1 success
            pub 2 a two qos=2 tag=2
                1: deliver a "two" qos=2 tag=2
                2: published 2 success
            pub 2 a three qos=1 tag=3
                2: published 3 success
            pub 2 a zero
                1: deliver a "zero" qos=0
            ack 1 1
                1: deliver a "three" qos=1 tag=3
            pub 2 a four qos=1 tag=4
                2: published 4 success
            rec 1 2
                1: release 2 success
            comp 1 2
                1: deliver a "four" qos=1 tag=4
        "#]],
    );
}

/// [MQTT-4.4.0-2], [MQTT-4.8.2-6]
///
/// A delivery that its receiver refuses is over: not repeated, and of a share group not given to another member.
#[test]
fn a_refused_delivery_is_over() {
    check(
        durable(),
        "
        connect 1 one expiry=60
        sub 1 1 $share/g/a:2
        connect 2 two expiry=60
        sub 2 1 $share/g/a:2
        connect 3 pub
        pub 3 a first qos=1 tag=1
        pub 3 a second qos=2 tag=2
        ack 1 1 reason=131
        ack 2 1 reason=131
        rec 1 1 reason=131
        rec 2 1 reason=131
        disc 1 lost
        disc 2 lost
        connect 4 one expiry=60
        connect 5 two expiry=60
        ",
        expect![[r#"
            connect 1 one expiry=60
                1: connected present=false
            sub 1 1 $share/g/a:2
                1: subscribed 1 granted_qos_2
            connect 2 two expiry=60
                2: connected present=false
            sub 2 1 $share/g/a:2
                2: subscribed 1 granted_qos_2
            connect 3 pub
                3: connected present=false
            pub 3 a first qos=1 tag=1
                2: deliver a "first" qos=1 tag=1
                3: published 1 success
            pub 3 a second qos=2 tag=2
                1: deliver a "second" qos=2 tag=1
                3: published 2 success
            ack 1 1 reason=131
                count unknown_tag 1
            ack 2 1 reason=131
                count refused_by_receiver 1
            rec 1 1 reason=131
                count refused_by_receiver 1
            rec 2 1 reason=131
                count unknown_tag 1
            disc 1 lost
            disc 2 lost
            connect 4 one expiry=60
                4: connected present=true
            connect 5 two expiry=60
                5: connected present=true
        "#]],
    );
}

/// [MQTT-4.8.2-3]
///
/// Each member gets the lower of the published and its own granted QoS.
#[test]
fn members_of_a_group_keep_their_own_qos() {
    check(
        memory(),
        "
        connect 1 one
        sub 1 1 $share/g/a:0
        connect 2 pub
        pub 2 a low qos=2 tag=1
        unsub 1 2 $share/g/a
        connect 3 two
        sub 3 1 $share/g/a:1
        pub 2 a higher qos=2 tag=2
        ",
        expect![[r#"
            connect 1 one
                1: connected present=false
            sub 1 1 $share/g/a:0
                1: subscribed 1 success
            connect 2 pub
                2: connected present=false
            pub 2 a low qos=2 tag=1
                1: deliver a "low" qos=0
                2: published 1 success
            unsub 1 2 $share/g/a
                1: unsubscribed 2 success
            connect 3 two
                3: connected present=false
            sub 3 1 $share/g/a:1
                3: subscribed 1 granted_qos_1
            pub 2 a higher qos=2 tag=2
                3: deliver a "higher" qos=1 tag=1
                2: published 2 success
        "#]],
    );
}

/// [MQTT-4.3.2-5], [MQTT-4.3.3-12]
///
/// After PUBACK or PUBCOMP the same tag is a new message, whatever DUP says.
#[test]
fn an_answered_tag_means_a_new_message() {
    check(
        durable(),
        "
        connect 1 sub
        sub 1 1 a:0
        connect 2 pub expiry=60
        pub 2 a one qos=1 tag=7
        pub 2 a two qos=1 tag=7 dup
        pub 2 a three qos=2 tag=7
        rel 2 7
        pub 2 a four qos=2 tag=7
        ",
        expect![[r#"
            connect 1 sub
                1: connected present=false
            sub 1 1 a:0
                1: subscribed 1 success
            connect 2 pub expiry=60
                2: connected present=false
            pub 2 a one qos=1 tag=7
                1: deliver a "one" qos=0
                2: published 7 success
            pub 2 a two qos=1 tag=7 dup
                1: deliver a "two" qos=0
                2: published 7 success
            pub 2 a three qos=2 tag=7
                1: deliver a "three" qos=0
                2: published 7 success
            rel 2 7
                2: completed 7 success
            pub 2 a four qos=2 tag=7
                1: deliver a "four" qos=0
                2: published 7 success
        "#]],
    );
}

/// [MQTT-4.3.3-5], [MQTT-4.3.3-7], [MQTT-4.3.3-13]
///
/// Once sent, expiry does not end a QoS 2 delivery: it is repeated, released, and the release is repeated until PUBCOMP.
#[test]
fn a_qos_2_delivery_that_was_sent_does_not_expire() {
    check(
        durable(),
        "
        connect 1 sub expiry=600
        sub 1 1 a:2
        connect 2 pub
        pub 2 a hello qos=2 tag=1 expires=5000
        at 20000
        disc 1 lost
        connect 3 sub expiry=600
        rec 3 1
        disc 3 lost
        connect 4 sub expiry=600
        comp 4 1
        disc 4 lost
        connect 5 sub expiry=600
        ",
        expect![[r#"
            connect 1 sub expiry=600
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            connect 2 pub
                2: connected present=false
            pub 2 a hello qos=2 tag=1 expires=5000
                1: deliver a "hello" qos=2 tag=1
                2: published 1 success
            at 20000
            disc 1 lost
            connect 3 sub expiry=600
                3: connected present=true
                3: deliver a "hello" qos=2 tag=1 dup
            rec 3 1
                3: release 1 success
            disc 3 lost
            connect 4 sub expiry=600
                4: connected present=true
                4: release 1 success
            comp 4 1
            disc 4 lost
            connect 5 sub expiry=600
                5: connected present=true
        "#]],
    );
}

/// [MQTT-3.10.4-1], [MQTT-3.10.4-2], [MQTT-3.10.4-3]; 3.1.1: [MQTT-3.10.4-1] to [MQTT-3.10.4-3]
///
/// Only the filter of exactly these characters ends; what was in flight for it is completed, also after a reconnect.
#[test]
fn an_unsubscribe_ends_exactly_its_filter() {
    check(
        durable(),
        "
        connect 1 sub expiry=60
        sub 1 1 a/+:1 a/b:1
        connect 2 pub
        pub 2 a/x under_way qos=1 tag=1
        unsub 1 2 a/#
        unsub 1 3 a/+
        pub 2 a/x not_any_more qos=1 tag=2
        pub 2 a/b still qos=1 tag=3
        disc 1 lost
        connect 3 sub expiry=60
        ack 3 1
        ack 3 2
        ",
        expect![[r#"
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 a/+:1 a/b:1
                1: subscribed 1 granted_qos_1 granted_qos_1
            connect 2 pub
                2: connected present=false
            pub 2 a/x under_way qos=1 tag=1
                1: deliver a/x "under_way" qos=1 tag=1
                2: published 1 success
            unsub 1 2 a/#
                1: unsubscribed 2 no_subscription_existed
            unsub 1 3 a/+
                1: unsubscribed 3 success
            pub 2 a/x not_any_more qos=1 tag=2
                count no_subscriber 1
                2: published 2 no_matching_subscribers
            pub 2 a/b still qos=1 tag=3
                1: deliver a/b "still" qos=1 tag=2
                2: published 3 success
            disc 1 lost
            connect 3 sub expiry=60
                3: connected present=true
                3: deliver a/x "under_way" qos=1 tag=1 dup
                3: deliver a/b "still" qos=1 tag=2 dup
            ack 3 1
            ack 3 2
        "#]],
    );
}

/// [MQTT-3.8.4-4], [MQTT-3.3.2-3]; 3.1.1: [MQTT-3.8.4-3], [MQTT-3.3.2-3]
///
/// A subscription that is replaced loses nothing and gets retained messages again; what comes matches its filter.
#[test]
fn replacing_a_subscription_loses_nothing() {
    check(
        durable(),
        "
        connect 2 pub
        pub 2 a/kept old qos=1 tag=1 retain
        pub 2 b/other no qos=1 tag=2 retain
        connect 1 sub expiry=60 max=1
        sub 1 1 a/+:1
        pub 2 a/x waits qos=1 tag=3
        sub 1 2 a/+:1
        pub 2 b/x no qos=1 tag=4
        ack 1 1
        ack 1 2
        ack 1 3
        ",
        expect![[r#"
            connect 2 pub
                2: connected present=false
            pub 2 a/kept old qos=1 tag=1 retain
                count no_subscriber 1
                2: published 1 no_matching_subscribers
            pub 2 b/other no qos=1 tag=2 retain
                count no_subscriber 1
                2: published 2 no_matching_subscribers
            connect 1 sub expiry=60 max=1
                1: connected present=false
            sub 1 1 a/+:1
                1: subscribed 1 granted_qos_1
                1: deliver a/kept "old" qos=1 tag=1 retain
            pub 2 a/x waits qos=1 tag=3
                2: published 3 success
            sub 1 2 a/+:1
                1: subscribed 2 granted_qos_1
            pub 2 b/x no qos=1 tag=4
                count no_subscriber 1
                2: published 4 no_matching_subscribers
            ack 1 1
                1: deliver a/x "waits" qos=1 tag=2
            ack 1 2
                1: deliver a/kept "old" qos=1 tag=3 retain
            ack 1 3
        "#]],
    );
}

/// [MQTT-3.1.3-2]; 3.1.1: [MQTT-3.1.3-2]
///
/// The client id, and nothing else, names the session.
#[test]
fn the_client_id_names_the_session() {
    check(
        memory(),
        "
        connect 1 anna expiry=60
        sub 1 1 a:0
        disc 1
        connect 2 Anna expiry=60
        connect 3 anna expiry=60
        ",
        expect![[r#"
            connect 1 anna expiry=60
                1: connected present=false
            sub 1 1 a:0
                1: subscribed 1 success
            disc 1
            connect 2 Anna expiry=60
                2: connected present=false
            connect 3 anna expiry=60
                3: connected present=true
        "#]],
    );
}
