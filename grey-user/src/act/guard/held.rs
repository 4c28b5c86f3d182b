//! The changes the guard holds, and their undoing: newest first, in a child that can be ended.

use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use grey_core::act::{Close, KnobFile, Slot, Table};

use super::note::Journal;
use super::put_back::{self, Child, Report, Seen};
use super::wire::Arm;
use crate::act::fork::{self, Forked};

/// Changes it can hold: more than one action makes.
pub(super) const SLOTS: usize = 256;
/// How long one write may take.
const WRITE: Duration = Duration::from_secs(1);
/// The same once a write took that long: what comes after it must not wait too.
const HURRIED: Duration = Duration::from_millis(200);

/// Children that may hang at a time.
const HUNG: usize = 4;

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
    /// The round that looked at it last, and whether there was nothing left to do.
    round: u32,
    complete: bool,
}

const FREE: File = File {
    fd: -1,
    file: KnobFile::MemoryHigh,
    done: None,
    noted: false,
    lingering: false,
    round: 0,
    complete: false,
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
    /// Children that could not be ended, and the file each hangs at.
    hung: [Option<(u16, Forked)>; HUNG],
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
}

impl Held {
    pub(super) const fn new() -> Held {
        Held {
            table: Table::new(),
            files: [FREE; SLOTS],
            round: 0,
            hung: [const { None }; HUNG],
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
            fd: file.into_raw_fd(),
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
    ///
    /// Writes are made in one child for all, as long as none of them hangs.
    pub(super) fn undo(&mut self, which: Which) -> bool {
        self.round = self.round.wrapping_add(1);
        self.forget_ended();
        let mut time = WRITE;
        while let Some(slot) = self.next(which) {
            let (fd, file) = self.file(&slot);
            let seen = put_back::judge(fd, file, &slot);
            if seen != Seen::Ours || self.hangs(slot.file) {
                self.looked_at(&slot, seen);
                continue;
            }
            match self.undo_in_child(which, time) {
                Some(true) => {}
                // It took too long once; what comes after must not wait as long again.
                Some(false) => time = HURRIED,
                // No room for a process, or somebody kills them: better a write that may block than none.
                None => {
                    let seen = put_back::put_back(fd, file, &slot);
                    self.looked_at(&slot, seen);
                }
            }
        }
        let mut slots = self.table.iter();
        slots.all(|slot| !self.wanted(slot, which) || self.files[usize::from(slot.file)].complete)
    }

    /// Has a child undo what is left of a round. `None` if it did nothing, `Some(false)` if it had to be ended in a write.
    fn undo_in_child(&mut self, which: Which, time: Duration) -> Option<bool> {
        let child = Child::start(self.work(which).map(|(_, fd, _)| fd), self.work(which)).ok()?;
        let mut worked = false;
        let late = loop {
            let (at, seen) = match child.report(time) {
                Report::Seen(at, seen) => (at, seen),
                Report::Over => break false,
                Report::Late => break true,
            };
            let slot = self.table.iter().find(|slot| slot.file == at).copied();
            if let Some(slot) = slot {
                self.looked_at(&slot, seen);
                worked = true;
            }
        };
        let hung = child.end();
        if !late {
            return worked.then_some(true);
        }
        let slot = self.work(which).next().map(|(slot, ..)| *slot);
        if let Some(slot) = slot {
            let (fd, file) = self.file(&slot);
            let seen = put_back::judge_written(fd, file, &slot);
            self.looked_at(&slot, seen);
            let place = self.hung.iter_mut().find(|place| place.is_none());
            if let (Some(child), Some(place)) = (hung, place) {
                *place = Some((slot.file, child));
            }
        }
        Some(false)
    }

    /// Whether a write of this file would only hang too.
    fn hangs(&self, file: u16) -> bool {
        self.hung.iter().all(Option::is_some)
            || self.hung.iter().flatten().any(|(at, _)| *at == file)
    }

    fn forget_ended(&mut self) {
        for hung in &mut self.hung {
            if hung
                .as_ref()
                .is_some_and(|(_, child)| child.ends_within(Duration::ZERO))
            {
                *hung = None;
            }
        }
    }

    fn file(&self, slot: &Slot<u16>) -> (RawFd, KnobFile) {
        let file = &self.files[usize::from(slot.file)];
        (file.fd, file.file)
    }

    /// The newest change that this round has not looked at.
    fn next(&self, which: Which) -> Option<Slot<u16>> {
        self.rest(which).next().map(|(slot, ..)| *slot)
    }

    /// All of them.
    fn rest(&self, which: Which) -> impl Iterator<Item = (&Slot<u16>, RawFd, KnobFile)> {
        let slots = self.table.iter().rev();
        slots.filter_map(move |slot| {
            let (fd, file) = self.file(slot);
            let looked_at = self.files[usize::from(slot.file)].round == self.round;
            (!looked_at && self.wanted(slot, which)).then_some((slot, fd, file))
        })
    }

    /// Those of them that a child can do something about.
    fn work(&self, which: Which) -> impl Iterator<Item = (&Slot<u16>, RawFd, KnobFile)> {
        self.rest(which).filter(|(slot, ..)| !self.hangs(slot.file))
    }

    /// Notes what this round found.
    fn looked_at(&mut self, slot: &Slot<u16>, seen: Seen) {
        let file = &mut self.files[usize::from(slot.file)];
        file.round = self.round;
        file.complete = matches!(seen, Seen::Closed(_));
        // What was restored once stays so for the journal, whatever is found later.
        if let Seen::Closed(how) = seen
            && file.done != Some(Close::Restored)
        {
            file.done = Some(how);
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
        let mut keep = [journal.dir.as_raw_fd()];
        // SAFETY: system calls on memory that the child has a copy of; nothing of it allocates or locks.
        let child = unsafe {
            fork::fork(&mut keep, || {
                let _ = journal.append(self.to_note(last));
            })
        };
        match child {
            Ok(child) if child.ends_within(WRITE) => {}
            Ok(child) => child.kill(),
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
