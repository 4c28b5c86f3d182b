//! The cgroups: their memory.* files, or what their processes have where there are no such files.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use grey_core::event::Limit;
use grey_core::identity::identify;

use super::Wanted;
use super::processes::Sums;
use crate::diagnose::facts::{CgroupUse, Cgroups, Denied, EffectiveLimit, Source};
use crate::host::{CgroupDetail, CgroupFs, Host, dying_cgroups};

/// All cgroups that could be read in time.
pub(super) struct Read {
    list: Vec<CgroupUse>,
    total: Option<u64>,
    incomplete: bool,
}

pub(super) fn read(
    fs: &CgroupFs,
    _wanted: &Wanted<'_>,
    end: Instant,
    denied: &mut Vec<Denied>,
) -> Read {
    let mut read = Read {
        list: Vec::new(),
        total: None,
        incomplete: false,
    };
    let walk = match fs.walk() {
        Ok(walk) => walk,
        Err(_) => return read,
    };
    read.total = Some(walk.cgroups.len() as u64);
    let mut errors = Vec::new();
    for entry in walk.cgroups {
        if Instant::now() > end {
            read.incomplete = true;
            break;
        }
        let detail = if fs.has_memory() {
            match CgroupDetail::read(fs, &entry.path) {
                Ok(Some(detail)) => detail,
                Ok(None) => continue,
                Err(error) => {
                    errors.push(error.to_string());
                    continue;
                }
            }
        } else {
            CgroupDetail {
                psi: psi(fs, &entry.path),
                ..CgroupDetail::default()
            }
        };
        errors.extend(detail.errors.iter().cloned());
        read.list.push(one(&entry.path, detail));
    }
    if let Some(first) = errors.first() {
        denied.push(Denied {
            what: format!("{} memory.* files", errors.len()),
            reason: first.clone(),
            lost: "the figures of those cgroups",
            remedy: "run as root".to_owned(),
        });
    }
    limits(&mut read.list);
    read
}

fn psi(fs: &CgroupFs, path: &str) -> Option<crate::host::PsiFile> {
    let text = std::fs::read_to_string(fs.reach(path).join("memory.pressure")).ok()?;
    crate::host::PsiFile::parse(&text)
}

fn one(path: &str, detail: CgroupDetail) -> CgroupUse {
    let identity = identify(path).cgroup(None, path);
    let stat = detail.stat.unwrap_or_default();
    let set = |limit: Limit| limit.bytes().filter(|bytes| *bytes > 0);
    // memory.min and .low may be `max`: all of it is protected.
    let protection = |limit: Limit| match limit {
        Limit::None => detail.current,
        limit => set(limit),
    };
    CgroupUse {
        path: path.to_owned(),
        kind: identity.kind,
        name: identity.name,
        current: detail.current,
        anon: stat.anon,
        file: stat.file,
        shmem: stat.shmem,
        // Kernels before 5.18 give the parts only.
        kernel: stat.kernel.or_else(|| {
            [
                stat.kernel_stack,
                stat.pagetables,
                stat.sec_pagetables,
                stat.percpu,
                stat.vmalloc,
                stat.slab,
            ]
            .into_iter()
            .flatten()
            .reduce(u64::saturating_add)
        }),
        swap: detail.swap,
        anon_huge: stat.anon_thp,
        reclaimable: stat.reclaimable(),
        max: detail.max,
        high: detail.high,
        limit: None,
        min: protection(detail.min),
        low: protection(detail.low),
        pressure: detail.psi,
        events: detail.events,
        own_events: detail.events_local,
        processes: None,
    }
}

/// The lowest limit over each; parents stand before their children.
fn limits(list: &mut [CgroupUse]) {
    let mut over: HashMap<String, EffectiveLimit> = HashMap::new();
    for cgroup in list {
        let parent = match cgroup.path.rfind('/') {
            Some(0) | None => "/",
            Some(at) => &cgroup.path[..at],
        };
        let inherited = over.get(parent).cloned();
        let own = cgroup.max.bytes().map(|bytes| EffectiveLimit {
            cgroup: cgroup.path.clone(),
            bytes,
            current: cgroup.current,
        });
        cgroup.limit = match (inherited, own) {
            (Some(above), Some(own)) if above.bytes < own.bytes => Some(above),
            (above, own) => own.or(above),
        };
        if let Some(limit) = &cgroup.limit {
            over.insert(cgroup.path.clone(), limit.clone());
        }
    }
}

/// Adds what the processes tell, and picks the largest that are wanted.
pub(super) fn finish(
    read: Read,
    host: &Host,
    fs: &CgroupFs,
    wanted: &Wanted<'_>,
    sums: &HashMap<String, Sums>,
) -> Cgroups {
    let Read {
        mut list,
        total,
        incomplete,
    } = read;
    let files = fs.has_memory();
    for cgroup in &mut list {
        let Some(sums) = sums.get(&cgroup.path) else {
            continue;
        };
        cgroup.processes = Some(sums.processes);
        if !files {
            cgroup.anon = Some(sums.anon);
            cgroup.swap = Some(sums.swap);
        }
    }
    list.sort_by_key(|cgroup| Reverse(cgroup.size()));
    let is_wanted = |cgroup: &CgroupUse| wanted.filter.matches(&cgroup.path, &cgroup.name);
    let is_root = |cgroup: &CgroupUse| cgroup.path == "/";
    let count = list.iter().filter(|cgroup| is_wanted(cgroup)).count();
    let alone = count == 1;
    // The root has no memory.current: its line is the machine's, unless nothing else is there to show.
    let count = match alone {
        true => count,
        false => list
            .iter()
            .filter(|cgroup| is_wanted(cgroup) && !is_root(cgroup))
            .count(),
    };
    let mut top = Vec::new();
    let mut others = Vec::new();
    for cgroup in list {
        let show = is_wanted(&cgroup)
            && top.len() < wanted.top
            && cgroup.size() > 0
            && (alone || !is_root(&cgroup));
        if show {
            top.push(cgroup);
        } else {
            others.push(cgroup);
        }
    }
    Cgroups {
        source: match total {
            None => Source::Nothing,
            Some(_) if files => Source::Files,
            Some(_) => Source::Processes,
        },
        total,
        wanted: total.map(|_| count as u64),
        top,
        others,
        dying: dying_cgroups(host, fs)
            .and_then(|stat| stat.dying_memory.or(stat.dying_descendants)),
        incomplete,
    }
}
