//! The journal on disk.

use std::path::Path;

use grey_core::act::{Damage, Fault, Ledger, Record};

/// The journal, opened for writing, with the right to act.
#[derive(Debug)]
pub struct Journal {}

/// Why a journal cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process acts.
    #[error("another grey-ebpf (pid {0}) is acting")]
    Held(u32),
    /// Its folder or file cannot be used.
    #[error("{path}: {fault}")]
    File {
        /// The file.
        path: String,
        /// Why.
        fault: Fault,
    },
}

impl Journal {
    /// Takes the journal in `dir` (made if missing), waiting a moment for another process to let go of it.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(_dir: &Path) -> Result<(Journal, Ledger, Damage), JournalError> {
        Ok((Journal {}, Ledger::default(), Damage::default()))
    }

    /// Appends and syncs.
    ///
    /// # Errors
    /// Then the record may be torn or whole on disk.
    pub fn append(&mut self, _record: &Record) -> Result<(), Fault> {
        Ok(())
    }
}
