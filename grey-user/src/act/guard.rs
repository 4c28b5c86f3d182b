//! The guard: a tiny process that takes changes back when their controller is gone, hung, or their lease is over.

use std::os::fd::OwnedFd;
use std::time::Duration;

use grey_core::act::{Change, Fault};

/// What the guard is started with.
#[derive(Debug)]
pub struct Config<'a> {
    /// Where it notes what it undid.
    pub journal: &'a std::path::Path,
    /// See [`super::safety::Safety::hang`].
    pub hang: Duration,
}

/// The controller's end.
#[derive(Debug)]
pub struct Guard {}

impl Guard {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started: then nothing may be done.
    pub fn start(_config: &Config<'_>) -> Result<Guard, Fault> {
        Ok(Guard {})
    }

    /// Has it remember a change; `file` is open for reading and writing.
    ///
    /// # Errors
    /// Then the change must not be made.
    pub fn arm(
        &mut self,
        _id: u64,
        _step: u32,
        _change: &Change<'_>,
        _file: OwnedFd,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Has it undo an action's changes by itself after `lease` from now; `None` for never.
    ///
    /// # Errors
    /// It is lost.
    pub fn lease(&mut self, _id: u64, _lease: Option<Duration>) -> Result<(), Fault> {
        Ok(())
    }

    /// Has it forget.
    ///
    /// # Errors
    /// It is lost.
    pub fn release(&mut self, _id: u64, _step: Option<u32>) -> Result<(), Fault> {
        Ok(())
    }

    /// A heartbeat (sent when it is due), and whether it lives and has not taken over.
    ///
    /// # Errors
    /// [`Fault::GuardLost`], [`Fault::Revoked`].
    pub fn beat(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}
