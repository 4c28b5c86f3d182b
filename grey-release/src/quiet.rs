//! A program of one thread stays one for glibc, although our thread is in it.
//!
//! glibc's malloc, stdio and libstdc++'s shared_ptr do without locks and atomics as long as `__libc_single_threaded` is
//! set, and the first `pthread_create` clears it for good. That costs such a program more than a sleeping thread may. Our
//! thread sleeps in a system call and touches nothing of theirs, so that what was set is set again after its creation.
//!
//! malloc and mutexes read this very variable (glibc 2.36: malloc compares the byte at `__libc_single_threaded` and goes
//! without the arena's lock, pthread_mutex_lock without an atomic; `SINGLE_THREAD_P` of
//! sysdeps/unix/sysv/linux/single-thread.h). To trim beside it would corrupt the heap. So before anything of the allocator is
//! called, the variable is cleared for good, and then it is waited for proof that the program's one thread is not inside
//! malloc still believing to be alone: see [`crate::rest`]. Without proof nothing is done. A program that makes a thread of
//! its own clears the variable itself, outside malloc, which is proof.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};

use crate::{rest, symbols, sys};

/// Every thread of the program takes the allocator's locks.
const LOUD: u8 = 0;
/// The one thread of the program does not.
const QUIET: u8 = 1;
/// It does from now on, and may be in the midst of something that it began without.
const UNPROVEN: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(LOUD);
/// Whether glibc does not count our thread.
static UNCOUNTED: AtomicBool = AtomicBool::new(false);

/// Creates our thread by `create`, such that glibc does not take the program for one with threads if it is not. `create`
/// says whether it succeeded. The calling thread is the program's, and outside the allocator.
pub(crate) fn around(stay_quiet: bool, create: impl FnOnce() -> bool) -> bool {
    STATE.store(LOUD, Ordering::SeqCst);
    UNCOUNTED.store(false, Ordering::SeqCst);
    let (Some(single), Some(count)) = (symbols::single_threaded(), symbols::nptl_nthreads()) else {
        return create();
    };
    // Where there would never be proof there is no use in being quiet.
    let alone = stay_quiet
        && sys::threads() == Some(1)
        && single.load(Ordering::Relaxed) == 1
        && count.load(Ordering::Relaxed) == 1
        && symbols::single_threaded_is_libcs()
        && rest::can_be_told();
    if !alone {
        return create();
    }
    // At one thread pthread_create switches stdio's locks on for good (nptl/pthread_create.c: _IO_enable_locks), and the
    // last thread that ends calls exit(): ours is not counted, so that both happen when they would without it.
    count.store(2, Ordering::SeqCst);
    let created = create();
    count.store(1, Ordering::SeqCst);
    single.store(1, Ordering::SeqCst);
    if created {
        STATE.store(QUIET, Ordering::SeqCst);
        UNCOUNTED.store(true, Ordering::SeqCst);
    }
    created
}

/// Whether the program still goes without the allocator's locks.
pub(crate) fn is_quiet() -> bool {
    STATE.load(Ordering::SeqCst) == QUIET
        && symbols::single_threaded().is_some_and(|single| single.load(Ordering::SeqCst) != 0)
}

/// Whether the allocator may be called by our thread now.
pub(crate) fn allocator_is_locked() -> bool {
    match STATE.load(Ordering::SeqCst) {
        LOUD => true,
        QUIET => {
            let Some(single) = symbols::single_threaded() else {
                return false;
            };
            if single.load(Ordering::SeqCst) == 0 {
                STATE.store(LOUD, Ordering::SeqCst);
                return true;
            }
            single.store(0, Ordering::SeqCst);
            STATE.store(UNPROVEN, Ordering::SeqCst);
            prove()
        }
        _ => prove(),
    }
}

fn prove() -> bool {
    // What we see of the program's thread has to come after it sees what we wrote.
    fence(Ordering::SeqCst);
    if rest::main_rests() {
        STATE.store(LOUD, Ordering::SeqCst);
    }
    STATE.load(Ordering::SeqCst) == LOUD
}

/// The program's one thread says that it is outside the allocator.
pub(crate) fn outside() {
    let _ = STATE.compare_exchange(UNPROVEN, LOUD, Ordering::SeqCst, Ordering::SeqCst);
}

/// From now on every thread takes all locks. `outside`: the program's one thread says that it is outside the allocator.
pub(crate) fn make_loud(outside: bool) {
    if is_quiet()
        && let Some(single) = symbols::single_threaded()
    {
        single.store(0, Ordering::SeqCst);
        let state = if outside { LOUD } else { UNPROVEN };
        STATE.store(state, Ordering::SeqCst);
    }
}

/// Our thread is about to end as threads do, which takes one from glibc's count.
pub(crate) fn before_end() {
    if UNCOUNTED.swap(false, Ordering::SeqCst)
        && let Some(count) = symbols::nptl_nthreads()
    {
        count.fetch_add(1, Ordering::SeqCst);
    }
}
