//! What becomes of an action whose controller is ended, stopped or lied to between any two of its system calls: the
//! binary as it is shipped is stepped by ptrace(2), and what was to be put back is looked at afterwards.

pub(crate) mod inject;
pub(crate) mod orphans;
pub(crate) mod point;
pub(crate) mod scene;
pub(crate) mod sweep;
pub(crate) mod tracee;
