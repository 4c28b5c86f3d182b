//! The journal on disk: read when it is opened, appended to and synced before anything is changed.
//!
//! Three locks, all of flock(2), so that a killed process leaves none behind: [`Claim`] on `controller.lock` (who may
//! begin actions), [`Turn`] on the folder (whose turn it is to change knobs), and one on the file itself for the moment
//! of an append or of a compaction.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grey_core::act::{Damage, Fault, Ledger, Record, decode_all, encode};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::files::fault;

mod compact;
mod folder;
mod lock;
#[cfg(test)]
mod tests;

use folder::Folder;
use lock::Claim;
pub use lock::Turn;

/// The journal's name in its folder.
pub const FILE: &str = "journal";
/// A journal is never larger: it is read as a whole, and compacted long before.
const MAX_BYTES: u64 = 64 << 20;
/// How long an opening waits for another process to let go: a guard has undone everything within this.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
/// How long an append waits for another one: a process that was stopped within its own must not hold up undoing.
const APPEND_WAIT: Duration = Duration::from_millis(500);

/// The journal, opened for writing.
#[derive(Debug)]
pub struct Journal {
    folder: Folder,
    path: PathBuf,
    file: OwnedFd,
    /// Ours if we may begin actions.
    claim: Option<OwnedFd>,
    /// Why it can only be read.
    unwritable: Option<Fault>,
    /// Bytes of it that the ledger was told of.
    known: u64,
    /// Others have written to it since it was read.
    stale: bool,
}

/// Why a journal cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process acts.
    #[error("another grey-ebpf{} is acting", who(*.0))]
    Held(u32),
    /// Its folder or file cannot be used.
    #[error("{path}: {fault}")]
    File {
        /// The file.
        path: String,
        /// Why.
        fault: Fault,
    },
}

fn who(pid: u32) -> String {
    match pid {
        0 => String::new(),
        pid => format!(" (pid {pid})"),
    }
}

impl JournalError {
    fn file(path: &Path, fault: Fault) -> JournalError {
        JournalError::File {
            path: path.display().to_string(),
            fault,
        }
    }
}

impl Journal {
    /// Takes the journal in `dir` (made if missing) with the right to begin actions, waiting a moment for another
    /// process to let go of it.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(dir: &Path) -> Result<(Journal, Ledger, Damage), JournalError> {
        survive_size_limits();
        let folder = Folder::make(dir)?;
        let claim = match Claim::take(&folder, CLAIM_WAIT)? {
            Claim::Ours(claim) => claim,
            Claim::Theirs(pid) => return Err(JournalError::Held(pid)),
        };
        let file = folder.create()?;
        let mut journal = Journal::on(folder, file, None);
        journal.claim = Some(claim);
        let (ledger, damage) = journal.read()?;
        // A journal that is too long is still a journal.
        let _ = journal.compact(&ledger);
        Ok((journal, ledger, damage))
    }

    /// The journal in `dir` for undoing, beside a controller that may be acting; `None` where there is none. The right
    /// to begin actions is taken along where nobody has it. Where it cannot be written, it is read all the same.
    ///
    /// # Errors
    /// See [`JournalError`]; never [`JournalError::Held`].
    pub fn attach(dir: &Path) -> Result<Option<(Journal, Ledger, Damage)>, JournalError> {
        survive_size_limits();
        let Some(folder) = Folder::find(dir)? else {
            return Ok(None);
        };
        let Some((file, unwritable)) = folder.existing()? else {
            return Ok(None);
        };
        let mut journal = Journal::on(folder, file, unwritable);
        // A guard whose controller has died is about to let go.
        let end = Instant::now() + CLAIM_WAIT;
        while journal.dying() && Instant::now() < end {
            std::thread::sleep(lock::POLL);
        }
        let (ledger, damage) = journal.read()?;
        Ok(Some((journal, ledger, damage)))
    }

    /// What the journal in `dir` says, and who acts; `None` where there is none. Changes nothing.
    ///
    /// # Errors
    /// See [`JournalError`]; never [`JournalError::Held`].
    pub fn look(dir: &Path) -> Result<Option<(Ledger, Damage, Option<u32>)>, JournalError> {
        let Some(folder) = Folder::find(dir)? else {
            return Ok(None);
        };
        let Some(file) = folder.readable()? else {
            return Ok(None);
        };
        let mut journal = Journal::on(folder, file, Some(Fault::ReadOnly));
        let holder = Claim::holder(&journal.folder).filter(|pid| lock::lives(*pid));
        let (ledger, damage) = journal.read()?;
        Ok(Some((ledger, damage, holder)))
    }

    fn on(folder: Folder, file: OwnedFd, unwritable: Option<Fault>) -> Journal {
        Journal {
            path: folder.path.join(FILE),
            folder,
            file,
            claim: None,
            unwritable,
            known: 0,
            stale: true,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the right to begin actions. It is held as long as any process has a copy of it.
    #[must_use]
    pub fn lock_fd(&self) -> Option<BorrowedFd<'_>> {
        self.claim.as_ref().map(|claim| claim.as_fd())
    }

    /// The process that may begin actions, if it is another one and lives. Where nobody has that right any more, it is
    /// taken.
    pub fn controller(&mut self) -> Option<u32> {
        self.claim_quietly().filter(|pid| lock::lives(*pid))
    }

    /// Whether the right to begin actions is with what is left of a process that has died: its guard.
    fn dying(&mut self) -> bool {
        self.claim_quietly().is_some_and(|pid| !lock::lives(pid))
    }

    /// Takes the right to begin actions if nobody has it, else tells who does.
    fn claim_quietly(&mut self) -> Option<u32> {
        if self.claim.is_some() {
            return None;
        }
        match Claim::take(&self.folder, Duration::ZERO) {
            Ok(Claim::Ours(claim)) => {
                self.claim = Some(claim);
                None
            }
            Ok(Claim::Theirs(pid)) => Some(pid),
            // Nowhere to write a pid to, and nobody who could have acted from there.
            Err(_) => Claim::holder(&self.folder),
        }
    }

    /// Our turn to change knobs, if nobody else is at it. What others have written to the journal before it is to be
    /// had from [`Journal::news`].
    #[must_use]
    pub fn turn(&self) -> Option<Turn> {
        Turn::take(&self.folder)
    }

    /// The journal as it is now, if others have written to it since it was read.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn news(&mut self) -> Result<Option<Ledger>, Fault> {
        self.follow()?;
        if !self.stale && folder::size(&self.file)? == self.known {
            return Ok(None);
        }
        let locked = self.lock()?;
        let bytes = folder::read(&self.file, MAX_BYTES);
        self.unlock(locked);
        let bytes = bytes?;
        (self.known, self.stale) = (bytes.len() as u64, false);
        Ok(Some(Ledger::of(decode_all(&bytes).0)))
    }

    fn read(&mut self) -> Result<(Ledger, Damage), JournalError> {
        let read = |journal: &mut Journal| {
            let locked = journal.lock()?;
            let bytes = folder::read(&journal.file, MAX_BYTES);
            journal.unlock(locked);
            bytes
        };
        let bytes = read(self).map_err(|fault| JournalError::file(&self.path, fault))?;
        (self.known, self.stale) = (bytes.len() as u64, false);
        let (records, damage) = decode_all(&bytes);
        Ok((Ledger::of(records), damage))
    }

    /// Appends and syncs.
    ///
    /// # Errors
    /// Then the record may be torn or whole on disk.
    pub fn append(&mut self, record: &Record) -> Result<(), Fault> {
        if let Some(fault) = &self.unwritable {
            return Err(fault.clone());
        }
        let locked = self.lock()?;
        let appended = self.append_locked(record);
        self.unlock(locked);
        appended
    }

    fn append_locked(&mut self, record: &Record) -> Result<(), Fault> {
        let size = folder::size(&self.file)?;
        self.stale |= size != self.known;
        let mut line = Vec::new();
        // What a write that was cut short has left must not swallow this record too.
        if !folder::ends_a_line(&self.file, size)? {
            line.push(b'\n');
        }
        line.extend(encode(record));
        if size + line.len() as u64 > MAX_BYTES {
            return Err(Fault::Other("the journal is too large".to_owned()));
        }
        let written = write_all(&self.file, &line);
        // Also what an append that failed has left is known.
        self.known = folder::size(&self.file)?;
        written.map_err(fault)?;
        retry(|| rustix::fs::fdatasync(&self.file)).map_err(fault)
    }

    /// Locks the file that has the journal's name. `false` where another process has held it for too long: an append
    /// goes on without.
    fn lock(&mut self) -> Result<bool, Fault> {
        let end = Instant::now() + APPEND_WAIT;
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => match self.follow() {
                    Ok(false) => return Ok(true),
                    Ok(true) => {}
                    Err(fault) => {
                        self.unlock(true);
                        return Err(fault);
                    }
                },
                Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(lock::POLL),
                // A file system without locks.
                Err(_) => return Ok(false),
            }
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }

    fn unlock(&self, locked: bool) {
        if locked {
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }

    /// Goes over to the file that has the journal's name now; whether it was another one.
    fn follow(&mut self) -> Result<bool, Fault> {
        let here = rustix::fs::fstat(&self.file).map_err(fault)?;
        let named = self.folder.stat(FILE).map_err(fault)?;
        if (here.st_dev, here.st_ino) == (named.st_dev, named.st_ino) {
            return Ok(false);
        }
        let reopened = self.folder.existing();
        let Ok(Some((file, unwritable))) = reopened else {
            return Err(Fault::Gone);
        };
        (self.file, self.unwritable) = (file, self.unwritable.take().or(unwritable));
        self.stale = true;
        Ok(true)
    }
}

/// A limit on file sizes is an error of a write and not the end of the process.
fn survive_size_limits() {
    // SAFETY: the call sets a signal's disposition to "ignore" and takes no pointers.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Writes all of it; a file system that takes a part tells why with the rest.
fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = retry(|| rustix::io::write(file, bytes))?;
        if written == 0 {
            return Err(Errno::NOSPC);
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// A pid as the content of a file.
fn note_pid(file: &OwnedFd) {
    let mut text = Vec::with_capacity(16);
    let _ = writeln!(text, "{}", std::process::id());
    // On a full disk nobody learns who it is; the lock itself holds.
    if rustix::fs::ftruncate(file, 0).is_ok() {
        let _ = rustix::io::pwrite(file, &text, 0);
    }
}
