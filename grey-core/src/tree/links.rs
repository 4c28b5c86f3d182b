//! Where a cgroup hangs: links made from paths when a cgroup comes or moves, so that adding never reads a path.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::{Inserted, Node, Sparse, Tree};

impl Tree {
    /// Puts an id at a path, whatever was there before.
    pub(super) fn place(&mut self, id: u64, path: Arc<str>) -> Inserted {
        match self.nodes.get(&id).map(|node| node.path.clone()) {
            Some(old) if old == path => return Inserted::Known,
            // The root neither moves nor is moved onto.
            Some(old) if &*old == "/" || &*path == "/" => return Inserted::Ignored,
            Some(old) => {
                self.relocate(&old, &path);
                return Inserted::Moved;
            }
            None => {}
        }
        let replaced = self.by_path.get(&path).copied();
        if let Some(holder) = replaced {
            self.remove(holder);
        }
        let parent = self.nearest_above(&path);
        let below = self.below(&path);
        self.nodes.insert(
            id,
            Box::new(Node {
                path: path.clone(),
                parent: None,
                children: BTreeSet::new(),
                own: Sparse::default(),
                total: Sparse::default(),
            }),
        );
        self.by_path.insert(path, id);
        self.link(id, parent);
        for child in below {
            if self.parent(child) == parent {
                let counted = self.totals(child).copied().unwrap_or_default();
                self.link(child, Some(id));
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.total.add(&counted);
                }
            }
        }
        if let Some(kept) = self.take_orphan(id) {
            self.add(id, &kept);
        }
        replaced.map_or(Inserted::New, Inserted::Replaced)
    }

    /// Moves a cgroup and all below it from one path to another; who was there is gone.
    fn relocate(&mut self, from: &str, to: &str) {
        let mut moved: Vec<u64> = self.by_path.get(from).copied().into_iter().collect();
        moved.extend(self.below(from));
        let targets: Vec<(u64, Arc<str>)> = moved
            .iter()
            .filter_map(|id| {
                let path = &self.nodes.get(id)?.path;
                Some((*id, format!("{to}{}", &path[from.len()..]).into()))
            })
            .collect();
        for (_, path) in &targets {
            if let Some(holder) = self.by_path.get(path).copied()
                && !moved.contains(&holder)
            {
                self.remove(holder);
            }
        }
        for id in &moved {
            if let Some(node) = self.nodes.get(id) {
                self.by_path.remove(&node.path);
            }
        }
        for (id, path) in targets {
            self.by_path.insert(path.clone(), id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.path = path;
            }
        }
        moved.extend(self.below(to));
        for id in moved {
            if let Some(path) = self.nodes.get(&id).map(|node| node.path.clone()) {
                let parent = self.nearest_above(&path);
                self.link(id, parent);
            }
        }
    }

    /// Hangs a cgroup under another one, off where it hung.
    pub(super) fn link(&mut self, id: u64, parent: Option<u64>) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let old = std::mem::replace(&mut node.parent, parent);
        if let Some(old) = old.and_then(|old| self.nodes.get_mut(&old)) {
            old.children.remove(&id);
        }
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.insert(id);
        }
    }

    pub(super) fn nearest_above(&self, path: &str) -> Option<u64> {
        let mut rest = path;
        while let Some(cut) = rest.rfind('/') {
            if rest == "/" {
                return None;
            }
            rest = if cut == 0 { "/" } else { &rest[..cut] };
            if let Some(id) = self.by_path.get(rest) {
                return Some(*id);
            }
        }
        None
    }

    /// All known ids below a path, the path's own not included.
    fn below(&self, path: &str) -> Vec<u64> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        self.by_path
            .range::<str, _>((Bound::Excluded(prefix.as_str()), Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(_, id)| *id)
            .collect()
    }
}

/// One leading slash, none trailing, none doubled; `None` for an empty path.
pub(super) fn normal(path: &str) -> Option<Arc<str>> {
    if path.is_empty() {
        return None;
    }
    if path == "/" || (path.starts_with('/') && !path.ends_with('/') && !path.contains("//")) {
        return Some(path.into());
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    Some(if out.is_empty() {
        "/".into()
    } else {
        out.into()
    })
}
