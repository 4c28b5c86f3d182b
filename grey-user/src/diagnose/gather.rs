//! From a machine's files to [`Facts`]. Reads only, in bounded time; what may not be read is noted with its reason.

mod cgroups;
mod oom;
mod processes;
mod standing;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use grey_core::glob::CgroupFilter;

use crate::host::{self, Buddy, CgroupFs, Host, mountinfo};

use super::facts::{Denied, Facts, Guest, Tmpfs, ZoneUse};

/// Orders of the buddy allocator that are told of (MAX_PAGE_ORDER of x86-64 is 10).
const ORDERS: u32 = 11;
/// Time for each of: all cgroups, all processes, the page tables of the largest ones.
const EACH: Duration = Duration::from_secs(2);

/// What to look at.
pub(super) struct Wanted<'a> {
    /// Rows of a table.
    pub(super) top: usize,
    /// Which cgroups and whose processes.
    pub(super) filter: &'a CgroupFilter,
}

/// Looks at everything once.
pub(super) fn gather(host: &Host, fs: &CgroupFs, wanted: &Wanted<'_>) -> Facts {
    let machine = host::Facts::gather(host, fs);
    let mut denied = Vec::new();
    let cgroups = cgroups::read(fs, wanted, Instant::now() + EACH, &mut denied);
    let (processes, sums, ksm_users) =
        processes::read(host, wanted, Instant::now() + EACH, EACH, &mut denied);
    let cgroups = cgroups::finish(cgroups, host, fs, wanted, &sums);
    let oom = oom::read(host, &cgroups, &mut denied);
    let zones = zones(host, &mut denied);
    let memory = machine.memory.clone();
    Facts {
        meminfo: memory.meminfo,
        swaps: memory.swaps,
        zram: memory.zram,
        zswap: memory.zswap,
        thp: memory.thp,
        ksm: memory.ksm,
        psi: memory.psi,
        ksm_users,
        zones,
        tmpfs: tmpfs(host),
        guest: machine.virt.as_ref().map(Guest::from),
        machine: standing::of(host, fs, &machine, denied),
        cgroups,
        processes,
        oom,
    }
}

impl From<&host::Virt> for Guest {
    fn from(virt: &host::Virt) -> Self {
        Guest {
            hypervisor: virt.to_string(),
            balloon: virt.balloon.as_ref().is_some_and(|balloon| balloon.driven),
            free_page_reporting: virt.reports_free_pages(),
            switch_on: virt.advice(),
        }
    }
}

fn zones(host: &Host, denied: &mut Vec<Denied>) -> Vec<ZoneUse> {
    let page = rustix::param::page_size() as u64;
    match Buddy::read(host) {
        Ok(buddy) => buddy
            .unwrap_or_default()
            .zones
            .into_iter()
            // A zone without free memory at this moment says nothing of fragmentation.
            .filter(|zone| zone.free_pages() > 0)
            .map(|zone| ZoneUse {
                node: zone.node,
                free: zone.free_pages().saturating_mul(page),
                unusable: (0..ORDERS).map(|order| zone.unusable(order)).collect(),
                zone: zone.zone,
                free_blocks: zone.free,
            })
            .collect(),
        Err(error) => {
            denied.push(Denied {
                what: "/proc/buddyinfo".to_owned(),
                reason: error.to_string(),
                lost: "fragmentation of free memory",
                remedy: "run as root".to_owned(),
            });
            Vec::new()
        }
    }
}

/// Each tmpfs once, however often it is mounted.
fn tmpfs(host: &Host) -> Vec<Tmpfs> {
    if !host.is_live() {
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut found: Vec<Tmpfs> = mountinfo::mounts(host)
        .unwrap_or_default()
        .into_iter()
        .filter(|mount| mount.fstype == "tmpfs")
        .filter_map(|mount| {
            let device = rustix::fs::stat(&mount.point).ok()?.st_dev;
            let used = used(&mount.point).filter(|used| *used > 0)?;
            seen.insert(device).then_some(Tmpfs {
                mount: mount.point,
                used,
            })
        })
        .collect();
    found.sort_by_key(|tmpfs| std::cmp::Reverse(tmpfs.used));
    found
}

fn used(point: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(point).ok()?;
    stat.f_blocks
        .checked_sub(stat.f_bfree)?
        .checked_mul(stat.f_frsize)
}
