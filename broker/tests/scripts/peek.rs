//! What waits for a client, shown to others, and acknowledged in its place `[REL-1]`, `[RCV-1]`.

use expect_test::{Expect, expect};

use crate::world::{World, durable};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// "anna" is away; one message is in flight to her, three wait, one was pushed.
fn away() -> World {
    let mut world = durable().open();
    world.run(
        "connect 1 anna user=anna expiry=600 max=1
         sub 1 1 a:2
         connect 9 pub
         pub 9 a 1 qos=1 tag=1
         pub 9 a 2 qos=1 tag=2
         pub 9 $client/anna/cmd 3 qos=1 tag=3
         pub 9 a 4 qos=2 tag=4
         disc 1 lost",
    );
    world
}

/// In memory: pages of the session, then of the registration. Nothing is taken by that.
#[test]
fn what_waits_in_memory_is_shown() {
    check(
        away(),
        "peek anna
         peek anna limit=2
         peek nobody
         peek pub
         connect 2 anna user=anna expiry=600
         peek anna",
        expect![[r#"
            peek anna
                pending 13-0-6 a "1" qos=1 in flight
                pending 13-0-7 a "2" qos=1
                pending 13-0-10 a "4" qos=2
                more behind 13-1-0
            peek anna limit=2
                pending 13-0-6 a "1" qos=1 in flight
                pending 13-0-7 a "2" qos=1
                more behind 13-0-7
            peek nobody
                nobody
            peek pub
                that was all
            connect 2 anna user=anna expiry=600
                2: connected present=true
                2: deliver a "1" qos=1 tag=1 dup
                2: deliver a "2" qos=1 tag=2
                2: deliver cmd "3" qos=1 tag=32768
                2: deliver a "4" qos=2 tag=3
            peek anna
                pending 13-0-6 a "1" qos=1 in flight
                pending 13-0-7 a "2" qos=1 in flight
                pending 13-0-10 a "4" qos=2 in flight
                more behind 13-1-0
        "#]],
    );
}

/// What is stored is read beside the turn of the queue.
#[test]
fn what_is_stored_is_shown() {
    let mut world = away();
    world.run("retire\npub 9 a 5 qos=1 tag=5");
    check(
        world,
        "peek anna limit=2
         peek anna after=0-0-999
         clients 10
         connect 2 anna user=anna expiry=600
         peek anna",
        expect![[r#"
            peek anna limit=2
                read backlog: 2 entries, end=false
                pending 13-0-6 a "1" qos=1 in flight
                pending 13-0-7 a "2" qos=1
                more behind 13-0-7
            peek anna after=0-0-999
                read backlog: 1 entries, end=true
                pending 13-1-9 cmd "3" qos=1 push
                that was all
            clients 10
                anna anna session 1 subscriptions 3+1 (8 B) Connection 1+0 (17 B)
                pub - here session 0 subscriptions 0+0 (0 B)
            connect 2 anna user=anna expiry=600
                2: connected present=true
                2: deliver a "1" qos=1 tag=1 dup
                read backlog: 2 entries, end=true
                read backlog: 1 entries, end=true
                2: deliver a "2" qos=1 tag=2
                2: deliver a "4" qos=2 tag=3
                2: deliver a "5" qos=1 tag=4
                2: deliver cmd "3" qos=1 tag=32768
            peek anna
                pending 13-0-6 a "1" qos=1 in flight
                pending 13-0-7 a "2" qos=1 in flight
                pending 13-0-10 a "4" qos=2 in flight
                pending 13-0-12 a "5" qos=1 in flight
                more behind 13-1-0
        "#]],
    );
}

/// Pages, one after the other, find each delivery once, wherever it stands.
#[test]
fn pages_find_each_once() {
    for retirements in 0..4 {
        for limit in [1, 2, 3, 100] {
            let mut world = World::new(1, true, |config| config.backlog_messages_max = 2);
            world.run("connect 1 anna expiry=600\nsub 1 1 a:1\ndisc 1 lost\nconnect 9 pub");
            for n in 1..=12 {
                let priority = ["normal", "high", "low"][n % 3];
                world.run(&format!("pub 9 a {n:02} qos=1 tag={n} priority={priority}"));
                if n % 4 == 0 && n / 4 <= retirements {
                    world.run("retire");
                }
            }
            let (mut seen, mut after) = (Vec::new(), String::new());
            for _ in 0..30 {
                let output = world.run(&format!("peek anna limit={limit}{after}"));
                let payloads = output.lines().filter(|line| line.contains("pending"));
                seen.extend(payloads.map(|line| line.split('"').nth(1).unwrap().to_owned()));
                let Some((_, next)) = output.split_once("more behind ") else { break };
                after = format!(" after={}", next.trim());
            }
            let all: Vec<String> = (1..=12).map(|n| format!("{n:02}")).collect();
            assert_eq!(seen, all, "retirements {retirements}, limit {limit}");
        }
    }
}

/// In flight, waiting, stored, pushed: each is over once it is named, for good; who names it again is told that it is gone.
#[test]
fn what_is_acknowledged_is_over() {
    for retire in ["", "retire"] {
        for crash in ["", "crash\nconnect 9 pub"] {
            let mut world = away();
            world.run(retire);
            let output = world.run("peek anna\npeek anna after=0-0-999999");
            let ids: Vec<&str> = output.lines().filter_map(|line| line.trim().strip_prefix("pending ")).collect();
            let id = |payload: &str| {
                let line = ids.iter().find(|line| line.contains(&format!("\"{payload}\""))).unwrap();
                line.split(' ').next().unwrap().to_owned()
            };
            let (one, two, three) = (id("1"), id("2"), id("3"));
            let output = world.run(&format!("end anna {three} {one} {two} 0-0-4242"));
            let line = output.lines().find(|line| line.trim().starts_with("ended")).unwrap();
            assert!([&one, &two, &three].iter().all(|id| line.contains(*id)) && !line.contains("4242"), "{line}");
            let output = world.run(&format!("end anna {two}"));
            assert!(output.contains("ended []"), "{output}");
            world.run(retire);
            world.run(crash);
            let output = world.run("connect 2 anna user=anna expiry=600\nrec 2 1\ncomp 2 1\nclients 10");
            assert_eq!(output.matches("deliver").count(), 1, "{retire} {crash}: {output}");
            assert!(output.contains("deliver a \"4\""), "{output}");
        }
    }
}

/// A retirement that stores while an empty portion is on its way: what it has stored is not gone, nor left out of a page.
#[test]
fn what_is_stored_behind_an_empty_portion_is_there() {
    let begun = || {
        let mut world = durable().open();
        world.run(
            "connect 1 anna expiry=600
             sub 1 1 a:1
             disc 1 lost
             connect 2 bob expiry=600
             sub 2 1 b:1
             disc 2 lost
             connect 9 pub
             pub 9 a 1 qos=1 tag=1
             pub 9 b of-bob qos=1 tag=2
             pub 9 a 2 qos=1 tag=3
             retire
             end anna 13-0-11 13-0-13
             retire
             pub 9 a 3 qos=1 tag=4",
        );
        world
    };
    check(
        begun(),
        "peek anna
         reading
         end anna 13-0-12 13-0-16
         retire
         read
         peek anna",
        expect![[r#"
            peek anna
                read backlog: 0 entries, end=true
                pending 13-0-16 a "3" qos=1
                that was all
            reading
            end anna 13-0-12 13-0-16
                read backlog: 0 entries, end=true
            retire
                ingest: 1 pending, 0 settled
            read
                read backlog: 1 entries, end=true
                ended [13-0-16]
            peek anna
                read backlog: 1 entries, end=true
                that was all
        "#]],
    );
    check(
        begun(),
        "reading
         peek anna after=13-0-11
         retire
         read",
        expect![[r#"
            reading
            peek anna after=13-0-11
                read backlog: 0 entries, end=true
            retire
                ingest: 1 pending, 0 settled
            read
                read backlog: 1 entries, end=true
                pending 13-0-16 a "3" qos=1
                that was all
        "#]],
    );
}

/// Seen after 200 kills: all that had been stored of a device that stays away was over, and after the next start one delivery of no bytes
/// was counted as waiting, for as long as the device did not come.
#[test]
fn what_is_over_is_not_counted_after_a_crash() {
    let mut world = away();
    world.run("retire");
    let output = world.run("peek anna\npeek anna after=0-0-999999");
    let pending = output.lines().filter_map(|line| line.trim().strip_prefix("pending "));
    let ids: Vec<&str> = pending.map(|line| line.split(' ').next().unwrap()).collect();
    let output = world.run(&format!("end anna {}\npub 9 b x qos=1 tag=9\nretire\ncrash\nclients 10", ids.join(" ")));
    assert!(output.contains("session 1 subscriptions 0+0 (0 B) Connection 0+0 (0 B)"), "{output}");
}

/// A client that is here acknowledges by itself; what is another's is not touched.
#[test]
fn only_what_is_the_clients_own_and_only_while_it_is_away() {
    let mut world = away();
    let output = world.run("peek anna");
    let id = output.split("pending ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    world.run("connect 3 berta expiry=600\ndisc 3 lost");
    assert!(world.run(&format!("end berta {id}")).contains("ended []"));
    assert!(world.run(&format!("end nobody {id}")).contains("NoClient"));
    world.run("connect 2 anna user=anna expiry=600");
    assert!(world.run(&format!("end anna {id}")).contains("Connected"));
}

/// At QoS 2 the client may have it and knows its tag: only the release is left, now and after a crash, and nothing else goes under
/// that tag before.
#[test]
fn at_qos_2_the_release_is_left() {
    for crash in ["", "crash"] {
        let mut world = durable().open();
        world.run(
            "connect 1 anna user=anna expiry=600
             sub 1 1 a:2
             connect 9 pub
             pub 9 a 1 qos=2 tag=1
             disc 1 lost",
        );
        let shown = world.run("peek anna");
        let id = shown.split_whitespace().skip_while(|word| *word != "pending").nth(1).unwrap().to_owned();
        let ended = world.run(&format!("end anna {id}"));
        assert!(ended.contains(&format!("ended [{id}]")), "{ended}");
        assert!(!world.run(&format!("end anna {id}")).contains(&format!("ended [{id}]")), "it is over");
        let returned = world.run(&format!("{crash}\nconnect 2 anna user=anna expiry=600"));
        assert!(returned.contains("2: release 1 success") && !returned.contains("deliver"), "{returned}");
        assert!(!world.run("comp 2 1").contains("unknown_tag"));
    }
}

/// The same where the crash comes before the retirement that would have forgotten them: who had taken all that was stored and stays away
/// had a queue that was full of nothing, and its publishers were refused.
#[test]
fn what_is_over_does_not_fill_a_queue_after_a_crash() {
    let mut world = World::new(1, true, |config| config.limits.queue_messages_max = 3).open();
    let output = world.run(
        "
        connect 1 anna expiry=600
        sub 1 1 a:1
        disc 1 lost
        connect 9 pub
        pub 9 a 1 qos=1 tag=1
        pub 9 a 2 qos=1 tag=2
        pub 9 a 3 qos=1 tag=3
        retire
        connect 2 anna expiry=600
        ack 2 1
        ack 2 2
        ack 2 3
        disc 2 lost
        crash
        connect 9 pub
        clients 10
        pub 9 a 4 qos=1 tag=4",
    );
    assert!(output.contains("anna - session 1 subscriptions 0+0 (0 B)"), "{output}");
    assert!(output.trim_end().ends_with("9: published 4 success"), "{output}");
}

/// Found by kill -9 in the midst of everything: what was in flight at QoS 2, and stored, when the server was killed, was shown again after
/// support had acknowledged it.
#[test]
fn what_was_acknowledged_without_its_body_is_not_shown_again() {
    let mut world = durable().open();
    world.run(
        "connect 1 anna user=anna expiry=600
         sub 1 1 a:2
         connect 9 pub
         pub 9 a 1 qos=2 tag=1
         retire
         crash",
    );
    let shown = |world: &mut World| world.run("peek anna").matches("pending").count();
    assert_eq!(shown(&mut world), 1);
    let pending = world.run("peek anna");
    let id = pending.split_whitespace().skip_while(|word| *word != "pending").nth(1).unwrap().to_owned();
    world.run(&format!("end anna {id}"));
    assert_eq!(shown(&mut world), 0, "{id}");
    world.run("crash");
    assert_eq!(shown(&mut world), 0, "after another crash");
    let back = world.run("connect 2 anna user=anna expiry=600\n comp 2 1\n peek anna");
    assert!(back.contains("release") && !back.contains("deliver") && !back.contains("pending"), "{back}");
}
