//! All points of an action, in several scenes at once, and what they come to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::point::{Blow, Seen, reach, strike};
use super::scene::{Action, Scene};
use crate::harness::timing::Latencies;
use crate::vm_enforce::cache::Files;

/// Which points are struck.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// Every one of `every`…
    pub(crate) every: usize,
    /// … from this one on.
    pub(crate) from: usize,
}

impl Choice {
    pub(crate) const ALL: Choice = Choice { every: 1, from: 0 };
}

/// What a sweep came to.
#[derive(Default)]
struct Tally {
    struck: usize,
    in_force: usize,
    kept: usize,
    /// Stops of the longest run.
    stops: usize,
    latencies: Latencies,
}

impl Tally {
    fn add(&mut self, nth: usize, seen: &Seen) {
        self.stops = self.stops.max(seen.reached.map_or(0, |last| last + 1));
        if seen.reached == Some(nth) {
            self.struck += 1;
            self.in_force += usize::from(seen.in_force);
            self.kept += usize::from(seen.kept);
        }
        if let Some(back) = seen.back {
            self.latencies.add(back.as_micros() as i64);
        }
    }
}

/// Strikes at the chosen points of an action and tells what came of it. Goes on until a run ends before its point:
/// no point is left out because a run was shorter than another.
pub(crate) fn sweep(action: Action, blow: Blow, choice: Choice, at_once: usize) -> Result<()> {
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
        let mut scene = Scene::new(action, &worker.to_string())?;
        if let Some(files) = &files {
            scene.reads(files.file("cache", 16 << 20)?);
        }
        while !over.load(Ordering::Relaxed) {
            let nth = choice.from + choice.every * next.fetch_add(1, Ordering::Relaxed);
            let seen = strike(&scene, blow, nth)
                .inspect_err(|_| over.store(true, Ordering::Relaxed))
                .with_context(|| format!("{}, {}, point {nth}", action.name(), blow.name()))?;
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add(nth, &seen);
            // Runs differ by some calls: past the end is past that of the longest.
            if seen.reached != Some(nth) && nth >= tally.stops {
                over.store(true, Ordering::Relaxed);
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
            let done = thread.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked"));
            if first.is_ok() {
                first = done;
            }
        }
        first
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(tally.in_force > 0, "{}: nothing was ever in force", action.name());
    println!(
        "{}, {}: {} points of {} stops, {} with changes in force, {} kept; back after {} us (median), {} us (max); {:.1} s",
        action.name(),
        blow.name(),
        tally.struck,
        tally.stops,
        tally.in_force,
        tally.kept,
        tally.latencies.median(),
        tally.latencies.max(),
        start.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// How many stops a run has, and how long one takes that is led to its end.
pub(crate) fn measure(action: Action) -> Result<(usize, Duration)> {
    let scene = Scene::new(action, "measure")?;
    let start = Instant::now();
    let (_, reached) = reach(&scene, usize::MAX)?;
    let took = start.elapsed();
    if scene.is_complete()? {
        scene.rollback()?;
    }
    Ok((reached.map_or(0, |last| last + 1), took))
}
