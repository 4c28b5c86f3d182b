//! System calls, without libc: they neither touch `errno` nor are interposed by anybody.

use core::arch::asm;

use linux_raw_sys::{errno, general};

/// What a system call failed with, as the kernel has it (positive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) const INTR: Errno = Errno(errno::EINTR as i32);

/// A system call of up to six arguments.
///
/// # Safety
/// As that call.
#[cfg(target_arch = "x86_64")]
unsafe fn raw(number: u32, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the kernel's calling convention: it clobbers rcx and r11, and memory as the call says.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As that call.
#[cfg(target_arch = "aarch64")]
unsafe fn raw(number: u32, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the kernel's calling convention.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as usize,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

/// A system call and what it returned.
///
/// # Safety
/// As that call.
pub(crate) unsafe fn call(number: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's word.
    let result = unsafe { raw(number, args) };
    if (-4095..0).contains(&result) {
        Err(Errno(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// A descriptor that is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Fd(pub(crate) i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: it is ours alone.
        let _ = unsafe { call(general::__NR_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Opens a file for reading. `path` ends with a zero byte.
pub(crate) fn open(path: &[u8]) -> Option<Fd> {
    if path.last() != Some(&0) {
        return None;
    }
    let flags = (general::O_RDONLY | general::O_CLOEXEC) as usize;
    let at = general::AT_FDCWD as isize as usize;
    // SAFETY: the path ends within its slice.
    let fd = unsafe {
        call(
            general::__NR_openat,
            [at, path.as_ptr() as usize, flags, 0, 0, 0],
        )
    };
    fd.ok().map(|fd| Fd(fd as i32))
}

/// Reads what there is, up to the buffer's length.
pub(crate) fn read<'a>(fd: &Fd, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let args = [fd.0 as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: the buffer is ours and as long as told.
    let got = unsafe { call(general::__NR_read, args) }?;
    Ok(buf.get(..got).unwrap_or_default())
}

/// The begin of a file. `path` ends with a zero byte.
pub(crate) fn read_file<'a>(path: &[u8], buf: &'a mut [u8]) -> Option<&'a [u8]> {
    let fd = open(path)?;
    read(&fd, buf).ok()
}

/// Nanoseconds since some moment.
pub(crate) fn now_ns() -> u64 {
    let mut time = [0_i64; 2];
    let args = [
        general::CLOCK_MONOTONIC as usize,
        time.as_mut_ptr() as usize,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: two 64-bit numbers, as the kernel fills in on 64-bit machines.
    let _ = unsafe { call(general::__NR_clock_gettime, args) };
    (time[0] as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time[1] as u64)
}

/// Sleeps for so long, or until a signal.
pub(crate) fn sleep_us(us: u64) {
    let time = [(us / 1_000_000) as i64, (us % 1_000_000 * 1000) as i64];
    // SAFETY: two 64-bit numbers, which the kernel reads.
    let _ = unsafe {
        call(
            general::__NR_nanosleep,
            [time.as_ptr() as usize, 0, 0, 0, 0, 0],
        )
    };
}

/// Our process.
pub(crate) fn pid() -> u32 {
    // SAFETY: takes nothing.
    unsafe { call(general::__NR_getpid, [0; 6]) }.unwrap_or(0) as u32
}

/// Our effective user.
pub(crate) fn euid() -> u32 {
    // SAFETY: takes nothing.
    unsafe { call(general::__NR_geteuid, [0; 6]) }.unwrap_or(usize::MAX) as u32
}

/// Size, inode and links of a file. `path` ends with a zero byte.
pub(crate) fn stat(path: &[u8]) -> Option<general::stat> {
    if path.last() != Some(&0) {
        return None;
    }
    let mut stat = core::mem::MaybeUninit::<general::stat>::zeroed();
    let args = [
        general::AT_FDCWD as isize as usize,
        path.as_ptr() as usize,
        stat.as_mut_ptr() as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the path ends within its slice; the struct is the kernel's, and all zeros are one.
    unsafe {
        call(general::__NR_newfstatat, args).ok()?;
        Some(stat.assume_init())
    }
}

/// Threads of this process: each is a folder, and thus a link of the folder above.
pub(crate) fn threads() -> Option<u64> {
    #[allow(clippy::unnecessary_cast, reason = "it has 32 bits on aarch64")]
    let links = stat(b"/proc/self/task\0")?.st_nlink as u64;
    links.checked_sub(2)
}
