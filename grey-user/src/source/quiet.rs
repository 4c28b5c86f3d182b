//! Cgroups in which nobody was seen to fault or call: which of them are read all the same.

use std::io;

use foldhash::HashSet;

use super::{Known, OPEN_CGROUPS, Observer};
use crate::probe::Level;

/// Rounds of looks in which each cgroup is read in full once, however quiet it is.
const FULL_ROUNDS: u64 = 9;
/// Of many cgroups no more than so many a tick are looked at, and read in full, which costs seven times as much: thousands in
/// which nothing happens would take more than all that do something.
const LOOKS_AT_ONCE: usize = 256;
const FULL_AT_ONCE: u64 = 12;

impl Known {
    /// A look at its files: whether its memory and its CPU time are what they were. Most of thousands of cgroups are like
    /// that, and reading all of memory.stat and the rest to find it costs ten times as much.
    fn is_quiet(&mut self, cpu: bool, many: bool, buf: &mut Vec<u8>) -> bool {
        if !self.wanted {
            return false;
        }
        let Some(files) = &mut self.files else {
            // Without the memory controller figures are those of processes. One that came in shows when it faults.
            return self.processes_known && self.all.count == 0;
        };
        let now = files.level(cpu, buf);
        if many {
            files.release();
        }
        now.0.is_some() && now == (self.level.0.get(), self.level.1.get())
    }

    /// The same by what a walk over all cgroups found.
    fn has_changed(&self, level: Level, cpu: bool) -> bool {
        if !self.wanted {
            return self.above;
        }
        let was = (self.level.0.get(), self.level.1.get());
        self.files.is_some()
            && (was.0 != Some(level.current) || (cpu && was.1 != Some(level.cpu_us)))
    }
}

impl Observer {
    /// Adds those to whom is due that are not in it.
    pub(super) fn add_quiet(&mut self, due: &mut HashSet<u64>) {
        let slow = self.slow_pace();
        let known = self.known.len() as u64;
        // In one round where all are read: whoever is gone leaves the lists then, too.
        let all = self.tick == 0 || slow == 1;
        let (looks, full) = if all {
            (1, 1)
        } else {
            (
                slow.max(known / LOOKS_AT_ONCE as u64),
                (slow * FULL_ROUNDS).max(known / FULL_AT_ONCE),
            )
        };
        for id in self.full.turns(full, |id| self.known.contains_key(&id)) {
            if let Some(known) = self.known.get_mut(&id).filter(|_| !due.contains(&id)) {
                known.active = false;
                due.insert(id);
            }
        }
        if all {
            self.looks.retain(|id| self.known.contains_key(&id));
        } else if self.walks {
            self.add_changed(slow, due);
        } else {
            self.add_looks(looks, due);
        }
    }

    /// Those whose files are not as they were, of whose turn it is.
    fn add_looks(&mut self, ticks: u64, due: &mut HashSet<u64>) {
        let many = self.known.len() > OPEN_CGROUPS;
        for id in self.looks.turns(ticks, |id| self.known.contains_key(&id)) {
            let Some(known) = self.known.get_mut(&id).filter(|_| !due.contains(&id)) else {
                continue;
            };
            known.active = false;
            let judge = self.judge.as_ref();
            if judge.is_some_and(|judge| judge.stands(known.cgroup.path()))
                || !known.is_quiet(self.options.cpu, many, &mut self.buf)
            {
                due.insert(id);
            }
        }
    }

    /// Those that have changed by a walk over all of them, as many in a tick as would be looked at.
    fn add_changed(&mut self, slow: u64, due: &mut HashSet<u64>) {
        if self.changed.is_empty()
            && self.tick.is_multiple_of(slow)
            && let Err(error) = self.walk(due)
        {
            tracing::warn!("{error}; quiet cgroups are looked at by their files from now on");
            self.walks = false;
        }
        let left = self.changed.len().saturating_sub(LOOKS_AT_ONCE);
        due.extend(self.changed.drain(left..));
    }

    /// Finds who has changed without having been seen active.
    fn walk(&mut self, due: &HashSet<u64>) -> io::Result<()> {
        let many = self.known.len() > OPEN_CGROUPS;
        self.looks.retain(|id| self.known.contains_key(&id));
        if self.options.cpu {
            self.sum_cpu_time();
        }
        let Some(levels) = self.kernel.as_mut().and_then(|kernel| kernel.levels()) else {
            return Ok(());
        };
        let standing = self.judge.as_ref().map(|judge| judge.standing());
        let standing: HashSet<&str> = standing.into_iter().flatten().collect();
        for level in levels? {
            let id = level.cgroup;
            let Some(known) = self.known.get_mut(&id).filter(|_| !due.contains(&id)) else {
                continue;
            };
            known.active = false;
            if let Some(files) = known.files.as_mut().filter(|_| many) {
                files.release();
            }
            if known.has_changed(level, self.options.cpu) || standing.contains(known.cgroup.path())
            {
                self.changed.push(id);
            }
        }
        Ok(())
    }

    /// Has the kernel sum up what its CPUs have counted, as it does for everything below a cgroup whose cpu.stat is read.
    fn sum_cpu_time(&mut self) {
        let has_files = |id: &u64| {
            self.known
                .get(id)
                .is_some_and(|known| known.files.is_some() && known.cgroup.path() != "/")
        };
        let topmost: Vec<u64> = self
            .known
            .keys()
            .copied()
            .filter(|id| {
                has_files(id) && !self.tree.ancestors(*id).skip(1).any(|at| has_files(&at))
            })
            .collect();
        for id in topmost {
            if let Some(files) = self
                .known
                .get_mut(&id)
                .and_then(|known| known.files.as_mut())
            {
                files.read_cpu(&mut self.buf);
            }
        }
    }
}
