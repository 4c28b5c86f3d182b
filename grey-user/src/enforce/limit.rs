//! `enforce limit`: a cgroup's memory.high, max, low, min and swap.max.

use grey_core::act::{Knob, KnobFile, Value};
use grey_core::event::{ActionPlan, PlannedWrite};
use grey_core::units::{self, Size, format_bytes};

use crate::act::scene::Touch;
use crate::act::session::refused;
use crate::act::{Scene, files};
use crate::cli::Failure;

use super::{Act, Actuator, Common, Plan};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce limit web.service --high 512M               throttle above half a GiB, until undone
  grey-ebpf enforce limit web.service --high 80% --lease 60s    80 % of what it uses now, for a minute
  grey-ebpf enforce limit /batch.slice --max 2G --swap-max 0
  grey-ebpf enforce limit web.service --high max                no limit

A limit is at least 64M. memory.max under what is in use would call the OOM killer: --force is needed.";

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
    changes: Vec<(Knob, Value)>,
}

impl<'a> Limit<'a> {
    pub(crate) fn new(args: &'a LimitArgs) -> Self {
        Limit {
            args,
            changes: Vec::new(),
        }
    }
}

impl Actuator for Limit<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        let target = scene.target(&self.args.cgroup, Touch::Change)?;
        let page = rustix::param::page_size() as u64;
        let used = crate::act::measure::cgroup(scene, &target).current;
        // memory.high before memory.max: what can be reclaimed is gone before the OOM killer would look.
        let wanted = [
            (KnobFile::MemoryMin, self.args.min),
            (KnobFile::MemoryLow, self.args.low),
            (KnobFile::SwapMax, self.args.swap_max),
            (KnobFile::MemoryHigh, self.args.high),
            (KnobFile::MemoryMax, self.args.max),
        ];
        let mut writes = Vec::new();
        for (file, wanted) in wanted {
            let Some(wanted) = wanted else { continue };
            let knob = Knob::cgroup(&target.path, target.id, file);
            let old = files::read(&scene.host, &scene.cgroups, &knob).map_err(|fault| {
                Failure::unsupported(format!(
                    "{knob}: {fault}; the memory controller is not on for this cgroup, or this kernel has no such file"
                ))
            })?;
            let bytes = match wanted {
                Wanted::Max => None,
                Wanted::Size(Size::Bytes(bytes)) => Some(bytes),
                Wanted::Size(percent) => Some(percent.bytes_of(used.ok_or_else(|| {
                    Failure::unsupported(format!(
                        "{}: memory.current cannot be read; give a size in bytes",
                        target.path
                    ))
                })?)),
            };
            check(scene, common, file, bytes, used)?;
            let new = Value::limit(bytes, page);
            writes.push(PlannedWrite {
                file: knob.to_string(),
                old: Some(old.to_string()),
                new: new.to_string(),
                reversible: true,
            });
            self.changes.push((knob, new));
        }
        let high = self.changes.iter().find_map(|(knob, value)| {
            (knob.file == KnobFile::MemoryHigh).then(|| value.as_number())?
        });
        let over = high
            .zip(used)
            .map(|(high, used)| used.saturating_sub(high))
            .filter(|over| *over > 0);
        Ok(Plan {
            action: ActionPlan {
                id: None,
                kind: "limit".to_owned(),
                target: target.path.clone(),
                planned_bytes: over,
                reason: common.reason.clone(),
                dry_run: false,
                writes,
                effect: over.map(|over| {
                    format!(
                        "{} over memory.high: reclaimed at once, and its tasks are slowed down",
                        format_bytes(over)
                    )
                }),
                lease_s: None,
            },
            target: Some(target),
            lease: common.lease,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        for (knob, value) in &self.changes {
            act.session.set(act.id, knob, value)?;
        }
        Ok(())
    }
}

fn check(
    scene: &Scene,
    common: &Common,
    file: KnobFile,
    bytes: Option<u64>,
    used: Option<u64>,
) -> Result<(), Failure> {
    let Some(bytes) = bytes else { return Ok(()) };
    let least = scene.safety.least_limit;
    let upper = matches!(file, KnobFile::MemoryHigh | KnobFile::MemoryMax);
    if upper && bytes < least {
        return Err(refused(format!(
            "{}: {} is under {}, the least a limit may be",
            file.name(),
            format_bytes(bytes),
            format_bytes(least)
        )));
    }
    if file == KnobFile::MemoryMax
        && !common.force
        && let Some(used) = used
        && bytes < used
    {
        return Err(refused(format!(
            "memory.max: {} is under the {} in use, which calls the OOM killer; lower memory.high first, or --force",
            format_bytes(bytes),
            format_bytes(used)
        )));
    }
    Ok(())
}
