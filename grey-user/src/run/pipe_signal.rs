//! SIGPIPE as this program was started with it. Rust's runtime ignores it before `main`, and a command that is put in our
//! place would go on ignoring it; a service of systemd, on the other hand, has it ignored on purpose.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_IGNORED: AtomicBool = AtomicBool::new(false);

extern "C" fn look() {
    // SAFETY: reads the disposition of a signal into memory of this frame.
    let ignored = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    };
    WAS_IGNORED.store(ignored, Ordering::Relaxed);
}

// SAFETY: a function without arguments is what this section holds pointers to; it runs before `main`, in one thread,
// and needs nothing of Rust's runtime.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

/// As it was before the runtime began.
pub(super) fn put_back() {
    if !WAS_IGNORED.load(Ordering::Relaxed) {
        // SAFETY: sets a signal to its default.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
}
