//! Messages that are to be published later (DESIGN 4, `scheduled`).

use expect_test::{Expect, expect};
use postroad_broker::Config;

use crate::world::World;

/// A subscriber on connection 1, a publisher on 9.
fn world(shards: u16, durable: bool, tune: impl Fn(&mut Config)) -> World {
    let mut world = World::new(shards, durable, tune).open();
    world.run("connect 1 a expiry=600\n sub 1 1 t:2\n connect 9 p expiry=600");
    if durable { world.showing_log() } else { world }
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

#[test]
fn it_waits_until_it_is_due() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t later qos=1 tag=1 deliver=5000
        pub 9 t sooner qos=2 tag=2 deliver=3000
        pub 9 t zero deliver=4000
        stats wishes
        due
        at 3999
        at 4000
        at 5000
        at 6000
        stats wishes
        ",
        expect![[r#"
            pub 9 t later qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t sooner qos=2 tag=2 deliver=3000
                log 8 InboundBegin
                log 9 Publish to 1
                log 10 InboundBegin
                9: published 2 success
            pub 9 t zero deliver=4000
                log 11 Publish to 1
            stats wishes
                keys=0 scheduled=3 bytes=18 under_way=0
            due
                due in 3000 ms
            at 3999
            at 4000
                log 12 InboundBegin
                log 13 Publish to 1
                log 14 Tagged 13 tag=1
                log 15 Settle 9 Moved
                log 16 InboundEnd
                1: deliver t "sooner" qos=2 tag=1
            at 5000
                1: deliver t "zero" qos=0
                log 17 Settle 11 Moved
            at 6000
                log 18 InboundBegin
                log 19 Publish to 1
                log 20 Settle 7 Moved
                log 21 InboundEnd
                1: deliver t "later" qos=1 tag=2
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

#[test]
fn in_memory_it_waits_as_long_as_the_server_runs() {
    check(
        world(1, false, |_| {}),
        "
        pub 9 t one qos=2 tag=1 deliver=1000
        pub 9 t two qos=1 tag=2 deliver=1000
        at 2000
        stats wishes
        ",
        expect![[r#"
            pub 9 t one qos=2 tag=1 deliver=1000
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=1000
                9: published 2 success
            at 2000
                1: deliver t "one" qos=2 tag=1
                1: deliver t "two" qos=1 tag=2
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// What is for the past is published at once.
#[test]
fn what_is_due_already_does_not_wait() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t now qos=1 tag=1 deliver=0
        stats wishes
        ",
        expect![[r#"
            pub 9 t now qos=1 tag=1 deliver=0
                log 6 Publish to 1
                1: deliver t "now" qos=1 tag=1
                9: published 1 success
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// Who may publish it is asked when it is taken in; who gets it, when it is due.
#[test]
fn subscriptions_of_then_count() {
    check(
        world(1, true, |_| {}),
        "
        connect 2 late
        pub 9 x later qos=1 tag=1 deliver=5000
        pub 9 t nobody qos=1 tag=2 deliver=5000
        sub 2 1 x:1
        unsub 1 2 t
        at 6000
        ",
        expect![[r#"
            connect 2 late
                2: connected present=false
            pub 9 x later qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t nobody qos=1 tag=2 deliver=5000
                log 8 Publish to 1
                9: published 2 success
            sub 2 1 x:1
                2: subscribed 1 granted_qos_1
            unsub 1 2 t
                log 9 Unsubscribe
                1: unsubscribed 2 success
            at 6000
                log 10 InboundBegin
                2: deliver x "later" qos=1 tag=1
                log 11 Settle 7 Moved
                log 12 InboundEnd
                log 13 InboundBegin
                count no_subscriber 1
                log 14 Settle 8 Moved
                log 15 InboundEnd
        "#]],
    );
}

#[test]
fn what_is_too_much_or_too_late_is_refused() {
    let tune = |config: &mut Config| {
        config.limits.scheduled_max = 2;
        config.limits.scheduled_bytes_max = 100;
        config.limits.scheduled_delay_max_ms = 10_000;
    };
    check(
        world(1, true, tune),
        "
        pub 9 t late qos=1 tag=1 deliver=10001
        pub 9 t aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa qos=2 tag=1 deliver=10000
        pub 9 t one qos=2 tag=1 deliver=10000
        pub 9 t two qos=1 tag=2 deliver=10000
        pub 9 t three qos=1 tag=3 deliver=10000
        pub 9 t four qos=2 tag=4 deliver=10000 key=k
        at 11000
        pub 9 t five qos=1 tag=5 deliver=10000
        ",
        expect![[r#"
            pub 9 t late qos=1 tag=1 deliver=10001
                count scheduled_delay 1
                9: published 1 implementation_specific_error
            pub 9 t aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa qos=2 tag=1 deliver=10000
                count scheduled_limit 1
                9: published 1 quota_exceeded
            pub 9 t one qos=2 tag=1 deliver=10000
                log 6 InboundBegin
                log 7 QueueBegin
                log 8 Publish to 1
                log 9 InboundBegin
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=10000
                log 10 Publish to 1
                9: published 2 success
            pub 9 t three qos=1 tag=3 deliver=10000
                count scheduled_limit 1
                9: published 3 quota_exceeded
            pub 9 t four qos=2 tag=4 deliver=10000 key=k
                count scheduled_limit 1
                9: published 4 quota_exceeded
            at 11000
                log 11 InboundBegin
                log 12 Publish to 1
                log 13 Tagged 12 tag=1
                log 14 Settle 8 Moved
                log 15 InboundEnd
                log 16 InboundBegin
                log 17 Publish to 1
                log 18 Settle 10 Moved
                log 19 InboundEnd
                1: deliver t "one" qos=2 tag=1
                1: deliver t "two" qos=1 tag=2
            pub 9 t five qos=1 tag=5 deliver=10000
                log 20 Publish to 1
                9: published 5 success
        "#]],
    );
}

/// Its time to live is counted from when it is due. What is over by then is over.
#[test]
fn what_is_over_before_it_can_be_published_expires() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t one qos=1 tag=1 deliver=5000 expires=5100
        pub 9 t two qos=1 tag=2 deliver=5000 expires=5200
        rest
        at 6150
        crash
        work
        connect 1 a expiry=600
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=5000 expires=5100
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=5000 expires=5200
                log 8 Publish to 1
                9: published 2 success
            rest
            at 6150
                count expired 1
                log 9 Settle 7 Expired
                log 10 InboundBegin
                log 11 Publish to 1
                log 12 Settle 8 Moved
                log 13 InboundEnd
                1: deliver t "two" qos=1 tag=1
            crash
                log 14 Disconnected
                log 15 Disconnected
            work
            connect 1 a expiry=600
                log 16 Connected
                1: connected present=true
                1: deliver t "two" qos=1 tag=1 dup
        "#]],
    );
}

#[test]
fn a_rate_spreads_what_is_due_at_once() {
    let mut world = world(1, true, |config| config.limits.scheduled_per_second = 100);
    for number in 0..50 {
        world.run(&format!("pub 9 t {number} qos=1 tag={} deliver=5000", number + 1));
    }
    world.run("at 5999");
    assert_eq!(world.stats(|stats| stats.scheduled), 50);
    for (at, left) in [(6_000, 40), (6_009, 40), (6_010, 39), (6_100, 30), (6_200, 20), (6_300, 10), (6_400, 0)] {
        world.run(&format!("at {at}"));
        assert_eq!(world.stats(|stats| stats.scheduled), left, "at {at}");
    }
}

#[test]
fn a_crowd_that_is_due_goes_in_steps() {
    let mut world = world(1, true, |_| {});
    for number in 0..500 {
        world.run(&format!("pub 9 t {number} qos=1 tag={} deliver=5000", number + 1));
    }
    let ticks = world.ticks;
    world.run("at 6001");
    assert_eq!(world.stats(|stats| stats.scheduled), 0);
    assert!(
        world.ticks - ticks >= 6 && world.burst_max <= 100,
        "{} ticks, {} at once",
        world.ticks - ticks,
        world.burst_max
    );
}

/// Between any two records: it neither is lost, nor comes twice.
#[test]
fn a_crash_while_it_is_due() {
    let mut all = String::new();
    for kept in 0..6 {
        let mut world = world(1, true, |_| {});
        world.run("pub 9 t one qos=2 tag=9 deliver=5000\n rel 9 9\n hold\n at 6001");
        all.push_str(&world.run(&format!("commit 0 {kept}\n crash\n flow\n connect 1 a expiry=600\n stats wishes")));
        assert_eq!(world.remembered(0).0, 0);
    }
    expect![[r#"
        commit 0 0
        crash
            log 11 Disconnected
            log 12 Disconnected
            log 13 InboundBegin
            log 14 Publish to 1
            log 15 Settle 8 Moved
            log 16 InboundEnd
        flow
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
            log 18 Tagged 14 tag=1
            1: deliver t "one" qos=2 tag=1
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
        commit 0 1
        crash
            log 12 Disconnected
            log 13 Disconnected
            log 14 Publish to 1
            log 15 Settle 8 Moved
            log 16 InboundEnd
        flow
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
            log 18 Tagged 14 tag=1
            1: deliver t "one" qos=2 tag=1
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
        commit 0 2
        crash
            log 13 Disconnected
            log 14 Disconnected
            log 15 Settle 8 Moved
            log 16 InboundEnd
        flow
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
            log 18 Tagged 12 tag=1
            1: deliver t "one" qos=2 tag=1
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
        commit 0 3
            1: deliver t "one" qos=2 tag=1
        crash
            log 14 Disconnected
            log 15 Disconnected
            log 16 Settle 8 Moved
            log 17 InboundEnd
        flow
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
            log 19 Attempt 12 2
            1: deliver t "one" qos=2 tag=1 dup
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
        commit 0 4
            1: deliver t "one" qos=2 tag=1
        crash
            log 15 InboundEnd
            log 16 Disconnected
            log 17 Disconnected
        flow
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
            log 19 Attempt 12 2
            1: deliver t "one" qos=2 tag=1 dup
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
        commit 0 5
            1: deliver t "one" qos=2 tag=1
        crash
            log 16 Disconnected
            log 17 Disconnected
        flow
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
            log 19 Attempt 12 2
            1: deliver t "one" qos=2 tag=1 dup
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
    "#]]
    .assert_eq(&all);
}

/// Between any two records of taking it in: the repeat is answered, or taken in for the first time.
#[test]
fn a_crash_while_it_is_taken_in() {
    let mut all = String::new();
    for (kept, wish) in (0..5).zip(["", "", "", "", ""]).chain((0..5).zip([" key=k"; 5])) {
        let mut world = world(1, true, |_| {});
        world.run(&format!("connect 8 r user=u expiry=600\n hold\n pub 8 t one qos=2 tag=9 deliver=5000{wish}"));
        let again = format!("pub 8 t one qos=2 tag=9 deliver=5000{wish} dup");
        all.push_str(&world.run(&format!(
            "commit 0 {kept}\n crash\n flow\n connect 8 r user=u expiry=600\n {again}\n stats wishes\n rel 8 9\n connect 1 a expiry=600\n at 6001"
        )));
        assert_eq!(world.stats(|stats| stats.scheduled), 0);
    }
    expect![[r#"
        commit 0 0
        crash
            log 8 Disconnected
            log 9 Disconnected
            log 10 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 11 Connected
            8: connected present=true
        pub 8 t one qos=2 tag=9 deliver=5000 dup
            log 12 InboundBegin
            log 13 QueueBegin
            log 14 Publish to 1
            log 15 InboundBegin
            8: published 9 success
        stats wishes
            keys=0 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 16 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
        at 6001
            log 18 InboundBegin
            log 19 Publish to 1
            log 20 Tagged 19 tag=1
            log 21 Settle 14 Moved
            log 22 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 1
        crash
            log 9 Disconnected
            log 10 Disconnected
            log 11 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 12 Connected
            8: connected present=true inbound=[9]
        pub 8 t one qos=2 tag=9 deliver=5000 dup
            log 13 QueueBegin
            log 14 Publish to 1
            log 15 InboundBegin
            8: published 9 success
        stats wishes
            keys=0 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 16 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
        at 6001
            log 18 InboundBegin
            log 19 Publish to 1
            log 20 Tagged 19 tag=1
            log 21 Settle 14 Moved
            log 22 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 2
        crash
            log 10 Disconnected
            log 11 Disconnected
            log 12 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 13 Connected
            8: connected present=true inbound=[9]
        pub 8 t one qos=2 tag=9 deliver=5000 dup
            log 14 Publish to 1
            log 15 InboundBegin
            8: published 9 success
        stats wishes
            keys=0 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 16 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
        at 6001
            log 18 InboundBegin
            log 19 Publish to 1
            log 20 Tagged 19 tag=1
            log 21 Settle 14 Moved
            log 22 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 3
        crash
            log 11 Disconnected
            log 12 Disconnected
            log 13 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 14 Connected
            8: connected present=true inbound=[9]
        pub 8 t one qos=2 tag=9 deliver=5000 dup
            8: published 9 success
        stats wishes
            keys=0 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 15 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 16 Connected
            1: connected present=true
        at 6001
            log 17 InboundBegin
            log 18 Publish to 1
            log 19 Tagged 18 tag=1
            log 20 Settle 10 Moved
            log 21 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 4
            8: published 9 success
        crash
            log 12 Disconnected
            log 13 Disconnected
            log 14 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 15 Connected
            8: connected present=true inbound=[9]
        pub 8 t one qos=2 tag=9 deliver=5000 dup
            8: published 9 success
        stats wishes
            keys=0 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 16 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
        at 6001
            log 18 InboundBegin
            log 19 Publish to 1
            log 20 Tagged 19 tag=1
            log 21 Settle 10 Moved
            log 22 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 0
        crash
            log 8 Disconnected
            log 9 Disconnected
            log 10 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 11 Connected
            8: connected present=true
        pub 8 t one qos=2 tag=9 deliver=5000 key=k dup
            log 12 Key k ?
            log 13 QueueBegin
            log 14 Publish to 1
            log 15 Key k success
            log 16 InboundBegin
            8: published 9 success
        stats wishes
            keys=1 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 17 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
        at 6001
            log 19 InboundBegin
            log 20 Publish to 1
            log 21 Tagged 20 tag=1
            log 22 Settle 14 Moved
            log 23 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 1
        crash
            log 9 Disconnected
            log 10 Disconnected
            log 11 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 12 Connected
            8: connected present=true
        pub 8 t one qos=2 tag=9 deliver=5000 key=k dup
            log 13 QueueBegin
            log 14 Publish to 1
            log 15 Key k success
            log 16 InboundBegin
            8: published 9 success
        stats wishes
            keys=1 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 17 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
        at 6001
            log 19 InboundBegin
            log 20 Publish to 1
            log 21 Tagged 20 tag=1
            log 22 Settle 14 Moved
            log 23 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 2
        crash
            log 10 Disconnected
            log 11 Disconnected
            log 12 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 13 Connected
            8: connected present=true
        pub 8 t one qos=2 tag=9 deliver=5000 key=k dup
            log 14 Publish to 1
            log 15 Key k success
            log 16 InboundBegin
            8: published 9 success
        stats wishes
            keys=1 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 17 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
        at 6001
            log 19 InboundBegin
            log 20 Publish to 1
            log 21 Tagged 20 tag=1
            log 22 Settle 14 Moved
            log 23 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 3
        crash
            log 11 Disconnected
            log 12 Disconnected
            log 13 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 14 Connected
            8: connected present=true
        pub 8 t one qos=2 tag=9 deliver=5000 key=k dup
            log 15 InboundBegin
            8: published 9 success
        stats wishes
            keys=1 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 16 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 17 Connected
            1: connected present=true
        at 6001
            log 18 InboundBegin
            log 19 Publish to 1
            log 20 Tagged 19 tag=1
            log 21 Settle 10 Moved
            log 22 InboundEnd
            1: deliver t "one" qos=2 tag=1
        commit 0 4
        crash
            log 12 Disconnected
            log 13 Disconnected
            log 14 Disconnected
        flow
        connect 8 r user=u expiry=600
            log 15 Connected
            8: connected present=true
        pub 8 t one qos=2 tag=9 deliver=5000 key=k dup
            log 16 InboundBegin
            8: published 9 success
        stats wishes
            keys=1 scheduled=1 bytes=4 under_way=0
        rel 8 9
            log 17 InboundEnd
            8: completed 9 success
        connect 1 a expiry=600
            log 18 Connected
            1: connected present=true
        at 6001
            log 19 InboundBegin
            log 20 Publish to 1
            log 21 Tagged 20 tag=1
            log 22 Settle 10 Moved
            log 23 InboundEnd
            1: deliver t "one" qos=2 tag=1
    "#]]
    .assert_eq(&all);
}

/// The body leaves memory with the young log, and is read back when it is due.
#[test]
fn what_is_stored_is_read_back() {
    check(
        world(1, true, |config| config.backlog_messages_max = 2),
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        pub 9 t two qos=1 tag=2 deliver=7000
        pub 9 t three qos=1 tag=3 deliver=5000
        pub 9 t four qos=1 tag=4 deliver=6000
        retire
        stats wishes
        at 6000
        at 7000
        retire
        at 8000
        stats wishes
        retire
        crash
        stats wishes
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=7000
                log 8 Publish to 1
                9: published 2 success
            pub 9 t three qos=1 tag=3 deliver=5000
                log 9 Publish to 1
                9: published 3 success
            pub 9 t four qos=1 tag=4 deliver=6000
                log 10 Publish to 1
                9: published 4 success
            retire
                ingest: 4 pending, 0 settled
            stats wishes
                keys=0 scheduled=4 bytes=19 under_way=0
            at 6000
                read backlog: 2 entries, end=false
                log 11 InboundBegin
                log 12 Publish to 1
                log 13 Settle 7 Moved
                log 14 InboundEnd
                read backlog: 2 entries, end=false
                log 15 InboundBegin
                log 16 Publish to 1
                log 17 Settle 9 Moved
                log 18 InboundEnd
                1: deliver t "one" qos=1 tag=1
                1: deliver t "three" qos=1 tag=2
            at 7000
                read backlog: 1 entries, end=true
                log 19 InboundBegin
                log 20 Publish to 1
                log 21 Settle 10 Moved
                log 22 InboundEnd
                1: deliver t "four" qos=1 tag=3
            retire
                ingest: 3 pending, 3 settled
            at 8000
                read backlog: 1 entries, end=true
                log 23 InboundBegin
                log 24 Publish to 1
                log 25 Settle 8 Moved
                log 26 InboundEnd
                1: deliver t "two" qos=1 tag=4
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
            retire
                ingest: 1 pending, 1 settled
            crash
                read backlog: 0 entries, end=true
                log 27 Disconnected
                log 28 Disconnected
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// After a restart the times are read in portions; what is due meanwhile goes as soon as it is found.
#[test]
fn a_restart_reads_the_times_back() {
    check(
        world(1, true, |config| config.backlog_messages_max = 2),
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        pub 9 t two qos=1 tag=2 deliver=7000
        pub 9 t three qos=1 tag=3 deliver=5000
        pub 9 t four qos=1 tag=4 deliver=6000
        retire
        pub 9 t five qos=1 tag=5 deliver=6500
        at 6001
        crash
        stats wishes
        due
        connect 1 a expiry=600
        at 7001
        at 8001
        stats wishes
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=7000
                log 8 Publish to 1
                9: published 2 success
            pub 9 t three qos=1 tag=3 deliver=5000
                log 9 Publish to 1
                9: published 3 success
            pub 9 t four qos=1 tag=4 deliver=6000
                log 10 Publish to 1
                9: published 4 success
            retire
                ingest: 4 pending, 0 settled
            pub 9 t five qos=1 tag=5 deliver=6500
                log 11 Publish to 1
                9: published 5 success
            at 6001
                read backlog: 2 entries, end=false
                log 12 InboundBegin
                log 13 Publish to 1
                log 14 Settle 7 Moved
                log 15 InboundEnd
                read backlog: 2 entries, end=false
                log 16 InboundBegin
                log 17 Publish to 1
                log 18 Settle 9 Moved
                log 19 InboundEnd
                1: deliver t "one" qos=1 tag=1
                1: deliver t "three" qos=1 tag=2
            crash
                read backlog: 2 entries, end=false
                log 20 Disconnected
                log 21 Disconnected
                read backlog: 2 entries, end=false
            stats wishes
                keys=0 scheduled=3 bytes=15 under_way=0
            due
                due in 999 ms
            connect 1 a expiry=600
                log 22 Connected
                1: connected present=true
                1: deliver t "one" qos=1 tag=1 dup
                1: deliver t "three" qos=1 tag=2 dup
            at 7001
                read backlog: 1 entries, end=true
                log 23 InboundBegin
                log 24 Publish to 1
                log 25 Settle 10 Moved
                log 26 InboundEnd
                1: deliver t "four" qos=1 tag=3
            at 8001
                log 27 InboundBegin
                log 28 Publish to 1
                log 29 Settle 11 Moved
                log 30 InboundEnd
                read backlog: 2 entries, end=false
                log 31 InboundBegin
                log 32 Publish to 1
                log 33 Settle 8 Moved
                log 34 InboundEnd
                1: deliver t "five" qos=1 tag=4
                1: deliver t "two" qos=1 tag=5
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// A client's queue is full: nobody is told, for its publisher was told that it is safe. It waits for room.
#[test]
fn it_waits_for_room() {
    check(
        world(1, true, |config| config.limits.queue_messages_max = 1),
        "
        pub 9 t fills qos=1 tag=1
        pub 9 t one qos=1 tag=2 deliver=1000
        at 2000
        stats wishes
        at 12001
        ack 1 1
        at 22002
        stats wishes
        ",
        expect![[r#"
            pub 9 t fills qos=1 tag=1
                log 6 Publish to 1
                1: deliver t "fills" qos=1 tag=1
                9: published 1 success
            pub 9 t one qos=1 tag=2 deliver=1000
                log 7 QueueBegin
                log 8 Publish to 1
                9: published 2 success
            at 2000
            stats wishes
                keys=0 scheduled=1 bytes=4 under_way=0
            at 12001
            ack 1 1
                log 9 Settle 6 Acknowledged
            at 22002
                log 10 InboundBegin
                log 11 Publish to 1
                log 12 Settle 8 Moved
                log 13 InboundEnd
                1: deliver t "one" qos=1 tag=2
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

#[test]
fn a_push_to_a_client_that_nobody_has_seen_goes_nowhere() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 $client/ghost/x one qos=1 tag=1 deliver=1000
        pub 9 $client/known/x two qos=1 tag=2 deliver=1000
        connect 3 known user=k
        at 2000
        stats wishes
        ",
        expect![[r#"
            pub 9 $client/ghost/x one qos=1 tag=1 deliver=1000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 $client/known/x two qos=1 tag=2 deliver=1000
                log 8 Publish to 1
                9: published 2 success
            connect 3 known user=k
                log 9 Register
                3: connected present=false
            at 2000
                count unknown_client 1
                log 10 Settle 7 Refused
                log 11 QueueBegin
                log 12 InboundBegin
                log 13 Publish to 1
                log 14 Settle 8 Moved
                log 15 InboundEnd
                3: deliver x "two" qos=1 tag=32768
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// A retained message takes its place in time: what was retained while it waited is older.
#[test]
fn it_is_retained_when_it_is_due() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 r later qos=1 tag=1 retain deliver=5000
        pub 9 r before qos=1 tag=2 retain
        connect 2 b
        sub 2 1 r:1
        at 6000
        connect 3 c
        sub 3 1 r:1
        pub 9 r after qos=1 tag=3 retain
        ",
        expect![[r#"
            pub 9 r later qos=1 tag=1 retain deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 r before qos=1 tag=2 retain
                log 8 Retain
                count no_subscriber 1
                9: published 2 no_matching_subscribers
            connect 2 b
                2: connected present=false
            sub 2 1 r:1
                2: subscribed 1 granted_qos_1
                2: deliver r "before" qos=1 tag=1 retain
            at 6000
                log 9 InboundBegin
                2: deliver r "later" qos=1 tag=2
                log 10 Retain
                log 11 Settle 7 Moved
                log 12 InboundEnd
            connect 3 c
                3: connected present=false
            sub 3 1 r:1
                3: subscribed 1 granted_qos_1
                3: deliver r "later" qos=1 tag=1 retain
            pub 9 r after qos=1 tag=3 retain
                2: deliver r "after" qos=1 tag=3
                3: deliver r "after" qos=1 tag=2
                log 13 Retain
                9: published 3 success
        "#]],
    );
}

/// A poisoned message is set aside when it is read, not published.
#[test]
fn poison_is_set_aside() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t young qos=1 tag=1 deliver=5000
        poison young
        crash
        stats wishes
        ",
        expect![[r#"
            pub 9 t young qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            poison young
            crash
                set aside "young" of [""]
                count poison 1
                log 8 Settle 7 Poison
                log 9 Disconnected
                log 10 Disconnected
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
    check(
        world(1, true, |_| {}),
        "
        pub 9 t old qos=1 tag=1 deliver=5000
        retire
        poison old
        crash
        at 6001
        stats wishes
        ",
        expect![[r#"
            pub 9 t old qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            retire
                ingest: 1 pending, 0 settled
            poison old
            crash
                read backlog: 1 entries, end=true
                log 8 Disconnected
                log 9 Disconnected
            at 6001
                read backlog: 1 entries, end=true
                set aside "old" of [""]
                count poison 1
                log 10 Settle 7 Poison
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

// ---- two shards: "a" and "p" live on shard 0, "b" on shard 1 ----

fn two_shards(tune: impl Fn(&mut Config)) -> World {
    let mut world = world(2, true, tune);
    assert_eq!(["a", "p", "b"].map(|name| world.home(name)), [0, 0, 1]);
    world.run("connect 2 b expiry=600\n sub 2 1 t:2");
    world
}

#[test]
fn other_shards_have_to_have_it_before_it_is_over() {
    let mut world = two_shards(|_| {});
    let out = world.run(
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        stop 1
        at 6000
        stats wishes
        go
        stats wishes
        ",
    );
    assert_eq!([0, 1].map(|shard| world.remembered(shard)), [(0, 0), (0, 0)]);
    expect![[r#"
        pub 9 t one qos=1 tag=1 deliver=5000
            log 6 QueueBegin
            log 7 Publish to 1
            9: published 1 success
        stop 1
        at 6000
            log 8 InboundBegin
            log 9 Publish to 1
            1: deliver t "one" qos=1 tag=1
            log 5 Publish to 1
            2: deliver t "one" qos=1 tag=1
        stats wishes
            keys=0 scheduled=1 bytes=4 under_way=1
            keys=0 scheduled=0 bytes=0 under_way=0
        go
            log 10 Settle 7 Moved
            log 11 InboundEnd
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
            keys=0 scheduled=0 bytes=0 under_way=0
    "#]]
    .assert_eq(&out);
}

/// The answer is lost with a crash: it is routed again, under the same id, to those who have not got it.
#[test]
fn a_crash_while_other_shards_answer() {
    let mut world = two_shards(|_| {});
    let out = world.run(
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        cut 1 0
        at 6000
        ack 2 1
        retire
        crash
        join 1 0
        connect 1 a expiry=600
        connect 2 b expiry=600
        stats wishes
        ",
    );
    assert_eq!([0, 1].map(|shard| world.remembered(shard).0), [0, 0]);
    expect![[r#"
        pub 9 t one qos=1 tag=1 deliver=5000
            log 6 QueueBegin
            log 7 Publish to 1
            9: published 1 success
        cut 1 0
        at 6000
            log 8 InboundBegin
            log 9 Publish to 1
            1: deliver t "one" qos=1 tag=1
            log 5 Publish to 1
            2: deliver t "one" qos=1 tag=1
        ack 2 1
            log 6 Settle 5 Acknowledged
        retire
            ingest: 2 pending, 0 settled
            ingest: 0 pending, 0 settled
        crash
            read backlog: 1 entries, end=true
            log 10 Disconnected
            log 11 Disconnected
            log 7 Disconnected
        join 1 0
            log 12 Settle 7 Moved
            log 13 InboundEnd
        connect 1 a expiry=600
            log 14 Connected
            1: connected present=true
            read backlog: 1 entries, end=true
            1: deliver t "one" qos=1 tag=1 dup
        connect 2 b expiry=600
            log 8 Connected
            2: connected present=true
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
            keys=0 scheduled=0 bytes=0 under_way=0
    "#]]
    .assert_eq(&out);
}

/// Another shard has no room: it comes again, to those who have not got it.
#[test]
fn another_shard_has_no_room() {
    let mut world = two_shards(|config| config.limits.queue_messages_max = 1);
    let out = world.run(
        "
        pub 9 t fills qos=1 tag=1
        ack 1 1
        pub 9 t one qos=1 tag=2 deliver=1000
        at 2001
        ack 1 2
        ack 2 1
        at 13000
        stats wishes
        ",
    );
    assert_eq!([0, 1].map(|shard| world.remembered(shard).0), [0, 0]);
    expect![[r#"
        pub 9 t fills qos=1 tag=1
            log 6 Publish to 1
            log 5 Publish to 1
            1: deliver t "fills" qos=1 tag=1
            2: deliver t "fills" qos=1 tag=1
            9: published 1 success
        ack 1 1
            log 7 Settle 6 Acknowledged
        pub 9 t one qos=1 tag=2 deliver=1000
            log 8 QueueBegin
            log 9 Publish to 1
            9: published 2 success
        at 2001
            log 10 InboundBegin
            log 11 Publish to 1
            1: deliver t "one" qos=1 tag=2
        ack 1 2
            log 12 Settle 11 Acknowledged
        ack 2 1
            log 6 Settle 5 Acknowledged
        at 13000
            log 7 Publish to 1
            2: deliver t "one" qos=1 tag=2
            log 13 Settle 9 Moved
            log 14 InboundEnd
        stats wishes
            keys=0 scheduled=0 bytes=0 under_way=0
            keys=0 scheduled=0 bytes=0 under_way=0
    "#]]
    .assert_eq(&out);
}

/// It waits for credit in front of those who publish now.
#[test]
fn what_is_due_waits_for_credit() {
    check(
        two_shards(|config| config.mesh_credits = 1),
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        pub 9 t two qos=1 tag=2 deliver=5000
        stop 1
        at 6000
        pub 9 t now qos=1 tag=3
        go
        stats wishes
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=5000
                log 8 Publish to 1
                9: published 2 success
            stop 1
            at 6000
                log 9 InboundBegin
                log 10 Publish to 1
                1: deliver t "one" qos=1 tag=1
                log 5 Publish to 1
                2: deliver t "one" qos=1 tag=1
            pub 9 t now qos=1 tag=3
                9: park
            go
                log 11 Settle 7 Moved
                log 12 InboundEnd
                log 13 InboundBegin
                log 14 Publish to 1
                1: deliver t "two" qos=1 tag=2
                log 6 Publish to 1
                2: deliver t "two" qos=1 tag=2
                log 15 Settle 8 Moved
                log 16 InboundEnd
                log 17 Publish to 1
                9: unpark
                log 7 Publish to 1
                1: deliver t "now" qos=1 tag=3
                2: deliver t "now" qos=1 tag=3
                9: published 3 success
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
                keys=0 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// With a key it waits on the key's home; a repeat is answered, also after it was published.
#[test]
fn with_a_key_it_waits_where_that_lives() {
    check(
        two_shards(|_| {}),
        "
        connect 7 q user=u
        pub 7 t one qos=1 tag=1 key=there deliver=5000
        pub 7 t one qos=1 tag=2 key=there deliver=5000
        stats wishes
        at 6000
        pub 7 t one qos=1 tag=3 key=there deliver=5000
        stats wishes
        ",
        expect![[r#"
            connect 7 q user=u
                log 6 Register
                7: connected present=false
            pub 7 t one qos=1 tag=1 key=there deliver=5000
                log 5 Key there ?
                log 6 QueueBegin
                log 7 Publish to 1
                log 8 Key there success
                7: published 1 success
            pub 7 t one qos=1 tag=2 key=there deliver=5000
                7: published 2 success
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
                keys=1 scheduled=1 bytes=4 under_way=0
            at 6000
                log 9 InboundBegin
                log 10 Publish to 1
                2: deliver t "one" qos=1 tag=1
                log 7 Publish to 1
                1: deliver t "one" qos=1 tag=1
                log 11 Settle 7 Moved
                log 12 InboundEnd
            pub 7 t one qos=1 tag=3 key=there deliver=5000
                7: published 3 success
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
                keys=1 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}

/// The wall clock steps, the other does not: nothing sleeps for longer than a minute.
#[test]
fn nothing_sleeps_for_long() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t one qos=1 tag=1 deliver=500000
        due
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=500000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            due
                due in 60000 ms
        "#]],
    );
}

/// What waits is shown in the order of publication, by what is asked for, page by page, and of it what waits still.
#[test]
fn what_waits_is_shown() {
    check(
        world(1, true, |_| {}),
        "
        scheduled
        connect 8 q user=eve
        pub 9 t/1 one qos=1 tag=1 deliver=5000
        pub 8 t/2 two qos=2 tag=1 deliver=3000
        pub 8 u three deliver=4000
        pub 9 t/1 four qos=1 tag=2 deliver=9000 priority=high
        scheduled
        scheduled limit=2
        scheduled limit=2 after=0-1-9
        scheduled topic=t/#
        scheduled by=user:eve
        scheduled by=client:p
        scheduled by=client:eve
        scheduled from=4000 until=9000
        at 4000
        scheduled
        ",
        expect![[r#"
            scheduled
                that was all
            connect 8 q user=eve
                log 6 Register
                8: connected present=false
            pub 9 t/1 one qos=1 tag=1 deliver=5000
                log 7 QueueBegin
                log 8 Publish to 1
                9: published 1 success
            pub 8 t/2 two qos=2 tag=1 deliver=3000
                log 9 Publish to 1
                8: published 1 success
            pub 8 u three deliver=4000
                log 10 Publish to 1
            pub 9 t/1 four qos=1 tag=2 deliver=9000 priority=high
                log 11 Publish to 1
                9: published 2 success
            scheduled
                at 6000 t/1 "one" by client p
                at 4000 t/2 "two" by user eve
                at 5000 u "three" by user eve
                at 10000 t/1 "four" by client p
                that was all
            scheduled limit=2
                at 6000 t/1 "one" by client p
                at 4000 t/2 "two" by user eve
                more behind 0-1-9
            scheduled limit=2 after=0-1-9
                at 5000 u "three" by user eve
                at 10000 t/1 "four" by client p
                more behind 0-1-11
            scheduled topic=t/#
                at 6000 t/1 "one" by client p
                at 4000 t/2 "two" by user eve
                at 10000 t/1 "four" by client p
                that was all
            scheduled by=user:eve
                at 4000 t/2 "two" by user eve
                at 5000 u "three" by user eve
                that was all
            scheduled by=client:p
                at 6000 t/1 "one" by client p
                at 10000 t/1 "four" by client p
                that was all
            scheduled by=client:eve
                that was all
            scheduled from=4000 until=9000
                at 6000 t/1 "one" by client p
                at 4000 t/2 "two" by user eve
                at 5000 u "three" by user eve
                that was all
            at 4000
                log 12 InboundBegin
                count no_subscriber 1
                log 13 Settle 9 Moved
                log 14 InboundEnd
            scheduled
                at 6000 t/1 "one" by client p
                at 5000 u "three" by user eve
                at 10000 t/1 "four" by client p
                that was all
        "#]],
    );
}

/// Of what is stored, too, behind which there is what is in memory.
#[test]
fn what_is_stored_is_shown() {
    check(
        world(1, true, |config| config.backlog_messages_max = 2),
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        pub 9 t two qos=1 tag=2 deliver=3000
        pub 9 t three qos=1 tag=3 deliver=4000
        scheduled limit=2
        retire
        pub 9 t four qos=1 tag=4 deliver=9000
        scheduled limit=2
        scheduled topic=none
        cancel three
        scheduled
        cancel three
        scheduled
        crash
        scheduled
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=3000
                log 8 Publish to 1
                9: published 2 success
            pub 9 t three qos=1 tag=3 deliver=4000
                log 9 Publish to 1
                9: published 3 success
            scheduled limit=2
                at 6000 t "one" by client p
                at 4000 t "two" by client p
                more behind 0-1-8
            retire
                ingest: 3 pending, 0 settled
            pub 9 t four qos=1 tag=4 deliver=9000
                log 10 Publish to 1
                9: published 4 success
            scheduled limit=2
                read backlog: 2 entries, end=false
                at 6000 t "one" by client p
                at 4000 t "two" by client p
                more behind 0-1-8
            scheduled topic=none
                read backlog: 2 entries, end=false
                read backlog: 1 entries, end=true
                that was all
            cancel three
                Unknown
            scheduled
                read backlog: 2 entries, end=false
                read backlog: 1 entries, end=true
                at 6000 t "one" by client p
                at 4000 t "two" by client p
                at 5000 t "three" by client p
                at 10000 t "four" by client p
                that was all
            cancel three
                read backlog: 1 entries, end=false
                log 11 Settle 9 Cancelled
                Cancelled
            scheduled
                read backlog: 2 entries, end=false
                read backlog: 1 entries, end=true
                at 6000 t "one" by client p
                at 4000 t "two" by client p
                at 10000 t "four" by client p
                that was all
            crash
                read backlog: 2 entries, end=false
                log 12 Disconnected
                log 13 Disconnected
                read backlog: 1 entries, end=true
            scheduled
                read backlog: 2 entries, end=false
                read backlog: 1 entries, end=true
                at 6000 t "one" by client p
                at 4000 t "two" by client p
                at 10000 t "four" by client p
                that was all
        "#]],
    );
}

/// Whose it is may take it back, and no one else; whoever asks again is told the same.
#[test]
fn it_is_taken_back_by_whose_it_is() {
    check(
        world(1, true, |_| {}),
        "
        connect 8 q user=eve
        pub 8 t mine qos=2 tag=1 deliver=3000
        pub 9 t theirs qos=1 tag=1 deliver=3000
        scheduled
        cancel mine of=user:adam
        cancel mine of=client:q
        cancel theirs of=user:eve
        cancel nothing of=user:eve
        cancel mine of=user:eve
        cancel mine of=user:eve
        cancel mine of=user:adam
        cancel mine
        cancel theirs of=client:p
        stats wishes
        at 4000
        cancel mine of=user:eve
        ",
        expect![[r#"
            connect 8 q user=eve
                log 6 Register
                8: connected present=false
            pub 8 t mine qos=2 tag=1 deliver=3000
                log 7 QueueBegin
                log 8 Publish to 1
                8: published 1 success
            pub 9 t theirs qos=1 tag=1 deliver=3000
                log 9 Publish to 1
                9: published 1 success
            scheduled
                at 4000 t "mine" by user eve
                at 4000 t "theirs" by client p
                that was all
            cancel mine of=user:adam
                Unknown
            cancel mine of=client:q
                Unknown
            cancel theirs of=user:eve
                Unknown
            cancel nothing of=user:eve
                Unknown
            cancel mine of=user:eve
                log 10 Settle 8 Cancelled
                Cancelled
            cancel mine of=user:eve
                Cancelled
            cancel mine of=user:adam
                Unknown
            cancel mine
                Cancelled
            cancel theirs of=client:p
                log 11 Settle 9 Cancelled
                Cancelled
            stats wishes
                keys=0 scheduled=0 bytes=0 under_way=0
            at 4000
            cancel mine of=user:eve
                Cancelled
        "#]],
    );
}

/// It is told once it is in the log: a crash before leaves it waiting, one behind does not bring it back.
#[test]
fn what_was_taken_back_stays_so() {
    check(
        world(1, true, |_| {}),
        "
        pub 9 t one qos=1 tag=1 deliver=3000
        pub 9 t two qos=1 tag=2 deliver=3000
        scheduled
        cancel one
        hold
        cancel two
        crash
        commit
        scheduled
        cancel one
        commit
        at 4000
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=3000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=3000
                log 8 Publish to 1
                9: published 2 success
            scheduled
                at 4000 t "one" by client p
                at 4000 t "two" by client p
                that was all
            cancel one
                log 9 Settle 7 Cancelled
                Cancelled
            hold
            cancel two
                log 10 Settle 8 Cancelled
            crash
                log 10 Disconnected
                log 11 Disconnected
            commit
            scheduled
                at 4000 t "two" by client p
                that was all
            cancel one
                Unknown
            commit
            at 4000
                log 12 InboundBegin
                log 13 Publish to 1
                log 14 Settle 8 Moved
                log 15 InboundEnd
        "#]],
    );
}

/// It is one or the other: what is on its way to another shard, or has come to some, is not taken back any more.
#[test]
fn what_is_on_its_way_is_not_taken_back() {
    check(
        two_shards(|_| {}),
        "
        pub 9 t one qos=1 tag=1 deliver=3000
        scheduled
        scheduled shard=1
        stop 1
        at 4000
        cancel one
        cancel one shard=1
        go
        cancel one
        cancel one shard=1
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=3000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            scheduled
                at 4000 t "one" by client p
                that was all
            scheduled shard=1
                that was all
            stop 1
            at 4000
                log 8 InboundBegin
                log 9 Publish to 1
                1: deliver t "one" qos=1 tag=1
                log 5 Publish to 1
                2: deliver t "one" qos=1 tag=1
            cancel one
                Published
            cancel one shard=1
                Unknown
            go
                log 10 Settle 7 Moved
                log 11 InboundEnd
            cancel one
                Unknown
            cancel one shard=1
                Unknown
        "#]],
    );
}

/// What finds no room is tried again, and can be taken back until some have it.
#[test]
fn what_finds_no_room_can_be_taken_back() {
    check(
        world(1, true, |config| config.limits.queue_messages_max = 1),
        "
        pub 9 t fills qos=1 tag=1
        pub 9 t waits qos=1 tag=2 deliver=1000
        at 2000
        scheduled
        cancel waits
        scheduled
        ",
        expect![[r#"
            pub 9 t fills qos=1 tag=1
                log 6 Publish to 1
                1: deliver t "fills" qos=1 tag=1
                9: published 1 success
            pub 9 t waits qos=1 tag=2 deliver=1000
                log 7 QueueBegin
                log 8 Publish to 1
                9: published 2 success
            at 2000
            scheduled
                at 2000 t "waits" by client p, tried again at 12000
                that was all
            cancel waits
                log 9 Settle 8 Cancelled
                Cancelled
            scheduled
                that was all
        "#]],
    );
}

/// What is asked while the times are read after a crash waits until it is known what waits.
#[test]
fn who_looks_waits_for_the_recovery() {
    check(
        world(1, true, |config| config.backlog_messages_max = 2),
        "
        pub 9 t one qos=1 tag=1 deliver=5000
        pub 9 t two qos=1 tag=2 deliver=3000
        pub 9 t three qos=1 tag=3 deliver=4000
        scheduled
        retire
        reading
        crash
        cancel three
        scheduled
        at 4000
        read
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=5000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=3000
                log 8 Publish to 1
                9: published 2 success
            pub 9 t three qos=1 tag=3 deliver=4000
                log 9 Publish to 1
                9: published 3 success
            scheduled
                at 6000 t "one" by client p
                at 4000 t "two" by client p
                at 5000 t "three" by client p
                that was all
            retire
                ingest: 3 pending, 0 settled
            reading
            crash
                read backlog: 2 entries, end=false
                log 10 Disconnected
                log 11 Disconnected
            cancel three
            scheduled
            at 4000
            read
                read backlog: 1 entries, end=true
                log 12 InboundBegin
                log 13 Publish to 1
                log 14 Settle 8 Moved
                log 15 InboundEnd
                read backlog: 1 entries, end=false
                log 16 Settle 9 Cancelled
                read backlog: 2 entries, end=false
                read backlog: 1 entries, end=true
                Cancelled
                at 6000 t "one" by client p
                that was all
        "#]],
    );
}

/// Its publisher is told, if it wants receipts; under a key the repeat is answered, and it is not published.
#[test]
fn what_is_taken_back_is_told() {
    check(
        world(1, true, |_| {}),
        "
        sub 9 2 $receipt/#:1
        pub 9 t one qos=1 tag=1 deliver=3000 receipt=dead key=k
        scheduled
        cancel one
        pub 9 t one qos=1 tag=2 deliver=3000 receipt=dead key=k
        scheduled
        at 4000
        ",
        expect![[r#"
            sub 9 2 $receipt/#:1
                log 6 Subscribe
                log 7 RetainedDue
                9: subscribed 2 granted_qos_1
                log 8 RetainedGiven
            pub 9 t one qos=1 tag=1 deliver=3000 receipt=dead key=k
                log 9 Key k ?
                step 0 - published by p - to t qos=1 3 B
                log 10 QueueBegin
                log 11 Publish to 1
                log 12 Key k success
                9: taken Some(1) at 1001000
                9: published 1 success
            scheduled
                at 4000 t "one" by client p
                that was all
            cancel one
                log 13 Settle 11 Cancelled
                step 0 - over cancelled 0 after 0 sends, told
                Cancelled
                log 14 Publish to 1
                9: deliver $receipt/0000000f462800000000000000000007/dead/- "{\"at_unix_ms\":1001000,\"attempts\":0,\"client\":null,\"group\":null,\"level\":\"dead\",\"message\":\"0000000f462800000000000000000007\",\"original\":null,\"reason\":\"cancelled\",\"topic\":\"t\"}" qos=1 tag=1
            pub 9 t one qos=1 tag=2 deliver=3000 receipt=dead key=k
                9: taken Some(2) at 1001000
                9: published 2 success
            scheduled
                that was all
            at 4000
        "#]],
    );
}

/// Who looks and what is due take turns with what is stored.
#[test]
fn who_looks_and_what_is_due_take_turns() {
    check(
        world(1, true, |config| config.backlog_messages_max = 1),
        "
        pub 9 t one qos=1 tag=1 deliver=3000
        pub 9 t two qos=1 tag=2 deliver=3000
        pub 9 t three qos=1 tag=3 deliver=3000
        pub 9 t four qos=1 tag=4 deliver=9000
        scheduled
        retire
        reading
        at 4000
        scheduled
        cancel four
        read
        ",
        expect![[r#"
            pub 9 t one qos=1 tag=1 deliver=3000
                log 6 QueueBegin
                log 7 Publish to 1
                9: published 1 success
            pub 9 t two qos=1 tag=2 deliver=3000
                log 8 Publish to 1
                9: published 2 success
            pub 9 t three qos=1 tag=3 deliver=3000
                log 9 Publish to 1
                9: published 3 success
            pub 9 t four qos=1 tag=4 deliver=9000
                log 10 Publish to 1
                9: published 4 success
            scheduled
                at 4000 t "one" by client p
                at 4000 t "two" by client p
                at 4000 t "three" by client p
                at 10000 t "four" by client p
                that was all
            retire
                ingest: 4 pending, 0 settled
            reading
            at 4000
                read backlog: 1 entries, end=false
            scheduled
            cancel four
            read
                read backlog: 1 entries, end=false
                log 11 InboundBegin
                log 12 Publish to 1
                log 13 Settle 7 Moved
                log 14 InboundEnd
                read backlog: 1 entries, end=false
                read backlog: 1 entries, end=false
                log 15 InboundBegin
                log 16 Publish to 1
                log 17 Settle 8 Moved
                log 18 InboundEnd
                read backlog: 1 entries, end=false
                read backlog: 1 entries, end=false
                log 19 InboundBegin
                log 20 Publish to 1
                log 21 Settle 9 Moved
                log 22 InboundEnd
                read backlog: 1 entries, end=false
                read backlog: 1 entries, end=false
                log 23 Settle 10 Cancelled
                1: deliver t "one" qos=1 tag=1
                1: deliver t "two" qos=1 tag=2
                1: deliver t "three" qos=1 tag=3
                at 10000 t "four" by client p
                that was all
                Cancelled
        "#]],
    );
}

/// What is due once filled the log faster than the old generation took it in, and whoever published meanwhile waited for seconds.
#[test]
fn what_is_due_waits_while_the_log_is_pressed() {
    let mut world = world(1, true, |_| {});
    for tag in 1..=200 {
        world.run(&format!("pub 9 t x qos=1 tag={tag} deliver=1000"));
    }
    let waiting = |world: &mut World| {
        let stats = world.run("stats wishes");
        let (_, rest) = stats.split_once("scheduled=").unwrap();
        rest.split_once(' ').unwrap().0.parse::<usize>().unwrap()
    };
    let published = |world: &mut World, line: &str| {
        let before = waiting(world);
        world.run(line);
        before - waiting(world)
    };
    let due = |world: &mut World| world.run("due").lines().last().unwrap().trim().to_owned();
    world.run("log pressed");
    assert_eq!(published(&mut world, "at 2000"), 16);
    assert_eq!(due(&mut world), "due in 10 ms");
    assert_eq!(published(&mut world, "at 2009"), 0);
    assert_eq!(published(&mut world, "at 2010"), 16);
    world.run("log calm");
    assert_eq!(published(&mut world, "at 2020"), 168, "without a pause");
}
