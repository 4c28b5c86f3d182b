//! Who may begin actions, and whose turn it is to change knobs.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::{Folder, JournalError, fault, note_pid};

const NAME: &str = "controller.lock";
/// How often a wait looks again.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// The right to begin actions.
pub(super) enum Claim {
    /// It is ours as long as this descriptor or a copy of it is open.
    Ours(OwnedFd),
    /// This process has it; 0 where it could not tell.
    Theirs(u32),
}

impl Claim {
    /// Takes it, waiting at most this long.
    pub fn take(folder: &Folder, wait: Duration) -> Result<Claim, JournalError> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let gone = || JournalError::file(&folder.path.join(NAME), grey_core::act::Fault::Gone);
        let file = folder.open(NAME, flags)?.ok_or_else(gone)?;
        let end = Instant::now() + wait;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    note_pid(&file);
                    return Ok(Claim::Ours(file));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(POLL);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Claim::Theirs(pid(&file))),
                Err(error) => {
                    return Err(JournalError::file(&folder.path.join(NAME), fault(error)));
                }
            }
        }
    }

    /// Who has it, without taking it.
    pub fn holder(folder: &Folder) -> Option<u32> {
        let file = folder.open(NAME, OFlags::RDONLY).ok()??;
        // Shared, so that two who only look do not take each other for a controller.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Some(pid(&file)),
            _ => None,
        }
    }
}

fn pid(file: &OwnedFd) -> u32 {
    let mut text = [0; 16];
    let length = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..length])
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether a process lives: a killed one whose parent has not looked does not. What cannot be told counts as living.
pub(super) fn lives(pid: u32) -> bool {
    if pid == 0 {
        return true;
    }
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            // The name in brackets may hold anything.
            let after = stat.iter().rposition(|byte| *byte == b')');
            let state = after.and_then(|at| stat.get(at + 2));
            !matches!(state, Some(b'Z' | b'X'))
        }
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Our turn to change knobs: between two processes that both undo and change, each sees what the other has done.
#[derive(Debug)]
pub struct Turn(Rc<OwnedFd>);

impl Turn {
    /// `None` while somebody else has it. A file system that has no locks for folders gives everybody a turn.
    pub(super) fn take(folder: &Folder) -> Option<Turn> {
        match rustix::fs::flock(&*folder.dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => None,
            _ => Some(Turn(Rc::clone(&folder.dir))),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Explicitly: a helper that hangs in the kernel may still have a copy of the descriptor.
        let _ = rustix::fs::flock(&*self.0, FlockOperation::Unlock);
    }
}
