//! The allocator of one VM: counts, for each plugin, and refuses.
//!
//! ```text
//! block = 8 bytes: who asked for it │ what Lua sees
//! ```
//! When it refuses, Lua collects all garbage and asks once more. That costs milliseconds, so a call has it a few times only; then, or if the
//! second request is refused, too, the call is over ([`Memory::refused`]).

use std::alloc::Layout;
use std::ffi::c_void;

/// In front of each block.
const HEAD: usize = 8;
/// Blocks from this size on make the count hook come more often: one instruction can take microseconds on them.
const LARGE: usize = 64 << 10;
const HUGE: usize = 1 << 20;
/// Times that a call may let Lua collect all garbage for want of room.
const COLLECTIONS_MAX: u32 = 2;
/// What a call that is over may still take, so that it ends by an error and not by one collection for each word of it.
const LAST_BYTES: u64 = 64 << 10;

/// Who holds how much, and what is refused.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Bytes that all hold, of which each owner holds `held[owner]`; 0 is the host.
    pub(crate) used: usize,
    pub(crate) held: Vec<usize>,
    /// Who asks now.
    pub(crate) owner: usize,
    /// Blocks of at least [`LARGE`] bytes.
    pub(crate) large_blocks: usize,
    /// Of these, blocks of at least [`HUGE`] bytes.
    pub(crate) huge_blocks: usize,
    /// Most that all may hold, one owner, one block. The host's own is not bounded.
    pub(crate) used_max: usize,
    pub(crate) held_max: usize,
    pub(crate) block_max: usize,
    /// What this call has asked for, and may.
    pub(crate) allocated: u64,
    pub(crate) allocated_max: u64,
    /// What all calls have asked for.
    pub(crate) allocated_in_all: u64,
    /// Something was refused for good: the call is over.
    pub(crate) refused: bool,
    /// What was last refused, if nothing was given since; how often something was.
    last_refused: usize,
    collections: u32,
    /// The coroutine that runs, to be looked at when it takes a large block.
    pub(super) running: *mut mlua::lua_State,
    /// Tests: requests until one is refused for good. `None`: never.
    pub(crate) refuse_in: Option<u64>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            used: 0,
            held: vec![0],
            owner: 0,
            large_blocks: 0,
            huge_blocks: 0,
            used_max: usize::MAX,
            held_max: usize::MAX,
            block_max: usize::MAX,
            allocated: 0,
            allocated_max: u64::MAX,
            allocated_in_all: 0,
            refused: false,
            last_refused: 0,
            collections: 0,
            running: std::ptr::null_mut(),
            refuse_in: None,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.allocated = 0;
        self.refused = false;
        self.last_refused = 0;
        self.collections = 0;
    }

    /// Whether the call has asked for all that it may.
    pub(crate) fn is_used_up(&self) -> bool {
        self.allocated > self.allocated_max
    }

    /// Whether `growth` more bytes, in a block of `size`, may be had.
    fn allows(&mut self, growth: usize, size: usize) -> bool {
        if self.injected() {
            self.refused = true;
            return false;
        }
        if self.owner == 0 {
            return true;
        }
        if self.refused {
            self.allocated += growth as u64;
            return self.allocated <= LAST_BYTES;
        }
        let fits = self.used.saturating_add(growth) <= self.used_max
            && self.held[self.owner].saturating_add(growth) <= self.held_max;
        // Twice as much, since the count hook ends the call softly, at the next instruction; this is for what has none.
        let is_modest = size <= self.block_max && self.allocated <= self.allocated_max.saturating_mul(2);
        if fits && is_modest {
            self.last_refused = 0;
            return true;
        }
        self.collections += 1;
        if !is_modest || self.last_refused == size || self.collections > COLLECTIONS_MAX {
            self.refused = true;
            self.allocated = 0;
        }
        self.last_refused = size;
        false
    }

    fn injected(&mut self) -> bool {
        match &mut self.refuse_in {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn count(&mut self, size: usize) {
        self.allocated += size as u64;
        self.allocated_in_all += size as u64;
    }

    fn gave(&mut self, owner: usize, size: usize) {
        self.used += size;
        self.held[owner] += size;
        if size >= LARGE {
            self.large_blocks += 1;
            self.huge_blocks += usize::from(size >= HUGE);
            if !self.running.is_null() {
                super::state::arm(self.running, 1);
            }
        }
    }

    fn took(&mut self, owner: usize, size: usize) {
        self.used -= size;
        self.held[owner] -= size;
        self.large_blocks -= usize::from(size >= LARGE);
        self.huge_blocks -= usize::from(size >= HUGE);
    }
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(HEAD)?, HEAD).ok()
}

/// Lua's allocator. `data` is the [`Memory`].
///
/// # Safety
/// As Lua calls it: `block` is null or came from here with `old` bytes.
pub(super) unsafe extern "C" fn allocate(data: *mut c_void, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
    // SAFETY: the state was made with a `Memory` that outlives it, and nobody else looks at it while Lua allocates.
    let memory = unsafe { &mut *data.cast::<Memory>() };
    if block.is_null() {
        return if new == 0 { std::ptr::null_mut() } else { fresh(memory, new) };
    }
    // SAFETY: each block has a head before it.
    let start = unsafe { block.cast::<u8>().sub(HEAD) };
    if new == 0 {
        let layout = layout(old).expect("it was given with this size");
        // SAFETY: a head is aligned, and holds the owner; the block came from here with this layout.
        let owner = unsafe { start.cast::<u64>().read() } as usize;
        memory.took(owner, old);
        // SAFETY: as above.
        unsafe { std::alloc::dealloc(start, layout) };
        return std::ptr::null_mut();
    }
    resized(memory, start, old, new)
}

fn fresh(memory: &mut Memory, size: usize) -> *mut c_void {
    let Some(layout) = layout(size) else { return std::ptr::null_mut() };
    if !memory.allows(size, size) {
        return std::ptr::null_mut();
    }
    // SAFETY: the layout is not empty: it has a head.
    let start = unsafe { std::alloc::alloc(layout) };
    if start.is_null() {
        return std::ptr::null_mut();
    }
    memory.count(size);
    memory.gave(memory.owner, size);
    // SAFETY: the head lies within the block, and is aligned to it.
    unsafe {
        start.cast::<u64>().write(memory.owner as u64);
        start.add(HEAD).cast()
    }
}

/// Lua counts on it that making a block smaller never fails.
fn resized(memory: &mut Memory, start: *mut u8, old: usize, new: usize) -> *mut c_void {
    if new > old && !memory.allows(new - old, new) {
        return std::ptr::null_mut();
    }
    let (Some(layout), Some(_)) = (layout(old), layout(new)) else { return std::ptr::null_mut() };
    // SAFETY: the head is the block's, as in `allocate`.
    let owner = unsafe { start.cast::<u64>().read() } as usize;
    // SAFETY: the block came from here with this layout; the new size is a valid one, and not 0.
    let moved = unsafe { std::alloc::realloc(start, layout, new + HEAD) };
    if moved.is_null() {
        return std::ptr::null_mut();
    }
    memory.count(new.saturating_sub(old));
    memory.took(owner, old);
    memory.gave(owner, new);
    // SAFETY: the head lies within the block.
    unsafe { moved.add(HEAD).cast() }
}
