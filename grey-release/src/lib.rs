//! `libgrey_release.so`: preloaded into a program, it has the program's allocator give freed memory back when
//! `grey-ebpf enforce trim` asks for it, or by itself where `GREY_RELEASE_THRESHOLD` says so.
//!
//! It is a guest in somebody else's process, and keeps to this:
//! - it imports nothing but a weak `dlsym`: it loads wherever a dynamic program does, whatever its libc is, and is idle
//!   where that libc is not glibc;
//! - nothing panics, unwinds or allocates; the thread that listens makes system calls only, and calls into the allocator
//!   when it is asked to and at no other time;
//! - its descriptors are in a table of its own ([`listen`]), its signals are blocked, and glibc goes on to treat a
//!   program of one thread as one ([`quiet`]).
#![cfg_attr(all(panic = "abort", not(test)), no_std)]
#![cfg_attr(
    test,
    allow(dead_code, reason = "a test is no program that it is loaded into")
)]
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

mod allocator;
mod collector;
mod identity;
mod listen;
mod own_accord;
mod protocol;
mod quiet;
mod rest;
mod settings;
mod start;
mod symbols;
mod sys;
mod text;
mod work;

/// What the loader calls before the program begins; glibc gives it the arguments of `main`, which are not used.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = start::loaded;

/// Nothing panics; where something does all the same, the thread waits for ever rather than harm the program.
#[cfg(all(panic = "abort", not(test)))]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        sys::sleep_us(1_000_000_000);
    }
}
