//! `doctor`: what works here, how, and what is lost.

use serde::Serialize;

/// One probe, as the loader left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStatus {
    /// Name of the probe.
    pub name: String,
    /// `fault`, `vm`, `oom`, `reclaim`, `growth`, `lifecycle`.
    pub family: String,
    /// `BTF tracepoint`, `fexit`, `kprobe`, `classic tracepoint`, `syscall tracepoint`; `None` when it is not attached.
    pub attached: Option<String>,
    /// The kernel's hook, as `page_fault_user`.
    pub hook: String,
    /// What the way it is attached costs, in plain words.
    pub cost: Option<String>,
    /// What is lost.
    pub lost: Option<String>,
    /// Why.
    pub reason: Option<String>,
}
