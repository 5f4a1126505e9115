//! What the specification says of how a connection opens, statement by statement: MQTT 5.0 by its numbers, "of 3.1.1" by
//! those of the older one. Statements about a single packet are tested in `protocol`, those about sessions in `broker`.

use expect_test::expect;
use postroad_base::{ReasonCode, SessionExpiry};
use postroad_session::mqtt::Limits;

use crate::common::handshake;
use crate::script::{check, check_with, packet, played};

/// [MQTT-3.1.0-1] Nobody but CONNECT opens; strangers get no byte.
#[test]
fn the_first_packet_is_connect() {
    check(
        "> c0 [ ]",
        expect![[r#"
        > c0 [ ]
            refused: first packet is not CONNECT (protocol_error)
    "#]],
    );
    check(
        "> 47 45 54 20 2f",
        expect![[r#"
        > 47 45 54 20 2f
            refused: first packet is not CONNECT (protocol_error)
    "#]],
    );
    check(
        "> 30 [ 't' \"x\" ]",
        expect![[r#"
        > 30 [ 't' "x" ]
            refused: first packet is not CONNECT (protocol_error)
    "#]],
    );
}

/// [INT-5] Found by the fuzz target `session`. A CONNECT with wrong flags in its first byte was told so (0x81) if the network
/// brought it whole, and was closed without a word if its first byte came alone, when the version to answer in was not
/// there. And the version of a CONNECT that ends too early was read from the bytes behind it, if they came with it. Now
/// neither is answered.
#[test]
fn the_answer_to_a_malformed_connect_does_not_depend_on_how_much_came() {
    let flags = "reserved flags of the fixed header are wrong";
    let short = "packet ends within a field";
    for (input, detail) in [
        ("> 11", flags),
        ("> 11 [ 'MQTT' 05 02 00 00 ( ) 'c' ]", flags),
        ("> 10 03 00 04 4d", short),
        ("> 10 03 00 04 4d 51 54 54 05 02 00 00 00", short),
    ] {
        assert_eq!(played(input), format!("{input}\n    refused: {detail} (malformed_packet)\n"));
    }
}

/// [MQTT-3.1.0-2]
#[test]
fn a_second_connect_is_a_protocol_error() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                over: second CONNECT (protocol_error), Lost
                < e0 01 82
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]
         connected
         > 10 [ 'MQTT' 04 02 00 00 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                over: second CONNECT (protocol_error), Lost
        "#]],
    );
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2], both versions: older ones are told 1, newer ones 0x84, strangers nothing.
#[test]
fn unknown_versions() {
    check(
        "> 10 [ 'MQTT' 06 02 00 00 ( ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 06 02 00 00 ( ) 'c' ]
            refused: protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0 (unsupported_protocol_version)
            < 20 03 00 84 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 03 02 00 00 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 03 02 00 00 'c' ]
            refused: protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0 (unsupported_protocol_version)
            < 20 02 00 01
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 84 02 00 00 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 84 02 00 00 'c' ]
            refused: protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0 (unsupported_protocol_version)
            < 20 02 00 01
    "#]],
    );
    check(
        "> 10 [ 'MQIsdp' 04 02 00 00 'c' ]",
        expect![[r#"
        > 10 [ 'MQIsdp' 04 02 00 00 'c' ]
            refused: protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0 (unsupported_protocol_version)
            < 20 02 00 01
    "#]],
    );
    check(
        "> 10 [ 'MQTTX' 05 02 00 00 ( ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTTX' 05 02 00 00 ( ) 'c' ]
            refused: protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0 (unsupported_protocol_version)
    "#]],
    );
    // The length of this one is the letter M.
    let name = "n".repeat(77 - 12);
    check(
        &format!("> 10 [ 'MQTT' 06 02 00 00 '{name}' ]"),
        expect![[r#"
        > 10 [ 'MQTT' 06 02 00 00 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn' ]
            refused: protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0 (unsupported_protocol_version)
            < 20 03 00 84 00
    "#]],
    );
}

/// [MQTT-3.1.2-3] [MQTT-3.1.4-1] A malformed CONNECT: MQTT 5 is told, MQTT 3 is not ([MQTT-3.1.4-1] of 3.1.1).
#[test]
fn malformed_connects() {
    check(
        "> 10 [ 'MQTT' 05 03 00 00 ( ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 03 00 00 ( ) 'c' ]
            refused: reserved flag of CONNECT is set (malformed_packet)
            < 20 03 00 81 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 03 00 00 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 04 03 00 00 'c' ]
            refused: reserved flag of CONNECT is set (malformed_packet)
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 06 00 00 ( ) 'c' ( ) 'a/#' 'w' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 06 00 00 ( ) 'c' ( ) 'a/#' 'w' ]
            refused: will topic is empty or holds a wildcard (topic_name_invalid)
            < 20 03 00 90 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 21 00 00 ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( 21 00 00 ) 'c' ]
            refused: receive maximum is 0 (protocol_error)
            < 20 03 00 82 00
    "#]],
    );
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] and of 3.1.1 [MQTT-3.1.3-6] to [MQTT-3.1.3-9]
#[test]
fn empty_client_identifiers() {
    check(
        "> 10 [ 'MQTT' 05 00 00 00 ( ) '' ]
         connected",
        expect![[r#"
            > 10 [ 'MQTT' 05 00 00 00 ( ) '' ]
                Connect { client: ClientId("given"), name: Assigned, clean_start: false, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 16 00 00 13 21 04 00 27 00 10 00 00 12 00 05 67 69 76 65 6e 22 00 40
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 02 00 00 '' ]
         connected",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 '' ]
                Connect { client: ClientId("given"), name: Assigned, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected
                < 20 02 00 00
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 00 00 00 '' ]",
        expect![[r#"
        > 10 [ 'MQTT' 04 00 00 00 '' ]
            refused: an empty client identifier needs a clean session (client_identifier_not_valid)
            < 20 02 00 02
    "#]],
    );
    check(
        "> 10 [ 'MQIsdp' 03 02 00 00 '' ]",
        expect![[r#"
        > 10 [ 'MQIsdp' 03 02 00 00 '' ]
            refused: an empty client identifier needs a clean session (client_identifier_not_valid)
            < 20 02 00 02
    "#]],
    );
}

/// [MQTT-3.1.3-5] Every letter that must be allowed is, and any other.
#[test]
fn client_identifiers_are_free() {
    check(
        "> 10 [ 'MQTT' 04 02 00 00 '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/+#' ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/+#' ]
                Connect { client: ClientId("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/+#"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
        "#]],
    );
}

/// [MQTT-3.2.2-2] [MQTT-3.2.2-3] and of 3.1.1 [MQTT-3.2.2-1] to [MQTT-3.2.2-3]; 3.1 keeps the byte reserved.
#[test]
fn session_present() {
    check(
        "> 10 [ 'MQTT' 05 00 00 00 ( 11 00 00 00 0a ) 'c' ]
         connected present",
        expect![[r#"
            > 10 [ 'MQTT' 05 00 00 00 ( 11 00 00 00 0a ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: false, expiry: SessionExpiry(10), receive_maximum: 65535, will: None }
            connected present
                < 20 0e 01 00 0b 21 04 00 27 00 10 00 00 22 00 40
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 00 00 00 'c' ]
         connected present",
        expect![[r#"
            > 10 [ 'MQTT' 04 00 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: false, expiry: SessionExpiry(4294967295), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected present
                < 20 02 01 00
        "#]],
    );
    check(
        "> 10 [ 'MQIsdp' 03 00 00 00 'c' ]
         connected present",
        expect![[r#"
            > 10 [ 'MQIsdp' 03 00 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: false, expiry: SessionExpiry(4294967295), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
            connected present
                < 20 02 00 00
        "#]],
    );
}

/// [MQTT-3.2.2-6] [MQTT-3.2.2-7] and of 3.1.1 [MQTT-3.2.2-4] to [MQTT-3.2.2-6]: MQTT 3 has six return codes.
#[test]
fn refusals() {
    for (reason, v3) in [("86", "04"), ("87", "05"), ("97", "03"), ("85", "02"), ("8a", "05"), ("88", "03")] {
        let v5 = format!("> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]\nrefused {reason}");
        let text = format!("    < 20 03 00 {reason} 00\n");
        assert!(played(&v5).ends_with(&text), "{reason}");
        let old = format!("> 10 [ 'MQTT' 04 02 00 00 'c' ]\nrefused {reason}");
        assert!(played(&old).ends_with(&format!("    < 20 02 00 {v3}\n")), "{reason}");
    }
}

/// [MQTT-3.2.2-8] A code that CONNACK does not have (0x8B, server shutting down) becomes one that it has.
#[test]
fn connack_has_codes_of_its_own() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         refused 8b",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            refused 8b
                < 20 03 00 88 00
        "#]],
    );
}

/// [MQTT-3.14.0-1] No DISCONNECT before a CONNACK of success, also if the session is taken over meanwhile.
#[test]
fn no_disconnect_before_connack() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         close 8e taken over",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            close 8e taken over
                < 20 03 00 80 00
        "#]],
    );
}

/// [MQTT-4.12.0-1] [MQTT-4.12.0-6] No method is known, and none can be begun later: no AUTH is answered by one.
/// [MQTT-3.15.1-1] Its reserved flags are judged first.
#[test]
fn enhanced_authentication() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 15 'SCRAM' ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( 15 'SCRAM' ) 'c' ]
            refused: enhanced authentication is not supported (bad_authentication_method)
            < 20 2e 00 8c 2b 1f 00 28 65 6e 68 61 6e 63 65 64 20 61 75 74 68 65 6e 74 69 63 61 74 69 6f 6e 20 69 73 20 6e 6f 74 20 73 75 70 70 6f 72 74 65 64
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         connected
         > f0 [ 19 ( 15 'SCRAM' ) ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            > f0 [ 19 ( 15 'SCRAM' ) ]
                over: AUTH without an authentication method (protocol_error), Lost
                < e0 01 82
        "#]],
    );
}

/// [MQTT-3.1.3-10] The will, with delay, expiry and what travels with it.
#[test]
fn the_will_is_kept() {
    check(
        "> 10 [ 'MQTT' 05 36 00 00 ( ) 'c' ( 18 00 00 00 05 02 00 00 00 09 03 'text' 26 'k' 'v' 26 'k' 'u' ) 'will' 'bye' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 36 00 00 ( ) 'c' ( 18 00 00 00 05 02 00 00 00 09 03 'text' 26 'k' 'v' 26 'k' 'u' ) 'will' 'bye' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: Some(Will { topic: "will", payload: b"bye", properties: b"\x03\0\x04text&\0\x01k\0\x01v&\0\x01k\0\x01u", qos: ExactlyOnce, retain: true, delay_seconds: 5, expiry_seconds: Some(9), wishes: Wishes { priority: Normal, collapse_key: None, deliver_at: None, idempotency_key: None, receipt: None, attempts_max: None, age_max_ms: None } }) }
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 0e 00 00 'c' 'will' 'bye' ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 0e 00 00 'c' 'will' 'bye' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: Some(Will { topic: "will", payload: b"bye", properties: b"", qos: AtLeastOnce, retain: false, delay_seconds: 0, expiry_seconds: None, wishes: Wishes { priority: Normal, collapse_key: None, deliver_at: None, idempotency_key: None, receipt: None, attempts_max: None, age_max_ms: None } }), hears_refusals: false, resend: Live }
        "#]],
    );
}

/// A will has the wishes of any publish, but those for a time and a key of its own; what can't be refuses the CONNECT, in words for
/// who wants them.
#[test]
fn a_will_has_wishes() {
    check(
        "> 10 [ 'MQTT' 05 0e 00 00 ( ) 'c' ( 26 'postroad-priority' 'high' 26 'postroad-receipt' 'dead' ) 'will' 'bye' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 0e 00 00 ( ) 'c' ( 26 'postroad-priority' 'high' 26 'postroad-receipt' 'dead' ) 'will' 'bye' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: Some(Will { topic: "will", payload: b"bye", properties: b"&\0\x11postroad-priority\0\x04high&\0\x10postroad-receipt\0\x04dead", qos: AtLeastOnce, retain: false, delay_seconds: 0, expiry_seconds: None, wishes: Wishes { priority: High, collapse_key: None, deliver_at: None, idempotency_key: None, receipt: Some(Dead), attempts_max: None, age_max_ms: None } }) }
        "#]],
    );
    for (properties, expected) in [
        ("26 'postroad-priority' 'urgent'", "postroad-priority: neither high nor normal nor low"),
        (
            "26 'postroad-deliver-after-seconds' '5'",
            "postroad-deliver-at-unix-ms: a will is put off by its delay interval",
        ),
        (
            "26 'postroad-deliver-at-unix-ms' '5'",
            "postroad-deliver-at-unix-ms: a will is put off by its delay interval",
        ),
        ("26 'postroad-idempotency-key' 'k'", "postroad-idempotency-key: a will has none"),
    ] {
        let refused = |asked: &str| {
            let input = packet(&format!("10 [ 'MQTT' 05 06 00 00 ( {asked} ) 'c' ( {properties} ) 'will' 'bye' ]"));
            handshake(&input, &Limits::default()).expect_err("it can't be")
        };
        let told = refused("");
        assert_eq!(told.reason, ReasonCode::ImplementationSpecificError);
        assert!(String::from_utf8_lossy(&told.answer).ends_with(expected), "{:?}", told.answer);
        assert_eq!(refused("17 00").answer, [0x20, 3, 0, 0x83, 0]);
        assert_eq!(refused("27 00 00 00 06").answer, [0x20, 3, 0, 0x83, 0]);
    }
}

/// Section 3.1.2.11.2. Expiries: as asked, cut, and those that MQTT 3 means.
#[test]
fn session_expiry() {
    let limits = Limits { session_expiry_max: SessionExpiry(60), ..Limits::default() };
    check_with(
        &limits,
        "> 10 [ 'MQTT' 05 00 00 00 ( 11 00 00 00 3c ) 'c' ]
         connected",
        expect![[r#"
            > 10 [ 'MQTT' 05 00 00 00 ( 11 00 00 00 3c ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: false, expiry: SessionExpiry(60), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
        "#]],
    );
    check_with(
        &limits,
        "> 10 [ 'MQTT' 05 00 00 00 ( 11 ff ff ff ff ) 'c' ]
         connected",
        expect![[r#"
            > 10 [ 'MQTT' 05 00 00 00 ( 11 ff ff ff ff ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: false, expiry: SessionExpiry(60), receive_maximum: 65535, will: None }
            connected
                < 20 13 00 00 10 11 00 00 00 3c 21 04 00 27 00 10 00 00 22 00 40
        "#]],
    );
    check_with(
        &limits,
        "> 10 [ 'MQTT' 04 00 00 00 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 00 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: false, expiry: SessionExpiry(60), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
        "#]],
    );
    check_with(
        &limits,
        "> 10 [ 'MQTT' 04 02 00 00 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 04 02 00 00 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None, hears_refusals: false, resend: Live }
        "#]],
    );
}

/// [MQTT-3.1.2-28] Response information only on request, and we have none.
#[test]
fn response_information() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 19 01 ) 'c' ]
         connected",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 19 01 ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
        "#]],
    );
}

/// [MQTT-3.2.0-1] [MQTT-3.1.4-5] [MQTT-3.2.0-2] Nothing goes out before CONNACK, and there is one, also if the broker
/// should speak twice.
#[test]
fn connack_is_first_and_one() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         deliver 0 0 t x
         subscribed 1 00
         connected
         connected
         refused 87
         deliver 0 0 t x",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            deliver 0 0 t x
            subscribed 1 00
            connected
                < 20 0e 00 00 0b 21 04 00 27 00 10 00 00 22 00 40
            connected
            refused 87
            deliver 0 0 t x
                < 30 05 00 01 74 00 78
        "#]],
    );
}

/// [MQTT-3.1.3-1] [MQTT-3.1.2-9] [MQTT-3.1.2-16] to [MQTT-3.1.2-19] The payload of CONNECT is what its flags say, in
/// their order; a password may come alone with MQTT 5, but [MQTT-3.1.2-22] of 3.1.1 forbids it.
#[test]
fn the_payload_of_connect() {
    check(
        "> 10 [ 'MQTT' 05 c6 00 00 ( ) 'c' ( ) 'will' 'bye' 'user' 'secret' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 c6 00 00 ( ) 'c' ( ) 'will' 'bye' 'user' 'secret' ]
                user Some("user") password Some(b"secret")
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: Some(Will { topic: "will", payload: b"bye", properties: b"", qos: AtMostOnce, retain: false, delay_seconds: 0, expiry_seconds: None, wishes: Wishes { priority: Normal, collapse_key: None, deliver_at: None, idempotency_key: None, receipt: None, attempts_max: None, age_max_ms: None } }) }
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 42 00 00 ( ) 'c' 'secret' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 42 00 00 ( ) 'c' 'secret' ]
                user None password Some(b"secret")
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 04 42 00 00 'c' 'secret' ]",
        expect![[r#"
        > 10 [ 'MQTT' 04 42 00 00 'c' 'secret' ]
            refused: password without a user name (malformed_packet)
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' 'user' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' 'user' ]
            refused: bytes behind the last field of the packet (malformed_packet)
            < 20 03 00 81 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 82 00 00 ( ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 82 00 00 ( ) 'c' ]
            refused: packet ends within a field (malformed_packet)
            < 20 03 00 81 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 c2 00 00 ( ) 'c' 'user' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 c2 00 00 ( ) 'c' 'user' ]
            refused: packet ends within a field (malformed_packet)
            < 20 03 00 81 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 06 00 00 ( ) 'c' ( ) 'will' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 06 00 00 ( ) 'c' ( ) 'will' ]
            refused: packet ends within a field (malformed_packet)
            < 20 03 00 81 00
    "#]],
    );
    // [MQTT-3.1.3-3]
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( ) ]
            refused: packet ends within a field (malformed_packet)
            < 20 03 00 81 00
    "#]],
    );
}

/// [MQTT-3.2.2-19] A refusal in words only if the words fit. [MQTT-3.1.3-8] and with the code meant for it.
#[test]
fn words_of_a_refusal() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 27 00 00 00 05 15 'x' ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( 27 00 00 00 05 15 'x' ) 'c' ]
            refused: enhanced authentication is not supported (bad_authentication_method)
            < 20 03 00 8c 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 17 00 15 'x' ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( 17 00 15 'x' ) 'c' ]
            refused: enhanced authentication is not supported (bad_authentication_method)
            < 20 03 00 8c 00
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
         refused 85",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, will: None }
            refused 85
                < 20 03 00 85 00
        "#]],
    );
}

/// [MQTT-3.1.4-1] A CONNECT above our limit is refused as soon as its version is there, in whatever pieces it comes.
#[test]
fn a_large_connect() {
    check(
        "> 10 ff ff 7f",
        expect![[r#"
        > 10 ff ff 7f
            needs 14 bytes
    "#]],
    );
    check(
        "> 10 ff ff 7f 'MQTT' 05 02 00 00 00",
        expect![[r#"
        > 10 ff ff 7f 'MQTT' 05 02 00 00 00
            refused: packet is larger than the maximum (packet_too_large)
            < 20 03 00 95 00
    "#]],
    );
    check(
        "> 10 ff ff 7f 'MQTT' 04 02 00 00 00",
        expect![[r#"
        > 10 ff ff 7f 'MQTT' 04 02 00 00 00
            refused: packet is larger than the maximum (packet_too_large)
    "#]],
    );
}

/// [REL-1] A client of MQTT 5 chooses between push and pull; the last word counts, and one that means nothing is refused.
#[test]
fn push_or_pull() {
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 26 'postroad-delivery' 'pull' ) 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 26 'postroad-delivery' 'pull' ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, delivery: Some(Pull), will: None }
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 26 'postroad-delivery' 'pull' 26 'k' 'v' 26 'postroad-delivery' 'push' ) 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 26 'postroad-delivery' 'pull' 26 'k' 'v' 26 'postroad-delivery' 'push' ) 'c' ]
                Connect { client: ClientId("c"), name: Chosen, clean_start: true, expiry: SessionExpiry(0), receive_maximum: 65535, delivery: Some(Push), will: None }
        "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 26 'postroad-delivery' 'Pull' ) 'c' ]",
        expect![[r#"
        > 10 [ 'MQTT' 05 02 00 00 ( 26 'postroad-delivery' 'Pull' ) 'c' ]
            refused: postroad-delivery must be push or pull (implementation_specific_error)
            < 20 2c 00 83 29 1f 00 26 70 6f 73 74 72 6f 61 64 2d 64 65 6c 69 76 65 72 79 20 6d 75 73 74 20 62 65 20 70 75 73 68 20 6f 72 20 70 75 6c 6c
    "#]],
    );
    check(
        "> 10 [ 'MQTT' 05 02 00 00 ( 17 00 26 'postroad-delivery' 'no' 26 'postroad-delivery' 'pull' ) 'c' ]",
        expect![[r#"
            > 10 [ 'MQTT' 05 02 00 00 ( 17 00 26 'postroad-delivery' 'no' 26 'postroad-delivery' 'pull' ) 'c' ]
                refused: postroad-delivery must be push or pull (implementation_specific_error)
                < 20 03 00 83 00
        "#]],
    );
}
