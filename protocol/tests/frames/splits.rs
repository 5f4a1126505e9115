//! [INT-5]: what a stream says does not depend on how the network cuts it.

use postroad_protocol::frame::{Spec, examples};

use crate::common::{bytes, codec, read};

/// As a whole, cut in two at every byte, and byte by byte.
fn check(spec: &Spec, stream: &[u8], frames: usize) {
    let mut codec = codec(spec);
    let whole = read(&mut codec, &[stream]);
    assert_eq!(whole.len(), frames, "{whole:?}");
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        assert_eq!(read(&mut codec, &[front, back]), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&mut codec, &single), whole, "byte by byte");
}

fn padded(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line:1024}").into_bytes()).collect()
}

const LINES: [&str; 6] = ["HELLO d1 user secret", "PING", "PUB 7 a/b 21.5 degrees", "PUB 8 a/b ", "ACK 65535", "BYE"];

#[test]
fn every_frame_survives_every_cut() {
    check(&examples::vehicle40(), &bytes("0000001267 1000000000 2123456789 4000000000 5000000000"), 5);
    check(&examples::crlf_lines(), (LINES.join("\r\n") + "\r\n").as_bytes(), 6);
    check(&examples::crlf_lines(), b"PUB 1 t a\rb\nc\r\r\nPING\r\n", 2);
    let gt06 = bytes(
        "7878 0d01 0123456789012345 0001 8cdd 0d0a 7878 0513 0002 db6a 0d0a 7878 0a12 4142430d0a 0003 4114 0d0a 7878 0515 0004 6885 0d0a",
    );
    check(&examples::gt06(), &gt06, 4);
}

/// At each byte would be 6,000 cuts of 6 KiB: those around the ends of frames, and some within.
#[test]
fn padded_frames_survive_cuts() {
    let stream = padded(&LINES);
    let mut codec = codec(&examples::padded1024());
    let whole = read(&mut codec, &[&stream]);
    assert_eq!(whole.len(), 6);
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        assert_eq!(read(&mut codec, &[front, back]), whole, "cut at {cut}");
    }
}

/// What is broken is broken at every cut, with the same fault.
#[test]
fn what_is_broken_is_so_at_every_cut() {
    check(&examples::gt06(), &bytes("7878 0513 0002 db6a 0d0a 7879 0513 0002 db6a 0d0a"), 2);
    check(&examples::gt06(), &bytes("7878 0513 0002 f96e 0d0a"), 1);
    check(&examples::gt06(), &bytes("7878 0413 0002 f96e 0d0a"), 1);
    check(&examples::crlf_lines(), b"PING\r\nNONSENSE\r\nPING\r\n", 2);
    check(&examples::crlf_lines(), &[b'x'; 5000], 1);
    check(&examples::vehicle40(), &bytes("1000000000 f000000000 1000000000"), 2);
}

/// The fuzzer's finding: a constant behind a length was judged before the length if both had come, and after it if not. So the
/// same bytes counted under one fault or another.
#[test]
fn the_fault_is_the_same_at_every_cut() {
    let mut spec = examples::gt06();
    let stop = spec.fields.remove(6);
    spec.fields.insert(3, stop); // behind the length, in front of the content
    check(&spec, &bytes("7878 01 13 0000 0000 0000"), 1);
}
