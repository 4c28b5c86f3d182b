//! From a cgroup's id to its path and back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::{CgroupFs, open_dir};

impl CgroupFs {
    /// Id of the cgroup at a path; `None` when there is none.
    #[must_use]
    pub fn id_of(&self, path: &str) -> Option<u64> {
        let dir = open_dir(self.dir().ok()?, path).ok()?;
        Some(rustix::fs::fstat(&dir).ok()?.st_ino)
    }

    /// Path of the cgroup with this id; `None` when there is none (any more).
    ///
    /// By file handle, which costs no walk but needs `CAP_DAC_READ_SEARCH`; without it by a walk.
    #[must_use]
    pub fn lookup(&self, id: u64) -> Option<String> {
        match self.by_handle(id) {
            Ok(found) => found,
            Err(_) => self
                .walk()
                .ok()?
                .cgroups
                .into_iter()
                .find(|entry| entry.id == id)
                .map(|entry| entry.path),
        }
    }

    fn by_handle(&self, id: u64) -> Result<Option<String>, Errno> {
        /// `struct file_handle` with the eight bytes of a kernfs id.
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: [u8; 8],
        }
        /// include/linux/exportfs.h: `FILEID_KERNFS`.
        const FILEID_KERNFS: i32 = 0xfe;
        /// include/uapi/linux/magic.h: `CGROUP2_SUPER_MAGIC`. Other file systems take the handle for a stale one.
        const CGROUP2: i64 = 0x6367_7270;
        let mount = self.dir.as_ref().ok_or(Errno::NOENT)?;
        if rustix::fs::fstatfs(mount)?.f_type != CGROUP2 {
            return Err(Errno::OPNOTSUPP);
        }
        let mut handle = Handle {
            bytes: 8,
            kind: FILEID_KERNFS,
            id: id.to_ne_bytes(),
        };
        // SAFETY: the call reads `handle_bytes` (8) bytes after the 8-byte head, all inside `handle`, which lives
        // through the call; `mount` is an open descriptor.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount.as_raw_fd(),
                &raw mut handle,
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            let error =
                Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL);
            return if error == Errno::STALE || error == Errno::NOENT {
                Ok(None)
            } else {
                Err(error)
            };
        }
        let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
        // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
        let found = unsafe { OwnedFd::from_raw_fd(fd) };
        let link =
            rustix::fs::readlink(format!("/proc/self/fd/{}", found.as_raw_fd()), Vec::new())?;
        let link = link.into_string().map_err(|_| Errno::INVAL)?;
        // A removed cgroup that somebody holds open still has a handle, and its link ends in a mark that could as well
        // be part of a name. One that lives after its link was read had none.
        if !is_alive(found.as_fd()) {
            return Ok(None);
        }
        let path = Path::new(&link)
            .strip_prefix(&self.reach)
            .map_err(|_| Errno::XDEV)?;
        Ok(Some(format!("/{}", path.display())))
    }
}

/// Whether the cgroup of this directory still exists: every cgroup has this file, a removed directory has none.
pub(in crate::host) fn is_alive(dir: BorrowedFd<'_>) -> bool {
    rustix::fs::accessat(
        dir,
        c"cgroup.procs",
        rustix::fs::Access::EXISTS,
        rustix::fs::AtFlags::empty(),
    )
    .is_ok()
}
