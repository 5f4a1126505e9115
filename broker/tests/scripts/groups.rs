//! Consumer groups: what is published is kept for applications, leased, acknowledged, given again, buried (PER-6).

use crate::world::{World, durable, memory};
use expect_test::{Expect, expect};

fn check(mut world: World, script: &str, expected: Expect) {
    expected.assert_eq(&world.run(script));
}

fn begun(mut world: World) -> World {
    world.run("group orders set t/#\nconnect 9 pub");
    world.showing_log()
}

/// One record each for what comes and what is done; what is published at QoS 0 is kept, too.
#[test]
fn what_is_published_is_taken_and_acknowledged() {
    check(
        durable().open().showing_log(),
        "
        group orders set t/# u
        connect 9 pub
        pub 9 t/1 one qos=1 tag=1
        pub 9 u two qos=2 tag=2
        pub 9 t/3 three
        groups
        group orders take limit=2
        groups
        group orders take
        group orders ack 0-0-4-7-1 0-0-6-7-1
        group orders ack 0-0-4-7-1 1-0-5-7-1
        group orders take
        groups
        stats
        ",
        expect![[r#"
            group orders set t/# u
                log 1 QueueBegin
                log 2 Subscribe
                log 3 Subscribe
                group 1: Set { is_new: true }
            connect 9 pub
                9: connected present=false
            pub 9 t/1 one qos=1 tag=1
                log 4 Publish to 1
                9: published 1 success
            pub 9 u two qos=2 tag=2
                log 5 Publish to 1
                9: published 2 success
            pub 9 t/3 three
                log 6 Publish to 1
            groups
                orders ["t/#", "u"]: 3+0 (18 B), oldest 1001000, 0 wait
            group orders take limit=2
                group 2: 2 leased
                    0-0-4-7-1 t/1 "one"
                    0-0-5-7-1 u "two"
            groups
                orders ["t/#", "u"]: 1+2 (18 B), oldest 1001000, 0 wait
            group orders take
                group 3: 1 leased
                    0-0-6-7-1 t/3 "three"
            group orders ack 0-0-4-7-1 0-0-6-7-1
                log 7 Settle 4 Acknowledged
                log 8 Settle 6 Acknowledged
                group 4: Answered([true, true])
            group orders ack 0-0-4-7-1 1-0-5-7-1
                count late_acknowledgement 2
                group 5: Answered([false, false])
            group orders take
                group 6: 0 leased
            groups
                orders ["t/#", "u"]: 0+1 (4 B), oldest 1001000, 0 wait
            stats
                sessions=1 registrations=0 connections=1 subscriptions=2 retained=0 queued=0 bytes=4 inflight=1 log=8
        "#]],
    );
}

/// Who waits gets what comes, in the order in which they came; who has waited long enough hears that there is nothing.
#[test]
fn consumers_share_what_comes() {
    check(
        begun(durable().open()),
        "
        group orders take wait=5000 limit=1
        group orders take wait=3000 limit=1
        group orders take wait=100
        at 1100
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        pub 9 t/1 three qos=1 tag=3
        group orders take wait=5000
        group orders take wait=1000
        due
        at 2100
        ",
        expect![[r#"
            group orders take wait=5000 limit=1
            group orders take wait=3000 limit=1
            group orders take wait=100
            at 1100
                group 4: 0 leased
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                group 3: 1 leased
                    0-0-4-7-1 t/1 "two"
                9: published 2 success
            pub 9 t/1 three qos=1 tag=3
                log 5 Publish to 1
                9: published 3 success
            group orders take wait=5000
                group 5: 1 leased
                    0-0-5-7-1 t/1 "three"
            group orders take wait=1000
            due
                due in 1000 ms
            at 2100
                group 6: 0 leased
        "#]],
    );
}

/// Nothing is given before its commit, nor is an acknowledgement answered before.
#[test]
fn persist_then_give_and_answer() {
    check(
        begun(durable().open()),
        "
        hold
        group orders take wait=5000
        pub 9 t/1 one qos=1 tag=1
        commit
        group orders ack 0-0-3-7-1
        commit
        ",
        expect![[r#"
            hold
            group orders take wait=5000
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
            commit
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
                9: published 1 success
            group orders ack 0-0-3-7-1
                log 4 Settle 3 Acknowledged
            commit
                group 3: Answered([true])
        "#]],
    );
}

/// A lease that is over: the next consumer gets it, as another attempt. The first one may still acknowledge it, for the work is
/// done, and the second one hears that it is over: one outcome. To refuse or to extend it is for the one who has it.
#[test]
fn a_lease_ends_by_itself() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        group orders take lease=1000
        group orders extend 0-0-4-7-1 lease=5000
        due
        at 2000
        group orders take
        group orders refuse 0-0-3-7-1
        group orders extend 0-0-3-7-1 lease=5000
        group orders ack 0-0-3-7-1
        group orders ack 0-0-3-7-2
        groups
        letters
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            group orders take lease=1000
                group 2: 2 leased
                    0-0-3-7-1 t/1 "one"
                    0-0-4-7-1 t/1 "two"
            group orders extend 0-0-4-7-1 lease=5000
                group 3: Answered([true])
            due
                due in 1000 ms
            at 2000
                count lease_over 1
            group orders take
                log 5 Attempt 3 2
                group 4: 1 leased
                    0-0-3-7-2 t/1 "one" maybe again
            group orders refuse 0-0-3-7-1
                group 5: Answered([false])
            group orders extend 0-0-3-7-1 lease=5000
                group 6: Answered([false])
            group orders ack 0-0-3-7-1
                log 6 Settle 3 Acknowledged
                group 7: Answered([true])
            group orders ack 0-0-3-7-2
                count late_acknowledgement 1
                group 8: Answered([false])
            groups
                orders ["t/#"]: 0+1 (6 B), oldest 1001000, 0 wait
            letters
                that was all
        "#]],
    );
}

/// A refused one waits, twice as long each time, or as long as its consumer says; what was wrong stands in its letter once it
/// has been given too often.
#[test]
fn a_refused_one_is_given_again_and_dies_in_the_end() {
    check(
        begun(World::new(1, true, |config| config.limits.retry.attempts_max = 4).open()),
        "
        pub 9 t/1 one qos=1 tag=1
        group orders take
        group orders refuse 0-0-3-7-1 why=busy
        group orders take wait=60000
        due
        at 2000
        group orders refuse 0-0-3-7-2
        due
        at 4000
        group orders take
        group orders refuse 0-0-3-7-3 after=0
        group orders take
        group orders refuse 0-0-3-7-4 why=broken
        group orders take
        letters
        letter 0-1-8 requeue
        group orders take
        letters
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            group orders take
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            group orders refuse 0-0-3-7-1 why=busy
                count refused_by_receiver 1
                group 3: Answered([true])
            group orders take wait=60000
            due
                due in 1000 ms
            at 2000
                log 4 Attempt 3 2
                group 4: 1 leased
                    0-0-3-7-2 t/1 "one" maybe again
            group orders refuse 0-0-3-7-2
                count refused_by_receiver 1
                group 5: Answered([true])
            due
                due in 2000 ms
            at 4000
            group orders take
                log 5 Attempt 3 3
                group 6: 1 leased
                    0-0-3-7-3 t/1 "one" maybe again
            group orders refuse 0-0-3-7-3 after=0
                count refused_by_receiver 1
                group 7: Answered([true])
            group orders take
                log 6 Attempt 3 4
                group 8: 1 leased
                    0-0-3-7-4 t/1 "one" maybe again
            group orders refuse 0-0-3-7-4 why=broken
                count refused_by_receiver 1
                log 7 QueueBegin
                log 8 Transfer 3 Attempts
                group 9: Answered([true])
            group orders take
                group 10: 0 leased
            letters
                letter 0-1-8 t/1 "one" qos=1 of orders attempts code=0 attempts=4 requeues=0 at 1004000 error="broken"
                that was all
            letter 0-1-8 requeue
                log 9 Transfer 8 Requeued
                done, as a new message
            group orders take
                group 11: 1 leased
                    0-0-9-7-1 t/1 "one"
            letters
                that was all
        "#]],
    );
}

/// Its publisher may wish another limit, and what is buried is a letter at once.
#[test]
fn wishes_count_and_a_burial_is_at_once() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1 attempts=1
        pub 9 t/1 two qos=1 tag=2 age=1500
        pub 9 t/1 three qos=1 tag=3
        group orders take lease=1000
        group orders bury 0-0-5-7-1 why=unreadable
        at 2000
        group orders take lease=1000
        at 3000
        group orders take
        letters
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1 attempts=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2 age=1500
                log 4 Publish to 1
                9: published 2 success
            pub 9 t/1 three qos=1 tag=3
                log 5 Publish to 1
                9: published 3 success
            group orders take lease=1000
                group 2: 3 leased
                    0-0-3-7-1 t/1 "one"
                    0-0-4-7-1 t/1 "two"
                    0-0-5-7-1 t/1 "three"
            group orders bury 0-0-5-7-1 why=unreadable
                count refused_by_receiver 1
                log 6 QueueBegin
                log 7 Transfer 5 Refused
                group 3: Answered([true])
            at 2000
                count lease_over 1
                log 8 Transfer 3 Attempts
                count lease_over 1
            group orders take lease=1000
                log 9 Attempt 4 2
                group 4: 1 leased
                    0-0-4-7-2 t/1 "two" maybe again
            at 3000
                count lease_over 1
                log 10 Transfer 4 Unacknowledged
            group orders take
                group 5: 0 leased
            letters
                letter 0-1-7 t/1 "three" qos=1 of orders refused code=0 attempts=1 requeues=0 at 1001000 error="unreadable"
                letter 0-1-8 t/1 "one" qos=1 of orders attempts code=0 attempts=1 requeues=0 at 1002000
                letter 0-1-10 t/1 "two" qos=1 of orders unacknowledged code=0 attempts=2 requeues=0 at 1003000
                that was all
        "#]],
    );
}

/// A consumer that is gone gives back: the next one has it at once, from the second time on after a while.
#[test]
fn what_is_given_back_is_free_at_once() {
    check(
        begun(memory().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        group orders take wait=5000
        group orders take wait=5000
        group orders back 0-140737488355329-1-7-1 0-140737488355329-2-7-1
        group orders back 0-140737488355329-1-7-2
        group orders take
        due
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                9: published 2 success
            group orders take wait=5000
                group 2: 2 leased
                    0-140737488355329-1-7-1 t/1 "one"
                    0-140737488355329-2-7-1 t/1 "two"
            group orders take wait=5000
            group orders back 0-140737488355329-1-7-1 0-140737488355329-2-7-1
                group 4: Answered([true, true])
                group 3: 2 leased
                    0-140737488355329-1-7-2 t/1 "one" maybe again
                    0-140737488355329-2-7-2 t/1 "two" maybe again
            group orders back 0-140737488355329-1-7-2
                group 5: Answered([true])
            group orders take
                group 6: 0 leased
            due
                due in 2000 ms
        "#]],
    );
}

/// What was leased when the server crashed is given again, maybe for the second time; what was acknowledged is not. A consumer
/// that did not notice may still acknowledge. Attempts are in the log from the second one on.
#[test]
fn a_crash_ends_leases_and_nothing_else() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        pub 9 t/1 three qos=1 tag=3
        group orders take lease=1000
        group orders ack 0-0-3-7-1
        at 2000
        group orders take limit=1
        hold
        group orders ack 0-0-4-7-2
        crash
        flow
        groups
        group orders ack 0-0-5-7-1
        group orders take
        connect 9 pub
        pub 9 t/1 four qos=1 tag=1
        group orders take
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            pub 9 t/1 three qos=1 tag=3
                log 5 Publish to 1
                9: published 3 success
            group orders take lease=1000
                group 2: 3 leased
                    0-0-3-7-1 t/1 "one"
                    0-0-4-7-1 t/1 "two"
                    0-0-5-7-1 t/1 "three"
            group orders ack 0-0-3-7-1
                log 6 Settle 3 Acknowledged
                group 3: Answered([true])
            at 2000
                count lease_over 2
            group orders take limit=1
                log 7 Attempt 4 2
                group 4: 1 leased
                    0-0-4-7-2 t/1 "two" maybe again
            hold
            group orders ack 0-0-4-7-2
                log 8 Settle 4 Acknowledged
            crash
            flow
            groups
                orders ["t/#"]: 2+0 (14 B), oldest 1001000, 0 wait
            group orders ack 0-0-5-7-1
                log 8 Settle 5 Acknowledged
                group 6: Answered([true])
            group orders take
                log 9 Attempt 4 3
                group 7: 1 leased
                    0-0-4-8-3 t/1 "two" maybe again
            connect 9 pub
                9: connected present=false
            pub 9 t/1 four qos=1 tag=1
                log 10 Publish to 1
                9: published 1 success
            group orders take
                group 8: 1 leased
                    0-0-10-8-1 t/1 "four"
        "#]],
    );
}

/// Only as many as a client may have in flight were said to be given again after a crash: a group's consumers may have more.
#[test]
fn whatever_a_consumer_may_have_had_says_so_after_a_crash() {
    check(
        begun(World::new(1, true, |config| config.limits.inflight_max = 1).open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        group orders take
        crash
        group orders take
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            group orders take
                group 2: 2 leased
                    0-0-3-7-1 t/1 "one"
                    0-0-4-7-1 t/1 "two"
            crash
            group orders take
                group 3: 2 leased
                    0-0-3-8-1 t/1 "one" maybe again
                    0-0-4-8-1 t/1 "two" maybe again
        "#]],
    );
}

/// One that had been given as often as it may be when the server crashed is not given once more.
#[test]
fn the_last_attempt_counts_across_a_crash() {
    check(
        begun(World::new(1, true, |config| config.limits.retry.attempts_max = 2).open()),
        "
        pub 9 t/1 one qos=1 tag=1
        group orders take lease=1000
        at 2000
        group orders take
        crash
        group orders take
        letters
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            group orders take lease=1000
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            at 2000
                count lease_over 1
            group orders take
                log 4 Attempt 3 2
                group 3: 1 leased
                    0-0-3-7-2 t/1 "one" maybe again
            crash
            group orders take
                log 5 QueueBegin
                log 6 Transfer 3 Attempts
                group 4: 0 leased
            letters
                letter 0-1-6 t/1 "one" qos=1 of orders attempts code=0 attempts=2 requeues=0 at 1002000
                that was all
        "#]],
    );
}

/// What is stored is read in portions when somebody takes, and settled where it is; leased ones are stored, too, and are there
/// after a crash.
#[test]
fn a_stored_backlog_is_taken_in_portions() {
    check(
        begun(World::new(1, true, |config| config.backlog_messages_max = 2).open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        pub 9 t/1 three qos=1 tag=3
        pub 9 t/1 four qos=1 tag=4
        group orders take limit=1
        retire
        pub 9 t/1 five qos=1 tag=5
        groups
        group orders take
        group orders ack 0-0-4-7-1
        group orders ack 0-0-3-7-1
        retire
        crash
        groups
        group orders take limit=1
        group orders ack 0-0-6-7-1
        group orders take
        group orders take
        group orders ack 0-0-5-7-1 0-0-7-7-1
        retire
        crash
        group orders take
        groups
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            pub 9 t/1 three qos=1 tag=3
                log 5 Publish to 1
                9: published 3 success
            pub 9 t/1 four qos=1 tag=4
                log 6 Publish to 1
                9: published 4 success
            group orders take limit=1
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            retire
                ingest: 4 pending, 0 settled
            pub 9 t/1 five qos=1 tag=5
                log 7 Publish to 1
                9: published 5 success
            groups
                orders ["t/#"]: 4+1 (34 B), oldest 1001000, 0 wait
            group orders take
                read backlog: 2 entries, end=false
                group 3: 2 leased
                    0-0-4-7-1 t/1 "two"
                    0-0-5-7-1 t/1 "three"
            group orders ack 0-0-4-7-1
                log 8 Settle 4 Acknowledged
                group 4: Answered([true])
            group orders ack 0-0-3-7-1
                log 9 Settle 3 Acknowledged
                group 5: Answered([true])
            retire
                ingest: 1 pending, 2 settled
            crash
            groups
                orders ["t/#"]: 3+0 (22 B), oldest -, 0 wait
            group orders take limit=1
                read backlog: 2 entries, end=false
                group 6: 1 leased
                    0-0-5-8-1 t/1 "three" maybe again
            group orders ack 0-0-6-7-1
                log 10 Settle 6 Acknowledged
                group 7: Answered([true])
            group orders take
                read backlog: 1 entries, end=true
                group 8: 1 leased
                    0-0-7-8-1 t/1 "five" maybe again
            group orders take
                group 9: 0 leased
            group orders ack 0-0-5-7-1 0-0-7-7-1
                log 11 Settle 5 Acknowledged
                log 12 Settle 7 Acknowledged
                group 10: Answered([true, true])
            retire
                ingest: 0 pending, 3 settled
            crash
            group orders take
                group 11: 0 leased
            groups
                orders ["t/#"]: 0+0 (0 B), oldest -, 0 wait
        "#]],
    );
}

/// A group that is deleted is gone with all that it has, leased or not, for good; who waits hears it.
#[test]
fn a_deleted_group_is_gone() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        group orders take limit=1
        retire
        group orders take limit=5
        group orders take wait=5000
        group orders delete
        group orders ack 0-0-3-7-1
        group orders take
        pub 9 t/1 three qos=1 tag=3
        at 90000
        crash
        groups
        group orders set t/#
        groups
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            group orders take limit=1
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            retire
                ingest: 2 pending, 0 settled
            group orders take limit=5
                read backlog: 1 entries, end=true
                group 3: 1 leased
                    0-0-4-7-1 t/1 "two"
            group orders take wait=5000
            group orders delete
                count group_deleted 2
                group 4: Refused(NoGroup)
                log 5 QueueEnd
                group 5: Deleted
            group orders ack 0-0-3-7-1
                group 6: Refused(NoGroup)
            group orders take
                group 7: Refused(NoGroup)
            pub 9 t/1 three qos=1 tag=3
                count no_subscriber 1
                9: published 3 no_matching_subscribers
            at 90000
            crash
            groups
            group orders set t/#
                log 6 QueueBegin
                log 7 Subscribe
                group 8: Set { is_new: true }
            groups
                orders ["t/#"]: 0+0 (0 B), oldest -, 0 wait
        "#]],
    );
}

/// Filters change as a whole: what was queued stays.
#[test]
fn filters_are_replaced() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        group orders set u v/+
        group orders set u v/+
        pub 9 t/1 two qos=1 tag=2
        pub 9 u three qos=1 tag=3
        groups
        crash
        groups
        group orders set
        group orders take
        group orders set $share/x/t
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            group orders set u v/+
                log 4 Subscribe
                log 5 Subscribe
                log 6 Unsubscribe
                group 2: Set { is_new: false }
            group orders set u v/+
                group 3: Set { is_new: false }
            pub 9 t/1 two qos=1 tag=2
                count no_subscriber 1
                9: published 2 no_matching_subscribers
            pub 9 u three qos=1 tag=3
                log 7 Publish to 1
                9: published 3 success
            groups
                orders ["u", "v/+"]: 2+0 (12 B), oldest 1001000, 0 wait
            crash
            groups
                orders ["u", "v/+"]: 2+0 (12 B), oldest 1001000, 0 wait
            group orders set
                log 8 Unsubscribe
                log 9 Unsubscribe
                group 4: Set { is_new: false }
            group orders take
                group 5: 2 leased
                    0-0-3-8-1 t/1 "one" maybe again
                    0-0-7-8-1 u "three" maybe again
            group orders set $share/x/t
                group 6: Refused(BadFilter)
        "#]],
    );
}

/// Callers are judged at each order, for all filters: by who they are, and by the rules of that moment.
#[test]
fn rules_say_who_may_consume() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        allow t/1 to=user:app
        group orders take
        allow t/# to=user:app
        group orders take as=eve
        group orders take
        group orders ack 0-0-3-7-1 as=eve
        group orders delete as=eve
        group orders set u
        group other set t/2
        group other set t/2 as=eve
        crash
        groups
        group orders take
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            allow t/1 to=user:app
            group orders take
                count not_authorized 1
                group 2: Refused(NotAuthorized)
            allow t/# to=user:app
            group orders take as=eve
                count not_authorized 1
                group 3: Refused(NotAuthorized)
            group orders take
                group 4: 1 leased
                    0-0-3-7-1 t/1 "one"
            group orders ack 0-0-3-7-1 as=eve
                count not_authorized 1
                group 5: Refused(NotAuthorized)
            group orders delete as=eve
                count not_authorized 1
                group 6: Refused(NotAuthorized)
            group orders set u
                count not_authorized 1
                group 7: Refused(NotAuthorized)
            group other set t/2
                log 4 QueueBegin
                log 5 Subscribe
                group 8: Set { is_new: true }
            group other set t/2 as=eve
                count not_authorized 1
                group 9: Refused(NotAuthorized)
            crash
            groups
                orders ["t/#"]: 1+0 (6 B), oldest 1001000, 0 wait
                other ["t/2"]: 0+0 (0 B), oldest -, 0 wait
            group orders take
                group 10: 1 leased
                    0-0-3-8-1 t/1 "one" maybe again
        "#]],
    );
}

/// Whoever is at a limit hears which.
#[test]
fn bounds_hold() {
    check(
        begun(
            World::new(1, true, |config| {
                config.limits.groups_max = 2;
                config.limits.groups_leases_max = 2;
                config.limits.groups_waiting_max = 1;
                config.limits.subscriptions_max = 2;
                config.limits.queue_messages_max = 3;
            })
            .open(),
        ),
        "
        group two set x
        group three set x
        group two set a b c
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        pub 9 t/1 three qos=1 tag=3
        pub 9 t/1 four qos=1 tag=4
        pub 9 t/1 four
        group orders take
        group orders take wait=5000
        group orders take wait=5000
        group orders ack 0-0-5-7-1
        disk full
        pub 9 t/1 five
        group four set x
        ",
        expect![[r#"
            group two set x
                log 3 QueueBegin
                log 4 Subscribe
                group 2: Set { is_new: true }
            group three set x
                group 3: Refused(TooManyGroups)
            group two set a b c
                count subscription_limit 1
                group 4: Refused(TooManyFilters)
            pub 9 t/1 one qos=1 tag=1
                log 5 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 6 Publish to 1
                9: published 2 success
            pub 9 t/1 three qos=1 tag=3
                log 7 Publish to 1
                9: published 3 success
            pub 9 t/1 four qos=1 tag=4
                count queue_overflow 1
                9: published 4 quota_exceeded
            pub 9 t/1 four
                count queue_overflow 1
            group orders take
                group 5: 2 leased
                    0-0-5-7-1 t/1 "one"
                    0-0-6-7-1 t/1 "two"
            group orders take wait=5000
            group orders take wait=5000
                group 7: Refused(TooManyWait)
            group orders ack 0-0-5-7-1
                log 8 Settle 5 Acknowledged
                group 8: Answered([true])
                group 6: 1 leased
                    0-0-7-7-1 t/1 "three"
            disk full
            pub 9 t/1 five
                count dropped_qos0_offline 1
            group four set x
                count disk_full 1
                group 9: Refused(DiskFull)
        "#]],
    );
}

/// What expires is not given, first or again.
#[test]
fn what_expires_is_not_given() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1 expires=500
        pub 9 t/1 two qos=1 tag=2 expires=2500
        group orders take limit=1 lease=1000
        at 2000
        group orders take lease=500
        at 4000
        group orders take
        groups
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1 expires=500
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2 expires=2500
                log 4 Publish to 1
                9: published 2 success
            group orders take limit=1 lease=1000
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            at 2000
                count lease_over 1
            group orders take lease=500
                count expired 1
                log 5 Settle 3 Expired
                group 3: 1 leased
                    0-0-4-7-1 t/1 "two"
            at 4000
                count lease_over 1
            group orders take
                count expired 1
                log 6 Settle 4 Expired
                group 4: 0 leased
            groups
                orders ["t/#"]: 0+0 (0 B), oldest -, 0 wait
        "#]],
    );
}

/// A group lives on one shard: others send it what comes to them, and confirm its filters before it is told that it has them.
#[test]
fn other_shards_send_what_a_group_wants() {
    check(
        World::new(3, true, |_| {}).open(),
        "
        stop 1
        group orders set t/#
        go
        connect 1 anna
        connect 2 bert
        connect 3 c
        pub 1 t/1 a qos=1 tag=1
        pub 2 t/1 b qos=1 tag=1
        pub 3 t/1 c qos=0
        group orders take
        crash
        connect 1 anna
        pub 1 t/1 d qos=1 tag=1
        group orders take
        stop 2
        stop 1
        stop 0
        group orders set u
        at 7000
        go
        groups
        ",
        expect![[r#"
            stop 1
            group orders set t/#
            go
                group 1: Set { is_new: true }
            connect 1 anna
                1: connected present=false
            connect 2 bert
                2: connected present=false
            connect 3 c
                3: connected present=false
            pub 1 t/1 a qos=1 tag=1
                1: published 1 success
            pub 2 t/1 b qos=1 tag=1
                2: published 1 success
            pub 3 t/1 c qos=0
            group orders take
                group 2: 3 leased
                    0-0-3-7-1 t/1 "a"
                    0-0-4-7-1 t/1 "b"
                    0-0-5-7-1 t/1 "c"
            crash
            connect 1 anna
                1: connected present=false
            pub 1 t/1 d qos=1 tag=1
                1: published 1 success
            group orders take
                group 3: 4 leased
                    0-0-3-8-1 t/1 "a" maybe again
                    0-0-4-8-1 t/1 "b" maybe again
                    0-0-5-8-1 t/1 "c" maybe again
                    0-0-6-8-1 t/1 "d"
            stop 2
            stop 1
            stop 0
            group orders set u
            at 7000
                group 4: Refused(Unconfirmed)
            go
            groups
                orders ["t/#"]: 0+4 (16 B), oldest 1001000, 0 wait
        "#]],
    );
}

/// Who waits and is gone stands in nobody's way: it is given nothing, and what was leased for it already waits again as if it had
/// not been given.
#[test]
fn who_is_gone_takes_nothing() {
    check(
        begun(durable().open()),
        "
        group orders take wait=60000
        group orders take wait=60000
        left orders 2
        left orders 99
        left nothing 3
        groups
        pub 9 t/1 one qos=1 tag=1
        group orders untaken 0-0-3-7-1
        groups
        group orders untaken 0-0-3-7-1
        group orders take
        group orders refuse 0-0-3-7-1 after=0
        group orders take
        group orders untaken 0-0-3-7-2
        group orders refuse 0-0-3-7-2
        group orders take
        crash
        group orders take
        ",
        expect![[r#"
            group orders take wait=60000
            group orders take wait=60000
            left orders 2
                group 2: 0 leased
            left orders 99
            left nothing 3
            groups
                orders ["t/#"]: 0+0 (0 B), oldest -, 1 wait
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                group 3: 1 leased
                    0-0-3-7-1 t/1 "one"
                9: published 1 success
            group orders untaken 0-0-3-7-1
                group 4: Answered([true])
            groups
                orders ["t/#"]: 1+0 (6 B), oldest 1001000, 0 wait
            group orders untaken 0-0-3-7-1
                group 5: Answered([false])
            group orders take
                group 6: 1 leased
                    0-0-3-7-1 t/1 "one"
            group orders refuse 0-0-3-7-1 after=0
                count refused_by_receiver 1
                group 7: Answered([true])
            group orders take
                log 4 Attempt 3 2
                group 8: 1 leased
                    0-0-3-7-2 t/1 "one" maybe again
            group orders untaken 0-0-3-7-2
                log 5 Attempt 3 1
                group 9: Answered([true])
            group orders refuse 0-0-3-7-2
                group 10: Answered([false])
            group orders take
                log 6 Attempt 3 2
                group 11: 1 leased
                    0-0-3-7-2 t/1 "one" maybe again
            crash
            group orders take
                log 7 Attempt 3 3
                group 12: 1 leased
                    0-0-3-8-3 t/1 "one" maybe again
        "#]],
    );
}

/// A lease that nobody got uses up no attempt: neither now nor after a crash; nor does its age begin.
#[test]
fn what_nobody_got_is_not_given_up() {
    check(
        begun(World::new(1, true, |config| config.limits.retry.attempts_max = 2).open()),
        "
        pub 9 t/1 one qos=1 tag=1 age=5000
        group orders take
        group orders untaken 0-0-3-7-1
        at 4000
        group orders take
        group orders refuse 0-0-3-7-1 after=0
        group orders take
        group orders untaken 0-0-3-7-2
        crash
        group orders take
        group orders untaken 0-0-3-8-2
        group orders take
        at 8000
        group orders refuse 0-0-3-8-2
        letters
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1 age=5000
                log 3 Publish to 1
                9: published 1 success
            group orders take
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            group orders untaken 0-0-3-7-1
                group 3: Answered([true])
            at 4000
            group orders take
                group 4: 1 leased
                    0-0-3-7-1 t/1 "one"
            group orders refuse 0-0-3-7-1 after=0
                count refused_by_receiver 1
                group 5: Answered([true])
            group orders take
                log 4 Attempt 3 2
                group 6: 1 leased
                    0-0-3-7-2 t/1 "one" maybe again
            group orders untaken 0-0-3-7-2
                log 5 Attempt 3 1
                group 7: Answered([true])
            crash
            group orders take
                log 6 Attempt 3 2
                group 8: 1 leased
                    0-0-3-8-2 t/1 "one" maybe again
            group orders untaken 0-0-3-8-2
                log 7 Attempt 3 1
                group 9: Answered([true])
            group orders take
                log 8 Attempt 3 2
                group 10: 1 leased
                    0-0-3-8-2 t/1 "one" maybe again
            at 8000
            group orders refuse 0-0-3-8-2
                count refused_by_receiver 1
                log 9 QueueBegin
                log 10 Transfer 3 Attempts
                group 11: Answered([true])
            letters
                letter 0-1-10 t/1 "one" qos=1 of orders attempts code=0 attempts=2 requeues=0 at 1008000
                that was all
        "#]],
    );
}

/// A name says in which run it was given: after a crash, which may forget attempts, nobody has the name of another's lease.
#[test]
fn names_are_not_given_again_after_a_crash() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        group orders take
        crash
        group orders take limit=1
        group orders refuse 0-0-3-7-1
        group orders extend 0-0-3-7-1 lease=9000
        group orders ack 0-0-3-7-1 0-0-4-7-1
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            group orders take
                group 2: 2 leased
                    0-0-3-7-1 t/1 "one"
                    0-0-4-7-1 t/1 "two"
            crash
            group orders take limit=1
                group 3: 1 leased
                    0-0-3-8-1 t/1 "one" maybe again
            group orders refuse 0-0-3-7-1
                group 4: Answered([false])
            group orders extend 0-0-3-7-1 lease=9000
                group 5: Answered([false])
            group orders ack 0-0-3-7-1 0-0-4-7-1
                log 5 Settle 3 Acknowledged
                log 6 Settle 4 Acknowledged
                group 6: Answered([true, true])
        "#]],
    );
}

/// Names that nobody was given count for nothing: another attempt, another start, what has not been leased yet.
#[test]
fn a_name_that_was_not_given_is_gone() {
    check(
        begun(durable().open()),
        "
        pub 9 t/1 one qos=1 tag=1
        pub 9 t/1 two qos=1 tag=2
        group orders take limit=1
        group orders ack 0-0-3-7-2 0-0-3-6-1 0-0-4-7-1 0-0-4-6-1 0-0-9-7-1
        groups
        crash
        connect 9 pub
        pub 9 t/1 three qos=1 tag=3
        group orders ack 0-0-3-7-2 0-0-4-8-1 0-0-7-7-1
        group orders take
        group orders ack 0-0-3-8-2 0-0-3-7-1 0-0-7-7-1 0-0-7-8-1
        groups
        ",
        expect![[r#"
            pub 9 t/1 one qos=1 tag=1
                log 3 Publish to 1
                9: published 1 success
            pub 9 t/1 two qos=1 tag=2
                log 4 Publish to 1
                9: published 2 success
            group orders take limit=1
                group 2: 1 leased
                    0-0-3-7-1 t/1 "one"
            group orders ack 0-0-3-7-2 0-0-3-6-1 0-0-4-7-1 0-0-4-6-1 0-0-9-7-1
                count late_acknowledgement 5
                group 3: Answered([false, false, false, false, false])
            groups
                orders ["t/#"]: 1+1 (12 B), oldest 1001000, 0 wait
            crash
            connect 9 pub
                9: connected present=false
            pub 9 t/1 three qos=1 tag=3
                log 5 Publish to 1
                9: published 3 success
            group orders ack 0-0-3-7-2 0-0-4-8-1 0-0-7-7-1
                count late_acknowledgement 3
                group 4: Answered([false, false, false])
            group orders take
                group 5: 3 leased
                    0-0-3-8-1 t/1 "one" maybe again
                    0-0-4-8-1 t/1 "two" maybe again
                    0-0-5-8-1 t/1 "three"
            group orders ack 0-0-3-8-2 0-0-3-7-1 0-0-7-7-1 0-0-7-8-1
                count late_acknowledgement 1
                log 6 Settle 3 Acknowledged
                count late_acknowledgement 2
                group 6: Answered([false, true, false, false])
            groups
                orders ["t/#"]: 0+2 (14 B), oldest 1001000, 0 wait
        "#]],
    );
}

/// Hostile orders found it: a group was deleted while another order for its filters waited for their commit, and what that was to drop
/// was dropped from whatever had its place by then, or from nothing, which stopped the server.
#[test]
fn a_group_that_is_deleted_while_it_is_set_is_gone() {
    check(
        begun(durable().open()),
        "
        hold
        group orders set u
        group orders delete
        commit
        connect 3 b expiry=600
        sub 3 1 t/#:1
        commit
        pub 9 t/1 one qos=1 tag=1
        commit
        group orders take
        ",
        expect![[r#"
            hold
            group orders set u
                log 3 Subscribe
            group orders delete
                log 4 QueueEnd
            commit
                group 2: Refused(NoGroup)
                group 3: Deleted
            connect 3 b expiry=600
                log 5 QueueBegin
            sub 3 1 t/#:1
                log 6 Subscribe
                log 7 RetainedDue
            commit
                3: connected present=false
                3: subscribed 1 granted_qos_1
                log 8 RetainedGiven
            pub 9 t/1 one qos=1 tag=1
                log 9 Publish to 1
            commit
                3: deliver t/1 "one" qos=1 tag=1
                9: published 1 success
            group orders take
                group 4: Refused(NoGroup)
        "#]],
    );
}

/// The age of what nobody got did not begin in this run; after a crash it began with the lease that was not given.
#[test]
fn what_nobody_got_after_a_crash_does_not_age() {
    let mut world = begun(durable().open());
    let output = world.run(
        "
        pub 9 t/1 one qos=1 tag=1 age=5000
        group orders take
        group orders refuse 0-0-3-7-1 after=0
        group orders take
        crash
        group orders take
        group orders untaken 0-0-3-8-3
        at 9000
        group orders take
        group orders refuse 0-0-3-8-3 after=0
        group orders take",
    );
    assert!(output.trim_end().ends_with("0-0-3-8-4 t/1 \"one\" maybe again"), "{output}");
}
