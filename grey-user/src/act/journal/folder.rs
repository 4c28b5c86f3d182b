//! The journal's folder: made, checked, and its files opened without following links.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use grey_core::act::Fault;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{FILE, JournalError, fault, retry};

/// A folder that nobody but us and root can change.
#[derive(Debug)]
pub(super) struct Folder {
    /// Absolute.
    pub path: PathBuf,
    pub dir: Rc<OwnedFd>,
}

impl Folder {
    /// The folder, made if it is missing.
    pub fn make(path: &Path) -> Result<Folder, JournalError> {
        let path = absolute(path)?;
        let dir = match open_dir(&path) {
            Err(Errno::NOENT) => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&path)
                    .map_err(|error| JournalError::file(&path, of_io(&error)))?;
                sync_parent(&path);
                open_dir(&path)
            }
            opened => opened,
        };
        Folder::check(path, dir)
    }

    /// The folder, if it is there.
    pub fn find(path: &Path) -> Result<Option<Folder>, JournalError> {
        let path = absolute(path)?;
        match open_dir(&path) {
            Err(Errno::NOENT) => Ok(None),
            opened => Folder::check(path, opened).map(Some),
        }
    }

    fn check(path: PathBuf, dir: Result<OwnedFd, Errno>) -> Result<Folder, JournalError> {
        let failed = |fault| Err(JournalError::file(&path, fault));
        let dir = match dir {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP) => return failed(Fault::Other(not_a_folder(&path))),
            Err(error) => return failed(fault(error)),
        };
        let stat = match rustix::fs::fstat(&dir) {
            Ok(stat) => stat,
            Err(error) => return failed(fault(error)),
        };
        let ours = rustix::process::geteuid().as_raw();
        if stat.st_uid != ours && stat.st_uid != 0 {
            return failed(Fault::Other(format!(
                "it belongs to user {}, who could change the journal",
                stat.st_uid
            )));
        }
        if stat.st_mode & 0o022 != 0 {
            return failed(Fault::Other(format!(
                "others may write to it (mode {:o}); chmod go-w",
                stat.st_mode & 0o7777
            )));
        }
        Ok(Folder {
            path,
            dir: Rc::new(dir),
        })
    }

    /// The journal for writing, made if it is missing.
    pub fn create(&self) -> Result<OwnedFd, JournalError> {
        if let Some((file, None)) = self.existing()? {
            return Ok(file);
        }
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        let file = self.open(FILE, flags)?.ok_or_else(|| self.gone())?;
        // The name must outlast a power cut as well as the content.
        let synced = retry(|| rustix::fs::fsync(&file)).and_then(|()| self.sync());
        match synced {
            Ok(()) => Ok(file),
            Err(error) => Err(JournalError::file(&self.path.join(FILE), fault(error))),
        }
    }

    /// The journal for writing, if it is there; where that is refused, for reading, with the reason.
    pub fn existing(&self) -> Result<Option<(OwnedFd, Option<Fault>)>, JournalError> {
        match self.open(FILE, OFlags::RDWR | OFlags::APPEND) {
            Err(JournalError::File {
                fault: fault @ (Fault::ReadOnly | Fault::Denied),
                ..
            }) => Ok(self.readable()?.map(|file| (file, Some(fault)))),
            opened => Ok(opened?.map(|file| (file, None))),
        }
    }

    /// The journal for reading, if it is there.
    pub fn readable(&self) -> Result<Option<OwnedFd>, JournalError> {
        self.open(FILE, OFlags::RDONLY)
    }

    /// A regular file of the folder; `None` where it is not there.
    pub fn open(&self, name: &str, flags: OFlags) -> Result<Option<OwnedFd>, JournalError> {
        let failed = |fault| Err(JournalError::file(&self.path.join(name), fault));
        // NONBLOCK: a pipe of that name would hold us up for ever.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match rustix::fs::openat(&*self.dir, name, flags, mode) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return failed(Fault::Other("it is a link, which is not followed".into()));
            }
            Err(Errno::ISDIR | Errno::NXIO | Errno::NODEV) => return failed(not_a_file()),
            Err(error) => return failed(fault(error)),
        };
        match rustix::fs::fstat(&file) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => Ok(Some(file)),
            Ok(_) => failed(not_a_file()),
            Err(error) => failed(fault(error)),
        }
    }

    /// What has this name in the folder now.
    pub fn stat(&self, name: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(&*self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Makes names last.
    pub fn sync(&self) -> Result<(), Errno> {
        retry(|| rustix::fs::fsync(&*self.dir))
    }

    fn gone(&self) -> JournalError {
        JournalError::file(&self.path.join(FILE), Fault::Gone)
    }
}

/// Without a trailing slash, which would follow a link.
fn absolute(path: &Path) -> Result<PathBuf, JournalError> {
    std::path::absolute(path)
        .map(|path| path.components().collect())
        .map_err(|error| JournalError::file(path, of_io(&error)))
}

fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn sync_parent(path: &Path) {
    if let Some(parent) = path.parent().and_then(|parent| open_dir(parent).ok()) {
        let _ = rustix::fs::fsync(parent);
    }
}

fn not_a_folder(path: &Path) -> String {
    let link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if link {
        "it is a link, which is not followed".to_owned()
    } else {
        "it is no folder".to_owned()
    }
}

fn not_a_file() -> Fault {
    Fault::Other("it is no regular file".to_owned())
}

fn of_io(error: &std::io::Error) -> Fault {
    match error.raw_os_error() {
        Some(code) => fault(Errno::from_raw_os_error(code)),
        None => Fault::Other(error.to_string()),
    }
}

/// Bytes of a file.
pub(super) fn size(file: &OwnedFd) -> Result<u64, Fault> {
    let stat = rustix::fs::fstat(file).map_err(fault)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Whether the last of its bytes ends a line.
pub(super) fn ends_a_line(file: &OwnedFd, size: u64) -> Result<bool, Fault> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    let read = retry(|| rustix::io::pread(file, &mut byte, last)).map_err(fault)?;
    // A file that was cut meanwhile may end anywhere.
    Ok(read == 1 && byte == *b"\n")
}

/// All bytes of a file of at most `max`.
pub(super) fn read(file: &OwnedFd, max: u64) -> Result<Vec<u8>, Fault> {
    let too_large = || {
        Fault::Other(format!(
            "it is larger than {}, which no journal is; move it away after a look at it",
            grey_core::units::format_bytes(max)
        ))
    };
    let size = size(file)?;
    if size > max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(size as usize + 1);
    let mut chunk = [0_u8; 64 << 10];
    loop {
        let at = bytes.len() as u64;
        match retry(|| rustix::io::pread(file, &mut chunk, at)).map_err(fault)? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(&chunk[..length]),
        }
        if bytes.len() as u64 > max {
            return Err(too_large());
        }
    }
}
