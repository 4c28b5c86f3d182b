//! `enforce reclaim`: takes memory from a cgroup in bounded steps, by memory.reclaim or what stands in for it.

mod loan;
mod room;
mod squeeze;
mod steps;

use std::os::fd::OwnedFd;
use std::time::Duration;

use grey_core::act::{Knob, KnobFile};
use grey_core::event::ActionPlan;
use grey_core::units::{self, Size, format_bytes};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::act::scene::Touch;
use crate::act::session::refused;
use crate::act::{Scene, Target, files};
use crate::cli::{self, Failure};
use crate::host::MemInfo;

use super::{Act, Actuator, Common, Plan};

pub(crate) use room::{Room, lineage, no_controller};
pub(crate) use steps::{take, writes};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce reclaim web.service 200M                what is used least, page cache and (with swap) anonymous
  grey-ebpf enforce reclaim web.service 25% --file-only     page cache alone, a quarter of all it holds
  grey-ebpf enforce reclaim web.service 1G --dry-run        how much could be taken, and how it would be
  grey-ebpf enforce reclaim web.service 10% --observe 30s   how much of it comes back within half a minute

At most 64G a request, 32M a write. It ends early when two writes in a row free next to nothing, and when the watchdog
sees harm. Reclaim cannot be taken back: what is needed again is read again. `/` is the whole machine.";

/// Arguments of `reclaim`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReclaimArgs {
    /// Path, unit or container name
    pub cgroup: String,
    /// How much: bytes, or percent of what the cgroup holds
    #[arg(value_name = "SIZE", value_parser = size)]
    pub size: Size,
    /// Only page cache: anonymous memory stays where it is
    #[arg(long, conflicts_with = "swappiness")]
    pub file_only: bool,
    /// From 0 (page cache alone) to 200, or `max` (anonymous memory alone); without it vm.swappiness decides
    #[arg(long, value_name = "N", value_parser = swappiness)]
    pub swappiness: Option<Take>,
    /// Look on for this time how much of it comes back, and whether it does harm
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub observe: Option<Duration>,
}

/// Which memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// As `vm.swappiness` says.
    AsIs,
    /// Page cache alone.
    FileOnly,
    /// With this swappiness, 1 to 200.
    Swappiness(u8),
    /// Anonymous memory alone.
    AnonOnly,
}

fn size(text: &str) -> Result<Size, String> {
    let size = units::parse_size(text).map_err(|error| error.to_string())?;
    match size {
        Size::Bytes(0) => Err("nothing is to be reclaimed; name a size such as 200M".to_owned()),
        Size::Percent(percent) if percent <= 0.0 || percent > 100.0 => {
            Err("a percentage is above 0 and at most 100".to_owned())
        }
        size => Ok(size),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let span = cli::duration(text)?;
    if span.is_zero() || span > Duration::from_secs(24 * 3600) {
        return Err("a time above 0 and of at most 24h".to_owned());
    }
    Ok(span)
}

fn swappiness(text: &str) -> Result<Take, String> {
    if text == "max" {
        return Ok(Take::AnonOnly);
    }
    match text.parse::<u8>() {
        Ok(0) => Ok(Take::FileOnly),
        Ok(number @ 1..=200) => Ok(Take::Swappiness(number)),
        _ => Err("it is a number from 0 to 200, or max".to_owned()),
    }
}

/// How a cgroup's memory can be taken on this kernel.
#[derive(Debug)]
pub(crate) enum Way {
    /// memory.reclaim.
    Reclaim(OwnedFd),
    /// memory.high, lowered for a moment.
    Squeeze,
}

impl Way {
    /// What this kernel has for this cgroup. Opens, but writes nothing.
    ///
    /// # Errors
    /// Nothing that could be used, no permission, a read-only tree (exit 3).
    pub(crate) fn find(scene: &Scene, target: &Target) -> Result<Way, Failure> {
        let path = &target.path;
        let open = |name: &str| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
            rustix::fs::openat(&target.dir, name, flags, Mode::empty())
        };
        let cannot = |name: &str, error: Errno| {
            let fault = files::fault(error);
            let remedy = match error {
                Errno::ROFS => "do it outside of the container",
                _ => "run it as root",
            };
            Failure::unsupported(format!(
                "{}/{name}: {fault}; {remedy}",
                path.trim_end_matches('/')
            ))
        };
        match open("memory.reclaim") {
            Ok(file) => return Ok(Way::Reclaim(file)),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(cannot("memory.reclaim", error)),
        }
        match open("memory.high") {
            Ok(_) => Ok(Way::Squeeze),
            Err(Errno::NOENT) if path == "/" => Err(Failure::unsupported(
                "this kernel cannot reclaim from the root; use `enforce drop-caches`, or reclaim from the cgroups below it",
            )),
            Err(Errno::NOENT) if !scene.cgroups.has_memory() => Err(Failure::unsupported(
                "the cgroup v2 tree has no memory controller (it is on v1, or off); use `enforce drop-caches`",
            )),
            Err(Errno::NOENT) => Err(no_controller(path)),
            Err(error) => Err(cannot("memory.high", error)),
        }
    }
}

/// A knob of the target.
fn knob(target: &Target, file: KnobFile) -> Knob {
    Knob::cgroup(&target.path, target.id, file)
}

/// What is wanted.
enum Wanted<'a> {
    Args(&'a ReclaimArgs),
    /// All clean page cache of this cgroup.
    Cache(&'a str),
}

/// The action.
pub(crate) struct Reclaim<'a> {
    wanted: Wanted<'a>,
    size: u64,
    take: Take,
    way: Option<Way>,
    room: Room,
}

impl<'a> Reclaim<'a> {
    pub(crate) fn new(args: &'a ReclaimArgs) -> Self {
        let take = match (args.file_only, args.swappiness) {
            (true, _) => Take::FileOnly,
            (false, Some(take)) => take,
            (false, None) => Take::AsIs,
        };
        Self::of(Wanted::Args(args), take)
    }

    /// All page cache of a cgroup that can be had.
    pub(crate) fn cache_of(cgroup: &'a str) -> Self {
        Self::of(Wanted::Cache(cgroup), Take::FileOnly)
    }

    fn of(wanted: Wanted<'a>, take: Take) -> Self {
        Reclaim {
            wanted,
            size: 0,
            take,
            way: None,
            room: Room::default(),
        }
    }
}

/// Bytes asked for, within the bounds.
fn bytes(scene: &Scene, room: &Room, wanted: &Wanted<'_>) -> Result<u64, Failure> {
    let page = rustix::param::page_size() as u64;
    let cap = scene.safety.cap;
    let bytes = match wanted {
        Wanted::Cache(_) => room.clean.min(cap),
        Wanted::Args(args) => match args.size {
            Size::Bytes(bytes) => bytes,
            percent => {
                let whole = room.used.or_else(|| {
                    let info = MemInfo::read(&scene.host).ok()?;
                    info.total?.checked_sub(info.free?)
                });
                percent.bytes_of(whole.ok_or_else(|| {
                    Failure::unsupported("memory.current cannot be read; give a size in bytes")
                })?)
            }
        },
    };
    if bytes > cap {
        return Err(refused(format!(
            "{} is more than {}, the most of one request",
            format_bytes(bytes),
            format_bytes(cap)
        )));
    }
    // The kernel counts in pages and rounds down.
    Ok(bytes.next_multiple_of(page))
}

impl Actuator for Reclaim<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        if common.lease.is_some() {
            return Err(Failure::usage(
                "reclaim: has no --lease, as it cannot be taken back; --observe looks on for a time",
            ));
        }
        let cgroup = match &self.wanted {
            Wanted::Args(args) => args.cgroup.as_str(),
            Wanted::Cache(cgroup) => cgroup,
        };
        let target = scene.target(cgroup, Touch::Reclaim)?;
        self.room = Room::look(scene, &target.path, self.take)?;
        self.size = bytes(scene, &self.room, &self.wanted)?;
        if let Some(why) = self.room.in_vain(self.size) {
            return Err(Failure::unsupported(format!("{}: {why}", target.path)));
        }
        let way = Way::find(scene, &target)?;
        let reclaimable = self.room.reclaimable();
        let mut effect = self.room.told();
        let writes = match &way {
            Way::Reclaim(_) => {
                let step = scene.safety.step;
                let (writes, otherwise) = steps::writes(&target, self.size, step, self.take);
                if let Some(otherwise) = otherwise {
                    effect.push_str("; ");
                    effect.push_str(otherwise);
                }
                writes
            }
            Way::Squeeze => {
                effect.push_str(
                    "; this kernel has no memory.reclaim: memory.high is lowered step by step and put back",
                );
                squeeze::writes(scene, &target, self.size.min(reclaimable), &self.room)
            }
        };
        self.way = Some(way);
        Ok(Plan {
            action: ActionPlan {
                id: None,
                kind: "reclaim".to_owned(),
                target: target.path.clone(),
                planned_bytes: Some(self.size.min(reclaimable)),
                reason: common.reason.clone(),
                dry_run: false,
                writes,
                effect: Some(effect),
                lease_s: None,
                policy: None,
                expected_harm: None,
            },
            target: Some(target),
            lease: None,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let (Some(way), Some(target)) = (&self.way, act.target) else {
            return Ok(());
        };
        if self.size == 0 {
            act.notes.push("there is nothing to take".to_owned());
            return Ok(());
        }
        let taken = match way {
            Way::Reclaim(file) => steps::take(act, target, file, self.size, self.take)?,
            Way::Squeeze => {
                let size = self.size.min(self.room.reclaimable());
                squeeze::take(act, target, size, self.take)?
            }
        };
        act.notes.push(taken.told());
        act.notes.extend(taken.notes);
        if taken.bytes < self.size {
            let left = Room::look(&act.session.scene, &target.path, self.take)?;
            act.notes.extend(left.why_not_more());
        }
        Ok(())
    }

    fn observe(&self) -> Option<Duration> {
        match &self.wanted {
            Wanted::Args(args) => args.observe,
            Wanted::Cache(_) => None,
        }
    }
}
