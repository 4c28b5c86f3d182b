//! Where the cgroup at a path is among the nodes. It keeps the places alone, since the nodes have the paths.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::node::Node;

#[derive(Debug, Default)]
pub(super) struct Paths {
    places: HashTable<u32>,
    hasher: RandomState,
}

/// The nodes that the places are of.
type Nodes = [Option<Box<Node>>];

impl Paths {
    pub(super) fn get(&self, nodes: &Nodes, path: &str) -> Option<usize> {
        let same = |place: &u32| path_at(nodes, *place) == Some(path);
        let found = self.places.find(self.hasher.hash_one(path), same);
        found.map(|place| *place as usize)
    }

    /// Adds a node whose path is not there yet.
    pub(super) fn insert(&mut self, nodes: &Nodes, place: usize) {
        let hasher = &self.hasher;
        let hash = |place: &u32| hasher.hash_one(path_at(nodes, *place).unwrap_or_default());
        // There are far less nodes than that.
        if let Ok(place) = u32::try_from(place) {
            self.places.insert_unique(hash(&place), place, hash);
        }
    }

    /// Takes a path out. Its node is still there.
    pub(super) fn remove(&mut self, nodes: &Nodes, path: &str) -> Option<usize> {
        let same = |place: &u32| path_at(nodes, *place) == Some(path);
        let found = self.places.find_entry(self.hasher.hash_one(path), same);
        found.ok().map(|entry| entry.remove().0 as usize)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.places.iter().map(|place| *place as usize)
    }
}

fn path_at(nodes: &Nodes, place: u32) -> Option<&str> {
    let node = nodes.get(place as usize)?.as_deref()?;
    Some(node.cgroup.path())
}
