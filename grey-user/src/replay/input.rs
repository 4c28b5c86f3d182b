//! Lines of a file or of stdin, plain or gzip'd, in bounded memory.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use super::gunzip::{Damage, Gunzip, MAGIC};

/// Bytes of a line beyond which it is no event of ours.
const LONGEST: usize = 1 << 20;
/// Bytes read at once.
const CHUNK: usize = 1 << 16;

/// What an input gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A line without its end.
    Line(&'a [u8]),
    /// A line of more than [`LONGEST`] bytes, which is not kept.
    TooLong,
}

/// One input.
pub(super) struct Input {
    /// How it was named.
    pub(super) name: String,
    /// Bytes that it has, where that can be known.
    pub(super) size: Option<u64>,
    /// What was wrong with it, and after how many lines.
    pub(super) damage: Vec<(Damage, u64)>,
    bytes: Bytes,
    consumed: Rc<Cell<u64>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Within a line that is too long.
    skipping: bool,
    lines: u64,
}

enum Bytes {
    Plain(Box<dyn Read>),
    Gzip(Box<Gunzip<Box<dyn Read>>>),
}

/// Counts what is read.
struct Counted<R>(R, Rc<Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(out)?;
        self.1.set(self.1.get() + n as u64);
        Ok(n)
    }
}

impl Input {
    /// Opens a file; `-` is stdin.
    pub(super) fn open(path: &Path) -> io::Result<Input> {
        if path == Path::new("-") {
            return Input::new("stdin".to_owned(), None, io::stdin().lock());
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let size = metadata.is_file().then_some(metadata.len());
        Input::new(path.display().to_string(), size, file)
    }

    /// Looks at the first two bytes to tell what it is: names lie.
    fn new(name: String, size: Option<u64>, reader: impl Read + 'static) -> io::Result<Input> {
        let consumed = Rc::new(Cell::new(0));
        let mut reader = Counted(reader, Rc::clone(&consumed));
        let mut head = Vec::with_capacity(MAGIC.len());
        (&mut reader)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut head)?;
        let gzip = head == MAGIC;
        let reader: Box<dyn Read> = Box::new(Cursor::new(head).chain(reader));
        Ok(Input {
            name,
            size,
            damage: Vec::new(),
            bytes: if gzip {
                Bytes::Gzip(Box::new(Gunzip::new(reader)))
            } else {
                Bytes::Plain(reader)
            },
            consumed,
            buffer: vec![0; 2 * CHUNK],
            start: 0,
            end: 0,
            skipping: false,
            lines: 0,
        })
    }

    /// Bytes read so far, as they stand in the file.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed.get()
    }

    /// Reads once and hands on each line that is whole by then. False at the end.
    ///
    /// # Errors
    /// Those of the file; damaged gzip is none.
    pub(super) fn read(&mut self, mut take: impl FnMut(Piece<'_>)) -> io::Result<bool> {
        self.make_room();
        let chunk = &mut self.buffer[self.end..];
        let length = chunk.len().min(CHUNK);
        let result = match &mut self.bytes {
            Bytes::Plain(reader) => reader.read(&mut chunk[..length]),
            Bytes::Gzip(gunzip) => gunzip.read(&mut chunk[..length]),
        };
        let n = match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            result => result?,
        };
        let fresh = self.end;
        self.end += n;
        // What was there before holds no end of line.
        for end in memchr::memchr_iter(b'\n', &self.buffer[fresh..self.end]) {
            let end = fresh + end;
            self.lines += 1;
            take(if std::mem::take(&mut self.skipping) {
                Piece::TooLong
            } else {
                Piece::Line(&self.buffer[self.start..end])
            });
            self.start = end + 1;
        }
        if let Bytes::Gzip(gunzip) = &mut self.bytes
            && let Some(damage) = gunzip.damage()
        {
            self.damage.push((damage, self.lines));
        }
        if n > 0 {
            return Ok(true);
        }
        if self.start < self.end || self.skipping {
            self.lines += 1;
            take(if std::mem::take(&mut self.skipping) {
                Piece::TooLong
            } else {
                Piece::Line(&self.buffer[self.start..self.end])
            });
            self.start = self.end;
        }
        Ok(false)
    }

    /// Room for a chunk behind the line that is not whole yet.
    fn make_room(&mut self) {
        if self.skipping {
            self.start = self.end;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end > LONGEST {
            self.skipping = true;
            self.end = 0;
        }
        if self.buffer.len() - self.end < CHUNK {
            let length = (2 * self.buffer.len()).min(LONGEST + 2 * CHUNK);
            self.buffer.resize(length, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Drops(Vec<u8>, usize, usize);

    impl Read for Drops {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(self.2).min(self.0.len() - self.1);
            out[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
            self.1 += n;
            Ok(n)
        }
    }

    fn lines(text: &[u8], drop: usize) -> Vec<Option<Vec<u8>>> {
        let mut input = Input::new("x".to_owned(), None, Drops(text.to_vec(), 0, drop)).unwrap();
        let mut lines = Vec::new();
        while input
            .read(|piece| {
                lines.push(match piece {
                    Piece::Line(line) => Some(line.to_vec()),
                    Piece::TooLong => None,
                });
            })
            .unwrap()
        {
            assert!(input.buffer.len() <= LONGEST + 2 * CHUNK);
        }
        assert_eq!(input.consumed(), text.len() as u64);
        assert_eq!(input.lines, lines.len() as u64);
        lines
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let text = b"one\n\ntwo\r\nthree";
        let want: Vec<Option<Vec<u8>>> = [&b"one"[..], b"", b"two\r", b"three"]
            .map(|line| Some(line.to_vec()))
            .to_vec();
        for drop in [1, 2, 3, 5, 100] {
            assert_eq!(lines(text, drop), want, "{drop}");
        }
        assert!(lines(b"", 1).is_empty());
        assert_eq!(lines(b"\x1f", 1), [Some(b"\x1f".to_vec())]);
    }

    #[test]
    fn a_line_without_end_takes_a_bounded_room_and_not_the_next_line() {
        let mut text = vec![b'x'; 3 * LONGEST];
        text.extend(b"\nshort\n");
        for drop in [997, usize::MAX] {
            assert_eq!(lines(&text, drop), [None, Some(b"short".to_vec())]);
        }
        assert_eq!(lines(&vec![b'x'; 3 * LONGEST], usize::MAX), [None]);
    }

    #[test]
    fn a_line_of_the_longest_kind_is_kept() {
        let line = vec![b'x'; LONGEST];
        let text = [&line[..], b"\ny"].concat();
        assert_eq!(lines(&text, 4096), [Some(line), Some(b"y".to_vec())]);
    }
}
