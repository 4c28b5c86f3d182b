//! The watchdog: looks at what an action does to its target and the machine.

use grey_core::act::Ledger;

use crate::cli::Failure;

use super::safety::{Safety, Thresholds};
use super::scene::{Scene, Target};

/// Harm was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// `oom_kill`, `pressure`, `available`, `refaults`, `critical_service`.
    pub cause: &'static str,
    /// With figures, in words.
    pub text: String,
}

/// A look-out over one action.
#[derive(Debug)]
pub struct Watchdog {}

impl Watchdog {
    /// Takes the figures before the action.
    #[must_use]
    pub fn new(_scene: &Scene, _target: Option<&Target>) -> Watchdog {
        Watchdog {}
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, _thresholds: &Thresholds) -> Option<Trip> {
        None
    }
}

/// Whether an action may be taken again after the harm that followed it, and `drop_caches` after the last one.
///
/// # Errors
/// Not yet (exit 4).
pub fn cooled_down(
    _ledger: &Ledger,
    _safety: &Safety,
    _kind: &str,
    _target: &str,
    _force: bool,
) -> Result<(), Failure> {
    Ok(())
}
