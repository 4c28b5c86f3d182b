//! From arguments to an observer of this machine: limits, tracefs, the kernel side, and what to say when a part is
//! missing.

use grey_core::glob::{self, CgroupFilter};

use crate::cli::{self, Failure, Switch, WatchArgs};
use crate::doctor::ProbeStatus;
use crate::host::{self, CgroupFs, Host};
use crate::probe::{self, Facts, Kernel, Settings};
use crate::source::{Observer, Options};
use crate::watch::resident::{give_back, share_heap};

/// Descriptors wanted: a handful for each of some thousands of active cgroups.
const DESCRIPTORS: u64 = 65_536;

/// What could be attached, and why not the rest.
pub(crate) fn kernel_side(
    settings: &Settings,
) -> (Option<Kernel>, Vec<ProbeStatus>, Option<String>) {
    // Must come before any thread is started; without it only classic tracepoints are lost.
    if let Err(error) = host::mount_tracefs_privately() {
        tracing::debug!("{error}");
    }
    if let Err(error) = host::raise_memlock() {
        tracing::debug!("{error}");
    }
    let facts = Facts::read(std::path::Path::new("/"));
    let loaded = probe::load(&facts, settings);
    give_back();
    match loaded {
        Ok(mut kernel) => {
            if let Err(error) = kernel.mark_own(std::process::id()) {
                tracing::warn!("own reclaim cannot be told apart: {error}");
            }
            let probes = kernel.probes.clone();
            (Some(kernel), probes, None)
        }
        Err(error) => {
            // Which of the maps was refused first is of no use to anybody.
            let reason = match rustix::process::geteuid().is_root() {
                true => error.to_string(),
                false => {
                    "not root, and loading BPF needs root or CAP_BPF and CAP_PERFMON".to_owned()
                }
            };
            (None, probe::unavailable(&reason), Some(reason))
        }
    }
}

/// Sizes that fit this machine: more cgroups by a quarter and twice the processes there are, so that a busy day finds room.
/// A cgroup's counters take 208 bytes for each CPU, which is memory of the kernel's.
pub(crate) fn settings(fs: &CgroupFs, host: &Host) -> Settings {
    let cgroups = fs.walk().map_or(0, |walk| walk.cgroups.len());
    let processes = host::ProcFs::open(host)
        .and_then(|procs| procs.pids())
        .map_or(0, |pids| pids.len());
    let room = |count: usize, least: u32| {
        u32::try_from(count.saturating_mul(2))
            .unwrap_or(u32::MAX)
            .clamp(least, 65_536)
            .next_power_of_two()
    };
    Settings {
        cgroup_slots: u32::try_from(cgroups + cgroups / 4 + 1024)
            .unwrap_or(u32::MAX)
            .min(65_536),
        // 24 bytes each, of the kernel's memory. With more of them their files are looked at instead.
        level_slots: u32::try_from(cgroups + cgroups / 4 + 4096).unwrap_or(u32::MAX / 32),
        process_slots: room(processes, 8192),
        ..Settings::default()
    }
    .with_fail_switch()
}

/// The observer that these arguments ask for, and what is lost on this machine.
pub(crate) fn observer(args: &WatchArgs) -> Result<(Observer, Losses), Failure> {
    share_heap();
    let host = Host::live();
    let fs = CgroupFs::discover(&host);
    let mount = fs
        .mount()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    let filter = CgroupFilter::new(&args.cgroup, &mount)
        .map_err(|error| Failure::usage(error.to_string()))?;
    if let Err(error) = host::raise_nofile(DESCRIPTORS) {
        tracing::debug!("{error}");
    }
    let settings = Settings {
        growth_bytes: args.growth,
        stall_ns: u64::try_from(args.stall.as_nanos()).unwrap_or(u64::MAX),
        ring_bytes: args.ring,
        syscall_tracepoints: args.syscall_tracepoints == Switch::On,
        ..settings(&fs, &host)
    };
    let (kernel, probes, reason) = kernel_side(&settings);
    let attached = probes.iter().any(|probe| probe.attached.is_some());
    if !attached && fs.mount().is_none() {
        let why = reason.unwrap_or_else(|| "no probe could be attached".to_owned());
        return Err(Failure::unsupported(format!(
            "nothing to watch: {why}, and no cgroup v2 tree is mounted; run as root, or see `grey-ebpf doctor`"
        )));
    }
    let losses = Losses::of(&fs, &probes, reason.as_deref());
    let options = Options {
        filter,
        processes: args.processes,
        slow_ticks: args.slow_ticks,
        cpu: args.cpu,
    };
    Ok((Observer::new(host, fs, kernel, probes, options), losses))
}

/// What is missing on this machine; the rest is shown all the same.
pub(crate) struct Losses(Vec<String>);

impl Losses {
    /// One line on stderr, if there is something to tell.
    pub(crate) fn tell(&self) {
        if !self.0.is_empty() {
            cli::tell(&format!("{}; details: grey-ebpf doctor", self.0.join("; ")));
        }
    }

    fn of(fs: &CgroupFs, probes: &[ProbeStatus], reason: Option<&str>) -> Losses {
        let mut parts = Vec::new();
        if let Some(reason) = reason {
            parts.push(format!("no kernel events: {reason}; run as root"));
        } else {
            let off: Vec<&str> = probes
                .iter()
                .filter(|probe| probe.attached.is_none())
                .map(|probe| probe.name.as_str())
                .collect();
            if !off.is_empty() {
                parts.push(format!("probes off: {}", off.join(", ")));
            }
            let dear = probes
                .iter()
                .filter(|probe| probe.attached.as_deref() == Some(probe::SYSCALL_TRACEPOINT))
                .count();
            if dear > 0 {
                parts.push(format!(
                    "{dear} probes use syscall tracepoints, which every system call pays for"
                ));
            }
        }
        if fs.mount().is_none() {
            parts.push("no cgroup v2 tree: everything counts as the root cgroup".to_owned());
        } else if !fs.has_memory() {
            parts.push(
                "the cgroup v2 tree has no memory controller: no memory.* figures".to_owned(),
            );
        }
        Losses(parts)
    }
}

/// A cgroup that was named must exist, and a glob must match something.
pub(crate) fn check_filter(args: &WatchArgs, observer: &Observer) -> Result<(), Failure> {
    if args.allow_missing {
        return Ok(());
    }
    let mount = observer
        .cgroups()
        .mount()
        .map(|mount| mount.display().to_string())
        .unwrap_or_default();
    for pattern in &args.cgroup {
        let one = CgroupFilter::new(std::slice::from_ref(pattern), &mount)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let found = observer
            .identities()
            .any(|cgroup| one.matches(cgroup.path(), cgroup.name()));
        if !found {
            let what = if glob::is_literal(pattern) {
                "no cgroup"
            } else {
                "no cgroup matches"
            };
            return Err(Failure::usage(format!(
                "--cgroup: {what} '{pattern}' below {}; see `grey-ebpf watch --once` for those there are, or add --allow-missing",
                if mount.is_empty() {
                    "any cgroup v2 mount"
                } else {
                    &mount
                }
            )));
        }
    }
    Ok(())
}
