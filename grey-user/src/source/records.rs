//! Ring records become events and upkeep of the tree; memory.events notifications become readings.

use std::os::fd::{AsFd, BorrowedFd};

use grey_core::decode::{self, Record};
use grey_core::event::{Body, Growth, GrowthScope, Oom, OomTrigger, OomVictim, Pressure, Stall};
use grey_core::time::Timestamp;

use super::{Clock, Notice, Observer};

/// Threads of one victim may each be marked; further marks of the process within this time are the same kill.
const SAME_KILL_NS: u64 = 5_000_000_000;
/// No process grows by a threshold in so short a time: a second report so soon is by another thread that crossed the mark
/// together with the first.
const SAME_GROWTH_NS: u64 = 50_000;

/// Samples of one cgroup on notice of its memory.events are at least this far apart; the tick makes up for the rest.
const NOTIFY_SPACING_US: i64 = 100_000;

impl Observer {
    /// Reads both rings empty.
    pub fn drain(&mut self, out: &mut Vec<Notice>) {
        let clock = Clock::now();
        let mut records = Vec::new();
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        let mut rejected = 0;
        let mut decode = |bytes: &[u8]| match decode::decode(bytes) {
            Ok(record) => records.push(record),
            Err(error) => {
                rejected += 1;
                tracing::warn!("ring record: {error}");
            }
        };
        while let Some(item) = kernel.rare.next() {
            decode(&item);
        }
        while let Some(item) = kernel.growth.next() {
            decode(&item);
        }
        self.rejected += rejected;
        for record in records {
            *self.read.entry(record.kind().name()).or_default() += 1;
            self.record(record, clock, out);
        }
    }

    fn record(&mut self, record: Record, clock: Clock, out: &mut Vec<Notice>) {
        let ts = clock.at(record.ktime_ns());
        match record {
            Record::CgroupMade(change) => {
                match self.path_of(change.id, change.path, change.truncated) {
                    Some(path) => self.learn(change.id, &path, false),
                    None => tracing::debug!(
                        "cgroup {} was gone before its path could be read",
                        change.id
                    ),
                }
            }
            Record::CgroupRemoved(change) => self.forget(change.id, out),
            Record::CgroupRenamed(change) => {
                if let Some(path) = self.path_of(change.id, change.path, change.truncated) {
                    self.renamed(change.id, &path, out);
                }
            }
            Record::ProcessExec(_) => {}
            Record::ProcessExit(process) => {
                self.grown.remove(&process.pid);
            }
            Record::Oom(oom) => self.oom(oom, ts, out),
            Record::Stall(stall) => self.stall(stall, ts, out),
            Record::ProcessGrowth(growth) => self.growth(growth, GrowthScope::Process, ts, out),
            Record::CgroupGrowth(growth) => self.growth(growth, GrowthScope::Cgroup, ts, out),
        }
    }

    fn path_of(&self, id: u64, path: String, truncated: bool) -> Option<String> {
        if truncated {
            self.fs.lookup(id)
        } else {
            Some(path)
        }
    }

    fn oom(&mut self, oom: decode::Oom, ts: Timestamp, out: &mut Vec<Notice>) {
        self.victims
            .retain(|(_, at)| oom.ktime_ns < at + SAME_KILL_NS);
        if self.victims.iter().any(|(pid, _)| *pid == oom.pid) {
            return;
        }
        self.victims.push((oom.pid, oom.ktime_ns));
        // Kernels that tell a pid only: procfs may still have the victim.
        let mut victim = OomVictim {
            pid: oom.pid,
            comm: oom.comm,
            anon: oom.anon,
            file: oom.file,
            shmem: oom.shmem,
            pgtables: oom.pgtables,
            r#virtual: oom.total_vm,
            oom_score_adj: oom.oom_score_adj,
        };
        let mut id = oom.cgroup;
        if let Some(procs) = &mut self.procs
            && victim.comm.is_empty()
        {
            if let Ok(Some(memory)) = procs.memory(oom.pid) {
                victim.comm = memory.comm;
            }
            if id.is_none()
                && let Ok(Some(path)) = procs.cgroup(oom.pid)
            {
                id = self.tree.id_of(&path);
            }
        }
        let cgroup = self.identity(id);
        if !self.is_wanted(cgroup.as_ref()) {
            return;
        }
        let path = |id: Option<u64>| self.identity(id).map(|cgroup| cgroup.path);
        let trigger_path = path(oom.trigger_cgroup);
        let body = Body::Oom {
            oom: Oom {
                victim: Some(victim),
                trigger: oom.trigger_pid.map(|pid| OomTrigger {
                    pid,
                    comm: oom.trigger_comm,
                    cgroup: trigger_path,
                }),
                constraint: oom.constraint,
                limit_cgroup: path(oom.limit_cgroup),
                kills: 1,
            },
        };
        self.emit(body, ts, cgroup, out);
    }

    fn stall(&mut self, stall: decode::Stall, ts: Timestamp, out: &mut Vec<Notice>) {
        let cgroup = self.identity(stall.cgroup);
        if !self.is_wanted(cgroup.as_ref()) {
            return;
        }
        let target = self.identity(stall.target).map(|cgroup| cgroup.path);
        let body = Body::Stall {
            stall: Stall {
                kind: stall.kind,
                us: stall.ns / 1000,
                pages: stall.pages,
                pid: stall.pid,
                comm: Some(stall.comm),
                target,
                own: stall.own,
            },
        };
        self.emit(body, ts, cgroup, out);
    }

    fn growth(
        &mut self,
        growth: decode::Growth,
        scope: GrowthScope,
        ts: Timestamp,
        out: &mut Vec<Notice>,
    ) {
        if scope == GrowthScope::Process {
            let before = self.last_growth.insert(growth.pid, growth.ktime_ns);
            self.grown.insert(growth.pid, self.tick);
            if before.is_some_and(|told_ns| is_told(growth.ktime_ns, growth.since_ns, told_ns)) {
                return;
            }
        }
        let cgroup = self.identity(growth.cgroup);
        if !self.is_wanted(cgroup.as_ref()) {
            return;
        }
        if let Some(id) = growth.cgroup
            && self.known.contains_key(&id)
        {
            self.touched.insert(id);
        }
        let body = Body::Growth {
            growth: Growth {
                scope,
                pid: growth.pid,
                comm: growth.comm,
                bytes: growth.bytes,
                since_ms: growth.since_ns / 1_000_000,
                rss: growth.rss,
                r#virtual: growth.total_vm,
            },
        };
        self.emit(body, ts, cgroup, out);
    }

    /// Reads the memory.events notifications and the cgroups they are about.
    pub fn notified(&mut self, now: Timestamp, out: &mut Vec<Notice>) {
        let Some(watches) = &mut self.watches else {
            return;
        };
        let mut changed = Vec::new();
        match watches.read(&mut changed) {
            Ok(notified) if notified.overflow => self.touched.extend(self.known.keys()),
            Ok(_) => {}
            Err(error) => {
                self.read_errors += 1;
                tracing::warn!("{error}");
            }
        }
        changed.retain(|id| self.known.get(id).is_some_and(|known| known.wanted));
        // A cgroup at its limit changes its events up to a hundred times a second.
        let (at_once, later): (Vec<u64>, Vec<u64>) = changed.iter().partition(|id| {
            self.known
                .get(id)
                .is_some_and(|known| now.0 >= known.sampled.0.saturating_add(NOTIFY_SPACING_US))
        });
        for id in later {
            self.touched.insert(id);
            // Nobody else tells of a kill before the next tick.
            if !self.coverage.oom
                && let Some(count) = self.kill_count(id)
            {
                self.count_kills(id, count, now, out);
            }
        }
        let changed = at_once;
        if !changed.is_empty() {
            // Else the counters of this line would be those of the last tick, and its rates wrong.
            self.collect();
        }
        for id in changed {
            if self.known.contains_key(&id) {
                self.count_processes(id, now, out);
                self.sample(id, now, out);
            }
        }
    }

    /// A PSI trigger on the machine or on the cgroup at `path` fired.
    pub fn pressure(
        &mut self,
        path: &str,
        pressure: Pressure,
        now: Timestamp,
        out: &mut Vec<Notice>,
    ) {
        let id = self.tree.id_of(path);
        if let Some(id) = id {
            self.touched.insert(id);
        }
        let cgroup = self.identity(id);
        self.emit(Body::Pressure { pressure }, now, cgroup, out);
    }

    /// Descriptors of the rings, to wait on: rare and growth.
    #[must_use]
    pub fn rings(&self) -> Option<[BorrowedFd<'_>; 2]> {
        let kernel = self.kernel.as_ref()?;
        Some([kernel.rare_fd.as_fd(), kernel.growth_fd.as_fd()])
    }
}

/// Whether a process's report at `told_ns` had the growth of this one in it: it began before that, or just then.
fn is_told(ktime_ns: u64, since_ns: u64, told_ns: u64) -> bool {
    // The kernel side may have read the begin after the other thread had set it anew: then it lies ahead.
    let began_ns = ktime_ns.wrapping_sub(since_ns);
    began_ns < told_ns || ktime_ns < told_ns.saturating_add(SAME_GROWTH_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: u64 = 9_000_000_000;

    fn is_told_of(from_ns: u64, to_ns: u64) -> bool {
        is_told(to_ns, to_ns.wrapping_sub(from_ns), TOLD)
    }

    #[test]
    fn a_second_thread_at_the_same_mark_tells_nothing_new() {
        for (from, to) in [
            (TOLD - 7_000_000, TOLD + 4_000),
            (TOLD, TOLD + 4_000),
            (TOLD, TOLD - 1_000),
            (TOLD - 7_000_000, TOLD - 1_000),
        ] {
            assert!(is_told_of(from, to), "{from} to {to}");
        }
    }

    #[test]
    fn growth_from_the_last_report_on_is_new_however_fast() {
        for (from, to) in [
            (TOLD, TOLD + 500_000),
            (TOLD + 100_000, TOLD + 600_000),
            (TOLD, TOLD + 7_000_000_000),
        ] {
            assert!(!is_told_of(from, to), "{from} to {to}");
        }
    }
}
