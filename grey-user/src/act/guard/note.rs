//! The guard's lines in the journal: `Closed` records, made without allocation, one append each.

use std::os::fd::OwnedFd;
use std::time::Duration;

use grey_core::act::{Close, record};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::wire::Name;

/// `{"r":"closed","id":18446744073709551615,"step":4294967295,"how":"other_boot"}` and what is around it.
const LINE: usize = 128;

/// How often it is tried to have it for ourselves, and how far apart: 300 ms in all.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(10);

/// Where the journal is. It is opened anew each time: another file may have taken its place.
#[derive(Debug)]
pub(super) struct Journal {
    pub dir: OwnedFd,
    pub name: Name,
}

/// A record as a line.
pub(super) struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Line {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    /// `Record::Closed`, as [`record::encode`] writes it. With `newline` it begins a line of its own.
    pub(super) fn closed(id: u64, step: u32, how: Close, newline: bool) -> Line {
        let empty = || Line {
            bytes: [0; LINE],
            len: 0,
        };
        let mut json = empty();
        json.put(br#"{"r":"closed","id":"#);
        json.number(id);
        json.put(br#","step":"#);
        json.number(u64::from(step));
        json.put(br#","how":""#);
        json.put(match how {
            Close::Restored => b"restored",
            Close::Back => b"back",
            Close::Never => b"never",
            Close::Foreign => b"foreign",
            Close::Covered => b"covered",
            Close::Gone => b"gone",
            Close::OtherBoot => b"other_boot",
        });
        json.put(br#""}"#);
        let mut line = empty();
        if newline {
            line.put(b"\n");
        }
        line.put(record::MAGIC.as_bytes());
        line.put(b" ");
        let sum = crc32fast::hash(json.bytes());
        for shift in (0..8).rev() {
            let digit = (sum >> (shift * 4)) & 15;
            line.put(&[b"0123456789abcdef"[digit as usize]]);
        }
        line.put(b" ");
        line.put(json.bytes());
        line.put(b"\n");
        line
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Journal {
    /// Appends these, each in one write, and has them on disk.
    ///
    /// # Errors
    /// Some may be missing; what was undone stays undone.
    pub(super) fn append(
        &self,
        closed: impl Iterator<Item = (u64, u32, Close)>,
    ) -> Result<(), Errno> {
        let file = self.open_in_turn()?;
        let end = rustix::fs::seek(&file, SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if let Some(at) = end.checked_sub(1) {
            rustix::io::pread(&file, &mut last, at)?;
        }
        let mut torn = last != *b"\n";
        for (id, step, how) in closed {
            let line = Line::closed(id, step, how, torn);
            torn = rustix::io::write(&file, line.bytes())? != line.bytes().len();
        }
        rustix::fs::fdatasync(&file)
    }

    /// Opened and locked, and still the journal then: a compaction puts another file in its place. One that is held by
    /// somebody who was stopped is written to all the same: each record is one append.
    fn open_in_turn(&self) -> Result<OwnedFd, Errno> {
        // A file that is gone is not made anew: nothing would be known of what it closes.
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut tries = 0;
        loop {
            let file = rustix::fs::openat(&self.dir, self.name.bytes(), flags, Mode::empty())?;
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            let still = rustix::fs::fstat(&file)?.st_ino == self.stat()?.st_ino;
            if (locked && still) || tries == TRIES {
                return Ok(file);
            }
            tries += 1;
            crate::act::fork::pause(PAUSE);
        }
    }

    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.dir, self.name.bytes(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether it is there.
    pub(super) fn exists(&self) -> bool {
        self.stat().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_core::act::{Record, decode_all, encode};

    const ALL: [Close; 7] = [
        Close::Restored,
        Close::Back,
        Close::Never,
        Close::Foreign,
        Close::Covered,
        Close::Gone,
        Close::OtherBoot,
    ];

    #[test]
    fn its_lines_are_those_of_the_journal() {
        for how in ALL {
            for (id, step) in [(0, 0), (1, 10), (u64::MAX, u32::MAX)] {
                let line = encode(&Record::Closed { id, step, how });
                assert_eq!(Line::closed(id, step, how, false).bytes(), line);
                assert_eq!(Line::closed(id, step, how, true).bytes()[1..], line);
            }
        }
    }

    #[test]
    fn a_torn_tail_does_not_swallow_its_record() {
        let dir = std::env::temp_dir().join(format!("grey-note-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let kept = Record::Kept { id: 4 };
        let mut bytes = encode(&kept);
        bytes.extend_from_slice(b"g1 00000000 {\"r\":\"int");
        std::fs::write(dir.join("journal"), bytes).unwrap();
        let journal = Journal {
            dir: std::fs::File::open(&dir).unwrap().into(),
            name: Name::new(b"journal").unwrap(),
        };
        journal
            .append([(4, 0, Close::Restored), (4, 1, Close::Back)].into_iter())
            .unwrap();
        let (records, damage) = decode_all(&std::fs::read(dir.join("journal")).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        let closed = |step, how| Record::Closed { id: 4, step, how };
        assert_eq!(
            records,
            [kept, closed(0, Close::Restored), closed(1, Close::Back)]
        );
        assert_eq!((damage.lines, damage.torn), (1, false));
    }
}
