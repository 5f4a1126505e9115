//! The bytes of records: what goes in comes out, and garbage never panics.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod support;

use postroad_base::{Recipient, Record, Sequence};
use postroad_storage::record::{RecordError, decode, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{any_record, message, publish, queue, recipient, settle};

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_record_survives_the_round_trip(records in vec(any_record(), 1..8)) {
        let bytes: Vec<u8> = records.iter().flat_map(encoded).collect();
        let mut rest = bytes.as_slice();
        for record in &records {
            prop_assert_eq!(&decode(&mut rest).unwrap(), record);
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_record_that_is_cut_off_is_an_error_and_nothing_is_taken(record in any_record(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&record);
        let part = &bytes[..cut.index(bytes.len())];
        let mut rest = part;
        prop_assert!(decode(&mut rest).is_err());
        prop_assert_eq!(rest, part);
    }

    #[test]
    fn garbage_never_panics_and_what_it_decodes_to_is_stable(garbage in vec(any::<u8>(), 0..200), kind in 0_u8..28) {
        let mut bytes = vec![kind];
        bytes.extend(garbage);
        if let Ok(record) = decode(&mut bytes.as_slice()) {
            prop_assert_eq!(decode(&mut encoded(&record).as_slice()).unwrap(), record);
        }
    }
}

#[test]
fn unknown_kinds_are_named() {
    assert_eq!(decode(&mut [0_u8].as_slice()), Err(RecordError::UnknownKind(0)));
    assert_eq!(decode(&mut [28_u8].as_slice()), Err(RecordError::UnknownKind(28)));
    assert_eq!(decode(&mut [].as_slice()), Err(RecordError::Truncated));
}

#[test]
fn records_are_compact() {
    let queues: Vec<_> = (0..1000).map(|ordinal| queue(7, ordinal)).collect();
    let alone = encoded(&publish(1, 256, &queues[..1])).len();
    let fan_out = encoded(&publish(1, 256, &queues)).len();
    assert!(alone < 256 + 40, "{alone}");
    assert!(fan_out - alone <= 2 * 1000, "{fan_out}: two bytes per neighbouring recipient");
    assert!(encoded(&settle(queue(255, 70_000), Sequence(1 << 27))).len() <= 12);
}

/// The bytes are a promise: a change here is a new format version.
#[test]
fn the_bytes_of_version_1() {
    let hex = |record: &Record| encoded(record).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&settle(queue(300, 5), Sequence(129))), "09ac0205810100");
    assert_eq!(
        hex(&publish(1, 8, &[queue(0, 1), queue(0, 3), queue(1, 0)])),
        "080107000000000000000100000000000000".to_owned()
            + "07746f7069632f31"
            + "080100000000000000"
            + "03"
            + "010001"
            + "2101"
            + "010100"
    );
    let given = Recipient { given: true, ..recipient(queue(0, 1)) };
    let given = Record::Publish { message: message(1, 8), recipients: vec![given] };
    assert_eq!(&hex(&given)[70..], "01810001");
}
