//! Where tracefs is, and a private mount of it where it is nowhere.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::Serialize;

use super::kernel::Access;
use super::{Host, HostError, mountinfo};

/// Its usual place.
pub const TRACING: &str = "/sys/kernel/tracing";

/// tracefs of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "path")]
pub enum Tracefs {
    /// Mounted here, and its event formats can be read.
    Mounted(PathBuf),
    /// Mounted here, but closed to this process.
    Denied(PathBuf),
    /// Not mounted, but the kernel has it.
    NotMounted,
    /// The kernel has none.
    Absent,
}

impl Tracefs {
    /// Looks for it.
    #[must_use]
    pub fn find(host: &Host) -> Self {
        let mounts = mountinfo::mounts(host).unwrap_or_default();
        let own = mounts
            .iter()
            .find(|mount| mount.fstype == "tracefs")
            .map(|mount| mount.point.clone());
        // debugfs mounts it by itself when somebody enters its `tracing` directory.
        let through_debugfs = || {
            mounts
                .iter()
                .find(|mount| mount.fstype == "debugfs")
                .map(|mount| mount.point.join("tracing"))
        };
        match own.or_else(through_debugfs) {
            Some(point) => match Access::of(host, point.join("events")) {
                Access::Readable => Tracefs::Mounted(point),
                Access::Denied => Tracefs::Denied(point),
                Access::Absent => Tracefs::NotMounted,
            },
            None if host.has(TRACING) => Tracefs::NotMounted,
            None => Tracefs::Absent,
        }
    }

    /// Its path, if it can be used.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Tracefs::Mounted(path) => Some(path),
            Tracefs::Denied(_) | Tracefs::NotMounted | Tracefs::Absent => None,
        }
    }
}

/// Mounts tracefs on /sys/kernel/tracing in a mount namespace of this process's own, so that the machine's mounts
/// stay as they are. Mounts that others make later still arrive here; ours never leave.
///
/// Call it before any thread is started: only the calling thread and what it starts later move to the namespace.
/// Needs `CAP_SYS_ADMIN`. Does nothing where tracefs is mounted already.
///
/// # Errors
/// The call that was refused. After a failed mount the process is in a namespace that equals the machine's.
pub fn mount_tracefs_privately() -> Result<Tracefs, HostError> {
    let found = Tracefs::find(&Host::live());
    if found != Tracefs::NotMounted {
        return Ok(found);
    }
    let failed = |what| {
        move |source: rustix::io::Errno| HostError::Call {
            what,
            source: source.into(),
        }
    };
    // SAFETY: NEWNS alone leaves the descriptor table shared as it is; no I/O safety guarantee is touched.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(failed("unshare a mount namespace for tracefs"))?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(failed("make the private namespace's mounts slaves"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tracefs", TRACING, "tracefs", flags, None)
        .map_err(|source| HostError::file("mount tracefs on", TRACING, source))?;
    Ok(Tracefs::find(&Host::live()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn it_is_found_by_its_mount_or_through_debugfs() {
        let tree = Tree::new();
        assert_eq!(Tracefs::find(&tree.host()), Tracefs::Absent);
        tree.dir(TRACING);
        assert_eq!(Tracefs::find(&tree.host()), Tracefs::NotMounted);
        tree.file(
            "/proc/self/mountinfo",
            "9 1 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n",
        )
        .dir("/sys/kernel/debug/tracing/events");
        assert_eq!(
            Tracefs::find(&tree.host()).path(),
            Some(Path::new("/sys/kernel/debug/tracing"))
        );
        tree.file(
            "/proc/self/mountinfo",
            "9 1 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw\n",
        )
        .dir("/sys/kernel/tracing/events");
        assert_eq!(
            Tracefs::find(&tree.host()),
            Tracefs::Mounted(PathBuf::from(TRACING))
        );
    }
}
