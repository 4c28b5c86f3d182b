//! Empty eBPF programs: the least that any program on a hook costs. Two instructions, loaded by the system call itself.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use aya_obj::btf::{Btf, BtfKind};

const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
/// BPF_PROG_TYPE_TRACING.
const TRACING: u32 = 26;
/// BPF_TRACE_RAW_TP.
const RAW_TP: u32 = 23;
/// `r0 = 0`, `exit`.
const RETURN_0: [u64; 2] = [0xb7, 0x95];
const LICENSE: &CStr = c"GPL";

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
    name: [u8; 16],
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

/// An attached program; it goes with this.
#[derive(Debug)]
pub struct Empty {
    _link: OwnedFd,
    _program: OwnedFd,
}

/// Attaches an empty program to a BTF tracepoint.
///
/// # Errors
/// This kernel has no such tracepoint, or does not let us.
pub fn on_tracepoint(btf: &Btf, name: &str) -> Result<Empty> {
    let typedef = format!("btf_trace_{name}");
    let id = btf
        .id_by_type_name_kind(&typedef, BtfKind::Typedef)
        .with_context(|| typedef.clone())?;
    let load = Load {
        kind: TRACING,
        instructions: RETURN_0.len() as u32,
        code: RETURN_0.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        name: *b"empty\0\0\0\0\0\0\0\0\0\0\0",
        attach: RAW_TP,
        attach_btf_id: id,
        ..Load::default()
    };
    let program = bpf(PROG_LOAD, &load).with_context(|| format!("an empty program for {name}"))?;
    let open = Open {
        program: program.as_raw_fd() as u32,
        ..Open::default()
    };
    let link = bpf(RAW_TRACEPOINT_OPEN, &open).with_context(|| format!("attach to {name}"))?;
    Ok(Empty {
        _link: link,
        _program: program,
    })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> Result<OwnedFd> {
    // SAFETY: the attributes are a prefix of the kernel's union of the size that is told; what they point to lives on.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
