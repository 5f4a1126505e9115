//! The lane of what had waited when its client came back `[RTM-2]`, `[PER-5]`, `[PER-7]`.

use expect_test::{Expect, expect};

use crate::world::World;

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// A client that is away with messages `1` to `messages` on its topic, of the same name; connection 9 is the publisher's.
fn with_backlog(world: &mut World, client: &str, messages: usize) {
    world.run(&format!("connect 1 {client} expiry=600\nsub 1 1 {client}/#:1\ndisc 1 lost\nconnect 9 pub clean"));
    for n in 1..=messages {
        world.run(&format!("pub 9 {client}/t {n} qos=1 tag={n}"));
    }
}

/// What connection `connection` was sent, in order.
fn delivered(output: &str, connection: u64) -> Vec<String> {
    let deliveries = output.lines().filter(|line| line.trim_start().starts_with(&format!("{connection}: deliver")));
    deliveries.map(|line| line.split('"').nth(1).unwrap_or_default().to_owned()).collect()
}

fn numbers(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// A backlog leaves at its rate, no tick is due before there are tokens, and what comes live behind it waits for it but
/// takes none.
#[test]
fn a_backlog_leaves_at_its_rate() {
    let mut world = World::new(1, true, |config| config.limits.drained_per_second = 10);
    with_backlog(&mut world, "a", 4);
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
            2: deliver a/t "1" qos=1 tag=1
        due
            due in 100 ms
        at 1099
        due
            due in 1 ms
        at 1100
            2: deliver a/t "2" qos=1 tag=2
        pub 9 a/t live-1 qos=1 tag=50
            9: published 50 success
        pub 9 a/t live-2 qos=1 tag=51
            9: published 51 success
        ack 2 1
        at 1200
            2: deliver a/t "3" qos=1 tag=3
        drains
            clients: 0 await, 1 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 0, draining: 3 }; left: 0 realtime, 3 drained
        at 1300
            2: deliver a/t "4" qos=1 tag=4
            2: deliver a/t "live-1" qos=1 tag=5
            2: deliver a/t "live-2" qos=1 tag=6
        drains
            clients: 0 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 0, draining: 0 }; left: 2 realtime, 4 drained
        pub 9 a/t live-3 qos=1 tag=52
            2: deliver a/t "live-3" qos=1 tag=7
            9: published 52 success
        due
            due in 86399700 ms
    "#]]
    .assert_eq(&world.run(
        "connect 2 a expiry=600\ndue\nat 1099\ndue\nat 1100\npub 9 a/t live-1 qos=1 tag=50\npub 9 a/t live-2 qos=1 tag=51\nack 2 1\nat 1200\ndrains\nat 1300\ndrains\npub 9 a/t live-3 qos=1 tag=52\ndue",
    ));
}

/// Others, who have no backlog, feel nothing of a lane that is full: also where their deliveries wait for acknowledgements.
#[test]
fn realtime_does_not_wait_for_the_drain() {
    let mut world = World::new(1, true, |config| config.limits.drained_per_second = 1);
    with_backlog(&mut world, "a", 9);
    world.run("connect 3 b expiry=600 max=1\nsub 3 1 b/#:1\nconnect 2 a expiry=600");
    expect![[r#"
        pub 9 b/t one qos=1 tag=1
            3: deliver b/t "one" qos=1 tag=1
            9: published 1 success
        pub 9 b/t two qos=1 tag=2
            9: published 2 success
        ack 3 1
            3: deliver b/t "two" qos=1 tag=2
        congested 3
        ack 3 2
        pub 9 b/t three qos=1 tag=3
            9: published 3 success
        writable 3
            3: deliver b/t "three" qos=1 tag=3
    "#]]
    .assert_eq(&world.run(
        "pub 9 b/t one qos=1 tag=1\npub 9 b/t two qos=1 tag=2\nack 3 1\ncongested 3\nack 3 2\npub 9 b/t three qos=1 tag=3\nwritable 3",
    ));
}

/// Without tokens nobody spins: a portion of them comes in 10 ms, and that often a tick is due.
#[test]
fn ticks_come_with_the_tokens() {
    let mut world = World::new(1, true, |config| config.limits.drained_per_second = 2_000);
    with_backlog(&mut world, "a", 300);
    with_backlog(&mut world, "b", 300);
    world.ticks = 0;
    let mut output = world.run("connect 2 a expiry=600 max=1000\nconnect 3 b expiry=600 max=1000");
    assert_eq!(delivered(&output, 2).len() + delivered(&output, 3).len(), 200, "what comes in 100 ms");
    let mut deadlines = 0;
    for now in 1_001..=1_200 {
        let step = world.run(&format!("due\nat {now}"));
        deadlines += usize::from(step.contains("deliver"));
        output += &step;
    }
    assert_eq!(deadlines, 20, "one in 10 ms");
    assert!(world.ticks < 10, "and no other: {}", world.ticks);
    for connection in [2, 3] {
        assert_eq!(delivered(&output, connection), numbers(1..=300));
    }
}

/// A client that has much does not keep those behind it in line waiting: each gets its share, then the next.
#[test]
fn a_line_is_served_in_turn() {
    let mut world = World::new(1, true, |config| {
        config.limits.drained_per_second = 10;
        config.drained_per_tick = 8; // two for each
    });
    with_backlog(&mut world, "a", 9);
    with_backlog(&mut world, "b", 3);
    let mut output = world.run("connect 2 a expiry=600\nconnect 3 b expiry=600");
    for n in 1..=11 {
        output += &world.run(&format!("at {}", 1_000 + n * 100));
    }
    let receivers = output.lines().filter_map(|line| Some(line.trim().split_once(": deliver")?.0));
    let order: String = receivers.map(|receiver| if receiver == "2" { 'a' } else { 'b' }).collect();
    assert_eq!(order, "aabbaabaaaaa", "{output}");
}

/// The lane's limits can be changed while clients stand in line: they hold from then on.
#[test]
fn a_new_rate_holds_for_those_that_wait() {
    let mut world = World::new(1, true, |config| config.limits.drained_per_second = 1);
    with_backlog(&mut world, "a", 8);
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
            2: deliver a/t "1" qos=1 tag=1
        due
            due in 1000 ms
        drain rate=20
        due
            due in 50 ms
        at 1100
            2: deliver a/t "2" qos=1 tag=2
            2: deliver a/t "3" qos=1 tag=3
        drain rate=0
            2: deliver a/t "4" qos=1 tag=4
            2: deliver a/t "5" qos=1 tag=5
            2: deliver a/t "6" qos=1 tag=6
            2: deliver a/t "7" qos=1 tag=7
            2: deliver a/t "8" qos=1 tag=8
        due
            due in 86399900 ms
    "#]]
    .assert_eq(&world.run("connect 2 a expiry=600\ndue\ndrain rate=20\ndue\nat 1100\ndrain rate=0\ndue"));
}

/// A crowd spreads over the jitter; QoS 0 and what the client publishes do not wait, nor does who has no backlog.
#[test]
fn a_drain_begins_after_its_jitter() {
    let mut world = World::new(1, true, |config| config.limits.drain_jitter_ms = 1_000);
    for client in 0..20 {
        with_backlog(&mut world, &format!("c{client}"), 1);
    }
    let crowd: String = (0..20).map(|client| format!("connect {} c{client} expiry=600\n", 20 + client)).collect();
    let output = world.run(&crowd);
    assert!(!output.contains("deliver"), "{output}");
    let mut begun = Vec::new();
    for tenth in 1..=10 {
        begun.push(world.run(&format!("at {}", 1_000 + tenth * 100)).matches("deliver").count());
    }
    assert_eq!(begun.iter().sum::<usize>(), 20);
    assert!(begun.iter().all(|count| *count <= 6), "all at once: {begun:?}");
    expect![[r#"
        connect 50 fresh expiry=600
            50: connected present=false
        sub 50 1 fresh/#:1 zero:0
            50: subscribed 1 granted_qos_1 success
        pub 9 fresh/t now qos=1 tag=1
            50: deliver fresh/t "now" qos=1 tag=1
            9: published 1 success
        disc 50 lost
        connect 51 fresh expiry=600
            51: connected present=true
        pub 9 zero now
            51: deliver zero "now" qos=0
    "#]]
    .assert_eq(&world.run(
        "connect 50 fresh expiry=600\nsub 50 1 fresh/#:1 zero:0\npub 9 fresh/t now qos=1 tag=1\ndisc 50 lost\nconnect 51 fresh expiry=600\npub 9 zero now",
    ));
}

/// Who leaves while it waits, or is taken over, leaves nothing behind, and its successor waits anew.
#[test]
fn a_client_that_leaves_while_it_waits_stands_nowhere() {
    let mut world = World::new(1, true, |config| {
        config.limits.drained_per_second = 1;
        config.limits.drain_jitter_ms = 1_000;
    });
    with_backlog(&mut world, "a", 3);
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
        drains
            clients: 1 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 3, draining: 0 }; left: 0 realtime, 0 drained
        connect 3 a expiry=600
            count taken_over 1
            2: close session_taken_over
            3: connected present=true
        drains
            clients: 1 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 3, draining: 0 }; left: 0 realtime, 0 drained
        at 2000
            3: deliver a/t "1" qos=1 tag=1
        drains
            clients: 0 await, 1 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 0, draining: 2 }; left: 0 realtime, 1 drained
        disc 3 lost
        drains
            clients: 0 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 2, awaiting: 0, draining: 0 }; left: 0 realtime, 1 drained
        at 9000
        drain jitter=0
        connect 4 a expiry=600
            4: connected present=true
            4: deliver a/t "1" qos=1 tag=1 dup
        ack 4 1
        at 10000
            4: deliver a/t "2" qos=1 tag=2
        at 11000
            4: deliver a/t "3" qos=1 tag=3
    "#]]
    .assert_eq(&world.run(
        "connect 2 a expiry=600\ndrains\nconnect 3 a expiry=600\ndrains\nat 2000\ndrains\ndisc 3 lost\ndrains\nat 9000\ndrain jitter=0\nconnect 4 a expiry=600\nack 4 1\nat 10000\nat 11000",
    ));
}

/// The queues of the session and of the registration are one backlog: the older one first, and one rate for both.
#[test]
fn both_queues_of_a_client_are_drained() {
    check(
        World::new(1, true, |config| config.limits.drained_per_second = 10).open(),
        "
        connect 1 car expiry=60 user=anna
        sub 1 1 a:2
        disc 1 lost
        connect 2 back-end
        pub 2 a s1 qos=1 tag=1
        pub 2 $client/car/p p1 qos=1 tag=2
        pub 2 a s2 qos=2 tag=3
        connect 3 car expiry=60 user=anna
        at 1100
        pub 2 $client/car/p p2 qos=1 tag=4
        at 1200
        drains
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
            connect 3 car expiry=60 user=anna
                3: connected present=true
                3: deliver a "s1" qos=1 tag=1
            at 1100
                3: deliver p "p1" qos=1 tag=32768
            pub 2 $client/car/p p2 qos=1 tag=4
                2: published 4 success
            at 1200
                3: deliver a "s2" qos=2 tag=2
                3: deliver p "p2" qos=1 tag=32769
            drains
                clients: 0 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 0, draining: 0 }; left: 1 realtime, 3 drained
        "#]],
    );
}

/// [PER-7] After a start nobody gets its backlog before the scheduler comes by: in order of return, so many per second, a client that
/// has nothing waiting at once.
#[test]
fn after_a_start_the_scheduler_comes_by() {
    let mut world = World::new(1, true, |config| config.limits.restart_sessions_per_second = 10);
    for client in ["a", "b", "c"] {
        with_backlog(&mut world, client, 2);
    }
    world.run("connect 1 none expiry=600\nsub 1 1 none/#:1\ndisc 1 lost\ncrash");
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
            2: deliver a/t "1" qos=1 tag=1 dup
            2: deliver a/t "2" qos=1 tag=2 dup
        connect 3 c expiry=600
            3: connected present=true
        connect 4 b expiry=600
            4: connected present=true
        connect 5 none expiry=600
            5: connected present=true
        connect 9 pub
            9: connected present=false
        pub 9 none/t now qos=1 tag=1
            5: deliver none/t "now" qos=1 tag=1
            9: published 1 success
        pub 9 b/t live qos=1 tag=2
            9: published 2 success
        due
            due in 100 ms
        at 1100
            3: deliver c/t "1" qos=1 tag=1 dup
            3: deliver c/t "2" qos=1 tag=2 dup
        due
            due in 100 ms
        drains
            clients: 1 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 3, draining: 0 }; left: 1 realtime, 4 drained
        at 1200
            4: deliver b/t "1" qos=1 tag=1 dup
            4: deliver b/t "2" qos=1 tag=2 dup
            4: deliver b/t "live" qos=1 tag=3
        due
            due in 86399800 ms
        disc 4 lost
        connect 6 b expiry=600
            6: connected present=true
            6: deliver b/t "1" qos=1 tag=1 dup
            6: deliver b/t "2" qos=1 tag=2 dup
            6: deliver b/t "live" qos=1 tag=3 dup
    "#]].assert_eq(&world.run(
        "connect 2 a expiry=600\nconnect 3 c expiry=600\nconnect 4 b expiry=600\nconnect 5 none expiry=600\nconnect 9 pub\npub 9 none/t now qos=1 tag=1\npub 9 b/t live qos=1 tag=2\ndue\nat 1100\ndue\ndrains\nat 1200\ndue\ndisc 4 lost\nconnect 6 b expiry=600",
    ));
}

/// Who leaves before its turn has it when it comes back, behind those that have waited meanwhile.
#[test]
fn who_leaves_before_its_turn_goes_to_the_end() {
    let mut world = World::new(1, true, |config| config.limits.restart_sessions_per_second = 10);
    for client in ["a", "b", "c"] {
        with_backlog(&mut world, client, 1);
    }
    world.run("crash");
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
            2: deliver a/t "1" qos=1 tag=1 dup
        connect 3 b expiry=600
            3: connected present=true
        connect 4 c expiry=600
            4: connected present=true
        connect 5 b expiry=600
            count taken_over 1
            3: close session_taken_over
            5: connected present=true
        at 1100
            4: deliver c/t "1" qos=1 tag=1 dup
        at 1200
            5: deliver b/t "1" qos=1 tag=1 dup
    "#]].assert_eq(&world.run(
        "connect 2 a expiry=600\nconnect 3 b expiry=600\nconnect 4 c expiry=600\nconnect 5 b expiry=600\nat 1100\nat 1200",
    ));
}

/// The other policy: clients pull once connected. A reload to it lets everybody go that waits.
#[test]
fn with_pull_a_client_gets_its_backlog_as_it_connects() {
    let mut world = World::new(1, true, |config| config.limits.restart_sessions_per_second = 1);
    for client in ["a", "b", "c"] {
        with_backlog(&mut world, client, 1);
    }
    world.run("crash");
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
            2: deliver a/t "1" qos=1 tag=1 dup
        connect 3 b expiry=600
            3: connected present=true
        drain delivery=pull
            3: deliver b/t "1" qos=1 tag=1 dup
        connect 4 c expiry=600
            4: connected present=true
            4: deliver c/t "1" qos=1 tag=1 dup
        due
            due in 86400000 ms
    "#]]
    .assert_eq(
        &world.run("connect 2 a expiry=600\nconnect 3 b expiry=600\ndrain delivery=pull\nconnect 4 c expiry=600\ndue"),
    );
}

/// Nothing is read from the old generation for who waits for its turn, and what is stored takes tokens as the rest does.
#[test]
fn a_stored_backlog_is_read_when_its_turn_has_come() {
    let mut world = World::new(1, true, |config| {
        config.limits.drained_per_second = 20;
        config.backlog_messages_max = 2;
    });
    with_backlog(&mut world, "a", 5);
    with_backlog(&mut world, "late", 1);
    world.run("retire\ncrash\ndrain sessions=1");
    expect![[r#"
        connect 2 a expiry=600
            2: connected present=true
            read backlog: 2 entries, end=false
            2: deliver a/t "1" qos=1 tag=1 dup
            2: deliver a/t "2" qos=1 tag=2 dup
            read backlog: 2 entries, end=false
        connect 3 late expiry=600
            3: connected present=true
        connect 9 pub
            9: connected present=false
        pub 9 late/t more qos=1 tag=1
            9: published 1 success
        retire
            ingest: 1 pending, 0 settled
        at 1100
            2: deliver a/t "3" qos=1 tag=3 dup
            2: deliver a/t "4" qos=1 tag=4 dup
            read backlog: 1 entries, end=true
        at 1200
            2: deliver a/t "5" qos=1 tag=5 dup
        pub 9 a/t live qos=1 tag=1
            2: deliver a/t "live" qos=1 tag=6
            9: published 1 success
        at 1300
        at 2000
            read backlog: 2 entries, end=false
            3: deliver late/t "1" qos=1 tag=1 dup
            read backlog: 0 entries, end=true
            3: deliver late/t "more" qos=1 tag=2 dup
        at 2100
    "#]].assert_eq(&world.run(
        "connect 2 a expiry=600\nconnect 3 late expiry=600\nconnect 9 pub\npub 9 late/t more qos=1 tag=1\nretire\nat 1100\nat 1200\npub 9 a/t live qos=1 tag=1\nat 1300\nat 2000\nat 2100",
    ));
}

/// An operator kicks a drain: whatever jitter, scheduler and rate say, the client is sent what had waited, and is realtime.
#[test]
fn a_drain_is_kicked() {
    let mut world = World::new(1, true, |config| {
        (config.limits.drained_per_second, config.limits.drain_jitter_ms, config.limits.restart_sessions_per_second) =
            (1, 60_000, 1);
    });
    with_backlog(&mut world, "a", 4);
    with_backlog(&mut world, "b", 4);
    expect![[r#"
        drain-now a
        connect 2 a expiry=600
            2: connected present=true
        drains
            clients: 1 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 4, awaiting: 4, draining: 0 }; left: 0 realtime, 0 drained
        drain-now nobody
        drain-now a
            2: deliver a/t "1" qos=1 tag=1
            2: deliver a/t "2" qos=1 tag=2
            2: deliver a/t "3" qos=1 tag=3
            2: deliver a/t "4" qos=1 tag=4
        drain-now a
        drains
            clients: 0 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 4, awaiting: 0, draining: 0 }; left: 4 realtime, 0 drained
        due
            due in 600000 ms
    "#]].assert_eq(&world.run("drain-now a\nconnect 2 a expiry=600\ndrains\ndrain-now nobody\ndrain-now a\ndrain-now a\ndrains\ndue"));
    expect![[r#"
        crash
        connect 9 pub clean
            9: connected present=false
        connect 2 a expiry=600
            2: connected present=true
        connect 3 b expiry=600
            3: connected present=true
        drain-now b
            3: deliver b/t "1" qos=1 tag=1 dup
            3: deliver b/t "2" qos=1 tag=2 dup
            3: deliver b/t "3" qos=1 tag=3 dup
            3: deliver b/t "4" qos=1 tag=4 dup
        drains
            clients: 1 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 4, draining: 0 }; left: 4 realtime, 0 drained
        disc 3 lost
        drains
            clients: 1 await, 0 drain; wait: LaneDepths { realtime: 0, offline: 0, awaiting: 4, draining: 0 }; left: 4 realtime, 0 drained
    "#]].assert_eq(&world.run("crash\nconnect 9 pub clean\nconnect 2 a expiry=600\nconnect 3 b expiry=600\ndrain-now b\ndrains\ndisc 3 lost\ndrains"));
}

/// The age of the oldest that waits is known without reading what is stored; of what was stored before a start that it is so.
#[test]
fn the_oldest_that_waits_has_an_age() {
    let mut world = World::new(1, true, |config| config.limits.drain_jitter_ms = 60_000);
    with_backlog(&mut world, "a", 2);
    expect![[r#"
        oldest
            oldest: realtime none, offline 0 ms, awaiting none, draining none
        at 3000
        pub 9 a/t later qos=1 tag=7
            9: published 7 success
        oldest
            oldest: realtime none, offline 2000 ms, awaiting none, draining none
        retire
            ingest: 3 pending, 0 settled
        oldest
            oldest: realtime none, offline 2000 ms, awaiting none, draining none
        at 5000
        connect 2 a expiry=600
            2: connected present=true
        oldest
            oldest: realtime none, offline none, awaiting 4000 ms, draining none
        drain-now a
            read backlog: 3 entries, end=true
            2: deliver a/t "1" qos=1 tag=1
            2: deliver a/t "2" qos=1 tag=2
            2: deliver a/t "later" qos=1 tag=3
        oldest
            oldest: realtime none, offline none, awaiting none, draining none
        ack 2 1
        ack 2 2
        oldest
            oldest: realtime none, offline none, awaiting none, draining none
    "#]].assert_eq(&world.run(
        "oldest\nat 3000\npub 9 a/t later qos=1 tag=7\noldest\nretire\noldest\nat 5000\nconnect 2 a expiry=600\noldest\ndrain-now a\noldest\nack 2 1\nack 2 2\noldest",
    ));
    let mut world = World::new(1, true, |config| config.limits.drain_jitter_ms = 60_000);
    with_backlog(&mut world, "a", 2);
    expect![[r#"
        retire
            ingest: 2 pending, 0 settled
        crash
        at 9000
        oldest
            oldest: realtime none, offline before the start, awaiting none, draining none
        connect 2 a expiry=600
            2: connected present=true
        drain-now a
            read backlog: 2 entries, end=true
            2: deliver a/t "1" qos=1 tag=1 dup
            2: deliver a/t "2" qos=1 tag=2 dup
        oldest
            oldest: realtime none, offline none, awaiting none, draining none
    "#]]
    .assert_eq(&world.run("retire\ncrash\nat 9000\noldest\nconnect 2 a expiry=600\ndrain-now a\noldest"));
}
