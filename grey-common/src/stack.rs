//! Layouts of `profile`: page-fault stacks, and the pages that are followed to their end.

use core::mem::size_of;

/// One way into a page fault: a process with its user stack, and its kernel stack where the fault was the kernel's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackKey {
    /// Thread group id.
    pub tgid: u32,
    /// Id in the stack table; negative (an errno) where there is none.
    pub user: i32,
    /// Id in the stack table; [`NO_STACK`] for a fault of user code.
    pub kernel: i32,
    /// Always zero.
    pub reserved: u32,
    /// The word on top of the user stack where it looks like a return address, else 0: the caller of a function that
    /// keeps no frame pointer, which the walk misses.
    pub caller: u64,
}

/// `kernel` of a fault that user code took: its kernel stack is always the same.
pub const NO_STACK: i32 = -1;

/// What came in by one [`StackKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackCount {
    /// Page faults: those sampled, each for as many as it stands for.
    pub faults: u64,
    /// Bytes that they asked for: a page each, 2 MiB for a huge page.
    pub bytes: u64,
}

/// A page that is followed: the table keeps the last stack that faulted it in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageKey {
    /// User address, page aligned; huge pages are aligned to their size.
    pub address: u64,
    /// Thread group id.
    pub tgid: u32,
    /// 1 for a huge page.
    pub huge: u32,
}

/// One CPU's bookkeeping, the only entry of a per-CPU array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackState {
    /// The thread whose stack is being walked here, else 0: the walk's own faults are not counted.
    pub thread: u64,
    /// Faults of the target.
    pub seen: u64,
    /// Of these, how many had their stack taken.
    pub sampled: u64,
    /// Nanoseconds that took.
    pub ns: u64,
    /// Stacks that found no room in the stack table.
    pub lost_stacks: u64,
    /// Samples that found no room in the table of counts.
    pub lost_counts: u64,
    /// Pages that found no room in the table of pages.
    pub lost_pages: u64,
    /// Moves of pages that found no room in the ring.
    pub lost_moves: u64,
}

/// mremap moved pages: what was faulted in at one address is at another now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveRecord {
    /// First address before.
    pub from: u64,
    /// First address now.
    pub to: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Thread group id.
    pub tgid: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Bytes of a huge page (the PMD size of x86-64).
pub const HUGE_BYTES: u64 = 2 << 20;

/// Whether a page is followed while one in `2^shift` is. It depends on the page alone, so that every fault of a followed
/// page is seen; what is followed at one shift includes what is followed at a higher one.
#[must_use]
#[inline(always)]
pub fn is_followed(page: u64, shift: u64) -> bool {
    // The first half of MurmurHash3's finalizer; a stride of addresses would favour or miss whole arrays without it.
    let mut hash = page;
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash & ((1 << (shift & 63)) - 1) == 0
}

const _: () = {
    assert!(size_of::<StackKey>() == 24);
    assert!(size_of::<StackCount>() == 16);
    assert!(size_of::<PageKey>() == 16);
    assert!(size_of::<MoveRecord>() == 32);
    assert!(size_of::<StackState>() == 64);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), Copy, no padding, any bit pattern valid.
    unsafe impl aya::Pod for super::StackKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::StackCount {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PageKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::StackState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MoveRecord {}
}
