//! What is known before anything is touched: the machine, its cgroups, the bounds, and the target with its protection.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::cli::Failure;
use crate::config;
use crate::host::{CgroupFs, Host};

use super::protect::Protection;
use super::safety::Safety;

/// The machine as it is found. Making one changes nothing.
#[derive(Debug)]
pub struct Scene {
    /// The machine.
    pub host: Host,
    /// Its v2 tree.
    pub cgroups: CgroupFs,
    /// The bounds.
    pub safety: Safety,
    /// What must not be touched.
    pub protection: Protection,
    /// Where the journal is.
    pub state_dir: PathBuf,
}

/// A cgroup to act on: it exists and is not protected.
#[derive(Debug)]
pub struct Target {
    /// Path below the v2 mount.
    pub path: String,
    /// Its id.
    pub id: u64,
    /// Its directory.
    pub dir: OwnedFd,
}

/// What is going to be done with a target, which decides who protects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Memory is taken from it: the root too may be named.
    Reclaim,
    /// A file of its is changed, or its processes are stopped.
    Change,
}

impl Scene {
    /// The machine as it is, with the bounds of its configuration.
    ///
    /// # Errors
    /// The configuration or a `--protect` cannot be used (exit 2), or others than root can write to it (exit 4).
    pub fn find(place: &crate::enforce::Place) -> Result<Scene, Failure> {
        let host = Host::live();
        let cgroups = CgroupFs::discover(&host);
        let safety = config::load(place.config.as_deref())?.safety;
        let protection = Protection::new(&host, &cgroups, &safety, &place.protect)?;
        Ok(Scene {
            state_dir: match &place.state_dir {
                Some(dir) => dir.clone(),
                None => safety.state_dir.clone(),
            },
            host,
            cgroups,
            safety,
            protection,
        })
    }

    /// The cgroup of this argument: a path below the mount, an absolute path, a unit or container name.
    ///
    /// # Errors
    /// There is none or more than one, the path leaves the tree or goes through a link (exit 2); there is no v2 tree
    /// or it cannot be written to (exit 3); it is protected (exit 4).
    pub fn target(&self, argument: &str, touch: Touch) -> Result<Target, Failure> {
        super::protect::target(self, argument, touch)
    }
}
