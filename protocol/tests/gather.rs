//! The gather buffer against a plain vector: any pieces, any partial writes.

use std::io::IoSlice;

use bytes::Bytes;
use postroad_protocol::gather::{Gather, REFERENCE_BYTES_MIN};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Head(Vec<u8>),
    Payload(Vec<u8>),
    /// Write at most this many bytes of at most this many slices.
    Write(usize, usize),
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = |max: usize| proptest::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        1 => bytes(40).prop_map(Step::Push),
        1 => bytes(40).prop_map(Step::Head),
        1 => bytes(40).prop_map(Step::Payload),
        1 => (REFERENCE_BYTES_MIN - 1..REFERENCE_BYTES_MIN + 3000, any::<u8>())
            .prop_map(|(len, byte)| Step::Payload(vec![byte; len])),
        1 => (20_000..40_000_usize, any::<u8>()).prop_map(|(len, byte)| Step::Push(vec![byte; len])),
        4 => (0..30_000_usize, 1..6_usize).prop_map(|(bytes, slices)| Step::Write(bytes, slices)),
        1 => Just(Step::Shrink),
    ]
}

/// Writes like a socket that takes `most` bytes.
fn write(gather: &mut Gather, most: usize, slices: usize, written: &mut Vec<u8>) {
    let mut storage = [IoSlice::new(&[]); 6];
    let filled = gather.io_slices(&mut storage[..slices]);
    assert!(storage[..filled].iter().all(|slice| !slice.is_empty()));
    assert_eq!(filled == 0, gather.is_empty());
    let offered: Vec<u8> = storage[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
    let count = most.min(offered.len());
    written.extend_from_slice(&offered[..count]);
    gather.consume(count);
}

proptest! {
    #[test]
    fn all_bytes_leave_once_and_in_order(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut gather, mut pushed, mut written) = (Gather::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Push(bytes) => { gather.push(&bytes); pushed.extend(bytes); }
                Step::Head(bytes) => { gather.head().extend_from_slice(&bytes); pushed.extend(bytes); }
                Step::Payload(bytes) => { gather.push_payload(&Bytes::from(bytes.clone())); pushed.extend(bytes); }
                Step::Write(most, slices) => write(&mut gather, most, slices, &mut written),
                Step::Shrink => gather.shrink(),
            }
            prop_assert_eq!(gather.len(), pushed.len() - written.len());
        }
        while !gather.is_empty() {
            write(&mut gather, usize::MAX, 6, &mut written);
        }
        prop_assert!(written == pushed, "bytes lost, repeated or out of order");
        gather.shrink();
        prop_assert_eq!(gather.capacity(), 0, "an idle connection owns no memory");
    }
}

#[test]
fn large_payloads_are_not_copied_and_small_ones_are() {
    let mut gather = Gather::new();
    let (large, small) = (Bytes::from(vec![1; REFERENCE_BYTES_MIN]), Bytes::from_static(b"small"));
    gather.push(b"head");
    gather.push_payload(&large);
    gather.push_payload(&small);
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(gather.io_slices(&mut slices), 3);
    assert_eq!(slices[1].as_ptr(), large.as_ptr());
    assert_ne!(slices[2].as_ptr(), small.as_ptr());
}

#[test]
#[should_panic(expected = "5 bytes written, but only 4 were waiting")]
fn more_than_waits_cannot_be_consumed() {
    let mut gather = Gather::new();
    gather.push(b"head");
    gather.consume(5);
}

#[test]
fn clear_forgets_everything() {
    let mut gather = Gather::new();
    gather.push(b"head");
    gather.push_payload(&Bytes::from(vec![1; 5000]));
    gather.consume(100);
    gather.clear();
    assert!(gather.is_empty());
    gather.push(b"x");
    assert_eq!(gather.len(), 1);
}
