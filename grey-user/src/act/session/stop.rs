//! Whether somebody asked us to end.

use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody asked us to end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Whether somebody asked us to end.
#[must_use]
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// What is under way is broken off and taken back, as if a signal had come.
pub fn ask_to_stop() {
    STOP.store(true, Ordering::Relaxed);
}

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// SIGINT, SIGTERM and SIGHUP ask for an end in which everything is put right.
pub(super) fn catch_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `action` is a valid sigaction with an empty mask, and the handler does nothing but store to an atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = stop as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}
