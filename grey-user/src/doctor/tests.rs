//! Golden texts for the machines people have.

use std::path::PathBuf;

use super::*;
use crate::host::fixture::Tree;
use crate::host::{CgroupFs, Tracefs};

const UNIFIED: &str =
    "31 23 0:29 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";
const TRACEFS: &str = "33 23 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw";
const V1_MEMORY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
const V2_BESIDE: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
const CGROUP: &str = "/sys/fs/cgroup/system.slice";

/// A machine on which everything is fine: 6.12, unified, root, swap on zram.
fn machine() -> Tree {
    let tree = Tree::new();
    mounts(&tree, &[UNIFIED, TRACEFS]);
    tree.file("/proc/self/status", "Name:\tgrey-ebpf\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
        .file("/proc/self/uid_map", "         0          0 4294967295\n")
        .file("/proc/self/ksm_stat", "ksm_merging_pages 0\n")
        .file("/proc/sys/kernel/osrelease", "6.12.117-cloud-amd64\n")
        .file("/proc/sys/kernel/hostname", "n1\n")
        .file("/proc/sys/kernel/random/boot_id", "6a4ac318-4a65-4972-8a87-21dba39b366d\n")
        .file("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n")
        .file("/proc/sys/kernel/bpf_stats_enabled", "0\n")
        .file("/proc/sys/net/core/bpf_jit_enable", "1\n")
        .file("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
        .file("/proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 4194304 524288 100\n")
        .file(
            "/proc/pressure/memory",
            "some avg10=0.12 avg60=0.00 avg300=0.00 total=13409\nfull avg10=0.01 avg60=0.00 avg300=0.00 total=4000\n",
        )
        .file("/sys/devices/system/cpu/possible", "0-3\n")
        .file("/sys/kernel/btf/vmlinux", "")
        .file("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        .dir("/sys/kernel/tracing/events")
        .file("/sys/block/zram0/disksize", "4294967296\n")
        .file("/sys/block/zram0/mm_stat", "536870912 134217728 140000000 0 140000000 0 0 0 0\n")
        .file("/sys/module/zswap/parameters/enabled", "N\n")
        .file("/sys/module/damon_reclaim/parameters/enabled", "N\n")
        .file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        .file("/sys/kernel/mm/lru_gen/enabled", "0x0007\n")
        .file("/sys/kernel/mm/ksm/run", "0\n")
        .file("/sys/kernel/mm/ksm/general_profit", "0\n")
        .file("/sys/kernel/mm/ksm/advisor_mode", "[none] scan-time\n")
        .dir("/sys/kernel/mm/damon/admin")
        .file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
        .file("/sys/fs/cgroup/cgroup.subtree_control", "cpu io memory pids\n")
        .file("/sys/fs/cgroup/memory.reclaim", "");
    for file in ["current", "swap.current", "high", "reclaim", "peak"] {
        tree.file(&format!("{CGROUP}/memory.{file}"), "0\n");
    }
    tree.file(&format!("{CGROUP}/cgroup.freeze"), "0\n");
    tree
}

fn mounts(tree: &Tree, lines: &[&str]) {
    tree.file("/proc/self/mountinfo", &format!("{}\n", lines.join("\n")));
}

fn facts(tree: &Tree) -> Facts {
    let host = tree.host();
    Facts::gather(&host, &CgroupFs::discover(&host))
}

fn probe(name: &str, family: &str, way: &str, hook: &str) -> ProbeStatus {
    ProbeStatus {
        name: name.to_owned(),
        family: family.to_owned(),
        attached: Some(way.to_owned()),
        hook: hook.to_owned(),
        ..ProbeStatus::default()
    }
}

fn all_attached() -> Vec<ProbeStatus> {
    vec![
        probe("fault-user", "fault", "BTF tracepoint", "page_fault_user"),
        probe("mmap", "vm", "fexit", "vm_mmap_pgoff"),
        probe("oom-victim", "oom", "BTF tracepoint", "mark_victim"),
        probe(
            "memcg-reclaim",
            "reclaim",
            "BTF tracepoint",
            "mm_vmscan_memcg_reclaim_begin",
        ),
        probe(
            "process-exit",
            "lifecycle",
            "BTF tracepoint",
            "sched_process_exit",
        ),
    ]
}

fn none_attached(reason: &str) -> Vec<ProbeStatus> {
    let off = |probe: ProbeStatus| ProbeStatus {
        attached: None,
        reason: Some(reason.to_owned()),
        ..probe
    };
    all_attached().into_iter().map(off).collect()
}

fn golden(name: &str, report: &DoctorReport) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, report.render(false));
    });
}

#[test]
fn everything_is_fine() {
    let report = report(&facts(&machine()), &all_attached());
    golden("fine", &report);
    assert_eq!(report.exit_code(), 0);
    assert!(
        !report
            .sections
            .iter()
            .flat_map(|section| &section.findings)
            .any(|finding| { finding.mark == Mark::Warn })
    );
}

#[test]
fn without_root_probes_and_tracefs_are_off_and_files_go_on() {
    let tree = machine();
    tree.file(
        "/proc/self/status",
        "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n",
    );
    let mut facts = facts(&tree);
    // The test may run as root, from whom no mode keeps a file.
    facts.kernel.tracefs = Tracefs::Denied(PathBuf::from("/sys/kernel/tracing"));
    facts.kernel.memlock = Some(Some(8 << 20));
    let report = report(
        &facts,
        &none_attached("loading needs CAP_BPF and CAP_PERFMON"),
    );
    golden("no-root", &report);
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn without_btf_classic_tracepoints_take_over() {
    let tree = machine();
    tree.without("/sys/kernel/btf");
    let lesser = |probe: ProbeStatus| match probe.family.as_str() {
        "vm" => ProbeStatus {
            attached: Some("syscall tracepoint".to_owned()),
            hook: "sys_exit_mmap".to_owned(),
            cost: Some(
                "every system call pays about 25 % more (a syscall tracepoint is enabled)"
                    .to_owned(),
            ),
            ..probe
        },
        "oom" => ProbeStatus {
            attached: Some("classic tracepoint".to_owned()),
            lost: Some("the victim's cgroup, where it is gone before /proc is read".to_owned()),
            reason: Some("no BTF to find task_struct.cgroups".to_owned()),
            ..probe
        },
        _ => ProbeStatus {
            attached: Some("classic tracepoint".to_owned()),
            ..probe
        },
    };
    let report = report(
        &facts(&tree),
        &all_attached().into_iter().map(lesser).collect::<Vec<_>>(),
    );
    golden("no-btf", &report);
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn without_tracefs_a_private_mount_or_btf_helps() {
    let tree = machine();
    mounts(&tree, &[UNIFIED]);
    golden("no-tracefs", &report(&facts(&tree), &all_attached()));
    tree.without("/sys/kernel/tracing")
        .without("/sys/kernel/btf");
    golden(
        "no-tracing-at-all",
        &report(&facts(&tree), &none_attached("no hook")),
    );
}

#[test]
fn with_v1_alone_and_no_probe_watch_cannot_work() {
    let tree = machine();
    mounts(&tree, &[V1_MEMORY, TRACEFS]);
    tree.without("/sys/fs/cgroup").dir("/sys/fs/cgroup/memory");
    let facts = facts(&tree);
    let report = super::report(&facts, &none_attached("load refused: EPERM"));
    golden("v1-only", &report);
    assert_eq!(report.exit_code(), 3);
    assert_eq!(
        super::report(&facts, &all_attached()).exit_code(),
        0,
        "probes still see the machine"
    );
}

#[test]
fn hybrid_without_the_memory_controller_sums_processes() {
    let tree = machine();
    mounts(&tree, &[V1_MEMORY, V2_BESIDE, TRACEFS]);
    tree.without("/sys/fs/cgroup")
        .file("/sys/fs/cgroup/unified/cgroup.controllers", "\n")
        .file("/sys/fs/cgroup/unified/cgroup.subtree_control", "\n")
        .file("/sys/fs/cgroup/unified/system.slice/cgroup.freeze", "0\n");
    let report = report(&facts(&tree), &all_attached());
    golden("hybrid", &report);
    assert_eq!(report.exit_code(), 0);
}

#[test]
fn with_psi_off_pressure_is_lost() {
    let tree = machine();
    tree.without("/proc/pressure");
    golden("no-psi", &report(&facts(&tree), &all_attached()));
}

#[test]
fn a_container_sees_a_part_from_inside_a_user_namespace() {
    let tree = machine();
    mounts(
        &tree,
        &[
            "22 27 0:21 / /proc rw - proc proc rw,hidepid=invisible",
            "31 23 0:29 /docker/1f2e /sys/fs/cgroup ro - cgroup2 cgroup2 rw",
        ],
    );
    tree.file(
        "/proc/self/status",
        "Uid:\t0\t0\t0\t0\nCapEff:\t000001fffff7ffff\n",
    )
    .file("/proc/self/uid_map", "0 100000 65536\n")
    .file("/sys/fs/cgroup/cgroup.subtree_control", "\n")
    .file(
        "/sys/kernel/security/lockdown",
        "none integrity [confidentiality]\n",
    );
    golden("container", &report(&facts(&tree), &[]));
}

#[test]
fn every_loss_is_told_with_a_remedy() {
    let tree = machine();
    tree.without("/sys/kernel/btf")
        .without("/proc/pressure")
        .without(CGROUP)
        .file("/proc/swaps", "Filename Type Size Used Priority\n");
    let mut facts = facts(&tree);
    facts
        .unreadable
        .push("read /proc/vmstat: Permission denied".to_owned());
    facts.kernel.bpf_jit = Some(false);
    for probes in [Vec::new(), all_attached(), none_attached("why")] {
        for section in report(&facts, &probes).sections {
            for finding in section.findings {
                if matches!(finding.mark, Mark::Warn | Mark::Off) {
                    assert!(
                        finding.lost.is_some() && finding.remedy.is_some(),
                        "{finding:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn json_is_one_object_of_type_doctor_without_empty_fields() {
    let report = report(&facts(&machine()), &all_attached());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], "grey-ebpf/1");
    assert_eq!(json["type"], "doctor");
    assert_eq!(json["works"], true);
    assert_eq!(json["probes"][0]["attached"], "BTF tracepoint");
    assert!(json["probes"][0].get("cost").is_none(), "absent, not null");
    assert_eq!(json["facts"]["cgroup"]["mode"], "unified");
    assert_eq!(json["facts"]["kernel"]["capabilities"][5], "CAP_BPF");
    assert!(json["facts"]["memory"]["meminfo"].get("slab").is_none());
}

#[test]
fn colours_change_nothing_but_colours() {
    let report = report(&facts(&machine()), &all_attached());
    let mut plain = String::new();
    let mut rest = report.render(true);
    assert!(rest.contains("\x1b[32mok  \x1b[0m"));
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1.to_owned();
    }
    plain.push_str(&rest);
    assert_eq!(plain, report.render(false));
}

#[test]
fn a_virtual_machine_is_told_whether_its_host_learns_of_free_pages() {
    let tree = machine();
    let found = |tree: &Tree| {
        let report = report(&facts(tree), &[]);
        let findings = report
            .sections
            .into_iter()
            .flat_map(|section| section.findings);
        findings
            .into_iter()
            .find(|finding| finding.name == "virtual machine")
    };
    assert_eq!(found(&tree), None);
    tree.file("/proc/cpuinfo", "flags\t\t: fpu hypervisor\n")
        .file("/sys/class/dmi/id/sys_vendor", "QEMU\n");
    let without = found(&tree).unwrap();
    assert_eq!(
        (without.mark, without.found.as_str()),
        (Mark::Off, "QEMU, without a balloon")
    );
    assert!(without.remedy.unwrap().contains("free-page-reporting=on"));
    tree.file("/sys/bus/virtio/devices/virtio2/device", "0x0005\n")
        .file("/sys/bus/virtio/devices/virtio2/features", "0000010000\n")
        .dir("/sys/bus/virtio/devices/virtio2/driver")
        .file(
            "/sys/module/page_reporting/parameters/page_reporting_order",
            "9\n",
        );
    let with = found(&tree).unwrap();
    assert_eq!((with.mark, with.remedy), (Mark::Ok, None));
    assert!(
        with.found
            .ends_with("reports free pages to the host, in blocks of 2.0M and more"),
        "{}",
        with.found
    );
}
