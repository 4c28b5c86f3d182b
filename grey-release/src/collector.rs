//! The runtime's own collector, where it has a documented entry for other threads: CPython's `Py_AddPendingCall`, whose
//! calls the interpreter makes in its main thread between two instructions.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use linux_raw_sys::general;

use crate::{quiet, symbols, sys};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// So many objects were unreachable.
    Done(u64),
    /// The program has switched it off, and that is its business.
    Off,
    /// The interpreter came to no safe point in time; it collects at the next one.
    Later,
    /// The interpreter has no room for another call.
    Full,
}

/// A call is under way, whose answer nobody may take for that of a later one.
static ASKED: AtomicBool = AtomicBool::new(false);
static FOUND: AtomicI64 = AtomicI64::new(0);

/// Whether there is a running CPython in this process.
pub(crate) fn is_there() -> bool {
    match (
        symbols::py_is_initialized(),
        symbols::py_gc_collect(),
        symbols::py_add_pending_call(),
    ) {
        // SAFETY: reads a flag of the interpreter; documented to be callable at any time.
        (Some(initialized), Some(_), Some(_)) => unsafe { initialized() != 0 },
        _ => false,
    }
}

/// Made by the interpreter in its main thread, with its lock held.
extern "C" fn collect(_: *mut c_void) -> c_int {
    at_safe_point();
    // SAFETY: the interpreter's lock is held. Both leave the error state as it was.
    let found = unsafe {
        match (symbols::py_gc_is_enabled(), symbols::py_gc_collect()) {
            (Some(enabled), _) if enabled() == 0 => -1,
            (_, Some(collect)) => collect() as i64,
            _ => -1,
        }
    };
    FOUND.store(found, Ordering::SeqCst);
    ASKED.store(false, Ordering::SeqCst);
    0
}

/// As [`collect`], to know that the main thread is at a safe point.
extern "C" fn nothing(_: *mut c_void) -> c_int {
    at_safe_point();
    ASKED.store(false, Ordering::SeqCst);
    0
}

fn at_safe_point() {
    // SAFETY: takes nothing.
    let thread = unsafe { sys::call(general::__NR_gettid, [0; 6]) };
    if thread == Ok(sys::pid() as usize) {
        quiet::outside();
    }
}

fn ask(call: extern "C" fn(*mut c_void) -> c_int) -> bool {
    let Some(add) = symbols::py_add_pending_call() else {
        return false;
    };
    if ASKED.swap(true, Ordering::SeqCst) {
        // An earlier one is still waiting.
        return true;
    }
    // SAFETY: documented to be callable from any thread and without the interpreter's lock; we are never unloaded.
    let added = unsafe { add(call, core::ptr::null_mut()) } == 0;
    if !added {
        ASKED.store(false, Ordering::SeqCst);
    }
    added
}

/// Has the interpreter come to a safe point, as soon as it can; nobody waits for it.
pub(crate) fn ask_for_safe_point() {
    if is_there() {
        ask(nothing);
    }
}

/// Has the interpreter collect, and waits for that.
pub(crate) fn run(until_ns: u64) -> Collected {
    if ASKED.load(Ordering::SeqCst) {
        // Another call is waiting, which may collect or not.
        wait(until_ns);
    }
    if !ask(collect) {
        return Collected::Full;
    }
    if !wait(until_ns) {
        return Collected::Later;
    }
    match FOUND.load(Ordering::SeqCst) {
        found if found >= 0 => Collected::Done(found as u64),
        _ => Collected::Off,
    }
}

fn wait(until_ns: u64) -> bool {
    while ASKED.load(Ordering::SeqCst) {
        if sys::now_ns() >= until_ns {
            return false;
        }
        sys::sleep_us(500);
    }
    true
}

/// In a forked child: whatever was asked for, its interpreter knows nothing of it, or does it unasked.
pub(crate) fn forget() {
    ASKED.store(false, Ordering::SeqCst);
}
