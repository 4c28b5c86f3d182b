//! Which processes grow, from `growth` events (pushed) and `process` samples (polled).

use std::collections::HashMap;

use crate::event::{Growth, GrowthScope, Process};
use crate::time::Timestamp;

const MAX_PROCESSES: usize = 1024;
const FORGET_US: u64 = 300_000_000;
const REUSED_US: u64 = 30_000_000;

/// A process that grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrowingProcess<'a> {
    /// Thread group id.
    pub pid: u32,
    /// Command name.
    pub comm: &'a str,
    /// Path of its cgroup; empty when unknown.
    pub cgroup: &'a str,
    /// Resident bytes.
    pub rss: Option<u64>,
    /// Anonymous and swapped-out bytes.
    pub held: Option<u64>,
    /// Virtual bytes.
    pub r#virtual: Option<u64>,
    /// Bytes/s now: over the last window, or, when no growth was reported since, at most this.
    pub rate: f64,
    /// Bytes it grew by since it was first heard of, shrinking left out.
    pub grown: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    by_pid: HashMap<u32, Known>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    comm: String,
    cgroup: String,
    rss: Option<u64>,
    held: Option<u64>,
    r#virtual: Option<u64>,
    sampled: Option<Timestamp>,
    grown: u64,
    /// Bytes and microseconds of the last window in which it grew.
    window: (u64, u64),
    window_end_us: u64,
    heard_us: u64,
}

impl Processes {
    pub(super) fn sample(
        &mut self,
        process: &Process,
        cgroup: Option<&str>,
        ts: Timestamp,
        elapsed_us: u64,
    ) {
        let known = self.known(process.pid, &process.comm, cgroup, elapsed_us, true);
        // RSS stands in where the kernel does not tell its parts.
        let held = match process.anon {
            Some(anon) => Some(anon.saturating_add(process.swap.unwrap_or(0))),
            None => process.rss,
        };
        let window_us = known.sampled.map_or(0, |before| {
            ts.0.saturating_sub(before.0).max(0).unsigned_abs()
        });
        if let (Some(before), Some(now), 1..) = (known.held, held, window_us) {
            let grown = now.saturating_sub(before);
            known.window = (grown, window_us);
            known.window_end_us = elapsed_us;
            known.grown = known.grown.saturating_add(grown);
        }
        known.held = held;
        known.rss = process.rss;
        known.r#virtual = process.r#virtual;
        known.sampled = Some(ts);
    }

    pub(super) fn growth(
        &mut self,
        growth: &Growth,
        cgroup: Option<&str>,
        elapsed_us: u64,
        tick_us: u64,
    ) {
        let known = self.known(growth.pid, &growth.comm, cgroup, elapsed_us, false);
        known.rss = growth.rss.or(known.rss);
        known.r#virtual = growth.r#virtual.or(known.r#virtual);
        // A cgroup's growth is not that of the process that crossed the line; where it is polled, the samples
        // already hold what this event tells.
        if growth.scope == GrowthScope::Process && known.sampled.is_none() {
            known.grown = known.grown.saturating_add(growth.bytes);
            // A burst of reports is one window: a tick of it says more than the milliseconds of its last part.
            let since_us = growth.since_ms.saturating_mul(1000);
            let (bytes, window_us) = known.window;
            let begun = known.window_end_us.saturating_sub(window_us);
            let together = elapsed_us.saturating_sub(begun).max(since_us);
            known.window = if bytes > 0 && together <= tick_us {
                (bytes.saturating_add(growth.bytes), together)
            } else {
                (growth.bytes, since_us)
            };
            known.window_end_us = elapsed_us;
        }
    }

    pub(super) fn forget(&mut self, pid: u32) {
        self.by_pid.remove(&pid);
    }

    pub(super) fn forget_cgroup(&mut self, path: &str) {
        self.by_pid.retain(|_, known| known.cgroup != path);
    }

    pub(super) fn sweep(&mut self, elapsed_us: u64) {
        self.by_pid
            .retain(|_, known| elapsed_us.saturating_sub(known.heard_us) < FORGET_US);
    }

    pub(super) fn top(&self, n: usize, elapsed_us: u64, tick_us: u64) -> Vec<GrowingProcess<'_>> {
        let mut all: Vec<GrowingProcess<'_>> = self
            .by_pid
            .iter()
            .filter(|(_, known)| known.grown > 0)
            .map(|(pid, known)| GrowingProcess {
                pid: *pid,
                comm: &known.comm,
                cgroup: &known.cgroup,
                rss: known.rss,
                held: known.held,
                r#virtual: known.r#virtual,
                rate: known.rate(elapsed_us, tick_us),
                grown: known.grown,
            })
            .collect();
        all.sort_unstable_by(|a, b| {
            b.rate
                .total_cmp(&a.rate)
                .then(b.grown.cmp(&a.grown))
                .then(a.pid.cmp(&b.pid))
        });
        all.truncate(n);
        all
    }

    fn known(
        &mut self,
        pid: u32,
        comm: &str,
        cgroup: Option<&str>,
        elapsed_us: u64,
        sampled: bool,
    ) -> &mut Known {
        if self.by_pid.len() >= MAX_PROCESSES && !self.by_pid.contains_key(&pid) {
            self.make_room();
        }
        let known = self.by_pid.entry(pid).or_default();
        if known.comm.is_empty() {
            comm.clone_into(&mut known.comm);
        } else if known.comm != comm {
            // Growth is reported under the name of the thread that grew, so another name alone says nothing. A
            // sample has the process's own: another one is another program (exec), and after silence another
            // process has the pid.
            let reused = elapsed_us.saturating_sub(known.heard_us) > REUSED_US;
            if reused || (sampled && known.sampled.is_some()) {
                *known = Known::default();
            }
            if reused || sampled {
                comm.clone_into(&mut known.comm);
            }
        }
        if let Some(cgroup) = cgroup
            && known.cgroup != cgroup
        {
            cgroup.clone_into(&mut known.cgroup);
        }
        known.heard_us = elapsed_us;
        known
    }

    /// Drops an eighth at once, so that the scan is rare: those not heard of for longest, of these first those that
    /// never grew.
    fn make_room(&mut self) {
        let mut order: Vec<(u64, u64, u32)> = self
            .by_pid
            .iter()
            .map(|(pid, known)| (known.heard_us, known.grown, *pid))
            .collect();
        let (_, &mut first_kept, _) = order.select_nth_unstable(MAX_PROCESSES / 8);
        self.by_pid
            .retain(|pid, known| (known.heard_us, known.grown, *pid) >= first_kept);
    }
}

impl Known {
    /// While reports keep coming this is the rate of the last window; when they stop it falls, because growth by the
    /// threshold would have been reported.
    fn rate(&self, elapsed_us: u64, tick_us: u64) -> f64 {
        let (bytes, window_us) = self.window;
        let silent = elapsed_us.saturating_sub(self.window_end_us);
        let silent = if silent <= tick_us { 0 } else { silent };
        // What grew in less than a tick did so once in that tick.
        let over = window_us.max(silent).max(tick_us);
        bytes as f64 * 1e6 / over as f64
    }
}
