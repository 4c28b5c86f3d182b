//! A directory for what a measurement needs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A directory that is removed with what is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// In the temporary directory; others may go through it, as a server's own user has to.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(label: &str) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("grey-bench-{}-{label}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let scratch = Scratch(path);
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))?;
        Ok(scratch)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {}: {error}", self.0.display());
        }
    }
}
