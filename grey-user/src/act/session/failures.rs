//! What the errors of acting mean for a command: its exit code and one line.

use grey_core::act::{ActError, Fault};

use super::super::journal::JournalError;
use crate::cli::{Exit, Failure};

/// A refusal: exit 4.
#[must_use]
pub fn refused(message: impl Into<String>) -> Failure {
    Failure {
        exit: Exit::Refused,
        message: message.into(),
    }
}

/// What it means for a command that it cannot have the journal.
#[must_use]
pub fn journal_failed(error: &JournalError) -> Failure {
    match error {
        JournalError::Held(_) => refused(format!(
            "{error}; wait for its end, or end it: what it changed is taken back then"
        )),
        JournalError::File {
            fault: Fault::Denied,
            ..
        } => Failure::unsupported(format!(
            "journal {error}; run it as root, or name a folder of your own with --state-dir"
        )),
        JournalError::File { fault, .. } => {
            let remedy = match fault {
                Fault::Full => "make room",
                Fault::ReadOnly => "make it writable",
                _ => "put it right",
            };
            refused(format!(
                "journal {error}; nothing is changed without it: {remedy}, or name another folder with --state-dir"
            ))
        }
    }
}

/// What an action's error means for the exit code.
#[must_use]
pub fn act_failed(error: &ActError) -> Failure {
    let exit = match error {
        ActError::Journal(Fault::Denied) => Exit::Unsupported,
        ActError::Journal(_) | ActError::Guard(_) => Exit::Refused,
        ActError::Held { .. } | ActError::Overwritten { .. } => Exit::Refused,
        ActError::Read { fault, .. } | ActError::Write { fault, .. } => match fault {
            Fault::Denied | Fault::ReadOnly | Fault::Invalid(_) => Exit::Unsupported,
            _ => Exit::Failed,
        },
        ActError::TooMany => Exit::Usage,
    };
    let remedy = match error {
        ActError::Journal(_) => "; nothing was changed",
        ActError::Read {
            fault: Fault::Gone, ..
        } => "; the cgroup was removed, or this kernel has no such file",
        ActError::Write {
            fault: Fault::Denied,
            ..
        } => "; run it as root",
        _ => "",
    };
    Failure {
        exit,
        message: format!("{error}{remedy}"),
    }
}
