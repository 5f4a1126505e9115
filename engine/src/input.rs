//! What a connection has sent and nobody has used yet: the start of a packet whose end has not come, or packets
//! that came while it may not be read.
//!
//! ```text
//!  kept:  [ used │ front packet, as far as it came │ room ]    shared: [ what comes behind it ]
//!           begin┘                             end ┘   └ first slice      └ second slice of one receive call
//! ```
//! - The rest of the front packet is received right behind its start, so a packet in many small segments is not
//!   copied once per segment, and a large payload lies in memory of its own when it is whole.
//! - Room grows with what has come, up to what the packet's header announces. Who announces 256 MiB and sends
//!   nothing costs [`ROOM_BYTES_MIN`].
//! - Nothing kept, no memory: an idle connection owns no buffer.

use std::io::IoSliceMut;

use bytes::Bytes;

/// Room for a packet of which little has come.
const ROOM_BYTES_MIN: usize = 4096;
/// A whole packet larger than this is handed on in its own memory, a smaller one is worth copying.
pub(crate) const OWN_BYTES_MIN: usize = 4096;

/// See the module head.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// There, if anything is: few connections keep something, and only those pay for more than a pointer.
    kept: Option<Box<Kept>>,
}

const _: () = assert!(size_of::<Input>() == size_of::<usize>());

/// At least one byte.
#[derive(Debug, Default)]
struct Kept {
    /// All of it is initialised; the packet's bytes are `begin..end`.
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
    /// Bytes that the front packet needs at least, as its header says so far.
    needed: usize,
    /// Bytes moved by this type since it was made; a test counts them.
    #[cfg(test)]
    moved: usize,
}

impl Input {
    /// Bytes that came with a connection from another shard: nobody has looked at them.
    pub(crate) fn unseen(bytes: Vec<u8>) -> Self {
        let kept = Kept { end: bytes.len(), bytes, ..Kept::default() };
        Self { kept: (kept.end > 0).then(|| Box::new(kept)) }
    }

    /// What is kept, to go with the connection to another shard.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let Some(kept) = self.kept else { return Vec::new() };
        let Kept { mut bytes, begin, end, .. } = *kept;
        bytes.truncate(end);
        bytes.drain(..begin);
        bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// Whether it is worth decoding: there is something, and no less than the front packet needs.
    pub(crate) fn is_whole(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.lacking() == 0)
    }

    /// Bytes of memory owned.
    pub(crate) fn capacity(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.capacity())
    }

    /// What is kept.
    pub(crate) fn front(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], |kept| &kept.bytes[kept.begin..kept.end])
    }

    /// The kept packet in its own memory, if it is whole, alone, and large; then nothing is kept any more.
    pub(crate) fn take_large(&mut self) -> Option<Bytes> {
        let mut kept = self.kept.take_if(|kept| kept.is_whole_alone_and_large())?;
        kept.bytes.truncate(kept.end);
        Some(kept.bytes.into())
    }

    /// Takes `used` bytes off the front; what is then in front needs `needed` bytes at least, 0 if nobody knows.
    pub(crate) fn advance(&mut self, used: usize, needed: usize) {
        let Some(kept) = &mut self.kept else {
            assert_eq!(used, 0, "used what has not come");
            return;
        };
        kept.begin += used;
        kept.needed = needed;
        assert!(kept.begin <= kept.end, "used what has not come");
        if kept.begin == kept.end {
            self.kept = None;
        }
    }

    /// Keeps `rest`, the front of which needs `needed` bytes at least. Nothing may be kept before.
    pub(crate) fn keep(&mut self, rest: &[u8], needed: usize) {
        assert!(self.is_empty(), "something is kept already");
        if !rest.is_empty() {
            self.kept.insert(Box::new(Kept { needed, ..Kept::default() })).append(rest);
        }
    }

    /// Keeps `more` behind what is kept.
    pub(crate) fn append(&mut self, more: &[u8]) {
        if !more.is_empty() {
            self.kept.get_or_insert_default().append(more);
        }
    }

    /// Takes of `fresh`, which came behind what is kept, as much as the front packet lacks. Returns the rest.
    pub(crate) fn fill<'a>(&mut self, fresh: &'a [u8]) -> &'a [u8] {
        let lacking = self.kept.as_ref().map_or(0, |kept| kept.lacking());
        let (taken, rest) = fresh.split_at(lacking.min(fresh.len()));
        self.append(taken);
        rest
    }

    /// Where to receive: behind what is kept as far as its packet goes, then into `shared`.
    pub(crate) fn slices<'a>(&'a mut self, shared: &'a mut [u8]) -> [IoSliceMut<'a>; 2] {
        let own = self.kept.as_mut().map_or(&mut [][..], |kept| kept.open_room());
        [IoSliceMut::new(own), IoSliceMut::new(shared)]
    }

    /// `count` bytes were received into [`Self::slices`]. Returns how many of them lie in `shared`.
    pub(crate) fn received(&mut self, count: usize) -> usize {
        let Some(kept) = &mut self.kept else { return count };
        let own = count.min(kept.room());
        kept.end += own;
        count - own
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.end - self.begin
    }

    /// Bytes that the front packet lacks, as far as is known.
    fn lacking(&self) -> usize {
        self.needed.saturating_sub(self.len())
    }

    fn is_whole_alone_and_large(&self) -> bool {
        self.begin == 0 && self.end > OWN_BYTES_MIN && self.end == self.needed
    }

    fn append(&mut self, more: &[u8]) {
        self.make_room(more.len());
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
        self.count(more.len());
    }

    /// Room that there is for what the front packet lacks.
    fn room(&self) -> usize {
        self.lacking().min(self.bytes.len() - self.end)
    }

    /// The same, some of it if the packet lacks anything.
    fn open_room(&mut self) -> &mut [u8] {
        if self.lacking() > 0 && self.end == self.bytes.len() {
            self.make_room(1);
        }
        let room = self.room();
        &mut self.bytes[self.end..self.end + room]
    }

    /// Room for `more` bytes at least, doubling, but no more than the front packet lacks if that is enough.
    fn make_room(&mut self, more: usize) {
        if self.begin > 0 {
            self.bytes.copy_within(self.begin..self.end, 0);
            self.count(self.len());
            (self.begin, self.end) = (0, self.len());
        }
        let least = self.end + more;
        if least <= self.bytes.len() {
            return;
        }
        let doubled = (2 * self.end).max(ROOM_BYTES_MIN);
        let len = if self.needed == 0 { least } else { doubled.min(self.needed).max(least) };
        self.bytes.reserve_exact(len - self.bytes.len());
        self.count(self.end);
        self.bytes.resize(len, 0);
    }

    #[cfg(test)]
    fn count(&mut self, moved: usize) {
        self.moved += moved;
    }

    #[cfg(not(test))]
    fn count(&mut self, _moved: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(input: &Input) -> usize {
        input.kept.as_ref().expect("something is kept").moved
    }

    /// Receives `segment` as a socket would: into the slices, in order. Returns what landed in the shared buffer.
    fn receive(input: &mut Input, segment: &[u8]) -> Vec<u8> {
        let mut shared = [0; 64 << 10];
        let mut left = segment;
        for slice in &mut input.slices(&mut shared) {
            let (now, later) = left.split_at(slice.len().min(left.len()));
            slice[..now.len()].copy_from_slice(now);
            left = later;
        }
        assert!(left.is_empty(), "a segment of this test fits");
        let behind = input.received(segment.len());
        shared[..behind].to_vec()
    }

    /// As [`receive`], then fills what is kept. Returns what is of the next packet.
    fn arrive(input: &mut Input, segment: &[u8]) -> Vec<u8> {
        let behind = receive(input, segment);
        input.fill(&behind).to_vec()
    }

    fn packet(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    /// The review's finding: 1 MiB in segments of 10 bytes moved each byte 50,000 times. Now the sum of all moves is
    /// that of the doublings, less than twice the packet, and the start.
    #[test]
    fn a_packet_in_tiny_segments_is_moved_a_constant_number_of_times() {
        for len in [5_000, 32 << 10, 1 << 20] {
            let packet = packet(len);
            let mut input = Input::default();
            input.keep(&packet[..5], len);
            for segment in packet[5..].chunks(10) {
                assert!(!input.is_whole());
                assert!(arrive(&mut input, segment).is_empty());
            }
            assert!(input.is_whole() && input.front() == packet, "{len} bytes are whole");
            assert!(moved(&input) <= 2 * len, "{} bytes moved for a packet of {len}", moved(&input));
            assert_eq!(input.capacity(), len, "no room is left over");
        }
    }

    #[test]
    fn an_announcement_costs_little_before_bytes_come() {
        let mut input = Input::default();
        input.keep(&[0x30, 0xff, 0xff, 0xff, 0x7f], 256 << 20);
        assert!(arrive(&mut input, &[1; 10]).is_empty());
        assert!(input.capacity() <= ROOM_BYTES_MIN);
        for _ in 0..100 {
            assert!(arrive(&mut input, &[2; 1000]).is_empty());
        }
        assert!(input.capacity() <= 2 * 100_015, "{} bytes for 100,015", input.capacity());
    }

    #[test]
    fn nothing_kept_is_nothing_owned() {
        let mut input = Input::unseen(Vec::with_capacity(100));
        input.keep(&[], 0);
        input.append(&[]);
        input.advance(0, 7); // what is then needed is needed of nothing
        assert!(input.kept.is_none() && !input.is_whole());
        assert_eq!((arrive(&mut input, b"next"), input.into_bytes()), (b"next".to_vec(), vec![]));
    }

    #[test]
    fn what_comes_behind_the_packet_lands_in_the_shared_buffer() {
        let mut input = Input::default();
        input.keep(b"0123", 6);
        assert_eq!(receive(&mut input, b"45next"), b"next");
        assert_eq!((input.front(), input.is_whole()), (&b"012345"[..], true));
        input.advance(6, 0);
        assert!(input.is_empty() && input.capacity() == 0, "nothing kept, no memory");
        assert_eq!(receive(&mut input, b"more"), b"more");
    }

    #[test]
    fn a_header_in_pieces_is_filled_as_it_becomes_known() {
        let mut input = Input::default();
        input.keep(&[0x30], 2);
        let behind = receive(&mut input, &[4, 1, 2, 3, 4, 9, 9]);
        assert_eq!(input.front(), [0x30, 4]);
        input.advance(0, 6); // what decoding says now
        assert_eq!(input.fill(&behind), [9, 9]);
        assert_eq!((input.front(), input.is_whole()), (&[0x30, 4, 1, 2, 3, 4][..], true));
    }

    #[test]
    fn a_large_packet_leaves_in_its_own_memory() {
        let packet = packet(100_000);
        let mut input = Input::default();
        input.keep(&packet[..60_000], packet.len());
        assert_eq!(input.take_large(), None, "not whole");
        assert!(receive(&mut input, &packet[60_000..]).is_empty());
        let place = input.front().as_ptr();
        let taken = input.take_large().expect("whole and large");
        assert!(taken == packet && taken.as_ptr() == place, "not copied");
        assert!(input.is_empty() && input.capacity() == 0);
    }

    #[test]
    fn packets_kept_while_parked_are_used_from_the_front_without_moving() {
        let mut input = Input::default();
        input.keep(&packet(60_000), 0);
        let before = moved(&input);
        for _ in 0..5_999 {
            assert!(input.is_whole());
            input.advance(10, 0);
        }
        assert_eq!((moved(&input), input.front().len()), (before, 10));
        assert_eq!(Input::unseen(input.into_bytes()).front().len(), 10);
    }
}
