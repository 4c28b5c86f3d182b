//! Knobs as files: found by path and id, read into a value, opened for writing. Never follows a link, never leaves the
//! tree.

use std::os::fd::OwnedFd;

use grey_core::act::{Fault, Knob, Place, Value};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::host::{CgroupFs, Host};

/// What a system call's error means for an action.
#[must_use]
pub fn fault(error: Errno) -> Fault {
    match error {
        Errno::NOENT | Errno::NODEV => Fault::Gone,
        Errno::ACCESS | Errno::PERM => Fault::Denied,
        Errno::ROFS => Fault::ReadOnly,
        Errno::NOSPC | Errno::DQUOT => Fault::Full,
        Errno::BUSY | Errno::AGAIN => Fault::Busy,
        Errno::INTR => Fault::Interrupted,
        Errno::INVAL | Errno::OPNOTSUPP | Errno::RANGE => {
            Fault::Invalid(std::io::Error::from(error).to_string())
        }
        other => Fault::Other(std::io::Error::from(other).to_string()),
    }
}

/// Opens a knob.
///
/// # Errors
/// [`Fault::Gone`] also where another cgroup has its path now.
pub fn open(host: &Host, cgroups: &CgroupFs, knob: &Knob, flags: OFlags) -> Result<OwnedFd, Fault> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    match &knob.place {
        Place::Cgroup { cgroup, cgroup_id } => {
            let root = cgroups.dir().map_err(|_| Fault::Gone)?;
            let path = cgroup.trim_matches('/');
            let path = if path.is_empty() { "." } else { path };
            let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir =
                rustix::fs::openat2(root, path, dir, Mode::empty(), beneath).map_err(fault)?;
            if rustix::fs::fstat(&dir).map_err(fault)?.st_ino != *cgroup_id {
                return Err(Fault::Gone);
            }
            rustix::fs::openat2(&dir, knob.file.name(), flags, Mode::empty(), beneath)
                .map_err(fault)
        }
        Place::Machine {} => rustix::fs::open(
            host.path(format!("{}/{}", knob.file.folder(), knob.file.name())),
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(fault),
    }
}

/// What a knob holds.
///
/// # Errors
/// See [`open`]; also where the content is no value.
pub fn read(host: &Host, cgroups: &CgroupFs, knob: &Knob) -> Result<Value, Fault> {
    content(knob, &open(host, cgroups, knob, OFlags::RDONLY)?)
}

/// What an open knob holds.
///
/// # Errors
/// It cannot be read, or its content is no value.
pub fn content(knob: &Knob, file: &OwnedFd) -> Result<Value, Fault> {
    let mut text = [0_u8; 256];
    let length = loop {
        match rustix::io::pread(file, &mut text, 0) {
            Ok(length) => break length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(fault(error)),
        }
    };
    knob.file
        .value(&text[..length])
        .ok_or_else(|| Fault::Other("its content is no value".to_owned()))
}
