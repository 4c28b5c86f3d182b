//! `enforce`: one bounded action by hand, from its plan to its outcome.

pub(crate) mod compact;
mod drop_caches;
pub(crate) mod freeze;
mod ksm;
pub(crate) mod limit;
pub(crate) mod pageout;
pub(crate) mod reclaim;
pub(crate) mod report;
pub(crate) mod tell;
pub(crate) mod trim;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Subcommand;
use grey_core::act::Undone;
use grey_core::event::{ActionOutcome, ActionPlan, ActionState, OutcomeVerdict};
use grey_core::units::format_duration_us;

use crate::act::session::{End, refused};
use crate::act::{Scene, Session, Target, measure};
use crate::cli::{self, Exit, Failure};

pub use pageout::helper;
pub(crate) use tell::Tell;

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce limit web.service --high 512M --dry-run     what would be written where
  grey-ebpf enforce limit web.service --high 512M --lease 60s   for a minute, under the watchdog
  grey-ebpf rollback --list                                     what is in force

Every change is journalled first and can be undone. Nothing is ever killed.";

/// Arguments of every action.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Only say what would be written where, and what is to be expected
    #[arg(long, alias = "simulation", global = true)]
    pub dry_run: bool,
    /// NDJSON events on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Take it back after this time; until then the watchdog looks, and Ctrl-C takes it back at once
    #[arg(long, value_name = "TIME", value_parser = lease, global = true)]
    pub lease: Option<Duration>,
    /// Do it although it is cooling down after harm, or a limit is under current use
    #[arg(long, global = true)]
    pub force: bool,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT", default_value = "by hand", global = true)]
    pub reason: String,
    /// Where the journal is and what the bounds are.
    #[command(flatten)]
    pub place: Place,
}

/// Where the journal and the configuration are.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Folder of the journal [default: /var/lib/grey-ebpf, or `state_dir` of the configuration]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/grey-ebpf/config.toml, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// A cgroup that is not to be touched: path, glob, unit or container name (repeatable)
    #[arg(long, value_name = "GLOB", global = true)]
    pub protect: Vec<String>,
}

/// Arguments of `enforce`.
#[derive(Clone, Debug, clap::Args)]
pub struct EnforceArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// How.
    #[command(flatten)]
    pub common: Common,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Set memory.high, max, low, min or swap.max of a cgroup
    #[command(after_help = limit::EXAMPLES)]
    Limit(limit::LimitArgs),
    /// Merge equal pages of programs that offer them, or stop it; and whether it pays
    #[command(after_help = ksm::EXAMPLES)]
    Ksm(ksm::KsmArgs),
    /// Move pages together, so that free memory comes in large blocks
    #[command(after_help = compact::EXAMPLES)]
    Compact,
    /// Take memory from a cgroup: what is used least goes
    #[command(after_help = reclaim::EXAMPLES)]
    Reclaim(reclaim::ReclaimArgs),
    /// Drop the machine's page cache, or one cgroup's
    #[command(after_help = drop_caches::EXAMPLES)]
    DropCaches(drop_caches::DropCachesArgs),
    /// Give anonymous memory of a process or cgroup to swap: what it does not use, or all of it
    #[command(after_help = pageout::EXAMPLES)]
    Pageout(pageout::PageoutArgs),
    /// Stop a cgroup's processes for a time
    #[command(after_help = freeze::FREEZE_EXAMPLES)]
    Freeze(freeze::FreezeArgs),
    /// Let a frozen cgroup go on
    #[command(after_help = freeze::THAW_EXAMPLES)]
    Thaw(freeze::ThawArgs),
    /// From which size on the host of this virtual machine is told of free memory
    #[command(after_help = report::EXAMPLES)]
    Report(report::ReportArgs),
    /// Ask the release agent in a process to give freed memory back
    #[command(after_help = trim::EXAMPLES)]
    Trim(trim::TrimArgs),
}

/// A lease: long enough to be seen, short enough to be one.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = cli::duration(text)?;
    if lease < Duration::from_millis(100) || lease > Duration::from_secs(24 * 3600) {
        return Err("a lease is between 100ms and 24h".to_owned());
    }
    Ok(lease)
}

/// What an action is going to do.
pub(crate) struct Plan {
    /// As it is told. `id` and `dry_run` are filled in.
    pub action: ActionPlan,
    /// The cgroup, if it is one.
    pub target: Option<Target>,
    /// How long its changes stay; `None` for until they are undone. Means nothing where nothing is reversible.
    pub lease: Option<Duration>,
}

/// One action.
pub(crate) trait Actuator {
    /// Checks the request against the machine and says what would be done. Changes nothing.
    ///
    /// # Errors
    /// Bad usage (2), the machine cannot (3), a safety rule (4).
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure>;

    /// Does it. On an error what was changed is taken back by the caller.
    ///
    /// # Errors
    /// It failed or was broken off.
    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure>;

    /// The target's figures.
    fn measure(&self, scene: &Scene, target: Option<&Target>) -> ActionState {
        match target {
            Some(target) => measure::cgroup(scene, target),
            None => measure::machine(scene),
        }
    }

    /// How long is looked on afterwards, for what comes back.
    fn observe(&self) -> Option<Duration> {
        None
    }

    /// At the end of a lease, before its changes are taken back: what there is to say of them.
    fn settle(&mut self, _scene: &Scene, _outcome: &mut ActionOutcome) {}
}

/// An action under way.
pub(crate) struct Act<'a> {
    pub session: &'a mut Session,
    pub id: u64,
    pub target: Option<&'a Target>,
    /// What was done and why no more, for the outcome.
    pub notes: Vec<String>,
    pub tell: &'a mut Tell,
}

/// Runs `enforce`.
///
/// # Errors
/// See the exit codes.
pub fn run(args: &EnforceArgs) -> Result<Exit, Failure> {
    let mut action: Box<dyn Actuator> = match &args.action {
        Action::Limit(args) => Box::new(limit::Limit::new(args)),
        Action::Ksm(ksm) => match &ksm.what {
            ksm::What::On(args) => Box::new(ksm::On::new(args)),
            ksm::What::Off(args) => Box::new(ksm::Off::new(args)),
            ksm::What::Status => return ksm::status(&args.common),
        },
        Action::Compact => Box::new(compact::Compact::new()),
        Action::Reclaim(args) => Box::new(reclaim::Reclaim::new(args)),
        Action::DropCaches(args) => drop_caches::action(args),
        Action::Pageout(args) => Box::new(pageout::Pageout::new(args)),
        Action::Freeze(args) => Box::new(freeze::Freeze::new(args)),
        Action::Thaw(args) => Box::new(freeze::Thaw::new(args)),
        Action::Report(args) => Box::new(report::Report::new(args)),
        Action::Trim(args) => Box::new(trim::Trim::new(args)),
    };
    perform(action.as_mut(), &args.common)
}

/// Plans, tells, acts, holds, tells again.
fn perform(action: &mut dyn Actuator, common: &Common) -> Result<Exit, Failure> {
    let scene = Rc::new(Scene::find(&common.place)?);
    let mut tell = Tell::new(&scene, common.json);
    let mut plan = action.plan(&scene, common)?;
    plan.action.dry_run = common.dry_run;
    plan.action.lease_s = plan.lease.map(|lease| lease.as_secs_f64());
    if common.dry_run {
        tell.plan(&plan)?;
        return Ok(Exit::Done);
    }
    let (mut session, left) = Session::open(Rc::clone(&scene))?;
    tell.damage(&session.damage);
    tell.undone(
        None,
        "controller: left behind by one that ended early",
        &left,
    )?;
    let (kind, name) = (plan.action.kind.clone(), plan.action.target.clone());
    crate::act::watchdog::cooled_down(session.ledger(), &scene.safety, &kind, &name, common.force)?;
    let target = plan.target.as_ref();
    let id = session.begin(&kind, &name, &plan.action.reason, target)?;
    plan.action.id = Some(id);
    tell.plan(&plan)?;
    let before = action.measure(&scene, target);
    let start = Instant::now();
    let mut act = Act {
        session: &mut session,
        id,
        target,
        notes: Vec::new(),
        tell: &mut tell,
    };
    let done = action.act(&mut act);
    let notes = act.notes;
    let took = start.elapsed();
    let after = action.measure(&scene, target);
    let mut outcome = outcome(id, &plan.action, before, after, notes, took);
    if let Err(failure) = done {
        return Err(broken_off(&mut session, &mut tell, outcome, failure));
    }
    if let Some(time) = action.observe() {
        if let Err(failure) = session.wait(time) {
            return Err(broken_off(&mut session, &mut tell, outcome, failure));
        }
        let settled = action.measure(&scene, target);
        outcome.kept_bytes = freed(outcome.before.as_ref(), &settled);
        let before = outcome.before.as_ref().and_then(|state| state.refaults);
        outcome.refaults = before
            .zip(settled.refaults)
            .map(|(from, to)| to.saturating_sub(from));
    }
    let Some(lease) = plan.lease else {
        if let Err(failure) = session.keep(id) {
            return Err(broken_off(&mut session, &mut tell, outcome, failure));
        }
        session.went_well(&kind, &name);
        tell.outcome(&outcome)?;
        return Ok(Exit::Done);
    };
    if let Err(failure) = session.lease(id, lease) {
        return Err(broken_off(&mut session, &mut tell, outcome, failure));
    }
    tell.held(id, lease);
    let end = session.hold(lease, |left| tell.left(left));
    tell.clear();
    let well = end == End::Over;
    let (cause, failure) = match end {
        End::Over => ("lease".to_owned(), None),
        End::Stopped => ("by hand".to_owned(), None),
        End::Harm(trip) => {
            let text = format!("{}: {}", trip.cause, trip.text);
            (
                text.clone(),
                Some(refused(format!("{name}: taken back, {text}"))),
            )
        }
        End::Guard(fault) => {
            let text = format!("controller: {fault}");
            (
                text.clone(),
                Some(refused(format!("{name}: taken back, {text}"))),
            )
        }
    };
    let settled = action.measure(&scene, target);
    outcome.kept_bytes = freed(outcome.before.as_ref(), &settled);
    action.settle(&scene, &mut outcome);
    let undone = session.let_go(id);
    if failure.is_some() && session.trip().is_some() {
        note_harm(&mut session, &kind, &name, &cause);
    }
    if well {
        session.went_well(&kind, &name);
    }
    tell.undone(Some(id), &cause, &undone)?;
    outcome.verdict = OutcomeVerdict::Revert;
    tell.outcome(&outcome)?;
    if let Some(failure) = still_open(&undone) {
        return Err(failure);
    }
    failure.map_or(Ok(Exit::Done), Err)
}

/// Takes back what an action that failed has changed, and tells.
fn broken_off(
    session: &mut Session,
    tell: &mut Tell,
    mut outcome: ActionOutcome,
    failure: Failure,
) -> Failure {
    let undone = session.undo(outcome.id, false);
    if session.trip().is_some() {
        note_harm(session, &outcome.kind, &outcome.target, &failure.message);
    }
    outcome.verdict = OutcomeVerdict::Revert;
    outcome.notes.push(failure.message.clone());
    // The failure itself is what the user has to see.
    let _ = tell.undone(Some(outcome.id), &failure.message, &undone);
    let _ = tell.outcome(&outcome);
    still_open(&undone).unwrap_or(failure)
}

fn note_harm(session: &mut Session, kind: &str, target: &str, why: &str) {
    if let Err(failure) = session.harmed(kind, target, why) {
        cli::tell(&failure.message);
    }
}

/// What could not be taken back.
fn still_open(undone: &Undone) -> Option<Failure> {
    let (knob, fault) = undone.failed.first()?;
    Some(Failure::failed(format!(
        "{knob}: could not be put back: {fault}; `grey-ebpf rollback` tries again"
    )))
}

pub(crate) fn outcome(
    id: u64,
    plan: &ActionPlan,
    before: ActionState,
    after: ActionState,
    notes: Vec<String>,
    took: Duration,
) -> ActionOutcome {
    let since = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    ActionOutcome {
        id,
        kind: plan.kind.clone(),
        target: plan.target.clone(),
        freed_bytes: freed(Some(&before), &after),
        kept_bytes: None,
        psi_delta_us: since(before.psi_some_us, after.psi_some_us),
        refaults: since(before.refaults, after.refaults),
        verdict: OutcomeVerdict::Commit,
        notes,
        took_us: Some(took.as_micros() as u64),
        before: Some(before),
        after: Some(after),
    }
}

/// Bytes less than before: memory.current of a cgroup, resident bytes of a process.
pub(crate) fn freed(before: Option<&ActionState>, after: &ActionState) -> Option<u64> {
    let before = before?;
    let (from, to) = match (before.current, after.current) {
        (Some(from), Some(to)) => (from, to),
        _ if before.rss.is_some() => (before.rss?, after.rss?),
        _ => return freed_of_machine(before, after),
    };
    Some(from.saturating_sub(to))
}

/// The machine keeps no count of what it uses: what is gone of its memory, or what is free now, whichever shows more. Slab
/// is not in the first, and what each CPU keeps at hand is not in the second.
fn freed_of_machine(before: &ActionState, after: &ActionState) -> Option<u64> {
    let held = |state: &ActionState| Some(state.anon?.saturating_add(state.file?));
    let gone = held(before)
        .zip(held(after))
        .map(|(from, to)| from.saturating_sub(to));
    let free = before
        .free
        .zip(after.free)
        .map(|(from, to)| to.saturating_sub(from));
    gone.max(free)
}

/// A duration for people.
fn time(time: Duration) -> String {
    format_duration_us(time.as_micros() as u64)
}
