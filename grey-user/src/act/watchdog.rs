//! The watchdog: looks at what an action does to its target and the machine. The rules are [`grey_core::act::watchdog`]'s.

use std::time::{Duration, Instant};

use grey_core::act::Ledger;
use grey_core::act::cooldown::{self, Cooling};
use grey_core::act::watchdog::{Thresholds, Watch};
use grey_core::time::Timestamp;
use grey_core::units::format_duration_us;
use grey_core::view::printable;

pub use grey_core::act::watchdog::Trip;

use crate::cli::{self, Failure};

use super::safety::Safety;
use super::scene::{Scene, Target};
use super::session::{now_ms, refused};

mod eyes;
#[cfg(test)]
mod tests;

use eyes::Eyes;
pub use eyes::Off;

/// A look-out over one action.
#[derive(Debug)]
pub struct Watchdog {
    eyes: Eyes,
    watch: Watch,
    last: Instant,
}

impl Watchdog {
    /// Takes the figures before the action.
    #[must_use]
    pub fn new(scene: &Scene, target: Option<&Target>) -> Watchdog {
        let mut eyes = Eyes::open(scene, target);
        let start = eyes.read();
        Watchdog {
            watch: Watch::new(eyes.subject(), start),
            eyes,
            last: Instant::now(),
        }
    }

    /// Looks, if it is time to.
    pub fn look(&mut self, thresholds: &Thresholds) -> Option<Trip> {
        if self.last.elapsed() < thresholds.every {
            return None;
        }
        self.look_now(thresholds)
    }

    /// Looks at once.
    pub fn look_now(&mut self, thresholds: &Thresholds) -> Option<Trip> {
        let reading = self.eyes.read();
        self.last = Instant::now();
        self.watch.look(&reading, thresholds)
    }

    /// The rules that rest because this machine or this cgroup does not have their file.
    #[must_use]
    pub fn off(&self) -> &[Off] {
        self.eyes.off()
    }
}

/// Whether an action may be taken again after the harm that followed it, and `drop_caches` after the last one.
///
/// # Errors
/// Not yet (exit 4).
pub fn cooled_down(
    ledger: &Ledger,
    safety: &Safety,
    kind: &str,
    target: &str,
    force: bool,
) -> Result<(), Failure> {
    let now = now_ms();
    let Some(refusal) = not_yet(ledger, safety, kind, target, now) else {
        return Ok(());
    };
    if force {
        cli::tell(&format!("{refusal}; done all the same (--force)"));
        return Ok(());
    }
    Err(refused(format!("{refusal}; --force does it now")))
}

/// Why an action may not be taken yet.
fn not_yet(ledger: &Ledger, safety: &Safety, kind: &str, target: &str, now: u64) -> Option<String> {
    let lookback = ledger.lookback(kind, target)?;
    let told = printable(target);
    let until = |cooling: Cooling| {
        let at = Timestamp((now.saturating_add(cooling.left.as_millis() as u64) * 1000) as i64);
        format!("allowed again in {} ({at})", time(cooling.left))
    };
    if let Some(harm) = &lookback.harm
        && let Some(cooling) = cooldown::after_harm(harm, safety.cooldown, safety.cooldown_max, now)
    {
        return Some(format!(
            "{kind} {told}: cools down for {} after harm ({} in a row; the last: {}); {}",
            time(cooling.length),
            harm.count,
            printable(&harm.why),
            until(cooling)
        ));
    }
    if is_drop_caches(kind)
        && target == "machine"
        && let Some(last) = lookback.last
        && let Some(cooling) = cooldown::cooling(last, safety.drop_caches_every, now)
    {
        return Some(format!(
            "{kind} {told}: at most once in {}; {}",
            time(cooling.length),
            until(cooling)
        ));
    }
    None
}

fn is_drop_caches(kind: &str) -> bool {
    matches!(kind, "drop_caches" | "drop-caches")
}

fn time(time: Duration) -> String {
    format_duration_us(time.as_micros() as u64)
}
