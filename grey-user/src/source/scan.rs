//! Upkeep of what is known: cgroups appear, move and go, by record and by walk.

use std::collections::HashSet;

use grey_core::identity::{Packed, identify};
use grey_core::time::Timestamp;
use grey_core::tree::Sparse;
use grey_core::units::Figure;

use super::{Known, Notice, Observer, ProcessSums};
use crate::host::{CgroupFiles, HostError};

/// Id of the default hierarchy's root, mounted or not (kernfs numbers from 1).
const ROOT_ID: u64 = 1;

impl Observer {
    /// Walks the tree: whatever no record told of is found here.
    pub(super) fn scan(&mut self, out: &mut Vec<Notice>) {
        self.lost_at_walk = self.lifecycle_losses();
        let walk = match self.fs.walk() {
            Ok(walk) => walk,
            // Without a v2 tree every task is in the default hierarchy's root, and so is all that is counted.
            Err(HostError::NoCgroup2) => {
                if self.known.is_empty() {
                    self.learn(ROOT_ID, "/", true);
                }
                return;
            }
            Err(error) => {
                self.read_errors += 1;
                tracing::debug!("{error}");
                return;
            }
        };
        let found: HashSet<u64> = walk.cgroups.iter().map(|entry| entry.id).collect();
        let gone: Vec<u64> = self
            .known
            .keys()
            .copied()
            .filter(|id| !found.contains(id))
            .collect();
        // A walk may miss what was made meanwhile, so its absence alone is no proof.
        for id in gone {
            if self.fs.lookup(id).is_none() {
                self.forget(id, out);
            }
        }
        for entry in walk.cgroups {
            let same = self
                .known
                .get(&entry.id)
                .is_some_and(|known| known.cgroup.path() == entry.path);
            if !same {
                self.learn(entry.id, &entry.path, true);
            }
        }
        // Whoever was learned before what is above it.
        for id in self.known.keys().copied().collect::<Vec<_>>() {
            self.take_in_above(id);
        }
        if let Some(kernel) = &mut self.kernel {
            // Slots whose cgroup went without a record.
            let stale: Vec<u64> = kernel
                .counters
                .cgroups()
                .filter(|id| !self.known.contains_key(id))
                .collect();
            for id in stale {
                if self.fs.lookup(id).is_none() {
                    self.release(id);
                }
            }
        }
        if !self.coverage.exits {
            self.sweep_processes();
        }
    }

    /// Takes up a cgroup, or its new path. `seen` is true when the directory was seen just now.
    pub(super) fn learn(&mut self, id: u64, path: &str, seen: bool) {
        if seen {
            self.tree.confirm(id, path);
        } else {
            self.tree.insert(id, path);
        }
        if self.tree.path(id) != Some(path) {
            // A late record about a cgroup that is gone by now.
            return;
        }
        let cgroup = identify(path).cgroup(id, path);
        let wanted = self.options.filter.matches(path, &cgroup.name);
        if let Some(known) = self.known.get_mut(&id) {
            known.cgroup = Packed::from(&cgroup);
            known.wanted = wanted;
            known.above &= !wanted;
            self.take_in_above(id);
            return;
        }
        self.looks.push(id);
        self.full.push(id);
        self.known.insert(
            id,
            Box::new(Known {
                cgroup: Packed::from(&cgroup),
                wanted,
                above: false,
                limited: false,
                files: None,
                active: false,
                level: <(Figure, Figure)>::default(),
                sampled: Timestamp::default(),
                limits_at: Figure::default(),
                counted: Sparse::default(),
                // A cgroup made after the first tick began with the probes attached.
                major_base: (self.tick > 0).then_some(0).into(),
                major_seen: Figure::default(),
                gap: None,
                minor_shown: 0,
                oom_kills: (self.tick > 0).then_some(0).into(),
                own: ProcessSums::default(),
                all: ProcessSums::default(),
                processes_known: false,
            }),
        );
        if wanted {
            self.open(id);
            if self.tick > 0 {
                self.touched.insert(id);
            }
            self.take_in_above(id);
        }
    }

    /// What is above a wanted cgroup and not wanted itself: the detector has to know of its limit and its memory.
    fn take_in_above(&mut self, id: u64) {
        if self.judge.is_none() || !self.known.get(&id).is_some_and(|known| known.wanted) {
            return;
        }
        let above: Vec<u64> = self.tree.ancestors(id).skip(1).collect();
        for at in above {
            if let Some(known) = self.known.get_mut(&at)
                && !known.wanted
                && !known.above
            {
                known.above = true;
                self.open(at);
            }
        }
    }

    /// Opens a cgroup's directory and watches its memory.events.
    fn open(&mut self, id: u64) {
        if !self.fs.has_memory() {
            return;
        }
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        match CgroupFiles::open(&self.fs, id, known.cgroup.path()) {
            Ok(Some(files)) => {
                if known.wanted
                    && let Some(watches) = &mut self.watches
                    && let Err(error) = watches.add(&files)
                {
                    tracing::debug!("{error}");
                }
                known.files = Some(Box::new(files));
            }
            Ok(None) => {}
            Err(error) => {
                self.read_errors += 1;
                tracing::debug!("{error}");
            }
        }
    }

    /// A cgroup is gone: everything that was kept for it goes too.
    pub(super) fn forget(&mut self, id: u64, out: &mut Vec<Notice>) {
        self.settle_processes(id);
        self.release(id);
        // What it did last, and what it gave back, shows in the figures above it.
        self.touched.extend(self.tree.ancestors(id));
        let path = self.tree.remove(id);
        if let Some(watches) = &mut self.watches {
            watches.remove(id);
        }
        self.touched.remove(&id);
        if self.known.remove(&id).is_some()
            && let Some(path) = path
        {
            self.close(&path, out);
            out.push(Notice::Gone(path.to_string()));
        }
    }

    /// Frees the slot; what it counted last stays in the totals of what is above.
    fn release(&mut self, id: u64) {
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        match kernel.counters.release(id) {
            Ok(Some(last)) => {
                let counted = self.known.get(&id).map(|known| *known.counted.get());
                self.tree.add(
                    id,
                    &grey_core::tree::counter_delta(&last, &counted.unwrap_or_default()),
                );
            }
            Ok(None) => {}
            Err(error) => {
                self.read_errors += 1;
                tracing::warn!("slot of removed cgroup {id}: {error}");
            }
        }
    }

    /// A cgroup took a new path, and with it everything below.
    pub(super) fn renamed(&mut self, id: u64, path: &str, out: &mut Vec<Notice>) {
        let Some(old) = self
            .known
            .get(&id)
            .map(|known| known.cgroup.path().to_owned())
        else {
            self.learn(id, path, false);
            return;
        };
        self.tree.rename(id, path);
        let prefix = format!("{old}/");
        let moved: Vec<u64> = self
            .known
            .iter()
            .filter(|(at, known)| **at == id || known.cgroup.path().starts_with(&prefix))
            .map(|(at, _)| *at)
            .collect();
        for at in moved {
            let Some(new) = self.tree.path(at).map(str::to_owned) else {
                continue;
            };
            if let Some(path) = self
                .known
                .get(&at)
                .map(|known| known.cgroup.path().to_owned())
            {
                self.close(&path, out);
                out.push(Notice::Gone(path));
            }
            self.learn(at, &new, true);
        }
    }
}
