//! Acting for real: kernel files, the journal on disk, the guard, the helper that writes, and the watchdog.
//!
//! [`scene`] is what is known before anything is touched; [`session`] is the right to act: it holds the lock, the
//! journal and the guard, and every change goes through it.

pub mod agent;
pub mod files;
mod fork;
pub mod guard;
pub mod journal;
pub mod measure;
pub mod protect;
pub mod safety;
pub mod scene;
pub mod session;
pub mod sync;
pub mod watchdog;
pub mod writer;

pub use scene::{Scene, Target};
pub use session::Session;
