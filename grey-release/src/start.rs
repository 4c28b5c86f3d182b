//! Starting our thread: when the program begins, and again in forked children.
//!
//! A child that was forked by a program with threads may only make async-signal-safe calls until it execs, and making a
//! thread is none: it has no agent. The child of a program of one thread may do all that its parent could, unless it was
//! forked in a signal handler, which is looked for. Most forked children of programs with threads exec at once, and the
//! program that is started then has an agent of its own.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use linux_raw_sys::{general, prctl};

use crate::own_accord::Watch;
use crate::settings::{self, OwnAccord};
use crate::{collector, listen, quiet, rest, symbols, sys, work};

/// Of the auxiliary vector: the program runs with more rights than who started it.
const AT_SECURE: usize = 23;
/// Room for the stack; glibc takes the program's thread-local variables out of it, so that it may not do.
const STACK: usize = 256 << 10;
/// glibc's PTHREAD_CREATE_DETACHED.
const DETACHED: c_int = 1;
/// How long a thread of the program waits for ours to end, nanoseconds.
const END_WITHIN_NS: u64 = 1_000_000_000;

/// The process that our thread is in; 0 for none. A child of vfork shares this variable, and is not it.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// At a fork: whether the thread that forks is the program's only one.
static ALONE: AtomicBool = AtomicBool::new(false);

/// What the environment says of acting by itself, for our thread; 0 for nothing.
static THRESHOLD: AtomicU64 = AtomicU64::new(0);
static INTERVAL_MS: AtomicU64 = AtomicU64::new(0);

/// As glibc's `pthread_attr_t` (56 bytes on x86-64, 64 on aarch64), and larger.
#[repr(C, align(16))]
struct Attributes([u8; 128]);

/// The loader calls this before the program's own constructors.
pub(crate) extern "C" fn loaded() {
    if !symbols::find() || !settings::wanted() || secure() {
        return;
    }
    let Some(register) = symbols::register_atfork() else {
        return;
    };
    // SAFETY: the handlers stay: we are never unloaded.
    let registered =
        unsafe { register(before_fork, after_fork, in_child, core::ptr::null_mut()) } == 0;
    if registered {
        launch();
    }
}

fn secure() -> bool {
    // SAFETY: takes a number.
    symbols::getauxval().is_none_or(|getauxval| unsafe { getauxval(AT_SECURE) } != 0)
}

/// Whether our thread is in this very process.
pub(crate) fn present() -> bool {
    let process = PROCESS.load(Ordering::SeqCst);
    process != 0 && process == sys::pid()
}

/// Starts our thread from a thread of the program.
pub(crate) fn launch() {
    // Looked up here: our own thread would read the environment while the program may change it.
    let own = settings::own_accord();
    THRESHOLD.store(own.map_or(0, |own| own.threshold), Ordering::SeqCst);
    INTERVAL_MS.store(own.map_or(0, |own| own.interval_ms), Ordering::SeqCst);
    // What it acts on by itself it would have to wake the allocator for again and again: then it is loud from the start.
    let quietly = own.is_none();
    // Before it can answer.
    PROCESS.store(sys::pid(), Ordering::SeqCst);
    let created = quiet::around(quietly, || create(Some(STACK)) || create(None));
    if !created {
        PROCESS.store(0, Ordering::SeqCst);
    }
}

fn create(stack: Option<usize>) -> bool {
    let (Some(init), Some(destroy), Some(detach), Some(set_stack), Some(create), Some(mask)) = (
        symbols::pthread_attr_init(),
        symbols::pthread_attr_destroy(),
        symbols::pthread_attr_setdetachstate(),
        symbols::pthread_attr_setstacksize(),
        symbols::pthread_create(),
        symbols::pthread_sigmask(),
    ) else {
        return false;
    };
    let mut attributes = Attributes([0; 128]);
    let attr = (&raw mut attributes).cast::<c_void>();
    let all = [u64::MAX; 16];
    let mut before = [0_u64; 16];
    let mut thread = 0;
    // SAFETY: as pthread.h has them; masks have 128 bytes. All signals are blocked while the thread begins with the mask
    // of its creator; glibc leaves its own two out, by which it tells all threads of a changed user.
    unsafe {
        if init(attr) != 0 {
            return false;
        }
        detach(attr, DETACHED);
        if let Some(stack) = stack {
            set_stack(attr, stack);
        }
        mask(
            general::SIG_SETMASK as c_int,
            all.as_ptr().cast(),
            before.as_mut_ptr().cast(),
        );
        let failed = create(&raw mut thread, attr, run, core::ptr::null_mut());
        mask(
            general::SIG_SETMASK as c_int,
            before.as_ptr().cast(),
            core::ptr::null_mut(),
        );
        destroy(attr);
        failed == 0
    }
}

/// Our thread.
extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let name = b"grey-release\0";
    let args = [
        prctl::PR_SET_NAME as usize,
        name.as_ptr() as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: names this thread; the process keeps its own name.
    let _ = unsafe { sys::call(general::__NR_prctl, args) };
    let own = OwnAccord {
        threshold: THRESHOLD.load(Ordering::SeqCst),
        interval_ms: INTERVAL_MS.load(Ordering::SeqCst),
    };
    listen::serve((own.threshold > 0).then(|| Watch::new(own)));
    quiet::before_end();
    PROCESS.store(0, Ordering::SeqCst);
    core::ptr::null_mut()
}

/// Ends our thread from a thread of the program; whether it is gone.
pub(crate) fn stop() -> bool {
    let Some(before) = sys::threads() else {
        return false;
    };
    let until = sys::now_ns().saturating_add(END_WITHIN_NS);
    // It may only just have begun.
    while !listen::tell_to_end() {
        if sys::now_ns() >= until {
            return false;
        }
        sys::sleep_us(50);
    }
    while PROCESS.load(Ordering::SeqCst) != 0 || sys::threads().is_none_or(|now| now >= before) {
        if sys::now_ns() >= until {
            return false;
        }
        sys::sleep_us(50);
    }
    true
}

extern "C" fn before_fork() {
    let ours = u64::from(present());
    ALONE.store(
        sys::threads().is_some_and(|threads| threads == 1 + ours),
        Ordering::SeqCst,
    );
    work::lock();
}

extern "C" fn after_fork() {
    work::unlock();
}

extern "C" fn in_child() {
    work::unlock();
    collector::forget();
    PROCESS.store(0, Ordering::SeqCst);
    if ALONE.load(Ordering::SeqCst) && rest::no_handler_here() {
        launch();
    }
}
