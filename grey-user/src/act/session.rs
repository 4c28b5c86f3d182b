//! The right to act: lock, journal, guard. Every change and every blocking write goes through it, and while one waits
//! the guard hears from us and the watchdog looks.

mod failures;
mod real;
mod stop;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use grey_core::act::cooldown;
use grey_core::act::engine::Actor;
use grey_core::act::{ActError, Close, Damage, Engine, Fault, Harm, Knob, Ledger, Phase};
use grey_core::act::{Set, Undone, Value, World};

use crate::cli::Failure;

use super::guard::{self, Guard};
use super::journal::Journal;
use super::scene::{Scene, Target};
use super::watchdog::{Trip, Watchdog};
use real::Real;
use stop::catch_signals;

pub use failures::{act_failed, journal_failed, refused};
pub use stop::{ask_to_stop, stopped};

/// How often a wait looks up.
const TICK: Duration = Duration::from_millis(50);

/// What became of an action that another process undid.
const TAKEN_BACK: &str = "taken back meanwhile by `grey-ebpf rollback`; it is not gone on with";
/// How long a change waits for its turn: whoever takes longer is held up, and must not hold up undoing.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// How often it looks whether it has come.
const TURN_TICK: Duration = Duration::from_millis(2);

/// How a time of holding on to changes ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Over,
    /// Somebody asked us to end.
    Stopped,
    /// The watchdog saw harm.
    Harm(Trip),
    /// The guard is lost or has taken over.
    Guard(Fault),
}

/// The right to act.
#[derive(Debug)]
pub struct Session {
    /// What is known of the machine.
    pub scene: Rc<Scene>,
    engine: Engine<Real>,
    /// Whether it is our turn to change knobs.
    in_turn: bool,
    /// The action under way.
    current: Option<u64>,
    /// What of the journal could not be read.
    pub damage: Damage,
}

impl Session {
    /// Takes the lock, reads the journal, undoes what was left behind, starts the guard.
    ///
    /// # Errors
    /// Somebody else acts, the journal cannot be written, or the guard cannot be started: exit 3 or 4.
    pub fn open(scene: Rc<Scene>) -> Result<(Session, Undone), Failure> {
        let opened = Self::open_quietly(scene)?;
        catch_signals();
        Ok(opened)
    }

    /// As [`Session::open`], for a program that waits for signals itself and calls [`ask_to_stop`].
    ///
    /// # Errors
    /// As there.
    pub fn open_quietly(scene: Rc<Scene>) -> Result<(Session, Undone), Failure> {
        let opened = Journal::open(&scene.state_dir).map_err(|error| journal_failed(&error))?;
        let mut session = Session::over(scene, opened)?;
        let undone = session.in_turn(|session| {
            let mut undone = session.engine.close_other_boots();
            undone.extend(session.engine.undo_all(false, false));
            undone
        });
        let journal = &session.engine.world.journal;
        let config = guard::Config {
            journal: journal.path(),
            hang: session.scene.safety.hang,
            lock: journal.lock_fd(),
        };
        let guard = Guard::start(&config).map_err(|fault| {
            refused(format!(
                "the guard cannot be started: {fault}; nothing was changed"
            ))
        })?;
        session.engine.world.guard = Some(guard);
        Ok((session, undone))
    }

    /// The journal for undoing, without the lock and without a guard; `None` where there is no journal.
    ///
    /// # Errors
    /// The journal cannot be read: exit 3 or 4.
    pub fn attach(scene: Rc<Scene>) -> Result<Option<(Session, Undone)>, Failure> {
        let opened = Journal::attach(&scene.state_dir).map_err(|error| journal_failed(&error))?;
        let Some(opened) = opened else {
            return Ok(None);
        };
        let mut session = Session::over(scene, opened)?;
        let undone = session.in_turn(|session| session.engine.close_other_boots());
        Ok(Some((session, undone)))
    }

    fn over(
        scene: Rc<Scene>,
        (journal, ledger, damage): (Journal, Ledger, Damage),
    ) -> Result<Session, Failure> {
        let boot = scene
            .host
            .text("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Failure::unsupported(format!("{error}; mount /proc")))?;
        let actor = Actor {
            boot: boot.trim().to_owned(),
            pid: std::process::id(),
        };
        let real = Real {
            scene: Rc::clone(&scene),
            journal,
            guard: None,
            watchdog: None,
            trip: None,
            patience: None,
        };
        Ok(Session {
            engine: Engine::new(real, ledger, actor),
            scene,
            in_turn: false,
            current: None,
            damage,
        })
    }

    /// Does something to knobs and journal while no other process does, knowing all that others have noted. Where one of
    /// them is held up in its own turn, it is not waited for longer than a moment.
    pub fn in_turn<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        if self.in_turn {
            return work(self);
        }
        let end = Instant::now() + TURN_WAIT;
        let turn = loop {
            let turn = self.engine.world.journal.turn();
            if turn.is_some() || Instant::now() >= end {
                break turn;
            }
            // Trouble of ours comes up in the work itself.
            let _ = self.engine.world.tick();
            std::thread::sleep(TURN_TICK);
        };
        self.catch_up();
        self.in_turn = true;
        let done = work(self);
        self.in_turn = false;
        drop(turn);
        done
    }

    /// Takes over what other processes have written to the journal. Where it cannot be read, we go on from what we know.
    fn catch_up(&mut self) {
        if let Ok(Some(ledger)) = self.engine.world.journal.news() {
            self.engine.rejoin(ledger);
        }
    }

    /// The process that is acting at this moment, if it is another one.
    pub fn controller(&mut self) -> Option<u32> {
        self.engine.world.journal.controller()
    }

    /// Whether an action of ours was taken back by somebody else.
    fn ended_elsewhere(&self, id: u64) -> bool {
        self.ledger()
            .get(id)
            .is_some_and(|action| action.phase == Phase::Ended)
    }

    /// The journal's state.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.engine.ledger()
    }

    /// Begins an action under the watchdog's eyes; returns its id.
    ///
    /// # Errors
    /// The journal cannot be written (exit 4).
    pub fn begin(
        &mut self,
        kind: &str,
        name: &str,
        reason: &str,
        target: Option<&Target>,
    ) -> Result<u64, Failure> {
        let id = self
            .in_turn(|session| session.engine.begin(now_ms(), kind, name, reason))
            .map_err(|error| act_failed(&error))?;
        self.engine.world.watchdog = Some(Watchdog::new(&self.scene, target));
        self.engine.world.trip = None;
        self.current = Some(id);
        Ok(id)
    }

    /// Changes a knob.
    ///
    /// # Errors
    /// Then this change is not in force.
    pub fn set(&mut self, id: u64, knob: &Knob, value: &Value) -> Result<Set, Failure> {
        self.set_before(id, knob, value, None)
    }

    /// As [`Session::set`], for a file that the kernel itself changes along with the action's next change, and `leaves`
    /// with this value when that one is undone.
    ///
    /// # Errors
    /// As there.
    pub fn set_before(
        &mut self,
        id: u64,
        knob: &Knob,
        value: &Value,
        leaves: Option<&Value>,
    ) -> Result<Set, Failure> {
        self.poll()?;
        self.in_turn(|session| {
            if session.ended_elsewhere(id) {
                return Err(refused(format!("action {id} was {TAKEN_BACK}")));
            }
            session
                .engine
                .set_before(id, knob, value, leaves)
                .map_err(|error| act_failed(&error))
        })
    }

    /// As [`Session::set`], for a value that the kernel may take long to act on. Harm, a lost guard and a request to end
    /// break it off, as they do [`Session::write`].
    ///
    /// # Errors
    /// As there.
    pub fn set_within(
        &mut self,
        id: u64,
        knob: &Knob,
        value: &Value,
        within: Duration,
    ) -> Result<Set, Failure> {
        self.engine.world.patience = Some(within);
        let set = self.set(id, knob, value);
        self.engine.world.patience = None;
        set
    }

    /// What a knob holds.
    ///
    /// # Errors
    /// See [`files::read`].
    pub fn get(&mut self, knob: &Knob) -> Result<Value, Fault> {
        self.engine.world.read(knob)
    }

    /// One write that cannot be taken back, by a helper that can be ended. `Ok` has the bytes taken. A trip of the
    /// watchdog, a lost guard and a request to end break it off; [`Session::poll`] tells which.
    ///
    /// # Errors
    /// What write(2) failed with, or [`Fault::TimedOut`].
    pub fn write(
        &mut self,
        file: OwnedFd,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<usize, Fault> {
        self.engine.world.write_file(file, bytes, timeout)
    }

    /// Lets guard and watchdog have their turn; to be called between any two steps of an action.
    ///
    /// # Errors
    /// The action must end: harm (exit 4), the guard is lost (exit 4), or somebody asked for it (exit 1).
    pub fn poll(&mut self) -> Result<(), Failure> {
        self.engine.world.tick().map_err(|fault| {
            refused(format!(
                "{fault}; everything this command changed is taken back"
            ))
        })?;
        if let Some(trip) = &self.engine.world.trip {
            return Err(refused(format!("{}: {}", trip.cause, trip.text)));
        }
        if stopped() {
            return Err(Failure::failed(
                "interrupted; what was changed is taken back",
            ));
        }
        Ok(())
    }

    /// Waits under the eyes of guard and watchdog.
    ///
    /// # Errors
    /// As [`Session::poll`].
    pub fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            self.poll()?;
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return Ok(());
            };
            std::thread::sleep(left.min(TICK));
        }
    }

    /// Puts an action's changes under a lease: the guard takes them back after it, whatever happens to us.
    ///
    /// # Errors
    /// The guard is lost.
    pub fn lease(&mut self, id: u64, lease: Duration) -> Result<(), Failure> {
        let Some(guard) = &mut self.engine.world.guard else {
            return Ok(());
        };
        guard
            .lease(id, Some(lease))
            .map_err(|fault| act_failed(&ActError::Guard(fault)))
    }

    /// Holds on to what was done for `time`. `each` is called about twenty times a second with the time left.
    pub fn hold(&mut self, time: Duration, mut each: impl FnMut(Duration)) -> End {
        let end = Instant::now() + time;
        loop {
            if let Err(fault) = self.engine.world.tick() {
                return End::Guard(fault);
            }
            if let Some(trip) = self.engine.world.trip.clone() {
                return End::Harm(trip);
            }
            if stopped() {
                return End::Stopped;
            }
            self.catch_up();
            if self.current.is_some_and(|id| self.ended_elsewhere(id)) {
                return End::Stopped;
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return End::Over;
            };
            each(left);
            std::thread::sleep(left.min(TICK));
        }
    }

    /// The harm that the watchdog saw, if any.
    #[must_use]
    pub fn trip(&self) -> Option<&Trip> {
        self.engine.world.trip.as_ref()
    }

    /// Notes that harm followed an action.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn harmed(&mut self, kind: &str, target: &str, why: &str) -> Result<(), Failure> {
        let count = self
            .ledger()
            .lookback(kind, target)
            .and_then(|lookback| lookback.harm.as_ref())
            .map_or(0, |harm| harm.count);
        let harm = Harm {
            kind: kind.to_owned(),
            target: target.to_owned(),
            at: now_ms(),
            count: count.saturating_add(1),
            why: why.to_owned(),
        };
        self.in_turn(|session| session.engine.harmed(harm))
            .map_err(|error| act_failed(&error))
    }

    /// Notes that an action went well: earlier harm counts for less from now on. Where that cannot be noted, the next
    /// cool-down is only longer than it need be.
    pub fn went_well(&mut self, kind: &str, target: &str) {
        let safety = &self.scene.safety;
        let lighter = self
            .ledger()
            .lookback(kind, target)
            .and_then(|lookback| lookback.harm.as_ref())
            .and_then(|harm| {
                cooldown::after_success(harm, safety.cooldown, safety.cooldown_max, now_ms())
            });
        if let Some(harm) = lighter {
            let _ = self.in_turn(|session| session.engine.harmed(harm));
        }
    }

    /// The action's changes stay, unless a last look of the watchdog shows harm.
    ///
    /// # Errors
    /// Harm, or the journal cannot be written: then they do not, and the caller takes them back.
    pub fn keep(&mut self, id: u64) -> Result<(), Failure> {
        let world = &mut self.engine.world;
        if let (None, Some(watchdog)) = (&world.trip, &mut world.watchdog) {
            world.trip = watchdog.look_now(&self.scene.safety.watchdog);
        }
        if let Some(trip) = &world.trip {
            return Err(refused(format!("{}: {}", trip.cause, trip.text)));
        }
        world.watchdog = None;
        self.in_turn(|session| {
            if session.ended_elsewhere(id) {
                return Err(refused(format!("action {id} was {TAKEN_BACK}")));
            }
            session
                .engine
                .keep(id)
                .map_err(|error| refused(format!("{error}; what was changed is taken back")))
        })
    }

    /// Goes by these bounds and this protection from now on. The journal stays where it is.
    pub fn go_by(&mut self, scene: Rc<Scene>) {
        self.engine.world.scene = Rc::clone(&scene);
        self.scene = scene;
    }

    /// Lets the guard hear from us, with no action under way.
    ///
    /// # Errors
    /// The guard is lost or has taken over.
    pub fn beat(&mut self) -> Result<(), Fault> {
        self.engine.world.check()
    }

    /// The watchdog of the action under way, for somebody who goes on looking while others act.
    pub fn take_watchdog(&mut self) -> Option<Watchdog> {
        self.current = None;
        self.engine.world.watchdog.take()
    }

    /// Whether another process has taken this action back.
    pub fn was_taken_back(&mut self, id: u64) -> bool {
        self.catch_up();
        self.ended_elsewhere(id)
    }

    /// Has the watchdog look at `target` from now on, as after the end of an action within another one.
    pub fn watch(&mut self, target: Option<&Target>) {
        self.engine.world.watchdog = Some(Watchdog::new(&self.scene, target));
    }

    /// Takes an action's changes back.
    pub fn undo(&mut self, id: u64, force: bool) -> Undone {
        self.engine.world.watchdog = None;
        self.in_turn(|session| {
            let undone = session.engine.undo(id, force);
            if undone.failed.is_empty() {
                // Also what somebody else has taken back.
                let _ = session.engine.world.release(id, None);
            }
            undone
        })
    }

    /// As [`Session::undo`] of an action that was held until now: where the guard was faster, as at the end of a lease, what
    /// it has put back is told all the same.
    pub fn let_go(&mut self, id: u64) -> Undone {
        let mut undone = self.undo(id, false);
        let told = [
            undone.restored.len(),
            undone.skipped.len(),
            undone.failed.len(),
        ];
        if told == [0; 3]
            && let Some(action) = self.ledger().get(id)
        {
            let back = |how| matches!(how, Some(Close::Restored | Close::Back));
            let steps = action.steps.iter().filter(|step| back(step.closed));
            undone.restored = steps
                .map(|step| (step.knob.clone(), step.new.clone(), step.old.clone()))
                .collect();
        }
        undone
    }

    /// As [`Session::undo`], but also what was left to somebody else's write before is taken back.
    ///
    /// # Errors
    /// The journal cannot be written, or a file cannot be read: exit 4 or 1.
    pub fn undo_foreign(&mut self, id: u64) -> Result<Undone, Failure> {
        self.in_turn(|session| {
            session
                .engine
                .reopen(id)
                .map_err(|fault| act_failed(&ActError::Journal(fault)))?;
            Ok(session.engine.undo(id, true))
        })
    }

    /// Makes the journal short again if it has grown long: for those that live long.
    ///
    /// # Errors
    /// There is no room for the new one; the old one stays.
    pub fn tidy(&mut self) -> Result<(), Fault> {
        if !self.engine.world.journal.is_long() {
            return Ok(());
        }
        self.in_turn(|session| {
            let ledger = session.ledger().clone();
            session.engine.world.journal.compact(&ledger).map(|_| ())
        })
    }

    /// Takes back all that is in force: what was broken off, and what was meant to stay if `kept`.
    pub fn undo_all(&mut self, kept: bool, force: bool) -> Undone {
        self.in_turn(|session| session.engine.undo_all(kept, force))
    }
}

/// Wall-clock milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
