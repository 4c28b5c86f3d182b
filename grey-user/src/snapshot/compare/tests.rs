use std::collections::HashSet;

use grey_core::event::{Cgroup, Mem};
use grey_core::identity::identify;
use proptest::prelude::*;

use super::*;
use crate::host::FullEvents;
use crate::snapshot::document;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn cgroup_entry(path: &str, id: u64, current: u64) -> CgroupEntry {
    CgroupEntry {
        cgroup: Cgroup {
            id: Some(id),
            ..identify(path).cgroup(id, path)
        },
        mem: Mem {
            current: Some(current),
            anon: Some(current / 2),
            file: Some(current - current / 2),
            swap: Some(0),
            ..Mem::default()
        },
        mem_source: Some(MemSource::Files),
        peak: None,
        reclaimable: None,
        pss: None,
        uss: None,
        processes: None,
        dying_cgroups: None,
        events: None,
        counters: document::Counters::default(),
    }
}

pub(crate) fn process_entry(pid: u32, started: u64, comm: &str, rss: u64) -> ProcessEntry {
    ProcessEntry {
        pid,
        started,
        comm: comm.to_owned(),
        cgroup: Some("/a".to_owned()),
        rss: Some(rss),
        anon: Some(rss / 2),
        swap: Some(0),
        pss: Some(rss - rss / 4),
        uss: Some(rss / 2),
        ..ProcessEntry::default()
    }
}

pub(crate) fn snapshot(cgroups: Vec<CgroupEntry>, processes: Vec<ProcessEntry>) -> Snapshot {
    let mut snapshot = Snapshot {
        schema: document::SCHEMA.to_owned(),
        ts: Timestamp(1_795_237_200_000_000),
        host: "n1".to_owned(),
        boot_id: Some("boot-1".to_owned()),
        kernel: Some("6.12.0".to_owned()),
        cgroups,
        ..Snapshot::default()
    };
    snapshot.processes.list = processes;
    let memory = &mut snapshot.machine.memory;
    memory.total = Some(8192 * MIB);
    memory.available = Some(4096 * MIB);
    memory.free = Some(1024 * MIB);
    snapshot
}

fn codes(comparison: &Comparison) -> Vec<&'static str> {
    comparison.notes.iter().map(|note| note.code).collect()
}

#[test]
fn what_went_down_is_a_positive_reduction_in_bytes_and_percent() {
    let cases = [
        ((Some(100), Some(25)), (Some(75), Some(75.0))),
        ((Some(100), Some(250)), (Some(-150), Some(-150.0))),
        ((Some(100), Some(100)), (Some(0), Some(0.0))),
        ((Some(3), Some(2)), (Some(1), Some(33.3))),
        ((Some(0), Some(5)), (Some(-5), None)),
        ((Some(0), Some(0)), (Some(0), None)),
        ((None, Some(5)), (None, None)),
        ((Some(5), None), (None, None)),
        ((Some(0), Some(u64::MAX)), (Some(i64::MIN), None)),
        ((Some(u64::MAX), Some(0)), (Some(i64::MAX), Some(100.0))),
    ];
    for ((before, after), want) in cases {
        let change = Change::of(before, after, (true, true));
        assert_eq!(
            (change.reduction_bytes, change.reduction_pct),
            want,
            "{before:?} {after:?}"
        );
    }
}

#[test]
fn what_did_not_exist_held_nothing_and_what_is_unknown_stays_unknown() {
    let new = Change::of(None, Some(5), (false, true));
    assert_eq!(
        (new.before, new.reduction_bytes, new.reduction_pct),
        (None, Some(-5), None)
    );
    let gone = Change::of(Some(5), None, (true, false));
    assert_eq!(
        (gone.after, gone.reduction_bytes, gone.reduction_pct),
        (None, Some(5), Some(100.0))
    );
    let unknown = Change::of(None, None, (true, false));
    assert_eq!(unknown.reduction_bytes, None);
}

#[test]
fn cgroups_are_told_same_new_gone_and_made_again() {
    let before = snapshot(
        vec![
            cgroup_entry("/same", 1, 100 * MIB),
            cgroup_entry("/again", 2, 50 * MIB),
            cgroup_entry("/gone", 3, 30 * MIB),
        ],
        vec![],
    );
    let after = snapshot(
        vec![
            cgroup_entry("/same", 1, 20 * MIB),
            cgroup_entry("/again", 9, 10 * MIB),
            cgroup_entry("/new", 4, 5 * MIB),
        ],
        vec![],
    );
    let comparison = compare(&before, &after);
    let got: Vec<(&str, Status, Option<i64>)> = comparison
        .cgroups
        .iter()
        .map(|change| {
            (
                change.path.as_str(),
                change.status,
                change.change.reduction_bytes,
            )
        })
        .collect();
    let mib = |n: i64| Some(n << 20);
    assert_eq!(
        got,
        [
            ("/same", Status::Same, mib(80)),
            ("/again", Status::Recreated, mib(40)),
            ("/gone", Status::Gone, mib(30)),
            ("/new", Status::New, mib(-5)),
        ]
    );
    assert_eq!(codes(&comparison), ["recreated"]);
    assert_eq!(comparison.accounted.cgroups_bytes, mib(80 + 40 + 30 - 5));
    assert_eq!(comparison.cgroups[0].figures.reduction("anon"), mib(40));
}

#[test]
fn a_process_is_its_pid_and_its_start_and_a_pid_given_out_again_is_two() {
    let before = snapshot(
        vec![],
        vec![
            process_entry(10, 5, "stays", 80 * MIB),
            process_entry(11, 5, "old", 40 * MIB),
            process_entry(12, 5, "sh", 4 * MIB),
        ],
    );
    let after = snapshot(
        vec![],
        vec![
            process_entry(10, 5, "stays", 40 * MIB),
            process_entry(11, 7, "other", 8 * MIB),
            process_entry(12, 5, "python", 4 * MIB),
        ],
    );
    let comparison = compare(&before, &after);
    let got: Vec<_> = comparison
        .processes
        .iter()
        .map(|change| {
            (
                change.pid,
                change.status,
                change.pid_reused,
                change.comm.as_str(),
            )
        })
        .collect();
    assert_eq!(
        got,
        [
            (10, Status::Same, false, "stays"),
            (11, Status::Gone, true, "old"),
            (11, Status::New, true, "other"),
            (12, Status::Same, false, "python"),
        ]
        .map(|row| row)
    );
    assert_eq!(comparison.processes[3].comm_before.as_deref(), Some("sh"));
    assert_eq!(codes(&comparison), ["pid_reused"]);
    assert_eq!(
        comparison.processes[0].change.reduction_bytes,
        Some(30 << 20),
        "by PSS"
    );
    assert_eq!(comparison.processes[0].figure, Some("pss"));
}

#[test]
fn where_a_pss_is_unknown_the_rss_stands_in_and_is_named() {
    let mut without = process_entry(10, 5, "a", 80 * MIB);
    without.pss = None;
    let before = snapshot(vec![], vec![without]);
    let after = snapshot(vec![], vec![process_entry(10, 5, "a", 20 * MIB)]);
    let comparison = compare(&before, &after);
    let change = &comparison.processes[0];
    assert_eq!(
        (change.figure, change.change.reduction_bytes),
        (Some("rss"), Some(60 << 20))
    );
    assert_eq!(change.figures.reduction("pss"), None);
    assert_eq!(comparison.accounted.processes_by_rss, 1);
}

#[test]
fn another_boot_matches_cgroups_by_path_and_no_process() {
    let before = snapshot(
        vec![cgroup_entry("/a", 1, 100)],
        vec![process_entry(1, 1, "init", 100)],
    );
    let mut after = snapshot(
        vec![cgroup_entry("/a", 7, 50)],
        vec![process_entry(1, 1, "init", 50)],
    );
    after.boot_id = Some("boot-2".to_owned());
    let comparison = compare(&before, &after);
    assert_eq!(codes(&comparison), ["other_boot"]);
    assert!(comparison.notes[0].text.contains("rebooted"));
    assert_eq!(comparison.cgroups[0].status, Status::Same);
    assert!(comparison.processes.is_empty());
    assert_eq!(comparison.accounted.processes_bytes, None);

    after.host = "n2".to_owned();
    after.kernel = Some("7.2.0".to_owned());
    let notes = codes(&compare(&before, &after));
    assert_eq!(notes, ["other_host", "other_boot", "other_kernel"]);
    // A renamed machine is the same one.
    after.boot_id.clone_from(&before.boot_id);
    let renamed = compare(&before, &after);
    assert_eq!(codes(&renamed), ["other_host", "other_kernel", "recreated"]);
    assert_eq!(renamed.processes.len(), 1);
}

#[test]
fn the_wrong_order_is_told() {
    let later = snapshot(vec![], vec![]);
    let mut earlier = snapshot(vec![], vec![]);
    earlier.ts.0 -= 90_000_000;
    let comparison = compare(&later, &earlier);
    assert_eq!(
        (codes(&comparison), comparison.elapsed_s),
        (vec!["wrong_order"], -90.0)
    );
}

#[test]
fn of_snapshots_of_different_cgroups_only_what_both_chose_is_compared() {
    let cgroups = || vec![cgroup_entry("/a", 1, 100), cgroup_entry("/a/b", 2, 50)];
    let before = snapshot(cgroups(), vec![process_entry(5, 5, "x", 100)]);
    let mut after = snapshot(vec![cgroup_entry("/a", 1, 90)], vec![]);
    after.chosen = vec!["/a".to_owned()];
    let comparison = compare(&before, &after);
    let paths: Vec<&str> = comparison
        .cgroups
        .iter()
        .map(|change| change.path.as_str())
        .collect();
    assert_eq!(paths, ["/a"], "not /a/b, which the second did not choose");
    assert_eq!(codes(&comparison), ["other_choice"]);
    assert_eq!(
        comparison.processes[0].status,
        Status::Gone,
        "it was in /a, which both chose"
    );
}

#[test]
fn only_the_topmost_cgroups_are_summed_against_the_machine() {
    let at = |a: u64, child: u64, c: u64| {
        vec![
            cgroup_entry("/", 1, 0),
            cgroup_entry("/a", 2, a * MIB),
            cgroup_entry("/a/child", 3, child * MIB),
            cgroup_entry("/c/deep", 4, c * MIB),
        ]
    };
    let before = snapshot(at(100, 90, 20), vec![]);
    let mut after = snapshot(at(40, 30, 10), vec![]);
    after.machine.memory.free = Some((1024 + 140) * MIB);
    let accounted = compare(&before, &after).accounted;
    assert_eq!(accounted.figure, "held");
    assert_eq!(
        (accounted.machine_bytes, accounted.cgroups_bytes),
        (Some(140 << 20), Some(70 << 20))
    );
    assert_eq!(accounted.cgroups_pct, Some(50.0));
    // A machine that did not change has no shares.
    let same = compare(&before, &snapshot(at(40, 30, 10), vec![])).accounted;
    assert_eq!(same.cgroups_pct, None);
}

#[test]
fn without_memory_files_anonymous_memory_and_swap_are_compared() {
    let by_processes = |anon: u64, swap: Option<u64>| {
        let mut entry = cgroup_entry("/a", 1, 0);
        entry.mem = Mem {
            anon: Some(anon * MIB),
            swap,
            ..Mem::default()
        };
        entry.mem_source = Some(MemSource::Processes);
        entry
    };
    let comparison = compare(
        &snapshot(vec![by_processes(100, Some(0))], vec![]),
        &snapshot(vec![by_processes(30, Some(60 * MIB))], vec![]),
    );
    let change = &comparison.cgroups[0];
    assert_eq!(change.figure, Some("anon_swap"));
    assert_eq!(
        change.change.reduction_bytes,
        Some(10 << 20),
        "what went to swap is not gone"
    );
    assert_eq!(codes(&comparison), ["mem_from_processes"]);
    assert_eq!(comparison.accounted.figure, "anon_swap");
}

#[test]
fn counters_of_one_cgroup_are_subtracted_and_those_of_two_are_not() {
    let with = |id, kills, reclaimed| {
        let mut entry = cgroup_entry("/a", id, 100);
        entry.events = Some(FullEvents {
            oom_kill: Some(kills),
            high: Some(3),
            ..FullEvents::default()
        });
        entry.counters.reclaimed = Some(reclaimed);
        snapshot(vec![entry], vec![])
    };
    let happened =
        |before: &Snapshot, after: &Snapshot| compare(before, after).cgroups[0].happened.clone();
    let before = with(1, 1, 500);
    assert_eq!(
        happened(&before, &with(1, 3, 700)),
        [("oom_kills", 2), ("pages_reclaimed", 200)]
    );
    assert_eq!(happened(&before, &with(2, 3, 700)), []);
    assert_eq!(
        happened(&before, &with(1, 0, 500)),
        [],
        "a counter that fell says nothing"
    );
}

#[test]
fn what_top_leaves_out_is_counted() {
    let many = |add: u64| {
        let entries = (0..10).map(|n| cgroup_entry(&format!("/c{n}"), n, 100 + n * add));
        snapshot(entries.collect(), vec![])
    };
    let mut comparison = compare(&many(0), &many(7));
    comparison.keep(3);
    let paths: Vec<&str> = comparison
        .cgroups
        .iter()
        .map(|change| change.path.as_str())
        .collect();
    assert_eq!(
        (paths, comparison.cgroups_left_out),
        (vec!["/c9", "/c8", "/c7"], 7)
    );
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let cgroup = (
        0..6_usize,
        0..3_u64,
        proptest::option::of(0..u64::MAX),
        proptest::option::of(0..1000_u64),
    );
    let process = (
        1..6_u32,
        0..2_u64,
        proptest::option::of(0..u64::MAX),
        proptest::option::of(0..1000_u64),
    );
    let cgroups = proptest::collection::vec(cgroup, 0..8);
    let processes = proptest::collection::vec(process, 0..8);
    (cgroups, processes, 0..2_u8, any::<i64>()).prop_map(|(cgroups, processes, boot, ts)| {
        const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/a/b/c", "/d", "odd"];
        let mut seen = HashSet::new();
        let cgroups = cgroups.into_iter().filter(|(path, ..)| seen.insert(*path));
        let cgroups = cgroups.map(|(path, id, current, anon)| {
            let mut entry = cgroup_entry(PATHS[path], id, 0);
            entry.mem.current = current;
            entry.mem.anon = anon;
            entry
        });
        let mut seen = HashSet::new();
        let processes = processes.into_iter().filter(|(pid, ..)| seen.insert(*pid));
        let processes = processes.map(|(pid, started, rss, pss)| ProcessEntry {
            pss,
            rss,
            ..process_entry(pid, started, "x", 0)
        });
        let mut snapshot = snapshot(cgroups.collect(), processes.collect());
        snapshot.boot_id = Some(boot.to_string());
        snapshot.ts.0 = ts;
        snapshot
    })
}

/// An entry's figure of `current`, by path.
fn currents(comparison: &Comparison) -> Vec<(String, Option<i64>, Status)> {
    let mut list: Vec<_> = comparison
        .cgroups
        .iter()
        .map(|change| {
            (
                change.path.clone(),
                change.figures.reduction("current"),
                change.status,
            )
        })
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

proptest! {
    #[test]
    fn a_snapshot_compared_with_itself_has_not_changed(one in any_snapshot()) {
        let comparison = compare(&one, &one);
        prop_assert!(comparison.cgroups.iter().all(|change| change.status == Status::Same));
        prop_assert!(comparison.processes.iter().all(|change| change.status == Status::Same));
        let all = comparison.cgroups.iter().map(|change| &change.figures)
            .chain(comparison.processes.iter().map(|change| &change.figures));
        for figures in all {
            prop_assert!(figures.iter().all(|(_, change)| change.reduction_bytes == Some(0)));
        }
        prop_assert_eq!(comparison.cgroups.len(), one.cgroups.len());
    }

    #[test]
    fn the_other_way_round_every_reduction_is_a_growth(a in any_snapshot(), b in any_snapshot()) {
        let there = currents(&compare(&a, &b));
        let back = currents(&compare(&b, &a));
        prop_assert_eq!(there.len(), back.len());
        for ((path, reduction, status), (other, growth, reverse)) in there.into_iter().zip(back) {
            prop_assert_eq!(path, other);
            // The ends of 64 bits are not symmetric.
            let clamp = |bytes: i64| bytes.max(-i64::MAX);
            prop_assert_eq!(reduction.map(clamp), growth.map(|bytes| -clamp(bytes)));
            let want = match status {
                Status::New => Status::Gone,
                Status::Gone => Status::New,
                status => status,
            };
            prop_assert_eq!(want, reverse);
        }
    }

    #[test]
    fn nothing_panics_and_no_share_is_not_a_number(a in any_snapshot(), b in any_snapshot()) {
        let comparison = compare(&a, &b);
        let text = serde_json::to_string(&comparison).unwrap();
        // serde_json writes what is not a number as null, and an unknown figure is left out.
        prop_assert!(!text.contains("null"), "{}", text);
    }
}
