//! The cgroup v2 tree: where it is mounted, whether it has the memory controller, which cgroups it holds.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode as FileMode, OFlags, RawDir};
use rustix::io::Errno;
use serde::Serialize;

use super::mountinfo::{self, Mount};
use super::{Host, HostError};

mod find;
#[cfg(test)]
mod tests;

pub(super) use find::is_alive;

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// How the machine's cgroup hierarchies are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One v2 tree with all controllers.
    Unified,
    /// A v2 tree beside v1 hierarchies, which hold some or all controllers.
    Hybrid,
    /// v1 hierarchies only.
    V1Only,
    /// No cgroup file system is mounted.
    None,
}

/// What `discover` found, without the descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CgroupFacts {
    /// The layout.
    pub mode: Mode,
    /// Mount point of the v2 tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<PathBuf>,
    /// Whether only a part of the tree is mounted there (a bind mount of one cgroup).
    pub partial: bool,
    /// Controllers of the v2 tree (cgroup.controllers of its root); absent when that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controllers: Option<Vec<String>>,
    /// Whether the root's children have the memory controller (cgroup.subtree_control of its root).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_delegated: Option<bool>,
    /// Where the v1 memory controller is mounted, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v1_memory: Option<PathBuf>,
    /// Why the tree cannot be opened although it is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CgroupFacts {
    /// Whether the v2 tree has the memory controller.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.controllers
            .as_ref()
            .is_some_and(|all| all.iter().any(|name| name == "memory"))
    }
}

/// One cgroup of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupEntry {
    /// v2 cgroup id: the inode number of its directory.
    pub id: u64,
    /// Path below the mount, `/` for its root.
    pub path: String,
}

/// Result of a walk.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// All cgroups seen, parents before their children.
    pub cgroups: Vec<CgroupEntry>,
    /// Directories that could not be read for another reason than their removal.
    pub unreadable: u32,
}

/// The v2 tree, with a descriptor of its mount.
#[derive(Debug)]
pub struct CgroupFs {
    facts: CgroupFacts,
    dir: Option<OwnedFd>,
    /// The mount point as this process reaches it (below the injected root).
    reach: PathBuf,
}

impl CgroupFs {
    /// Finds the v2 tree. Never fails: a machine without one is a fact, and [`CgroupFacts::error`] holds the
    /// reason where it is mounted but cannot be opened.
    #[must_use]
    pub fn discover(host: &Host) -> Self {
        let (mounts, error) = match mountinfo::mounts(host) {
            Ok(mounts) => (mounts, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let v2 = best_v2(&mounts);
        let v1 = |mount: &&Mount| mount.fstype == "cgroup";
        let mode = match (v2, mounts.iter().any(|mount| v1(&mount))) {
            (Some(_), false) => Mode::Unified,
            (Some(_), true) => Mode::Hybrid,
            (None, true) => Mode::V1Only,
            (None, false) => Mode::None,
        };
        let v1_memory = mounts
            .iter()
            .filter(v1)
            .find(|mount| {
                mount
                    .super_options
                    .split(',')
                    .any(|option| option == "memory")
            })
            .map(|mount| mount.point.clone());
        let mut facts = CgroupFacts {
            mode,
            mount: v2.map(|mount| mount.point.clone()),
            partial: v2.is_some_and(|mount| mount.root != "/"),
            controllers: None,
            memory_delegated: None,
            v1_memory,
            error,
        };
        let Some(point) = facts.mount.clone() else {
            return CgroupFs {
                facts,
                dir: None,
                reach: host.path("/"),
            };
        };
        let reach = host.path(&point);
        // Not O_PATH: open_by_handle_at refuses such a descriptor.
        let dir = match rustix::fs::open(&reach, DIR, FileMode::empty()) {
            Ok(dir) => Some(dir),
            Err(source) => {
                facts.error = Some(HostError::file("open", &point, source).to_string());
                None
            }
        };
        let list = |name: &str| -> Option<Vec<String>> {
            let text = host.text(point.join(name)).ok()?;
            Some(text.split_whitespace().map(str::to_owned).collect())
        };
        facts.controllers = list("cgroup.controllers");
        facts.memory_delegated =
            list("cgroup.subtree_control").map(|all| all.iter().any(|name| name == "memory"));
        CgroupFs { facts, dir, reach }
    }

    /// What was found.
    #[must_use]
    pub fn facts(&self) -> &CgroupFacts {
        &self.facts
    }

    /// The layout.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.facts.mode
    }

    /// Whether the v2 tree has the memory controller, hence memory.* files.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.facts.has_memory()
    }

    /// Mount point of the v2 tree.
    #[must_use]
    pub fn mount(&self) -> Option<&Path> {
        self.facts.mount.as_deref()
    }

    /// Descriptor of the mount point's directory.
    ///
    /// # Errors
    /// [`HostError::NoCgroup2`] where there is no v2 tree (or it cannot be opened).
    pub fn dir(&self) -> Result<BorrowedFd<'_>, HostError> {
        self.dir
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or(HostError::NoCgroup2)
    }

    /// Absolute path of a cgroup's directory, for messages and for calls that take no descriptor.
    #[must_use]
    pub fn reach(&self, path: &str) -> PathBuf {
        self.reach.join(path.trim_start_matches('/'))
    }

    /// All cgroups, parents before children. Cgroups removed during the walk are left out.
    ///
    /// # Errors
    /// Where the root of the tree cannot be read.
    pub fn walk(&self) -> Result<Walk, HostError> {
        self.walk_from("/")
    }

    /// The same of one cgroup and all below it.
    ///
    /// # Errors
    /// As [`CgroupFs::walk`]; also where there is no such cgroup.
    pub fn walk_from(&self, top: &str) -> Result<Walk, HostError> {
        let root = self.dir()?;
        let stat = open_dir(root, top)
            .and_then(rustix::fs::fstat)
            .map_err(|source| HostError::file("open", self.reach(top), source))?;
        let mut walk = Walk::default();
        walk.cgroups.push(CgroupEntry {
            id: stat.st_ino,
            path: top.to_owned(),
        });
        let mut space = [MaybeUninit::<u8>::uninit(); 8192];
        let mut next = 0;
        while next < walk.cgroups.len() {
            let path = walk.cgroups[next].path.clone();
            let children = open_dir(root, &path).and_then(|dir| children(&dir, &mut space));
            match children {
                Ok(children) => {
                    let prefix = if path == "/" { "" } else { path.as_str() };
                    walk.cgroups
                        .extend(children.into_iter().map(|(id, name)| CgroupEntry {
                            id,
                            path: format!("{prefix}/{name}"),
                        }));
                }
                Err(Errno::NOENT | Errno::NODEV) if next > 0 => {
                    walk.cgroups.remove(next);
                    continue;
                }
                Err(source) if next == 0 => {
                    return Err(HostError::file("read", self.reach(top), source));
                }
                Err(_) => walk.unreadable += 1,
            }
            next += 1;
        }
        Ok(walk)
    }

    /// Processes directly in a cgroup (cgroup.procs), by thread group id; empty when the cgroup is gone.
    ///
    /// # Errors
    /// Where the file cannot be read for another reason; a threaded cgroup keeps its processes in its domain
    /// cgroup and gives none here.
    pub fn pids(&self, path: &str) -> Result<Vec<u32>, HostError> {
        let file = format!("{}/cgroup.procs", path.trim_matches('/'));
        let file = file.trim_start_matches('/');
        let fail = |what, source: Errno| HostError::file(what, self.reach.join(file), source);
        let open = rustix::fs::openat(
            self.dir()?,
            file,
            OFlags::RDONLY | OFlags::CLOEXEC,
            FileMode::empty(),
        );
        let fd = match open {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(Vec::new()),
            Err(source) => return Err(fail("open", source)),
        };
        let mut text = Vec::with_capacity(4096);
        let mut chunk = [0_u8; 4096];
        loop {
            match rustix::io::read(&fd, &mut chunk) {
                Ok(0) => break,
                Ok(n) => text.extend_from_slice(&chunk[..n]),
                Err(Errno::INTR) => {}
                Err(Errno::NODEV | Errno::OPNOTSUPP) => break,
                Err(source) => return Err(fail("read", source)),
            }
        }
        Ok(super::cgroup_files::parse_pids(&text))
    }
}

/// The whole tree before a part of it, the usual place before others, the later mount before the one it hides.
fn best_v2(mounts: &[Mount]) -> Option<&Mount> {
    mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.fstype == "cgroup2")
        .max_by_key(|(at, mount)| {
            (
                mount.root == "/",
                mount.point.starts_with("/sys/fs/cgroup"),
                *at,
            )
        })
        .map(|(_, mount)| mount)
}

pub(super) fn open_dir(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let path = path.trim_matches('/');
    let path = CString::new(if path.is_empty() { "." } else { path }).map_err(|_| Errno::INVAL)?;
    rustix::fs::openat(root, path.as_c_str(), DIR, FileMode::empty())
}

fn children(dir: &OwnedFd, space: &mut [MaybeUninit<u8>]) -> Result<Vec<(u64, String)>, Errno> {
    let mut found = Vec::new();
    let mut entries = RawDir::new(dir, space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            found.push((entry.ino(), name.to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}
