//! "Why does memory in use not go down?"

use grey_core::units::format_bytes as size;

use super::{Answer, Reason, Severity, answer, count, reason, share};
use crate::diagnose::breakdown::Breakdown;
use crate::diagnose::facts::{CgroupUse, Facts};

/// A cause is told where it holds at least this share of the machine …
const SHARE: f64 = 0.02;
/// … and this much.
const LEAST: u64 = 32 << 20;
/// Files in a tmpfs that are worth a word.
const M: u64 = 1 << 20;
/// The question is asked where so much of the machine is held.
const MUCH_HELD: f64 = 0.5;
/// Removed cgroups beyond which their memory is a leak of its own.
const DYING: u64 = 1000;

/// A cause and the bytes it holds, which is what it is ranked by.
struct Weighed(u64, Reason);

pub(super) fn why(facts: &Facts, breakdown: &Breakdown) -> Answer {
    let mut found = answer("ram_not_reducing", "Why does memory in use not go down?");
    let (Some(total), Some(held)) = (breakdown.total, breakdown.held) else {
        found.answer = "Not known: /proc/meminfo tells too little.".to_owned();
        return found;
    };
    let mut causes = Vec::new();
    causes.extend(cache(facts, breakdown));
    causes.extend(anon(facts));
    causes.extend(swap_full(facts));
    causes.extend(tmpfs(facts));
    causes.extend(pinned(facts));
    causes.extend(hugetlb(facts));
    causes.extend(protected(facts));
    causes.extend(kernel(breakdown));
    causes.retain(|Weighed(bytes, _)| *bytes >= LEAST && share(*bytes, total) >= SHARE);
    causes.sort_by_key(|Weighed(bytes, _)| std::cmp::Reverse(*bytes));
    let largest = causes.first().map(|Weighed(_, reason)| reason.id);
    found.reasons = causes
        .into_iter()
        .map(|Weighed(_, reason)| reason)
        .collect();
    // These two do not tell how much they hold.
    found.reasons.extend(dying(facts));
    found.reasons.extend(guest(facts, breakdown));
    let guest_keeps = found.reasons.iter().any(|reason| reason.id == "guest");
    found.applies = share(held, total) >= MUCH_HELD || guest_keeps;
    found.severity = Severity::Note;
    let actual = breakdown.actual_use;
    found.answer = match (largest, actual) {
        (Some("page_cache"), Some(actual)) => format!(
            "Of {} held only {} is in actual use: the rest is cache, which the kernel gives back by itself as soon as a program needs it. That is no leak.",
            size(held),
            size(actual)
        ),
        (_, Some(actual)) => format!(
            "{} of {} held is in actual use, which no reclaim gives back without swap: it goes when its owners let it go.",
            size(actual),
            size(held)
        ),
        _ => format!(
            "{} is held; this kernel does not tell what of it is cache.",
            size(held)
        ),
    };
    if guest_keeps {
        found
            .answer
            .push_str(" And this is a guest whose host does not get back what is freed.");
    }
    found.next = next(facts, largest, guest_keeps);
    found
}

fn next(facts: &Facts, largest: Option<&str>, guest: bool) -> Vec<String> {
    let mut next = Vec::new();
    if guest {
        let what = facts
            .guest
            .as_ref()
            .and_then(|guest| guest.switch_on.as_deref());
        let what = what.unwrap_or("a virtio balloon with free page reporting");
        next.push(format!(
            "so that the host gets back what is free: {what}; cache stays held until it is reclaimed, which `policy = \"guest\"` does"
        ));
    }
    match largest {
        Some("anon") => {
            next.push("grey-ebpf diagnose --detect-leaks    whether it still grows".to_owned());
            if facts.meminfo.swap_total == Some(0) {
                next.push("set up zram or a swap file: without one, idle program memory has nowhere to go".to_owned());
            }
        }
        Some("tmpfs") => {
            next.push("du -xsh the mounts named above and delete what is not needed".to_owned());
        }
        Some("page_cache") if !guest => {
            next.push("nothing: the figure to watch is MemAvailable, not MemFree".to_owned());
        }
        _ => {}
    }
    next
}

fn cache(facts: &Facts, breakdown: &Breakdown) -> Option<Weighed> {
    let reclaimable = breakdown.reclaimable?;
    let info = &facts.meminfo;
    let mut line = reason(
        "page_cache",
        format!(
            "{} is cache: reclaimed on demand, so not lost",
            size(reclaimable)
        ),
    )
    .bytes(
        "reclaimable",
        reclaimable,
        "/proc/meminfo Active(file) + Inactive(file) + KReclaimable",
    );
    if let Some(active) = info.active_file {
        line = line.bytes("in_use_of_late", active, "/proc/meminfo Active(file)");
    }
    Some(Weighed(reclaimable, line))
}

fn anon(facts: &Facts) -> Option<Weighed> {
    let anon = facts.meminfo.anon?;
    let total = facts.meminfo.swap_total?;
    let largest = facts.processes.largest.as_ref().and_then(|process| {
        let own = process.uss.or(process.anon)?;
        Some(format!(
            "{} in {} (pid {})",
            size(own),
            process.comm,
            process.pid
        ))
    });
    let most = largest
        .as_ref()
        .map_or(String::new(), |largest| format!(", the largest {largest}"));
    let fate = if total == 0 {
        "without swap it cannot be reclaimed at all"
    } else {
        "it stays until the programs free it, or goes to swap when it is idle"
    };
    let text = format!("{} is program memory{most}: {fate}", size(anon));
    let mut line = reason("anon", text)
        .bytes("anon", anon, "/proc/meminfo AnonPages")
        .bytes("swap_total", total, "/proc/meminfo SwapTotal");
    if let Some(largest) = largest {
        line = line.text(
            "largest",
            largest,
            "smaps_rollup Private_Clean + Private_Dirty, or status RssAnon",
        );
    }
    Some(Weighed(anon, line))
}

fn swap_full(facts: &Facts) -> Option<Weighed> {
    let info = &facts.meminfo;
    let (total, free) = (info.swap_total?, info.swap_free?);
    (total > 0 && share(free, total) < 0.05).then(|| {
        Weighed(
            info.anon.unwrap_or(total),
            reason(
                "swap_full",
                "swap is full, so no more program memory can move there",
            )
            .bytes("swap_total", total, "/proc/meminfo SwapTotal")
            .bytes("swap_free", free, "/proc/meminfo SwapFree"),
        )
    })
}

fn tmpfs(facts: &Facts) -> Option<Weighed> {
    let shmem = facts.meminfo.shmem?;
    let mounts: Vec<String> = facts
        .tmpfs
        .iter()
        .take(3)
        .filter(|tmpfs| tmpfs.used >= M)
        .map(|tmpfs| format!("{} on {}", size(tmpfs.used), tmpfs.mount.display()))
        .collect();
    let files = match mounts.as_slice() {
        [] => String::new(),
        mounts => format!(" ({})", mounts.join(", ")),
    };
    let mut line = reason(
        "tmpfs",
        format!(
            "{} is tmpfs and shared memory{files}: it stays until the files are deleted",
            size(shmem)
        ),
    )
    .bytes("shmem", shmem, "/proc/meminfo Shmem");
    for tmpfs in facts.tmpfs.iter().take(3) {
        line = line.text(
            "tmpfs",
            format!("{} on {}", size(tmpfs.used), tmpfs.mount.display()),
            "statvfs",
        );
    }
    Some(Weighed(shmem, line))
}

fn pinned(facts: &Facts) -> Option<Weighed> {
    let info = &facts.meminfo;
    let pinned = info.unevictable?;
    let mut line = reason(
        "mlocked",
        format!(
            "{} may not be reclaimed: locked by mlock, or ramfs",
            size(pinned)
        ),
    )
    .bytes("unevictable", pinned, "/proc/meminfo Unevictable");
    if let Some(locked) = info.mlocked {
        line = line.bytes("mlocked", locked, "/proc/meminfo Mlocked");
    }
    let locker = facts
        .processes
        .top
        .iter()
        .filter(|process| process.locked > Some(0))
        .max_by_key(|process| process.locked);
    if let Some(process) = locker {
        line = line.text(
            "locked_by",
            format!(
                "{} (pid {}) {}",
                process.comm,
                process.pid,
                size(process.locked.unwrap_or(0))
            ),
            "smaps_rollup Locked",
        );
    }
    Some(Weighed(pinned, line))
}

fn hugetlb(facts: &Facts) -> Option<Weighed> {
    let info = &facts.meminfo;
    let held = info.hugetlb?;
    let mut line = reason(
        "hugetlb",
        format!("{} is reserved as huge pages, in use or not", size(held)),
    )
    .bytes("hugetlb", held, "/proc/meminfo Hugetlb");
    if let (Some(free), Some(page)) = (info.huge_pages_free, info.huge_page_size) {
        let idle = free.saturating_sub(info.huge_pages_reserved.unwrap_or(0)) * page;
        line = line.bytes(
            "idle",
            idle,
            "/proc/meminfo (HugePages_Free - HugePages_Rsvd) * Hugepagesize",
        );
        if idle > 0 {
            line.text = format!(
                "{} is reserved as huge pages, {} of it used by nobody: lower vm.nr_hugepages",
                size(held),
                size(idle)
            );
        }
    }
    Some(Weighed(held, line))
}

/// What memory.min and memory.low keep from reclaim. Only the topmost protected ones: those below share theirs.
fn protected(facts: &Facts) -> Option<Weighed> {
    let kept = |cgroup: &CgroupUse| -> u64 {
        let floor = cgroup.min.unwrap_or(0).max(cgroup.low.unwrap_or(0));
        floor.min(cgroup.current.unwrap_or(0))
    };
    let protected: Vec<&CgroupUse> = facts
        .cgroups
        .all()
        .filter(|cgroup| kept(cgroup) > 0)
        .collect();
    let topmost: Vec<&CgroupUse> = protected
        .iter()
        .filter(|cgroup| {
            !protected.iter().any(|other| {
                cgroup
                    .path
                    .strip_prefix(other.path.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            })
        })
        .copied()
        .collect();
    let sum: u64 = topmost.iter().map(|cgroup| kept(cgroup)).sum();
    let most = topmost.iter().max_by_key(|cgroup| kept(cgroup))?;
    Some(Weighed(
        sum,
        reason(
            "protected",
            format!(
                "{} is protected from reclaim by memory.min or memory.low of {}, most of it in {}",
                size(sum),
                count(topmost.len() as u64, "cgroup"),
                most.path
            ),
        )
        .bytes(
            "protected",
            sum,
            "min(memory.current, max(memory.min, memory.low)) of the topmost cgroups",
        )
        .text("cgroup", most.path.clone(), "its path"),
    ))
}

/// Kernel memory of the kinds that grow by mistake.
fn kernel(breakdown: &Breakdown) -> Vec<Weighed> {
    let kinds = [
        (
            "slab_unreclaimable",
            "slab",
            "kernel objects that cannot be shrunk: `slabtop -s c` tells of what kind",
        ),
        (
            "pagetables",
            "page tables",
            "many processes that each map the same large memory; huge pages make them small",
        ),
        ("percpu", "per-CPU memory", "many cgroups, or BPF maps"),
        (
            "vmalloc",
            "vmalloc",
            "kernel modules and BPF: see /proc/vmallocinfo",
        ),
        (
            "unaccounted",
            "memory that no line of /proc/meminfo names",
            "device drivers, GPUs, or the balloon of a hypervisor",
        ),
    ];
    kinds
        .into_iter()
        .filter_map(|(id, name, why)| {
            let part = breakdown.parts.iter().find(|part| part.name == id)?;
            Some(Weighed(
                part.bytes,
                reason(id, format!("{} is {name}: {why}", size(part.bytes))).bytes(
                    id,
                    part.bytes,
                    part.source,
                ),
            ))
        })
        .collect()
}

fn dying(facts: &Facts) -> Option<Reason> {
    let dying = facts.cgroups.dying.filter(|dying| *dying >= DYING)?;
    Some(
        reason(
            "dying_cgroups",
            format!("{} removed cgroups are kept alive by memory still charged to them (mostly cache and slab): it goes with pressure", dying),
        )
        .count("dying", dying, "cgroup.stat of the root: nr_dying_subsys_memory or nr_dying_descendants"),
    )
}

fn guest(facts: &Facts, breakdown: &Breakdown) -> Option<Reason> {
    let guest = facts.guest.as_ref()?;
    let text = match (guest.balloon, guest.free_page_reporting) {
        (_, Some(true)) => return None,
        (true, None) => return None,
        (false, _) => format!(
            "this is a guest of {} without a balloon: what it once touched stays with it, free or not",
            guest.hypervisor
        ),
        (true, Some(false)) => format!(
            "this is a guest of {} whose balloon does not report free pages: the host gets back only what it asks for",
            guest.hypervisor
        ),
    };
    let mut line = reason("guest", text).text(
        "free_page_reporting",
        if guest.balloon { "off" } else { "no balloon" },
        "/sys/bus/virtio/devices/*/features bit 5",
    );
    if let Some(free) = breakdown.free {
        line = line.bytes("free_in_guest", free, "/proc/meminfo MemFree");
    }
    Some(line)
}
