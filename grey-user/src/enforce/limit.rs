//! `enforce limit`: a cgroup's memory.high, max, low, min and swap.max.

mod check;

use std::os::fd::OwnedFd;
use std::time::Duration;

use grey_core::act::{Fault, Knob, KnobFile, Set, Value};
use grey_core::event::{ActionPlan, PlannedWrite};
use grey_core::units::{self, Size, format_bytes};

use crate::act::scene::Touch;
use crate::act::{Scene, Target, files, measure};
use crate::cli::Failure;
use crate::host::{CgroupDetail, MemInfo};

use super::reclaim::{self, Room, Take, Way, no_controller};
use super::{Act, Actuator, Common, Plan};
use check::{Facts, Limits};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce limit web.service --high 512M               throttle above half a GiB, until undone
  grey-ebpf enforce limit web.service --high 80% --lease 60s    80 % of what it uses now, for a minute
  grey-ebpf enforce limit /batch.slice --max 2G --swap-max 0
  grey-ebpf enforce limit web.service --high max                no limit

A percentage is one of memory.current. A limit is at least 64M. memory.max under what is in use would call the OOM
killer: --force is needed. What is over the new limit is reclaimed first, 32M at a time, then the limit is set.";

/// How long the write of a limit may take: it reclaims what is over it.
const LIMIT: Duration = Duration::from_secs(60);

/// Arguments of `limit`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
pub struct LimitArgs {
    /// Path, unit or container name
    pub cgroup: String,
    /// memory.high: above it the cgroup is slowed down and reclaimed
    #[arg(long, value_name = "SIZE", value_parser = limit, group = "limits")]
    pub high: Option<Wanted>,
    /// memory.max: above it the OOM killer runs
    #[arg(long, value_name = "SIZE", value_parser = limit, group = "limits")]
    pub max: Option<Wanted>,
    /// memory.min: never reclaimed
    #[arg(long, value_name = "SIZE", value_parser = limit, group = "limits")]
    pub min: Option<Wanted>,
    /// memory.low: reclaimed last
    #[arg(long, value_name = "SIZE", value_parser = limit, group = "limits")]
    pub low: Option<Wanted>,
    /// memory.swap.max: what may be swapped out
    #[arg(long, value_name = "SIZE", value_parser = limit, group = "limits")]
    pub swap_max: Option<Wanted>,
}

/// A limit as given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// `max`.
    Max,
    /// Bytes, or percent of what is in use.
    Size(Size),
}

fn limit(text: &str) -> Result<Wanted, String> {
    if text == "max" {
        return Ok(Wanted::Max);
    }
    units::parse_size(text)
        .map(Wanted::Size)
        .map_err(|error| error.to_string())
}

/// The action.
pub(crate) struct Limit<'a> {
    args: &'a LimitArgs,
    force: bool,
    changes: Vec<(Knob, Value)>,
    /// What is over the new limit and how it is reclaimed before the limit is set.
    first: Option<(u64, OwnedFd)>,
}

impl<'a> Limit<'a> {
    pub(crate) fn new(args: &'a LimitArgs) -> Self {
        Limit {
            args,
            force: false,
            changes: Vec::new(),
            first: None,
        }
    }
}

/// The files in the order of writing: memory.high before memory.max, so that what can be reclaimed is gone before the OOM
/// killer would look.
fn wanted(args: &LimitArgs) -> impl Iterator<Item = (KnobFile, Wanted)> + use<> {
    [
        (KnobFile::MemoryMin, args.min),
        (KnobFile::MemoryLow, args.low),
        (KnobFile::SwapMax, args.swap_max),
        (KnobFile::MemoryHigh, args.high),
        (KnobFile::MemoryMax, args.max),
    ]
    .into_iter()
    .filter_map(|(file, wanted)| Some((file, wanted?)))
}

impl Actuator for Limit<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        let target = scene.target(&self.args.cgroup, Touch::Change)?;
        self.force = common.force;
        let detail = CgroupDetail::read(&scene.cgroups, &target.path)
            .map_err(|error| Failure::unsupported(format!("{error}; run it as root")))?
            .ok_or_else(|| Failure::usage(format!("{}: the cgroup is gone", target.path)))?;
        let mut facts = facts(scene, common, &target, &detail);
        let page = rustix::param::page_size() as u64;
        let mut writes = Vec::new();
        let mut told = Vec::new();
        let mut set = Vec::new();
        for (file, wanted) in wanted(self.args) {
            let knob = Knob::cgroup(&target.path, target.id, file);
            let old = files::read(&scene.host, &scene.cgroups, &knob)
                .map_err(|fault| cannot(&knob, &fault, &target.path, detail.current))?;
            let bytes = bytes(wanted, facts.used, &target.path)?;
            check::allowed(&facts, file, bytes)?;
            match file {
                KnobFile::MemoryMin => facts.after.min = bytes.unwrap_or(u64::MAX),
                KnobFile::MemoryLow => facts.after.low = bytes.unwrap_or(u64::MAX),
                KnobFile::MemoryHigh => facts.after.high = bytes,
                KnobFile::MemoryMax => facts.after.max = bytes,
                _ => {}
            }
            let new = Value::limit(bytes, page);
            if new == old {
                told.push(format!("{} is {old} already", file.name()));
            } else {
                set.push(file);
                writes.push(PlannedWrite {
                    file: knob.to_string(),
                    old: Some(old.to_string()),
                    new: new.to_string(),
                    reversible: true,
                });
            }
            self.changes.push((knob, new));
        }
        told.extend(check::notes(&facts, &set));
        let over = over(&facts, &set);
        if let Some((file, over)) = over {
            told.push(expected(scene, &target, file, over)?);
            let step = scene.safety.step;
            // A greater one would be reclaimed within a single write, and that write would be ended after its time.
            if over > step
                && let Ok(Way::Reclaim(reclaim)) = Way::find(scene, &target)
            {
                let (first, _) = reclaim::writes(&target, over, step, Take::AsIs);
                writes.splice(0..0, first);
                self.first = Some((over, reclaim));
            }
        }
        Ok(Plan {
            action: ActionPlan {
                id: None,
                kind: "limit".to_owned(),
                target: target.path.clone(),
                planned_bytes: over.map(|(_, over)| over),
                reason: common.reason.clone(),
                dry_run: false,
                writes,
                effect: (!told.is_empty()).then(|| told.join("; ")),
                lease_s: None,
                policy: None,
                expected_harm: None,
            },
            target: Some(target),
            lease: common.lease,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let Some(target) = act.target else {
            return Ok(());
        };
        if let Some((over, file)) = self.first.take() {
            let taken = reclaim::take(act, target, &file, over, Take::AsIs)?;
            act.notes.push(format!("first {}", taken.told()));
        }
        for (knob, value) in &self.changes {
            if knob.file == KnobFile::MemoryMax
                && let Some(max) = value.as_number()
            {
                // It may have grown since it was planned.
                let used = measure::held(&act.session.scene, target);
                check::under_use(used, max, self.force)?;
            }
            let set = act.session.set_within(act.id, knob, value, LIMIT);
            // A trip or a request to end breaks the write off: that is the better reason.
            act.session.poll()?;
            if set? == Set::Unchanged {
                act.notes
                    .push(format!("{}: it was {value} already", knob.file.name()));
            }
        }
        Ok(())
    }
}

fn facts(scene: &Scene, common: &Common, target: &Target, detail: &CgroupDetail) -> Facts {
    let info = MemInfo::read(&scene.host).unwrap_or_default();
    let mut above = [None, None];
    for path in reclaim::lineage(&target.path).skip(1) {
        let Ok(Some(detail)) = CgroupDetail::read(&scene.cgroups, path) else {
            continue;
        };
        for (least, own) in above.iter_mut().zip([detail.min, detail.low]) {
            if let Some(bytes) = own.bytes()
                && least.as_ref().is_none_or(|(_, least)| bytes < *least)
            {
                *least = Some((path.to_owned(), bytes));
            }
        }
    }
    Facts {
        used: detail.current,
        total: info.total,
        swap: info.swap_total.is_none_or(|bytes| bytes > 0),
        least: scene.safety.least_limit,
        force: common.force,
        after: Limits {
            min: detail.min.bytes().unwrap_or(0),
            low: detail.low.bytes().unwrap_or(0),
            high: detail.high.bytes(),
            max: detail.max.bytes(),
        },
        above,
    }
}

fn bytes(wanted: Wanted, used: Option<u64>, path: &str) -> Result<Option<u64>, Failure> {
    match wanted {
        Wanted::Max => Ok(None),
        Wanted::Size(Size::Bytes(bytes)) => Ok(Some(bytes)),
        Wanted::Size(percent) => {
            let used = used.ok_or_else(|| {
                Failure::unsupported(format!(
                    "{path}: memory.current cannot be read; give a size in bytes"
                ))
            })?;
            Ok(Some(percent.bytes_of(used)))
        }
    }
}

fn cannot(knob: &Knob, fault: &Fault, path: &str, current: Option<u64>) -> Failure {
    match (fault, current) {
        (Fault::Gone, None) => no_controller(path),
        (Fault::Gone, Some(_)) => {
            Failure::unsupported(format!("{knob}: this kernel has no such file"))
        }
        (Fault::Denied, _) => Failure::unsupported(format!("{knob}: {fault}; run it as root")),
        _ => Failure::unsupported(format!("{knob}: {fault}")),
    }
}

/// What is over the lowest limit that is set, and which that is.
fn over(facts: &Facts, set: &[KnobFile]) -> Option<(KnobFile, u64)> {
    let used = facts.used?;
    [
        (KnobFile::MemoryHigh, facts.after.high),
        (KnobFile::MemoryMax, facts.after.max),
    ]
    .into_iter()
    .filter(|(file, _)| set.contains(file))
    .filter_map(|(file, limit)| Some((file, used.checked_sub(limit?)?)))
    .filter(|(_, over)| *over > 0)
    .max_by_key(|(_, over)| *over)
}

/// What a limit under current use comes to.
fn expected(scene: &Scene, target: &Target, file: KnobFile, over: u64) -> Result<String, Failure> {
    let room = Room::look(scene, &target.path, Take::AsIs)?;
    let can = room.reclaimable().min(over);
    let mut text = format!("{} over {}", format_bytes(over), file.name());
    if can > 0 {
        text.push_str(&format!(": {} are reclaimed at once", format_bytes(can)));
    }
    if can < over {
        let then = match file {
            KnobFile::MemoryMax => "the OOM killer comes",
            _ => "its tasks are slowed down until they have freed it themselves",
        };
        text.push_str(&format!(
            ", {} cannot be ({}), and {then}",
            format_bytes(over - can),
            room.why_not_more()
                .first()
                .map_or("it is neither page cache nor swappable", String::as_str)
        ));
    }
    Ok(text)
}
