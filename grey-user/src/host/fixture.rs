//! File trees for tests, removed when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{CgroupFs, Host};

pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "grey-host-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        Tree { root }
    }

    pub(crate) fn host(&self) -> Host {
        Host::at(&self.root)
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.host().path(path)
    }

    pub(crate) fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    pub(crate) fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Takes a file or a whole directory away.
    pub(crate) fn without(&self, path: &str) -> &Self {
        let path = self.path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A cgroup of our own in the machine's v2 tree, removed when dropped.
pub(crate) struct OwnCgroup {
    dir: PathBuf,
    path: String,
}

impl OwnCgroup {
    /// `None` on a machine where we may not make one: such a test then has nothing to say.
    pub(crate) fn make(fs: &CgroupFs, name: &str) -> Option<Self> {
        fs.mount()?;
        let path = format!("/grey-host-{name}-{}", std::process::id());
        let dir = fs.reach(&path);
        fs::create_dir(&dir).ok()?;
        Some(OwnCgroup { dir, path })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}
