//! Gathers a snapshot of this machine from its files. Changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use grey_core::event::{Mem, MemSource};
use grey_core::identity::identify;

use super::document::{
    CgroupEntry, Choice, Counters, Machine, ProcessEntry, Processes, SCHEMA, Snapshot, ancestors,
};
use crate::host::{CgroupDetail, CgroupFs, Host, HostError, MemInfo, ProcFs, Reading, VmStat};
use crate::source::Clock;

/// What to gather.
pub(super) struct Wanted<'a> {
    /// `--cgroup` as given.
    pub(super) chosen: &'a [String],
    /// The same as a filter.
    pub(super) choice: &'a Choice,
    /// Of how many processes PSS and USS are asked for.
    pub(super) detailed: usize,
    /// The process that is left out.
    pub(super) own_pid: u32,
}

/// Gathers it.
///
/// # Errors
/// Where /proc cannot be read at all.
pub(super) fn take(host: &Host, fs: &CgroupFs, wanted: &Wanted<'_>) -> Result<Snapshot, HostError> {
    let ts = Clock::wall();
    let begun = Instant::now();
    let line = |path: &str| {
        let text = host.text(path).ok()?;
        Some(text.trim().to_owned())
    };
    let paths = cgroups(fs);
    let mut processes = processes(host, fs, &paths, wanted)?;
    let machine = Machine {
        memory: MemInfo::read(host)?,
        vm: VmStat::read(host).unwrap_or_default(),
    };
    let sums = sums(&processes.list);
    let cgroups = paths
        .iter()
        .filter(|(path, _)| wanted.choice.cgroup(path))
        .filter_map(|(path, id)| {
            entry(
                host,
                fs,
                path,
                *id,
                sums.get(path.as_str()).unwrap_or(&Sums::default()),
            )
        })
        .collect();
    processes
        .list
        .retain(|process| wanted.choice.processes_of(process.cgroup.as_deref()));
    Ok(Snapshot {
        schema: SCHEMA.to_owned(),
        ts,
        took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        host: line("/proc/sys/kernel/hostname").unwrap_or_default(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        kernel: line("/proc/sys/kernel/osrelease"),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        mount: fs.mount().map(|mount| mount.display().to_string()),
        chosen: wanted.chosen.to_vec(),
        machine,
        cgroups,
        processes,
    })
}

/// Paths and ids of all cgroups; the root alone where there is no tree.
pub(super) fn cgroups(fs: &CgroupFs) -> BTreeMap<String, Option<u64>> {
    match fs.walk() {
        Ok(walk) => walk
            .cgroups
            .into_iter()
            .map(|entry| (entry.path, Some(entry.id)))
            .collect(),
        Err(error) => {
            tracing::debug!("{error}");
            BTreeMap::from([("/".to_owned(), None)])
        }
    }
}

/// All processes, largest first, and the details of the largest chosen ones.
fn processes(
    host: &Host,
    fs: &CgroupFs,
    paths: &BTreeMap<String, Option<u64>>,
    wanted: &Wanted<'_>,
) -> Result<Processes, HostError> {
    let mut procs = ProcFs::open(host)?;
    let mut homes: HashMap<u32, &str> = HashMap::new();
    for path in paths.keys() {
        // A threaded cgroup gives none: its processes are found by their own files.
        for pid in fs.pids(path).unwrap_or_default() {
            homes.insert(pid, path);
        }
    }
    let mut list = Vec::new();
    for pid in procs.pids()? {
        // What looks is not part of the picture: it is another process each time.
        if pid == wanted.own_pid {
            continue;
        }
        // One that ends meanwhile, or is hidden from us, is no error; a kernel thread has no memory.
        let Ok(Some(memory)) = procs.memory(pid) else {
            continue;
        };
        let Ok(Some(started)) = procs.started(pid) else {
            continue;
        };
        if memory.rss.is_none() {
            continue;
        }
        let cgroup = match homes.get(&pid) {
            Some(path) => Some((*path).to_owned()),
            None => procs.cgroup(pid).ok().flatten(),
        };
        list.push(ProcessEntry {
            pid,
            started,
            comm: memory.comm,
            cgroup,
            rss: memory.rss,
            anon: memory.anon,
            swap: memory.swap,
            r#virtual: memory.r#virtual,
            ..ProcessEntry::default()
        });
    }
    let size = |process: &ProcessEntry| {
        let part = |figure: Option<u64>| figure.unwrap_or(0);
        part(process.rss).saturating_add(part(process.swap))
    };
    list.sort_by_key(|process| (std::cmp::Reverse(size(process)), process.pid));
    let mut denied = 0;
    let chosen = list
        .iter_mut()
        .filter(|process| wanted.choice.processes_of(process.cgroup.as_deref()));
    for process in chosen.take(wanted.detailed) {
        match procs.smaps(process.pid) {
            Ok(Some(smaps)) => {
                process.pss = smaps.pss;
                process.uss = smaps.uss();
                process.swap_pss = smaps.swap_pss;
                process.huge = smaps.huge();
                process.ksm = smaps.ksm;
            }
            Ok(None) => {}
            Err(error) => {
                denied += u64::from(error.is_permission());
                tracing::debug!("{error}");
            }
        }
    }
    Ok(Processes {
        detailed: wanted.detailed as u64,
        denied,
        list,
    })
}

/// Sums over the processes of a cgroup and those below.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sums {
    count: u64,
    anon: u64,
    swap: u64,
    /// Unknown as soon as that of one process is.
    pss: Option<u64>,
    uss: Option<u64>,
}

impl Default for Sums {
    fn default() -> Self {
        Sums {
            count: 0,
            anon: 0,
            swap: 0,
            pss: Some(0),
            uss: Some(0),
        }
    }
}

fn sums(list: &[ProcessEntry]) -> HashMap<&str, Sums> {
    let mut sums: HashMap<&str, Sums> = HashMap::new();
    for process in list {
        for path in ancestors(process.cgroup.as_deref().unwrap_or("/")) {
            let sum = sums.entry(path).or_default();
            let add = |sum: Option<u64>, part: Option<u64>| Some(sum?.saturating_add(part?));
            sum.count += 1;
            sum.anon = sum.anon.saturating_add(process.anon.unwrap_or(0));
            sum.swap = sum.swap.saturating_add(process.swap.unwrap_or(0));
            sum.pss = add(sum.pss, process.pss);
            sum.uss = add(sum.uss, process.uss);
        }
    }
    sums
}

/// One cgroup; `None` when it went away meanwhile, or its path is another cgroup's by now.
fn entry(
    host: &Host,
    fs: &CgroupFs,
    path: &str,
    id: Option<u64>,
    sums: &Sums,
) -> Option<CgroupEntry> {
    let cgroup = identify(path).cgroup(id.unwrap_or_default(), path);
    let mut entry = CgroupEntry {
        cgroup: grey_core::event::Cgroup { id, ..cgroup },
        mem: Mem::default(),
        mem_source: None,
        peak: None,
        reclaimable: None,
        pss: sums.pss,
        uss: sums.uss,
        processes: Some(sums.count),
        dying_cgroups: None,
        events: None,
        counters: Counters::default(),
    };
    if path == "/" {
        let reading = Reading::of_machine(host).ok()?;
        entry.mem = reading.mem;
        entry.mem_source = Some(MemSource::Machine);
        entry.dying_cgroups =
            crate::host::dying_cgroups(host, fs).and_then(|stat| stat.dying_descendants);
        return Some(entry);
    }
    let detail = match CgroupDetail::read(fs, path) {
        Ok(Some(detail)) => detail,
        Ok(None) => return None,
        Err(error) => {
            tracing::debug!("{error}");
            return None;
        }
    };
    if id.is_some() && fs.id_of(path) != id {
        return None;
    }
    for error in &detail.errors {
        tracing::debug!("{error}");
    }
    entry.dying_cgroups = detail
        .cgroups
        .as_ref()
        .and_then(|stat| stat.dying_descendants);
    if !fs.has_memory() {
        entry.mem = Mem {
            anon: Some(sums.anon),
            swap: Some(sums.swap),
            ..Mem::default()
        };
        entry.mem_source = Some(MemSource::Processes);
        return Some(entry);
    }
    fill(&mut entry, detail);
    Some(entry)
}

/// The figures of its files. A cgroup to which the memory controller was not delegated has none.
fn fill(entry: &mut CgroupEntry, detail: CgroupDetail) {
    let stat = detail.stat.unwrap_or_default();
    entry.mem = Mem {
        current: detail.current,
        anon: stat.anon,
        file: stat.file,
        shmem: stat.shmem,
        kernel: stat.kernel_total(),
        slab: stat.slab,
        pagetables: stat.pagetables,
        sock: stat.sock,
        swap: detail.swap,
        max: detail.max,
        high: detail.high,
        ..Mem::default()
    };
    entry.mem_source = (entry.mem != Mem::default()).then_some(MemSource::Files);
    entry.peak = detail.peak;
    entry.reclaimable = stat.reclaimable();
    entry.events = detail.events;
    entry.counters = Counters {
        major_faults: stat.pgmajfault,
        refaults: stat.refault_total(),
        scanned: stat.pgscan,
        reclaimed: stat.pgsteal,
        swapped_out: stat.swap_out,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, cgroup: Option<&str>, pss: Option<u64>) -> ProcessEntry {
        ProcessEntry {
            pid,
            cgroup: cgroup.map(str::to_owned),
            anon: Some(10),
            swap: Some(1),
            pss,
            uss: Some(2),
            ..ProcessEntry::default()
        }
    }

    #[test]
    fn a_cgroup_sums_its_processes_and_those_below_and_one_unknown_pss_leaves_the_sum_unknown() {
        let list = [
            process(1, Some("/a"), Some(5)),
            process(2, Some("/a/b"), Some(7)),
            process(3, Some("/c"), None),
            process(4, None, Some(1)),
        ];
        let sums = sums(&list);
        let pss = |path: &str| sums[path].pss;
        assert_eq!(
            (pss("/a"), pss("/a/b"), pss("/c"), pss("/")),
            (Some(12), Some(7), None, None)
        );
        let counts = |path: &str| {
            (
                sums[path].count,
                sums[path].anon,
                sums[path].swap,
                sums[path].uss,
            )
        };
        assert_eq!(counts("/a"), (2, 20, 2, Some(4)));
        assert_eq!(counts("/"), (4, 40, 4, Some(8)));
    }

    #[test]
    fn this_machine_gives_a_snapshot_with_this_process_in_it() {
        let host = Host::live();
        let fs = CgroupFs::discover(&host);
        let wanted = Wanted {
            chosen: &[],
            choice: &Snapshot::default().chose(),
            detailed: usize::MAX,
            own_pid: 0,
        };
        let snapshot = take(&host, &fs, &wanted).unwrap();
        let own = std::process::id();
        let list = &snapshot.processes.list;
        let me = list.iter().find(|process| process.pid == own).unwrap();
        assert!(me.started > 0 && me.rss > Some(1 << 20) && me.uss <= me.pss && me.uss.is_some());
        assert_eq!(snapshot.cgroups[0].cgroup.path, "/");
        assert!(snapshot.machine.memory.total > Some(0) && snapshot.machine.vm.pgfault > Some(0));
        let text = serde_json::to_string(&snapshot).unwrap();
        let back: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(back.processes, snapshot.processes);
        assert_eq!(back.cgroups, snapshot.cgroups);
        assert_eq!(back.machine, snapshot.machine);
    }

    #[test]
    fn of_the_largest_processes_only_so_many_are_looked_into() {
        let host = Host::live();
        let fs = CgroupFs::discover(&host);
        let wanted = Wanted {
            chosen: &[],
            choice: &Snapshot::default().chose(),
            detailed: 1,
            own_pid: std::process::id(),
        };
        let snapshot = take(&host, &fs, &wanted).unwrap();
        let own = |process: &ProcessEntry| process.pid == std::process::id();
        assert!(!snapshot.processes.list.iter().any(own));
        let known = |process: &&ProcessEntry| process.pss.is_some();
        assert!(snapshot.processes.list.iter().filter(known).count() <= 1);
        assert!(snapshot.processes.list.is_sorted_by_key(|process| {
            std::cmp::Reverse(process.rss.unwrap_or(0) + process.swap.unwrap_or(0))
        }));
    }
}
