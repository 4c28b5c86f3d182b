//! Rules over the facts: what each of them takes away from `watch`, and what helps.

use crate::host::{Access, Capabilities, Facts, Mode, Tracefs};

use super::{Finding, Mark, ProbeStatus, Section};

mod machine;

/// Where `watch` gets figures per cgroup from.
pub(super) struct Sources {
    attached: usize,
    probes: usize,
    /// The memory.* files.
    files: bool,
    /// Processes summed by cgroup.procs, and the pressure files.
    tree: bool,
}

impl Sources {
    pub(super) fn of(facts: &Facts, probes: &[ProbeStatus]) -> Self {
        let tree = facts.cgroup.mount.is_some() && facts.cgroup.error.is_none();
        Sources {
            attached: probes.iter().filter(|probe| probe.attached.is_some()).count(),
            probes: probes.len(),
            files: tree && facts.cgroup.has_memory(),
            tree,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.attached > 0 || self.tree
    }

    pub(super) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if self.attached > 0 {
            parts.push(format!("{} of {} probes", self.attached, self.probes));
        }
        if self.files {
            parts.push("the memory.* files of each cgroup".to_owned());
        } else if self.tree {
            parts.push("the processes of each cgroup".to_owned());
        }
        if parts.is_empty() {
            return "no probe is attached and there is no cgroup v2 tree to read".to_owned();
        }
        format!("figures come from {}", parts.join(" and "))
    }
}

pub(super) fn sections(facts: &Facts, probes: &[ProbeStatus]) -> Vec<Section> {
    vec![
        Section { name: "kernel", findings: kernel(facts) },
        Section { name: "privileges", findings: privileges(facts, probes) },
        Section { name: "cgroups", findings: cgroups(facts) },
        Section { name: "probes", findings: probe_findings(facts, probes) },
        Section { name: "memory", findings: machine::memory(facts) },
        Section { name: "actuators", findings: machine::actuators(facts) },
    ]
}

fn finding(mark: Mark, name: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding { mark, name: name.into(), found: found.into(), lost: None, cost: None, remedy: None }
}

impl Finding {
    fn lost(mut self, lost: impl Into<String>) -> Self {
        self.lost = Some(lost.into());
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

fn kernel(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut list = Vec::new();
    if let Some(release) = &kernel.release {
        let cpus = match kernel.possible_cpus {
            Some(1) => ", 1 CPU possible".to_owned(),
            Some(n) => format!(", {n} CPUs possible"),
            None => String::new(),
        };
        list.push(finding(Mark::Ok, "release", format!("{release}{cpus}")));
    }
    let btf_lost = "BTF tracepoints, fexit, and every field that only BTF locates; \
                    classic tracepoints are used instead and cost about half as much again";
    list.push(match kernel.btf {
        Access::Readable => finding(Mark::Ok, "BTF", "/sys/kernel/btf/vmlinux"),
        Access::Denied => finding(Mark::Off, "BTF", "/sys/kernel/btf/vmlinux may not be read")
            .lost(btf_lost)
            .remedy("run as root"),
        Access::Absent => finding(Mark::Off, "BTF", "the kernel gives no /sys/kernel/btf/vmlinux")
            .lost(btf_lost)
            .remedy("use a kernel built with CONFIG_DEBUG_INFO_BTF=y"),
    });
    list.push(tracefs(facts));
    list.push(match kernel.lockdown.as_deref() {
        Some("confidentiality") => finding(Mark::Off, "lockdown", "confidentiality")
            .lost("all that programs read from kernel memory: sizes, victims, cgroups of other tasks")
            .remedy("boot with lockdown=integrity, or without it"),
        Some(mode) => finding(Mark::Ok, "lockdown", mode),
        None => finding(Mark::Ok, "lockdown", "none that the kernel shows"),
    });
    match kernel.bpf_jit {
        Some(false) => list.push(
            finding(Mark::Warn, "BPF JIT", "off")
                .lost("speed: programs are interpreted, each event costs several times as much")
                .remedy("sysctl net.core.bpf_jit_enable=1"),
        ),
        Some(true) => list.push(finding(Mark::Ok, "BPF JIT", "on")),
        None => {}
    }
    match kernel.bpf_stats_enabled {
        Some(true) => list.push(finding(Mark::Ok, "BPF statistics", "on: `health` tells the programs' run time")),
        Some(false) => list.push(
            finding(Mark::Note, "BPF statistics", "off: `health` does not tell the programs' run time")
                .remedy("sysctl kernel.bpf_stats_enabled=1 to have it, at some cost for every event"),
        ),
        None => {}
    }
    for file in &facts.unreadable {
        list.push(
            finding(Mark::Warn, "unreadable", file.as_str())
                .lost("what this file tells is missing below")
                .remedy("run as root"),
        );
    }
    list
}

fn tracefs(facts: &Facts) -> Finding {
    let lost = "classic tracepoints and the record formats that some fields are found by";
    match &facts.kernel.tracefs {
        Tracefs::Mounted(path) => finding(Mark::Ok, "tracefs", path.display().to_string()),
        Tracefs::Denied(path) => {
            finding(Mark::Off, "tracefs", format!("{} may not be read", path.display())).lost(lost).remedy("run as root")
        }
        Tracefs::NotMounted if may_mount(facts) => {
            finding(Mark::Ok, "tracefs", "not mounted; it is mounted for this process alone when it is needed")
        }
        Tracefs::NotMounted => finding(Mark::Off, "tracefs", "not mounted")
            .lost(lost)
            .remedy("run as root, or mount -t tracefs tracefs /sys/kernel/tracing"),
        Tracefs::Absent => finding(Mark::Off, "tracefs", "the kernel has none")
            .lost(lost)
            .remedy("use a kernel built with CONFIG_TRACING=y"),
    }
}

fn may_mount(facts: &Facts) -> bool {
    facts.kernel.capabilities.is_some_and(|caps| caps.has(Capabilities::SYS_ADMIN)) && !facts.kernel.in_user_namespace
}

fn may_trace(facts: &Facts) -> bool {
    facts.kernel.capabilities.is_some_and(Capabilities::can_trace) && !facts.kernel.in_user_namespace
}

fn privileges(facts: &Facts, probes: &[ProbeStatus]) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut list = Vec::new();
    let who = match kernel.euid {
        Some(0) => "root".to_owned(),
        Some(uid) => format!("user id {uid}"),
        None => "not known".to_owned(),
    };
    list.push(finding(if kernel.euid.is_some() { Mark::Ok } else { Mark::Note }, "user", who));
    let lost = "all probes: faults, mappings, stalls and growth per cgroup, and who was killed by the OOM killer";
    list.push(match kernel.capabilities {
        Some(_) if kernel.in_user_namespace => {
            finding(Mark::Off, "BPF", "the capabilities hold inside a user namespace only")
                .lost(lost)
                .remedy("run outside of the user namespace (a rootless container cannot load tracing programs)")
        }
        Some(caps) if caps.has(Capabilities::BPF) && caps.has(Capabilities::PERFMON) => {
            finding(Mark::Ok, "BPF", "CAP_BPF and CAP_PERFMON")
        }
        Some(caps) if caps.has(Capabilities::SYS_ADMIN) => finding(Mark::Ok, "BPF", "CAP_SYS_ADMIN"),
        Some(_) => finding(Mark::Off, "BPF", "neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON").lost(lost).remedy(
            "run as root, or: setcap cap_bpf,cap_perfmon,cap_dac_read_search=ep grey-ebpf (kernels before 5.8 need cap_sys_admin)",
        ),
        None => finding(Mark::Note, "BPF", "not known: /proc/self/status tells no capabilities"),
    });
    let raises = kernel.capabilities.is_some_and(|caps| caps.has(Capabilities::SYS_RESOURCE));
    match kernel.memlock {
        Some(None) => list.push(finding(Mark::Ok, "memlock", "no limit")),
        Some(Some(limit)) => {
            let size = grey_core::units::format_bytes(limit);
            let works = raises || probes.iter().any(|probe| probe.attached.is_some());
            list.push(if works {
                finding(Mark::Ok, "memlock", size)
            } else {
                finding(Mark::Warn, "memlock", size)
                    .lost("on kernels before 5.11 this limits the size of all BPF maps")
                    .remedy("ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit")
            });
        }
        None => {}
    }
    list
}

fn cgroups(facts: &Facts) -> Vec<Finding> {
    let cgroup = &facts.cgroup;
    let mut list = Vec::new();
    let unify = "boot with systemd.unified_cgroup_hierarchy=1, or with cgroup_no_v1=all";
    let at = cgroup.mount.as_ref().map(|mount| mount.display().to_string()).unwrap_or_default();
    list.push(match cgroup.mode {
        Mode::Unified => finding(Mark::Ok, "layout", format!("unified: v2 at {at}")),
        Mode::Hybrid => finding(Mark::Note, "layout", format!("hybrid: v2 at {at} beside v1 hierarchies")),
        Mode::V1Only => finding(Mark::Off, "layout", "v1 only: there is no v2 tree")
            .lost("all figures per cgroup: the kernel side knows every task as one of the root")
            .remedy(unify),
        Mode::None => finding(Mark::Off, "layout", "no cgroup file system is mounted")
            .lost("all figures per cgroup")
            .remedy("mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
    });
    if let Some(error) = &cgroup.error {
        list.push(
            finding(Mark::Off, "v2 tree", error.as_str())
                .lost("all that its files tell")
                .remedy("run as root with /proc and the cgroup tree of the host in view"),
        );
    }
    if cgroup.mount.is_none() {
        return list;
    }
    if cgroup.partial {
        list.push(
            finding(Mark::Warn, "view", format!("only a part of the tree is mounted at {at}"))
                .lost("cgroups outside of that part")
                .remedy("in a container: use the host's cgroup namespace and its /sys/fs/cgroup"),
        );
    }
    if !cgroup.has_memory() {
        let found = match &cgroup.v1_memory {
            Some(path) => format!("not in the v2 tree, but on v1 at {}", path.display()),
            None => "not in the v2 tree".to_owned(),
        };
        list.push(
            finding(Mark::Off, "memory controller", found)
                .lost(
                    "memory.current, limits, memory.events and swap per cgroup; \
                     anon and file are summed from the cgroup's processes instead",
                )
                .remedy(match cgroup.v1_memory {
                    Some(_) => "boot with cgroup_no_v1=memory, or systemd.unified_cgroup_hierarchy=1",
                    None => "boot with cgroup_enable=memory, on a kernel built with CONFIG_MEMCG=y",
                }),
        );
        return list;
    }
    list.push(if cgroup.memory_delegated == Some(false) {
        finding(Mark::Warn, "memory controller", "in the v2 tree, but not switched on for its children")
            .lost("the memory.* files of every cgroup but the root")
            .remedy(format!("echo +memory > {at}/cgroup.subtree_control (systemd: MemoryAccounting=yes)"))
    } else {
        finding(Mark::Ok, "memory controller", "in the v2 tree")
    });
    match facts.swap_accounting {
        Some(true) => list.push(finding(Mark::Ok, "swap per cgroup", "memory.swap.current")),
        Some(false) if facts.memory_files == Some(true) => list.push(
            finding(Mark::Warn, "swap per cgroup", "there is no memory.swap.current")
                .lost("swap per cgroup: memory that was swapped out looks as if it had been freed")
                .remedy("boot with swapaccount=1, on a kernel built with CONFIG_SWAP=y"),
        ),
        _ => {}
    }
    list
}

fn probe_findings(facts: &Facts, probes: &[ProbeStatus]) -> Vec<Finding> {
    if probes.is_empty() {
        return vec![
            finding(Mark::Off, "probes", "none was tried")
                .lost("faults, mappings, stalls, growth and OOM victims")
                .remedy(obstacle(facts)),
        ];
    }
    probes.iter().map(|probe| probe_finding(facts, probe)).collect()
}

fn probe_finding(facts: &Facts, probe: &ProbeStatus) -> Finding {
    let ProbeStatus { name, family, attached, hook, cost, lost, reason } = probe;
    let because = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut finding = match attached {
        Some(way) if lost.is_none() && cost.is_none() => finding(Mark::Ok, name, format!("{way} {hook}")),
        Some(way) => finding(Mark::Warn, name, format!("{way} {hook}{because}")),
        None => finding(Mark::Off, name, format!("not attached to {hook}{because}")),
    };
    finding.cost.clone_from(cost);
    finding.lost.clone_from(lost);
    match (finding.mark, attached) {
        (Mark::Off, _) => {
            let lost = finding.lost.take().unwrap_or_else(|| format!("the `{family}` figures it feeds"));
            finding.lost(lost).remedy(obstacle(facts))
        }
        (Mark::Warn, Some(way)) if cost.is_some() && way.starts_with("syscall") => {
            finding.remedy("a kernel that lets fexit or kprobes attach makes it cheap")
        }
        (Mark::Warn, _) => finding.remedy(obstacle(facts)),
        _ => finding,
    }
}

/// The first thing in the way of probes, as advice.
fn obstacle(facts: &Facts) -> &'static str {
    if !may_trace(facts) && facts.kernel.capabilities.is_some() {
        "see `BPF` under privileges"
    } else if facts.kernel.lockdown.as_deref() == Some("confidentiality") {
        "see `lockdown` under kernel"
    } else if facts.kernel.btf != Access::Readable {
        "see `BTF` under kernel"
    } else if !matches!(facts.kernel.tracefs, Tracefs::Mounted(_)) && !may_mount(facts) {
        "see `tracefs` under kernel"
    } else {
        "nothing on this kernel; all other figures go on"
    }
}
