//! sync(2) by a process of its own: one disk that hangs holds it up for ever, and it must not hold up us.

use std::time::Duration;

use rustix::io::Errno;

use super::fork::{self, Forked};

/// A sync under way.
#[derive(Debug)]
pub struct Syncing(Forked);

/// Begins to write all dirty pages back.
///
/// # Errors
/// There is no room for another process.
pub fn start() -> Result<Syncing, Errno> {
    // SAFETY: the child makes one system call.
    unsafe { fork::fork(&mut [], || libc::sync()) }.map(Syncing)
}

impl Syncing {
    /// Whether it is done within this time.
    #[must_use]
    pub fn done_within(&self, time: Duration) -> bool {
        self.0.ends_within(time)
    }

    /// Does not wait for it any longer; one that hangs in the kernel ends when that lets it.
    pub fn give_up(self) {
        self.0.kill();
    }
}
