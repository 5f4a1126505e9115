//! Several shards: who wants what, confirmations, credit, retained messages, share groups.
//! With the test's placement on two shards, clients "a" and "b" … live where `connect` says.

use crate::world::World;
use expect_test::{Expect, expect};
use postroad_base::ShardId;
use postroad_broker::QueuePolicy;

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

fn three() -> World {
    World::new(3, true, |_| {})
}

/// A PUBACK waits for the commits of all shards; SUBACK for all shards' answers.
#[test]
fn a_message_reaches_other_shards_before_it_is_acknowledged() {
    check(
        three(),
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        connect 3 c
        connect 4 d
        sub 1 1 t:1
        sub 2 1 t:2
        hold
        pub 4 t x qos=1 tag=1
        commit
        flow
        pub 4 t y qos=2 tag=2
        pub 4 t z
        unsub 1 2 t
        unsub 2 2 t
        pub 4 t x qos=1 tag=3
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b expiry=60
                2: connected present=false
            connect 3 c
                3: connected present=false
            connect 4 d
                4: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            sub 2 1 t:2
                2: subscribed 1 granted_qos_2
            hold
            pub 4 t x qos=1 tag=1
            commit
                1: deliver t "x" qos=1 tag=1
                2: deliver t "x" qos=1 tag=1
                4: published 1 success
            flow
            pub 4 t y qos=2 tag=2
                1: deliver t "y" qos=1 tag=2
                2: deliver t "y" qos=2 tag=2
                4: published 2 success
            pub 4 t z
                2: deliver t "z" qos=0
                1: deliver t "z" qos=0
            unsub 1 2 t
                1: unsubscribed 2 success
            unsub 2 2 t
                2: unsubscribed 2 success
            pub 4 t x qos=1 tag=3
                count no_subscriber 1
                4: published 3 no_matching_subscribers
        "#]],
    );
}

#[test]
fn a_subscribe_that_some_shard_does_not_answer_is_undone() {
    check(
        three(),
        "
        connect 1 a expiry=60
        connect 2 b
        connect 3 c
        connect 4 d
        stop 2
        sub 1 1 t:1 u:1
        at 7000
        go
        sub 1 2 t:1
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 3 c
                3: connected present=false
            connect 4 d
                4: connected present=false
            stop 2
            sub 1 1 t:1 u:1
            at 7000
                1: subscribed 1 unspecified_error unspecified_error
            go
            sub 1 2 t:1
                1: subscribed 2 granted_qos_1
            stats
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=10
                sessions=2 registrations=0 connections=2 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
        "#]],
    );
}

/// Without credit the publisher is parked, and goes on when it comes back; nothing is lost or overtaken.
#[test]
fn credit_parks_a_publisher() {
    let world = World::new(2, false, |config| config.mesh_credits = 1);
    check(
        world,
        "
        connect 1 a
        connect 2 b
        connect 3 c
        connect 4 d
        connect 5 e
        sub 1 1 t:1
        sub 2 1 t:1
        sub 3 1 t:1
        sub 4 1 t:1
        stop 0
        stop 1
        pub 5 t 1 qos=1 tag=1
        pub 5 t 2 qos=1 tag=2
        pub 5 t 3
        go
        stop 0
        stop 1
        pub 5 t 4
        pub 5 t 5
        disc 5 lost
        go
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 3 c
                3: connected present=false
            connect 4 d
                4: connected present=false
            connect 5 e
                5: connected present=false
            sub 1 1 t:1
                1: subscribed 1 granted_qos_1
            sub 2 1 t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 t:1
                3: subscribed 1 granted_qos_1
            sub 4 1 t:1
                4: subscribed 1 granted_qos_1
            stop 0
            stop 1
            pub 5 t 1 qos=1 tag=1
                2: deliver t "1" qos=1 tag=1
            pub 5 t 2 qos=1 tag=2
                5: park
            pub 5 t 3
            go
                1: deliver t "1" qos=1 tag=1
                3: deliver t "1" qos=1 tag=1
                4: deliver t "1" qos=1 tag=1
                5: published 1 success
                2: deliver t "2" qos=1 tag=2
                1: deliver t "2" qos=1 tag=2
                3: deliver t "2" qos=1 tag=2
                4: deliver t "2" qos=1 tag=2
                5: published 2 success
                2: deliver t "3" qos=0
                5: unpark
                1: deliver t "3" qos=0
                3: deliver t "3" qos=0
                4: deliver t "3" qos=0
            stop 0
            stop 1
            pub 5 t 4
                2: deliver t "4" qos=0
            pub 5 t 5
                5: park
            disc 5 lost
            go
                1: deliver t "4" qos=0
                3: deliver t "4" qos=0
                4: deliver t "4" qos=0
                2: deliver t "5" qos=0
                1: deliver t "5" qos=0
                3: deliver t "5" qos=0
                4: deliver t "5" qos=0
        "#]],
    );
}

/// What was parked behind others when its publisher went was published without having been judged, whatever the rules say.
#[test]
fn what_is_published_for_one_that_is_gone_is_judged() {
    let world = World::new(2, false, |config| {
        config.mesh_credits = 1;
        config.limits.topic_levels_max = 3;
    });
    check(
        world,
        "
        connect 1 a
        connect 2 b
        connect 5 e
        sub 1 1 #:1
        sub 2 1 #:1
        stop 0
        stop 1
        pub 5 t 1
        pub 5 t 2
        pub 5 $all/x evil
        pub 5 a/b/c/d deep
        pub 5 t wish flawed
        pub 5 $pull/5 -
        pub 5 t 3
        disc 5 lost
        go
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 5 e
                5: connected present=false
            sub 1 1 #:1
                1: subscribed 1 granted_qos_1
            sub 2 1 #:1
                2: subscribed 1 granted_qos_1
            stop 0
            stop 1
            pub 5 t 1
                2: deliver t "1" qos=0
            pub 5 t 2
                5: park
            pub 5 $all/x evil
            pub 5 a/b/c/d deep
            pub 5 t wish flawed
            pub 5 $pull/5 -
            pub 5 t 3
            disc 5 lost
                count not_authorized 1
                count topic_levels 1
                count bad_wish 1
                count bad_pull 1
            go
                1: deliver t "1" qos=0
                2: deliver t "2" qos=0
                1: deliver t "2" qos=0
                2: deliver t "3" qos=0
                1: deliver t "3" qos=0
        "#]],
    );
}

#[test]
fn retained_messages_live_on_their_topics_shard() {
    check(
        three(),
        "
        connect 1 a expiry=60
        pub 1 r/1 one qos=1 tag=1 retain
        pub 1 r/2 two qos=1 tag=2 retain
        pub 1 r/3 three retain
        pub 1 r/4 four retain
        stats
        connect 2 b
        sub 2 1 r/+:1
        sub 2 2 r/1:1
        pub 1 r/1 - retain
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            pub 1 r/1 one qos=1 tag=1 retain
                count no_subscriber 1
                1: published 1 no_matching_subscribers
            pub 1 r/2 two qos=1 tag=2 retain
                count no_subscriber 1
                1: published 2 no_matching_subscribers
            pub 1 r/3 three retain
                count no_subscriber 1
            pub 1 r/4 four retain
                count no_subscriber 1
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=2 queued=0 bytes=0 inflight=0 log=3
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=1 queued=0 bytes=0 inflight=0 log=1
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=1 queued=0 bytes=0 inflight=0 log=1
            connect 2 b
                2: connected present=false
            sub 2 1 r/+:1
                2: subscribed 1 granted_qos_1
                2: deliver r/3 "three" qos=0 retain
                2: deliver r/4 "four" qos=0 retain
                2: deliver r/2 "two" qos=1 tag=1 retain
                2: deliver r/1 "one" qos=1 tag=2 retain
            sub 2 2 r/1:1
                2: subscribed 2 granted_qos_1
                2: deliver r/1 "one" qos=1 tag=3 retain
            pub 1 r/1 - retain
                2: deliver r/1 "" qos=0
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=2 queued=0 bytes=0 inflight=0 log=3
                sessions=1 registrations=0 connections=1 subscriptions=2 retained=1 queued=0 bytes=18 inflight=3 log=1
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=2
        "#]],
    );
}

/// [MQTT-4.8.2-4], [MQTT-4.8.2-5]: one member gets it, wherever it lives; with its own QoS.
#[test]
fn share_groups_span_shards() {
    check(
        three(),
        "
        connect 1 a
        connect 2 b
        connect 3 c
        connect 4 d expiry=60
        connect 5 p
        sub 1 1 $share/g/t:1
        sub 2 1 $share/g/t:1
        sub 3 1 $share/g/t:0
        sub 4 1 $share/g/t:1 t:0
        pub 5 t 1 qos=1 tag=1
        pub 5 t 2 qos=1 tag=2
        pub 5 t 3 qos=1 tag=3
        pub 5 t 4 qos=1 tag=4
        pub 5 t 5 qos=1 tag=5
        disc 1
        disc 2
        unsub 3 2 $share/g/t
        disc 4 lost
        pub 5 t 6 qos=1 tag=6
        crash
        connect 6 d expiry=60
        connect 7 p
        pub 7 t 7 qos=1 tag=1
        unsub 6 2 $share/g/t t
        pub 7 t 8 qos=1 tag=2
        stats
        ",
        expect![[r#"
            connect 1 a
                1: connected present=false
            connect 2 b
                2: connected present=false
            connect 3 c
                3: connected present=false
            connect 4 d expiry=60
                4: connected present=false
            connect 5 p
                5: connected present=false
            sub 1 1 $share/g/t:1
                1: subscribed 1 granted_qos_1
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 $share/g/t:0
                3: subscribed 1 success
            sub 4 1 $share/g/t:1 t:0
                4: subscribed 1 granted_qos_1 success
            pub 5 t 1 qos=1 tag=1
                4: deliver t "1" qos=0
                4: deliver t "1" qos=1 tag=1
                5: published 1 success
            pub 5 t 2 qos=1 tag=2
                4: deliver t "2" qos=0
                2: deliver t "2" qos=1 tag=1
                5: published 2 success
            pub 5 t 3 qos=1 tag=3
                4: deliver t "3" qos=0
                3: deliver t "3" qos=0
                5: published 3 success
            pub 5 t 4 qos=1 tag=4
                1: deliver t "4" qos=1 tag=1
                4: deliver t "4" qos=0
                5: published 4 success
            pub 5 t 5 qos=1 tag=5
                4: deliver t "5" qos=0
                4: deliver t "5" qos=1 tag=2
                5: published 5 success
            disc 1
                2: deliver t "4" qos=1 tag=2
            disc 2
                3: deliver t "2" qos=0
                4: deliver t "4" qos=1 tag=3
            unsub 3 2 $share/g/t
                3: unsubscribed 2 success
            disc 4 lost
            pub 5 t 6 qos=1 tag=6
                count dropped_qos0_offline 1
                5: published 6 success
            crash
            connect 6 d expiry=60
                6: connected present=true
                6: deliver t "1" qos=1 tag=1 dup
                6: deliver t "5" qos=1 tag=2 dup
                6: deliver t "4" qos=1 tag=3 dup
                6: deliver t "6" qos=1 tag=4 dup
            connect 7 p
                7: connected present=false
            pub 7 t 7 qos=1 tag=1
                6: deliver t "7" qos=0
                6: deliver t "7" qos=1 tag=5
                7: published 1 success
            unsub 6 2 $share/g/t t
                6: unsubscribed 2 success success
            pub 7 t 8 qos=1 tag=2
                count no_subscriber 1
                7: published 2 no_matching_subscribers
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=10 inflight=5 log=14
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
        "#]],
    );
}

/// A repeat after a crash is routed again with the same id; a shard that has it ignores it.
#[test]
fn qos_2_is_exactly_once_across_shards_and_crashes() {
    check(
        three(),
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        connect 3 c expiry=60
        sub 1 1 t:2
        sub 2 1 t:2
        sub 3 1 t:2
        connect 4 p expiry=60
        stop 1
        stop 2
        pub 4 t once qos=2 tag=1
        crash
        go
        connect 5 p expiry=60
        pub 5 t once qos=2 tag=1 dup
        rel 5 1
        connect 6 a expiry=60
        connect 7 b expiry=60
        connect 8 c expiry=60
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b expiry=60
                2: connected present=false
            connect 3 c expiry=60
                3: connected present=false
            sub 1 1 t:2
                1: subscribed 1 granted_qos_2
            sub 2 1 t:2
                2: subscribed 1 granted_qos_2
            sub 3 1 t:2
                3: subscribed 1 granted_qos_2
            connect 4 p expiry=60
                4: connected present=false
            stop 1
            stop 2
            pub 4 t once qos=2 tag=1
                1: deliver t "once" qos=2 tag=1
                2: deliver t "once" qos=2 tag=1
                3: deliver t "once" qos=2 tag=1
            crash
            go
            connect 5 p expiry=60
                5: connected present=true inbound=[1]
            pub 5 t once qos=2 tag=1 dup
                5: published 1 success
            rel 5 1
                5: completed 1 success
            connect 6 a expiry=60
                6: connected present=true
                6: deliver t "once" qos=2 tag=1 dup
            connect 7 b expiry=60
                7: connected present=true
                7: deliver t "once" qos=2 tag=1 dup
            connect 8 c expiry=60
                8: connected present=true
                8: deliver t "once" qos=2 tag=1 dup
        "#]],
    );
}

/// A shard that had taken a QoS 2 message retires after a crash, before its publisher's shard has told that it may be
/// repeated: that the message was taken is remembered all the same, beyond the next crash. (It was forgotten with the
/// segment, and the repeat was delivered again.)
#[test]
fn a_retirement_before_all_shards_have_recovered_forgets_nothing() {
    let mut world = World::new(2, true, |_| {});
    let [a, p] = ["a", "b"].map(|name| world.home(name));
    assert_ne!(a, p);
    world.run(&format!(
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        sub 1 1 t:2 $share/g/t:2
        stop {a}
        pub 2 t once qos=2 tag=1
        rec 1 1
        comp 1 1
        rec 1 2
        comp 1 2
        stop {p}
        "
    ));
    check(
        world,
        "
        crash
        retire
        crash
        go
        connect 3 a expiry=60
        connect 4 b expiry=60
        pub 4 t once qos=2 tag=1 dup
        ",
        expect![[r#"
            crash
            retire
                ingest: 0 pending, 0 settled
                ingest: 0 pending, 0 settled
            crash
            go
            connect 3 a expiry=60
                3: connected present=true
            connect 4 b expiry=60
                4: connected present=true inbound=[1]
            pub 4 t once qos=2 tag=1 dup
                4: published 1 success
        "#]],
    );
}

/// With another number of shards a shard has subscribers who had a QoS 2 message at the crash, and others who had not: a
/// repeat goes to these only, and then to nobody, also after a retirement and one more crash.
#[test]
fn a_repeat_goes_to_those_who_lived_where_it_was_not_taken() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut world = World::new(2, true, |_| {});
    world.run("connect 1 p expiry=60 \n pub 1 t once qos=2 tag=1");
    let mut expected = Vec::new();
    for (name, number) in names.iter().zip(10..) {
        world.run(&format!("connect {number} {name} expiry=60 \n sub {number} 1 t:2"));
        if world.home_among(name, 3) != ShardId(1) {
            expected.push(format!("{number}: deliver t \"once\" qos=2 tag=1"));
        }
    }
    assert!((0..2).all(|shard| names.iter().any(|name| world.home(name) == shard)) && (3..8).contains(&expected.len()));
    world.run("moved 1 3");
    for round in 0..3 {
        let mut came = world.run("crash \n connect 1 p expiry=60");
        for (name, number) in names.iter().zip(10..) {
            came += &world.run(&format!("connect {number} {name} expiry=60"));
        }
        came += &world.run("pub 1 t once qos=2 tag=1 dup \n retire");
        assert!(came.contains("1: published 1 success"), "{came}");
        let mut came: Vec<_> = came.lines().map(str::trim).filter(|line| line.contains("deliver")).collect();
        came.sort_unstable();
        let expected = expected.iter().map(|line| if round == 0 { line.clone() } else { format!("{line} dup") });
        assert_eq!(came, expected.collect::<Vec<_>>(), "in round {round}");
    }
}

/// DESIGN 5: directed pushes find a client by its name or by who it is, on whatever shard, also after a crash.
#[test]
fn directed_pushes() {
    check(
        three().open(),
        "
        connect 1 a expiry=60 user=anna group=cars
        connect 2 b expiry=60 user=anna
        connect 3 c group=cars
        connect 4 d
        sub 4 1 #:1
        pub 4 $client/a/cmd/lock now qos=1 tag=1
        pub 4 $user/anna/hi both qos=1 tag=2
        pub 4 $group/cars/hi both
        pub 4 $all/news everybody qos=2 tag=3
        pub 4 $client/nobody/x y qos=1 tag=4
        disc 1 lost
        pub 4 $user/anna/later stored qos=1 tag=5
        retire
        crash
        connect 5 a expiry=60 user=anna
        connect 6 d
        pub 6 $user/anna/again x
        pub 6 $group/cars/gone x qos=1 tag=1
        ",
        expect![[r#"
            connect 1 a expiry=60 user=anna group=cars
                1: connected present=false
            connect 2 b expiry=60 user=anna
                2: connected present=false
            connect 3 c group=cars
                3: connected present=false
            connect 4 d
                4: connected present=false
            sub 4 1 #:1
                4: subscribed 1 granted_qos_1
            pub 4 $client/a/cmd/lock now qos=1 tag=1
                1: deliver cmd/lock "now" qos=1 tag=32768
                4: published 1 success
            pub 4 $user/anna/hi both qos=1 tag=2
                1: deliver hi "both" qos=1 tag=32769
                2: deliver hi "both" qos=1 tag=32768
                4: published 2 success
            pub 4 $group/cars/hi both
                1: deliver hi "both" qos=0
                3: deliver hi "both" qos=0
            pub 4 $all/news everybody qos=2 tag=3
                4: deliver news "everybody" qos=2 tag=1
                1: deliver news "everybody" qos=2 tag=32770
                2: deliver news "everybody" qos=2 tag=32769
                3: deliver news "everybody" qos=2 tag=32768
                4: published 3 success
            pub 4 $client/nobody/x y qos=1 tag=4
                count unknown_client 1
                4: published 4 topic_name_invalid
            disc 1 lost
            pub 4 $user/anna/later stored qos=1 tag=5
                2: deliver later "stored" qos=1 tag=32770
                4: published 5 success
            retire
                ingest: 4 pending, 0 settled
                ingest: 3 pending, 0 settled
                ingest: 1 pending, 0 settled
            crash
            connect 5 a expiry=60 user=anna
                5: connected present=true
                read backlog: 4 entries, end=true
                5: deliver cmd/lock "now" qos=1 tag=32771 dup
                5: deliver hi "both" qos=1 tag=32772 dup
                5: deliver news "everybody" qos=2 tag=32770 dup
                5: deliver later "stored" qos=1 tag=32773 dup
            connect 6 d
                6: connected present=false
            pub 6 $user/anna/again x
                count dropped_qos0_offline 1
                5: deliver again "x" qos=0
            pub 6 $group/cars/gone x qos=1 tag=1
                6: published 1 success
        "#]],
    );
}

/// The last member on a shard leaves just before the message comes there: another one gets it, on whatever shard.
/// (It was lost, and the publisher told that nobody wanted it.)
#[test]
fn a_group_whose_last_member_there_has_left_is_asked_again() {
    let world = World::new(3, true, |config| config.mesh_credits = 1);
    check(
        world,
        "
        connect 1 c expiry=60
        connect 2 d expiry=60
        connect 5 p expiry=60
        sub 1 1 $share/g/t:2
        sub 2 1 $share/g/t:2
        stop 0
        pub 5 t 1 qos=1 tag=1
        unsub 2 2 $share/g/t
        go
        sub 2 3 $share/g/t:2
        stop 0
        pub 5 t 2 qos=2 tag=2
        unsub 1 2 $share/g/t
        go
        sub 1 3 $share/g/t:2
        stop 0
        pub 5 t 3
        unsub 2 4 $share/g/t
        go
        sub 2 5 $share/g/t:2
        stop 0
        pub 5 t 4 qos=1 tag=4
        unsub 1 4 $share/g/t
        unsub 2 6 $share/g/t
        go
        sub 1 5 $share/g/t:2
        pub 5 t 5 qos=1 tag=5
        ",
        expect![[r#"
            connect 1 c expiry=60
                1: connected present=false
            connect 2 d expiry=60
                2: connected present=false
            connect 5 p expiry=60
                5: connected present=false
            sub 1 1 $share/g/t:2
                1: subscribed 1 granted_qos_2
            sub 2 1 $share/g/t:2
                2: subscribed 1 granted_qos_2
            stop 0
            pub 5 t 1 qos=1 tag=1
            unsub 2 2 $share/g/t
                2: unsubscribed 2 success
            go
                1: deliver t "1" qos=1 tag=1
                5: published 1 success
            sub 2 3 $share/g/t:2
                2: subscribed 3 granted_qos_2
            stop 0
            pub 5 t 2 qos=2 tag=2
            unsub 1 2 $share/g/t
                1: unsubscribed 2 success
            go
                2: deliver t "2" qos=2 tag=1
                5: published 2 success
            sub 1 3 $share/g/t:2
                1: subscribed 3 granted_qos_2
            stop 0
            pub 5 t 3
            unsub 2 4 $share/g/t
                2: unsubscribed 4 success
            go
                1: deliver t "3" qos=0
            sub 2 5 $share/g/t:2
                2: subscribed 5 granted_qos_2
            stop 0
            pub 5 t 4 qos=1 tag=4
            unsub 1 4 $share/g/t
                1: unsubscribed 4 success
            unsub 2 6 $share/g/t
                2: unsubscribed 6 success
            go
                count no_subscriber 1
                5: published 4 no_matching_subscribers
            sub 1 5 $share/g/t:2
                1: subscribed 5 granted_qos_2
            pub 5 t 5 qos=1 tag=5
                1: deliver t "5" qos=1 tag=2
                5: published 5 success
        "#]],
    );
}

/// The least busy of the connected members on a shard gets it: a slow one does not hoard.
#[test]
fn a_slow_member_gets_less() {
    check(
        World::new(1, true, |_| {}),
        "
        connect 1 slow expiry=60 max=2
        connect 2 quick expiry=60
        connect 3 zero
        connect 4 p
        sub 1 1 $share/g/t:1
        sub 2 1 $share/g/t:1
        sub 3 1 $share/g/t:0
        pub 4 t 1 qos=1 tag=1
        pub 4 t 2 qos=1 tag=2
        pub 4 t 3 qos=1 tag=3
        ack 2 1
        pub 4 t 4 qos=1 tag=4
        ack 2 2
        pub 4 t 5 qos=1 tag=5
        congested 3
        pub 4 t 6 qos=1 tag=6
        ",
        expect![[r#"
            connect 1 slow expiry=60 max=2
                1: connected present=false
            connect 2 quick expiry=60
                2: connected present=false
            connect 3 zero
                3: connected present=false
            connect 4 p
                4: connected present=false
            sub 1 1 $share/g/t:1
                1: subscribed 1 granted_qos_1
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 $share/g/t:0
                3: subscribed 1 success
            pub 4 t 1 qos=1 tag=1
                2: deliver t "1" qos=1 tag=1
                4: published 1 success
            pub 4 t 2 qos=1 tag=2
                3: deliver t "2" qos=0
                4: published 2 success
            pub 4 t 3 qos=1 tag=3
                1: deliver t "3" qos=1 tag=1
                4: published 3 success
            ack 2 1
            pub 4 t 4 qos=1 tag=4
                2: deliver t "4" qos=1 tag=2
                4: published 4 success
            ack 2 2
            pub 4 t 5 qos=1 tag=5
                3: deliver t "5" qos=0
                4: published 5 success
            congested 3
            pub 4 t 6 qos=1 tag=6
                2: deliver t "6" qos=1 tag=3
                4: published 6 success
        "#]],
    );
}

/// What an ended session had goes to the group by which it came, when it is committed there the queue ends; QoS 2 goes
/// to nobody [MQTT-4.8.2-5]. Leaving a group leaves what came by it where it is.
#[test]
fn an_ended_session_gives_back_to_the_right_group() {
    check(
        World::new(1, true, |_| {}).showing_log(),
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        connect 3 c expiry=60
        connect 4 p
        sub 1 1 $share/g/t:2
        sub 1 2 $share/h/+:2
        sub 2 1 $share/g/t:2
        pub 4 t 1 qos=1 tag=1
        pub 4 t 2 qos=2 tag=2
        unsub 1 3 $share/h/+
        sub 3 1 $share/h/+:2
        hold
        disc 1 expiry=0
        crash
        flow
        connect 6 c expiry=60
        connect 7 a expiry=60
        disc 7 expiry=0
        crash
        connect 8 a expiry=60
        connect 9 c expiry=60
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                log 1 QueueBegin
                1: connected present=false
            connect 2 b expiry=60
                log 2 QueueBegin
                2: connected present=false
            connect 3 c expiry=60
                log 3 QueueBegin
                3: connected present=false
            connect 4 p
                4: connected present=false
            sub 1 1 $share/g/t:2
                log 4 Subscribe
                1: subscribed 1 granted_qos_2
            sub 1 2 $share/h/+:2
                log 5 Subscribe
                1: subscribed 2 granted_qos_2
            sub 2 1 $share/g/t:2
                log 6 Subscribe
                2: subscribed 1 granted_qos_2
            pub 4 t 1 qos=1 tag=1
                log 7 Publish to 2
                2: deliver t "1" qos=1 tag=1
                1: deliver t "1" qos=1 tag=1
                4: published 1 success
            pub 4 t 2 qos=2 tag=2
                log 8 Publish to 1
                log 9 Tagged 8 tag=2
                log 10 Publish to 1
                log 11 Tagged 10 tag=3
                1: deliver t "2" qos=2 tag=2
                1: deliver t "2" qos=2 tag=3
                4: published 2 success
            unsub 1 3 $share/h/+
                log 12 Unsubscribe
                1: unsubscribed 3 success
            sub 3 1 $share/h/+:2
                log 13 Subscribe
                3: subscribed 1 granted_qos_2
            hold
            disc 1 expiry=0
                log 14 Disconnected
                log 15 Publish to 1
                count session_ended 2
            crash
                log 14 Disconnected
                log 15 Disconnected
                log 16 Disconnected
            flow
            connect 6 c expiry=60
                log 17 Connected
                6: connected present=true
            connect 7 a expiry=60
                log 18 Connected
                7: connected present=true
                7: deliver t "1" qos=1 tag=4 dup
                log 19 Attempt 8 2
                7: deliver t "2" qos=2 tag=2 dup
                log 20 Attempt 10 2
                7: deliver t "2" qos=2 tag=3 dup
            disc 7 expiry=0
                log 21 Disconnected
                log 22 Publish to 1
                count session_ended 2
                6: deliver t "1" qos=1 tag=1
                log 23 Settle 7 Moved
                log 24 QueueEnd
            crash
                log 25 Disconnected
            connect 8 a expiry=60
                log 26 QueueBegin
                8: connected present=false
            connect 9 c expiry=60
                log 27 Connected
                9: connected present=true
                9: deliver t "1" qos=1 tag=1 dup
            stats
                sessions=3 registrations=0 connections=2 subscriptions=2 retained=0 queued=1 bytes=4 inflight=1 log=27
        "#]],
    );
}

/// What waits in the old generation is given back, too, in portions; to another shard when that has committed it.
#[test]
fn a_backlog_is_given_back() {
    let world = World::new(3, true, |config| {
        config.mesh_credits = 1;
        config.backlog_messages_max = 2;
    });
    check(
        world.showing_log(),
        "
        connect 1 a expiry=60 max=1
        connect 5 p
        sub 1 1 $share/g/t:1 u:1
        pub 5 t 1 qos=1 tag=1
        pub 5 u 2 qos=1 tag=2
        pub 5 t 3 qos=1 tag=3
        pub 5 t 4 qos=1 tag=4
        pub 5 t 5 qos=1 tag=5
        disc 1 lost
        retire
        connect 2 c expiry=60
        sub 2 1 $share/g/t:1
        hold
        connect 3 a expiry=60 clean
        flow
        stats
        crash
        connect 4 c expiry=60
        retire
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60 max=1
                log 1 QueueBegin
                1: connected present=false
            connect 5 p
                5: connected present=false
            sub 1 1 $share/g/t:1 u:1
                log 2 Subscribe
                log 3 Subscribe
                log 4 RetainedDue
                1: subscribed 1 granted_qos_1 granted_qos_1
                log 5 RetainedGiven
            pub 5 t 1 qos=1 tag=1
                log 6 Publish to 1
                1: deliver t "1" qos=1 tag=1
                5: published 1 success
            pub 5 u 2 qos=1 tag=2
                log 7 Publish to 1
                5: published 2 success
            pub 5 t 3 qos=1 tag=3
                log 8 Publish to 1
                5: published 3 success
            pub 5 t 4 qos=1 tag=4
                log 9 Publish to 1
                5: published 4 success
            pub 5 t 5 qos=1 tag=5
                log 10 Publish to 1
                5: published 5 success
            disc 1 lost
                log 11 Disconnected
            retire
                ingest: 5 pending, 0 settled
            connect 2 c expiry=60
                log 1 QueueBegin
                2: connected present=false
            sub 2 1 $share/g/t:1
                log 2 Subscribe
                2: subscribed 1 granted_qos_1
            hold
            connect 3 a expiry=60 clean
                log 12 Disconnected
                read backlog: 2 entries, end=false
                log 13 QueueBegin
                count session_ended 1
                read backlog: 2 entries, end=false
                read backlog: 0 entries, end=true
                log 3 Publish to 1
            flow
                3: connected present=false
                2: deliver t "1" qos=1 tag=1
                log 14 Settle 6 Moved
                log 4 Publish to 1
                2: deliver t "3" qos=1 tag=2
                log 15 Settle 8 Moved
                log 5 Publish to 1
                2: deliver t "4" qos=1 tag=3
                log 16 Settle 9 Moved
                log 6 Publish to 1
                2: deliver t "5" qos=1 tag=4
                log 17 Settle 10 Moved
                log 18 QueueEnd
            stats
                sessions=2 registrations=0 connections=2 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=7
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=8 inflight=4 log=6
            crash
                log 19 Disconnected
                log 7 Disconnected
            connect 4 c expiry=60
                log 8 Connected
                4: connected present=true
                4: deliver t "1" qos=1 tag=1 dup
                4: deliver t "3" qos=1 tag=2 dup
                4: deliver t "4" qos=1 tag=3 dup
                4: deliver t "5" qos=1 tag=4 dup
            retire
                ingest: 0 pending, 4 settled
                ingest: 4 pending, 0 settled
            stats
                sessions=1 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=8 inflight=4 log=0
        "#]],
    );
}

/// A crash while another shard has not confirmed: the session has ended, its queue is ended again.
/// (`QueueEnd` was committed before the message was at its new place.)
#[test]
fn a_crash_while_giving_back_loses_nothing() {
    check(
        three().showing_log(),
        "
        connect 1 a expiry=60
        connect 5 p
        sub 1 1 $share/g/t:1
        pub 5 t 1 qos=1 tag=1
        connect 2 c expiry=60
        sub 2 1 $share/g/t:1
        stop 0
        connect 3 a expiry=60 clean
        stats
        crash
        go
        connect 4 c expiry=60
        connect 6 a expiry=60
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                log 1 QueueBegin
                1: connected present=false
            connect 5 p
                5: connected present=false
            sub 1 1 $share/g/t:1
                log 2 Subscribe
                1: subscribed 1 granted_qos_1
            pub 5 t 1 qos=1 tag=1
                log 3 Publish to 1
                1: deliver t "1" qos=1 tag=1
                5: published 1 success
            connect 2 c expiry=60
                log 1 QueueBegin
                2: connected present=false
            sub 2 1 $share/g/t:1
                log 2 Subscribe
                2: subscribed 1 granted_qos_1
            stop 0
            connect 3 a expiry=60 clean
                count taken_over 1
                1: close session_taken_over
                log 4 Disconnected
                log 5 Disconnected
                log 6 QueueBegin
                3: connected present=false
            stats
                sessions=2 registrations=0 connections=2 subscriptions=0 retained=0 queued=0 bytes=2 inflight=1 log=6
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=0 inflight=0 log=2
            crash
                log 7 Disconnected
                log 3 Disconnected
            go
                log 4 Publish to 1
                log 8 Settle 3 Moved
                log 9 QueueEnd
            connect 4 c expiry=60
                log 5 Connected
                4: connected present=true
                4: deliver t "1" qos=1 tag=1
            connect 6 a expiry=60
                log 10 Connected
                6: connected present=true
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=10
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=0
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=2 inflight=1 log=5
        "#]],
    );
}

/// No room with any member, or no member at all: dropped, and counted.
#[test]
fn what_can_t_be_given_back_is_counted() {
    let world = World::new(3, true, |config| config.limits.queue_messages_max = 2);
    check(
        world,
        "
        connect 1 a expiry=60
        connect 2 c expiry=60
        connect 3 d expiry=60
        connect 5 p
        sub 1 1 $share/g/t:1
        pub 5 t 1 qos=1 tag=1
        pub 5 t 2 qos=1 tag=2
        sub 2 1 $share/g/t:1
        sub 3 1 $share/g/t:1 u:1
        pub 5 u 3 qos=1 tag=3
        pub 5 t 4 qos=1 tag=4
        pub 5 t 5 qos=1 tag=5
        disc 1 expiry=0
        pub 5 t 6 qos=1 tag=6
        disc 2 expiry=0
        disc 3 expiry=0
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 c expiry=60
                2: connected present=false
            connect 3 d expiry=60
                3: connected present=false
            connect 5 p
                5: connected present=false
            sub 1 1 $share/g/t:1
                1: subscribed 1 granted_qos_1
            pub 5 t 1 qos=1 tag=1
                1: deliver t "1" qos=1 tag=1
                5: published 1 success
            pub 5 t 2 qos=1 tag=2
                1: deliver t "2" qos=1 tag=2
                5: published 2 success
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 $share/g/t:1 u:1
                3: subscribed 1 granted_qos_1 granted_qos_1
            pub 5 u 3 qos=1 tag=3
                3: deliver u "3" qos=1 tag=1
                5: published 3 success
            pub 5 t 4 qos=1 tag=4
                3: deliver t "4" qos=1 tag=2
                5: published 4 success
            pub 5 t 5 qos=1 tag=5
                2: deliver t "5" qos=1 tag=1
                5: published 5 success
            disc 1 expiry=0
                count queue_overflow 1
                2: deliver t "2" qos=1 tag=2
            pub 5 t 6 qos=1 tag=6
                5: published 6 quota_exceeded
            disc 2 expiry=0
                count queue_overflow 1
                count queue_overflow 1
            disc 3 expiry=0
                count session_ended 2
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=7
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=9
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=6
        "#]],
    );
}

/// A QoS 2 publish that one shard refuses, by MQTT 3, which can't be told: the connection ends, the client comes back
/// and sends it again. Those who had taken it don't take it twice, also after a crash; the full one takes it now.
/// (Its tag was freed by the refusal, and the repeat was a new message to the others.)
#[test]
fn a_refused_qos_2_publish_is_not_taken_twice() {
    let world = World::new(3, true, |config| config.limits.queue_messages_max = 1);
    check(
        world,
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        connect 3 d expiry=60
        connect 4 c expiry=60
        sub 1 1 t:2
        sub 2 1 $share/g/t:1
        sub 3 1 t:2 full:2
        sub 4 1 t:2 $share/h/t:2
        connect 5 p expiry=60 v3
        pub 5 full x qos=1 tag=1
        pub 5 t once qos=2 tag=2
        disc 5 lost
        connect 6 p expiry=60 v3
        rec 1 1
        comp 1 1
        rec 4 1
        comp 4 1
        pub 6 t once qos=2 tag=2 dup
        disc 6 lost
        retire
        crash
        connect 7 p expiry=60 v3
        connect 8 d expiry=60
        connect 9 a expiry=60
        connect 10 b expiry=60
        connect 11 c expiry=60
        ack 8 1
        pub 7 t once qos=2 tag=2 dup
        rel 7 2
        rec 8 2
        rec 11 2
        comp 8 2
        comp 11 2
        pub 7 t twice qos=2 tag=2
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b expiry=60
                2: connected present=false
            connect 3 d expiry=60
                3: connected present=false
            connect 4 c expiry=60
                4: connected present=false
            sub 1 1 t:2
                1: subscribed 1 granted_qos_2
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 t:2 full:2
                3: subscribed 1 granted_qos_2 granted_qos_2
            sub 4 1 t:2 $share/h/t:2
                4: subscribed 1 granted_qos_2 granted_qos_2
            connect 5 p expiry=60 v3
                5: connected present=false
            pub 5 full x qos=1 tag=1
                3: deliver full "x" qos=1 tag=1
                5: published 1 success
            pub 5 t once qos=2 tag=2
                1: deliver t "once" qos=2 tag=1
                2: deliver t "once" qos=1 tag=1
                4: deliver t "once" qos=2 tag=1
                5: published 2 quota_exceeded
            disc 5 lost
            connect 6 p expiry=60 v3
                6: connected present=true inbound=[2]
            rec 1 1
                1: release 1 success
            comp 1 1
            rec 4 1
                4: release 1 success
            comp 4 1
            pub 6 t once qos=2 tag=2 dup
                4: deliver t "once" qos=2 tag=2
                6: published 2 quota_exceeded
            disc 6 lost
            retire
                ingest: 0 pending, 0 settled
                ingest: 2 pending, 0 settled
                ingest: 1 pending, 0 settled
            crash
            connect 7 p expiry=60 v3
                7: connected present=true inbound=[2]
            connect 8 d expiry=60
                8: connected present=true
                read backlog: 1 entries, end=true
                8: deliver full "x" qos=1 tag=1 dup
            connect 9 a expiry=60
                9: connected present=true
            connect 10 b expiry=60
                10: connected present=true
                read backlog: 1 entries, end=true
                10: deliver t "once" qos=1 tag=1 dup
            connect 11 c expiry=60
                11: connected present=true
                read backlog: 1 entries, end=true
                11: deliver t "once" qos=2 tag=2 dup
            ack 8 1
            pub 7 t once qos=2 tag=2 dup
                8: deliver t "once" qos=2 tag=2
                7: published 2 success
            rel 7 2
                7: completed 2 success
            rec 8 2
                8: release 2 success
            rec 11 2
                11: release 2 success
            comp 8 2
            comp 11 2
            pub 7 t twice qos=2 tag=2
                9: deliver t "twice" qos=2 tag=1
                8: deliver t "twice" qos=2 tag=3
                11: deliver t "twice" qos=2 tag=3
                7: published 2 quota_exceeded
        "#]],
    );
}

/// The same by MQTT 5: the refusal frees the tag [MQTT-4.3.3-9], and what comes under it next is another message.
#[test]
fn a_refused_qos_2_publish_frees_its_tag_if_the_client_is_told() {
    let world = World::new(3, true, |config| config.limits.queue_messages_max = 1);
    check(
        world,
        "
        connect 1 a expiry=60
        connect 3 d expiry=60
        sub 1 1 t:2
        sub 3 1 t:2 full:2
        connect 5 p expiry=60
        pub 5 full x qos=1 tag=1
        pub 5 t once qos=2 tag=2
        rec 1 1
        comp 1 1
        ack 3 1
        pub 5 t other qos=2 tag=2
        rel 5 2
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 3 d expiry=60
                3: connected present=false
            sub 1 1 t:2
                1: subscribed 1 granted_qos_2
            sub 3 1 t:2 full:2
                3: subscribed 1 granted_qos_2 granted_qos_2
            connect 5 p expiry=60
                5: connected present=false
            pub 5 full x qos=1 tag=1
                3: deliver full "x" qos=1 tag=1
                5: published 1 success
            pub 5 t once qos=2 tag=2
                1: deliver t "once" qos=2 tag=1
                5: published 2 quota_exceeded
            rec 1 1
                1: release 1 success
            comp 1 1
            ack 3 1
            pub 5 t other qos=2 tag=2
                1: deliver t "other" qos=2 tag=2
                3: deliver t "other" qos=2 tag=2
                5: published 2 success
            rel 5 2
                5: completed 2 success
        "#]],
    );
}

/// Who waits without a connection has room, on another shard or on the same: what an ended session gives back, and what
/// is published, goes there. (Only connected members were looked for, and a full one stood for its whole shard.)
#[test]
fn a_waiting_member_is_better_than_a_full_one() {
    let world = || World::new(3, true, |config| config.limits.queue_messages_max = 1);
    let script = "
        connect 1 a expiry=60
        connect 2 d expiry=60
        connect 3 c expiry=60
        connect 5 p
        sub 3 1 $share/g/t:1
        pub 5 t given qos=1 tag=1
        sub 1 1 $share/g/t:1 u:1
        sub 2 1 $share/g/t:1
        disc 2 lost
        pub 5 u full qos=1 tag=2
        disc 3 expiry=0
        connect 6 d expiry=60
        ack 6 1
        disc 6 lost
        pub 5 t published qos=1 tag=3
        connect 7 d expiry=60
        pub 5 t many qos=1 tag=4
        ";
    assert_ne!(world().home("a"), world().home("d"));
    check(
        world(),
        script,
        expect![[r#"
        connect 1 a expiry=60
            1: connected present=false
        connect 2 d expiry=60
            2: connected present=false
        connect 3 c expiry=60
            3: connected present=false
        connect 5 p
            5: connected present=false
        sub 3 1 $share/g/t:1
            3: subscribed 1 granted_qos_1
        pub 5 t given qos=1 tag=1
            3: deliver t "given" qos=1 tag=1
            5: published 1 success
        sub 1 1 $share/g/t:1 u:1
            1: subscribed 1 granted_qos_1 granted_qos_1
        sub 2 1 $share/g/t:1
            2: subscribed 1 granted_qos_1
        disc 2 lost
        pub 5 u full qos=1 tag=2
            1: deliver u "full" qos=1 tag=1
            5: published 2 success
        disc 3 expiry=0
        connect 6 d expiry=60
            6: connected present=true
            6: deliver t "given" qos=1 tag=1
        ack 6 1
        disc 6 lost
        pub 5 t published qos=1 tag=3
            5: published 3 success
        connect 7 d expiry=60
            7: connected present=true
            7: deliver t "published" qos=1 tag=2
        pub 5 t many qos=1 tag=4
            5: published 4 quota_exceeded
    "#]],
    );

    // The only difference on one shard: that shard counts what it refuses.
    assert_eq!(world().home("a"), world().home("j"));
    let on_one_shard = world().run(&script.replace(" d ", " j ")).replace(" j ", " d ");
    assert_eq!(on_one_shard.replace("    count queue_overflow 1\n", ""), world().run(script));
}

/// With the policy to drop what is new, too, a full member does not cost the message while another one has room; only
/// then is it dropped and counted, its publisher hears nothing. (A full queue took what was given back, and dropped it.)
#[test]
fn a_group_drops_only_what_no_member_has_room_for() {
    let world = World::new(3, true, |config| {
        config.limits.queue_messages_max = 1;
        config.limits.queue_policy = QueuePolicy::DropNew;
    });
    check(
        world,
        "
        connect 1 a expiry=60
        connect 2 c expiry=60
        connect 3 d expiry=60
        connect 5 p
        connect 6 e expiry=60
        sub 1 1 $share/g/t:1 u:1
        sub 2 1 $share/g/t:1
        pub 5 u full qos=1 tag=1
        pub 5 t 1 qos=1 tag=2
        pub 5 t 2 qos=1 tag=3
        sub 3 1 $share/g/t:1
        disc 2 expiry=0
        pub 5 t 3 qos=2 tag=4
        sub 6 1 $share/g/t:1
        pub 5 t 4 qos=1 tag=5
        disc 6 expiry=0
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 c expiry=60
                2: connected present=false
            connect 3 d expiry=60
                3: connected present=false
            connect 5 p
                5: connected present=false
            connect 6 e expiry=60
                6: connected present=false
            sub 1 1 $share/g/t:1 u:1
                1: subscribed 1 granted_qos_1 granted_qos_1
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            pub 5 u full qos=1 tag=1
                1: deliver u "full" qos=1 tag=1
                5: published 1 success
            pub 5 t 1 qos=1 tag=2
                2: deliver t "1" qos=1 tag=1
                5: published 2 success
            pub 5 t 2 qos=1 tag=3
                count queue_overflow 1
                5: published 3 success
            sub 3 1 $share/g/t:1
                3: subscribed 1 granted_qos_1
            disc 2 expiry=0
                3: deliver t "1" qos=1 tag=1
            pub 5 t 3 qos=2 tag=4
                count queue_overflow 1
                5: published 4 success
            sub 6 1 $share/g/t:1
                6: subscribed 1 granted_qos_1
            pub 5 t 4 qos=1 tag=5
                6: deliver t "4" qos=1 tag=1
                5: published 5 success
            disc 6 expiry=0
                count queue_overflow 1
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=5 inflight=1 log=6
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=2 inflight=1 log=3
                sessions=0 registrations=0 connections=0 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=11
        "#]],
    );
}

/// An acknowledged message is kept by who can keep it: not by one that waits at QoS 0, here or on the shard that was
/// chosen. Where all would lose it, it is lost and counted.
#[test]
fn a_waiting_member_at_qos_0_gets_nothing_that_another_keeps() {
    let world = World::new(3, true, |config| config.limits.queue_messages_max = 2);
    check(
        world,
        "
        connect 1 a expiry=60
        connect 2 j expiry=60
        connect 3 b expiry=60
        connect 4 d expiry=60
        connect 5 p
        sub 1 1 $share/here/t:0
        sub 2 1 $share/here/t:1
        sub 3 1 $share/there/u:0
        sub 4 1 $share/there/u:1
        disc 1 lost
        disc 2 lost
        disc 3 lost
        disc 4 lost
        pub 5 t 1 qos=1 tag=1
        pub 5 t 2 qos=1 tag=2
        pub 5 u 3 qos=1 tag=3
        pub 5 u 4 qos=1 tag=4
        pub 5 t 5 qos=1 tag=5
        pub 5 u 6 qos=1 tag=6
        connect 6 j expiry=60
        connect 7 d expiry=60
        unsub 6 1 $share/here/t
        unsub 7 1 $share/there/u
        pub 5 t 7 qos=1 tag=7
        pub 5 u 8 qos=1 tag=8
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 j expiry=60
                2: connected present=false
            connect 3 b expiry=60
                3: connected present=false
            connect 4 d expiry=60
                4: connected present=false
            connect 5 p
                5: connected present=false
            sub 1 1 $share/here/t:0
                1: subscribed 1 success
            sub 2 1 $share/here/t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 $share/there/u:0
                3: subscribed 1 success
            sub 4 1 $share/there/u:1
                4: subscribed 1 granted_qos_1
            disc 1 lost
            disc 2 lost
            disc 3 lost
            disc 4 lost
            pub 5 t 1 qos=1 tag=1
                5: published 1 success
            pub 5 t 2 qos=1 tag=2
                5: published 2 success
            pub 5 u 3 qos=1 tag=3
                5: published 3 success
            pub 5 u 4 qos=1 tag=4
                5: published 4 success
            pub 5 t 5 qos=1 tag=5
                count queue_overflow 1
                5: published 5 quota_exceeded
            pub 5 u 6 qos=1 tag=6
                5: published 6 quota_exceeded
            connect 6 j expiry=60
                6: connected present=true
                6: deliver t "1" qos=1 tag=1
                6: deliver t "2" qos=1 tag=2
            connect 7 d expiry=60
                7: connected present=true
                7: deliver u "3" qos=1 tag=1
                7: deliver u "4" qos=1 tag=2
            unsub 6 1 $share/here/t
                6: unsubscribed 1 success
            unsub 7 1 $share/there/u
                7: unsubscribed 1 success
            pub 5 t 7 qos=1 tag=7
                count dropped_qos0_offline 1
                5: published 7 success
            pub 5 u 8 qos=1 tag=8
                count dropped_qos0_offline 1
                5: published 8 success
        "#]],
    );
}

/// A shard refuses a QoS 2 publish so late that the others have retired what they took: that they have it is in the log
/// with the refusal, and the repeat after a crash is not taken again. (It was in memory until the next retirement.)
#[test]
fn a_late_refusal_of_qos_2_outlives_a_crash() {
    let world = World::new(3, true, |config| config.limits.queue_messages_max = 1);
    check(
        world.showing_log(),
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        connect 3 c expiry=60
        connect 4 g expiry=60
        sub 1 1 t:2
        sub 2 1 t:1 full:1
        sub 3 1 t:2
        sub 4 1 $share/h/t:1
        connect 5 p expiry=60 v3
        pub 5 full x qos=1 tag=1
        stop 1
        pub 5 t once qos=2 tag=2
        rec 1 1
        comp 1 1
        rec 3 1
        comp 3 1
        ack 4 1
        retire
        go
        crash
        connect 6 p expiry=60 v3
        connect 7 a expiry=60
        connect 8 b expiry=60
        connect 9 c expiry=60
        connect 10 g expiry=60
        ack 8 1
        pub 6 t once qos=2 tag=2 dup
        ",
        expect![[r#"
            connect 1 a expiry=60
                log 1 QueueBegin
                1: connected present=false
            connect 2 b expiry=60
                log 1 QueueBegin
                2: connected present=false
            connect 3 c expiry=60
                log 1 QueueBegin
                3: connected present=false
            connect 4 g expiry=60
                log 2 QueueBegin
                4: connected present=false
            sub 1 1 t:2
                log 2 Subscribe
                log 3 RetainedDue
                1: subscribed 1 granted_qos_2
                log 4 RetainedGiven
            sub 2 1 t:1 full:1
                log 2 Subscribe
                log 3 Subscribe
                log 4 RetainedDue
                log 5 RetainedDue
                2: subscribed 1 granted_qos_1 granted_qos_1
                log 6 RetainedGiven
                log 7 RetainedGiven
            sub 3 1 t:2
                log 3 Subscribe
                log 4 RetainedDue
                3: subscribed 1 granted_qos_2
                log 5 RetainedGiven
            sub 4 1 $share/h/t:1
                log 6 Subscribe
                4: subscribed 1 granted_qos_1
            connect 5 p expiry=60 v3
                log 5 QueueBegin
                5: connected present=false
            pub 5 full x qos=1 tag=1
                log 8 Publish to 1
                2: deliver full "x" qos=1 tag=1
                5: published 1 success
            stop 1
            pub 5 t once qos=2 tag=2
                log 6 InboundBegin
                log 7 Publish to 1
                log 8 Tagged 7 tag=1
                1: deliver t "once" qos=2 tag=1
                log 7 Publish to 1
                log 8 Tagged 7 tag=1
                log 9 Publish to 1
                3: deliver t "once" qos=2 tag=1
                4: deliver t "once" qos=1 tag=1
            rec 1 1
                log 9 Received 7
                1: release 1 success
            comp 1 1
                log 10 Settle 7 Acknowledged
            rec 3 1
                log 10 Received 7
                3: release 1 success
            comp 3 1
                log 11 Settle 7 Acknowledged
            ack 4 1
                log 12 Settle 9 Acknowledged
            retire
                ingest: 0 pending, 0 settled
                ingest: 1 pending, 0 settled
                ingest: 0 pending, 0 settled
            go
                5: published 2 quota_exceeded
            crash
                log 11 Disconnected
                log 12 Disconnected
                log 9 Disconnected
                log 13 Disconnected
                log 14 Disconnected
            connect 6 p expiry=60 v3
                log 13 Connected
                6: connected present=true inbound=[2]
            connect 7 a expiry=60
                log 14 Connected
                7: connected present=true
            connect 8 b expiry=60
                log 10 Connected
                8: connected present=true
                read backlog: 1 entries, end=true
                8: deliver full "x" qos=1 tag=1 dup
            connect 9 c expiry=60
                log 15 Connected
                9: connected present=true
            connect 10 g expiry=60
                log 16 Connected
                10: connected present=true
            ack 8 1
                log 11 Settle 8 Acknowledged
            pub 6 t once qos=2 tag=2 dup
                log 12 Publish to 1
                8: deliver t "once" qos=1 tag=2
                log 15 InboundBegin
                6: published 2 success
        "#]],
    );
}

/// Clients b, whose queue is full, and c want what p publishes, which can't be told of a refusal.
const B_IS_FULL: &str = "
        connect 2 b expiry=60
        connect 3 c expiry=60
        sub 2 1 t:1 full:1
        sub 3 1 t:2
        connect 5 p expiry=60 v3
        pub 5 full x qos=1 tag=1
";

/// Who can't be told why is refused at once: it will send the message again, perhaps after a crash, and those who have it
/// know it by their logs, although nothing of the refusal is in one.
#[test]
fn what_is_known_at_a_refusal_outlives_a_crash() {
    let mut world = World::new(3, true, |config| config.limits.queue_messages_max = 1);
    assert!(world.home("b") != world.home("p") && world.home("c") != world.home("p"));
    world.run(B_IS_FULL);
    world.run(&format!(
        "
        stop {}
        pub 5 t once qos=2 tag=2
        rec 3 1
        comp 3 1
        retire
        hold
        ",
        world.home("b")
    ));
    check(
        world,
        "
        go
        commit
        pub 5 t once qos=2 tag=2 dup
        crash
        flow
        connect 7 p expiry=60 v3
        connect 8 b expiry=60
        connect 9 c expiry=60
        ack 8 1
        pub 7 t once qos=2 tag=2 dup
        ",
        expect![[r#"
            go
                5: published 2 quota_exceeded
            commit
            pub 5 t once qos=2 tag=2 dup
                5: published 2 quota_exceeded
            crash
            flow
            connect 7 p expiry=60 v3
                7: connected present=true inbound=[2]
            connect 8 b expiry=60
                8: connected present=true
                read backlog: 1 entries, end=true
                8: deliver full "x" qos=1 tag=1 dup
            connect 9 c expiry=60
                9: connected present=true
            ack 8 1
            pub 7 t once qos=2 tag=2 dup
                8: deliver t "once" qos=1 tag=2
                7: published 2 success
        "#]],
    );
}

/// Its client comes back by MQTT 5: it can be told of the next refusal, its tag is free, and who had it has it once.
#[test]
fn a_refusal_is_told_to_who_has_come_back() {
    let mut world = World::new(3, true, |config| config.limits.queue_messages_max = 1);
    world.run(B_IS_FULL);
    world.run(
        "
        pub 5 t once qos=2 tag=2
        rec 3 1
        comp 3 1
        disc 5 lost
        connect 6 p expiry=60
        ",
    );
    let told = world.run("pub 6 t once qos=2 tag=2 dup");
    assert!(told.contains("6: published 2 quota_exceeded") && !told.contains("deliver"), "{told}");
    let other = world.run("pub 6 t other qos=2 tag=2");
    assert!(other.contains("3: deliver t \"other\" qos=2 tag=2"), "{other}");
}

/// One shard owes its answer while another one, the publisher's own among them, retires what it took. After a crash the
/// repeat goes to the slow one's clients only. (It was known by the young log alone: the others got it twice.)
#[test]
fn what_is_retired_before_all_have_answered_is_known_after_a_crash() {
    for routing_max in [16, 1] {
        let mut world = World::new(3, true, |config| config.routing_max = routing_max);
        let [a, b, c, p] = ["a", "b", "c", "p"].map(|name| world.home(name));
        assert!(a == p && b != p && c != p && b != c, "{a} {b} {c} {p}");
        let first = world.run(&format!(
            "
            connect 1 a expiry=60
            connect 2 b expiry=60
            connect 3 c expiry=60
            sub 1 1 t:2
            sub 2 1 t:2
            sub 3 1 t:2 u:2 $share/g/t:2
            connect 5 p expiry=60
            cut {p} {b}
            pub 5 t once qos=2 tag=2
            pub 5 u second qos=2 tag=3
            pub 5 u third qos=2 tag=4
            rec 1 1
            comp 1 1
            rec 3 1
            comp 3 1
            rec 3 2
            comp 3 2
            retire
            "
        ));
        assert_eq!(first.matches("deliver t \"once\"").count(), 3, "a, c, and c as a member: {first}");
        assert!(!first.contains("5: published 2"), "{first}");
        world.run(&format!(
            "
            crash
            join {p} {b}
            connect 6 p expiry=60
            connect 7 a expiry=60
            connect 8 b expiry=60
            connect 9 c expiry=60
            "
        ));
        let repeat = world.run("pub 6 t once qos=2 tag=2 dup");
        let delivered: Vec<_> = repeat.lines().filter(|line| line.contains("deliver")).collect();
        assert!(delivered.len() == 1 && delivered[0].contains("8: deliver t \"once\" qos=2"), "{repeat}");
        assert!(repeat.contains("6: published 2 success"), "{repeat}");
    }
}

/// A shard that has fallen silent after a publish holds nothing up: what others take is forgotten when it is over. (They
/// kept all that they took behind its last one.)
#[test]
fn what_is_over_is_forgotten_whoever_has_fallen_silent() {
    for durable in [false, true] {
        let mut world = World::new(3, durable, |_| {});
        let [a, b, p] = ["a", "b", "p"].map(|name| world.home(name));
        assert!(a == p && b != p);
        world.run(
            "
            connect 1 a
            connect 2 b
            sub 1 1 t:2
            sub 2 1 t:2 u:2
            connect 5 p expiry=60
            connect 6 b-too expiry=60
            ",
        );
        let mut once = |publisher: u64, topic: &str, tag: u64| {
            world.run(&format!("pub {publisher} {topic} x qos=2 tag=1 \n rel {publisher} 1"));
            let receivers: &[u64] = if topic == "t" { &[1, 2] } else { &[2] };
            for receiver in receivers {
                world.run(&format!("rec {receiver} {tag} \n comp {receiver} {tag}"));
            }
        };
        once(5, "t", 1);
        for _ in 0..200 {
            once(6, "u", 1);
        }
        for shard in [a, b, world.home("b-too")] {
            let (told, kept) = world.remembered(shard);
            assert!(told == 0 && kept <= 2, "shard {shard} was told of {told} and keeps {kept}");
        }
    }
}

/// A shard does not answer a SUBSCRIBE; its client comes back and subscribes again. The first one's time is up: what the
/// second one is granted stays. (It was undone with the first one, and granted.)
#[test]
fn a_subscription_that_is_asked_for_again_outlives_the_first_ones_timeout() {
    let mut world = World::new(3, true, |_| {});
    let (a, b) = (world.home("a"), world.home("b"));
    assert_ne!(a, b);
    let waiting = world.run(&format!(
        "
        cut {a} {b}
        connect 1 a expiry=60
        sub 1 1 t:1
        at 3000
        disc 1 lost
        connect 2 a expiry=60
        sub 2 2 t:2
        at 5500
        "
    ));
    assert!(!waiting.contains("subscribed") && !waiting.contains("Unsubscribe"), "{waiting}");
    let granted = world.run(&format!("join {a} {b}"));
    assert!(granted.contains("2: subscribed 2 granted_qos_2"), "{granted}");
    let came = world.run("connect 5 b \n pub 5 t x qos=1 tag=1");
    assert!(came.contains("2: deliver t \"x\" qos=1"), "{came}");

    // What is retained comes once, although the second one asks for it if the subscription is new only.
    let retained = world.run(&format!(
        "
        pub 5 r kept qos=1 tag=1 retain
        cut {a} {b}
        sub 2 5 r:1
        at 6000
        sub 2 6 r:1,rh1
        at 10700
        "
    ));
    assert!(retained.contains("2: subscribed 5 unspecified_error") && !retained.contains("deliver r"), "{retained}");
    let given = world.run(&format!("join {a} {b}"));
    assert!(given.contains("2: subscribed 6 granted_qos_1"), "{given}");
    assert_eq!(given.matches("2: deliver r \"kept\"").count(), 1, "{given}");

    // By one connection: each hears of its own.
    let refused = world.run(&format!(
        "
        cut {a} {b}
        sub 2 3 u:1
        at 12000
        sub 2 4 u:1
        at 15800
        "
    ));
    assert!(refused.contains("2: subscribed 3 unspecified_error") && !refused.contains("subscribed 4"), "{refused}");
    let refused = world.run("at 17100");
    assert!(refused.contains("2: subscribed 4 unspecified_error"), "{refused}");
    let came = world.run(&format!("join {a} {b} \n pub 5 u x qos=1 tag=1"));
    assert!(came.contains("5: published 1 no_matching_subscribers"), "{came}");
}

/// A client uses a tag again before its first publish is answered, against the protocol. The refusal of the first says
/// nothing of the second, which goes to all others. (Those who had the first were told to remember the second.)
#[test]
fn a_refusal_is_not_that_of_the_tags_next_publish() {
    let mut world = World::new(3, true, |config| config.limits.queue_messages_max = 1);
    let [b, c, p] = ["b", "c", "p"].map(|name| world.home(name));
    assert!(b != p && c != p && b != c);
    world.run(B_IS_FULL);
    world.run(&format!(
        "
        stop {b}
        pub 5 t one qos=2 tag=2
        rec 3 1
        comp 3 1
        rel 5 2
        hold
        pub 5 t two qos=2 tag=2
        "
    ));
    let came = world.run("go \n flow");
    assert!(came.contains("3: deliver t \"two\" qos=2 tag=2"), "{came}");
    assert!(came.contains("5: published 2 quota_exceeded"), "{came}");
}

/// What waits for one shard's credit holds up nothing for another one, and goes in its order when credit comes back.
#[test]
fn what_is_given_back_waits_for_its_own_shard_only() {
    let world = World::new(3, true, |config| config.mesh_credits = 1);
    check(
        world,
        "
        connect 1 a expiry=60
        connect 2 b expiry=60
        connect 3 c expiry=60
        connect 5 p
        sub 1 1 $share/g/t:1 $share/h/u:1
        pub 5 t 1 qos=1 tag=1
        pub 5 t 2 qos=1 tag=2
        pub 5 t 3 qos=1 tag=3
        pub 5 u 4 qos=1 tag=4
        pub 5 u 5 qos=1 tag=5
        sub 2 1 $share/g/t:1
        sub 3 1 $share/h/u:1
        cut 1 0
        disc 1 expiry=0
        join 1 0
        stats
        ",
        expect![[r#"
            connect 1 a expiry=60
                1: connected present=false
            connect 2 b expiry=60
                2: connected present=false
            connect 3 c expiry=60
                3: connected present=false
            connect 5 p
                5: connected present=false
            sub 1 1 $share/g/t:1 $share/h/u:1
                1: subscribed 1 granted_qos_1 granted_qos_1
            pub 5 t 1 qos=1 tag=1
                1: deliver t "1" qos=1 tag=1
                5: published 1 success
            pub 5 t 2 qos=1 tag=2
                1: deliver t "2" qos=1 tag=2
                5: published 2 success
            pub 5 t 3 qos=1 tag=3
                1: deliver t "3" qos=1 tag=3
                5: published 3 success
            pub 5 u 4 qos=1 tag=4
                1: deliver u "4" qos=1 tag=4
                5: published 4 success
            pub 5 u 5 qos=1 tag=5
                1: deliver u "5" qos=1 tag=5
                5: published 5 success
            sub 2 1 $share/g/t:1
                2: subscribed 1 granted_qos_1
            sub 3 1 $share/h/u:1
                3: subscribed 1 granted_qos_1
            cut 1 0
            disc 1 expiry=0
                2: deliver t "1" qos=1 tag=1
                3: deliver u "4" qos=1 tag=1
                3: deliver u "5" qos=1 tag=2
            join 1 0
                2: deliver t "2" qos=1 tag=2
                2: deliver t "3" qos=1 tag=3
            stats
                sessions=1 registrations=0 connections=1 subscriptions=0 retained=0 queued=0 bytes=0 inflight=0 log=15
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=6 inflight=3 log=5
                sessions=1 registrations=0 connections=1 subscriptions=1 retained=0 queued=0 bytes=4 inflight=2 log=4
        "#]],
    );
}
