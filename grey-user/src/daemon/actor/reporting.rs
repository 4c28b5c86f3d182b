//! Which blocks a guest reports to its host while the daemon runs.

use std::rc::Rc;

use grey_core::event::Body;

use crate::act::Session;
use crate::cli::Failure;
use crate::enforce::report::{Report, ReportArgs};
use crate::enforce::tell::Tell;
use crate::enforce::{Act, Actuator as _, Common};

use super::{Actor, Told};

impl Actor<'_> {
    /// Neither kept nor under a lease: it is taken back when we end, and by the guard when we are ended.
    pub(super) fn report(&mut self, block: Option<u64>) {
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

    pub(super) fn set_report(&self, session: &mut Session, block: u64) -> Result<u64, Failure> {
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
}
