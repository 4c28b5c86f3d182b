//! A naive tree: a list of paths, searched from end to end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{calls, own, total};
use crate::tree::*;

#[derive(Default)]
struct Model {
    /// id → (path, own, total)
    nodes: BTreeMap<u64, (String, u64, u64)>,
    gone: BTreeMap<u64, Option<u64>>,
    orphans: BTreeMap<u64, u64>,
}

fn is_below(path: &str, above: &str) -> bool {
    path != above && (above == "/" || path.starts_with(&format!("{above}/")))
}

impl Model {
    fn holder(&self, path: &str) -> Option<u64> {
        self.nodes
            .iter()
            .find(|(_, node)| node.0 == path)
            .map(|(id, _)| *id)
    }

    fn above(&self, path: &str) -> Option<u64> {
        self.nodes
            .iter()
            .filter(|(_, node)| is_below(path, &node.0))
            .max_by_key(|(_, node)| node.0.len())
            .map(|(id, _)| *id)
    }

    fn count(&mut self, path: &str, count: u64) {
        for node in self.nodes.values_mut() {
            if node.0 == path || is_below(path, &node.0) {
                node.2 += count;
            }
        }
    }

    fn living(&self, mut above: Option<u64>) -> Option<u64> {
        while let Some(id) = above {
            if self.nodes.contains_key(&id) {
                break;
            }
            above = self.gone.get(&id).copied().flatten();
        }
        above
    }

    fn add(&mut self, id: u64, count: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.1 += count;
            let path = node.0.clone();
            self.count(&path, count);
        } else if let Some(above) = self.living(self.gone.get(&id).copied().flatten()) {
            let path = self.nodes[&above].0.clone();
            self.count(&path, count);
        } else {
            *self.orphans.entry(id).or_default() += count;
        }
    }

    fn remove(&mut self, id: u64) {
        match self.nodes.remove(&id) {
            Some(node) => {
                let above = self.above(&node.0);
                self.gone.insert(id, above);
            }
            None => {
                self.gone.entry(id).or_insert(None);
            }
        }
    }

    fn bury_at(&mut self, id: u64, above: Option<u64>) {
        self.gone.insert(id, above);
        if let (Some(above), Some(count)) = (above, self.orphans.get(&id).copied()) {
            self.orphans.remove(&id);
            let path = self.nodes[&above].0.clone();
            self.count(&path, count);
        }
    }

    fn insert(&mut self, id: u64, path: &str) {
        if let Some(above) = self.gone.get(&id).copied() {
            let above = self.living(above).or_else(|| self.above(path));
            self.bury_at(id, above);
        } else if self.holder(path).is_some_and(|holder| holder > id) {
            if self.nodes.contains_key(&id) {
                self.remove(id);
            } else {
                self.bury_at(id, self.above(path));
            }
        } else {
            self.place(id, path);
        }
    }

    fn confirm(&mut self, id: u64, path: &str) {
        self.gone.remove(&id);
        self.place(id, path);
    }

    fn rename(&mut self, id: u64, path: &str) {
        if self.nodes.contains_key(&id) {
            self.place(id, path);
        } else {
            self.insert(id, path);
        }
    }

    fn place(&mut self, id: u64, path: &str) {
        if let Some(old) = self.nodes.get(&id).map(|node| node.0.clone()) {
            if old != path && old != "/" && path != "/" {
                self.relocate(&old, path);
            }
            return;
        }
        if let Some(holder) = self.holder(path) {
            self.remove(holder);
        }
        let below: Vec<&(String, u64, u64)> = self
            .nodes
            .values()
            .filter(|node| is_below(&node.0, path))
            .collect();
        let counted = below
            .iter()
            .filter(|node| !below.iter().any(|other| is_below(&node.0, &other.0)))
            .map(|node| node.2)
            .sum();
        self.nodes.insert(id, (path.to_owned(), 0, counted));
        if let Some(count) = self.orphans.remove(&id) {
            self.add(id, count);
        }
    }

    fn relocate(&mut self, from: &str, to: &str) {
        let moved: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.0 == from || is_below(&node.0, from))
            .map(|(id, _)| *id)
            .collect();
        let mut targets: Vec<(String, u64)> = moved
            .iter()
            .map(|id| (format!("{to}{}", &self.nodes[id].0[from.len()..]), *id))
            .collect();
        targets.sort();
        for (path, _) in &targets {
            if let Some(holder) = self.holder(path).filter(|holder| !moved.contains(holder)) {
                self.remove(holder);
            }
        }
        for (path, id) in targets {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.0 = path;
            }
        }
    }

    fn agrees(&self, tree: &Tree) -> Result<(), TestCaseError> {
        prop_assert_eq!(tree.len(), self.nodes.len());
        prop_assert_eq!(tree.ids().count(), self.nodes.len());
        for (id, (path, own_calls, all_calls)) in &self.nodes {
            prop_assert_eq!(tree.path(*id), Some(path.as_str()));
            prop_assert_eq!(tree.id_of(path), Some(*id));
            prop_assert_eq!(tree.parent(*id), self.above(path), "parent of {}", path);
            prop_assert_eq!(own(tree, *id), Some(*own_calls), "own of {}", path);
            prop_assert_eq!(total(tree, *id), Some(*all_calls), "total of {}", path);
            let children: Vec<u64> = self
                .nodes
                .iter()
                .filter(|(_, node)| self.above(&node.0) == Some(*id))
                .map(|(id, _)| *id)
                .collect();
            prop_assert_eq!(tree.children(*id).collect::<Vec<_>>(), children);
            let mut chain = tree.ancestors(*id);
            prop_assert_eq!(chain.next(), Some(*id));
            for above in chain {
                prop_assert!(is_below(path, &self.nodes[&above].0));
            }
        }
        for id in self.gone.keys() {
            prop_assert!(tree.is_gone(*id));
            prop_assert_eq!(tree.path(*id), None);
        }
        let mut orphans: Vec<u64> = tree.orphans().collect();
        orphans.sort_unstable();
        prop_assert_eq!(orphans, self.orphans.keys().copied().collect::<Vec<_>>());
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, &'static str),
    Confirm(u64, &'static str),
    Rename(u64, &'static str),
    Remove(u64),
    Add(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 1_u64..9;
    let path = || {
        prop::sample::select(vec![
            "/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/a/bb", "/b", "/b/b", "/b/c", "/a/c",
        ])
    };
    prop_oneof![
        4 => (id(), path()).prop_map(|(id, path)| Step::Insert(id, path)),
        1 => (id(), path()).prop_map(|(id, path)| Step::Confirm(id, path)),
        1 => (id(), path()).prop_map(|(id, path)| Step::Rename(id, path)),
        2 => id().prop_map(Step::Remove),
        4 => (id(), 1_u64..100).prop_map(|(id, count)| Step::Add(id, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_tree_agrees_with_the_naive_one(steps in prop::collection::vec(step(), 0..40)) {
        let mut tree = Tree::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Insert(id, path) => {
                    tree.insert(id, path);
                    model.insert(id, path);
                }
                Step::Confirm(id, path) => {
                    tree.confirm(id, path);
                    model.confirm(id, path);
                }
                Step::Rename(id, path) => {
                    tree.rename(id, path);
                    model.rename(id, path);
                }
                Step::Remove(id) => {
                    tree.remove(id);
                    model.remove(id);
                }
                Step::Add(id, count) => {
                    tree.add(id, &calls(count));
                    model.add(id, count);
                }
            }
            model.agrees(&tree)?;
        }
    }

    #[test]
    fn any_paths_and_ids_never_panic(steps in prop::collection::vec((0_u8..5, any::<u8>(), "[/a.\u{e9}]{0,8}"), 0..60)) {
        let mut tree = Tree::new();
        for (what, id, path) in steps {
            let id = u64::from(id % 8);
            match what {
                0 => drop(tree.insert(id, &path)),
                1 => drop(tree.confirm(id, &path)),
                2 => drop(tree.rename(id, &path)),
                3 => drop(tree.remove(id)),
                _ => drop(tree.add(id, &calls(1))),
            }
            for id in tree.ids() {
                prop_assert_eq!(tree.path(id).and_then(|path| tree.id_of(path)), Some(id));
            }
        }
    }

    #[test]
    fn counters_only_ever_go_up(now in any::<[u64; grey_common::COUNTERS]>(), last in any::<[u64; grey_common::COUNTERS]>()) {
        let (now, last) = (CgroupCounters::from_array(now), CgroupCounters::from_array(last));
        let delta = counter_delta(&now, &last).to_array();
        for ((now, last), delta) in now.to_array().into_iter().zip(last.to_array()).zip(delta) {
            prop_assert_eq!(u128::from(delta), u128::from(now.max(last)) - u128::from(last));
        }
    }
}
