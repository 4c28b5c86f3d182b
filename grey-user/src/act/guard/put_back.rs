//! One change put back: looked at, written, looked at again; and a child that does it for many, since a write may hang.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use grey_core::act::{Close, KnobFile, Slot, Text, Verdict, undo};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::held::SLOTS;
use crate::act::fork::{self, Forked};

/// How long a child that was ended may take to be gone.
const ENDING: Duration = Duration::from_millis(100);
/// Tries of a write that is interrupted.
const TRIES: u32 = 5;

/// What a look at a file comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// There is nothing to put back (any more).
    Closed(Close),
    /// It holds what we wrote.
    Ours,
    /// It cannot be told.
    Unknown,
}

/// What there is to do about a change. Reads only.
pub(super) fn judge(fd: RawFd, file: KnobFile, slot: &Slot<u16>) -> Seen {
    let mut buffer = [0; 256];
    let read = loop {
        match rustix::io::pread(borrow(fd), &mut buffer, 0) {
            Err(Errno::INTR) => {}
            read => break read,
        }
    };
    let current = match read {
        Ok(len) => file.canonical(&buffer[..len]),
        Err(Errno::NODEV | Errno::NOENT) => return Seen::Closed(Close::Gone),
        Err(_) => None,
    };
    let Some(current) = current else {
        return Seen::Unknown;
    };
    let leaves = slot.leaves.as_ref().map(Text::bytes);
    match undo(current, slot.old.bytes(), slot.new.bytes(), leaves) {
        Verdict::Back => Seen::Closed(Close::Back),
        Verdict::Foreign => Seen::Closed(Close::Foreign),
        Verdict::Restore => Seen::Ours,
    }
}

/// As [`judge`], and writes the old value where it belongs.
pub(super) fn put_back(fd: RawFd, file: KnobFile, slot: &Slot<u16>) -> Seen {
    let seen = judge(fd, file, slot);
    if seen != Seen::Ours {
        return seen;
    }
    for _ in 0..TRIES {
        let written = rustix::io::pwrite(borrow(fd), slot.old.bytes(), 0);
        if !matches!(written, Err(Errno::INTR)) {
            break;
        }
    }
    judge_written(fd, file, slot)
}

/// As [`judge`], after a write: one that failed or was cut short may have set the value all the same.
pub(super) fn judge_written(fd: RawFd, file: KnobFile, slot: &Slot<u16>) -> Seen {
    match judge(fd, file, slot) {
        Seen::Closed(Close::Back) => Seen::Closed(Close::Restored),
        seen => seen,
    }
}

fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the callers hold the entry that owns this descriptor.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// What a child says.
pub(super) enum Report {
    /// What it made of the change whose file has this number.
    Seen(u16, Seen),
    /// It has ended.
    Over,
    /// It hangs.
    Late,
}

/// A child that puts changes back, one after the other.
pub(super) struct Child {
    process: Forked,
    reports: OwnedFd,
}

impl Child {
    /// Starts it over these; `fds` are their files.
    ///
    /// # Errors
    /// There is no room for another process.
    pub(super) fn start<'a>(
        fds: impl Iterator<Item = RawFd>,
        work: impl Iterator<Item = (&'a Slot<u16>, RawFd, KnobFile)>,
    ) -> Result<Child, Errno> {
        let (reports, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let mut keep = [-1; SLOTS + 1];
        for (place, fd) in keep.iter_mut().zip(fds.chain([to.as_raw_fd()])) {
            *place = fd;
        }
        // SAFETY: system calls on memory that the child has a copy of; nothing of it allocates, locks or panics.
        let process = unsafe {
            fork::fork(&mut keep, || {
                for (slot, fd, file) in work {
                    let [low, high] = slot.file.to_ne_bytes();
                    let report = [low, high, code(put_back(fd, file, slot))];
                    let _ = rustix::io::write(&to, &report);
                }
            })
        }?;
        Ok(Child { process, reports })
    }

    /// What it says next. It is ended where that takes longer than this.
    pub(super) fn report(&self, time: Duration) -> Report {
        let mut report = [0; 3];
        if !fork::readable(&self.reports, time) {
            self.process.kill();
            return Report::Late;
        }
        match rustix::io::read(&self.reports, &mut report) {
            Ok(3) => {
                let [low, high, code] = report;
                Report::Seen(u16::from_ne_bytes([low, high]), seen(code))
            }
            _ => Report::Over,
        }
    }

    /// Gives it a moment to be gone; returned is one that is not.
    pub(super) fn end(self) -> Option<Forked> {
        (!self.process.ends_within(ENDING)).then_some(self.process)
    }
}

const CODES: [Seen; 6] = [
    Seen::Unknown,
    Seen::Ours,
    Seen::Closed(Close::Restored),
    Seen::Closed(Close::Back),
    Seen::Closed(Close::Foreign),
    Seen::Closed(Close::Gone),
];

fn code(seen: Seen) -> u8 {
    CODES.iter().position(|one| *one == seen).unwrap_or(0) as u8
}

fn seen(code: u8) -> Seen {
    CODES
        .get(usize::from(code))
        .copied()
        .unwrap_or(Seen::Unknown)
}
