//! Directed pushes and the registrations that they belong to (DESIGN 5).

use expect_test::{Expect, expect};
use postroad_broker::UnknownClient;

use crate::world::{World, durable};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

fn with_unknown(policy: UnknownClient) -> World {
    World::new(1, true, |config| config.limits.unknown_client = policy).open()
}

/// A push waits for the client, not for its session: neither the end of a session nor a clean start discards it.
#[test]
fn a_clean_start_discards_no_push() {
    check(
        durable().open(),
        "
        connect 1 back-end
        connect 2 car clean user=anna
        sub 2 1 a:1
        disc 2
        pub 1 $client/car/cmd lock qos=1 tag=1
        pub 1 a lost qos=1 tag=2
        connect 3 car clean user=anna
        pub 1 $user/anna/cmd unlock qos=1 tag=3
        ack 3 32768
        disc 3 lost
        crash
        connect 4 car clean user=anna
        ack 4 32768
        disc 4
        crash
        connect 5 car clean user=anna
        stats
        ",
        expect![[r#"
            connect 1 back-end
                1: connected present=false
            connect 2 car clean user=anna
                2: connected present=false
            sub 2 1 a:1
                2: subscribed 1 granted_qos_1
            disc 2
            pub 1 $client/car/cmd lock qos=1 tag=1
                1: published 1 success
            pub 1 a lost qos=1 tag=2
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            connect 3 car clean user=anna
                3: connected present=false
                3: deliver cmd "lock" qos=1 tag=32768
            pub 1 $user/anna/cmd unlock qos=1 tag=3
                3: deliver cmd "unlock" qos=1 tag=32769
                1: published 3 success
            ack 3 32768
            disc 3 lost
            crash
            connect 4 car clean user=anna
                4: connected present=false
                4: deliver cmd "unlock" qos=1 tag=32768 dup
            ack 4 32768
            disc 4
            crash
            connect 5 car clean user=anna
                5: connected present=false
            stats
                sessions=1 registrations=1 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=7
        "#]],
    );
}

/// `auth.file` registers clients that never came, and lets go of those that it names no longer, with what waited.
#[test]
fn auth_file_registers() {
    check(
        durable().open(),
        "
        file car:anna:cars bus::cars
        connect 1 back-end
        pub 1 $client/car/x one qos=1 tag=1
        pub 1 $group/cars/x two qos=2 tag=2
        rel 1 2
        crash
        stats
        connect 2 car clean user=otto
        connect 3 car clean user=anna
        file truck
        pub 3 $client/car/x three qos=1 tag=3
        disc 3
        crash
        connect 4 back-end
        pub 4 $client/car/x four qos=1 tag=4
        pub 4 $client/bus/x five qos=1 tag=5
        stats
        ",
        expect![[r#"
            file car:anna:cars bus::cars
            connect 1 back-end
                1: connected present=false
            pub 1 $client/car/x one qos=1 tag=1
                1: published 1 success
            pub 1 $group/cars/x two qos=2 tag=2
                1: published 2 success
            rel 1 2
                1: completed 2 success
            crash
            stats
                sessions=0 registrations=2 connections=0 subscriptions=0 retained=0 queued=3 bytes=48 inflight=0 log=6
            connect 2 car clean user=otto
                2: refused not_authorized
            connect 3 car clean user=anna
                3: connected present=false
                3: deliver x "one" qos=1 tag=32768 dup
                3: deliver x "two" qos=2 tag=32769
            file truck
                count unregistered 1
            pub 3 $client/car/x three qos=1 tag=3
                3: deliver x "three" qos=1 tag=32770
                3: published 3 success
            disc 3
            crash
            connect 4 back-end
                4: connected present=false
            pub 4 $client/car/x four qos=1 tag=4
                4: published 4 success
            pub 4 $client/bus/x five qos=1 tag=5
                count unknown_client 1
                4: published 5 topic_name_invalid
            stats
                sessions=1 registrations=2 connections=1 subscriptions=0 retained=0 queued=3 bytes=67 inflight=1 log=14
        "#]],
    );
}

/// A push to a client that nobody has seen: an error that names the topic, or a queue that waits for it.
#[test]
fn unknown_clients() {
    let script = "
        connect 1 back-end
        pub 1 $client/ghost/x one qos=1 tag=1
        pub 1 $client/ghost/x zero
        pub 1 $client/ghost/x two qos=2 tag=2
        connect 2 ghost clean
        ";
    check(
        with_unknown(UnknownClient::Reject),
        script,
        expect![[r#"
        connect 1 back-end
            1: connected present=false
        pub 1 $client/ghost/x one qos=1 tag=1
            count unknown_client 1
            1: published 1 topic_name_invalid
        pub 1 $client/ghost/x zero
            count unknown_client 1
        pub 1 $client/ghost/x two qos=2 tag=2
            count unknown_client 1
            1: published 2 topic_name_invalid
        connect 2 ghost clean
            2: connected present=false
    "#]],
    );
    check(
        with_unknown(UnknownClient::Queue),
        script,
        expect![[r#"
        connect 1 back-end
            1: connected present=false
        pub 1 $client/ghost/x one qos=1 tag=1
            1: published 1 success
        pub 1 $client/ghost/x zero
            count dropped_qos0_offline 1
        pub 1 $client/ghost/x two qos=2 tag=2
            1: published 2 success
        connect 2 ghost clean
            2: connected present=false
            2: deliver x "one" qos=1 tag=32768
            2: deliver x "two" qos=2 tag=32769
    "#]],
    );
}

/// Both queues of a client share what it takes at once, older deliveries first, and each acknowledgement finds its own.
#[test]
fn two_queues_drain_by_one_connection() {
    check(
        durable().open(),
        "
        connect 1 car expiry=60 user=anna
        sub 1 1 a:2
        disc 1 lost
        connect 2 back-end
        pub 2 a s1 qos=1 tag=1
        pub 2 $client/car/p p1 qos=1 tag=2
        pub 2 a s2 qos=2 tag=3
        pub 2 $client/car/p p2 qos=2 tag=4
        pub 2 a s3 qos=1 tag=5
        connect 3 car expiry=60 user=anna max=2
        ack 3 32768
        ack 3 1
        rec 3 32769
        ack 3 7
        comp 3 32769
        rec 3 2
        comp 3 2
        ack 3 3
        stats
        ",
        expect![[r#"
            connect 1 car expiry=60 user=anna
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            disc 1 lost
            connect 2 back-end
                2: connected present=false
            pub 2 a s1 qos=1 tag=1
                2: published 1 success
            pub 2 $client/car/p p1 qos=1 tag=2
                2: published 2 success
            pub 2 a s2 qos=2 tag=3
                2: published 3 success
            pub 2 $client/car/p p2 qos=2 tag=4
                2: published 4 success
            pub 2 a s3 qos=1 tag=5
                2: published 5 success
            connect 3 car expiry=60 user=anna max=2
                3: connected present=true
                3: deliver a "s1" qos=1 tag=1
                3: deliver p "p1" qos=1 tag=32768
            ack 3 32768
                3: deliver a "s2" qos=2 tag=2
            ack 3 1
                3: deliver p "p2" qos=2 tag=32769
            rec 3 32769
                3: release 32769 success
            ack 3 7
                count unknown_tag 1
            comp 3 32769
                3: deliver a "s3" qos=1 tag=3
            rec 3 2
                3: release 2 success
            comp 3 2
            ack 3 3
            stats
                sessions=2 registrations=1 connections=2 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=22
        "#]],
    );
}

/// QoS 2 across a clean start: what the client has received is over (it took the message with its PUBREC); what it may
/// not have received comes again. A session that stays completes both.
#[test]
fn qos_2_pushes_across_a_clean_start() {
    check(
        durable().open(),
        "
        connect 1 car clean user=anna
        connect 2 back-end
        pub 2 $client/car/p received qos=2 tag=1
        pub 2 $client/car/p sent qos=2 tag=2
        rec 1 32768
        disc 1 lost
        connect 3 car clean user=anna
        rec 3 32769
        comp 3 32769
        disc 3
        crash
        connect 4 car clean user=anna
        ",
        expect![[r#"
            connect 1 car clean user=anna
                1: connected present=false
            connect 2 back-end
                2: connected present=false
            pub 2 $client/car/p received qos=2 tag=1
                1: deliver p "received" qos=2 tag=32768
                2: published 1 success
            pub 2 $client/car/p sent qos=2 tag=2
                1: deliver p "sent" qos=2 tag=32769
                2: published 2 success
            rec 1 32768
                1: release 32768 success
            disc 1 lost
            connect 3 car clean user=anna
                3: connected present=false
                3: deliver p "sent" qos=2 tag=32769 dup
            rec 3 32769
                3: release 32769 success
            comp 3 32769
            disc 3
            crash
            connect 4 car clean user=anna
                4: connected present=false
        "#]],
    );
}

/// Who subscribes to its own pushes as well gets one copy, kept by the registration; who watches those of others sees the whole topic.
#[test]
fn subscriptions_to_reserved_roots() {
    check(
        durable().open(),
        "
        connect 1 car user=anna
        sub 1 1 $client/car/#:0,id=7
        connect 2 watcher
        sub 2 1 $client/+/#:1
        connect 3 back-end
        pub 3 $client/car/p one qos=1 tag=1 retain
        connect 4 late
        sub 4 1 $client/car/p:1
        ",
        expect![[r#"
            connect 1 car user=anna
                1: connected present=false
            sub 1 1 $client/car/#:0,id=7
                1: subscribed 1 success
            connect 2 watcher
                2: connected present=false
            sub 2 1 $client/+/#:1
                2: subscribed 1 granted_qos_1
            connect 3 back-end
                3: connected present=false
            pub 3 $client/car/p one qos=1 tag=1 retain
                2: deliver $client/car/p "one" qos=1 tag=1
                1: deliver p "one" qos=1 tag=32768 ids=[7]
                3: published 1 success
            connect 4 late
                4: connected present=false
            sub 4 1 $client/car/p:1
                4: subscribed 1 granted_qos_1
        "#]],
    );
}

/// A push to a client that nobody has seen is refused with one reason, whichever shard it would live on.
#[test]
fn a_refused_push_has_one_reason_on_every_shard() {
    for (policy, reason) in [(UnknownClient::Reject, "topic_name_invalid"), (UnknownClient::Queue, "quota_exceeded")] {
        let mut world = World::new(2, true, |config| {
            config.limits.unknown_client = policy;
            config.limits.registrations_max = 0;
        })
        .open();
        for home in 0..2 {
            let mut names = (0..).map(|n| format!("ghost-{n}"));
            let name = names.find(|name| world.home(name) == home).unwrap();
            let came = world.run(&format!("connect {home} back-end \n pub {home} $client/{name}/x one qos=1 tag=1"));
            assert!(came.contains(&format!("published 1 {reason}")), "{came}");
        }
    }
}

/// A registration belongs to its user; one that nobody has proved to be anybody's is taken over by the first who does.
#[test]
fn a_registration_belongs_to_its_user() {
    check(
        with_unknown(UnknownClient::Queue),
        "
        connect 1 back-end
        pub 1 $client/car/p early qos=1 tag=1
        connect 2 car clean user=anna
        ack 2 32768
        disc 2
        connect 3 car clean user=otto
        connect 4 car clean
        pub 1 $user/anna/p hers qos=1 tag=2
        file car:otto
        connect 5 car clean user=otto
        ",
        expect![[r#"
            connect 1 back-end
                1: connected present=false
            pub 1 $client/car/p early qos=1 tag=1
                1: published 1 success
            connect 2 car clean user=anna
                2: connected present=false
                2: deliver p "early" qos=1 tag=32768
            ack 2 32768
            disc 2
            connect 3 car clean user=otto
                3: refused not_authorized
            connect 4 car clean
                4: refused not_authorized
            pub 1 $user/anna/p hers qos=1 tag=2
                1: published 2 success
            file car:otto
                count unregistered 1
            connect 5 car clean user=otto
                5: connected present=false
        "#]],
    );
}

/// What waits long moves to the old generation, and comes back from there in order.
#[test]
fn pushes_in_the_old_generation() {
    check(
        durable().open(),
        "
        connect 1 car clean user=anna
        disc 1
        connect 2 back-end
        pub 2 $client/car/p one qos=1 tag=1
        pub 2 $client/car/p two qos=1 tag=2
        retire
        pub 2 $client/car/p three qos=1 tag=3
        crash
        connect 3 car clean user=anna
        ack 3 32768
        ack 3 32769
        ack 3 32770
        retire
        crash
        connect 4 car clean user=anna
        stats
        ",
        expect![[r#"
            connect 1 car clean user=anna
                1: connected present=false
            disc 1
            connect 2 back-end
                2: connected present=false
            pub 2 $client/car/p one qos=1 tag=1
                2: published 1 success
            pub 2 $client/car/p two qos=1 tag=2
                2: published 2 success
            retire
                ingest: 2 pending, 0 settled
            pub 2 $client/car/p three qos=1 tag=3
                2: published 3 success
            crash
            connect 3 car clean user=anna
                3: connected present=false
                read backlog: 2 entries, end=true
                3: deliver p "one" qos=1 tag=32768 dup
                3: deliver p "two" qos=1 tag=32769 dup
                3: deliver p "three" qos=1 tag=32770 dup
            ack 3 32768
            ack 3 32769
            ack 3 32770
            retire
                ingest: 0 pending, 2 settled
            crash
            connect 4 car clean user=anna
                4: connected present=false
            stats
                sessions=1 registrations=1 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=1
        "#]],
    );
}

/// `registrations_max` bounds them, however they come about.
#[test]
fn too_many_registrations() {
    let world = World::new(1, true, |config| {
        config.limits.registrations_max = 2;
        config.limits.unknown_client = UnknownClient::Queue;
    });
    check(
        world.open(),
        "
        file a b c
        connect 1 d user=otto
        connect 2 back-end
        pub 2 $client/e/x no qos=1 tag=1
        pub 2 $client/a/x yes qos=1 tag=2
        stats
        ",
        expect![[r#"
            file a b c
                count registration_limit 1
            connect 1 d user=otto
                1: refused quota_exceeded
            connect 2 back-end
                2: connected present=false
            pub 2 $client/e/x no qos=1 tag=1
                count registration_limit 1
                2: published 1 quota_exceeded
            pub 2 $client/a/x yes qos=1 tag=2
                2: published 2 success
            stats
                sessions=1 registrations=2 connections=1 subscriptions=0 retained=0 queued=1 bytes=14 inflight=0 log=4
        "#]],
    );
}

/// An entry without a user keeps what waited: the client is whoever it proved to be. A reload that says the same again
/// changes nothing.
#[test]
fn an_entry_without_a_user_takes_nothing_away() {
    check(
        durable().open(),
        "
        file bus::cars
        connect 1 bus clean user=otto
        disc 1
        connect 2 back-end
        pub 2 $client/bus/x one qos=1 tag=1
        file bus::cars
        crash
        connect 3 bus clean user=otto
        file bus::trucks
        ack 3 32768
        disc 3
        connect 4 bus clean user=anna
        ",
        expect![[r#"
            file bus::cars
            connect 1 bus clean user=otto
                1: connected present=false
            disc 1
            connect 2 back-end
                2: connected present=false
            pub 2 $client/bus/x one qos=1 tag=1
                2: published 1 success
            file bus::cars
            crash
            connect 3 bus clean user=otto
                3: connected present=false
                3: deliver x "one" qos=1 tag=32768 dup
            file bus::trucks
            ack 3 32768
            disc 3
            connect 4 bus clean user=anna
                4: refused not_authorized
        "#]],
    );
}

/// A client that moves to another user: the old one's connection, session and pushes end at once, and never come to the
/// new one; nor do the new one's come to the old.
#[test]
fn a_client_changes_hands() {
    check(
        durable().open(),
        "
        file car:anna
        connect 1 car expiry=600 user=anna
        sub 1 1 a:1
        connect 2 back-end
        pub 2 $client/car/x hers qos=1 tag=1
        file car:otto
        pub 2 a hers qos=1 tag=2
        pub 2 $client/car/x his qos=1 tag=3
        pub 2 $user/otto/x zero
        connect 3 car user=anna
        crash
        connect 4 car expiry=600 user=otto
        stats
        ",
        expect![[r#"
            file car:anna
            connect 1 car expiry=600 user=anna
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 2 back-end
                2: connected present=false
            pub 2 $client/car/x hers qos=1 tag=1
                1: deliver x "hers" qos=1 tag=32768
                2: published 1 success
            file car:otto
                1: close not_authorized
                count unregistered 1
            pub 2 a hers qos=1 tag=2
                count no_subscriber 1
                2: published 2 no_matching_subscribers
            pub 2 $client/car/x his qos=1 tag=3
                2: published 3 success
            pub 2 $user/otto/x zero
                count dropped_qos0_offline 1
            connect 3 car user=anna
                3: refused not_authorized
            crash
            connect 4 car expiry=600 user=otto
                4: connected present=false
                4: deliver x "his" qos=1 tag=32768 dup
            stats
                sessions=1 registrations=1 connections=1 subscriptions=0 retained=0 queued=0 bytes=16 inflight=1 log=15
        "#]],
    );
}

/// A session keeps its user, also when its client's entry is gone and the server starts again.
#[test]
fn a_session_stays_its_users() {
    check(
        durable().open(),
        "
        file car:anna
        connect 1 car expiry=600 user=anna
        sub 1 1 a:1
        disc 1 lost
        file
        connect 2 back-end
        pub 2 a hers qos=1 tag=1
        crash
        connect 3 car expiry=600
        connect 4 car expiry=600 user=otto
        connect 5 car expiry=600 user=anna
        ",
        expect![[r#"
            file car:anna
            connect 1 car expiry=600 user=anna
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            disc 1 lost
            file
            connect 2 back-end
                2: connected present=false
            pub 2 a hers qos=1 tag=1
                2: published 1 success
            crash
            connect 3 car expiry=600
                3: refused not_authorized
            connect 4 car expiry=600 user=otto
                4: refused not_authorized
            connect 5 car expiry=600 user=anna
                5: connected present=true
                5: deliver a "hers" qos=1 tag=1 dup
        "#]],
    );
}

/// Names that are used once don't stay for ever: one that the server made up goes with its session, others when their
/// client has not been here for long. Those of `auth.file` stay.
#[test]
fn registrations_end() {
    let world = World::new(1, true, |config| config.limits.registrations_idle_max_ms = 3 * 86_400_000);
    check(
        world.open(),
        "
        file truck:otto
        connect 1 auto-1 assigned user=anna
        connect 2 phone clean user=anna
        connect 3 back-end
        pub 3 $user/anna/x both qos=1 tag=1
        stats
        disc 1
        disc 2
        stats
        at 172800000
        pub 3 $client/phone/x waits qos=1 tag=2
        at 263000000
        stats
        pub 3 $client/phone/x gone qos=1 tag=3
        pub 3 $client/truck/x kept qos=1 tag=4
        crash
        stats
        ",
        expect![[r#"
            file truck:otto
            connect 1 auto-1 assigned user=anna
                1: connected present=false
            connect 2 phone clean user=anna
                2: connected present=false
            connect 3 back-end
                3: connected present=false
            pub 3 $user/anna/x both qos=1 tag=1
                1: deliver x "both" qos=1 tag=32768
                2: deliver x "both" qos=1 tag=32768
                3: published 1 success
            stats
                sessions=3 registrations=3 connections=3 subscriptions=0 retained=0 queued=0 bytes=32 inflight=2 log=6
            disc 1
                count unregistered 1
            disc 2
            stats
                sessions=1 registrations=2 connections=1 subscriptions=0 retained=0 queued=0 bytes=16 inflight=1 log=8
            at 172800000
            pub 3 $client/phone/x waits qos=1 tag=2
                3: published 2 success
            at 263000000
                count unregistered 2
            stats
                sessions=1 registrations=1 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=11
            pub 3 $client/phone/x gone qos=1 tag=3
                count unknown_client 1
                3: published 3 topic_name_invalid
            pub 3 $client/truck/x kept qos=1 tag=4
                3: published 4 success
            crash
            stats
                sessions=0 registrations=1 connections=0 subscriptions=0 retained=0 queued=1 bytes=19 inflight=0 log=14
        "#]],
    );
}

/// One client that stays away does not make a push to many fail; who pushes to that one is told.
#[test]
fn a_full_queue_among_many() {
    let world = World::new(1, true, |config| config.limits.queue_messages_max = 1);
    check(
        world.open(),
        "
        file car:anna phone:anna
        connect 1 back-end
        pub 1 $client/car/x one qos=1 tag=1
        pub 1 $user/anna/x two qos=1 tag=2
        pub 1 $client/car/x three qos=1 tag=3
        connect 2 car clean user=anna
        connect 3 phone clean user=anna
        ",
        expect![[r#"
            file car:anna phone:anna
            connect 1 back-end
                1: connected present=false
            pub 1 $client/car/x one qos=1 tag=1
                1: published 1 success
            pub 1 $user/anna/x two qos=1 tag=2
                count queue_overflow 1
                1: published 2 success
            pub 1 $client/car/x three qos=1 tag=3
                count queue_overflow 1
                1: published 3 quota_exceeded
            connect 2 car clean user=anna
                2: connected present=false
                2: deliver x "one" qos=1 tag=32768
            connect 3 phone clean user=anna
                3: connected present=false
                3: deliver x "two" qos=1 tag=32768
        "#]],
    );
}

/// Operators see each client once, however few places a look takes in; a kick ends a connection and nothing else.
#[test]
fn clients_are_listed_and_kicked() {
    check(
        durable(),
        "
        file car:anna:cars bus::cars
        connect 1 sub expiry=60
        sub 1 1 t:1
        connect 2 car user=anna expiry=60 clean
        sub 2 1 t:1
        connect 3 pub user=back-end
        connect 4 api user=billing caller
        pub 3 t one qos=1 tag=1
        pub 3 $group/cars/x two qos=1 tag=2
        ack 1 1
        clients 1
        clients 100
        kick car
        kick nobody
        pub 3 t three qos=1 tag=3
        clients 3
        ",
        expect![[r#"
            file car:anna:cars bus::cars
            connect 1 sub expiry=60
                1: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            connect 2 car user=anna expiry=60 clean
                2: connected present=false
            sub 2 1 t:1
                2: subscribed 1 granted_qos_1
            connect 3 pub user=back-end
                3: connected present=false
            connect 4 api user=billing caller
                4: connected present=false
            pub 3 t one qos=1 tag=1
                1: deliver t "one" qos=1 tag=1
                2: deliver t "one" qos=1 tag=1
                3: published 1 success
            pub 3 $group/cars/x two qos=1 tag=2
                count not_authorized 1
                3: published 2 not_authorized
            ack 1 1
            clients 1
                sub - here session 1 subscriptions 0+0 (0 B)
                car anna here session 1 subscriptions 0+1 (4 B) File 0+0 (0 B)
                pub back-end here session 0 subscriptions 0+0 (0 B) Connection 0+0 (0 B)
                bus - File 0+0 (0 B)
            clients 100
                sub - here session 1 subscriptions 0+0 (0 B)
                car anna here session 1 subscriptions 0+1 (4 B) File 0+0 (0 B)
                pub back-end here session 0 subscriptions 0+0 (0 B) Connection 0+0 (0 B)
                bus - File 0+0 (0 B)
            kick car
                2: close administrative_action
            kick nobody
            pub 3 t three qos=1 tag=3
                1: deliver t "three" qos=1 tag=2
                3: published 3 success
            clients 3
                sub - here session 1 subscriptions 0+1 (6 B)
                car anna session 1 subscriptions 1+1 (10 B) File 0+0 (0 B)
                pub back-end here session 0 subscriptions 0+0 (0 B) Connection 0+0 (0 B)
                bus - File 0+0 (0 B)
        "#]],
    );
}

/// A caller of the API registers a client that never came: pushes wait for it, no other user gets it, neither a reload of
/// `auth.file` nor a crash takes it away, and its connection changes nothing of what was said. Then nothing is known of it.
#[test]
fn the_api_registers() {
    check(
        World::new(1, true, |config| config.limits.registrations_max = 2).open(),
        "
        connect 1 back-end
        register car user=anna groups=fleet
        pub 1 $group/fleet/cmd one qos=1 tag=1
        connect 2 car user=bob
        connect 3 car user=anna groups=others
        ack 3 32768
        file
        crash
        connect 1 back-end
        pub 1 $group/fleet/cmd two qos=1 tag=1
        pub 1 $group/others/cmd nobody qos=1 tag=2
        register van
        register third
        connect 4 car user=anna
        register car user=bob
        pub 1 $group/fleet/cmd lost qos=1 tag=3
        register car groups=fleet
        pub 1 $user/bob/cmd three qos=1 tag=4
        connect 5 car user=bob
        unregister car
        crash
        connect 1 back-end
        pub 1 $client/car/cmd lost qos=1 tag=1
        unregister car
        file van
        register van user=eve
        unregister van
        stats
        ",
        expect![[r#"
            connect 1 back-end
                1: connected present=false
            register car user=anna groups=fleet
                client Done
            pub 1 $group/fleet/cmd one qos=1 tag=1
                1: published 1 success
            connect 2 car user=bob
                2: refused not_authorized
            connect 3 car user=anna groups=others
                3: connected present=false
                3: deliver cmd "one" qos=1 tag=32768
            ack 3 32768
            file
            crash
            connect 1 back-end
                1: connected present=false
            pub 1 $group/fleet/cmd two qos=1 tag=1
                1: published 1 success
            pub 1 $group/others/cmd nobody qos=1 tag=2
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            register van
                client Done
            register third
                count registration_limit 1
                client Full
            connect 4 car user=anna
                4: connected present=false
                4: deliver cmd "two" qos=1 tag=32768
            register car user=bob
                4: close not_authorized
                count unregistered 1
                client Done
            pub 1 $group/fleet/cmd lost qos=1 tag=3
                count no_subscriber 1
                1: published 3 no_matching_subscribers
            register car groups=fleet
                client Done
            pub 1 $user/bob/cmd three qos=1 tag=4
                1: published 4 success
            connect 5 car user=bob
                5: connected present=false
                5: deliver cmd "three" qos=1 tag=32768
            unregister car
                5: close administrative_action
                count unregistered 1
                client Done
            crash
            connect 1 back-end
                1: connected present=false
            pub 1 $client/car/cmd lost qos=1 tag=1
                count unknown_client 1
                1: published 1 topic_name_invalid
            unregister car
                client Unknown
            file van
            register van user=eve
                client OfFile
            unregister van
                client OfFile
            stats
                sessions=1 registrations=1 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=17
        "#]],
    );
}
