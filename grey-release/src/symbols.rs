//! What the program offers: functions and variables that are looked up by name, once, before it begins.
//!
//! Later is too late: a look-up that fails allocates (dlerror's text), which the agent's thread does not.

use core::arch::{asm, global_asm};
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

// Weak: a statically linked libc before 2.34 had it in libdl, and a program without it must still start.
global_asm!(".weak dlsym");

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// `RTLD_DEFAULT`, `RTLD_NEXT`: what the program itself would get, and what it would get without us.
const DEFAULT: *mut c_void = core::ptr::null_mut();
const NEXT: *mut c_void = -1_isize as *mut c_void;

/// Where `dlsym` is, if it is anywhere. A plain reference would be taken for one that cannot be zero.
fn dlsym() -> Option<Dlsym> {
    let address: usize;
    // SAFETY: reads our own entry of the global offset table.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("mov {}, qword ptr [rip + dlsym@GOTPCREL]", out(reg) address, options(nostack, pure, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("adrp {0}, :got:dlsym", "ldr {0}, [{0}, :got_lo12:dlsym]", out(reg) address, options(nostack, pure, readonly));
    }
    // SAFETY: zero is None, anything else the function.
    unsafe { core::mem::transmute::<usize, Option<Dlsym>>(address) }
}

/// An address by name, zero where there is none. `name` ends with a zero byte.
fn look_up(of: *mut c_void, name: &[u8]) -> usize {
    match dlsym() {
        // SAFETY: the names below end with a zero byte.
        Some(dlsym) if name.last() == Some(&0) => unsafe {
            dlsym(of, name.as_ptr().cast()) as usize
        },
        _ => 0,
    }
}

/// glibc's `struct mallinfo2`, bytes (malloc/malloc.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mallinfo {
    pub(crate) arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    pub(crate) hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    pub(crate) uordblks: usize,
    pub(crate) fordblks: usize,
    keepcost: usize,
}

#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: *mut c_void,
    name: *const c_char,
    address: *mut c_void,
}

macro_rules! symbols {
    ($($name:ident, $from:expr, $($symbol:literal)|+, $type:ty;)*) => {
        #[allow(non_upper_case_globals, reason = "one static a function of the same name")]
        mod address { use super::AtomicUsize; $(pub(super) static $name: AtomicUsize = AtomicUsize::new(0);)* }

        fn find_all() {
            $(for name in [$(concat!($symbol, "\0")),+] {
                let found = look_up($from, name.as_bytes());
                if found != 0 {
                    address::$name.store(found, Ordering::Release);
                    break;
                }
            })*
        }

        $(#[allow(dead_code, reason = "of some it is only asked where they are")]
        pub(crate) fn $name() -> Option<$type> {
            // SAFETY: zero is None; else it is what has this name in the program, and so this type.
            unsafe { core::mem::transmute::<usize, Option<$type>>(address::$name.load(Ordering::Acquire)) }
        })*
    };
}

pub(crate) type Handler = extern "C" fn();
pub(crate) type Thread = extern "C" fn(*mut c_void) -> *mut c_void;

symbols! {
    dlerror, DEFAULT, "dlerror", unsafe extern "C" fn() -> *mut c_char;
    dladdr, DEFAULT, "dladdr", unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int;
    gnu, DEFAULT, "gnu_get_libc_version", unsafe extern "C" fn() -> *const c_char;
    getenv, DEFAULT, "getenv", unsafe extern "C" fn(*const c_char) -> *const c_char;
    getauxval, DEFAULT, "getauxval", unsafe extern "C" fn(usize) -> usize;
    errno, DEFAULT, "__errno_location", unsafe extern "C" fn() -> *mut c_int;
    valloc, DEFAULT, "valloc", unsafe extern "C" fn(usize) -> *mut c_void;
    register_atfork, DEFAULT, "__register_atfork", unsafe extern "C" fn(Handler, Handler, Handler, *mut c_void) -> c_int;
    pthread_create, DEFAULT, "pthread_create", unsafe extern "C" fn(*mut usize, *const c_void, Thread, *mut c_void) -> c_int;
    pthread_attr_init, DEFAULT, "pthread_attr_init", unsafe extern "C" fn(*mut c_void) -> c_int;
    pthread_attr_destroy, DEFAULT, "pthread_attr_destroy", unsafe extern "C" fn(*mut c_void) -> c_int;
    pthread_attr_setdetachstate, DEFAULT, "pthread_attr_setdetachstate", unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
    pthread_attr_setstacksize, DEFAULT, "pthread_attr_setstacksize", unsafe extern "C" fn(*mut c_void, usize) -> c_int;
    pthread_sigmask, DEFAULT, "pthread_sigmask", unsafe extern "C" fn(c_int, *const c_void, *mut c_void) -> c_int;
    single_threaded, DEFAULT, "__libc_single_threaded", &'static core::sync::atomic::AtomicU8;
    nptl_nthreads, DEFAULT, "__nptl_nthreads", &'static core::sync::atomic::AtomicU32;
    stack_end, DEFAULT, "__libc_stack_end", &'static AtomicUsize;

    malloc_trim, DEFAULT, "malloc_trim", unsafe extern "C" fn(usize) -> c_int;
    mallinfo2, DEFAULT, "mallinfo2", unsafe extern "C" fn() -> Mallinfo;
    mallctl, DEFAULT, "mallctl" | "je_mallctl", unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
    mi_collect, DEFAULT, "mi_collect", unsafe extern "C" fn(bool);
    tc_release, DEFAULT, "MallocExtension_ReleaseFreeMemory", unsafe extern "C" fn();
    tc_property, DEFAULT, "MallocExtension_GetNumericProperty", unsafe extern "C" fn(*const c_char, *mut usize) -> c_int;

    py_add_pending_call, DEFAULT, "Py_AddPendingCall", unsafe extern "C" fn(extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int;
    py_is_initialized, DEFAULT, "Py_IsInitialized", unsafe extern "C" fn() -> c_int;
    py_gc_collect, DEFAULT, "PyGC_Collect", unsafe extern "C" fn() -> isize;
    py_gc_is_enabled, DEFAULT, "PyGC_IsEnabled", unsafe extern "C" fn() -> c_int;

    setuid, NEXT, "setuid", unsafe extern "C" fn(c_uint) -> c_int;
    setgid, NEXT, "setgid", unsafe extern "C" fn(c_uint) -> c_int;
    seteuid, NEXT, "seteuid", unsafe extern "C" fn(c_uint) -> c_int;
    setegid, NEXT, "setegid", unsafe extern "C" fn(c_uint) -> c_int;
    setreuid, NEXT, "setreuid", unsafe extern "C" fn(c_uint, c_uint) -> c_int;
    setregid, NEXT, "setregid", unsafe extern "C" fn(c_uint, c_uint) -> c_int;
    setresuid, NEXT, "setresuid", unsafe extern "C" fn(c_uint, c_uint, c_uint) -> c_int;
    setresgid, NEXT, "setresgid", unsafe extern "C" fn(c_uint, c_uint, c_uint) -> c_int;
    setgroups, NEXT, "setgroups", unsafe extern "C" fn(usize, *const c_uint) -> c_int;
    initgroups, NEXT, "initgroups", unsafe extern "C" fn(*const c_char, c_uint) -> c_int;
    unshare, NEXT, "unshare", unsafe extern "C" fn(c_int) -> c_int;
    setns, NEXT, "setns", unsafe extern "C" fn(c_int, c_int) -> c_int;
}

/// Looks everything up; whether there is a libc that the agent knows.
pub(crate) fn find() -> bool {
    find_all();
    // What was not found has left a text, which the program would take for its own error.
    if let Some(dlerror) = dlerror() {
        // SAFETY: takes nothing.
        unsafe { dlerror() };
    }
    gnu().is_some()
}

/// The begin of the object that holds this address.
fn base(address: usize) -> Option<usize> {
    let mut info = DlInfo {
        file: core::ptr::null(),
        base: core::ptr::null_mut(),
        name: core::ptr::null(),
        address: core::ptr::null_mut(),
    };
    // SAFETY: it fills in a struct of this layout (dlfcn.h: Dl_info).
    let found = unsafe { dladdr()?(address as *const c_void, (&raw mut info).cast()) };
    (found != 0).then_some(info.base as usize)
}

fn in_libc(address: usize) -> bool {
    let libc = base(address::gnu.load(Ordering::Acquire));
    address != 0 && libc.is_some() && base(address) == libc
}

/// Whether the program's allocator is glibc's own. Told by `valloc`, which every allocator brings along and no program
/// calls: `malloc` itself is found in a program that is linked to a fixed address, where its way to it is (the PLT).
pub(crate) fn malloc_is_glibcs() -> bool {
    in_libc(address::valloc.load(Ordering::Acquire))
}

/// Whether `__libc_single_threaded` lies in libc: else the program has a copy of it (a copy relocation), and libc one more,
/// which nobody can reach.
pub(crate) fn single_threaded_is_libcs() -> bool {
    in_libc(address::single_threaded.load(Ordering::Acquire))
}

/// A variable of the environment.
pub(crate) fn variable(name: &[u8]) -> Option<&'static [u8]> {
    if name.last() != Some(&0) {
        return None;
    }
    // SAFETY: the name ends; what comes back does so too. It is looked at before the program begins and can change it.
    unsafe {
        let text = getenv()?(name.as_ptr().cast());
        (!text.is_null()).then(|| core::ffi::CStr::from_ptr(text).to_bytes())
    }
}
