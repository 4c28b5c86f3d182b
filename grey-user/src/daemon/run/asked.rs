//! What is asked of the daemon: its configuration, by SIGHUP, and questions over the socket.

use grey_core::govern::PolicyKind;
use serde_json::json;

use super::{Daemon, LONGEST_ACTING};
use crate::act::Scene;
use crate::config;
use crate::daemon::actor::Order;
use crate::daemon::status::{self, About, Asked, Question};
use crate::source::{Clock, Observer, Pace};
use crate::watch::LONGEST;

impl Daemon<'_> {
    /// SIGHUP: the new configuration as a whole, or the old one.
    pub(super) fn reload(&mut self) {
        self.notify.reloading();
        let loaded = config::load(self.args.place.config.as_deref())
            .and_then(|config| Ok((config, Scene::find(&self.args.place)?)));
        match loaded {
            Ok((config, scene)) => {
                self.governor.configure(config.govern.clone());
                self.config = config;
                self.ask_host();
                self.scene.safety = scene.safety;
                self.scene.protection = scene.protection;
                self.reload_failed = None;
                if let Some(orders) = &self.orders {
                    let _ = orders.send(Order::Reload);
                }
                self.report_free();
                self.note("configuration reloaded");
            }
            Err(failure) => {
                self.note(format!(
                    "configuration not reloaded, the old one holds: {}",
                    failure.message
                ));
                self.reload_failed = Some(failure.message);
            }
        }
        self.notify.ready(&self.policy());
    }

    /// From now on as the configuration says.
    pub(super) fn ask_host(&mut self) {
        if let Some(line) = self.host_side.configure(self.config.host_pressure.clone()) {
            self.note(line);
        }
    }

    /// Which free blocks the host is told of, where anybody is governed as a guest.
    pub(super) fn report_free(&self) {
        let settings = self.governor.settings();
        let guest = Some(PolicyKind::Guest);
        let guests = Some(settings.policy) == guest
            || settings.overrides.iter().any(|over| over.policy == guest);
        let block = settings.guest.report_block.filter(|_| guests);
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order::Report(block));
        }
    }

    /// For people who look at the service.
    pub(super) fn policy(&self) -> String {
        let policy = self.governor.settings().policy;
        match (&self.reload_failed, self.args.shadow) {
            (Some(why), _) => format!("policy {policy}; the configuration on disk is wrong: {why}"),
            (None, true) => format!("policy {policy}, in shadow"),
            (None, false) => format!("policy {policy}"),
        }
    }

    /// How often is looked, and how seldom at most.
    pub(super) fn pace(&self) -> Pace {
        let settings = self.governor.settings();
        let acts = settings.policy != PolicyKind::Observe || !settings.overrides.is_empty();
        Pace {
            interval: self.args.interval,
            longest: if acts { LONGEST_ACTING } else { LONGEST },
            recorder: true,
        }
    }

    pub(super) fn answer(&mut self, (question, answer): Asked, observer: &Observer) {
        let now = Clock::wall();
        let said = |text: String| json!({ "said": text });
        let value = match question {
            Question::Status {} => {
                let about = About {
                    since: self.since,
                    now,
                    shadow: self.args.shadow,
                    config: &self.config.files,
                    reload_failed: self.reload_failed.as_deref(),
                    incidents: self.incidents,
                    notes: &self.notes,
                    budget: observer.budget_figures(),
                };
                status::status(&self.governor, &about)
            }
            Question::Bad { cgroup } => {
                let count = self.governor.feedback_bad(now, cgroup.as_deref());
                said(format!(
                    "noted: {count} actions of the last five minutes were bad"
                ))
            }
            Question::Forget {} => {
                self.governor.forget();
                if let Some(line) = self.learned.keep(self.governor.model()) {
                    self.note(line);
                }
                said("what was learned is forgotten".to_owned())
            }
            Question::Release { cgroup } => {
                if let Some(orders) = &self.orders {
                    let _ = orders.send(Order::Release(cgroup.clone()));
                }
                said(format!("what is held on {cgroup} is taken back"))
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(value);
    }
}
