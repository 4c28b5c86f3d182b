//! `--state`: what the detector knows, taken up at the start, kept each minute, after verdicts and at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use grey_core::detect::Detector;

use crate::cli::{self, Failure};
use crate::source::{Kept, Observer};
use crate::state::{Loaded, Origin, StateFile};
use crate::watch::resident;

/// A crash loses this much of what was learned …
const EVERY: Duration = Duration::from_secs(60);
/// … and no verdict that is older than this.
const AFTER_VERDICT: Duration = Duration::from_secs(5);

/// The state file of a watch.
pub(crate) struct Keeper {
    file: StateFile,
    saved: Instant,
    /// Verdicts that had been told then.
    verdicts: u64,
    /// Whether the last write failed, which is told once.
    failing: bool,
    /// Whether what a write took for the moment is still to be given back.
    writing: bool,
}

impl Keeper {
    /// Takes up the state in the file at `path`, or begins anew and says why.
    pub(crate) fn open(path: &Path, observer: &mut Observer) -> Result<Keeper, Failure> {
        let origin = Origin {
            host: observer.host_name().to_owned(),
            boot_id: observer.boot_id().map(str::to_owned),
        };
        let shown = path.display();
        let unusable = |error: std::io::Error| {
            Failure::failed(format!(
                "--state {shown}: {error}; name a file in a folder you may write to"
            ))
        };
        let file = StateFile::open(path, origin).map_err(unusable)?;
        if !file.is_writer() {
            cli::tell(&format!(
                "--state {shown}: another grey-ebpf writes it; read at the start and not written here"
            ));
        }
        match file.load::<Kept>().map_err(unusable)? {
            Loaded::Good(kept) => observer.resume(kept),
            Loaded::Absent => observer.detect(Detector::new()),
            Loaded::Refused(why, moved) => {
                let moved =
                    moved.map_or(String::new(), |to| format!("; it is now {}", to.display()));
                cli::tell(&format!("--state {shown}: {why}; beginning anew{moved}"));
                observer.detect(Detector::new());
            }
        }
        Ok(Keeper {
            file,
            saved: Instant::now(),
            verdicts: 0,
            failing: false,
            writing: false,
        })
    }

    /// Keeps the state once a minute, and soon after a verdict. Returns what there is to tell.
    pub(crate) fn tick(&mut self, observer: &Observer) -> Option<String> {
        if self.writing && !self.file.is_writing() {
            self.writing = false;
            resident::give_back();
        }
        let due = match observer.verdicts() == self.verdicts {
            true => EVERY,
            false => AFTER_VERDICT,
        };
        if self.saved.elapsed() < due || !self.file.is_writer() {
            return None;
        }
        self.saved = Instant::now();
        self.verdicts = observer.verdicts();
        let result = self.file.save_soon(observer.keep()?);
        self.writing = true;
        let news = result.is_err() && !self.failing;
        self.failing = result.is_err();
        result
            .err()
            .filter(|_| news)
            .map(|error| self.failed(&error))
    }

    /// Keeps the state at the end. Returns what there is to tell.
    pub(crate) fn finish(&mut self, observer: &Observer) -> Option<String> {
        let result = self.file.save(&observer.keep()?);
        result.err().map(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!(
            "--state {}: cannot be written: {error}; the one before stays",
            self.file.path().display()
        )
    }
}
