//! A file that carries state across restarts: written whole or not at all, checked before it is believed, one writer.

mod format;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use format::{MAX_BYTES, Origin, Refusal, VERSION};

/// A state file, and the right to write it if nobody else has it.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    origin: Origin,
    /// Holds the lock as long as it is open; `None` where another process does.
    lock: Option<File>,
    /// A write that is under way.
    writing: Option<JoinHandle<io::Result<()>>>,
}

/// What a state file held.
#[derive(Debug)]
pub enum Loaded<T> {
    /// There is none yet.
    Absent,
    /// Good, of this boot of this machine.
    Good(T),
    /// Not to be used. Where it was moved to so that it is not overwritten, if it was.
    Refused(Refusal, Option<PathBuf>),
}

impl StateFile {
    /// Takes the file at `path`. Another process that has it keeps it: then [`StateFile::is_writer`] is false.
    ///
    /// # Errors
    /// `path` cannot be a file, or its folder cannot be written to.
    pub fn open(path: &Path, origin: Origin) -> io::Result<StateFile> {
        // A rename would put a file in the place of a link; what the link points to is meant.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        if let Ok(metadata) = fs::metadata(&path)
            && !metadata.is_file()
        {
            return Err(io::Error::other("not a regular file"));
        }
        // Beside it, because the file itself is replaced at each write. It stays: removing it would let two have it.
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(&path, ".lock"))?;
        let lock = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Some(lock),
            Err(Errno::WOULDBLOCK) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(StateFile {
            path,
            origin,
            lock,
            writing: None,
        })
    }

    /// Whether this process is the one that writes it.
    #[must_use]
    pub fn is_writer(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether a write that [`StateFile::save_soon`] began is under way.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing
            .as_ref()
            .is_some_and(|writing| !writing.is_finished())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it. What cannot be used is moved to `FILE.bad`, unless it only is of another boot of this machine or
    /// another process writes it.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn load<T: DeserializeOwned>(&self) -> io::Result<Loaded<T>> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Absent),
            Err(error) => return Err(error),
        };
        let refusal = match format::decode(&bytes, &self.origin) {
            Ok(state) => return Ok(Loaded::Good(state)),
            Err(refusal) => refusal,
        };
        if !self.is_writer() || refusal == Refusal::OtherBoot {
            return Ok(Loaded::Refused(refusal, None));
        }
        let bad = beside(&self.path, ".bad");
        fs::rename(&self.path, &bad)?;
        Ok(Loaded::Refused(refusal, Some(bad)))
    }

    /// Writes `state` on a thread of its own, since a disk may take its time. Nothing happens while an earlier write is
    /// under way, or where another process is the writer.
    ///
    /// # Errors
    /// Those of the write before.
    pub fn save_soon<T: Serialize + Send + 'static>(&mut self, state: T) -> io::Result<()> {
        if self.lock.is_none() || self.is_writing() {
            return Ok(());
        }
        let before = self.wait();
        let (path, origin) = (self.path.clone(), self.origin.clone());
        self.writing = Some(
            std::thread::Builder::new()
                .name("state".to_owned())
                .spawn(move || write(&path, &origin, &state))?,
        );
        before
    }

    /// Writes `state` now, after whatever is under way.
    ///
    /// # Errors
    /// It cannot be written; the file is as it was.
    pub fn save<T: Serialize>(&mut self, state: &T) -> io::Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        // What failed before does not matter if this one succeeds.
        let _ = self.wait();
        write(&self.path, &self.origin, state)
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.writing.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the writing thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // The lock must outlast the last write.
        let _ = self.wait();
    }
}

/// Replaces the file: whoever reads it sees the old content or the new one, also after a crash.
fn write<T: Serialize>(path: &Path, origin: &Origin, state: &T) -> io::Result<()> {
    let bytes = format::encode(state, origin)?;
    let new = beside(path, ".new");
    // Of a run that was killed while it wrote; the lock says that it is nobody else's now.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Until then the new name may be lost with the power; not every file system can do it.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
