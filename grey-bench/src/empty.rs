//! Empty eBPF programs: the least that any program on a hook costs. Two instructions.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya_obj::btf::{Btf, BtfKind};

use crate::bpf;

/// `r0 = 0`, `exit`.
const RETURN_0: [u64; 2] = [0xb7, 0x95];

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
    let program = program(btf, name)?;
    let link = bpf::attach(program.as_fd()).with_context(|| format!("attach to {name}"))?;
    Ok(Empty {
        _link: link,
        _program: program,
    })
}

/// One for a BTF tracepoint, not attached.
///
/// # Errors
/// As [`on_tracepoint`].
pub fn program(btf: &Btf, name: &str) -> Result<OwnedFd> {
    let typedef = format!("btf_trace_{name}");
    let id = btf
        .id_by_type_name_kind(&typedef, BtfKind::Typedef)
        .with_context(|| typedef.clone())?;
    bpf::load(bpf::TRACING, "empty", &RETURN_0, (bpf::RAW_TP, id))
        .with_context(|| format!("an empty program for {name}"))
}
