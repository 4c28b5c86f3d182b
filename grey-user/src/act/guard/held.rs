//! The changes the guard holds, and their undoing: newest first, each write in a child that can be ended.

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use grey_core::act::{Close, KnobFile, Slot, Table, Verdict, undo};
use rustix::io::Errno;

use super::note::Journal;
use super::wire::Arm;
use crate::act::fork::{self, Forked};

/// Changes it can hold: more than one action makes.
pub(super) const SLOTS: usize = 256;
/// How long one write may take.
const WRITE: Duration = Duration::from_secs(1);
/// The same once a write took that long: what comes after it must not wait too.
const HURRIED: Duration = Duration::from_millis(200);
/// How long a child that was ended may take to be gone.
const ENDING: Duration = Duration::from_millis(100);
/// Tries of a write that is interrupted.
const TRIES: u32 = 5;

/// The file of a change.
#[derive(Clone, Copy, Debug)]
struct File {
    fd: RawFd,
    file: KnobFile,
    /// What undoing came to; `None` as long as it is to be undone.
    done: Option<Close>,
    /// The journal knows, or need not.
    noted: bool,
    /// The controller has closed it, but its helper may still write.
    lingering: bool,
    round: u32,
}

const FREE: File = File {
    fd: -1,
    file: KnobFile::MemoryHigh,
    done: None,
    noted: false,
    lingering: false,
    round: 0,
};

/// Which changes a round is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those whose time is over.
    Due(u64),
}

/// The changes.
#[derive(Debug)]
pub(super) struct Held {
    table: Table<u16, SLOTS>,
    files: [File; SLOTS],
    round: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        for file in &mut self.files {
            file.close();
        }
    }
}

impl File {
    fn close(&mut self) {
        if self.fd >= 0 {
            // SAFETY: the descriptor came in as an `OwnedFd`, is owned by this entry alone, and is forgotten here.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
        *self = FREE;
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: an entry in use owns its descriptor until `close`, which needs it exclusively.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Held {
    pub(super) const fn new() -> Held {
        Held {
            table: Table::new(),
            files: [FREE; SLOTS],
            round: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Remembers a change; false where there is no room.
    pub(super) fn arm(&mut self, arm: &Arm, file: OwnedFd) -> bool {
        // A step that is tried again.
        self.release(arm.id, Some(arm.step));
        let Some(at) = self.files.iter().position(|file| file.fd < 0) else {
            return false;
        };
        let slot = Slot {
            id: arm.id,
            step: arm.step,
            until: u64::MAX,
            old: arm.old,
            new: arm.new,
            leaves: arm.leaves,
            file: at as u16,
        };
        if !self.table.arm(slot) {
            return false;
        }
        self.files[at] = File {
            fd: std::os::fd::IntoRawFd::into_raw_fd(file),
            file: arm.file,
            ..FREE
        };
        true
    }

    /// Another time at which an action's changes are undone; false where one of them is undone already.
    pub(super) fn lease(&mut self, id: u64, until: u64) -> bool {
        let over = self.over(id);
        self.table.lease(id, until);
        !over
    }

    /// Whether one of the action's changes was undone here.
    pub(super) fn over(&self, id: u64) -> bool {
        self.table.iter().any(|slot| {
            let file = &self.files[usize::from(slot.file)];
            slot.id == id && file.done.is_some() && !file.lingering
        })
    }

    /// Forgets an action's changes, one or all.
    pub(super) fn release(&mut self, id: u64, step: Option<u32>) {
        let files = &mut self.files;
        self.table
            .release(id, step, |at| files[usize::from(at)].close());
    }

    /// Has an action's changes looked after although the controller has closed them.
    pub(super) fn linger(&mut self, id: u64, step: Option<u32>) {
        for slot in self.table.iter() {
            if slot.id == id && step.is_none_or(|step| step == slot.step) {
                let file = &mut self.files[usize::from(slot.file)];
                file.lingering = true;
                file.noted = true;
                file.done.get_or_insert(Close::Back);
            }
        }
    }

    /// Forgets what lingers.
    pub(super) fn settle(&mut self) {
        loop {
            let mut slots = self.table.iter();
            let next = slots.find(|slot| self.files[usize::from(slot.file)].lingering);
            let Some((id, step)) = next.map(|slot| (slot.id, slot.step)) else {
                return;
            };
            drop(slots);
            self.release(id, Some(step));
        }
    }

    fn wanted(&self, slot: &Slot<u16>, which: Which) -> bool {
        match which {
            Which::All => true,
            Which::Due(now) => slot.until <= now || self.files[usize::from(slot.file)].lingering,
        }
    }

    /// Whether a round would look at anything.
    pub(super) fn any(&self, which: Which) -> bool {
        self.table.iter().any(|slot| self.wanted(slot, which))
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.table.next_due()
    }

    /// Undoes what is to be undone, and looks again at what was: a late write may have put `new` back. False where a
    /// file could not be put back.
    pub(super) fn undo(&mut self, which: Which) -> bool {
        self.round = self.round.wrapping_add(1);
        let (mut complete, mut hurried) = (true, false);
        loop {
            let next = self.table.iter().rev().find(|slot| {
                self.files[usize::from(slot.file)].round != self.round && self.wanted(slot, which)
            });
            let Some(slot) = next.copied() else {
                return complete;
            };
            let time = if hurried { HURRIED } else { WRITE };
            let (how, late) = put_back(&self.files[usize::from(slot.file)], &slot, time);
            hurried |= late;
            let file = &mut self.files[usize::from(slot.file)];
            file.round = self.round;
            complete &= how.is_some();
            // What was restored once stays so for the journal, whatever is found later.
            if file.done != Some(Close::Restored) {
                file.done = how.or(file.done);
            }
        }
    }

    /// What the journal should know: with `last` all, else what a live controller cannot contradict.
    fn to_note(&self, last: bool) -> impl Iterator<Item = (u64, u32, Close)> {
        self.table.iter().rev().filter_map(move |slot| {
            let file = &self.files[usize::from(slot.file)];
            let how = file.done?;
            (!file.noted && (last || how == Close::Restored)).then_some((slot.id, slot.step, how))
        })
    }

    /// Tells the journal, in a child: a disk that hangs must not hold up the next undoing.
    pub(super) fn note(&mut self, journal: Option<&Journal>, last: bool) {
        let Some(journal) = journal else { return };
        if self.to_note(last).next().is_none() || !journal.exists() {
            return;
        }
        let mut keep = [std::os::fd::AsRawFd::as_raw_fd(&journal.dir)];
        // SAFETY: system calls on memory that the child has a copy of; nothing of it allocates or locks.
        let child = unsafe {
            fork::fork(&mut keep, || {
                let _ = journal.append(self.to_note(last));
            })
        };
        match child {
            Ok(child) => {
                await_end(&child, WRITE);
            }
            Err(_) => {
                let _ = journal.append(self.to_note(last));
            }
        }
        for slot in self.table.iter() {
            let file = &mut self.files[usize::from(slot.file)];
            if last || file.done == Some(Close::Restored) {
                file.noted |= file.done.is_some();
            }
        }
    }
}

/// Whether it took too long.
fn await_end(child: &Forked, time: Duration) -> bool {
    if child.ends_within(time) {
        return false;
    }
    child.kill();
    child.ends_within(ENDING);
    true
}

/// What undoing one change comes to (`None`: it did not work), and whether it took too long.
fn put_back(file: &File, slot: &Slot<u16>, time: Duration) -> (Option<Close>, bool) {
    let mut buffer = [0; 256];
    let current = match read(file, &mut buffer) {
        Ok(current) => current,
        Err(Errno::NODEV | Errno::NOENT) => return (Some(Close::Gone), false),
        Err(_) => return (None, false),
    };
    let Some(current) = current else {
        return (None, false);
    };
    let (old, new) = (slot.old.bytes(), slot.new.bytes());
    let leaves = slot.leaves.as_ref().map(grey_core::act::Text::bytes);
    match undo(current, old, new, leaves) {
        Verdict::Back => return (Some(Close::Back), false),
        Verdict::Foreign => return (Some(Close::Foreign), false),
        Verdict::Restore => {}
    }
    let late = write(file, old, time);
    let mut buffer = [0; 256];
    let how = match read(file, &mut buffer) {
        // A write that was cut short may have set the value all the same.
        Ok(Some(now)) if now == old => Some(Close::Restored),
        Ok(Some(now)) if undo(now, old, new, leaves) == Verdict::Foreign => Some(Close::Foreign),
        Err(Errno::NODEV | Errno::NOENT) => Some(Close::Gone),
        _ => None,
    };
    (how, late)
}

fn read<'a>(file: &File, buffer: &'a mut [u8; 256]) -> Result<Option<&'a [u8]>, Errno> {
    let len = loop {
        match rustix::io::pread(file.borrow(), &mut buffer[..], 0) {
            Ok(len) => break len,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    };
    Ok(file.file.canonical(&buffer[..len]))
}

/// Writes in a child; true if it had to be ended.
fn write(file: &File, bytes: &[u8], time: Duration) -> bool {
    let once = || {
        for _ in 0..TRIES {
            if !matches!(
                rustix::io::pwrite(file.borrow(), bytes, 0),
                Err(Errno::INTR)
            ) {
                break;
            }
        }
    };
    // SAFETY: system calls on memory that the child has a copy of; nothing of it allocates or locks.
    match unsafe { fork::fork(&mut [file.fd], once) } {
        Ok(child) => await_end(&child, time),
        // No room for a process: better a write that may block than none.
        Err(_) => {
            once();
            false
        }
    }
}
