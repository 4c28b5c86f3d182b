//! Facts to plan to load to attach of the kernel side.

mod attach;
mod btf;
mod check;
mod counters;
mod facts;
mod levels;
mod load;
mod mapped;
mod plan;
mod stacks;
mod streaks;
mod switch;

pub use btf::{Btf, BtfError, Param};
pub use counters::Counters;
pub use facts::Facts;
pub use levels::Level;
pub use load::{FAIL_VAR, Kernel, LoadError, Settings, load, unavailable};
pub use plan::{Probe, SYSCALL_TRACEPOINT, probes};
pub use stacks::{StackProbe, StackRoom, StackTables, StackTarget};
pub use switch::{Family, RunTimes};
