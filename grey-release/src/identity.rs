//! Calls that change what a process is or may do, and that hold for one thread only: in a program that is alone with our
//! thread, ours is ended before and started again after, so that no thread with the old rights stays behind, and calls
//! that demand a single thread (`unshare`, `setns` of a user namespace) find one.
//!
//! Where the program has threads of its own glibc brings all of them along, ours with them.

use core::ffi::{c_char, c_int, c_uint};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{quiet, rest, start, symbols, sys};

/// A program that changes its user with each request does not want a thread made each time.
const MOST: u32 = 8;
static TIMES: AtomicU32 = AtomicU32::new(0);

/// Calls `real` without our thread beside it.
fn alone(real: impl FnOnce() -> c_int) -> c_int {
    if !start::present() {
        return real();
    }
    let outside = rest::no_handler_here();
    if sys::threads() != Some(2) || !outside || !start::stop() {
        // glibc tells the threads it knows of, if it takes the program for one with threads.
        quiet::make_loud(outside);
        return real();
    }
    let result = real();
    if TIMES.fetch_add(1, Ordering::Relaxed) < MOST {
        let errno = symbols::errno();
        // SAFETY: this thread's errno, which what we call must not change.
        let kept = errno.map(|errno| unsafe { *errno() });
        start::launch();
        if let (Some(errno), Some(kept)) = (errno, kept) {
            // SAFETY: as above.
            unsafe { *errno() = kept };
        }
    }
    result
}

macro_rules! wrap {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("As libc's `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As there.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            if symbols::$name().is_none() {
                // Called before the loader came to us.
                symbols::find();
            }
            let Some(real) = symbols::$name() else {
                return -1;
            };
            // SAFETY: the caller's arguments, as they are.
            alone(|| unsafe { real($($arg),*) })
        }
    )*};
}

wrap! {
    setuid(uid: c_uint);
    setgid(gid: c_uint);
    seteuid(uid: c_uint);
    setegid(gid: c_uint);
    setreuid(real_id: c_uint, effective: c_uint);
    setregid(real_id: c_uint, effective: c_uint);
    setresuid(real_id: c_uint, effective: c_uint, saved: c_uint);
    setresgid(real_id: c_uint, effective: c_uint, saved: c_uint);
    setgroups(count: usize, groups: *const c_uint);
    initgroups(user: *const c_char, group: c_uint);
    unshare(flags: c_int);
    setns(fd: c_int, kind: c_int);
}
