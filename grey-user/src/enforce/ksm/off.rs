//! `ksm off`: no more scanning; and, asked for by name and only where it fits, no more merged pages.

use std::collections::BTreeMap;
use std::time::Duration;

use grey_core::act::{Knob, KnobFile, Value};
use grey_core::event::ActionState;
use grey_core::units::format_bytes;

use super::figures::{self, Users};
use super::{OffArgs, machine, plan, write_run, written};
use crate::act::session::refused;
use crate::act::{Scene, Target};
use crate::cli::Failure;
use crate::enforce::{Act, Actuator, Common, Plan};
use crate::host::MemInfo;

pub(crate) const HELP: &str =
    "Merged pages stay merged, and are unmerged one by one as they are written to.
--unmerge gives every process its own copies at once. It is refused unless the memory for them is
available with 128M to spare, and room under memory.max of every cgroup. Merging cannot be put back
but by scanning again: undoing `off` turns KSM on as it was.";

/// How long the kernel may take to unmerge all: it copies a page at a time, under the locks of each process.
const UNMERGE: Duration = Duration::from_secs(600);

/// `ksm off`.
pub(in crate::enforce) struct Off<'a> {
    args: &'a OffArgs,
    stop: bool,
    unmerge: bool,
}

impl<'a> Off<'a> {
    pub(in crate::enforce) fn new(args: &'a OffArgs) -> Self {
        Off {
            args,
            stop: false,
            unmerge: false,
        }
    }
}

impl Actuator for Off<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        let mut knobs = figures::knobs(scene)?;
        let run = knobs.get(&KnobFile::KsmRun).and_then(Value::as_number);
        let ksm = figures::machine(&scene.host, &mut Vec::new());
        let saved = figures::saved(&ksm);
        // At 2 it is off too, and nothing is merged: to make it 0 would leave a 2 to be written by undo, which unmerges
        // whatever was merged by then.
        self.stop = run != Some(0) && run != Some(2);
        self.unmerge = self.args.unmerge && run != Some(2);
        let mut writes = Vec::new();
        if self.stop {
            writes.push(written(
                &mut knobs,
                KnobFile::KsmRun,
                &Value::number(0),
                true,
            ));
        }
        let mut effect = if self.stop {
            "the scanning ends".to_owned()
        } else {
            "KSM is off already".to_owned()
        };
        if self.unmerge {
            let needed = saved.ok_or_else(|| {
                refused("--unmerge: /sys/kernel/mm/ksm/pages_sharing cannot be read, so that it is not known how much memory it takes")
            })?;
            fits(scene, needed)?;
            writes.push(written(
                &mut knobs,
                KnobFile::KsmRun,
                &Value::number(2),
                false,
            ));
            writes.push(written(
                &mut knobs,
                KnobFile::KsmRun,
                &Value::number(0),
                false,
            ));
            effect.push_str(&format!(
                "; {} of merged pages are copied, each process gets its own",
                format_bytes(needed)
            ));
        } else if let Some(saved) = saved.filter(|saved| *saved > 0) {
            effect.push_str(&format!(
                "; {} stay saved until they are written to",
                format_bytes(saved)
            ));
        }
        Ok(plan(common, writes, effect))
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let run = Knob::machine(KnobFile::KsmRun);
        if self.stop {
            act.session.set(act.id, &run, &Value::number(0))?;
        }
        if !self.unmerge {
            return Ok(());
        }
        let scene = std::rc::Rc::clone(&act.session.scene);
        let before = figures::saved(&figures::machine(&scene.host, &mut Vec::new()));
        // Between plan and now more may have been merged, or others have taken the memory.
        fits(&scene, before.unwrap_or(0))?;
        unmerge(act, &run)?;
        let after = figures::saved(&figures::machine(&scene.host, &mut Vec::new()));
        if let (Some(before), Some(after)) = (before, after) {
            act.notes.push(format!(
                "{} unmerged, {} still merged; that is not taken back, scanning again merges them again",
                format_bytes(before.saturating_sub(after)),
                format_bytes(after)
            ));
        }
        Ok(())
    }

    fn measure(&self, scene: &Scene, _target: Option<&Target>) -> ActionState {
        machine(scene)
    }
}

/// Writes 2, waits until all is unmerged, and leaves 0 there.
fn unmerge(act: &mut Act<'_>, run: &Knob) -> Result<(), Failure> {
    // Journalled like any change, so that a 2 is never left behind: undoing it writes 0, which does nothing but stop.
    act.session
        .set_within(act.id, run, &Value::number(2), UNMERGE)?;
    write_run(
        act,
        &Value::number(0),
        act.session.scene.safety.write_timeout,
    )
}

/// Whether there is memory for so many bytes of copies.
fn fits(scene: &Scene, needed: u64) -> Result<(), Failure> {
    let spare = scene.safety.watchdog.min_available;
    let available = MemInfo::read(&scene.host)
        .ok()
        .and_then(|info| info.available)
        .ok_or_else(|| {
            refused("--unmerge: MemAvailable cannot be read, so that it is not known whether there is memory for it")
        })?;
    if needed > available.saturating_sub(spare) {
        return Err(refused(format!(
            "--unmerge needs {}, and of the {} available {} have to stay free; end programs first, or leave it merged (`ksm off` alone)",
            format_bytes(needed),
            format_bytes(available),
            format_bytes(spare)
        )));
    }
    // A merged page is charged to the cgroup of one of its users; each of the others is charged for its copy.
    let merged = Users::all(&scene.host)
        .top
        .into_iter()
        .filter_map(|user| Some((user.cgroup?, user.merged_bytes?)));
    let mut by_cgroup: BTreeMap<String, u64> = BTreeMap::new();
    for (cgroup, bytes) in merged {
        for at in above(&cgroup) {
            let sum = by_cgroup.entry(at.to_owned()).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    for (cgroup, bytes) in by_cgroup {
        let figure = |file: &str| {
            let path = scene.cgroups.reach(&cgroup).join(file);
            std::fs::read_to_string(path)
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        // `max` is no figure, and no bound.
        let (Some(max), Some(current)) = (figure("memory.max"), figure("memory.current")) else {
            continue;
        };
        if bytes > max.saturating_sub(current) {
            return Err(refused(format!(
                "--unmerge may add up to {} to {cgroup}, and memory.max leaves it {}; its OOM killer would run: raise memory.max first, or leave it merged (`ksm off` alone)",
                format_bytes(bytes),
                format_bytes(max.saturating_sub(current))
            )));
        }
    }
    Ok(())
}

/// A cgroup and all above it but the root.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        path.rfind('/').map(|end| &path[..end])
    })
    .filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroups_above_one_are_all_but_the_root() {
        let list = |path| above(path).collect::<Vec<&str>>();
        assert_eq!(list("/a/b/c"), ["/a/b/c", "/a/b", "/a"]);
        assert_eq!(list("/a"), ["/a"]);
        assert_eq!(list("/"), [""; 0]);
    }
}
