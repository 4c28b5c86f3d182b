//! `enforce freeze` and `enforce thaw`: a cgroup's processes are stopped, always for a bounded time, and go on again.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use grey_core::act::{Knob, KnobFile, Set, Value};
use grey_core::event::{ActionPlan, PlannedWrite};
use grey_core::view::printable;
use rustix::fs::OFlags;

use crate::act::scene::Touch;
use crate::act::session::refused;
use crate::act::{Scene, Session, Target, files};
use crate::cli::Failure;
use crate::host::ProcFs;

use super::{Act, Actuator, Common, Plan, time};

pub(crate) const FREEZE_EXAMPLES: &str = "Examples:
  grey-ebpf enforce freeze idle.service --yes                for a minute
  grey-ebpf enforce freeze idle.service --yes --lease 10m    for longer; Ctrl-C lets it go on at once
  grey-ebpf enforce freeze idle.service --dry-run            what would stop

Its processes do not run, answer or time out until the lease ends, and hold what locks they hold. It goes on by itself
at the end of the lease, and within 2 s if this command dies.";

pub(crate) const THAW_EXAMPLES: &str = "Examples:
  grey-ebpf enforce thaw idle.service        whoever froze it

A cgroup below a frozen one stays frozen until that one is thawed.";

/// How long it stays frozen unless somebody says otherwise.
const LEASE: Duration = Duration::from_secs(60);
/// The kernel stops a process when it next leaves the kernel; one in a disk wait may take its time.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Names shown to who is asked.
const NAMES: usize = 4;

/// Arguments of `freeze`.
#[derive(Clone, Debug, clap::Args)]
pub struct FreezeArgs {
    /// Path, unit or container name
    pub cgroup: String,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `thaw`.
#[derive(Clone, Debug, clap::Args)]
pub struct ThawArgs {
    /// Path, unit or container name
    pub cgroup: String,
}

/// Stops.
pub(crate) struct Freeze<'a> {
    args: &'a FreezeArgs,
    knob: Option<Knob>,
    processes: usize,
}

/// Lets go on.
pub(crate) struct Thaw<'a> {
    args: &'a ThawArgs,
    held: Held,
}

/// Who keeps a cgroup from running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Its own cgroup.freeze is 1.
    itself: bool,
    /// The nearest ancestor whose is.
    ancestor: Option<String>,
}

impl<'a> Freeze<'a> {
    pub(crate) fn new(args: &'a FreezeArgs) -> Self {
        Freeze {
            args,
            knob: None,
            processes: 0,
        }
    }
}

impl<'a> Thaw<'a> {
    pub(crate) fn new(args: &'a ThawArgs) -> Self {
        Thaw {
            args,
            held: Held::default(),
        }
    }
}

impl Actuator for Freeze<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        // Never the root, what we or the guard run in, or anything that holds what is protected.
        let target = scene.target(&self.args.cgroup, Touch::Change)?;
        let path = printable(&target.path);
        let cgroups = below(scene, &target.path)?;
        let held = held(scene, &target.path)?;
        if held.itself {
            return Err(refused(format!(
                "{path}: is frozen already, and not by this program; `grey-ebpf enforce thaw` lets it go on"
            )));
        }
        let mut pids = Vec::new();
        for cgroup in &cgroups {
            // A threaded cgroup's processes are counted at its domain.
            pids.extend(scene.cgroups.pids(cgroup).unwrap_or_default());
        }
        if pids.is_empty() {
            return Err(Failure::usage(format!(
                "{path}: has no process in it or below, so that nothing would stop; name the cgroup that has them"
            )));
        }
        self.processes = pids.len();
        let lease = common.lease.unwrap_or(LEASE);
        if !common.dry_run && !self.args.yes {
            confirm(&target.path, &pids, &names(scene, &pids), lease)?;
        }
        let knob = Knob::cgroup(&target.path, target.id, KnobFile::Freeze);
        let mut effect = format!(
            "{} stop until the lease ends; what they hold stays in memory and becomes cold",
            processes(pids.len())
        );
        if let Some(ancestor) = held.ancestor {
            effect.push_str(&format!(
                "; they are stopped already by {}",
                printable(&ancestor)
            ));
        }
        let plan = plan("freeze", &knob, "0", "1", true, common, effect);
        self.knob = Some(knob);
        Ok(Plan {
            action: plan,
            target: Some(target),
            lease: Some(lease),
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let (Some(knob), Some(target)) = (&self.knob, act.target) else {
            return Err(Failure::failed("freeze: without a plan"));
        };
        if act.session.set(act.id, knob, &Value::number(1))? == Set::Unchanged {
            return Err(refused(format!(
                "{knob}: somebody else froze it just now; theirs stays"
            )));
        }
        let start = Instant::now();
        let note = match await_frozen(act.session, target, true)? {
            true => format!(
                "{} stopped after {}",
                processes(self.processes),
                time(start.elapsed())
            ),
            false => format!(
                "after {} the kernel does not call it frozen: a process of it is held up inside the kernel, the others stand",
                time(PATIENCE)
            ),
        };
        act.notes.push(note);
        Ok(())
    }
}

impl Actuator for Thaw<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        if common.lease.is_some() {
            return Err(Failure::usage(
                "thaw: has no --lease: it stops nothing again; `grey-ebpf enforce freeze` does, for a time",
            ));
        }
        let target = scene.target(&self.args.cgroup, Touch::Change)?;
        self.held = held(scene, &target.path)?;
        let knob = Knob::cgroup(&target.path, target.id, KnobFile::Freeze);
        let effect = match &self.held {
            Held { itself: true, .. } => "its processes go on".to_owned(),
            Held {
                ancestor: Some(ancestor),
                ..
            } => {
                return Err(Failure::failed(format!(
                    "{}: is not frozen itself; {} above it is and holds it: thaw that one",
                    printable(&target.path),
                    printable(ancestor)
                )));
            }
            _ => "none: it is not frozen".to_owned(),
        };
        let mut action = plan("thaw", &knob, "1", "0", false, common, effect);
        if !self.held.itself {
            action.writes.clear();
        }
        Ok(Plan {
            action,
            target: Some(target),
            lease: None,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let Some(target) = act.target else {
            return Err(Failure::failed("thaw: without a plan"));
        };
        if !self.held.itself {
            act.notes
                .push("it was not frozen; nothing was written".to_owned());
            return Ok(());
        }
        // What this program froze was taken back when the journal was opened: this is somebody else's, and putting it
        // back would stop a cgroup without a lease. So it is no change that rollback knows.
        let knob = Knob::cgroup(&target.path, target.id, KnobFile::Freeze);
        let scene = std::rc::Rc::clone(&act.session.scene);
        if held(&scene, &target.path)?.itself {
            let failed = |fault| Failure::failed(format!("{knob}: {fault}"));
            let file =
                files::open(&scene.host, &scene.cgroups, &knob, OFlags::WRONLY).map_err(failed)?;
            let timeout = scene.safety.write_timeout;
            let written = act.session.write(file, b"0", timeout);
            act.session.poll()?;
            written.map_err(failed)?;
            act.notes
                .push("it was frozen by somebody else; cgroup.freeze is 0 now".to_owned());
        } else {
            act.notes
                .push("it goes on already: nothing was written".to_owned());
        }
        let after = held(&scene, &target.path)?;
        if after.itself {
            return Err(Failure::failed(format!(
                "{knob}: holds 1 again: somebody else freezes it"
            )));
        }
        if let Some(ancestor) = after.ancestor {
            return Err(Failure::failed(format!(
                "{}: is thawed itself and does not run yet: {} above it is frozen; thaw that one",
                printable(&target.path),
                printable(&ancestor)
            )));
        }
        if !await_frozen(act.session, target, false)? {
            return Err(Failure::failed(format!(
                "{}: the kernel still calls it frozen after {}",
                printable(&target.path),
                time(PATIENCE)
            )));
        }
        Ok(())
    }
}

fn plan(
    kind: &str,
    knob: &Knob,
    old: &str,
    new: &str,
    reversible: bool,
    common: &Common,
    effect: String,
) -> ActionPlan {
    ActionPlan {
        id: None,
        kind: kind.to_owned(),
        target: knob.cgroup_path().unwrap_or_default().to_owned(),
        planned_bytes: None,
        reason: common.reason.clone(),
        dry_run: false,
        writes: vec![PlannedWrite {
            file: knob.to_string(),
            old: Some(old.to_owned()),
            new: new.to_owned(),
            reversible,
        }],
        effect: Some(effect),
        lease_s: None,
        policy: None,
        expected_harm: None,
    }
}

/// Whether `path` is `ancestor` or below it.
fn within(path: &str, ancestor: &str) -> bool {
    match path.strip_prefix(ancestor.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The cgroup and all below it.
fn below(scene: &Scene, path: &str) -> Result<Vec<String>, Failure> {
    let walk = scene
        .cgroups
        .walk()
        .map_err(|error| Failure::unsupported(error.to_string()))?;
    Ok(walk
        .cgroups
        .into_iter()
        .map(|entry| entry.path)
        .filter(|below| within(below, path))
        .collect())
}

/// Who keeps it from running.
fn held(scene: &Scene, path: &str) -> Result<Held, Failure> {
    let freeze = |path: &str| -> Result<bool, Failure> {
        let id = scene.cgroups.id_of(path).unwrap_or_default();
        let knob = Knob::cgroup(path, id, KnobFile::Freeze);
        files::read(&scene.host, &scene.cgroups, &knob)
            .map(|value| value.as_number() == Some(1))
            .map_err(|fault| {
                Failure::unsupported(format!(
                    "{knob}: {fault}; cgroups can be frozen since Linux 5.2, the root never"
                ))
            })
    };
    let mut held = Held {
        itself: freeze(path)?,
        ancestor: None,
    };
    let mut at = path;
    while let Some((parent, _)) = at.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        if freeze(parent)? {
            held.ancestor = Some(parent.to_owned());
            break;
        }
        at = parent;
    }
    Ok(held)
}

/// Waits until cgroup.events says so; false where it does not get there in time.
fn await_frozen(session: &mut Session, target: &Target, wanted: bool) -> Result<bool, Failure> {
    let scene = std::rc::Rc::clone(&session.scene);
    let file = scene.cgroups.reach(&target.path).join("cgroup.events");
    let end = Instant::now() + PATIENCE;
    loop {
        session.poll()?;
        let text = std::fs::read_to_string(&file).map_err(|error| {
            Failure::failed(format!("{}: {error}", printable(&file.to_string_lossy())))
        })?;
        let frozen = text.lines().find_map(|line| line.strip_prefix("frozen "));
        if frozen == Some(if wanted { "1" } else { "0" }) {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        session.wait(LOOK_EVERY)?;
    }
}

fn processes(count: usize) -> String {
    match count {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    }
}

fn names(scene: &Scene, pids: &[u32]) -> String {
    let Ok(mut proc) = ProcFs::open(&scene.host) else {
        return String::new();
    };
    let mut names: Vec<String> = pids
        .iter()
        .take(NAMES)
        .filter_map(|pid| Some(printable(&proc.comm(*pid).ok()??).into_owned()))
        .collect();
    if pids.len() > NAMES {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// Asks, where somebody can be asked.
fn confirm(path: &str, pids: &[u32], names: &str, lease: Duration) -> Result<(), Failure> {
    let path = printable(path);
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(refused(format!(
            "{path}: freezing stops its {}; nobody is here to ask: say --yes",
            processes(pids.len())
        )));
    }
    let question = format!(
        "Freeze {path}: {} ({names}) stop for {}? [y/N] ",
        processes(pids.len()),
        time(lease)
    );
    let _ = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(refused(format!("{path}: not confirmed; nothing was done")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_within_itself_and_its_ancestors_by_whole_names() {
        for (path, ancestor, want) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a/b", "/", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
            ("/", "/", true),
        ] {
            assert_eq!(within(path, ancestor), want, "{path} {ancestor}");
        }
    }
}
