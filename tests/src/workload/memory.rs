//! The mappings of a workload: exact, page-aligned, anonymous, known to nobody else.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

use rustix::io::{Errno, Result};
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap, munmap,
};

pub(super) const PAGE: usize = 4096;
/// How many mappings one workload may hold.
const SLOTS: usize = 4096;

/// One anonymous private mapping.
#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    pub(crate) fn new(length: usize) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap_anonymous(
                null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        NonNull::new(start)
            .map(|start| Self { start, length })
            .ok_or(Errno::NOMEM)
    }

    /// One with a page before and behind it that nobody may touch: the kernel makes one of equal neighbours.
    pub(crate) fn fenced(length: usize) -> Result<Self> {
        let all = Self::new(length.checked_add(2 * PAGE).ok_or(Errno::INVAL)?)?;
        let start = all.start.as_ptr().wrapping_byte_add(PAGE);
        for fence in [all.start.as_ptr(), start.wrapping_byte_add(length)] {
            // SAFETY: the first and the last page of a mapping that only we know of.
            unsafe { rustix::mm::mprotect(fence, PAGE, rustix::mm::MprotectFlags::empty()) }?;
        }
        NonNull::new(start)
            .map(|start| Self { start, length })
            .ok_or(Errno::NOMEM)
    }

    /// A whole file, to be read only.
    pub(crate) fn file(path: &str) -> Result<Self> {
        let file = rustix::fs::open(path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
        let length = usize::try_from(rustix::fs::fstat(&file)?.st_size).map_err(|_| Errno::FBIG)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            rustix::mm::mmap(
                null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        NonNull::new(start)
            .map(|start| Self { start, length })
            .ok_or(Errno::NOMEM)
    }

    /// Writes one byte to each page, so that each has its own page frame.
    pub(crate) fn touch(&self) {
        for page in self.pages() {
            // SAFETY: `page` lies inside this mapping, which is writable and which only we know of.
            unsafe { page.write_volatile(1) };
        }
    }

    /// Reads one byte of each page; untouched ones become the shared zero page.
    pub(crate) fn read(&self) {
        for page in self.pages() {
            // SAFETY: `page` lies inside this mapping, which is readable.
            unsafe { page.read_volatile() };
        }
    }

    /// Lets the kernel write all of it, by read(2) from /dev/zero.
    pub(crate) fn fill_by_kernel(&self) -> Result<()> {
        let zeros = rustix::fs::open(
            "/dev/zero",
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )?;
        let start = self.start.as_ptr().cast::<u8>();
        let mut done = 0;
        while done < self.length {
            // SAFETY: the rest of this mapping, which is writable and which only we know of.
            let rest =
                unsafe { std::slice::from_raw_parts_mut(start.add(done), self.length - done) };
            done += rustix::io::read(&zeros, rest)?;
        }
        Ok(())
    }

    /// Where it is and how long.
    pub(super) fn bounds(&self) -> (*mut c_void, usize) {
        (self.start.as_ptr(), self.length)
    }

    fn pages(&self) -> impl Iterator<Item = *mut u8> {
        let start = self.start.as_ptr().cast::<u8>();
        (0..self.length)
            .step_by(PAGE)
            .map(move |offset| start.wrapping_add(offset))
    }

    pub(crate) fn advise(&self, advice: Advice) -> Result<()> {
        // SAFETY: the contents may go: nobody relies on the bytes that `touch` wrote.
        unsafe { madvise(self.start.as_ptr(), self.length, advice) }
    }

    pub(crate) fn resize(&mut self, length: usize) -> Result<()> {
        // SAFETY: we hold the only pointer into the mapping and replace it by the new one.
        let start = unsafe {
            mremap(
                self.start.as_ptr(),
                self.length,
                length,
                MremapFlags::MAYMOVE,
            )
        }?;
        self.start = NonNull::new(start).ok_or(Errno::NOMEM)?;
        self.length = length;
        Ok(())
    }

    pub(crate) fn unmap(self) -> Result<()> {
        // SAFETY: we hold the only pointer into the mapping and it ends here.
        unsafe { munmap(self.start.as_ptr(), self.length) }
    }
}

/// A stack of mappings that never allocates after its creation.
pub(crate) struct Mappings(Vec<Mapping>);

impl Mappings {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(SLOTS))
    }

    pub(crate) fn push(&mut self, mapping: Mapping) -> Result<()> {
        if self.0.len() == SLOTS {
            return Err(Errno::NOBUFS);
        }
        self.0.push(mapping);
        Ok(())
    }

    pub(crate) fn last(&mut self) -> Result<&mut Mapping> {
        self.0.last_mut().ok_or(Errno::NOENT)
    }

    pub(crate) fn pop(&mut self) -> Result<Mapping> {
        self.0.pop().ok_or(Errno::NOENT)
    }
}
