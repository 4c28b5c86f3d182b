//! All points of an action, in several scenes at once, and what they come to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::point::{Blow, Point, Reached, Seen, strike};
use super::scene::{Action, Scene};
use super::tracee::pin;
use crate::harness::Outcome;
use crate::harness::timing::Latencies;
use crate::vm_enforce::cache::Files;

/// Which points are struck: every nth, from one on that differs between kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) every: usize,
    pub(crate) from: usize,
    /// After every nth landmark only: each costs a run, however few of the calls after it are struck at.
    pub(crate) stride: usize,
}

impl Choice {
    pub(crate) const ALL: Choice = Choice {
        every: 1,
        from: 0,
        stride: 1,
    };

    fn has(self, point: Point) -> bool {
        // 31 shares no divisor with any step in use: the calls after each landmark begin elsewhere.
        (point.call + 31 * point.landmark) % self.every == self.from % self.every
    }
}

/// One action at all its chosen points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    pub(crate) action: Action,
    pub(crate) choice: Choice,
    pub(crate) at_once: usize,
}

/// One sweep after the other; with GREY_ONLY=NAME those of actions alone that have it in their name.
pub(crate) fn sweep_all(blow: Blow, sweeps: Vec<Sweep>) -> Result<Outcome> {
    let mut swept = false;
    for it in sweeps {
        if it.action.is_asked_for() {
            sweep(it.action, blow, it.choice, it.at_once)?;
            swept = true;
        }
    }
    if swept {
        return Ok(Outcome::Passed);
    }
    Outcome::skipped("no action of this test has GREY_ONLY in its name")
}

/// What a sweep came to.
#[derive(Default)]
struct Tally {
    struck: usize,
    /// Gaps between two calls that they stand for.
    gaps: usize,
    in_force: usize,
    kept: usize,
    latencies: Latencies,
    /// How long it took to get to a point, microseconds.
    led: Latencies,
}

impl Tally {
    fn add(&mut self, seen: &Seen, from: usize) {
        // Also those before the next landmark that are the same as an earlier one.
        self.gaps += match seen.reached {
            Reached::Point => seen.call + 1 - from,
            Reached::NextLandmark => seen.call.saturating_sub(from),
            Reached::End => 0,
        };
        if seen.reached == Reached::Point {
            self.struck += 1;
            self.led.add(seen.led.as_micros() as i64);
            self.in_force += usize::from(seen.in_force);
            self.kept += usize::from(seen.kept);
        }
        if let Some(back) = seen.back {
            self.latencies.add(back.as_micros() as i64);
        }
    }
}

/// Strikes at the chosen points of an action and tells what came of it. The calls after each landmark are gone through
/// until the next landmark comes instead: none is left out because one run makes fewer calls than another.
fn sweep(action: Action, blow: Blow, choice: Choice, at_once: usize) -> Result<()> {
    if let Some(why) = action.lacks()? {
        println!("{}, {}: {why}", action.name(), blow.name());
        return Ok(());
    }
    let start = Instant::now();
    let files = if action == Action::Reclaim {
        Some(Files::new()?)
    } else {
        None
    };
    let tally = Mutex::new(Tally::default());
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |worker: usize| -> Result<()> {
        pin(worker % 2)?;
        let mut scene = Scene::new(action, &worker.to_string())?;
        if let Some(files) = &files {
            scene.reads(files.file("cache", 16 << 20)?);
        }
        while !over.load(Ordering::Relaxed) {
            let landmark = next.fetch_add(1, Ordering::Relaxed);
            if landmark % choice.stride != choice.from % choice.stride {
                continue;
            }
            let mut call = 0;
            loop {
                let point = Point { landmark, call };
                if !choice.has(point) {
                    call += 1;
                    continue;
                }
                let seen = strike(&scene, blow, point)
                    .inspect_err(|_| over.store(true, Ordering::Relaxed))
                    .with_context(|| format!("{}, {}, {point:?}", action.name(), blow.name()))?;
                tally
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(&seen, call);
                if seen.reached == Reached::End {
                    over.store(true, Ordering::Relaxed);
                }
                if seen.reached != Reached::Point {
                    break;
                }
                call = seen.call + 1;
            }
        }
        Ok(())
    };
    let workers = action.at_once(at_once);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let mut first = Ok(());
        for thread in threads {
            let done = thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a worker panicked"));
            if first.is_ok() {
                first = done;
            }
        }
        first
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A part of the landmarks may lie beside what is in force.
    ensure!(
        tally.in_force > 0 || choice.stride > 1,
        "{}: nothing was ever in force",
        action.name()
    );
    println!(
        "{}, {}: {} points for {} gaps (one of {}), {} with changes in force, {} kept; back after {} us (median), {} us (max); led there in {} us (median); {:.1} s",
        action.name(),
        blow.name(),
        tally.struck,
        tally.gaps,
        choice.every,
        tally.in_force,
        tally.kept,
        tally.latencies.median(),
        tally.latencies.max(),
        tally.led.median(),
        start.elapsed().as_secs_f64(),
    );
    Ok(())
}
