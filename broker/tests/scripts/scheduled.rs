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
