//! The one who acts: a thread with the right to do so (lock, journal, guard). Decisions come in, events and outcomes go
//! out; what it holds under a lease is looked after while it waits. The observer never waits for it.

use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use grey_core::event::{ActionOutcome, ActionState, Body, Cgroup, OutcomeVerdict};
use grey_core::govern::{Decision, Outcome, Rung};
use grey_core::identity::identify;
use grey_core::view::printable;
use tokio::sync::mpsc::UnboundedSender;

use crate::act::session::stopped;
use crate::act::watchdog::{Watchdog, cooled_down};
use crate::act::{Scene, Session, Target, measure};
use crate::cli::Failure;
use crate::enforce::report::{Report, ReportArgs};
use crate::enforce::tell::{Tell, rollback};
use crate::enforce::{Act, Actuator as _, Common, Place, freed, outcome};
use crate::host::Call;

use super::demand::Demand;
use super::means::{Means, common};

/// How often it looks at what it holds.
const TICK: Duration = Duration::from_millis(50);
/// Without a guard nothing is done; a new one is tried after this time.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at whether the journal has grown long.
const TIDY: Duration = Duration::from_secs(60);

/// What the actor is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// To carry out a decision.
    Do(Box<Task>),
    /// To take back what is held on this cgroup.
    Release(String),
    /// To go by the configuration as it is now.
    Reload,
    /// To have the host told of free blocks of this size and larger, for as long as we live; `None` for as it was.
    Report(Option<u64>),
}

/// A decision and what its carrying out goes by.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) decision: Decision,
    /// It is looked at for so long afterwards.
    pub(super) observe: Duration,
    /// CPUs that its target used before.
    pub(super) cpus: Option<f64>,
    /// What was frozen goes on when somebody wants it to.
    pub(super) thaw_on_demand: bool,
}

/// What the actor tells.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most of what is told are events, a few a second"
)]
pub(super) enum Told {
    /// An event for the stream.
    Event(Option<Cgroup>, Body),
    /// What came of a decision.
    Done(u64, Outcome),
    /// Nothing was done, and why.
    NotDone(u64, String),
    /// Something that a person should know.
    Note(String),
}

/// Where to act, and whether at all.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// Journal and configuration.
    pub(super) place: Place,
    /// Plans are told, nothing is done.
    pub(super) shadow: bool,
}

/// Runs until the orders end; then everything that is held is taken back.
pub(super) fn run(role: &Role, orders: &Receiver<Order>, tell: &UnboundedSender<Told>) {
    let mut actor = Actor {
        role,
        tell,
        session: None,
        tried: None,
        held: Vec::new(),
        watched: Vec::new(),
        reporting: None,
        blind: None,
        tidied: Instant::now(),
    };
    if !role.shadow {
        // What a predecessor has left behind is taken back now and not at the first action.
        actor.session();
    }
    loop {
        match orders.recv_timeout(TICK) {
            Ok(Order::Do(task)) => actor.carry_out(&task),
            Ok(Order::Release(path)) => actor.release(&path),
            Ok(Order::Reload) => actor.reload(),
            Ok(Order::Report(block)) => actor.report(block),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        actor.look_after();
    }
    actor.end();
}

/// An action that is in force for a time.
struct Hold {
    id: u64,
    decision: Decision,
    target: Option<Target>,
    until: Instant,
    watchdog: Option<Watchdog>,
    demand: Option<Demand>,
    outcome: ActionOutcome,
    begun: Instant,
    cpus: Option<f64>,
}

/// Why an action that was in force is so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its time, or somebody's word.
    Well,
    /// It did harm.
    Harm,
    /// Somebody wanted what it stopped.
    Wanted,
}

/// An action that is over, and looked at for what comes of it.
struct Watched {
    decision: Decision,
    target: Option<Target>,
    until: Instant,
    watchdog: Option<Watchdog>,
    outcome: ActionOutcome,
    begun: Instant,
    cpus: Option<f64>,
}

struct Actor<'a> {
    role: &'a Role,
    tell: &'a UnboundedSender<Told>,
    session: Option<Session>,
    /// When a session could not be had.
    tried: Option<Instant>,
    held: Vec<Hold>,
    watched: Vec<Watched>,
    /// The action that has set which blocks are reported, and their size.
    reporting: Option<(u64, u64)>,
    /// What was last told of demand that cannot be seen.
    blind: Option<String>,
    tidied: Instant,
}

impl Hold {
    /// What wants it to go on.
    fn wanted(&mut self, scene: &Scene) -> Option<Call> {
        let target = self.target.as_ref()?;
        self.demand.as_mut()?.look(scene, target)
    }
}

impl Actor<'_> {
    fn say(&self, told: Told) {
        // Whoever does not listen any more is about to end us.
        let _ = self.tell.send(told);
    }

    fn note(&self, text: impl Into<String>) {
        self.say(Told::Note(text.into()));
    }

    /// The right to act, if it can be had.
    fn session(&mut self) -> Option<&mut Session> {
        if self.session.is_none() && self.tried.is_none_or(|at| at.elapsed() >= AGAIN) {
            let opened = Scene::find(&self.role.place)
                .and_then(|scene| Session::open_quietly(Rc::new(scene)));
            match opened {
                Ok((session, left)) => {
                    if session.damage.lines > 0 {
                        self.note(format!(
                            "journal: {} lines are damaged or of a newer version: skipped, all others are used",
                            session.damage.lines
                        ));
                    }
                    if !left.restored.is_empty() || !left.skipped.is_empty() {
                        let cause = "controller: left behind by one that ended early";
                        let body = rollback(None, cause, &left);
                        self.say(Told::Event(
                            None,
                            Body::Rollback {
                                rollback: Box::new(body),
                            },
                        ));
                    }
                    if self.tried.take().is_some() {
                        self.note("actions are possible again");
                    }
                    self.session = Some(session);
                }
                Err(failure) => {
                    if self.tried.replace(Instant::now()).is_none() {
                        self.note(format!(
                            "no action is taken: {}; tried again every {} s",
                            failure.message,
                            AGAIN.as_secs()
                        ));
                    }
                    self.tried = Some(Instant::now());
                }
            }
        }
        self.session.as_mut()
    }

    fn carry_out(&mut self, task: &Task) {
        let decision = &task.decision;
        if self.role.shadow {
            return self.plan_only(decision);
        }
        if self.session().is_none() {
            let why = "no right to act".to_owned();
            return self.say(Told::NotDone(decision.number, why));
        }
        if let Err(failure) = self.act(task) {
            self.say(Told::NotDone(decision.number, failure.message));
        }
    }

    /// In shadow: what would be done, as far as the machine says it could be.
    fn plan_only(&self, decision: &Decision) {
        let means = Means::of(decision);
        let common = common(decision, &self.role.place, true);
        let planned = Scene::find(&self.role.place).and_then(|scene| {
            let plan = means.actuator().plan(&scene, &common)?;
            Ok(plan)
        });
        match planned {
            Ok(mut plan) => {
                plan.action.dry_run = true;
                self.action(decision, plan.action, plan.target.as_ref());
                self.say(Told::NotDone(decision.number, String::new()));
            }
            Err(failure) => self.say(Told::NotDone(decision.number, failure.message)),
        }
    }

    fn action(
        &self,
        decision: &Decision,
        mut action: grey_core::event::ActionPlan,
        target: Option<&Target>,
    ) {
        action.policy = Some(decision.policy.name().to_owned());
        action.expected_harm = Some((decision.expected_harm * 1e4).round() / 1e4);
        let action = Box::new(action);
        self.say(Told::Event(cgroup_of(target), Body::Action { action }));
    }

    fn act(&mut self, task: &Task) -> Result<(), Failure> {
        let Some(mut session) = self.session.take() else {
            return Ok(());
        };
        let done = self.act_with(&mut session, task);
        self.session = Some(session);
        done
    }

    fn act_with(&mut self, session: &mut Session, task: &Task) -> Result<(), Failure> {
        let (decision, cpus) = (&task.decision, task.cpus);
        // Limits and protection as the configuration has them now.
        let scene = Rc::clone(&session.scene);
        let means = Means::of(decision);
        let mut actuator = means.actuator();
        let common = common(decision, &self.role.place, false);
        let mut plan = actuator.plan(&scene, &common)?;
        plan.action.lease_s = plan.lease.map(|lease| lease.as_secs_f64());
        let (kind, name) = (plan.action.kind.clone(), plan.action.target.clone());
        cooled_down(session.ledger(), &scene.safety, &kind, &name, false)?;
        let id = session.begin(&kind, &name, &plan.action.reason, plan.target.as_ref())?;
        plan.action.id = Some(id);
        self.action(decision, plan.action.clone(), plan.target.as_ref());
        let target = plan.target;
        let before = actuator.measure(&scene, target.as_ref());
        let stops = decision.rung == Rung::Freeze && task.thaw_on_demand;
        let mut demand = target
            .as_ref()
            .filter(|_| stops)
            .map(|target| Demand::before(&scene, target));
        let begun = Instant::now();
        let mut silent = Tell::new(&scene, true);
        let mut act = Act {
            session,
            id,
            target: target.as_ref(),
            notes: Vec::new(),
            tell: &mut silent,
        };
        let acted = actuator.act(&mut act);
        let notes = act.notes;
        let after = actuator.measure(&scene, target.as_ref());
        let result = outcome(id, &plan.action, before, after, notes, begun.elapsed());
        let kept = acted.and_then(|()| match plan.lease {
            Some(lease) => session.lease(id, lease),
            None => Ok(()),
        });
        if let Err(failure) = kept {
            self.broken_off(session, decision, target.as_ref(), result, &failure, begun);
            return Ok(());
        }
        let watchdog = session.take_watchdog();
        if let (Some(demand), Some(target)) = (&mut demand, &target) {
            demand.begin(&scene, target);
            self.tell_blind(demand);
        }
        if let Some(lease) = plan.lease {
            self.held.push(Hold {
                id,
                decision: decision.clone(),
                target,
                until: begun + lease,
                watchdog,
                demand,
                outcome: result,
                begun,
                cpus,
            });
            return Ok(());
        }
        if let Err(failure) = session.keep(id) {
            self.broken_off(session, decision, target.as_ref(), result, &failure, begun);
            return Ok(());
        }
        self.watched.push(Watched {
            decision: decision.clone(),
            target,
            until: Instant::now() + task.observe,
            watchdog,
            outcome: result,
            begun,
            cpus,
        });
        Ok(())
    }

    /// Each once, as long as nothing else is to be told.
    fn tell_blind(&mut self, demand: &Demand) {
        let blind = demand.blind();
        if let Some(why) = blind.as_ref().filter(|_| blind != self.blind) {
            self.note(format!(
                "not all of what may want a frozen cgroup to run can be seen: {why}"
            ));
        }
        if blind.is_some() {
            self.blind = blind;
        }
    }

    /// Takes back what an action that failed has changed, and tells.
    fn broken_off(
        &self,
        session: &mut Session,
        decision: &Decision,
        target: Option<&Target>,
        mut result: ActionOutcome,
        failure: &Failure,
        begun: Instant,
    ) {
        let undone = session.undo(result.id, false);
        let harm = session.trip().is_some();
        if harm {
            self.harmed(session, &result, &failure.message);
        }
        self.undone(target, Some(result.id), &failure.message, &undone);
        result.verdict = OutcomeVerdict::Revert;
        result.notes.push(failure.message.clone());
        let mut done = lesson(&result, None, begun, None);
        done.reverted = harm;
        self.came(target, decision, result, done);
    }

    /// What came of a decision: to the stream and to the governor.
    fn came(
        &self,
        target: Option<&Target>,
        decision: &Decision,
        result: ActionOutcome,
        done: Outcome,
    ) {
        let outcome = Box::new(result);
        self.say(Told::Event(cgroup_of(target), Body::Outcome { outcome }));
        self.say(Told::Done(decision.number, done));
    }

    fn harmed(&self, session: &mut Session, result: &ActionOutcome, why: &str) {
        if let Err(failure) = session.harmed(&result.kind, &result.target, why) {
            self.note(failure.message);
        }
    }

    fn undone(
        &self,
        target: Option<&Target>,
        id: Option<u64>,
        cause: &str,
        undone: &grey_core::act::Undone,
    ) {
        if undone.restored.is_empty() && undone.skipped.is_empty() && undone.failed.is_empty() {
            return;
        }
        if let Some(fault) = &undone.journal {
            self.note(format!(
                "journal: {fault}; what was taken back is not noted there, and rollback will look at it again"
            ));
        }
        let rollback = Box::new(rollback(id, cause, undone));
        self.say(Told::Event(cgroup_of(target), Body::Rollback { rollback }));
    }

    /// Guard, leases, watchdogs, observations.
    fn look_after(&mut self) {
        let Some(mut session) = self.session.take() else {
            if !self.role.shadow && self.tried.is_some() {
                self.session();
            }
            return;
        };
        if let Err(fault) = session.beat() {
            // Without a guard nothing stays in force, and nothing is begun.
            let cause = format!("controller: {fault}");
            for hold in std::mem::take(&mut self.held) {
                self.let_go(&mut session, hold, &cause, Ended::Well);
            }
            let undone = session.undo_all(false, false);
            self.reporting = None;
            self.undone(None, None, &cause, &undone);
            self.note(format!("{fault}; everything was taken back"));
            self.tried = Some(Instant::now());
            return;
        }
        self.holds(&mut session);
        self.observations(&mut session);
        if self.tidied.elapsed() >= TIDY {
            self.tidied = Instant::now();
            if let Err(fault) = session.tidy() {
                self.note(format!("journal: cannot be shortened: {fault}"));
            }
        }
        self.session = Some(session);
    }

    fn holds(&mut self, session: &mut Session) {
        let thresholds = session.scene.safety.watchdog.clone();
        let mut kept = Vec::new();
        for mut hold in std::mem::take(&mut self.held) {
            let trip = hold
                .watchdog
                .as_mut()
                .and_then(|watchdog| watchdog.look(&thresholds));
            if let Some(trip) = trip {
                let why = format!("{}: {}", trip.cause, trip.text);
                self.harmed(session, &hold.outcome, &why);
                self.let_go(session, hold, &why, Ended::Harm);
            } else if Instant::now() >= hold.until {
                self.let_go(session, hold, "lease", Ended::Well);
            } else if session.was_taken_back(hold.id) {
                self.let_go(session, hold, "by hand", Ended::Well);
            } else if let Some(call) = hold.wanted(&session.scene) {
                let cause = format!("demand: {call}");
                self.note(format!(
                    "{}: thawed: {call}",
                    printable(&hold.decision.path)
                ));
                self.let_go(session, hold, &cause, Ended::Wanted);
            } else {
                kept.push(hold);
            }
        }
        self.held = kept;
    }

    /// Takes back what is held.
    fn let_go(&self, session: &mut Session, hold: Hold, cause: &str, ended: Ended) {
        let mut result = hold.outcome;
        let settled = self.measure(session, hold.target.as_ref());
        result.kept_bytes = freed(result.before.as_ref(), &settled);
        let undone = session.let_go(hold.id);
        self.undone(hold.target.as_ref(), Some(hold.id), cause, &undone);
        result.verdict = OutcomeVerdict::Revert;
        let mut done = lesson(&result, Some(&settled), hold.begun, hold.cpus);
        done.reverted = ended == Ended::Harm;
        done.wanted = ended == Ended::Wanted;
        if done.wanted {
            result.notes.push(cause.to_owned());
        }
        if ended != Ended::Harm {
            session.went_well(&result.kind, &result.target);
        }
        self.came(hold.target.as_ref(), &hold.decision, result, done);
    }

    fn observations(&mut self, session: &mut Session) {
        let thresholds = session.scene.safety.watchdog.clone();
        let mut left = Vec::new();
        for mut watched in std::mem::take(&mut self.watched) {
            let trip = watched
                .watchdog
                .as_mut()
                .and_then(|watchdog| watchdog.look(&thresholds));
            if trip.is_none() && Instant::now() < watched.until && !stopped() {
                left.push(watched);
                continue;
            }
            let mut result = watched.outcome;
            let settled = self.measure(session, watched.target.as_ref());
            settle(&mut result, &settled);
            let mut done = lesson(&result, Some(&settled), watched.begun, watched.cpus);
            if let Some(trip) = trip {
                // What was reclaimed cannot be put back; it is not done again soon.
                let why = format!("{}: {}", trip.cause, trip.text);
                self.harmed(session, &result, &why);
                result.verdict = OutcomeVerdict::Revert;
                result.notes.push(why);
                done.reverted = true;
            } else {
                session.went_well(&result.kind, &result.target);
            }
            self.came(watched.target.as_ref(), &watched.decision, result, done);
        }
        self.watched = left;
    }

    fn measure(&self, session: &Session, target: Option<&Target>) -> ActionState {
        match target {
            Some(target) => measure::cgroup(&session.scene, target),
            None => measure::machine(&session.scene),
        }
    }

    fn release(&mut self, path: &str) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        for hold in std::mem::take(&mut self.held) {
            if hold.decision.path == path {
                self.let_go(&mut session, hold, "by hand", Ended::Well);
            } else {
                self.held.push(hold);
            }
        }
        self.session = Some(session);
    }

    fn reload(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        match Scene::find(&self.role.place) {
            Ok(scene) => session.go_by(Rc::new(scene)),
            Err(failure) => self.note(failure.message),
        }
    }

    /// Neither kept nor under a lease: it is taken back when we end, and by the guard when we are ended.
    fn report(&mut self, block: Option<u64>) {
        if self.role.shadow || block == self.reporting.map(|(_, block)| block) {
            return;
        }
        if self.session().is_none() {
            return;
        }
        let Some(mut session) = self.session.take() else {
            return;
        };
        if let Some((id, _)) = self.reporting.take() {
            let undone = session.undo(id, false);
            self.undone(None, Some(id), "by hand", &undone);
        }
        if let Some(block) = block {
            match self.set_report(&mut session, block) {
                Ok(id) => self.reporting = Some((id, block)),
                // Most machines are no guests, or their hosts do not ask.
                Err(failure) => self.note(failure.message),
            }
        }
        self.session = Some(session);
    }

    fn set_report(&self, session: &mut Session, block: u64) -> Result<u64, Failure> {
        let scene = Rc::clone(&session.scene);
        let page = rustix::param::page_size() as u64;
        let mut actuator = Report::new(&ReportArgs {
            order: (block / page).max(1).ilog2().into(),
        });
        let common = Common {
            dry_run: false,
            json: true,
            lease: None,
            force: false,
            reason: "guest: small blocks go back to the host too".to_owned(),
            place: self.role.place.clone(),
        };
        let mut plan = actuator.plan(&scene, &common)?;
        let id = session.begin(
            &plan.action.kind,
            &plan.action.target,
            &plan.action.reason,
            None,
        )?;
        plan.action.id = Some(id);
        plan.action.policy = Some("guest".to_owned());
        let action = Box::new(plan.action);
        self.say(Told::Event(None, Body::Action { action }));
        let mut silent = Tell::new(&scene, true);
        let mut act = Act {
            session,
            id,
            target: None,
            notes: Vec::new(),
            tell: &mut silent,
        };
        let done = actuator.act(&mut act);
        session.take_watchdog();
        if let Err(failure) = done {
            let undone = session.undo(id, false);
            self.undone(None, Some(id), &failure.message, &undone);
            return Err(failure);
        }
        Ok(id)
    }

    fn end(mut self) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        for hold in std::mem::take(&mut self.held) {
            self.let_go(&mut session, hold, "by hand", Ended::Well);
        }
        let undone = session.undo_all(false, false);
        self.undone(None, None, "by hand", &undone);
    }
}

fn cgroup_of(target: Option<&Target>) -> Option<Cgroup> {
    target.map(|target| identify(&target.path).cgroup(target.id, &target.path))
}

/// What is known of an action at the end of its observation.
fn settle(result: &mut ActionOutcome, settled: &ActionState) {
    result.kept_bytes = freed(result.before.as_ref(), settled);
    let before = result.before.as_ref();
    let since = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    result.refaults = since(before.and_then(|it| it.refaults), settled.refaults);
    result.psi_delta_us = since(before.and_then(|it| it.psi_some_us), settled.psi_some_us);
}

/// The same for the governor.
fn lesson(
    result: &ActionOutcome,
    settled: Option<&ActionState>,
    begun: Instant,
    cpus: Option<f64>,
) -> Outcome {
    let before = result.before.as_ref();
    let settled = settled.or(result.after.as_ref());
    let since = |figure: fn(&ActionState) -> Option<u64>| {
        let from = before.and_then(figure)?;
        Some(settled.and_then(figure)?.saturating_sub(from))
    };
    let elapsed_us = begun.elapsed().as_micros() as u64;
    let cpu = since(|state| state.cpu_us).filter(|_| elapsed_us > 0);
    Outcome {
        freed: result.freed_bytes.unwrap_or(0),
        kept: result.kept_bytes.unwrap_or(0),
        psi_some_us: since(|state| state.psi_some_us).unwrap_or(0),
        psi_full_us: since(|state| state.psi_full_us).unwrap_or(0),
        refaults: since(|state| state.refaults).unwrap_or(0),
        majors: since(|state| state.major_faults).unwrap_or(0),
        elapsed_us,
        cpu: cpu
            .zip(cpus)
            .map(|(us, before)| (us as f64 / elapsed_us as f64, before)),
        reverted: false,
        wanted: false,
    }
}
