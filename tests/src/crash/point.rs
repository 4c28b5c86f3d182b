//! One point: the action is begun, led to its nth stop, something happens to it, and everything must come right.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::orphans::Orphans;
use super::scene::Scene;
use super::tracee::{Next, Tracee};

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL of the controller.
    Kill,
    /// The controller does not run, as after SIGSTOP, and goes on after its guard must have taken over.
    Stop,
    /// SIGKILL of the guard and then of the controller.
    Both,
    /// SIGKILL of the guard; the controller goes on.
    Guard,
}

impl Blow {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Blow::Kill => "SIGKILL of the controller",
            Blow::Stop => "standstill of the controller",
            Blow::Both => "SIGKILL of guard and controller, then rollback",
            Blow::Guard => "SIGKILL of the guard",
        }
    }
}

/// A point: before the nth call from a landmark on. Landmark 0 is the making of the journal's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) landmark: usize,
    pub(crate) call: usize,
}

/// Where a run got to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The point.
    #[default]
    Point,
    /// The landmark after it: the point is not one.
    NextLandmark,
    /// The end.
    End,
}

/// What was seen at a point.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reached: Reached,
    /// The point that it was, where those before were the same.
    pub(crate) call: usize,
    /// How long it took to get there.
    pub(crate) led: Duration,
    /// Something had been changed at that moment.
    pub(crate) in_force: bool,
    /// From the blow until everything was as before.
    pub(crate) back: Option<Duration>,
    /// It was complete and is kept; taken back by `rollback` afterwards.
    pub(crate) kept: bool,
}

/// What the guard may take after it has noticed: the promise to users.
const PROMISE: Duration = Duration::from_secs(2);
/// Without configuration a controller is taken for hung after this long.
const HANG: Duration = Duration::from_millis(1500);
/// A controller stays stopped for so much longer.
const LONGER: Duration = Duration::from_millis(500);
/// Until helpers and guard have ended.
const ENDS: Duration = Duration::from_secs(8);

/// Times that one may be led to the same point, where the machine is too busy to lead it there in time.
const TRIES: usize = 4;

/// A controller at a point, or at the first after it that is not the same as the one before it, or at the landmark
/// after it. At its end it ended well.
pub(crate) fn reach(scene: &Scene, point: Point) -> Result<(Tracee, Reached, usize)> {
    for _ in 0..TRIES {
        if let Some(reached) = lead(scene, point)? {
            return Ok(reached);
        }
        scene.is_prior("after a guard took over")?;
    }
    anyhow::bail!("{TRIES} times the guard took over before {point:?}: the machine is too busy")
}

/// `None` where leading it took so long that its guard had to take it for hung: nothing was struck at.
fn lead(scene: &Scene, point: Point) -> Result<Option<(Tracee, Reached, usize)>> {
    let args = scene.fresh()?;
    let dir = scene.state_dir()?;
    let mut tracee = Tracee::start(&args)?;
    let mut at = None;
    while at != Some(point.landmark) {
        if !tracee.run_to_landmark()? {
            return well(tracee);
        }
        at = match at {
            Some(at) => Some(at + 1),
            None => tracee.names(&dir)?.then_some(0),
        };
    }
    let mut call = 0;
    // What comes before a landmark is struck at with the calls before it.
    while call < point.call || !tracee.is_new() {
        match tracee.next_call()? {
            Next::Call(_) => call += 1,
            Next::Landmark => return Ok(Some((tracee, Reached::NextLandmark, call))),
            Next::End => return well(tracee),
        }
    }
    Ok(Some((tracee, Reached::Point, call)))
}

fn well(mut tracee: Tracee) -> Result<Option<(Tracee, Reached, usize)>> {
    let ended = tracee.end()?;
    if ended.status.code() == Some(4) && ended.stderr.contains("held up for too long") {
        return Ok(None);
    }
    ensure!(
        ended.status.code() == Some(0),
        "left alone it ends with {ended:?}"
    );
    Ok(Some((tracee, Reached::End, 0)))
}

/// Begins the action anew and strikes at a point.
pub(crate) fn strike(scene: &Scene, blow: Blow, point: Point) -> Result<Seen> {
    let start = Instant::now();
    let (mut tracee, reached, call) = reach(scene, point)?;
    let mut seen = Seen {
        reached,
        call,
        led: start.elapsed(),
        ..Seen::default()
    };
    if reached == Reached::End {
        settled(scene, &mut seen)?;
        return Ok(seen);
    }
    seen.in_force = !scene.is_back()?;
    match blow {
        Blow::Kill => kill(scene, &mut tracee, &mut seen)?,
        Blow::Stop => stop(scene, &mut tracee, &mut seen)?,
        Blow::Both => both(scene, &mut tracee, &mut seen)?,
        Blow::Guard => guard(scene, &mut tracee, &mut seen)?,
    }
    Ok(seen)
}

/// Everything is prior; or all of a kept action is in force, the journal says so, and `rollback` takes it back.
fn settled(scene: &Scene, seen: &mut Seen) -> Result<()> {
    if scene.is_complete()? {
        seen.kept = true;
        return scene.rollback();
    }
    scene.ledger()?;
    scene.is_prior("at the end")
}

/// Awaits the end of those who could still write; when things were last seen not as before, since `blow`.
fn watch(scene: &Scene, orphans: &Orphans, blow: Instant) -> Result<Option<Duration>> {
    let mut bad = None;
    loop {
        let last = orphans.ended()?;
        if !scene.is_back()? {
            bad = Some(blow.elapsed());
        }
        if last {
            return Ok(bad);
        }
        ensure!(
            blow.elapsed() < ENDS,
            "guard or helper are there after {ENDS:?}: {:?}; {}",
            scene.now()?,
            scene.journal()?
        );
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn kill(scene: &Scene, tracee: &mut Tracee, seen: &mut Seen) -> Result<()> {
    let orphans = Orphans::of(tracee.pid())?;
    let blow = Instant::now();
    tracee.kill()?;
    let back = watch(scene, &orphans, blow)?;
    settled(scene, seen)?;
    if !seen.kept {
        seen.back = back.or(seen.in_force.then_some(Duration::ZERO));
        ensure!(back.unwrap_or_default() <= PROMISE, "only after {back:?}");
    }
    Ok(())
}

fn stop(scene: &Scene, tracee: &mut Tracee, seen: &mut Seen) -> Result<()> {
    let orphans = Orphans::of(tracee.pid())?;
    let blow = Instant::now();
    let mut bad = None;
    loop {
        let at = blow.elapsed();
        let settled = scene.is_back()? || scene.is_complete()?;
        if !settled {
            bad = Some(at);
        }
        if settled && at >= HANG + LONGER {
            break;
        }
        ensure!(
            at < 2 * (HANG + PROMISE),
            "nobody takes over: {:?} after {at:?}; {}",
            scene.now()?,
            scene.journal()?
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(
        bad.unwrap_or_default() <= HANG + PROMISE,
        "only after {bad:?}"
    );
    // A kept action that was complete before stays.
    let complete = scene.is_complete()?;
    if !complete {
        scene.is_prior("while it stands still")?;
        seen.back = bad.filter(|_| seen.in_force);
    }
    let ended = tracee.end()?;
    let code = ended.status.code();
    ensure!(
        matches!(code, Some(0 | 4)) && ended.stderr.lines().count() <= 1,
        "after its standstill: {ended:?}; {}",
        scene.journal()?
    );
    watch(scene, &orphans, Instant::now())?;
    settled(scene, seen).with_context(|| format!("after its standstill: {ended:?}"))?;
    ensure!(
        !seen.kept || code == Some(0),
        "it is in force although {ended:?}"
    );
    Ok(())
}

fn both(scene: &Scene, tracee: &mut Tracee, seen: &mut Seen) -> Result<()> {
    let orphans = Orphans::of(tracee.pid())?;
    orphans.kill_guard()?;
    tracee.kill()?;
    let blow = Instant::now();
    scene.rollback()?;
    seen.back = seen.in_force.then(|| blow.elapsed());
    ensure!(orphans.ended()?, "a helper outlives its controller");
    scene.ledger()?;
    Ok(())
}

fn guard(scene: &Scene, tracee: &mut Tracee, seen: &mut Seen) -> Result<()> {
    let orphans = Orphans::of(tracee.pid())?;
    let blow = Instant::now();
    orphans.kill_guard()?;
    let ended = tracee.end()?;
    let code = ended.status.code();
    ensure!(
        matches!(code, Some(0 | 4)) && ended.stderr.lines().count() <= 1,
        "without its guard: {ended:?}; {}",
        scene.journal()?
    );

    let ran = blow.elapsed();
    let back = watch(scene, &orphans, blow)?;
    ensure!(
        back.is_none() || scene.is_complete()?,
        "it left something: {ended:?}"
    );
    settled(scene, seen).with_context(|| format!("without its guard: {ended:?}"))?;
    // It puts everything back before it ends.
    seen.back = (seen.in_force && !seen.kept).then_some(ran);
    Ok(())
}
