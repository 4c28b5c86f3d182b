//! The user side of grey-ebpf as a library; the binary of the same name is a few lines over it.

pub mod act;
pub mod alert;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod diagnose;
pub mod doctor;
pub mod enforce;
pub mod export;
pub mod host;
pub mod probe;
pub mod profile;
pub mod record;
pub mod replay;
pub mod rollback;
pub mod run;
pub mod snapshot;
pub mod source;
pub mod state;
pub mod ui;
pub mod watch;
