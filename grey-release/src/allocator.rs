//! The allocator: what it holds free, and having it give that back.

use core::ffi::CStr;

use crate::symbols;

/// An allocator that can be told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocator {
    Glibc,
    Jemalloc,
    Tcmalloc,
    Mimalloc,
}

/// Figures of the heap, bytes; what the allocator does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// In use by the program.
    pub(crate) used: Option<u64>,
    /// Freed by the program. glibc counts here also what has been given back to the kernel.
    pub(crate) free: Option<u64>,
    /// In use, in mappings of their own, which go back when they are freed.
    pub(crate) mapped: Option<u64>,
}

impl Allocator {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Allocator::Glibc => "glibc",
            Allocator::Jemalloc => "jemalloc",
            Allocator::Tcmalloc => "tcmalloc",
            Allocator::Mimalloc => "mimalloc",
        }
    }
}

/// The one that the program's `malloc` is of; `None` where it cannot be told to do anything.
pub(crate) fn of_the_program() -> Option<Allocator> {
    if symbols::malloc_is_glibcs() {
        return symbols::malloc_trim().map(|_| Allocator::Glibc);
    }
    if symbols::mallctl().is_some() {
        Some(Allocator::Jemalloc)
    } else if symbols::tc_release().is_some() {
        Some(Allocator::Tcmalloc)
    } else {
        symbols::mi_collect().map(|_| Allocator::Mimalloc)
    }
}

/// What it holds.
pub(crate) fn figures(allocator: Allocator) -> Figures {
    match allocator {
        Allocator::Glibc => glibc(),
        Allocator::Jemalloc => jemalloc(),
        Allocator::Tcmalloc => Figures {
            used: property(c"generic.current_allocated_bytes"),
            free: property(c"tcmalloc.pageheap_free_bytes"),
            mapped: None,
        },
        Allocator::Mimalloc => Figures::default(),
    }
}

/// Has it give back what it holds free.
pub(crate) fn trim(allocator: Allocator) {
    // SAFETY: documented entries, callable from any thread; that glibc's locks are taken by the program's is the caller's
    // business.
    unsafe {
        match allocator {
            Allocator::Glibc => {
                if let Some(trim) = symbols::malloc_trim() {
                    trim(0);
                }
            }
            Allocator::Jemalloc => {
                if let Some(mallctl) = symbols::mallctl() {
                    // 4096 is MALLCTL_ARENAS_ALL.
                    let none = core::ptr::null_mut();
                    let name = c"arena.4096.purge".as_ptr();
                    mallctl(name, none, none.cast(), none, 0);
                }
            }
            Allocator::Tcmalloc => {
                if let Some(release) = symbols::tc_release() {
                    release();
                }
            }
            Allocator::Mimalloc => {
                if let Some(collect) = symbols::mi_collect() {
                    collect(true);
                }
            }
        }
    }
}

fn glibc() -> Figures {
    let Some(mallinfo2) = symbols::mallinfo2() else {
        // Before 2.33 there is only mallinfo, whose figures are 32 bits and wrap.
        return Figures::default();
    };
    // SAFETY: takes nothing; the arenas' locks as with trim.
    let info = unsafe { mallinfo2() };
    Figures {
        used: Some(info.uordblks as u64),
        free: Some(info.fordblks as u64),
        mapped: Some(info.hblkhd as u64),
    }
}

/// A `size_t` of jemalloc's.
fn control(name: &CStr) -> Option<u64> {
    let mallctl = symbols::mallctl()?;
    let mut value = 0_usize;
    let mut size = size_of::<usize>();
    // SAFETY: reads a number of this size.
    let failed = unsafe {
        mallctl(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut size,
            core::ptr::null_mut(),
            0,
        )
    };
    (failed == 0 && size == size_of::<usize>()).then_some(value as u64)
}

fn jemalloc() -> Figures {
    if let Some(mallctl) = symbols::mallctl() {
        let mut epoch = 1_u64;
        let none = core::ptr::null_mut();
        // SAFETY: writes a number of this size: statistics are as of now.
        unsafe {
            mallctl(
                c"epoch".as_ptr(),
                none,
                none.cast(),
                (&raw mut epoch).cast(),
                size_of::<u64>(),
            )
        };
    }
    let page = control(c"arenas.page");
    let pages = |name| Some(control(name)?.saturating_mul(page?));
    let dirty = pages(c"stats.arenas.4096.pdirty");
    Figures {
        used: control(c"stats.allocated"),
        free: dirty.map(|dirty| {
            dirty.saturating_add(pages(c"stats.arenas.4096.pmuzzy").unwrap_or_default())
        }),
        mapped: None,
    }
}

/// A figure of tcmalloc's.
fn property(name: &CStr) -> Option<u64> {
    let mut value = 0_usize;
    // SAFETY: fills in a number of this size.
    let known = unsafe { symbols::tc_property()?(name.as_ptr(), &raw mut value) };
    (known != 0).then_some(value as u64)
}
