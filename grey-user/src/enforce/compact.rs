//! `enforce compact`: moves pages together, so that free memory comes in large blocks.

use std::time::{Duration, Instant};

use grey_core::act::Fault;
use grey_core::event::{ActionPlan, ActionState, PlannedWrite};
use grey_core::units::format_bytes;
use rustix::fs::{Mode, OFlags};

use crate::act::{Scene, Target, files, measure};
use crate::cli::Failure;
use crate::host::{Buddy, Host, MemInfo, VmStat, huge_page_order};

use super::{Act, Actuator, Common, Plan, time};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce compact               now, all memory
  grey-ebpf enforce compact --dry-run     free memory in huge blocks now, and how much there could be

Writes 1 to /proc/sys/vm/compact_memory. Nothing is freed and no program loses anything; pages are moved, which takes CPU time
and holds up accesses to them for a moment. It cannot be undone, and need not be: memory fragments again by itself.
A --lease means nothing here. In a guest with free-page reporting it is what lets the balloon give memory back.";

const FILE: &str = "/proc/sys/vm/compact_memory";
/// How long it may take: a large machine moves gigabytes.
const WITHIN: Duration = Duration::from_secs(300);
/// Most passes: the kernel ends one at the first page for which it finds no place (-ENOMEM from migrate_pages in
/// compact_zone, mm/compaction.c), and the next may get further.
const PASSES: u32 = 8;
/// Passes in a row without gain after which no more is to be had.
const IN_VAIN: u32 = 2;
/// Gain of a pass in huge blocks that is one.
const WORTH: u64 = 4 << 20;
/// The order of a huge page of 2 MiB, where the kernel does not tell one (`pageblock_order` without huge pages is at
/// least that on x86-64).
const HUGE: u32 = 9;

/// The action.
#[derive(Debug, Default)]
pub(crate) struct Compact {
    before: Option<VmStat>,
}

impl Compact {
    pub(crate) fn new() -> Self {
        Compact::default()
    }
}

/// Free bytes in blocks of a huge page or more.
fn free_huge(host: &Host) -> Option<u64> {
    let buddy = Buddy::read(host).ok()??;
    let order = huge_page_order(host).unwrap_or(HUGE);
    let pages: u64 = buddy
        .zones
        .iter()
        .map(|zone| zone.suitable_pages(order))
        .sum();
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

impl Actuator for Compact {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        if !scene.host.has(FILE) {
            return Err(Failure::unsupported(format!(
                "{FILE}: not there; this kernel is built without CONFIG_COMPACTION, or this is a container"
            )));
        }
        let free = MemInfo::read(&scene.host).ok().and_then(|info| info.free);
        let effect = match (free_huge(&scene.host), free) {
            (Some(huge), Some(free)) => format!(
                "{} of {} free memory are in blocks of a huge page or more, and up to all of it may be then",
                format_bytes(huge),
                format_bytes(free)
            ),
            _ => "free memory comes in larger blocks".to_owned(),
        };
        Ok(Plan {
            action: ActionPlan {
                id: None,
                kind: "compact".to_owned(),
                target: "machine".to_owned(),
                planned_bytes: None,
                reason: common.reason.clone(),
                dry_run: false,
                writes: vec![PlannedWrite {
                    file: FILE.to_owned(),
                    old: None,
                    new: "1".to_owned(),
                    reversible: false,
                }],
                effect: Some(effect),
                lease_s: None,
                policy: None,
                expected_harm: None,
            },
            target: None,
            // There is nothing to take back.
            lease: None,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let scene = std::rc::Rc::clone(&act.session.scene);
        self.before = VmStat::read(&scene.host).ok();
        let huge = free_huge(&scene.host);
        let written = passes(act, &scene);
        act.notes.extend(note(huge, free_huge(&scene.host)));
        if let (Some(before), Ok(after)) = (&self.before, VmStat::read(&scene.host)) {
            act.notes.extend(counters(before, &after));
        }
        // Harm, a lost guard or Ctrl-C broke it off: they say so themselves.
        act.session.poll()?;
        match written {
            Ok(passes) => {
                act.notes.push(match passes {
                    1 => "cannot be taken back, and need not be".to_owned(),
                    _ => format!("{passes} passes; cannot be taken back, and need not be"),
                });
                Ok(())
            }
            Err(Fault::TimedOut { .. }) => Err(Failure::failed(format!(
                "{FILE}: not done within {}; what was moved by then stays moved",
                time(WITHIN)
            ))),
            Err(fault) => Err(failed(&fault)),
        }
    }

    fn measure(&self, scene: &Scene, _target: Option<&Target>) -> ActionState {
        let mut state = measure::machine(scene);
        let info = MemInfo::read(&scene.host).unwrap_or_default();
        state.free = info.free;
        state.available = info.available;
        state.free_huge = free_huge(&scene.host);
        state
    }
}

/// Compacts until that gains next to nothing; how often it was done.
fn passes(act: &mut Act<'_>, scene: &Scene) -> Result<u32, Fault> {
    let end = Instant::now() + WITHIN;
    let mut huge = free_huge(&scene.host);
    let mut in_vain = 0;
    for pass in 1..=PASSES {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let file =
            rustix::fs::open(scene.host.path(FILE), flags, Mode::empty()).map_err(files::fault)?;
        let left = end.saturating_duration_since(Instant::now());
        act.session.write(file, b"1", left)?;
        let now = free_huge(&scene.host);
        let gain = now.zip(huge).map(|(now, then)| now.saturating_sub(then));
        in_vain = match gain {
            Some(gain) if gain >= WORTH => 0,
            _ => in_vain + 1,
        };
        if in_vain == IN_VAIN || gain.is_none() {
            return Ok(pass);
        }
        huge = now;
    }
    Ok(PASSES)
}

fn failed(fault: &Fault) -> Failure {
    match fault {
        Fault::Denied => Failure::unsupported(format!("{FILE}: {fault}; run it as root")),
        Fault::ReadOnly => Failure::unsupported(format!(
            "{FILE}: {fault}; run it outside the container, or with /proc/sys writable"
        )),
        Fault::Gone | Fault::Invalid(_) => Failure::unsupported(format!("{FILE}: {fault}")),
        _ => Failure::failed(format!("{FILE}: {fault}")),
    }
}

fn note(before: Option<u64>, after: Option<u64>) -> Option<String> {
    Some(format!(
        "free in blocks of a huge page or more: {} -> {}",
        format_bytes(before?),
        format_bytes(after?)
    ))
}

/// What the kernel counted meanwhile. `compact_success` and `compact_fail` are about tasks that waited for a block, not
/// about this request: a rise tells that somebody did.
fn counters(before: &VmStat, after: &VmStat) -> Option<String> {
    let since = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    let looked = since(
        before.compact_migrate_scanned,
        after.compact_migrate_scanned,
    )?;
    let mut text = format!("{looked} pages looked at");
    let waited = [
        (
            "succeeded",
            since(before.compact_success, after.compact_success),
        ),
        ("failed", since(before.compact_fail, after.compact_fail)),
    ];
    for (how, count) in waited {
        if let Some(count) = count {
            text.push_str(&format!(", {count} compactions of waiting tasks {how}"));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Tree;

    #[test]
    fn huge_blocks_are_those_of_the_kernels_huge_page_order_and_above() {
        let tree = Tree::new();
        assert_eq!(free_huge(&tree.host()), None);
        // Orders 0 to 10.
        tree.file(
            "/proc/buddyinfo",
            "Node 0, zone   Normal 7 7 7 7 7 7 7 7 7 2 3\nNode 0, zone  Movable 0 0 0 0 0 0 0 0 1 1 0\n",
        );
        let page = rustix::param::page_size() as u64;
        assert_eq!(
            free_huge(&tree.host()),
            Some((2 * 512 + 3 * 1024 + 512) * page)
        );
        tree.file(
            "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
            &format!("{}\n", 1024 * page),
        );
        assert_eq!(free_huge(&tree.host()), Some(3 * 1024 * page));
    }

    #[test]
    fn counters_that_this_kernel_does_not_have_are_not_told() {
        let stat = |text: &str| VmStat::parse(text);
        let before = stat("compact_migrate_scanned 10\ncompact_fail 1\n");
        let after = stat("compact_migrate_scanned 35\ncompact_fail 3\ncompact_success 9\n");
        assert_eq!(
            counters(&before, &after).as_deref(),
            Some("25 pages looked at, 2 compactions of waiting tasks failed")
        );
        assert_eq!(counters(&stat(""), &after), None);
    }
}
