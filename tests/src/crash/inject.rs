//! System calls of a controller that fail, one at a time: it ends in order, and nothing of it stays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use libc::{c_int, c_long};

use super::orphans::Orphans;
use super::point::{Point, Reached, reach};
use super::scene::{Action, Scene};
use super::tracee::{Next, pin};
use crate::harness::{Outcome, wait_until};

/// What fails: whatever opens, reads, writes or syncs.
const FAILING: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_open,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_flock,
];
const ERRORS: [(c_int, &str); 5] = [
    (libc::EIO, "EIO"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EINTR, "EINTR"),
    (libc::EBUSY, "EBUSY"),
    (libc::ENOENT, "ENOENT"),
];

/// A fourth of the landmarks is gone through, and an eighth on other kernels than the default one, unless all are asked
/// for.
pub(crate) fn trial() -> Result<Outcome> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let every = match std::env::var_os("GREY_ALL") {
        Some(_) => 1,
        None if release.starts_with("6.12.") => 4,
        None => 8,
    };
    let mut any = false;
    if Action::LimitLeased.is_asked_for() {
        any = true;
        fail_calls(Action::LimitLeased, every, every > 1)?;
    }
    // The same controller with another knob, outside the cgroups: on request, and each call fails once.
    let reporting = Action::ReportLeased;
    if every == 1 && reporting.is_asked_for() {
        any = true;
        match reporting.lacks()? {
            Some(why) => println!("{}: {why}", reporting.name()),
            None => fail_calls(reporting, every, true)?,
        }
    }
    if any {
        return Ok(Outcome::Passed);
    }
    Outcome::skipped("no action of this test has GREY_ONLY in its name")
}

/// Calls after every nth landmark fail, each with one error in turn or with all one after the other.
fn fail_calls(action: Action, every: usize, in_turn: bool) -> Result<()> {
    let start = Instant::now();
    let (next, failed, rolled) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let over = AtomicUsize::new(usize::MAX);
    let work = |worker: usize| -> Result<()> {
        pin(worker % 2)?;
        let scene = Scene::new(action, &worker.to_string())?;
        loop {
            let landmark = next.fetch_add(1, Ordering::Relaxed);
            if landmark >= over.load(Ordering::Relaxed) {
                return Ok(());
            }
            if landmark % every != 0 {
                continue;
            }
            let mut from = 0;
            loop {
                // The call is looked for once, then one error after the other is tried at it.
                let mut at = None;
                for (serial, error) in ERRORS.iter().enumerate() {
                    // All errors one after the other at each call take long: in turn each meets one, and its neighbours
                    // meet the others.
                    if in_turn && (landmark + from) % ERRORS.len() != serial {
                        continue;
                    }
                    let point = Point {
                        landmark,
                        call: from,
                    };
                    at = one(&scene, point, *error, &rolled)
                        .inspect_err(|_| over.store(0, Ordering::Relaxed))
                        .with_context(|| format!("{} at {point:?} or after", error.1))?;
                }
                match at {
                    Some(At::Failed(call)) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        from = call + 1;
                    }
                    Some(At::NoMore) => break,
                    Some(At::End) | None => {
                        over.fetch_min(landmark, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = 0..action.at_once(2);
        let threads: Vec<_> = workers
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
    let (failed, rolled) = (failed.into_inner(), rolled.into_inner());
    ensure!(
        failed * every > 100,
        "{}: only {failed} calls to fail were found",
        action.name()
    );
    println!(
        "{}: {failed} calls failed, one in each run; {rolled} times rollback had something left to do; {:.1} s",
        action.name(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

enum At {
    /// This call after the landmark failed.
    Failed(usize),
    /// No call to fail before the next landmark.
    NoMore,
    End,
}

fn one(
    scene: &Scene,
    point: Point,
    (errno, name): (c_int, &str),
    rolled: &AtomicUsize,
) -> Result<Option<At>> {
    let (mut tracee, reached, mut at) = reach(scene, Point { call: 0, ..point })?;
    if reached == Reached::End {
        return Ok(Some(At::End));
    }
    let mut number = tracee.standing_before()?;
    while at < point.call || !FAILING.contains(&number) {
        match tracee.next_call()? {
            Next::Call(call) => (at, number) = (at + 1, call),
            Next::Landmark => {
                leave(scene, tracee)?;
                return Ok(Some(At::NoMore));
            }
            Next::End => {
                scene.is_prior("at the end")?;
                return Ok(Some(At::NoMore));
            }
        }
    }
    let orphans = Orphans::of(tracee.pid())?;
    tracee.fail(errno)?;
    let ended = tracee.end()?;
    let code = ended.status.code();
    let what = format!("call {number} failed with {name}: {ended:?}");
    ensure!(matches!(code, Some(0..=4)), "{what}");
    let lines = ended.stderr.lines().count();
    ensure!(
        !ended.stderr.contains("panicked") && (code == Some(0) || (1..=2).contains(&lines)),
        "{what}"
    );
    wait_until(
        "the end of its guard",
        std::time::Duration::from_secs(8),
        || Ok(orphans.ended()?.then_some(())),
    )?;
    // A guard that was started later is not among those.
    let back = wait_until("putting back", std::time::Duration::from_secs(2), || {
        Ok(scene.is_back()?.then_some(()))
    });
    if back.is_err() {
        ensure!(code != Some(0), "it does not say what stayed: {what}");
        rolled.fetch_add(1, Ordering::Relaxed);
    }
    scene.rollback().with_context(|| what)?;
    Ok(Some(At::Failed(at)))
}

/// Ends what is not needed any more.
fn leave(scene: &Scene, mut tracee: super::tracee::Tracee) -> Result<()> {
    let orphans = Orphans::of(tracee.pid())?;
    tracee.kill()?;
    wait_until(
        "the end of its guard",
        std::time::Duration::from_secs(8),
        || Ok(orphans.ended()?.then_some(())),
    )?;
    scene.is_prior("after a kill")
}
