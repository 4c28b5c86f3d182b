//! The processes: all by /proc/PID/status, the largest by smaps_rollup too, for which the kernel walks page tables.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use grey_core::identity::identify;

use super::Wanted;
use crate::diagnose::facts::{Denied, KsmUser, KsmUsers, ProcessUse, Processes};
use crate::host::{Host, ProcFs, Smaps};

/// KSM users told one by one.
const KSM_TOP: usize = 5;

/// Sums over the processes of a cgroup and of those below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) processes: u64,
    pub(super) anon: u64,
    pub(super) swap: u64,
}

/// Everything that /proc/PID tells: the largest processes, sums by cgroup, and who offers memory to KSM.
pub(super) fn read(
    host: &Host,
    wanted: &Wanted<'_>,
    end: Instant,
    rollup: Duration,
    denied: &mut Vec<Denied>,
) -> (Processes, HashMap<String, Sums>, KsmUsers) {
    let mut sums = HashMap::new();
    let mut processes = Processes::default();
    let mut ksm = Ksm::new(host);
    let listed = ProcFs::open(host).and_then(|proc| Ok((proc.pids()?, proc)));
    let (pids, mut proc) = match listed {
        Ok(listed) => listed,
        Err(error) => {
            denied.push(Denied {
                what: "/proc".to_owned(),
                reason: error.to_string(),
                lost: "all processes",
                remedy: "mount /proc".to_owned(),
            });
            return (processes, sums, ksm.users);
        }
    };
    processes.total = Some(pids.len() as u64);
    let mut found = Vec::new();
    for pid in pids {
        if Instant::now() > end {
            processes.incomplete = true;
            break;
        }
        let Ok(Some(memory)) = proc.memory(pid) else {
            continue;
        };
        // A kernel thread has no memory of its own.
        if memory.rss.is_none() {
            continue;
        }
        let cgroup = proc.cgroup(pid).ok().flatten();
        if let Some(path) = &cgroup {
            add(
                &mut sums,
                path,
                Sums {
                    processes: 1,
                    anon: memory.anon.unwrap_or(0),
                    swap: memory.swap.unwrap_or(0),
                },
            );
        }
        ksm.look(&mut proc, pid, &memory.comm);
        found.push(ProcessUse {
            pid,
            comm: memory.comm,
            cgroup,
            rss: memory.rss,
            swap: memory.swap,
            anon: memory.anon,
            virt: memory.r#virtual,
            ..ProcessUse::default()
        });
    }
    let weight = |process: &ProcessUse| process.rss.unwrap_or(0) + process.swap.unwrap_or(0);
    processes.largest = found.iter().max_by_key(|process| weight(process)).cloned();
    let mut top: Vec<ProcessUse> = found
        .into_iter()
        .filter(|process| {
            process.cgroup.as_ref().is_none_or(|path| {
                wanted
                    .filter
                    .matches(path, &identify(path).cgroup(None, path).name)
            })
        })
        .collect();
    top.sort_by_key(|process| Reverse(weight(process)));
    top.truncate(wanted.top);
    processes.top = top;
    rollups(proc, &mut processes, rollup, denied);
    // With the figures of its smaps_rollup, where it was read.
    let largest = processes.largest.as_ref().map(|process| process.pid);
    if let Some(process) = processes.top.iter().find(|one| Some(one.pid) == largest) {
        processes.largest = Some(process.clone());
    }
    (processes, sums, ksm.users)
}

/// Adds to a cgroup and to all above it.
fn add(sums: &mut HashMap<String, Sums>, path: &str, more: Sums) {
    let mut at = path;
    loop {
        let sum = sums.entry(at.to_owned()).or_default();
        sum.processes += more.processes;
        sum.anon += more.anon;
        sum.swap += more.swap;
        if at == "/" || at.is_empty() {
            return;
        }
        at = match at.rfind('/') {
            Some(0) | None => "/",
            Some(end) => &at[..end],
        };
    }
}

/// PSS and USS of the largest, as many as come in time. On a thread of its own: one read of a process with a hundred
/// gigabytes cannot be broken off.
fn rollups(
    mut proc: ProcFs,
    processes: &mut Processes,
    within: Duration,
    denied: &mut Vec<Denied>,
) {
    let end = Instant::now() + within;
    let pids: Vec<u32> = processes.top.iter().map(|process| process.pid).collect();
    let (send, receive) = mpsc::channel();
    let spawned = std::thread::Builder::new()
        .name("smaps".to_owned())
        .spawn(move || {
            for pid in pids {
                if Instant::now() > end || send.send((pid, proc.smaps(pid))).is_err() {
                    return;
                }
            }
        });
    if spawned.is_err() {
        processes.late = processes.top.len() as u64;
        return;
    }
    let mut missing = processes.top.len() as u64;
    let mut first = None;
    while let Ok((pid, smaps)) = receive.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        missing -= 1;
        match smaps {
            Ok(Some(smaps)) => {
                if let Some(process) = processes.top.iter_mut().find(|one| one.pid == pid) {
                    take(process, &smaps);
                }
            }
            Ok(None) => {}
            Err(error) => {
                processes.denied += 1;
                first.get_or_insert(error.to_string());
            }
        }
    }
    processes.late = missing;
    if let Some(first) = first {
        denied.push(Denied {
            what: match processes.denied {
                1 => "/proc/PID/smaps_rollup of one process".to_owned(),
                n => format!("/proc/PID/smaps_rollup of {n} processes"),
            },
            reason: first,
            lost: "PSS, USS and huge pages of processes we may not look into",
            remedy: "run as root, or give the binary cap_sys_ptrace".to_owned(),
        });
    }
}

fn take(process: &mut ProcessUse, smaps: &Smaps) {
    process.rss = smaps.rss.or(process.rss);
    process.pss = smaps.pss;
    process.uss = smaps.uss();
    process.swap = smaps.swap.or(process.swap);
    process.anon = smaps.anon.or(process.anon);
    process.anon_huge = smaps.anon_huge;
    process.locked = smaps.locked;
}

/// Who offers memory to KSM; looked at only where there is KSM.
struct Ksm {
    there: bool,
    users: KsmUsers,
}

impl Ksm {
    fn new(host: &Host) -> Self {
        Ksm {
            there: host.has("/sys/kernel/mm/ksm/run"),
            users: KsmUsers::default(),
        }
    }

    fn look(&mut self, proc: &mut ProcFs, pid: u32, comm: &str) {
        if !self.there {
            return;
        }
        let Ok(Some(ksm)) = proc.ksm(pid) else {
            return;
        };
        let users = &mut self.users;
        *users.looked_at.get_or_insert(0) += 1;
        let merged = ksm.merging_pages.unwrap_or(0);
        // Pages are on KSM's list once it has scanned them; the two flags tell of those it has yet to scan (6.14).
        let offers = ksm.rmap_items > Some(0)
            || merged > 0
            || ksm.merge_any == Some(true)
            || ksm.mergeable == Some(true);
        let count = users.offering.get_or_insert(0);
        if offers {
            *count += 1;
            users.top.push(KsmUser {
                pid,
                comm: comm.to_owned(),
                merged: merged.saturating_mul(rustix::param::page_size() as u64),
                profit: ksm.profit,
            });
            users.top.sort_by_key(|user| Reverse(user.merged));
            users.top.truncate(KSM_TOP);
        }
    }
}
