//! What the specification says of a connection that is open, statement by statement: MQTT 5.0 by its numbers, "of 3.1.1" by
//! those of the older one. Statements about a single packet are tested in `protocol`, those about sessions in `broker`.

use std::num::NonZeroU16;

use expect_test::expect;
use postroad_base::SessionExpiry;
use postroad_session::mqtt::Limits;

use crate::script::{check, check_with, played};

/// [MQTT-3.1.2-21] [MQTT-3.2.2-21] [MQTT-3.2.2-22] [MQTT-3.1.2-22]; of 3.1.1 [MQTT-3.1.2-24]
#[test]
fn keep_alive() {
    let limits = Limits { keep_alive_max: 10, ..Limits::default() };
    check_with(
        &limits,
        "> 10 [ 'MQTT' 05 02 00 3c ( ) 'c' ]
         connected
         at 14999
         > c0 [ ]
         at 29998
         at 29999",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 3c ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 11 00 00 0e 21 04 00 27 00 10 00 00 22 00 40 13 00 0a
            at 14999
            > c0 [ ]
                < d0 00
            at 29998
            at 29999
                over: nothing came for 1.5 keep alives (keep_alive_timeout), Lost
                < e0 01 8d
        "#]],
    );
    check_with(
        &limits,
        "> 10 [ 'MQTT' 04 02 00 02 'c' ]
         connected
         at 2999
         at 3000",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 02 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            at 2999
            at 3000
                over: nothing came for 1.5 keep alives (keep_alive_timeout), Lost
        "#]],
    );
}

/// [MQTT-3.12.4-1]
#[test]
fn pings() {
    check(
        "> 10 [ 'MQIsdp' 03 02 00 00 'c' ]
         connected
         > c0 [ ]",
        expect![[r#"
            > 10 [ 'MQIsdp' 03 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > c0 [ ]
                < d0 00
        "#]],
    );
}

/// [MQTT-2.1.3-1] [MQTT-3.3.1-4] [MQTT-3.3.2-2] [MQTT-3.8.3-4] [MQTT-4.13.1-1] What is malformed ends the connection; MQTT 5 is told
/// why, [MQTT-4.8.0-1] of 3.1.1 is not.
#[test]
fn malformed_packets() {
    for (packet, reason) in [
        ("> 36 [ 't' 00 01 ( ) ]", "81"),
        ("> 30 [ 't/+' ( ) ]", "90"),
        ("> 80 [ 00 01 ( ) 't' 00 ]", "81"),
        ("> 82 [ 00 01 ( ) ]", "82"),
        ("> a2 [ 00 01 ( ) ]", "82"),
        ("> 32 [ 't' 00 00 ( ) ]", "82"),
        ("> 30 [ 't' ( 23 00 00 ) ]", "94"),
        ("> 40 [ 00 01 07 ]", "82"),
        ("> 82 [ 00 01 ( ) 't' 03 ]", "82"),
        ("> 82 [ 00 01 ( ) '$share/g/t' 04 ]", "82"),
        ("> 30 ff ff ff 7f", "95"),
        ("> 20 [ 00 00 ( ) ]", "82"),
        ("> 90 [ 00 01 ( ) 00 ]", "82"),
        ("> b0 [ 00 01 ( ) 00 ]", "82"),
        ("> d0 [ ]", "82"),
        ("> f2 [ ]", "81"),
    ] {
        let text = played(&format!("> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]\nconnected\n{packet}"));
        assert!(text.ends_with(&format!(", Lost\n    < e0 01 {reason}\n")), "{text}");
    }
    for packet in
        ["> 36 [ 't' 00 01 ]", "> 30 [ 't/+' ]", "> 82 [ 00 01 ]", "> 20 [ 00 00 ]", "> f0 [ ]", "> 38 [ 't' ]"]
    {
        let text = played(&format!("> 10 [ 'MQTT' 04 02 00 00 'c' ]\nconnected\n{packet}"));
        assert!(text.ends_with(", Lost\n"), "{text}");
    }
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] Flags, lifetime,
/// and everything that travels unchanged, in its order.
#[test]
fn publishes_come_in() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 30 [ 't' ( ) \"x\" ]
         > 31 [ 't' ( ) ]
         > 3a [ 't' 00 07 ( 01 01 02 00 00 00 0a 26 'k' '2' 26 'k' '1' ) \"x\" ]
         > 34 [ '$SYS/x' 00 08 ( 08 'answer' 09 'id' 03 'json' ) \"x\" ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 30 [ 't' ( ) "x" ]
                Publish t b"x" AtMostOnce tag None dup false retain false expires None
            > 31 [ 't' ( ) ]
                Publish t b"" AtMostOnce tag None dup false retain true expires None
            > 3a [ 't' 00 07 ( 01 01 02 00 00 00 0a 26 'k' '2' 26 'k' '1' ) "x" ]
                Publish t b"x" AtLeastOnce tag Some(7) dup true retain false expires Some(WallMillis(1010000)) 01012600016b0001322600016b000131
            > 34 [ '$SYS/x' 00 08 ( 08 'answer' 09 'id' 03 'json' ) "x" ]
                Publish $SYS/x b"x" ExactlyOnce tag Some(8) dup false retain false expires None 080006616e7377657209000269640300046a736f6e
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         > 33 [ 't' 00 01 \"x\" ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > 33 [ 't' 00 01 "x" ]
                Publish t b"x" AtLeastOnce tag Some(1) dup false retain true expires None
        "#]],
    );
}

/// [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-9] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-2.2.1-5]
#[test]
fn publishes_are_answered() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 32 [ 't' 00 01 ( ) ]
         > 34 [ 't' 00 02 ( ) ]
         > 3c [ 't' 00 02 ( ) ]
         published 1 10
         published 2 00
         published 2 00
         > 62 [ 00 02 ]
         completed 2 00
         > 62 [ 00 03 ]
         completed 3 92
         > 34 [ 't' 00 04 ( ) ]
         published 4 97",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 32 [ 't' 00 01 ( ) ]
                Publish t b"" AtLeastOnce tag Some(1) dup false retain false expires None
            > 34 [ 't' 00 02 ( ) ]
                Publish t b"" ExactlyOnce tag Some(2) dup false retain false expires None
            > 3c [ 't' 00 02 ( ) ]
                Publish t b"" ExactlyOnce tag Some(2) dup true retain false expires None
            published 1 10
                < 40 03 00 01 10
            published 2 00
                < 50 02 00 02
            published 2 00
                < 50 02 00 02
            > 62 [ 00 02 ]
                Release { tag: Tag(2) }
            completed 2 00
                < 70 02 00 02
            > 62 [ 00 03 ]
                Release { tag: Tag(3) }
            completed 3 92
                < 70 03 00 03 92
            > 34 [ 't' 00 04 ( ) ]
                Publish t b"" ExactlyOnce tag Some(4) dup false retain false expires None
            published 4 97
                < 50 03 00 04 97
        "#]],
    );
}

/// [MQTT-3.3.5-2] of 3.1.1: MQTT 3 can't be told of a refusal; it gets the plain answer.
#[test]
fn refused_publishes_of_mqtt_3() {
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         > 32 [ 't' 00 01 ]
         published 1 87
         > 34 [ 't' 00 02 ]
         published 2 97
         > 62 [ 00 02 ]
         completed 2 92",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > 32 [ 't' 00 01 ]
                Publish t b"" AtLeastOnce tag Some(1) dup false retain false expires None
            published 1 87
                < 40 02 00 01
            > 34 [ 't' 00 02 ]
                Publish t b"" ExactlyOnce tag Some(2) dup false retain false expires None
            published 2 97
                < 50 02 00 02
            > 62 [ 00 02 ]
                Release { tag: Tag(2) }
            completed 2 92
                < 70 02 00 02
        "#]],
    );
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1]
/// A reason code that the packet does not have is replaced. [MQTT-3.14.2-2] The server's DISCONNECT has no expiry.
#[test]
fn answers_have_codes_of_their_own() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 32 [ 't' 00 01 ( ) ]
         published 1 9a
         > 34 [ 't' 00 01 ( ) ]
         published 1 95
         completed 1 80
         release 1 80
         subscribed 2 00 9a
         unsubscribed 3 11 97
         close 86",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 32 [ 't' 00 01 ( ) ]
                Publish t b"" AtLeastOnce tag Some(1) dup false retain false expires None
            published 1 9a
                < 40 03 00 01 83
            > 34 [ 't' 00 01 ( ) ]
                Publish t b"" ExactlyOnce tag Some(1) dup false retain false expires None
            published 1 95
                < 50 03 00 01 83
            completed 1 80
                < 70 03 00 01 92
            release 1 80
                < 62 03 00 01 92
            subscribed 2 00 9a
                < 90 05 00 02 00 00 80
            unsubscribed 3 11 97
                < b0 05 00 03 00 11 80
            close 86
                < e0 01 87
        "#]],
    );
}

/// [MQTT-3.3.4-7] A PUBREC of success does not make room, a PUBCOMP does, and a QoS 1 publication under a
/// tag that QoS 2 uses is one more.
#[test]
fn receive_maximum() {
    let limits = Limits { receive_maximum: NonZeroU16::MIN.get() + 1, ..Limits::default() };
    check_with(
        &limits,
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 34 [ 't' 00 01 ( ) ]
         published 1 00
         > 32 [ 't' 00 01 ( ) ]
         published 1 00
         > 62 [ 00 01 ]
         completed 1 00
         > 32 [ 't' 00 01 ( ) ]
         > 32 [ 't' 00 02 ( ) ]
         > 30 [ 't' ( ) ]
         > 32 [ 't' 00 03 ( ) ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 00 02 27 00 10 00 00 22 00 40
            > 34 [ 't' 00 01 ( ) ]
                Publish t b"" ExactlyOnce tag Some(1) dup false retain false expires None
            published 1 00
                < 50 02 00 01
            > 32 [ 't' 00 01 ( ) ]
                Publish t b"" AtLeastOnce tag Some(1) dup false retain false expires None
            published 1 00
                < 40 02 00 01
            > 62 [ 00 01 ]
                Release { tag: Tag(1) }
            completed 1 00
                < 70 02 00 01
            > 32 [ 't' 00 01 ( ) ]
                Publish t b"" AtLeastOnce tag Some(1) dup false retain false expires None
            > 32 [ 't' 00 02 ( ) ]
                Publish t b"" AtLeastOnce tag Some(2) dup false retain false expires None
            > 30 [ 't' ( ) ]
                Publish t b"" AtMostOnce tag None dup false retain false expires None
            > 32 [ 't' 00 03 ( ) ]
                over: more unfinished publications than the receive maximum (receive_maximum_exceeded), Lost
                < e0 01 93
        "#]],
    );
}

/// [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.3.2-12] All that we said we take, none above; 0x82 if it stands for nothing.
#[test]
fn topic_aliases_in() {
    let connected = "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]\nconnected\n";
    check(
        &format!(
            "{connected}
             > 30 [ 'a' ( 23 00 40 ) ]
             > 30 [ '' ( 23 00 40 ) ]
             > 30 [ 'b' ( 23 00 40 ) ]
             > 30 [ '' ( 23 00 40 ) ]
             > 30 [ '' ( 23 00 3f ) ]"
        ),
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 30 [ 'a' ( 23 00 40 ) ]
                Publish a b"" AtMostOnce tag None dup false retain false expires None
            > 30 [ '' ( 23 00 40 ) ]
                Publish a b"" AtMostOnce tag None dup false retain false expires None
            > 30 [ 'b' ( 23 00 40 ) ]
                Publish b b"" AtMostOnce tag None dup false retain false expires None
            > 30 [ '' ( 23 00 40 ) ]
                Publish b b"" AtMostOnce tag None dup false retain false expires None
            > 30 [ '' ( 23 00 3f ) ]
                over: unknown topic alias (protocol_error), Lost
                < e0 01 82
        "#]],
    );
    check(
        &format!("{connected}> 30 [ 'a' ( 23 00 41 ) ]"),
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 30 [ 'a' ( 23 00 41 ) ]
                over: topic alias above the maximum (topic_alias_invalid), Lost
                < e0 01 94
        "#]],
    );
    check(
        &format!("{connected}> 30 [ '' ( ) ]"),
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 30 [ '' ( ) ]
                over: neither topic name nor topic alias (protocol_error), Lost
                < e0 01 82
        "#]],
    );
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11] The client's own maximum, and none if it said none.
#[test]
fn topic_aliases_out() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 22 00 01 ) 'c' ]
         connected
         deliver 0 0 a x
         deliver 1 4 a y
         deliver 0 0 b x",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 22 00 01 ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            deliver 0 0 a x
                < 30 08 00 01 61 03 23 00 01 78
            deliver 1 4 a y
                < 32 09 00 00 00 04 03 23 00 01 79
            deliver 0 0 b x
                < 30 05 00 01 62 00 78
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         deliver 0 0 a x
         deliver 0 0 a x",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            deliver 0 0 a x
                < 30 05 00 01 61 00 78
            deliver 0 0 a x
                < 30 05 00 01 61 00 78
        "#]],
    );
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] Nothing above the client's maximum packet size: a delivery counts as done, an alias
/// is not introduced if that is what does not fit, and without its answer a client can't go on.
#[test]
fn maximum_packet_size() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 27 00 00 00 14 22 00 05 ) 'c' ]
         connected
         deliver 0 0 topic 012345678
         deliver 0 0 topic 01234567890
         deliver 1 3 topic 01234567890
         deliver 2 4 topic 01234567890
         subscribed 1 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
         > c0 [ ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 27 00 00 00 14 22 00 05 ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            deliver 0 0 topic 012345678
                < 30 11 00 05 74 6f 70 69 63 00 30 31 32 33 34 35 36 37 38
            deliver 0 0 topic 01234567890
                too large
            deliver 1 3 topic 01234567890
                Acknowledge { tag: Tag(3), reason: PacketTooLarge }
            deliver 2 4 topic 01234567890
                Receive { tag: Tag(4), reason: PacketTooLarge }
            subscribed 1 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
            > c0 [ ]
                over: an answer would exceed the client's maximum packet size (packet_too_large), Lost
                < e0 01 95
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 27 00 00 00 04 15 'x' ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( 27 00 00 00 04 15 'x' ) 'c' ]
            refused: enhanced authentication is not supported (bad_authentication_method)
    "#]],
    );
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-4.7.1-1] [MQTT-4.7.1-2]
/// [MQTT-3.8.4-7] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-2.2.1-6] A filter that is none is refused in its place.
#[test]
fn subscribes() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 82 [ 00 01 ( 0b 05 ) 'a/+' 2d 'a#' 00 '$share/g/#' 02 '$share//x' 00 '' 00 ]
         subscribed 1 01 8f 02 8f 8f",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 82 [ 00 01 ( 0b 05 ) 'a/+' 2d 'a#' 00 '$share/g/#' 02 '$share//x' 00 '' 00 ]
                Subscribe { tag: Tag(1), filters: [Subscribe { filter: Ok("a/+"), options: SubscriptionOptions { qos: AtLeastOnce, no_local: true, retain_as_published: true, retain_handling: Never, identifier: Some(5) } }, Subscribe { filter: Err(TopicFilterInvalid), options: SubscriptionOptions { qos: AtMostOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: Some(5) } }, Subscribe { filter: Ok("$share/g/#"), options: SubscriptionOptions { qos: ExactlyOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: Some(5) } }, Subscribe { filter: Err(TopicFilterInvalid), options: SubscriptionOptions { qos: AtMostOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: Some(5) } }, Subscribe { filter: Err(TopicFilterInvalid), options: SubscriptionOptions { qos: AtMostOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: Some(5) } }] }
            subscribed 1 01 8f 02 8f 8f
                < 90 08 00 01 00 01 8f 02 8f 8f
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         > 82 [ 00 01 'a/+' 01 '#/a' 00 ]
         subscribed 1 01 8f",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > 82 [ 00 01 'a/+' 01 '#/a' 00 ]
                Subscribe { tag: Tag(1), filters: [Subscribe { filter: Ok("a/+"), options: SubscriptionOptions { qos: AtLeastOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: None } }, Subscribe { filter: Err(TopicFilterInvalid), options: SubscriptionOptions { qos: AtMostOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: None } }] }
            subscribed 1 01 8f
                < 90 04 00 01 01 80
        "#]],
    );
}

/// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]; of 3.1.1 [MQTT-3.10.4-4]
#[test]
fn unsubscribes() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > a2 [ 00 01 ( ) 'a' 'b#' ]
         unsubscribed 1 00 8f",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > a2 [ 00 01 ( ) 'a' 'b#' ]
                Unsubscribe { tag: Tag(1), filters: [Ok("a"), Err(TopicFilterInvalid)] }
            unsubscribed 1 00 8f
                < b0 05 00 01 00 00 8f
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         > a2 [ 00 01 'a' ]
         unsubscribed 1 11",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > a2 [ 00 01 'a' ]
                Unsubscribe { tag: Tag(1), filters: [Ok("a")] }
            unsubscribed 1 11
                < b0 02 00 01
        "#]],
    );
}

/// [MQTT-4.3.1-1] [MQTT-2.2.1-2] [MQTT-2.2.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.3.3-4] [MQTT-2.2.1-5]
/// Deliveries and the client's answers to them.
#[test]
fn deliveries() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         deliver 0 0 t x
         deliver 1 9 t x
         > 40 [ 00 09 ]
         deliver 1 9 t x
         > 40 [ 00 09 97 ]
         deliver 2 10 t x
         > 50 [ 00 0a 10 ]
         release 10 00
         > 70 [ 00 0a ]
         release 11 92
         > 70 [ 00 0b 92 ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            deliver 0 0 t x
                < 30 05 00 01 74 00 78
            deliver 1 9 t x
                < 32 07 00 01 74 00 09 00 78
            > 40 [ 00 09 ]
                Acknowledge { tag: Tag(9), reason: Success }
            deliver 1 9 t x
                < 32 07 00 01 74 00 09 00 78
            > 40 [ 00 09 97 ]
                Acknowledge { tag: Tag(9), reason: QuotaExceeded }
            deliver 2 10 t x
                < 34 07 00 01 74 00 0a 00 78
            > 50 [ 00 0a 10 ]
                Receive { tag: Tag(10), reason: NoMatchingSubscribers }
            release 10 00
                < 62 02 00 0a
            > 70 [ 00 0a ]
                Complete { tag: Tag(10) }
            release 11 92
                < 62 03 00 0b 92
            > 70 [ 00 0b 92 ]
                Complete { tag: Tag(11) }
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         deliver 0 0 t x
         deliver 2 9 t x
         > 50 [ 00 09 ]
         release 9 00
         > 70 [ 00 09 ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            deliver 0 0 t x
                < 30 04 00 01 74 78
            deliver 2 9 t x
                < 34 06 00 01 74 00 09 78
            > 50 [ 00 09 ]
                Receive { tag: Tag(9), reason: Success }
            release 9 00
                < 62 02 00 09
            > 70 [ 00 09 ]
                Complete { tag: Tag(9) }
        "#]],
    );
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-3] [MQTT-3.1.2-10]; of 3.1.1 [MQTT-3.14.4-1] to [MQTT-3.14.4-3]
#[test]
fn the_client_says_goodbye() {
    for (packet, expected) in [
        ("e0 [ ]", "Normal { expiry: None }"),
        ("e0 [ 00 ]", "Normal { expiry: None }"),
        ("e0 [ 04 ]", "WithWill { expiry: None }"),
        ("e0 [ 80 ( 1f 'tired' ) ]", "WithWill { expiry: None }"),
        ("e0 [ 00 ( 11 00 00 00 00 ) ]", "Normal { expiry: Some(SessionExpiry(0)) }"),
        ("e0 [ 00 ( 11 00 00 00 09 ) ]", "Normal { expiry: Some(SessionExpiry(9)) }"),
    ] {
        let text = played(&format!("> 10 [ 'MQTT' 05 02 00 00 ( 11 00 00 00 01 ) 'c' ]\nconnected\n> {packet}"));
        assert!(text.ends_with(&format!(", {expected}\n")), "{text}");
    }
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         > e0 [ ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > e0 [ ]
                over: DISCONNECT (success), Normal { expiry: None }
        "#]],
    );
}

/// Section 3.14.2.2.2: who asked for no session can't have one at the end; who asked for one that we don't give may.
#[test]
fn the_expiry_of_disconnect() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > e0 [ 00 ( 11 00 00 00 09 ) ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > e0 [ 00 ( 11 00 00 00 09 ) ]
                over: DISCONNECT gives a session an expiry that CONNECT did not (protocol_error), Lost
                < e0 01 82
        "#]],
    );
    let limits = Limits { session_expiry_max: SessionExpiry(0), ..Limits::default() };
    check_with(
        &limits,
        "> 10 [ 'MQTT' 05 02 00 00 ( 11 00 00 00 0a ) 'c' ]
         connected
         > e0 [ 00 ( 11 00 00 00 09 ) ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 11 00 00 00 0a ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 13 00 00 10 11 00 00 00 00 21 04 00 27 00 10 00 00 22 00 40
            > e0 [ 00 ( 11 00 00 00 09 ) ]
                over: DISCONNECT (success), Normal { expiry: Some(SessionExpiry(0)) }
        "#]],
    );
}

/// [MQTT-3.14.2-1] [MQTT-3.14.2-3] [MQTT-3.1.2-29] [MQTT-4.13.2-1] The server says why, in words if they are wanted.
#[test]
fn the_server_says_goodbye() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         close 8e taken over",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            close 8e taken over
                < e0 0f 8e 0d 1f 00 0a 74 61 6b 65 6e 20 6f 76 65 72
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 17 00 ) 'c' ]
         connected
         close 8e taken over",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 17 00 ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            close 8e taken over
                < e0 01 8e
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         close 8e taken over",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            close 8e taken over
        "#]],
    );
}

/// [MQTT-3.3.4-6] Subscription identifiers come from the server only.
#[test]
fn subscription_identifier_of_a_client() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 30 [ 't' ( 0b 05 ) ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 30 [ 't' ( 0b 05 ) ]
                over: PUBLISH from a client with a subscription identifier (protocol_error), Lost
                < e0 01 82
        "#]],
    );
}

/// [MQTT-3.1.4-6] After a refused CONNECT nothing more is looked at or goes out. [MQTT-3.14.4-1] Nor after DISCONNECT, of
/// either side.
#[test]
fn nothing_comes_after_the_end() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         refused 87
         connected
         > 32 [ 't' 00 01 ( ) ]
         deliver 0 0 t x
         close 8e",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            refused 87
                < 20 03 00 87 00
            connected
            > 32 [ 't' 00 01 ( ) ]
            deliver 0 0 t x
            close 8e
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         close 8e
         > c0 [ ]
         deliver 0 0 t x
         subscribed 1 00
         close 8b",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            close 8e
                < e0 01 8e
            > c0 [ ]
            deliver 0 0 t x
            subscribed 1 00
            close 8b
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > e0 [ ]
         > 32 [ 't' 00 01 ( ) ]
         deliver 0 0 t x
         close 8e",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > e0 [ ]
                over: DISCONNECT (success), Normal { expiry: None }
            > 32 [ 't' 00 01 ( ) ]
            deliver 0 0 t x
            close 8e
        "#]],
    );
}

/// [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-1.5.7-1] [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]
/// [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2] Every text is UTF-8, without U+0000.
#[test]
fn texts_are_texts() {
    for bad in ["ff", "00", "c0", "80"] {
        let text = format!("00 01 {bad}");
        for connect in [
            format!("> 10 [ 'MQTT' 05 02 00 00 ( ) {text} ]"),
            format!("> 10 [ 'MQTT' 05 06 00 00 ( ) 'c' ( ) {text} 'bye' ]"),
            format!("> 10 [ 'MQTT' 05 82 00 00 ( ) 'c' {text} ]"),
            format!("> 10 [ 'MQTT' 05 02 00 00 ( 26 'k' {text} ) 'c' ]"),
            format!("> 10 [ 'MQTT' 05 02 00 00 ( 26 {text} 'v' ) 'c' ]"),
        ] {
            let played = played(&connect);
            assert!(played.ends_with("(malformed_packet)\n    < 20 03 00 81 00\n"), "{played}");
        }
        for packet in [
            format!("> 30 [ {text} ( ) ]"),
            format!("> 30 [ 't' ( 08 {text} ) ]"),
            format!("> 30 [ 't' ( 03 {text} ) ]"),
            format!("> 30 [ 't' ( 26 'k' {text} ) ]"),
            format!("> 82 [ 00 01 ( ) {text} 00 ]"),
            format!("> a2 [ 00 01 ( ) {text} ]"),
        ] {
            let played = played(&format!("> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]\nconnected\n{packet}"));
            assert!(played.ends_with("    < e0 01 81\n"), "{played}");
        }
    }
}

/// [MQTT-4.7.0-1] Wildcards are for filters. [MQTT-4.7.3-3] The longest topic is taken.
#[test]
fn topics() {
    for topic in ["#", "+", "a/+/b", "a/#", "a#"] {
        let text = played(&format!("> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]\nconnected\n> 30 [ '{topic}' ( ) ]"));
        assert!(text.ends_with("    < e0 01 90\n"), "{text}");
    }
    let longest = "x".repeat(65_535);
    let text = played(&format!("> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]\nconnected\n> 30 [ '{longest}' ( ) ]"));
    assert!(
        text.ends_with(&format!("Publish {longest} b\"\" AtMostOnce tag None dup false retain false expires None\n"))
    );
}

/// [MQTT-3.3.4-10] [MQTT-4.9.0-3] With the receive maximum used up everything else goes on.
#[test]
fn a_full_window_stops_only_publishes() {
    let limits = Limits { receive_maximum: 1, ..Limits::default() };
    check_with(
        &limits,
        "> 10 [ 'MQTT' 05 02 00 00 ( 21 00 01 ) 'c' ]
         connected
         deliver 1 1 t x
         > 34 [ 't' 00 01 ( ) ]
         published 1 00
         > c0 [ ]
         > 82 [ 00 02 ( ) 't' 00 ]
         subscribed 2 00
         > 40 [ 00 01 ]
         > 62 [ 00 01 ]
         completed 1 00",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 21 00 01 ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 1, will: None }
            connected
                < 20 0e 00 00 0b 21 00 01 27 00 10 00 00 22 00 40
            deliver 1 1 t x
                < 32 07 00 01 74 00 01 00 78
            > 34 [ 't' 00 01 ( ) ]
                Publish t b"" ExactlyOnce tag Some(1) dup false retain false expires None
            published 1 00
                < 50 02 00 01
            > c0 [ ]
                < d0 00
            > 82 [ 00 02 ( ) 't' 00 ]
                Subscribe { tag: Tag(2), filters: [Subscribe { filter: Ok("t"), options: SubscriptionOptions { qos: AtMostOnce, no_local: false, retain_as_published: false, retain_handling: Always, identifier: None } }] }
            subscribed 2 00
                < 90 04 00 02 00 00
            > 40 [ 00 01 ]
                Acknowledge { tag: Tag(1), reason: Success }
            > 62 [ 00 01 ]
                Release { tag: Tag(1) }
            completed 1 00
                < 70 02 00 01
        "#]],
    );
}
