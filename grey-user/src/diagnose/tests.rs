//! The whole way from a machine's files to text and JSON, on machines made of files.

use std::time::Duration;

use grey_core::event::{Cause, Cgroup, Evidence, Memory, State, Subject, Verdict};
use grey_core::glob::CgroupFilter;
use grey_core::time::Timestamp;

use super::facts::Facts;
use super::leaks::{Grown, Leaks, Standing};
use super::*;
use crate::host::fixture::Tree;

const UNIFIED: &str = "31 23 0:29 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const HYBRID: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
const NOW: Timestamp = Timestamp(1_795_248_000_000_000);

/// A server of 8 GiB: root, unified, zram, a container at its limit that was OOM-killed, KSM at work.
fn server() -> Tree {
    let tree = Tree::new();
    tree.file("/proc/self/mountinfo", UNIFIED)
        .file("/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
        .file("/proc/self/uid_map", "         0          0 4294967295\n")
        .file("/proc/sys/kernel/osrelease", "6.12.117-cloud-amd64\n")
        .file("/proc/sys/kernel/hostname", "n1\n")
        .file("/proc/sys/kernel/random/boot_id", "6a4ac318-4a65-4972-8a87-21dba39b366d\n")
        .file("/proc/uptime", "610.50 1200.00\n")
        .file("/proc/cmdline", "root=/dev/vda quiet\n")
        .file("/proc/cpuinfo", "flags\t\t: fpu hypervisor\n")
        .file("/sys/class/dmi/id/sys_vendor", "QEMU\n")
        .file("/sys/bus/virtio/devices/virtio2/device", "0x0005\n")
        .dir("/sys/bus/virtio/devices/virtio2/driver")
        .file("/sys/bus/virtio/devices/virtio2/features", "0110000000\n")
        .file(
            "/proc/meminfo",
            "MemTotal: 8000000 kB\nMemFree: 500000 kB\nMemAvailable: 2900000 kB\nBuffers: 100000 kB\nCached: 2600000 kB\n\
             Active(file): 900000 kB\nInactive(file): 1500000 kB\nUnevictable: 20000 kB\nMlocked: 20000 kB\n\
             SwapTotal: 4194304 kB\nSwapFree: 3670016 kB\nAnonPages: 4000000 kB\nShmem: 280000 kB\nKReclaimable: 250000 kB\n\
             Slab: 400000 kB\nSReclaimable: 250000 kB\nSUnreclaim: 150000 kB\nKernelStack: 9000 kB\nPageTables: 40000 kB\n\
             SecPageTables: 0 kB\nVmallocUsed: 30000 kB\nPercpu: 8000 kB\nAnonHugePages: 1000000 kB\nShmemHugePages: 0 kB\n\
             FileHugePages: 0 kB\nHugepagesize: 2048 kB\nHugePages_Free: 0\nHugePages_Rsvd: 0\nHugetlb: 0 kB\n",
        )
        .file("/proc/vmstat", "pgfault 7\noom_kill 2\n")
        .file("/proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 4194304 524288 100\n")
        .file("/sys/block/zram0/disksize", "4294967296\n")
        .file("/sys/block/zram0/mm_stat", "536870912 134217728 140000000 0 140000000 0 0 0 0\n")
        .file("/sys/module/zswap/parameters/enabled", "N\n")
        .file(
            "/proc/pressure/memory",
            "some avg10=3.12 avg60=1.20 avg300=0.40 total=13409\nfull avg10=1.01 avg60=0.30 avg300=0.00 total=4000\n",
        )
        .file(
            "/proc/buddyinfo",
            "Node 0, zone    DMA32      0      0      0      0      0      0      0      0      0      0      8 \n\
             Node 0, zone   Normal  60000  20000   2000      0      0      0      0      0      0      0      0 \n",
        )
        .file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        .file("/sys/kernel/mm/ksm/run", "1\n")
        .file("/sys/kernel/mm/ksm/pages_shared", "1000\n")
        .file("/sys/kernel/mm/ksm/pages_sharing", "25000\n")
        .file("/sys/kernel/mm/ksm/pages_unshared", "4000\n")
        .file("/sys/kernel/mm/ksm/pages_volatile", "0\n")
        .file("/sys/kernel/mm/ksm/pages_to_scan", "100\n")
        .file("/sys/kernel/mm/ksm/sleep_millisecs", "20\n")
        .file("/sys/kernel/mm/ksm/full_scans", "12\n")
        .file("/sys/kernel/mm/ksm/general_profit", "98000000\n")
        .file("/dev/kmsg", include_str!("../host/testdata/kmsg-oom-6.12"))
        .file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
        .file("/sys/fs/cgroup/cgroup.subtree_control", "cpu io memory pids\n")
        .file("/sys/fs/cgroup/cgroup.procs", "")
        .file("/sys/fs/cgroup/cgroup.stat", "nr_descendants 3\nnr_dying_descendants 40\n")
        .file("/sys/fs/cgroup/memory.reclaim", "");
    let m = 1 << 20;
    cgroup(
        &tree,
        "/system.slice",
        &[
            ("current", 5000 * m),
            ("anon", 3000 * m),
            ("file", 1700 * m),
        ],
    );
    cgroup(
        &tree,
        "/system.slice/db.service",
        &[
            ("current", 3500 * m),
            ("anon", 2600 * m),
            ("file", 800 * m),
            ("low", 1000 * m),
        ],
    );
    cgroup(
        &tree,
        "/grp",
        &[
            ("current", 250 * m),
            ("anon", 240 * m),
            ("file", m),
            ("max", 256 * m),
        ],
    );
    cgroup(
        &tree,
        "/grp/web",
        &[
            ("current", 248 * m),
            ("anon", 239 * m),
            ("file", m),
            ("kills", 2),
        ],
    );
    process(
        &tree,
        300,
        "postgres",
        "/system.slice/db.service",
        2600 << 10,
        Some((2400 << 10, 2300 << 10)),
    );
    process(
        &tree,
        301,
        "web",
        "/grp/web",
        240 << 10,
        Some((239 << 10, 238 << 10)),
    );
    tree.file("/proc/2/status", "Name:\tkthreadd\nTgid:\t2\nThreads:\t1\n");
    tree
}

fn cgroup(tree: &Tree, path: &str, figures: &[(&str, u64)]) {
    let of = |name: &str| {
        figures
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    };
    let dir = format!("/sys/fs/cgroup{path}");
    let limit =
        |name: &str, none: &str| of(name).map_or(none.to_owned(), |value| value.to_string());
    let (anon, file) = (of("anon").unwrap_or(0), of("file").unwrap_or(0));
    let kills = of("kills").unwrap_or(0);
    tree.file(&format!("{dir}/cgroup.procs"), "")
        .file(&format!("{dir}/memory.current"), &format!("{}\n", of("current").unwrap_or(0)))
        .file(&format!("{dir}/memory.swap.current"), "1048576\n")
        .file(&format!("{dir}/memory.max"), &limit("max", "max"))
        .file(&format!("{dir}/memory.high"), "max\n")
        .file(&format!("{dir}/memory.min"), "0\n")
        .file(&format!("{dir}/memory.low"), &limit("low", "0"))
        .file(&format!("{dir}/memory.reclaim"), "")
        .file(
            &format!("{dir}/memory.stat"),
            &format!("anon {anon}\nfile {file}\nkernel 4096\nshmem 0\nanon_thp 0\ninactive_file {file}\nactive_file 0\nslab_reclaimable 0\n"),
        )
        .file(
            &format!("{dir}/memory.events"),
            &format!("low 0\nhigh 0\nmax {}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n", 40 * kills),
        )
        .file(
            &format!("{dir}/memory.events.local"),
            &format!("low 0\nhigh 0\nmax 0\noom 0\noom_kill {kills}\noom_group_kill 0\n"),
        )
        .file(
            &format!("{dir}/memory.pressure"),
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
}

/// Sizes in kB; PSS and USS where the process may be looked into.
fn process(tree: &Tree, pid: u32, comm: &str, cgroup: &str, rss: u64, inside: Option<(u64, u64)>) {
    tree.file(
        &format!("/proc/{pid}/status"),
        &format!("Name:\t{comm}\nTgid:\t{pid}\nVmSize:\t{} kB\nVmRSS:\t{rss} kB\nRssAnon:\t{rss} kB\nRssFile:\t0 kB\nRssShmem:\t0 kB\nVmSwap:\t512 kB\n", rss * 3),
    )
    .file(&format!("/proc/{pid}/cgroup"), &format!("0::{cgroup}\n"));
    if let Some((pss, uss)) = inside {
        tree.file(
            &format!("/proc/{pid}/smaps_rollup"),
            &format!("Rss: {rss} kB\nPss: {pss} kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: {uss} kB\nAnonymous: {rss} kB\nAnonHugePages: {} kB\nSwap: 512 kB\nLocked: 0 kB\n", rss / 4),
        );
    }
}

fn facts_of(tree: &Tree, patterns: &[&str], top: usize) -> Facts {
    let host = tree.host();
    let fs = CgroupFs::discover(&host);
    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    let filter = CgroupFilter::new(&patterns, "/sys/fs/cgroup").unwrap();
    gather::gather(
        &host,
        &fs,
        &gather::Wanted {
            top,
            filter: &filter,
        },
    )
}

fn report(tree: &Tree, leaks: Option<Leaks>) -> Report {
    Report::of(
        &facts_of(tree, &[], 10),
        leaks,
        NOW,
        Duration::from_millis(3),
    )
}

fn text(report: &Report, width: usize, verbose: bool) -> String {
    text::render(
        report,
        text::Style {
            color: false,
            width,
            verbose,
        },
    )
}

fn golden(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn a_server_with_an_oom_kill() {
    let report = report(&server(), None);
    golden("server", &text(&report, 100, false));
    golden("server_verbose", &text(&report, 100, true));
    golden("server_narrow", &text(&report, 64, false));
}

#[test]
fn the_keys_of_the_document() {
    let mut json = serde_json::to_value(report(&server(), None)).unwrap();
    json["version"] = "0".into();
    golden("server_json", &serde_json::to_string_pretty(&json).unwrap());
}

#[test]
fn a_hybrid_machine_without_any_right() {
    let tree = Tree::new();
    tree.file("/proc/self/mountinfo", HYBRID)
        .file("/proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n")
        .file("/proc/sys/kernel/osrelease", "5.10.0\n")
        .file("/proc/meminfo", "MemTotal: 4000000 kB\nMemFree: 3000000 kB\nMemAvailable: 3500000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
        .file("/sys/fs/cgroup/unified/cgroup.procs", "")
        .file("/sys/fs/cgroup/unified/cgroup.controllers", "\n")
        .file("/sys/fs/cgroup/unified/cgroup.subtree_control", "\n")
        .file("/sys/fs/cgroup/unified/user.slice/cgroup.procs", "")
        // A directory cannot be read as a file, whoever we are.
        .dir("/proc/77/smaps_rollup");
    process(&tree, 77, "browser", "/user.slice", 900 << 10, None);
    tree.dir("/proc/77/smaps_rollup");
    process(&tree, 78, "editor", "/user.slice", 300 << 10, None);
    golden("hybrid", &text(&report(&tree, None), 100, false));
}

#[test]
fn an_empty_machine_has_no_figures_and_no_panic() {
    let tree = Tree::new();
    let report = report(&tree, None);
    golden("empty", &text(&report, 100, false));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["memory"], serde_json::json!({"parts": []}));
}

#[test]
fn leaks_come_with_rate_time_evidence_and_advice() {
    let cgroup = |path: &str| Cgroup {
        id: Some(7),
        path: path.to_owned(),
        kind: "service".to_owned(),
        name: "web.service".to_owned(),
    };
    let verdict = |state, cause, process| Verdict {
        state,
        cause,
        memory: Memory::Anon,
        process,
        rate_bps: Some(4.0 * 1048576.0),
        rate_ci95: Some([3.9 * 1048576.0, 4.1 * 1048576.0]),
        confidence: 0.97,
        growth_bytes: Some(120 << 20),
        since: None,
        limit_bytes: Some(512 << 20),
        limit_cgroup: Some("/system.slice/web.service".to_owned()),
        ttl_s: Some(90.0),
        ttl_ci95_s: Some([85.0, 240.0]),
        trim_bytes: None,
        evidence: Evidence {
            reason: "30 floors in a row rose, 120M in 30s".to_owned(),
            ..Evidence::default()
        },
        stacks: Vec::new(),
        advice: "take a heap profile of web (pid 7) and restart it before it is full".to_owned(),
    };
    let process = Subject {
        pid: 7,
        comm: "web".to_owned(),
    };
    let leaks = Leaks {
        watched_s: 60.0,
        cgroups: 12,
        standing: vec![
            Standing {
                ts: NOW,
                level_bytes: Some(420 << 20),
                cgroup: cgroup("/system.slice/web.service"),
                verdict: verdict(State::Confirmed, Cause::Leak, None),
            },
            Standing {
                ts: NOW,
                level_bytes: None,
                cgroup: cgroup("/system.slice/web.service"),
                verdict: verdict(State::Growing, Cause::Unknown, Some(process)),
            },
        ],
        without_probes: Some("not root".to_owned()),
        unjudged: vec![Grown {
            cgroup: cgroup("/user.slice"),
            from_bytes: 10 << 20,
            to_bytes: 70 << 20,
            rate_bps: 1048576.0,
        }],
        ..Leaks::default()
    };
    golden("leaks", &text(&report(&server(), Some(leaks)), 100, false));
    let none = Leaks {
        watched_s: 5.0,
        interrupted: true,
        ..Leaks::default()
    };
    let text = text(&report(&server(), Some(none)), 100, false);
    assert!(
        text.contains("ended early") && text.contains("Nothing grows"),
        "{text}"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_colours_change_no_text() {
    let report = report(&server(), None);
    for width in [60, 64, 80, 100, 140] {
        for verbose in [false, true] {
            let plain = text(&report, width, verbose);
            for line in plain.lines() {
                let wide = crate::ui::figure::width(line);
                // A file name or command is not broken.
                let longest = line.split(' ').map(str::len).max().unwrap_or(0);
                assert!(
                    wide <= width || longest > width - 20,
                    "{wide} of {width}: {line}"
                );
            }
            let color = text::render(
                &report,
                text::Style {
                    color: true,
                    width,
                    verbose,
                },
            );
            assert!(color.contains("\x1b[1;31m"));
            let mut bare = String::new();
            let mut rest = color.as_str();
            while let Some((before, after)) = rest.split_once("\x1b[") {
                bare.push_str(before);
                rest = after.split_once('m').unwrap().1;
            }
            bare.push_str(rest);
            let trimmed: Vec<&str> = bare.lines().map(str::trim_end).collect();
            assert_eq!(trimmed, plain.lines().collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_filter_and_the_number_of_rows_are_kept() {
    let tree = server();
    let facts = facts_of(&tree, &["/grp/**"], 10);
    let paths: Vec<&str> = facts
        .cgroups
        .top
        .iter()
        .map(|cgroup| cgroup.path.as_str())
        .collect();
    assert_eq!(paths, ["/grp/web"]);
    let names: Vec<&str> = facts
        .processes
        .top
        .iter()
        .map(|process| process.comm.as_str())
        .collect();
    assert_eq!(names, ["web"]);
    // The limit of a cgroup that was not asked for holds all the same.
    assert_eq!(facts.cgroups.top[0].limit.as_ref().unwrap().cgroup, "/grp");
    let facts = facts_of(&tree, &[], 1);
    assert_eq!((facts.cgroups.top.len(), facts.processes.top.len()), (1, 1));
    assert_eq!(
        (facts.cgroups.total, facts.cgroups.wanted),
        (Some(5), Some(4))
    );
}

#[test]
fn a_parents_sum_holds_its_childrens_processes() {
    let tree = server();
    tree.without("/sys/fs/cgroup/cgroup.controllers");
    let facts = facts_of(&tree, &[], 10);
    let sums: Vec<(&str, Option<u64>, Option<u64>)> = facts
        .cgroups
        .top
        .iter()
        .map(|cgroup| (cgroup.path.as_str(), cgroup.anon, cgroup.processes))
        .collect();
    let m = 1 << 20;
    assert_eq!(
        sums,
        [
            ("/system.slice", Some(2600 * m), Some(1)),
            ("/system.slice/db.service", Some(2600 * m), Some(1)),
            ("/grp", Some(240 * m), Some(1)),
            ("/grp/web", Some(240 * m), Some(1)),
        ]
    );
    assert_eq!(facts.cgroups.source, super::facts::Source::Processes);
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let tree = server();
    let evil = "\u{1b}[2Jx\r";
    cgroup(
        &tree,
        &format!("/{evil}"),
        &[
            ("current", 6 << 30),
            ("anon", 6 << 30),
            ("max", 6 << 30),
            ("kills", 1),
        ],
    );
    process(&tree, 400, evil, &format!("/{evil}"), 6 << 20, None);
    let facts = facts_of(&tree, &[], 10);
    let report = Report::of(&facts, None, NOW, Duration::ZERO);
    for verbose in [false, true] {
        let text = text(&report, 100, verbose);
        assert!(text.contains("\\u{1b}[2Jx"), "{text}");
        let bad: Vec<char> = text
            .chars()
            .filter(|c| c.is_control() && *c != '\n')
            .collect();
        assert_eq!(bad, [], "{text}");
    }
    // JSON escapes by itself, and keeps the name.
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["cgroups"]["top"][0]["path"], format!("/{evil}"));
}
