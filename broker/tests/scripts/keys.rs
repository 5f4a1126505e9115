//! Idempotency keys: a repeat is answered, not published again (DESIGN 3, `keys`).

use expect_test::{Expect, expect};
use postroad_broker::Config;

use crate::world::World;

/// A subscriber on connection 1, two connections of one user on 8 and 9.
fn world(shards: u16, durable: bool, tune: impl Fn(&mut Config)) -> World {
    let mut world = World::new(shards, durable, tune).open();
    world.run("connect 1 a expiry=600\n sub 1 1 t:2\n connect 8 p user=u\n connect 9 q user=u expiry=600");
    if durable { world.showing_log() } else { world }
}

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

/// Two shards: "a" lives on shard 0, "p" and "q" on others than `there`, and the key "k" of user "u" on `there`.
fn names(world: &World) -> String {
    let homes: Vec<_> = ["a", "p", "q"].map(|name| format!("{name}:{}", world.home(name))).into();
    let keys: Vec<_> = ["k", "l", "m", "n"].map(|key| format!("{key}:{}", world.home_of_key("u", key))).into();
    format!("{} {}", homes.join(" "), keys.join(" "))
}

#[test]
fn a_repeat_is_answered_as_the_first_publish_was() {
    check(
        world(1, true, |_| {}),
        "
        pub 8 t one qos=1 tag=1 key=k
        pub 8 t one qos=1 tag=2 key=k
        pub 9 t one qos=1 tag=3 key=k dup
        pub 9 t two qos=1 tag=4 key=k
        pub 9 nobody x qos=1 tag=5 key=l
        pub 9 nobody x qos=1 tag=6 key=l
        pub 9 t zero key=m
        pub 9 t zero key=m
        pub 9 t other key=m
        stats wishes
        ",
        expect![[r#"
            pub 8 t one qos=1 tag=1 key=k
                log 8 Key k ?
                log 9 Publish to 1
                log 10 Key k success
                1: deliver t "one" qos=1 tag=1
                8: published 1 success
            pub 8 t one qos=1 tag=2 key=k
                8: published 2 success
            pub 9 t one qos=1 tag=3 key=k dup
                9: published 3 success
            pub 9 t two qos=1 tag=4 key=k
                count key_conflict 1
                9: published 4 packet_identifier_in_use
            pub 9 nobody x qos=1 tag=5 key=l
                count no_subscriber 1
                log 11 Key l no_matching_subscribers
                9: published 5 no_matching_subscribers
            pub 9 nobody x qos=1 tag=6 key=l
                9: published 6 no_matching_subscribers
            pub 9 t zero key=m
                log 12 Key m ?
                1: deliver t "zero" qos=0
                log 13 Key m success
            pub 9 t zero key=m
            pub 9 t other key=m
                count key_conflict 1
            stats wishes
                keys=3 scheduled=0 bytes=0 under_way=0
        "#]],
    );
}
