//! Processes of the cgroups that are read: their number, sizes and, where asked for, a sample of each.

use grey_core::event::{Body, Process};
use grey_core::time::Timestamp;

use super::{Notice, Observer, ProcessSums};

/// Processes of one cgroup looked at in one tick; a larger cgroup's virtual size stays unknown.
const MOST: usize = 4096;

impl Observer {
    /// Counts the cgroup's own processes and moves the difference up the tree.
    pub(super) fn count_processes(&mut self, id: u64, now: Timestamp, out: &mut Vec<Notice>) {
        let Some(procs) = &mut self.procs else { return };
        let Some(known) = self.known.get(&id).filter(|known| known.wanted) else {
            return;
        };
        let listed = match self.fs.mount() {
            Some(_) => self.fs.pids(known.cgroup.path()),
            None => procs.pids(),
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
            // A process that ended meanwhile is no error.
            if !in_full {
                if let Ok(Some((_, size))) = procs.statm(pid) {
                    sums.count += 1;
                    sums.virt += size as i64;
                }
                continue;
            }
            let Ok(Some(memory)) = procs.memory(pid) else {
                continue;
            };
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
