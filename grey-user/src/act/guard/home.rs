//! The guard's own cgroup: a little memory that is not reclaimed from it. Best effort; it is shared by all guards.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};

/// Below the root of the v2 tree.
pub const CGROUP: &str = "grey-ebpf-guard";
/// What is protected: several times what guards use.
const PROTECTED: &[u8] = b"8388608";

fn open(dir: BorrowedFd<'_>, path: &str, flags: OFlags) -> Option<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, path, flags, Mode::empty()).ok()
}

/// Makes it where the root's children have the memory controller; its `cgroup.procs` is returned.
pub(super) fn make(root: BorrowedFd<'_>) -> Option<OwnedFd> {
    let control = open(root, "cgroup.subtree_control", OFlags::RDONLY)?;
    let mut text = [0; 256];
    let len = rustix::io::read(&control, &mut text).ok()?;
    text[..len]
        .split(u8::is_ascii_whitespace)
        .find(|name| *name == b"memory")?;
    // Another guard may take it away between two of these calls.
    (0..3).find_map(|_| {
        let _ = rustix::fs::mkdirat(root, CGROUP, Mode::from_raw_mode(0o755));
        let dir = open(root, CGROUP, OFlags::RDONLY | OFlags::DIRECTORY)?;
        use std::os::fd::AsFd as _;
        let min = open(dir.as_fd(), "memory.min", OFlags::WRONLY)?;
        rustix::io::write(&min, PROTECTED).ok()?;
        open(dir.as_fd(), "cgroup.procs", OFlags::WRONLY)
    })
}

/// Moves this process to the root and takes the cgroup away, if no other guard is inside. Does not allocate.
pub(super) fn leave(root: BorrowedFd<'_>) {
    if let Some(procs) = open(root, "cgroup.procs", OFlags::WRONLY) {
        let _ = rustix::io::write(&procs, b"0");
    }
    remove(root);
}

/// Takes the cgroup away, if no guard is inside.
pub(super) fn remove(root: BorrowedFd<'_>) {
    let _ = rustix::fs::unlinkat(root, CGROUP, AtFlags::REMOVEDIR);
}
