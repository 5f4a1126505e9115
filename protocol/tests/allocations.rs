//! Reading and writing frames takes no memory from the allocator, once the codec has room for the texts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use postroad_protocol::frame::{Codec, Declared, Decoded, Frame, Kind, Plan, Spec, examples};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn check(spec: &Spec, input: &[u8]) {
    let mut codec = Declared::new(Arc::new(Plan::compile(spec).expect("shipped")));
    let mut out = Vec::new();
    let mut round = |out: &mut Vec<u8>| {
        let before = ALLOCATIONS.get();
        assert!(matches!(codec.decode(input, "c1"), Ok(Decoded::Frame { .. })));
        let push = Frame { tag: Some(7), topic: "a/b", payload: b"12", ..Frame::new(Kind::Push) };
        codec.encode(&push, out).expect("it fits");
        ALLOCATIONS.get() - before
    };
    round(&mut out);
    out.clear();
    assert_eq!(round(&mut out), 0);
}

#[test]
fn frames_allocate_nothing() {
    check(&examples::vehicle40(), &[0x21, 0x23, 0x45, 0x67, 0x89]);
    check(&examples::crlf_lines(), b"PUB 1 t 21.5 degrees\r\n");
    check(&examples::padded1024(), format!("{:1024}", "PUB 1 t 21.5 degrees").as_bytes());
    check(&examples::gt06(), b"\x78\x78\x05\x13\x00\x02\xdb\x6a\r\n");
}
