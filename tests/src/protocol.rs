//! What the guest tells the host, as RFC 7464 JSON text sequences: a record separator, one JSON object, a newline.
//! Bytes between such records are the raw output of a command.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use serde_json::Value;

/// Names the file that records go to: the results port in a VM, a plain file in a native run.
pub(crate) const RESULTS_ENV: &str = "GREY_RESULTS";

/// The record separator that begins each message.
const RS: char = '\u{1e}';

/// Where records go, if anyone listens.
pub(crate) struct Results(Option<File>);

impl Results {
    /// The sink named by [`RESULTS_ENV`]; records go nowhere without it.
    pub(crate) fn from_env() -> Self {
        Self(std::env::var_os(RESULTS_ENV).and_then(|path| Self::open(path.as_ref()).ok()))
    }

    pub(crate) fn to_file(path: &std::path::Path) -> std::io::Result<Self> {
        Self::open(path).map(|file| Self(Some(file)))
    }

    fn open(path: &std::path::Path) -> std::io::Result<File> {
        // O_NOCTTY: a serial port must not become the controlling terminal and send us signals.
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
    }

    /// Sends one record in a single write, so that records of two processes do not mix.
    pub(crate) fn send(&self, record: &Value) {
        if let Some(mut file) = self.0.as_ref() {
            // A lost record shows on the host as a missing result; there is nobody here to tell.
            let _ = file.write_all(format!("{RS}{record}\n").as_bytes());
        }
    }
}
