//! The children of a controller: its guard, and helpers that are in the middle of a write.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::harness::wait_until;

/// The children that a process had when it was looked at, the oldest first: that is the guard, by whatever name yet.
pub(crate) struct Orphans(Vec<OwnedFd>);

impl Orphans {
    /// Those of `pid`.
    pub(crate) fn of(pid: u32) -> Result<Orphans> {
        let mut found = Vec::new();
        for child in children(pid)? {
            let Some(child) = Pid::from_raw(child) else {
                continue;
            };
            // It may have ended meanwhile.
            if let Ok(pidfd) = pidfd_open(child, PidfdFlags::empty()) {
                found.push(pidfd);
            }
        }
        Ok(Orphans(found))
    }

    /// SIGKILL of the guard; it is gone when this returns.
    pub(crate) fn kill_guard(&self) -> Result<()> {
        let Some(guard) = self.0.first() else {
            return Ok(());
        };
        let _ = pidfd_send_signal(guard, Signal::KILL);
        wait_until("the guard's end", Duration::from_secs(5), || {
            Ok(ended(guard)?.then_some(()))
        })
    }

    /// Whether all have ended.
    pub(crate) fn ended(&self) -> Result<bool> {
        for pidfd in &self.0 {
            if !ended(pidfd)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn ended(pidfd: &OwnedFd) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&rustix::time::Timespec::default()))? > 0)
}

fn children(pid: u32) -> Result<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect())
}
