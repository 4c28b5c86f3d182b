//! What is in force for a time, and what is over and looked at.

use std::time::Instant;

use grey_core::event::OutcomeVerdict;
use grey_core::view::printable;

use crate::act::Session;
use crate::act::session::stopped;
use crate::enforce::freed;

use super::{Actor, Ended, Hold, TIDY, lesson, settle};

impl Actor<'_> {
    /// Guard, leases, watchdogs, observations.
    pub(super) fn look_after(&mut self) {
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

    pub(super) fn holds(&mut self, session: &mut Session) {
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
    pub(super) fn let_go(&self, session: &mut Session, hold: Hold, cause: &str, ended: Ended) {
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

    pub(super) fn observations(&mut self, session: &mut Session) {
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
}
