//! The stream of the daemon: NDJSON on stdout, and a recording of all of it where one is asked for.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::path::Path;

use grey_core::event::{Body, Cgroup, Event, SCHEMA};
use grey_core::time::Timestamp;

use crate::cli::{self, Failure};
use crate::export::{Ndjson, Recording};

pub(super) struct Lines {
    out: Ndjson<BufWriter<Stdout>>,
    samples: bool,
    recording: Option<Recording>,
    host: String,
    boot_id: Option<String>,
    seq: u64,
}

impl Lines {
    pub(super) fn new(
        samples: bool,
        record: Option<&Path>,
        host: &str,
        boot_id: Option<&str>,
    ) -> Result<Lines, Failure> {
        let recording = match record {
            Some(path) => {
                let mut recording = Recording::open(path)
                    .and_then(|mut file| file.begin().map(|()| file))
                    .map_err(|error| {
                        Failure::usage(format!("--record {}: {error}", path.display()))
                    })?;
                let _ = recording.flush();
                Some(recording)
            }
            None => None,
        };
        Ok(Lines {
            out: Ndjson::new(BufWriter::new(io::stdout())),
            samples,
            recording,
            host: host.to_owned(),
            boot_id: boot_id.map(str::to_owned),
            seq: 0,
        })
    }

    /// An event of our own making.
    pub(super) fn event(&self, ts: Timestamp, cgroup: Option<Cgroup>, body: Body) -> Event {
        Event {
            schema: SCHEMA.to_owned(),
            ts,
            seq: 0,
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            cgroup,
            lossy: false,
            body,
        }
    }

    /// Writes an event, which gets its number in this stream. False when nobody reads any more.
    pub(super) fn write(&mut self, event: &mut Event) -> Result<bool, Failure> {
        event.seq = self.seq;
        if let Some(recording) = &mut self.recording
            && let Err(error) = recording.write(event)
        {
            cli::tell(&format!(
                "--record {}: {error}; it ends here",
                recording.path().display()
            ));
            self.recording = None;
        }
        let shown = self.samples || !matches!(event.body, Body::Sample(_) | Body::Process { .. });
        if !shown {
            return Ok(true);
        }
        self.seq += 1;
        match self.out.write(event) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(cli::stdout_failed(&error)),
        }
    }

    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        if let Some(recording) = &mut self.recording {
            let _ = recording.flush();
        }
        match self.out.flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(cli::stdout_failed(&error)),
        }
    }

    /// Ends the recording.
    pub(super) fn finish(mut self) {
        let _ = self.out.flush();
        let _ = io::stdout().flush();
        if let Some(recording) = self.recording.take() {
            let path = recording.path().to_owned();
            if let Err(error) = recording.finish() {
                cli::tell(&format!("--record {}: {error}", path.display()));
            }
        }
    }
}
