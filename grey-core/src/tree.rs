//! Ids, paths and totals of the cgroups. Told by records and scans that may come in any order; never shows a path
//! that its id no longer has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;
use grey_common::CgroupCounters;

mod links;
mod sparse;

use links::normal;
pub use sparse::Sparse;

#[cfg(test)]
mod tests;

/// Ids without a path whose counters are kept until the path is told.
const MAX_ORPHANS: usize = 1024;

/// Removed ids that are remembered, so that a late record cannot bring them back. One mkdir storm between two ticks
/// is far less than this.
const MAX_GONE: usize = 8192;

/// What telling a path of an id did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The id was new.
    New,
    /// The id had this path already.
    Known,
    /// The id had another path; it and all below it moved.
    Moved,
    /// The path belonged to this older id, which is forgotten now.
    Replaced(u64),
    /// Not taken: the id was removed before, or a newer id has the path.
    Stale,
    /// Not taken: an empty path.
    Ignored,
}

/// Where added counters went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// To the cgroup and all above it.
    Known,
    /// The cgroup is gone: to what is left above it.
    Gone,
    /// The id has no path yet: kept until it has.
    Orphan,
}

#[derive(Clone, Debug)]
struct Node {
    path: Arc<str>,
    /// The nearest known cgroup above by path; `None` for the root and while nothing above is known.
    parent: Option<u64>,
    children: BTreeSet<u64>,
    own: Sparse,
    total: Sparse,
}

/// The known cgroups.
///
/// Totals are hierarchical, as the memory.* files are, and what a removed cgroup added stays in those above it.
/// A cgroup made known above others starts with their totals.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    // Boxed: a table has up to twice as many places as entries.
    nodes: HashMap<u64, Box<Node>>,
    by_path: BTreeMap<Arc<str>, u64>,
    orphans: HashMap<u64, CgroupCounters>,
    orphan_order: VecDeque<u64>,
    lost: u64,
    /// Removed ids and the cgroup above each when it went.
    gone: HashMap<u64, Option<u64>>,
    gone_order: VecDeque<u64>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the path of an id as a *record* tells it. A record may be late: an id that was removed stays removed,
    /// and of two ids with one path the greater is the newer (kernfs hands out 64-bit ids in rising order,
    /// `__kernfs_new_node` in fs/kernfs/dir.c).
    pub fn insert(&mut self, id: u64, path: &str) -> Inserted {
        let Some(path) = normal(path) else {
            return Inserted::Ignored;
        };
        if let Some(above) = self.gone.get(&id).copied() {
            self.settle_gone(id, above, &path);
            return Inserted::Stale;
        }
        if let Some(&holder) = self.by_path.get(path.as_ref())
            && holder > id
        {
            if self.nodes.contains_key(&id) {
                self.remove(id);
            } else {
                let above = self.nearest_above(&path);
                self.bury(id, above);
                self.settle_gone(id, above, &path);
            }
            return Inserted::Stale;
        }
        self.place(id, path)
    }

    /// Takes in a cgroup whose directory was *seen just now*. It wins over anything told before.
    pub fn confirm(&mut self, id: u64, path: &str) -> Inserted {
        let Some(path) = normal(path) else {
            return Inserted::Ignored;
        };
        if self.gone.remove(&id).is_some() {
            self.gone_order.retain(|gone| *gone != id);
        }
        self.place(id, path)
    }

    /// Forgets an id and returns the path it had. Cgroups below it that are still known hang on to what is above.
    /// The id is remembered as gone even when it was not known.
    pub fn remove(&mut self, id: u64) -> Option<Arc<str>> {
        let Some(node) = self.nodes.remove(&id) else {
            if !self.gone.contains_key(&id) {
                self.bury(id, None);
            }
            return None;
        };
        self.by_path.remove(&node.path);
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.remove(&id);
        }
        for child in node.children {
            self.link(child, node.parent);
        }
        self.bury(id, node.parent);
        Some(node.path)
    }

    /// Gives a known id another path; everything below it moves along. Totals stay as they are. An unknown id is
    /// inserted; one that is gone, and the root, are left alone.
    pub fn rename(&mut self, id: u64, path: &str) -> Inserted {
        if self.nodes.contains_key(&id) {
            match normal(path) {
                Some(path) => self.place(id, path),
                None => Inserted::Ignored,
            }
        } else {
            self.insert(id, path)
        }
    }

    /// The path of an id.
    #[must_use]
    pub fn path(&self, id: u64) -> Option<&str> {
        self.nodes.get(&id).map(|node| node.path.as_ref())
    }

    /// The id that has this path now.
    #[must_use]
    pub fn id_of(&self, path: &str) -> Option<u64> {
        self.by_path
            .get(path)
            .or_else(|| self.by_path.get(&normal(path)?))
            .copied()
    }

    /// The nearest known cgroup above.
    #[must_use]
    pub fn parent(&self, id: u64) -> Option<u64> {
        self.nodes.get(&id)?.parent
    }

    /// The id itself, then what is above it, up to the root. Nothing for an unknown id.
    pub fn ancestors(&self, id: u64) -> impl Iterator<Item = u64> + '_ {
        std::iter::successors(self.nodes.contains_key(&id).then_some(id), |id| {
            self.parent(*id)
        })
    }

    /// The known cgroups directly below, in the order of their ids.
    pub fn children(&self, id: u64) -> impl Iterator<Item = u64> + '_ {
        self.nodes
            .get(&id)
            .into_iter()
            .flat_map(|node| node.children.iter().copied())
    }

    /// All known ids, in the order of their paths.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_path.values().copied()
    }

    /// How many cgroups are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether the id was removed (and not seen again). A long time after the removal this is forgotten.
    #[must_use]
    pub fn is_gone(&self, id: u64) -> bool {
        self.gone.contains_key(&id)
    }

    /// Adds what a cgroup counted since the last time to it and to all above it.
    pub fn add(&mut self, id: u64, delta: &CgroupCounters) -> Added {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.own.add(delta);
            self.add_up(Some(id), delta);
            return Added::Known;
        }
        if let Some(above) = self.gone.get(&id).copied()
            && let Some(above) = self.living(above)
        {
            self.add_up(Some(above), delta);
            return Added::Gone;
        }
        if let Some(kept) = self.orphans.get_mut(&id) {
            kept.add(delta);
            return Added::Orphan;
        }
        if self.orphans.len() >= MAX_ORPHANS
            && let Some(oldest) = self.orphan_order.pop_front()
        {
            self.orphans.remove(&oldest);
            self.lost = self.lost.saturating_add(1);
        }
        self.orphans.insert(id, *delta);
        self.orphan_order.push_back(id);
        Added::Orphan
    }

    /// What the cgroup and all that is or was below it counted.
    #[must_use]
    pub fn totals(&self, id: u64) -> Option<&CgroupCounters> {
        self.nodes.get(&id).map(|node| node.total.get())
    }

    /// What the cgroup's own tasks counted.
    #[must_use]
    pub fn own_totals(&self, id: u64) -> Option<&CgroupCounters> {
        self.nodes.get(&id).map(|node| node.own.get())
    }

    /// Ids that have counters but no path yet, in the order they came.
    pub fn orphans(&self) -> impl Iterator<Item = u64> + '_ {
        self.orphan_order.iter().copied()
    }

    /// How many ids lost their counters because too many had no path.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn take_orphan(&mut self, id: u64) -> Option<CgroupCounters> {
        let kept = self.orphans.remove(&id)?;
        self.orphan_order.retain(|orphan| *orphan != id);
        Some(kept)
    }

    fn add_up(&mut self, from: Option<u64>, delta: &CgroupCounters) {
        let mut next = from;
        while let Some(node) = next.and_then(|id| self.nodes.get_mut(&id)) {
            node.total.add(delta);
            next = node.parent;
        }
    }

    fn bury(&mut self, id: u64, above: Option<u64>) {
        if self.gone.insert(id, above).is_none() {
            self.gone_order.push_back(id);
        }
        if self.gone_order.len() > MAX_GONE
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// The nearest living cgroup at or above one that may be gone itself.
    fn living(&self, mut above: Option<u64>) -> Option<u64> {
        // Each step goes to a cgroup that outlived the one before, but ids come from outside: bound it.
        for _ in 0..=MAX_GONE {
            let id = above?;
            if self.nodes.contains_key(&id) {
                return Some(id);
            }
            above = self.gone.get(&id).copied().flatten();
        }
        None
    }

    /// A removed id's path became known late: what it counted goes to those above it.
    fn settle_gone(&mut self, id: u64, above: Option<u64>, path: &str) {
        let above = self.living(above).or_else(|| self.nearest_above(path));
        self.gone.insert(id, above);
        if above.is_some()
            && let Some(kept) = self.take_orphan(id)
        {
            self.add_up(above, &kept);
        }
    }
}

/// What was counted between two readings. A counter that went backwards (a slot given to another cgroup, a
/// reloaded probe) yields 0 for that counter.
#[must_use]
pub fn counter_delta(now: &CgroupCounters, last: &CgroupCounters) -> CgroupCounters {
    let mut delta = now.to_array();
    for (value, last) in delta.iter_mut().zip(last.to_array()) {
        *value = value.saturating_sub(last);
    }
    CgroupCounters::from_array(delta)
}
