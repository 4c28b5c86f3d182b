//! The bpf system call, for what aya has no words for: programs that are put together here, instruction by instruction.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Result, ensure};

const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
/// BPF_OBJ_NAME_LEN, with a NUL.
const NAME_LEN: usize = 16;
const LICENSE: &CStr = c"GPL";
/// A program that is run by hand is given a packet: at least the head of an Ethernet frame.
const PACKET: [u8; 64] = [0; 64];

/// BPF_PROG_TYPE_SCHED_CLS.
pub const SCHED_CLS: u32 = 3;
/// BPF_PROG_TYPE_TRACING.
pub const TRACING: u32 = 26;
/// BPF_TRACE_RAW_TP.
pub const RAW_TP: u32 = 23;

/// `union bpf_attr` for BPF_PROG_LOAD (linux/bpf.h), as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LEN],
    interface: u32,
    attach: u32,
    btf_fd: u32,
    func_info_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

/// The same for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
#[derive(Default)]
struct Open {
    name: u64,
    program: u32,
    pad: u32,
}

/// The same for BPF_PROG_TEST_RUN.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    returned: u32,
    data_size: u32,
    out_size: u32,
    data: u64,
    out: u64,
    repeat: u32,
    duration: u32,
}

/// Loads a program of a type. `attach` is how and to which BTF id it will be attached; zeros where that is not asked.
///
/// # Errors
/// The kernel does not take it.
pub fn load(kind: u32, name: &str, code: &[u64], attach: (u32, u32)) -> Result<OwnedFd> {
    let mut told = [0; NAME_LEN];
    for (to, from) in told[..NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let mut attributes = Load {
        kind,
        instructions: u32::try_from(code.len())?,
        code: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        name: told,
        attach: attach.0,
        attach_btf_id: attach.1,
        ..Load::default()
    };
    let fd = bpf(PROG_LOAD, &mut attributes)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to the tracepoint of its BTF id; it stays as long as what is returned.
///
/// # Errors
/// The kernel refuses it.
pub fn attach(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attributes = Open {
        program: program.as_raw_fd() as u32,
        ..Open::default()
    };
    let fd = bpf(RAW_TRACEPOINT_OPEN, &mut attributes)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a program for packets so many times in a row, here and now; all have to return 0.
///
/// # Errors
/// The kernel refuses it, or the last run returned something else.
pub fn run(program: BorrowedFd<'_>, times: u32) -> Result<()> {
    let mut attributes = Run {
        program: program.as_raw_fd() as u32,
        data_size: PACKET.len() as u32,
        data: PACKET.as_ptr() as u64,
        repeat: times,
        ..Run::default()
    };
    bpf(PROG_TEST_RUN, &mut attributes)?;
    let returned = attributes.returned;
    ensure!(returned == 0, "the program returned {returned}");
    Ok(())
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> Result<RawFd> {
    // SAFETY: the attributes are a prefix of the kernel's union of the size that is told; what they point to lives on.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(result as RawFd)
}
