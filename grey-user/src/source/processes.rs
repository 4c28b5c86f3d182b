//! Processes of the cgroups that are read: their number, virtual size and, where asked for, a sample of each.

use grey_core::event::{Body, Process};
use grey_core::time::Timestamp;

use super::{Notice, Observer};

/// Processes of one cgroup looked at in one tick; a larger cgroup's virtual size stays unknown.
const MOST: usize = 4096;

impl Observer {
    /// Counts the cgroup's own processes and moves the difference up the tree.
    pub(super) fn count_processes(&mut self, id: u64, now: Timestamp, out: &mut Vec<Notice>) {
        let Some(procs) = &mut self.procs else { return };
        let Some(known) = self.known.get(&id) else {
            return;
        };
        let pids = match self.fs.pids(&known.cgroup.path) {
            Ok(pids) => pids,
            Err(error) => {
                tracing::debug!("{error}");
                return;
            }
        };
        if pids.len() > MOST {
            return;
        }
        let cgroup = known.cgroup.clone();
        let (mut total, mut count) = (0, 0);
        let mut samples = Vec::new();
        for pid in pids {
            if self.options.processes {
                // A process that ended meanwhile is no error.
                if let Ok(Some(memory)) = procs.memory(pid) {
                    total += memory.r#virtual.unwrap_or(0);
                    count += 1;
                    if memory.rss.is_some() {
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
            } else if let Ok(Some((_, size))) = procs.statm(pid) {
                total += size;
                count += 1;
            }
        }
        self.settle(id, total, count);
        for process in samples {
            self.emit(Body::Process { process }, now, Some(cgroup.clone()), out);
        }
    }

    /// Takes the processes of a removed cgroup out of what is above it.
    pub(super) fn settle_processes(&mut self, id: u64) {
        self.settle(id, 0, 0);
    }

    fn settle(&mut self, id: u64, total: u64, count: u64) {
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        let moved = total as i64 - known.own_virtual as i64;
        let more = count as i64 - known.own_processes as i64;
        known.own_virtual = total;
        known.own_processes = count;
        known.processes_known = true;
        if moved == 0 && more == 0 {
            return;
        }
        for at in self.tree.ancestors(id) {
            if let Some(known) = self.known.get_mut(&at) {
                known.all_virtual += moved;
                known.all_processes += more;
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
