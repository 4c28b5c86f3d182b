//! The world an action changes: kernel files, journal and guard of this machine.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use grey_core::act::{Change, Fault, Knob, Record, Value, World};
use rustix::fs::OFlags;

use super::super::files;
use super::super::guard::Guard;
use super::super::journal::Journal;
use super::super::scene::Scene;
use super::super::watchdog::{Trip, Watchdog};
use super::super::writer::{self, Wait};
use super::stopped;

/// Kernel files, journal and guard of this machine.
#[derive(Debug)]
pub struct Real {
    pub(super) scene: Rc<Scene>,
    pub(super) journal: Journal,
    /// None where nothing but undoing is done.
    pub(super) guard: Option<Guard>,
    pub(super) watchdog: Option<Watchdog>,
    pub(super) trip: Option<Trip>,
    /// How long the next change of a knob may take, where that is longer than usual; it can be broken off then.
    pub(super) patience: Option<Duration>,
}

impl Real {
    /// The guard hears from us, the watchdog looks.
    pub(super) fn tick(&mut self) -> Result<(), Fault> {
        if let Some(guard) = &mut self.guard {
            guard.beat()?;
        }
        if self.trip.is_none()
            && let Some(watchdog) = &mut self.watchdog
        {
            self.trip = watchdog.look(&self.scene.safety.watchdog);
        }
        Ok(())
    }

    pub(super) fn write_file(
        &mut self,
        file: OwnedFd,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<usize, Fault> {
        let mut trouble = None;
        let written = writer::write(file, bytes, timeout, &mut || {
            trouble = self.tick().err();
            if trouble.is_some() || self.trip.is_some() || stopped() {
                Wait::Stop
            } else {
                Wait::On
            }
        });
        match trouble {
            Some(fault) => Err(fault),
            None => written,
        }
    }
}

impl World for Real {
    fn read(&mut self, knob: &Knob) -> Result<Value, Fault> {
        files::read(&self.scene.host, &self.scene.cgroups, knob)
    }

    fn write(&mut self, knob: &Knob, expected: &Value, value: &Value) -> Result<(), Fault> {
        let scene = Rc::clone(&self.scene);
        let file = files::open(&scene.host, &scene.cgroups, knob, OFlags::RDWR)?;
        if files::content(knob, &file)? != *expected {
            return Err(Fault::Changed);
        }
        let bytes = value.as_str().as_bytes();
        let written = if let Some(patience) = self.patience.take() {
            self.write_file(file, bytes, patience)?
        } else {
            // What puts things right is not broken off by a request to end.
            let timeout = self.scene.safety.write_timeout;
            writer::write(file, bytes, timeout, &mut || {
                let _ = self.tick();
                Wait::On
            })?
        };
        if written == bytes.len() {
            Ok(())
        } else {
            Err(Fault::Other(format!("only {written} bytes were taken")))
        }
    }

    fn append(&mut self, record: &Record) -> Result<(), Fault> {
        self.journal.append(record)
    }

    fn arm(&mut self, id: u64, step: u32, change: &Change<'_>) -> Result<(), Fault> {
        let scene = Rc::clone(&self.scene);
        let guard = self.guard.as_mut().ok_or(Fault::GuardLost)?;
        let file = files::open(&scene.host, &scene.cgroups, change.knob, OFlags::RDWR)?;
        guard.arm(id, step, change, file)
    }

    fn release(&mut self, id: u64, step: Option<u32>) -> Result<(), Fault> {
        match &mut self.guard {
            Some(guard) => guard.release(id, step),
            None => Ok(()),
        }
    }

    fn check(&mut self) -> Result<(), Fault> {
        match &mut self.guard {
            Some(guard) => guard.beat(),
            None => Ok(()),
        }
    }
}
