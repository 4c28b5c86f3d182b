//! Where a guest's files of one run are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A directory of one run, so that runs at the same time do not meet. Removed on drop.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(cache: &Path, name: &str) -> Result<Self> {
        remove_stale(cache);
        let directory = cache.join(format!("run-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        Ok(Self(directory))
    }

    /// Keeps the console of the last run of a kernel where one looks for it.
    pub(super) fn keep_console(&self, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let target = directory.join("console.log");
        let console = self.0.join("console.log");
        if console.exists() {
            fs::rename(console, &target).context("keep the console")?;
        }
        Ok(target)
    }
}

/// Removes what runs that were killed have left.
fn remove_stale(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("run-")
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
