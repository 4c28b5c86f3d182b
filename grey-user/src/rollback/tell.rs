//! What `rollback` tells: a few lines an action for people, `rollback` events for pipelines.

use std::fmt::Write as _;

use grey_core::act::{Action, Close, Damage, Knob, Place, Undone};
use grey_core::identity::identify;
use grey_core::view::printable;

use crate::act::{Scene, files};
use crate::cli::{self, Failure};
use crate::enforce;

/// Where it is told.
pub(super) struct Tell<'a> {
    scene: &'a Scene,
    json: bool,
    events: enforce::Tell,
}

impl<'a> Tell<'a> {
    pub fn new(scene: &'a Scene, json: bool) -> Tell<'a> {
        Tell {
            scene,
            json,
            events: enforce::Tell::new(scene, json),
        }
    }

    /// What of the journal could not be used.
    pub fn damage(&self, damage: &Damage) {
        self.events.damage(damage);
    }

    /// There was nothing to do. Means nothing to a pipeline, which sees no events.
    pub fn nothing(&self, why: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        cli::print(&format!("nothing to undo: {why}\n")).map(|_| ())
    }

    /// What was taken back of one action, or of all those from before the last boot.
    pub fn undone(
        &mut self,
        action: Option<&Action>,
        cause: &str,
        undone: &Undone,
    ) -> Result<(), Failure> {
        if undone.restored.is_empty() && undone.skipped.is_empty() && undone.failed.is_empty() {
            return Ok(());
        }
        if self.json {
            let cgroup = action.and_then(|action| cgroup(action, undone));
            let id = action.map(|action| action.id);
            return self.events.rollback(cgroup, id, cause, undone);
        }
        let mut text = match action {
            Some(action) => format!("action {}: {}\n", action.id, title(action)),
            None => format!("{cause}\n"),
        };
        for (knob, from, to) in &undone.restored {
            let _ = writeln!(text, "  {}  {from} -> {to}", file(knob));
        }
        for (knob, how) in &undone.skipped {
            let _ = writeln!(
                text,
                "  {}  left alone: {}",
                file(knob),
                self.why(action, knob, *how)
            );
        }
        for (knob, fault) in &undone.failed {
            let _ = writeln!(text, "  {}  NOT put back: {fault}", file(knob));
        }
        cli::print(&text).map(|_| ())
    }

    fn why(&self, action: Option<&Action>, knob: &Knob, how: Close) -> String {
        let (Close::Foreign, Some(action)) = (how, action) else {
            return how.to_string();
        };
        let now = match files::read(&self.scene.host, &self.scene.cgroups, knob) {
            Ok(now) => format!(" (holds {now})"),
            Err(_) => String::new(),
        };
        format!("{how}{now}; --id {} --force overwrites it", action.id)
    }
}

/// `limit /web.service`.
pub(super) fn title(action: &Action) -> String {
    if action.kind.is_empty() {
        return "what it was is lost from the journal".to_owned();
    }
    format!("{} {}", printable(&action.kind), printable(&action.target))
}

fn file(knob: &Knob) -> String {
    printable(&knob.to_string()).into_owned()
}

/// The cgroup that an action is about, if all its files are of one.
fn cgroup(action: &Action, undone: &Undone) -> Option<grey_core::event::Cgroup> {
    let restored = undone.restored.iter().map(|(knob, ..)| knob);
    let skipped = undone.skipped.iter().map(|(knob, _)| knob);
    let failed = undone.failed.iter().map(|(knob, _)| knob);
    let mut places = restored
        .chain(skipped)
        .chain(failed)
        .map(|knob| &knob.place);
    let first = places.next()?;
    match first {
        Place::Cgroup { cgroup, cgroup_id }
            if *cgroup == action.target && places.all(|place| place == first) =>
        {
            Some(identify(cgroup).cgroup(*cgroup_id, cgroup))
        }
        _ => None,
    }
}
