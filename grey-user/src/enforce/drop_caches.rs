//! `enforce drop-caches`: the machine's page cache and reclaimable slab, after a sync; or one cgroup's page cache.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use grey_core::event::{ActionPlan, PlannedWrite};
use grey_core::units::format_bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::act::session::refused;
use crate::act::{Scene, Session, files, sync};
use crate::cli::Failure;
use crate::host::MemInfo;

use super::reclaim::Reclaim;
use super::{Act, Actuator, Common, Plan};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce drop-caches                            the page cache of the whole machine
  grey-ebpf enforce drop-caches --level 3 --dry-run        with dentries and inodes; how much that would be
  grey-ebpf enforce drop-caches --cgroup backup.service    the page cache of one cgroup, by reclaim: far gentler

Dirty pages are written first. It cannot be taken back: what is needed again is read from disk again, by everybody at
once. Therefore at most once a minute, unless --force.";

/// The kernel's file.
const FILE: &str = "/proc/sys/vm/drop_caches";
/// How long writing back all dirty pages may take.
const SYNC: Duration = Duration::from_secs(30);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long the drop may take: it goes through every inode of the machine, and cannot be broken off.
const DROP: Duration = Duration::from_secs(60);

/// Arguments of `drop-caches`.
#[derive(Clone, Debug, clap::Args)]
pub struct DropCachesArgs {
    /// 1 the page cache, 2 dentries and inodes, 3 both
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub level: u8,
    /// Only the page cache of this cgroup, by file-only reclaim
    #[arg(long, value_name = "CGROUP", conflicts_with = "level")]
    pub cgroup: Option<String>,
}

/// The action on the machine; on a cgroup it is [`Reclaim::cache_of`].
pub(crate) struct DropCaches {
    level: u8,
    file: Option<OwnedFd>,
}

/// The action of these arguments.
pub(crate) fn action(args: &DropCachesArgs) -> Box<dyn Actuator + '_> {
    match &args.cgroup {
        Some(cgroup) => Box::new(Reclaim::cache_of(cgroup)),
        None => Box::new(DropCaches {
            level: args.level,
            file: None,
        }),
    }
}

impl Actuator for DropCaches {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        if common.lease.is_some() {
            return Err(Failure::usage(
                "drop-caches: has no --lease, as it cannot be taken back; leave it out",
            ));
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let file = rustix::fs::open(scene.host.path(FILE), flags, Mode::empty());
        self.file = Some(file.map_err(cannot)?);
        let info = meminfo(scene)?;
        let cache = || {
            let lists = info.active_file?.checked_add(info.inactive_file?)?;
            Some(lists.saturating_sub(info.dirty? + info.writeback?))
        };
        let planned = match self.level {
            1 => cache(),
            2 => info.slab_reclaimable,
            _ => cache()
                .zip(info.slab_reclaimable)
                .map(|(cache, slab)| cache.saturating_add(slab)),
        };
        let what = match self.level {
            1 => "the page cache of the whole machine but what is mapped or dirty",
            2 => "dentries and inodes that nobody uses",
            _ => {
                "the page cache of the whole machine but what is mapped or dirty, dentries and inodes that nobody uses"
            }
        };
        Ok(Plan {
            action: ActionPlan {
                id: None,
                kind: "drop_caches".to_owned(),
                target: "machine".to_owned(),
                planned_bytes: planned,
                reason: common.reason.clone(),
                dry_run: false,
                writes: vec![
                    PlannedWrite {
                        file: "sync(2)".to_owned(),
                        old: None,
                        new: match info.dirty {
                            Some(dirty) => {
                                format!("{} of dirty pages to disk", format_bytes(dirty))
                            }
                            None => "dirty pages to disk".to_owned(),
                        },
                        reversible: false,
                    },
                    PlannedWrite {
                        file: FILE.to_owned(),
                        old: None,
                        new: self.level.to_string(),
                        reversible: false,
                    },
                ],
                effect: Some(format!(
                    "{what} go; whoever needs them again waits for the disk"
                )),
                lease_s: None,
                policy: None,
                expected_harm: None,
            },
            target: None,
            lease: None,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        write_back(act.session)?;
        let scene = std::rc::Rc::clone(&act.session.scene);
        // Between sync and drop, so that the figures tell of the drop alone.
        let before = meminfo(&scene)?;
        let timeout = scene.safety.write_timeout.max(DROP);
        let text = self.level.to_string();
        let written = act.session.write(file, text.as_bytes(), timeout);
        act.session.poll()?;
        written.map_err(|fault| Failure::failed(format!("{FILE}: {fault}")))?;
        let after = meminfo(&scene)?;
        let mut figures = Vec::new();
        for (name, from, to) in [
            ("MemFree", before.free, after.free),
            ("Cached", before.cached, after.cached),
            ("Buffers", before.buffers, after.buffers),
            (
                "SReclaimable",
                before.slab_reclaimable,
                after.slab_reclaimable,
            ),
        ] {
            if let (Some(from), Some(to)) = (from, to) {
                figures.push(format!(
                    "{name} {} -> {}",
                    format_bytes(from),
                    format_bytes(to)
                ));
            }
        }
        act.notes.push(figures.join(", "));
        if let Some(shmem) = after.shmem.filter(|shmem| *shmem >= 1 << 20) {
            act.notes.push(format!(
                "{} of Cached are tmpfs and shared memory, which only swap can take",
                format_bytes(shmem)
            ));
        }
        act.notes
            .push("this cannot be taken back: what is needed again is read again".to_owned());
        Ok(())
    }
}

/// Writes all dirty pages back, under the eyes of guard and watchdog.
fn write_back(session: &mut Session) -> Result<(), Failure> {
    let syncing = sync::start()
        .map_err(|error| Failure::failed(format!("sync(2): {}", files::fault(error))))?;
    let end = Instant::now() + SYNC;
    while !syncing.done_within(LOOK) {
        let broken_off = session.poll().err();
        if broken_off.is_some() || Instant::now() >= end {
            syncing.give_up();
            return Err(broken_off.unwrap_or_else(|| {
                refused(format!(
                    "dirty pages are not on disk after {}s, so that nothing was dropped: a disk or network mount is slow or hangs (see Dirty and Writeback in /proc/meminfo)",
                    SYNC.as_secs()
                ))
            }));
        }
    }
    Ok(())
}

fn meminfo(scene: &Scene) -> Result<MemInfo, Failure> {
    MemInfo::read(&scene.host)
        .map_err(|error| Failure::unsupported(format!("{error}; mount /proc")))
}

fn cannot(error: Errno) -> Failure {
    let remedy = match error {
        Errno::ROFS | Errno::NOENT => {
            "in a container do it outside, or take one cgroup's with --cgroup"
        }
        _ => "run it as root, outside of a container, or take one cgroup's with --cgroup",
    };
    Failure::unsupported(format!("{FILE}: {}; {remedy}", files::fault(error)))
}
