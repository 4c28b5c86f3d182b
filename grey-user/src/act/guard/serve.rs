//! The guard's loop: hears the controller, and acts when it is dead, hung, or a lease is over. Does not allocate.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::time::{ClockId, clock_gettime};

use super::held::{Held, Which};
use super::note::Journal;
use super::wire::{Ask, MAX, Reply};
use crate::act::fork::timespec;

/// How often it looks at files that were put back and might be written to once more.
const WATCH: u64 = 100;
/// If it was held up itself for this long, the controller gets [`GRACE`], once: both may have been.
const OVERSLEPT: u64 = 500;
const GRACE: u64 = 250;
/// How long a dead controller's helpers may take to be gone before the files are put back for the first time.
const HELPERS: u64 = 300;
/// How long files are looked at again and again after that.
const RECHECK: u64 = 1000;
/// How long it awaits a helper that hangs in the kernel, to look once more after its end.
const HANGING: u64 = 60_000;
/// How long it goes on trying what cannot be put back.
const TRYING: u64 = 5000;

/// The guard.
#[derive(Debug)]
pub(super) struct Serve {
    pub socket: OwnedFd,
    /// Readable when the controller has died; the socket's end tells of its helpers too.
    pub controller: Option<OwnedFd>,
    pub journal: Option<Journal>,
    /// Milliseconds.
    pub hang: u64,
    pub held: Held,
    pub revoked: bool,
}

/// What is left to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    /// The controller says that it is done.
    Bye,
    /// Nobody holds the other end any more.
    Closed,
}

/// Milliseconds, for what a controller does in its own time: stands still while the machine sleeps.
fn now() -> u64 {
    ms(ClockId::Monotonic)
}

/// Milliseconds, for leases: goes on while the machine sleeps.
fn lease_now() -> u64 {
    ms(ClockId::Boottime)
}

fn ms(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// A packet and the descriptors that came along.
pub(super) struct Packet {
    pub bytes: [u8; MAX],
    pub len: usize,
    pub files: [Option<OwnedFd>; 3],
}

/// The next packet; an empty one at the end.
///
/// # Errors
/// None is there, or the socket is broken.
pub(super) fn receive(socket: &OwnedFd) -> Result<Packet, Errno> {
    let mut packet = Packet {
        bytes: [0; MAX],
        len: 0,
        files: [None, None, None],
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet.bytes)],
        &mut control,
        flags,
    )?;
    packet.len = received.bytes;
    let mut place = packet.files.iter_mut();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            for file in files {
                if let Some(place) = place.next() {
                    *place = Some(file);
                }
            }
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        packet.bytes = [0; MAX];
    }
    Ok(packet)
}

impl Serve {
    /// Serves until the controller is done or dead and everything is as it was.
    pub(super) fn run(&mut self) {
        let (mut seen, mut graced, mut next) = (now(), 0, 0);
        loop {
            let line = self.hear(&mut seen);
            let dead = line == Line::Open && self.is_dead();
            if line != Line::Open || dead {
                // What it said last counts.
                let line = if dead { self.hear(&mut seen) } else { line };
                return self.end(line, dead);
            }
            let at = now();
            if !self.revoked && !self.held.is_empty() && at.saturating_sub(seen) > self.hang {
                self.revoked = true;
                // Before anything is put back: if it comes to now, it must not go on.
                self.tell(0, Reply::Revoked);
            }
            let which = if self.revoked {
                Which::All
            } else {
                Which::Due(lease_now())
            };
            if at >= next && self.held.any(which) {
                self.held.undo(which);
                self.held.note(self.journal.as_ref(), false);
                next = now() + WATCH;
            }
            let wait = self.next_wait(which, next, seen);
            let before = now();
            self.sleep(wait);
            let late = now().saturating_sub(before.saturating_add(wait.unwrap_or(u64::MAX)));
            if late > OVERSLEPT && graced != seen {
                seen = seen.max((now() + GRACE).saturating_sub(self.hang));
                graced = seen;
            }
        }
    }

    /// Milliseconds until something is to be done unasked.
    fn next_wait(&self, which: Which, next: u64, seen: u64) -> Option<u64> {
        let at = now();
        if self.held.any(which) {
            return Some(next.saturating_sub(at));
        }
        if self.held.is_empty() {
            return None;
        }
        let hung = (seen + self.hang + 1).saturating_sub(at);
        let due = self
            .held
            .next_due()
            .map(|due| due.saturating_sub(lease_now()));
        Some(due.map_or(hung, |due| hung.min(due)))
    }

    /// Until the time is over, or there is something to hear, or the controller has died.
    fn sleep(&self, wait: Option<u64>) {
        let time = wait.map(|ms| timespec(Duration::from_millis(ms)));
        let controller = self.controller.as_ref().unwrap_or(&self.socket);
        let mut fds = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(controller, PollFlags::IN),
        ];
        // Interrupted or not: the caller looks at everything.
        let _ = poll(&mut fds, time.as_ref());
    }

    fn is_dead(&self) -> bool {
        let Some(controller) = &self.controller else {
            return false;
        };
        crate::act::fork::readable(controller, Duration::ZERO)
    }

    fn tell(&self, seq: u32, reply: Reply) {
        // A controller that does not listen hears it with its next beat.
        let _ = send(
            &self.socket,
            &reply.encode(seq),
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        );
    }

    /// Takes in all that the controller has said.
    fn hear(&mut self, seen: &mut u64) -> Line {
        loop {
            match receive(&self.socket) {
                Ok(packet) if packet.len == 0 => return Line::Closed,
                Ok(packet) => {
                    *seen = now();
                    if self.take(packet) {
                        return Line::Bye;
                    }
                }
                // It died with answers of ours unread; what it said before comes next.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Line::Open,
                Err(_) => return Line::Closed,
            }
        }
    }

    /// Does what a packet says; true if it is the last.
    fn take(&mut self, packet: Packet) -> bool {
        let Packet { bytes, len, files } = packet;
        let Some((seq, ask)) = Ask::decode(&bytes[..len]) else {
            self.tell(0, Reply::Refused);
            return false;
        };
        let mut reply = Reply::Done;
        match ask {
            Ask::Hello { .. } => reply = Reply::Refused,
            Ask::Arm(arm) => {
                let [file, ..] = files;
                let armed = !self.revoked && file.is_some_and(|file| self.held.arm(&arm, file));
                if !armed {
                    reply = Reply::Refused;
                }
            }
            Ask::Lease { id, ms } => {
                let until = ms.map_or(u64::MAX, |ms| lease_now().saturating_add(ms));
                if !self.held.lease(id, until) {
                    reply = Reply::Expired;
                }
            }
            Ask::Release { id, step, linger } => {
                if self.held.over(id) {
                    reply = Reply::Expired;
                }
                if linger {
                    self.held.linger(id, step);
                } else {
                    self.held.release(id, step);
                }
            }
            Ask::Settle => {
                // The helper may have written since the last look.
                self.held.undo(Which::Due(0));
                self.held.settle();
            }
            Ask::Beat => {}
            Ask::Bye => return true,
        }
        self.tell(seq, if self.revoked { Reply::Revoked } else { reply });
        false
    }

    /// The controller is done or dead: puts everything back, and stays until no helper of its can write any more.
    fn end(&mut self, mut line: Line, dead: bool) {
        if self.held.is_empty() {
            return;
        }
        let start = now();
        let since = || now().saturating_sub(start);
        let mut seen = 0;
        while dead && line == Line::Open && since() < HELPERS {
            self.sleep_socket(HELPERS.saturating_sub(since()));
            line = self.hear(&mut seen);
        }
        let mut complete = self.held.undo(Which::All);
        self.held.note(self.journal.as_ref(), false);
        loop {
            let closed = line == Line::Closed;
            let limit = if closed { TRYING } else { HANGING };
            if (closed && complete) || since() >= limit {
                break;
            }
            let wait = if since() < RECHECK || !complete {
                WATCH / 2
            } else {
                RECHECK
            };
            if closed {
                crate::act::fork::pause(Duration::from_millis(wait));
            } else {
                self.sleep_socket(wait);
                line = self.hear(&mut seen);
            }
            let ended = !closed && line == Line::Closed;
            if ended || since() < RECHECK || !complete {
                complete = self.held.undo(Which::All);
            }
        }
        self.held.note(self.journal.as_ref(), true);
    }

    fn sleep_socket(&self, wait: u64) {
        crate::act::fork::readable(&self.socket, Duration::from_millis(wait));
    }
}
