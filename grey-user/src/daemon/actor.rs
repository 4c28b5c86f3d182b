//! The one who acts: a thread with the right to do so (lock, journal, guard). Decisions come in, events and outcomes go
//! out; what it holds under a lease is looked after while it waits. The observer never waits for it.

mod holds;
mod lesson;
mod reporting;

use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use grey_core::event::{ActionOutcome, ActionState, Body, Cgroup, OutcomeVerdict};
use grey_core::govern::{Decision, Outcome, Rung};
use grey_core::identity::identify;
use tokio::sync::mpsc::UnboundedSender;

use crate::act::guard::BEAT;
use crate::act::watchdog::{Watchdog, cooled_down};
use crate::act::{Scene, Session, Target, measure};
use crate::cli::Failure;
use crate::enforce::tell::{Tell, rollback};
use crate::enforce::{Act, Place, outcome};
use crate::host::Call;

use super::demand::Demand;
use super::means::{Means, common};
use lesson::{lesson, settle};

/// How often it looks at what it holds.
const TICK: Duration = Duration::from_millis(50);
/// And how often at all: the guard wants to hear from it that often.
const IDLE: Duration = BEAT;
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
        let busy = !(actor.held.is_empty() && actor.watched.is_empty());
        match orders.recv_timeout(if busy { TICK } else { IDLE }) {
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
