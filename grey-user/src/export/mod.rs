//! Where events go: NDJSON on stdout, a record file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use grey_core::event::Event;

/// NDJSON into any writer: one line an event, nothing else.
pub struct Ndjson<W: Write> {
    out: W,
    /// The line being made: it is handed on whole, so that a kill between two writes leaves whole lines.
    line: Vec<u8>,
}

impl<W: Write> Ndjson<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Ndjson {
            out,
            line: Vec::new(),
        }
    }

    /// Writes one line.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }

    /// Passes on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that keeps the stream, gzip'd where its name ends in `.gz`.
pub struct Recording {
    sink: Sink,
    path: PathBuf,
}

enum Sink {
    Plain(Ndjson<BufWriter<File>>),
    Gzip(Ndjson<GzEncoder<BufWriter<File>>>),
}

impl Recording {
    /// Opens the file, or makes it. What it holds already stays until [`Recording::begin`].
    pub fn open(path: &Path) -> io::Result<Recording> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let file = BufWriter::new(file);
        let sink = if path.extension().is_some_and(|extension| extension == "gz") {
            Sink::Gzip(Ndjson::new(GzEncoder::new(file, Compression::fast())))
        } else {
            Sink::Plain(Ndjson::new(file))
        };
        Ok(Recording {
            sink,
            path: path.to_owned(),
        })
    }

    /// Empties the file; before the first event.
    pub fn begin(&mut self) -> io::Result<()> {
        let file = self.file();
        // A pipe or a device has no length.
        match file.metadata()?.is_file() {
            true => file.set_len(0),
            false => Ok(()),
        }
    }

    fn file(&self) -> &File {
        match &self.sink {
            Sink::Plain(out) => out.out.get_ref(),
            Sink::Gzip(out) => out.out.get_ref().get_ref(),
        }
    }

    /// Bytes in the file so far; `None` for a pipe or a device.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        size(self.file())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one event.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        match &mut self.sink {
            Sink::Plain(out) => out.write(event),
            Sink::Gzip(out) => out.write(event),
        }
    }

    /// Puts what was added so far where a crash does not lose it. A gzip file is flushed to a point up to which it
    /// can be read.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Plain(out) => out.flush(),
            Sink::Gzip(out) => out.flush(),
        }
    }

    /// Ends the file and tells how large it has become; `None` for a pipe or a device.
    pub fn finish(self) -> io::Result<Option<u64>> {
        let mut file = match self.sink {
            Sink::Plain(out) => out.out,
            Sink::Gzip(out) => out.out.finish()?,
        };
        file.flush()?;
        Ok(size(file.get_ref()))
    }
}

fn size(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use grey_core::event::{Body, Process, SCHEMA};
    use grey_core::time::Timestamp;

    /// Keeps each write as it came.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn event(seq: u64) -> Event {
        Event {
            schema: SCHEMA.to_owned(),
            ts: Timestamp(0),
            seq,
            host: "n1".to_owned(),
            boot_id: None,
            cgroup: None,
            lossy: false,
            body: Body::Process {
                process: Process::default(),
            },
        }
    }

    /// A backend of flate2 held some of it back.
    #[test]
    fn everything_before_a_flush_of_a_gzip_file_can_be_read() {
        use std::io::Read as _;
        let path = std::env::temp_dir().join(format!("grey-export-{}.gz", std::process::id()));
        let mut record = Recording::open(&path).unwrap();
        record.begin().unwrap();
        for events in [20, 5000] {
            for seq in 0_u64..events {
                record
                    .write(&event(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                    .unwrap();
            }
            record.flush().unwrap();
        }
        let mut text = String::new();
        // No trailer yet, so an error comes at the end.
        let cut =
            flate2::read::GzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text);
        assert!(cut.is_err());
        assert_eq!(text.lines().count(), 5020);
        assert!(text.ends_with('\n'));
        let size = record.finish().unwrap();
        assert_eq!(size, Some(std::fs::metadata(&path).unwrap().len()));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_full_buffer_is_passed_on_in_whole_lines() {
        let mut out = Ndjson::new(BufWriter::with_capacity(1000, Writes::default()));
        for seq in 0..100 {
            out.write(&event(seq)).unwrap();
        }
        out.flush().unwrap();
        let writes = &out.out.get_ref().0;
        assert!(writes.len() > 5, "{} writes", writes.len());
        for bytes in writes {
            assert!(bytes.ends_with(b"\n"), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
