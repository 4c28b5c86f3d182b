//! Facts about the machine, read from files below an injectable root. No rules, no actions.
//!
//! Registering a PSI trigger or an inotify watch is an observation: neither changes what the kernel does to anyone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub mod buddy;
pub mod cgroup_detail;
pub mod cgroup_files;
pub mod cgroupfs;
pub mod events;
pub mod facts;
pub mod features;
#[cfg(test)]
pub(crate) mod fixture;
mod flat;
pub mod kernel;
pub mod ksm_stat;
pub mod limits;
pub mod meminfo;
pub mod memory;
pub mod memstat;
pub mod mountinfo;
pub mod oom_log;
pub mod pressure_source;
pub mod process;
pub mod psi;
pub mod root;
pub mod smaps;
pub mod tracefs;
pub mod virt;
pub mod vmstat;
pub mod waiting;

pub use buddy::{Buddy, Zone, huge_page_order};
pub use cgroup_detail::{CgroupDetail, CgroupStat, FullEvents, FullStat, dying_cgroups};
pub(crate) use cgroup_files::read_at_start;
pub use cgroup_files::{CgroupFiles, Gone, Limits, Reading};
pub use cgroupfs::{CgroupEntry, CgroupFacts, CgroupFs, Mode, Walk};
pub use events::{EventWatches, Notified};
pub use facts::Facts;
pub use features::{Feature, Presence};
pub use kernel::{Access, Capabilities, KernelFacts};
pub use ksm_stat::{Ksm, ProcKsm};
pub use limits::{raise_memlock, raise_nofile};
pub use meminfo::MemInfo;
pub use memory::MemoryFacts;
pub use pressure_source::HostPressure;
pub use process::{OwnCost, ProcFs, ProcMem};
pub use psi::{PsiFile, PsiLine, Trigger};
pub use smaps::Smaps;
pub use tracefs::{Tracefs, mount_tracefs_privately};
pub use virt::Virt;
pub use vmstat::VmStat;
pub use waiting::{Call, Waiting};

/// What went wrong while reading a fact. Every variant names its file or knob.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file could not be opened, read or watched.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What was tried: `read`, `open`, `watch` …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's content is not what the kernel documents.
    #[error("{path}: {why}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A system call without a file failed.
    #[error("{what}: {source}")]
    Call {
        /// The call and its subject.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no cgroup v2 tree.
    #[error("no cgroup v2 tree is mounted")]
    NoCgroup2,
    /// The kernel does not offer this file or this use of it.
    #[error("{path}: {why}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it does not offer.
        why: &'static str,
    },
}

impl HostError {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        HostError::File {
            what,
            path: path.into(),
            source: source.into(),
        }
    }

    /// Whether missing privileges are the cause.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            HostError::File { source, .. } | HostError::Call { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            HostError::Content { .. } | HostError::NoCgroup2 | HostError::Unsupported { .. } => {
                false
            }
        }
    }
}

/// A machine's file tree: `/`, or a fixture.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Host::live()
    }
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn live() -> Self {
        Host {
            root: PathBuf::from("/"),
        }
    }

    /// The machine whose files lie below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Host { root: root.into() }
    }

    /// Whether this is the running machine, so that system calls tell of the same machine as the files.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where the absolute path `path` of that machine is found.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether a file is there, as far as it can be seen.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// Content of a text file, without the newline at its end.
    ///
    /// # Errors
    /// [`HostError::File`] where it cannot be read, also where it is not there.
    pub fn text(&self, path: impl AsRef<Path>) -> Result<String, HostError> {
        let path = path.as_ref();
        // Files of /proc tell no size: without room to begin with they are read in eight pieces.
        let mut bytes = Vec::with_capacity(8192);
        let read = File::open(self.path(path)).and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(String::from_utf8_lossy(&bytes)
                .trim_end_matches('\n')
                .to_owned()),
            Err(source) => Err(HostError::file("read", path, source)),
        }
    }

    /// Content of a text file, `None` where there is no such file on this kernel.
    ///
    /// # Errors
    /// Anything but its absence, above all missing permission: that is not "unsupported".
    pub fn text_opt(&self, path: impl AsRef<Path>) -> Result<Option<String>, HostError> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(HostError::File { source, .. }) if is_absent(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first name below a directory that `keep` accepts, in no order.
    pub(crate) fn names(&self, dir: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(dir)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

/// Errors by which the kernel says "no such file or feature here", as opposed to "you may not".
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR | libc::EOPNOTSUPP | libc::ENXIO)
    )
}

/// Decimal digits to a figure. A value above `i64::MAX` is a counter that wrapped below zero in the kernel: unknown.
pub(crate) fn figure(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 19 {
        return None;
    }
    let mut value: u64 = 0;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    i64::try_from(value).is_ok().then_some(value)
}

/// [`figure`] of a whole one-line file.
pub(crate) fn figure_line(bytes: &[u8]) -> Option<u64> {
    figure(bytes.trim_ascii())
}
