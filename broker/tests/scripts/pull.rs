//! Pull instead of push `[REL-1]`, `[PER-7]`.

use expect_test::{Expect, expect};
use postroad_broker::DeliveryMode;

use crate::world::{World, durable, memory};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// Nothing of QoS 1 and 2 leaves without allowance; allowance adds up, counts down with each delivery, and holds for what comes later.
/// QoS 0 does not wait, and takes none.
#[test]
fn a_client_gets_what_it_asks_for() {
    check(
        memory(),
        "connect 1 anna pull
         sub 1 1 a/#:2
         connect 9 pub
         pub 9 a/b zero
         pub 9 a/b one qos=1 tag=1
         pub 9 a/b two qos=2 tag=2
         pub 1 $pull/1
         clients 10
         pub 1 $pull/2
         clients 10
         pub 9 a/b zero
         pub 9 a/b three qos=1 tag=3
         pub 9 a/b four qos=1 tag=4
         ack 1 1
         clients 10
         pub 1 $pull/1",
        expect![[r#"
            connect 1 anna pull
                1: connected present=false
            sub 1 1 a/#:2
                1: subscribed 1 granted_qos_2
            connect 9 pub
                9: connected present=false
            pub 9 a/b zero
                1: deliver a/b "zero" qos=0
            pub 9 a/b one qos=1 tag=1
                9: published 1 success
            pub 9 a/b two qos=2 tag=2
                9: published 2 success
            pub 1 $pull/1
                1: deliver a/b "one" qos=1 tag=1
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 1+1 (12 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            pub 1 $pull/2
                1: deliver a/b "two" qos=2 tag=2
            clients 10
                anna - here, pulls, allowance 1 session 1 subscriptions 0+2 (12 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            pub 9 a/b zero
                1: deliver a/b "zero" qos=0
            pub 9 a/b three qos=1 tag=3
                1: deliver a/b "three" qos=1 tag=3
                9: published 3 success
            pub 9 a/b four qos=1 tag=4
                9: published 4 success
            ack 1 1
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 1+2 (21 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            pub 1 $pull/1
                1: deliver a/b "four" qos=1 tag=4
        "#]],
    );
}

/// The answer to a pull comes as to any publish, at each level; nobody else gets it, and no rule is asked.
#[test]
fn a_pull_is_answered_and_goes_to_nobody() {
    let mut world = memory();
    world.listen_only();
    check(
        world,
        "connect 1 anna pull
         connect 2 spy
         sub 2 1 $pull/#:2 #:2
         pub 1 $pull/1
         pub 1 $pull/1 qos=1 tag=1
         pub 1 $pull/1 now qos=2 tag=2 retain
         rel 1 2
         pub 1 $pull/x qos=1 tag=3
         pub 1 $pull qos=2 tag=4
         rel 1 4
         pub 1 $pull/65536
         pub 1 other qos=1 tag=5
         clients 10
         stats",
        expect![[r#"
            connect 1 anna pull
                1: connected present=false
            connect 2 spy
                2: connected present=false
            sub 2 1 $pull/#:2 #:2
                2: subscribed 1 granted_qos_2 granted_qos_2
            pub 1 $pull/1
            pub 1 $pull/1 qos=1 tag=1
                1: published 1 success
            pub 1 $pull/1 now qos=2 tag=2 retain
                1: published 2 success
            rel 1 2
                1: completed 2 success
            pub 1 $pull/x qos=1 tag=3
                count bad_pull 1
                1: published 3 topic_name_invalid
            pub 1 $pull qos=2 tag=4
                count bad_pull 1
                1: published 4 topic_name_invalid
            rel 1 4
                count unknown_tag 1
                1: completed 4 packet_identifier_not_found
            pub 1 $pull/65536
                count bad_pull 1
            pub 1 other qos=1 tag=5
                count not_authorized 1
                1: published 5 not_authorized
            clients 10
                anna - here, pulls, allowance 3 session 0 subscriptions 0+0 (0 B)
                spy - here session 2 subscriptions 0+0 (0 B)
            stats
                sessions=2 registrations=0 connections=2 subscriptions=2 retained=0 queued=0 bytes=0 inflight=0 log=0
        "#]],
    );
}

/// [MQTT-4.3.3-10] A pull at QoS 2 counts once until its identifier is released. On the next connection the client has lost what it
/// had asked for: there it counts anew, and another publish may have the identifier.
#[test]
fn a_repeated_pull_counts_once() {
    check(
        durable().open(),
        "connect 1 anna pull expiry=600
         pub 1 $pull/1 qos=2 tag=1
         pub 1 $pull/1 qos=2 tag=1 dup
         clients 10
         rel 1 1
         pub 1 $pull/1 qos=2 tag=1
         clients 10
         disc 1 lost
         connect 2 anna pull expiry=600
         pub 2 $pull/1 qos=2 tag=1 dup
         clients 10
         disc 2 lost
         connect 3 anna pull expiry=600
         rel 3 1
         pub 3 t new qos=2 tag=1",
        expect![[r#"
            connect 1 anna pull expiry=600
                1: connected present=false
            pub 1 $pull/1 qos=2 tag=1
                1: published 1 success
            pub 1 $pull/1 qos=2 tag=1 dup
                1: published 1 success
            clients 10
                anna - here, pulls, allowance 1 session 0 subscriptions 0+0 (0 B)
            rel 1 1
                1: completed 1 success
            pub 1 $pull/1 qos=2 tag=1
                1: published 1 success
            clients 10
                anna - here, pulls, allowance 2 session 0 subscriptions 0+0 (0 B)
            disc 1 lost
            connect 2 anna pull expiry=600
                2: connected present=true
            pub 2 $pull/1 qos=2 tag=1 dup
                2: published 1 success
            clients 10
                anna - here, pulls, allowance 1 session 0 subscriptions 0+0 (0 B)
            disc 2 lost
            connect 3 anna pull expiry=600
                3: connected present=true
            rel 3 1
                count unknown_tag 1
                3: completed 1 packet_identifier_not_found
            pub 3 t new qos=2 tag=1
                count no_subscriber 1
                3: published 1 no_matching_subscribers
        "#]],
    );
}

/// Callers of the API get nothing, hence pull nothing; nor does a will.
#[test]
fn who_gets_nothing_pulls_nothing() {
    check(
        memory(),
        "connect 1 api caller
         pub 1 $pull/1 qos=1 tag=1
         connect 2 anna will=$pull/1:x
         connect 3 anna will=$pull/x:x",
        expect![[r#"
            connect 1 api caller
                1: connected present=false
            pub 1 $pull/1 qos=1 tag=1
                count bad_pull 1
                1: published 1 topic_name_invalid
            connect 2 anna will=$pull/1:x
                2: refused topic_name_invalid
            connect 3 anna will=$pull/x:x
                3: refused topic_name_invalid
        "#]],
    );
}

/// `$pull/0` takes back what has not left; more than 65,535 is as much.
#[test]
fn allowance_is_taken_back_and_has_an_end() {
    check(
        memory(),
        "connect 1 anna pull
         sub 1 1 a:1
         pub 1 $pull/65535
         pub 1 $pull/10
         clients 10
         pub 1 $pull/0
         clients 10
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 1 $pull/1",
        expect![[r#"
            connect 1 anna pull
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            pub 1 $pull/65535
            pub 1 $pull/10
            clients 10
                anna - here, pulls, allowance 65535 session 1 subscriptions 0+0 (0 B)
            pub 1 $pull/0
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 0+0 (0 B)
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            pub 1 $pull/1
                1: deliver a "one" qos=1 tag=1
        "#]],
    );
}

/// The receive maximum holds beside the allowance.
#[test]
fn the_window_holds_too() {
    check(
        memory(),
        "connect 1 anna pull max=1
         sub 1 1 a:1
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 9 a two qos=1 tag=2
         pub 9 a three qos=1 tag=3
         pub 1 $pull/2
         ack 1 1
         ack 1 2
         clients 10",
        expect![[r#"
            connect 1 anna pull max=1
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            pub 9 a two qos=1 tag=2
                9: published 2 success
            pub 9 a three qos=1 tag=3
                9: published 3 success
            pub 1 $pull/2
                1: deliver a "one" qos=1 tag=1
            ack 1 1
                1: deliver a "two" qos=1 tag=2
            ack 1 2
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 1+0 (6 B)
                pub - here session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// The option says it for all, a connection for itself; and who is pushed to pulls from its first `$pull` on.
#[test]
fn the_mode_is_chosen_by_option_by_connection_or_by_the_first_pull() {
    check(
        World::new(1, false, |config| config.limits.delivery_mode = DeliveryMode::Pull),
        "connect 1 anna
         connect 2 berta push
         sub 1 1 a:1
         sub 2 1 a:1
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 2 $pull/0
         pub 9 a two qos=1 tag=2
         pub 2 $pull/1
         clients 10",
        expect![[r#"
            connect 1 anna
                1: connected present=false
            connect 2 berta push
                2: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            sub 2 1 a:1
                2: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                2: deliver a "one" qos=1 tag=1
                9: published 1 success
            pub 2 $pull/0
            pub 9 a two qos=1 tag=2
                9: published 2 success
            pub 2 $pull/1
                2: deliver a "two" qos=1 tag=2
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 2+0 (8 B)
                berta - here, pulls, allowance 0 session 1 subscriptions 0+2 (8 B)
                pub - here, pulls, allowance 0 session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// [MQTT-4.4.0-1] What was in flight when the connection ended is sent again at once, without allowance; the rest is pulled, and what
/// was left of the allowance is gone.
#[test]
fn after_a_reconnect_what_was_in_flight_comes_without_allowance() {
    check(
        durable(),
        "connect 1 anna expiry=600 pull
         sub 1 1 a:2
         connect 9 pub
         pub 1 $pull/9
         pub 9 a one qos=1 tag=1
         pub 9 a two qos=2 tag=2
         pub 9 a three qos=2 tag=3
         rec 1 2
         disc 1 lost
         pub 9 a four qos=1 tag=4
         connect 2 anna expiry=600 pull
         clients 10
         pub 2 $pull/1
         ack 2 1
         comp 2 2
         rec 2 3
         comp 2 3
         ack 2 4
         clients 10",
        expect![[r#"
            connect 1 anna expiry=600 pull
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            connect 9 pub
                9: connected present=false
            pub 1 $pull/9
            pub 9 a one qos=1 tag=1
                1: deliver a "one" qos=1 tag=1
                9: published 1 success
            pub 9 a two qos=2 tag=2
                1: deliver a "two" qos=2 tag=2
                9: published 2 success
            pub 9 a three qos=2 tag=3
                1: deliver a "three" qos=2 tag=3
                9: published 3 success
            rec 1 2
                1: release 2 success
            disc 1 lost
            pub 9 a four qos=1 tag=4
                9: published 4 success
            connect 2 anna expiry=600 pull
                2: connected present=true
                2: deliver a "one" qos=1 tag=1 dup
                2: release 2 success
                2: deliver a "three" qos=2 tag=3 dup
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 1+3 (15 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            pub 2 $pull/1
                2: deliver a "four" qos=1 tag=4
            ack 2 1
            comp 2 2
            rec 2 3
                2: release 3 success
            comp 2 3
            ack 2 4
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 0+0 (0 B)
                pub - here session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// A pull of QoS 2 that is repeated on the next connection counts there: the allowance went with the old one.
#[test]
fn a_repeated_pull_counts_on_the_new_connection() {
    check(
        durable(),
        "connect 1 anna expiry=600 pull
         sub 1 1 a:1
         pub 1 $pull/1 qos=2 tag=7
         disc 1 lost
         connect 9 pub
         pub 9 a one qos=1 tag=1
         connect 2 anna expiry=600 pull
         pub 2 $pull/1 qos=2 tag=7 dup
         rel 2 7",
        expect![[r#"
            connect 1 anna expiry=600 pull
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            pub 1 $pull/1 qos=2 tag=7
                1: published 7 success
            disc 1 lost
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            connect 2 anna expiry=600 pull
                2: connected present=true
            pub 2 $pull/1 qos=2 tag=7 dup
                2: published 7 success
                2: deliver a "one" qos=1 tag=1
            rel 2 7
                2: completed 7 success
        "#]],
    );
}

/// After a crash: of QoS 1 nobody knows what had been sent, so it takes allowance; what QoS 2 has in flight waits behind what is older.
#[test]
fn after_a_crash_what_may_have_been_sent_is_pulled() {
    check(
        durable(),
        "connect 1 anna expiry=600 pull
         sub 1 1 a:2
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 9 a two qos=2 tag=2
         pub 9 a three qos=2 tag=3
         pub 1 $pull/2
         crash
         connect 2 anna expiry=600 pull
         pub 2 $pull/1
         pub 2 $pull/1
         ack 2 3
         rec 2 2
         rec 2 4",
        expect![[r#"
            connect 1 anna expiry=600 pull
                1: connected present=false
            sub 1 1 a:2
                1: subscribed 1 granted_qos_2
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            pub 9 a two qos=2 tag=2
                9: published 2 success
            pub 9 a three qos=2 tag=3
                9: published 3 success
            pub 1 $pull/2
                1: deliver a "one" qos=1 tag=1
                1: deliver a "two" qos=2 tag=2
            crash
            connect 2 anna expiry=600 pull
                2: connected present=true
            pub 2 $pull/1
                2: deliver a "one" qos=1 tag=3 dup
                2: deliver a "two" qos=2 tag=2 dup
            pub 2 $pull/1
                2: deliver a "three" qos=2 tag=4
            ack 2 3
            rec 2 2
                2: release 2 success
            rec 2 4
                2: release 4 success
        "#]],
    );
}

/// Both queues of a client share its allowance, the older delivery first.
#[test]
fn both_queues_share_the_allowance() {
    check(
        durable().open(),
        "connect 1 anna user=anna expiry=600 pull
         sub 1 1 a:1
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 9 $client/anna/cmd two qos=1 tag=2
         pub 9 a three qos=1 tag=3
         clients 10
         pub 1 $pull/2
         clients 10
         pub 1 $pull/5
         pub 9 $client/anna/cmd four qos=1 tag=4
         clients 10",
        expect![[r#"
            connect 1 anna user=anna expiry=600 pull
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            pub 9 $client/anna/cmd two qos=1 tag=2
                9: published 2 success
            pub 9 a three qos=1 tag=3
                9: published 3 success
            clients 10
                anna anna here, pulls, allowance 0 session 1 subscriptions 2+0 (10 B) Connection 1+0 (19 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            pub 1 $pull/2
                1: deliver a "one" qos=1 tag=1
                1: deliver cmd "two" qos=1 tag=32768
            clients 10
                anna anna here, pulls, allowance 0 session 1 subscriptions 1+1 (10 B) Connection 0+1 (19 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            pub 1 $pull/5
                1: deliver a "three" qos=1 tag=2
            pub 9 $client/anna/cmd four qos=1 tag=4
                1: deliver cmd "four" qos=1 tag=32769
                9: published 4 success
            clients 10
                anna anna here, pulls, allowance 3 session 1 subscriptions 0+2 (10 B) Connection 0+2 (39 B)
                pub - here session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// What is retired waits in the old generation: nothing is read before it is asked for.
#[test]
fn nothing_is_read_without_allowance() {
    check(
        durable(),
        "connect 1 anna expiry=600 pull
         sub 1 1 a:1
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 9 a two qos=1 tag=2
         retire
         pub 9 a three qos=1 tag=3
         pub 1 $pull/1
         pub 1 $pull/5
         ack 1 1
         ack 1 2
         ack 1 3
         clients 10",
        expect![[r#"
            connect 1 anna expiry=600 pull
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            pub 9 a two qos=1 tag=2
                9: published 2 success
            retire
                ingest: 2 pending, 0 settled
            pub 9 a three qos=1 tag=3
                9: published 3 success
            pub 1 $pull/1
                read backlog: 2 entries, end=true
                1: deliver a "one" qos=1 tag=1
            pub 1 $pull/5
                1: deliver a "two" qos=1 tag=2
                1: deliver a "three" qos=1 tag=3
            ack 1 1
            ack 1 2
            ack 1 3
            clients 10
                anna - here, pulls, allowance 3 session 1 subscriptions 0+0 (0 B)
                pub - here session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// What expires while nobody asks for it takes no allowance.
#[test]
fn what_expires_takes_no_allowance() {
    check(
        memory(),
        "connect 1 anna pull
         sub 1 1 a:1
         connect 9 pub
         pub 9 a old qos=1 tag=1 expires=100
         pub 9 a new qos=1 tag=2
         at 2000
         pub 1 $pull/1
         clients 10",
        expect![[r#"
            connect 1 anna pull
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a old qos=1 tag=1 expires=100
                9: published 1 success
            pub 9 a new qos=1 tag=2
                9: published 2 success
            at 2000
            pub 1 $pull/1
                count expired 1
                1: deliver a "new" qos=1 tag=1
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 0+1 (4 B)
                pub - here session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// [PER-7] After a start no pull is answered before the scheduler has come by; with "pull" at once.
#[test]
fn after_a_start_a_pull_waits_for_the_scheduler() {
    let script = "connect 1 anna expiry=600 pull
         connect 2 berta expiry=600 pull
         sub 1 1 a:1
         sub 2 1 a:1
         connect 9 pub
         pub 9 a one qos=1 tag=1
         crash
         connect 3 anna expiry=600 pull
         connect 4 berta expiry=600 pull
         pub 4 $pull/1
         drains
         at 1999
         at 2000
         drains
         pub 3 $pull/1";
    check(
        World::new(1, true, |config| config.limits.restart_sessions_per_second = 1),
        script,
        expect![[r#"
        connect 1 anna expiry=600 pull
            1: connected present=false
        connect 2 berta expiry=600 pull
            2: connected present=false
        sub 1 1 a:1
            1: subscribed 1 granted_qos_1
        sub 2 1 a:1
            2: subscribed 1 granted_qos_1
        connect 9 pub
            9: connected present=false
        pub 9 a one qos=1 tag=1
            9: published 1 success
        crash
        connect 3 anna expiry=600 pull
            3: connected present=true
        connect 4 berta expiry=600 pull
            4: connected present=true
        pub 4 $pull/1
        drains
            clients: 1 await, 1 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 1, draining: 1 }; left: 0 realtime, 0 drained
        at 1999
        at 2000
            4: deliver a "one" qos=1 tag=1 dup
        drains
            clients: 0 await, 1 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 0, draining: 1 }; left: 0 realtime, 1 drained
        pub 3 $pull/1
            3: deliver a "one" qos=1 tag=1 dup
    "#]],
    );
    let pull = |config: &mut postroad_broker::Config| {
        config.limits.restart_delivery = postroad_broker::RestartDelivery::Pull;
        config.limits.restart_sessions_per_second = 1;
    };
    let output = World::new(1, true, pull).run(script);
    let answer = output.split("pub 4 $pull/1").nth(1).unwrap().lines().nth(1).unwrap().trim();
    assert_eq!(answer, "4: deliver a \"one\" qos=1 tag=1 dup", "at once");
}

/// [RTM-2] What had waited leaves by the rate of the drain lane, also when it is pulled.
#[test]
fn a_pull_takes_the_rate_of_the_drain() {
    let mut world = World::new(1, true, |config| config.limits.drained_per_second = 10);
    world.run("connect 1 anna expiry=600 pull\nsub 1 1 a:1\ndisc 1 lost\nconnect 9 pub");
    for n in 1..=4 {
        world.run(&format!("pub 9 a {n} qos=1 tag={n}"));
    }
    check(
        world,
        "connect 2 anna expiry=600 pull
         due
         pub 2 $pull/3
         due
         at 1100
         at 1200
         due
         at 1300
         pub 2 $pull/1
         drains",
        expect![[r#"
            connect 2 anna expiry=600 pull
                2: connected present=true
            due
                due never
            pub 2 $pull/3
                2: deliver a "1" qos=1 tag=1
            due
                due in 100 ms
            at 1100
                2: deliver a "2" qos=1 tag=2
            at 1200
                2: deliver a "3" qos=1 tag=3
            due
                due in 100 ms
            at 1300
            pub 2 $pull/1
                2: deliver a "4" qos=1 tag=4
            drains
                clients: 0 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 0, draining: 0 }; left: 0 realtime, 4 drained
        "#]],
    );
}

/// A jitter holds for pulls as well.
#[test]
fn a_pull_waits_for_the_jitter() {
    let mut world = World::new(1, true, |config| config.limits.drain_jitter_ms = 1_000);
    world.run("connect 1 anna expiry=600 pull\nsub 1 1 a:1\ndisc 1 lost\nconnect 9 pub\npub 9 a one qos=1 tag=1");
    let early = world.run("connect 2 anna expiry=600 pull\npub 2 $pull/1 qos=1 tag=1");
    assert!(early.contains("2: published 1 success") && !early.contains("deliver"), "{early}");
    let late = world.run("at 2000");
    assert!(late.contains("2: deliver a \"one\""), "{late}");
}

/// A member that has asked for nothing keeps nothing from the others; when all wait, each has its turn; QoS 0 is pushed.
#[test]
fn a_member_without_allowance_keeps_nothing_from_the_others() {
    check(
        memory(),
        "connect 1 anna pull
         connect 2 berta
         sub 1 1 $share/g/a:1
         sub 2 1 $share/g/a:1
         connect 9 pub
         pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=1 tag=2
         pub 9 a 3 qos=1 tag=3
         pub 1 $pull/1
         pub 9 a 4 qos=1 tag=4
         pub 9 a 5 qos=1 tag=5
         pub 9 a 6 qos=1 tag=6
         pub 9 a zero
         pub 9 a zero
         pub 2 $pull/0
         pub 9 a 7 qos=1 tag=7
         pub 9 a 8 qos=1 tag=8
         clients 10",
        expect![[r#"
            connect 1 anna pull
                1: connected present=false
            connect 2 berta
                2: connected present=false
            sub 1 1 $share/g/a:1
                1: subscribed 1 granted_qos_1
            sub 2 1 $share/g/a:1
                2: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a 1 qos=1 tag=1
                2: deliver a "1" qos=1 tag=1
                9: published 1 success
            pub 9 a 2 qos=1 tag=2
                2: deliver a "2" qos=1 tag=2
                9: published 2 success
            pub 9 a 3 qos=1 tag=3
                2: deliver a "3" qos=1 tag=3
                9: published 3 success
            pub 1 $pull/1
            pub 9 a 4 qos=1 tag=4
                1: deliver a "4" qos=1 tag=1
                9: published 4 success
            pub 9 a 5 qos=1 tag=5
                2: deliver a "5" qos=1 tag=4
                9: published 5 success
            pub 9 a 6 qos=1 tag=6
                2: deliver a "6" qos=1 tag=5
                9: published 6 success
            pub 9 a zero
                1: deliver a "zero" qos=0
            pub 9 a zero
                1: deliver a "zero" qos=0
            pub 2 $pull/0
            pub 9 a 7 qos=1 tag=7
                9: published 7 success
            pub 9 a 8 qos=1 tag=8
                9: published 8 success
            clients 10
                anna - here, pulls, allowance 0 session 1 subscriptions 1+1 (4 B)
                berta - here, pulls, allowance 0 session 1 subscriptions 1+5 (12 B)
                pub - here session 0 subscriptions 0+0 (0 B)
        "#]],
    );
}

/// Other shards know who has asked for more: one without allowance is chosen only where all would wait.
#[test]
fn other_shards_know_who_pulls() {
    let mut world = World::new(2, false, |_| {});
    let names: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
    let on = |world: &World, shard: usize| names.iter().find(|name| world.home(name) == shard).unwrap().clone();
    let (here, there) = (on(&world, 0), on(&world, 1));
    world.run(&format!(
        "connect 1 {here} pull\nconnect 2 {there}\nsub 1 1 $share/g/a:1\nsub 2 1 $share/g/a:1\nconnect 9 {there}-pub"
    ));
    let publish = |world: &mut World, from: u16, to: u16| -> Vec<usize> {
        let script: String = (from..=to).map(|n| format!("pub 9 a {n} qos=1 tag={n}\n")).collect();
        let output = world.run(&script);
        (1..=2).map(|c| output.matches(&format!("    {c}: deliver")).count()).collect()
    };
    assert_eq!(publish(&mut world, 1, 10), [0, 10], "one has asked for nothing");
    world.run("pub 1 $pull/3");
    assert_eq!(publish(&mut world, 11, 20), [3, 7], "no more than it asked for");
    world.run("pub 2 $pull/0");
    assert_eq!(publish(&mut world, 21, 30), [0, 0], "all wait");
    let output = world.run("pub 1 $pull/100\npub 2 $pull/100");
    let waited = [1, 2].map(|c| output.matches(&format!("    {c}: deliver")).count());
    assert!(waited.iter().sum::<usize>() == 10 && waited.iter().all(|count| *count > 0), "in turn: {waited:?}");
}

/// Retained messages for a new subscription are pulled as any others, a portion at a time, however many they are.
#[test]
fn retained_messages_are_pulled() {
    let mut world = World::new(1, true, |config| config.retained_portion_max = 4);
    world.run("connect 9 pub");
    for n in 0..20 {
        world.run(&format!("pub 9 r/{n:02} kept qos=1 tag={} retain", n + 1));
    }
    let output = world.run("connect 1 anna expiry=60 pull\nsub 1 1 r/#:1");
    assert!(output.contains("1: subscribed 1 granted_qos_1") && !output.contains("deliver"), "{output}");
    assert!(world.stats(|stats| stats.queued_messages) <= 4 + 2, "a portion waits, no more");
    let mut given = 0;
    for round in 0..20 {
        let output = world.run("pub 1 $pull/1");
        assert_eq!(output.matches("1: deliver r/").count(), 1, "round {round}: {output}");
        given += 1;
        world.run(&format!("ack 1 {}", tag_of(&output)));
    }
    assert_eq!(given, 20);
    let output = world.run("pub 1 $pull/1");
    assert!(!output.contains("deliver"), "{output}");
}

fn tag_of(output: &str) -> &str {
    let tag = output.split(" tag=").nth(1).unwrap();
    tag.split(|c: char| !c.is_ascii_digit()).next().unwrap()
}

/// A queue that nobody pulls from is bounded as that of a client that is away: the publisher is told.
#[test]
fn what_nobody_pulls_is_bounded() {
    check(
        World::new(1, true, |config| config.limits.queue_messages_max = 2),
        "connect 1 anna expiry=60 pull
         sub 1 1 a:1
         connect 9 pub
         pub 9 a one qos=1 tag=1
         pub 9 a two qos=1 tag=2
         pub 9 a three qos=1 tag=3
         pub 1 $pull/2
         ack 1 1
         pub 9 a three qos=1 tag=3",
        expect![[r#"
            connect 1 anna expiry=60 pull
                1: connected present=false
            sub 1 1 a:1
                1: subscribed 1 granted_qos_1
            connect 9 pub
                9: connected present=false
            pub 9 a one qos=1 tag=1
                9: published 1 success
            pub 9 a two qos=1 tag=2
                9: published 2 success
            pub 9 a three qos=1 tag=3
                count queue_overflow 1
                9: published 3 quota_exceeded
            pub 1 $pull/2
                1: deliver a "one" qos=1 tag=1
                1: deliver a "two" qos=1 tag=2
            ack 1 1
            pub 9 a three qos=1 tag=3
                9: published 3 success
        "#]],
    );
}

/// A crowd of messages for who asks for nothing makes no work: no ticks, and no larger turns for others.
#[test]
fn who_asks_for_nothing_makes_no_work() {
    let mut world = World::new(1, true, |config| config.limits.drained_per_second = 1_000);
    world.run("connect 1 anna expiry=600 pull\nsub 1 1 a:1\ndisc 1 lost\nconnect 9 pub\npub 9 a 0 qos=1 tag=999");
    world.run("connect 1 anna expiry=600 pull");
    world.ticks = 0;
    for n in 1..=500 {
        world.run(&format!("pub 9 a {n} qos=1 tag={n}"));
    }
    assert_eq!(world.ticks, 0);
    let output = world.run("pub 1 $pull/65535");
    let now = output.matches("1: deliver").count();
    assert!(now >= 1, "{output}");
    let output = world.run("at 2000\nat 2100");
    assert_eq!(now + output.matches("1: deliver").count(), 100, "as many as the window holds");
}
