//! Children that do not outlive the benchmark.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Has the kernel end it (SIGTERM) when the benchmark ends, however that does: what goes on counting page faults would be in
/// all that is measured after.
pub fn ends_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec one system call is made that touches no memory of ours.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?)) }
}
