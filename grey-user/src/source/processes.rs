//! Processes of the cgroups that are read: their number, sizes and, where asked for, a sample of each.

use std::collections::HashMap;

use grey_core::event::{Body, Process};
use grey_core::time::Timestamp;

use super::{Notice, Observer, ProcessSums};

/// Processes of one cgroup looked at in one tick; a larger cgroup's virtual size stays unknown.
const MOST: usize = 4096;

/// Looks without memory of its own after which a process is taken for a kernel thread.
const SURE: u8 = 2;
/// Looks that one is spared then: what was taken for one by mistake, or has its number, is seen after so many.
const SPARED: u8 = 30;

/// Processes without memory of their own, kernel threads that is, of which a machine has hundreds: to ask each of them in
/// each tick would cost more than all else of a tick.
#[derive(Debug, Default)]
pub(super) struct Bare(HashMap<u32, u8>);

impl Bare {
    /// Whether this look at a process may be spared.
    fn spares(&mut self, pid: u32) -> bool {
        let Some(looks) = self.0.get_mut(&pid) else {
            return false;
        };
        if *looks < SURE {
            return false;
        }
        *looks += 1;
        if *looks == SURE + SPARED {
            self.0.remove(&pid);
        }
        true
    }

    /// What a look showed.
    fn note(&mut self, pid: u32, bare: bool) {
        if bare {
            // Those that ended are never asked for again.
            if self.0.len() > MOST {
                self.0.clear();
            }
            *self.0.entry(pid).or_default() += 1;
        } else {
            self.0.remove(&pid);
        }
    }
}

impl Observer {
    /// Counts the cgroup's own processes and moves the difference up the tree.
    pub(super) fn count_processes(&mut self, id: u64, now: Timestamp, out: &mut Vec<Notice>) {
        let Some(procs) = &mut self.procs else { return };
        let Some(known) = self.known.get_mut(&id).filter(|known| known.wanted) else {
            return;
        };
        let listed = match (&mut known.files, self.fs.mount()) {
            (Some(files), _) => {
                let Some(pids) = files.pids(&mut self.buf) else {
                    return;
                };
                Ok(pids)
            }
            (None, Some(_)) => self.fs.pids(known.cgroup.path()),
            (None, None) => procs.pids(),
        };
        let pids = match listed {
            Ok(pids) => pids,
            Err(error) => {
                tracing::debug!("{error}");
                return;
            }
        };
        if pids.len() > MOST {
            return;
        }
        let cgroup = known.cgroup.cgroup();
        // Without memory.* files the processes are all there is to tell of the cgroup's memory.
        let in_full = self.options.processes || !self.fs.has_memory();
        let mut sums = ProcessSums::default();
        let mut samples = Vec::new();
        for pid in pids {
            if self.bare.spares(pid) {
                sums.count += 1;
                continue;
            }
            // A process that ended meanwhile is no error.
            if !in_full {
                if let Ok(Some((_, size))) = procs.statm(pid) {
                    self.bare.note(pid, size == 0);
                    sums.count += 1;
                    sums.virt += size as i64;
                }
                continue;
            }
            let Ok(Some(memory)) = procs.memory(pid) else {
                continue;
            };
            self.bare.note(pid, memory.r#virtual.is_none());
            sums.count += 1;
            sums.virt += memory.r#virtual.unwrap_or(0) as i64;
            sums.anon += memory.anon.unwrap_or(0) as i64;
            sums.swap += memory.swap.unwrap_or(0) as i64;
            // Kernel threads have no memory of their own.
            if self.options.processes && memory.rss.is_some() {
                samples.push(Process {
                    pid,
                    comm: memory.comm,
                    rss: memory.rss,
                    anon: memory.anon,
                    swap: memory.swap,
                    r#virtual: memory.r#virtual,
                });
            }
        }
        self.settle(id, sums);
        for process in samples {
            self.emit(Body::Process { process }, now, Some(cgroup.clone()), out);
        }
    }

    /// Takes the processes of a removed cgroup out of what is above it.
    pub(super) fn settle_processes(&mut self, id: u64) {
        self.settle(id, ProcessSums::default());
    }

    fn settle(&mut self, id: u64, sums: ProcessSums) {
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        let moved = sums.less(known.own);
        known.own = sums;
        known.processes_known = true;
        if moved == ProcessSums::default() {
            return;
        }
        for at in self.tree.ancestors(id) {
            if let Some(known) = self.known.get_mut(&at) {
                known.all.add(moved);
            }
        }
    }

    /// Ended processes still in the kernel side's table, where no exit event takes them out.
    pub(super) fn sweep_processes(&mut self) {
        let (Some(kernel), Some(procs)) = (&mut self.kernel, &mut self.procs) else {
            return;
        };
        let ended: Vec<u32> = kernel.counters.processes().collect();
        for pid in ended {
            if let Ok(None) = procs.statm(pid) {
                kernel.counters.forget_process(pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_thread_is_spared_for_a_while_and_looked_at_again() {
        let mut bare = Bare::default();
        for _ in 0..SURE {
            assert!(!bare.spares(7));
            bare.note(7, true);
        }
        for _ in 0..SPARED {
            assert!(bare.spares(7));
        }
        assert!(!bare.spares(7));
    }

    #[test]
    fn who_has_memory_is_always_looked_at() {
        let mut bare = Bare::default();
        for _ in 0..100 {
            assert!(!bare.spares(7));
            bare.note(7, false);
        }
        // Seen once between its start and its first memory.
        bare.note(8, true);
        assert!(!bare.spares(8));
        bare.note(8, false);
        bare.note(8, true);
        assert!(!bare.spares(8));
    }
}
