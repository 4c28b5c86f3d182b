//! How much memory the host of this virtual machine has left, from where the operator says: a file that something on the
//! host keeps up to date, or a command that asks. Read on a thread of its own; the caller never waits.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod command;
mod format;
#[cfg(test)]
mod tests;

pub use format::parse;

/// Windows' own tool, where WSL2 mounts it; a service has no other way to find it.
const POWERSHELL: &str = "/mnt/c/Windows/System32/WindowsPowerShell/v1.0/powershell.exe";
/// Both figures are in KiB (`Win32_OperatingSystem` of Microsoft's CIM reference).
const ASK_WINDOWS: &str = "$o = Get-CimInstance Win32_OperatingSystem; '{0}K {1}K' -f $o.FreePhysicalMemory, $o.TotalVisibleMemorySize";

/// Bounds of the time between two readings.
pub const LEAST_EVERY: Duration = Duration::from_secs(1);
/// See [`LEAST_EVERY`].
pub const MOST_EVERY: Duration = Duration::from_secs(3600);
/// Bounds of a command's time.
pub const LEAST_TIMEOUT: Duration = Duration::from_millis(100);
/// See [`LEAST_TIMEOUT`].
pub const MOST_TIMEOUT: Duration = Duration::from_secs(60);
/// No more is read of a file or taken of a command.
const MOST_BYTES: usize = 4096;
const TOO_MUCH: &str = "says more than 4 KiB; one line with a number is expected";
/// After failures in a row it is asked less often, up to so many times the usual interval.
const MOST_PATIENCE: u32 = 16;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A program and its arguments, run without a shell.
    Command(Vec<OsString>),
}

impl Source {
    /// Asks Windows, from inside WSL2.
    #[must_use]
    pub fn windows() -> Source {
        let words = [
            POWERSHELL,
            "-NoProfile",
            "-NonInteractive",
            "-Command",
            ASK_WINDOWS,
        ];
        Source::Command(words.into_iter().map(OsString::from).collect())
    }
}

/// What to ask, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whom.
    pub source: Source,
    /// Time between two readings, [`LEAST_EVERY`] to [`MOST_EVERY`].
    pub every: Duration,
    /// Time for a command, [`LEAST_TIMEOUT`] to [`MOST_TIMEOUT`]; then it is ended.
    pub timeout: Duration,
    /// All memory of the host, bytes, for a source that only tells what is available.
    pub total: Option<u64>,
}

impl Options {
    /// Every 15 s, with 5 s for a command.
    #[must_use]
    pub fn of(source: Source) -> Options {
        Options {
            source,
            every: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            total: None,
        }
    }
}

#[derive(Debug, Default)]
struct Latest {
    available_pct: Option<(f64, Instant)>,
    /// Why the last reading failed, until it is told.
    trouble: Option<String>,
    /// The last reading did not fail.
    well: bool,
    readings: u64,
}

/// The source as it is read.
#[derive(Debug)]
pub struct HostPressure {
    latest: Arc<Mutex<Latest>>,
    fresh: Duration,
    stop: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    stopped: Arc<command::Stop>,
}

impl HostPressure {
    /// Begins to read; the first figure is there when the source has answered.
    ///
    /// # Errors
    /// No more descriptors or threads. A source that cannot be read is no error here but [`HostPressure::trouble`].
    pub fn start(options: Options) -> io::Result<HostPressure> {
        let options = Options {
            every: options.every.clamp(LEAST_EVERY, MOST_EVERY),
            timeout: options.timeout.clamp(LEAST_TIMEOUT, MOST_TIMEOUT),
            ..options
        };
        HostPressure::run(options)
    }

    fn run(options: Options) -> io::Result<HostPressure> {
        let latest = Arc::new(Mutex::new(Latest::default()));
        let stopped = Arc::new(command::Stop::new()?);
        let (stop, stopping) = channel();
        // Three readings may fail before what was last known is taken for nothing.
        let fresh = options.every * 3 + options.timeout;
        let thread = {
            let (latest, stopped) = (Arc::clone(&latest), Arc::clone(&stopped));
            std::thread::Builder::new()
                .name("host-pressure".to_owned())
                .spawn(move || {
                    let mut patience = 1;
                    loop {
                        let read = read(&options, &stopped);
                        patience = match read {
                            Ok(_) => 1,
                            Err(_) => MOST_PATIENCE.min(patience * 2),
                        };
                        keep(&mut lock(&latest), read);
                        match stopping.recv_timeout(options.every * patience) {
                            Err(RecvTimeoutError::Timeout) => {}
                            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                        }
                    }
                })?
        };
        Ok(HostPressure {
            latest,
            fresh,
            stop: Some(stop),
            thread: Some(thread),
            stopped,
        })
    }

    /// Percent of the host's memory that is available. `None` until the first answer, and when there was none for too
    /// long.
    #[must_use]
    pub fn available_pct(&self) -> Option<f64> {
        let (pct, at) = lock(&self.latest).available_pct?;
        (at.elapsed() <= self.fresh).then_some(pct)
    }

    /// Why the last reading failed, if that was not told yet.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.latest).trouble.take()
    }

    /// Whether the last reading was one.
    #[must_use]
    pub fn is_well(&self) -> bool {
        lock(&self.latest).well
    }

    /// How often the source was read, well or not.
    #[must_use]
    pub fn readings(&self) -> u64 {
        lock(&self.latest).readings
    }
}

impl Drop for HostPressure {
    fn drop(&mut self) {
        // A command that runs is ended.
        self.stopped.stop();
        drop(self.stop.take());
        // A file system that hangs keeps its thread, which must not keep us: it has nothing left to undo.
        if let Some(thread) = self.thread.take() {
            let end = Instant::now() + Duration::from_secs(1);
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn lock(latest: &Mutex<Latest>) -> MutexGuard<'_, Latest> {
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(latest: &mut Latest, read: Result<f64, String>) {
    latest.readings += 1;
    latest.well = read.is_ok();
    match read {
        Ok(pct) => {
            latest.available_pct = Some((pct, Instant::now()));
            latest.trouble = None;
        }
        Err(why) => latest.trouble = Some(why),
    }
}

fn read(options: &Options, stop: &command::Stop) -> Result<f64, String> {
    let (name, text) = match &options.source {
        Source::File(path) => (path.display().to_string(), file(path)),
        Source::Command(words) => (
            words
                .first()
                .map_or_else(String::new, |word| word.display().to_string()),
            command::run(words, options.timeout, stop),
        ),
    };
    text.and_then(|text| parse(&text, options.total))
        .map_err(|why| format!("{name}: {why}"))
}

/// A regular file only: opening a pipe or a device can wait for ever, or do something.
fn file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use rustix::fs::{Mode, OFlags};
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
    let file = std::fs::File::from(open.map_err(|error| error.to_string())?);
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mut text = Vec::new();
    file.take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    match text.len() {
        0..=MOST_BYTES => Ok(text),
        _ => Err(TOO_MUCH.to_owned()),
    }
}
