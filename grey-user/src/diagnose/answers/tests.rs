//! The rules by tables: for each cause the facts that make it, and facts close by that do not.

mod kills;
mod tools;

use grey_core::event::Limit;

use super::*;
use crate::diagnose::facts::*;
use crate::host::oom_log::{OomCandidate, OomConstraint, OomRecord};
use crate::host::psi::{PsiFile, PsiLine};
use crate::host::{Ksm, MemInfo, Mode};

const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// A machine of 16 GiB with nothing wrong: 4 GiB of programs, 2 GiB of cache, swap.
fn fine() -> Facts {
    Facts {
        meminfo: MemInfo {
            total: Some(16 * G),
            free: Some(9 * G),
            available: Some(11 * G),
            anon: Some(4 * G),
            shmem: Some(10 * M),
            cached: Some(2 * G),
            buffers: Some(0),
            active_file: Some(G),
            inactive_file: Some(G),
            kernel_reclaimable: Some(200 * M),
            slab_unreclaimable: Some(100 * M),
            unevictable: Some(0),
            mlocked: Some(0),
            hugetlb: Some(0),
            pagetables: Some(20 * M),
            swap_total: Some(4 * G),
            swap_free: Some(4 * G),
            ..MemInfo::default()
        },
        psi: Some(psi(0.0, 0.0)),
        ksm: Some(Ksm {
            run: Some(0),
            ..Ksm::default()
        }),
        machine: Standing {
            release: Some("6.12.1".to_owned()),
            euid: Some(0),
            mode: Some(Mode::Unified),
            mount: Some("/sys/fs/cgroup".into()),
            has_memory: true,
            memory_delegated: Some(true),
            reclaim_file: Some(true),
            reclaim_writable: Some(true),
            ..Standing::default()
        },
        oom: Oom {
            kills_since_boot: Some(0),
            log_read: true,
            ..Oom::default()
        },
        ..Facts::default()
    }
}

fn psi(some: f64, full: f64) -> PsiFile {
    let line = |avg| PsiLine {
        avg10: avg,
        avg60: avg,
        avg300: avg,
        total_us: 0,
    };
    PsiFile {
        some: line(some),
        full: Some(line(full)),
    }
}

fn cgroup(path: &str, current: u64) -> CgroupUse {
    CgroupUse {
        path: path.to_owned(),
        current: Some(current),
        ..CgroupUse::default()
    }
}

fn of(facts: &Facts, id: &str) -> Answer {
    let breakdown = Breakdown::of(&facts.meminfo);
    answers(facts, &breakdown)
        .into_iter()
        .find(|answer| answer.id == id)
        .unwrap()
}

/// Ids of the causes an answer names.
fn causes(facts: &Facts, id: &str) -> Vec<&'static str> {
    of(facts, id)
        .reasons
        .iter()
        .map(|reason| reason.id)
        .collect()
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = fine();
    change(&mut facts);
    facts
}

#[test]
fn a_machine_without_trouble_raises_no_question() {
    let facts = fine();
    let all = answers(&facts, &Breakdown::of(&facts.meminfo));
    assert_eq!(all.len(), 8);
    for answer in &all {
        assert!(!answer.applies, "{answer:?}");
        assert!(!answer.answer.is_empty(), "{}", answer.id);
    }
}

#[test]
fn nothing_known_is_no_trouble_and_no_panic() {
    let facts = Facts::default();
    for answer in answers(&facts, &Breakdown::default()) {
        assert!(!answer.answer.is_empty(), "{}", answer.id);
        if answer.id != "reclaim_unavailable" {
            assert!(!answer.applies, "{answer:?}");
        }
    }
}

#[test]
fn the_worst_comes_first_and_every_finding_says_what_to_do() {
    let facts = with(|facts| {
        facts.psi = Some(psi(30.0, 20.0));
        facts.machine.reclaim_file = Some(false);
        facts.cgroups.top = vec![CgroupUse {
            max: Limit::Bytes(100 * M),
            ..cgroup("/a", 99 * M)
        }];
        facts.meminfo.free = Some(G);
        facts.meminfo.anon = Some(12 * G);
    });
    let all = answers(&facts, &Breakdown::of(&facts.meminfo));
    let told: Vec<(&str, Severity)> = all
        .iter()
        .filter(|answer| answer.applies)
        .map(|answer| (answer.id, answer.severity))
        .collect();
    assert_eq!(
        told,
        [
            ("memory_pressure", Severity::Critical),
            ("near_limit", Severity::Warning),
            ("ram_not_reducing", Severity::Note),
            ("reclaim_unavailable", Severity::Note),
        ]
    );
    for answer in all.iter().filter(|answer| answer.applies) {
        assert!(!answer.next.is_empty(), "{}", answer.id);
    }
    // Those that do not apply come after all that do.
    assert!(all.iter().skip(told.len()).all(|answer| !answer.applies));
}

#[test]
fn pressure_is_told_by_waiting_and_by_what_is_left() {
    let table: [(&str, Facts, Severity); 7] = [
        ("quiet", fine(), Severity::Ok),
        (
            "some waiting",
            with(|f| f.psi = Some(psi(2.0, 0.0))),
            Severity::Warning,
        ),
        (
            "much waiting",
            with(|f| f.psi = Some(psi(12.0, 0.0))),
            Severity::Critical,
        ),
        (
            "all waiting",
            with(|f| f.psi = Some(psi(6.0, 6.0))),
            Severity::Critical,
        ),
        (
            "8 % left",
            with(|f| f.meminfo.available = Some(16 * G / 12)),
            Severity::Warning,
        ),
        (
            "100 MiB left",
            with(|f| f.meminfo.available = Some(100 * M)),
            Severity::Critical,
        ),
        (
            "swap full",
            with(|f| f.meminfo.swap_free = Some(M)),
            Severity::Warning,
        ),
    ];
    for (name, facts, severity) in table {
        let answer = of(&facts, "memory_pressure");
        assert_eq!(
            (answer.severity, answer.applies),
            (severity, severity > Severity::Note),
            "{name}"
        );
    }
    // Without PSI what is left still tells.
    let blind = with(|f| {
        f.psi = None;
        f.meminfo.available = Some(100 * M);
    });
    assert_eq!(of(&blind, "memory_pressure").severity, Severity::Critical);
}

#[test]
fn memory_that_does_not_go_down_has_the_cause_that_holds_most_first() {
    let table: [(&str, Facts, &[&str]); 12] = [
        (
            "cache",
            with(|f| {
                f.meminfo.free = Some(G);
                f.meminfo.inactive_file = Some(9 * G);
            }),
            &["page_cache", "anon"],
        ),
        (
            "programs without swap",
            with(|f| {
                f.meminfo.anon = Some(12 * G);
                f.meminfo.swap_total = Some(0);
                f.meminfo.swap_free = Some(0);
            }),
            &["anon", "page_cache"],
        ),
        (
            "swap full",
            with(|f| f.meminfo.swap_free = Some(10 * M)),
            &["anon", "swap_full", "page_cache"],
        ),
        (
            "tmpfs",
            with(|f| f.meminfo.shmem = Some(5 * G)),
            &["tmpfs", "anon", "page_cache"],
        ),
        (
            "locked",
            with(|f| f.meminfo.unevictable = Some(3 * G)),
            &["anon", "mlocked", "page_cache"],
        ),
        (
            "hugetlb",
            with(|f| f.meminfo.hugetlb = Some(6 * G)),
            &["hugetlb", "anon", "page_cache"],
        ),
        (
            "slab",
            with(|f| f.meminfo.slab_unreclaimable = Some(3 * G)),
            &["anon", "slab_unreclaimable", "page_cache"],
        ),
        (
            "page tables",
            with(|f| f.meminfo.pagetables = Some(G)),
            &["anon", "page_cache", "pagetables"],
        ),
        (
            "protected",
            with(|f| {
                f.cgroups.top = vec![
                    CgroupUse {
                        low: Some(8 * G),
                        ..cgroup("/db", 5 * G)
                    },
                    CgroupUse {
                        min: Some(G),
                        ..cgroup("/db/inner", 4 * G)
                    },
                    CgroupUse {
                        min: Some(G),
                        ..cgroup("/dbx", 10 * M)
                    },
                ];
            }),
            &["protected", "anon", "page_cache"],
        ),
        (
            "dying cgroups",
            with(|f| f.cgroups.dying = Some(5000)),
            &["anon", "page_cache", "dying_cgroups"],
        ),
        (
            "few dying cgroups",
            with(|f| f.cgroups.dying = Some(50)),
            &["anon", "page_cache"],
        ),
        (
            "drivers",
            with(|f| f.meminfo.free = Some(4 * G)),
            &["unaccounted", "anon", "page_cache"],
        ),
    ];
    for (name, mut facts, want) in table {
        // What holds memory is held: otherwise the rest would count as unaccounted for.
        if name != "drivers" {
            let known: u64 = Breakdown::of(&facts.meminfo)
                .parts
                .iter()
                .filter(|part| part.name != "unaccounted")
                .map(|part| part.bytes)
                .sum();
            facts.meminfo.free = Some((16 * G).saturating_sub(known));
        }
        assert_eq!(causes(&facts, "ram_not_reducing"), want, "{name}");
    }
}

#[test]
fn protection_counts_what_is_there_and_once() {
    let facts = with(|f| {
        f.cgroups.top = vec![
            CgroupUse {
                low: Some(8 * G),
                ..cgroup("/db", 5 * G)
            },
            CgroupUse {
                min: Some(G),
                ..cgroup("/db/inner", 4 * G)
            },
        ];
    });
    let answer = of(&facts, "ram_not_reducing");
    let reason = answer
        .reasons
        .iter()
        .find(|reason| reason.id == "protected")
        .unwrap();
    assert_eq!(reason.figures[0].value, Value::Bytes(5 * G));
    assert!(
        reason.text.contains("1 cgroup,") && reason.text.contains("/db"),
        "{}",
        reason.text
    );
}

#[test]
fn idle_huge_pages_are_told_as_idle() {
    let facts = with(|f| {
        f.meminfo.hugetlb = Some(4 * G);
        f.meminfo.huge_page_size = Some(2 * M);
        f.meminfo.huge_pages_free = Some(1024);
        f.meminfo.huge_pages_reserved = Some(24);
    });
    let answer = of(&facts, "ram_not_reducing");
    let reason = answer
        .reasons
        .iter()
        .find(|reason| reason.id == "hugetlb")
        .unwrap();
    assert_eq!(reason.figures[1].value, Value::Bytes(1000 * 2 * M));
    assert!(reason.text.contains("vm.nr_hugepages"), "{}", reason.text);
}

#[test]
fn a_guest_is_told_of_only_where_its_host_does_not_learn_of_free_pages() {
    let guest = |balloon, reporting| Guest {
        hypervisor: "QEMU".to_owned(),
        balloon,
        free_page_reporting: reporting,
        switch_on: Some("-device virtio-balloon-pci,free-page-reporting=on".to_owned()),
    };
    let table = [
        (None, false),
        (Some(guest(true, Some(true))), false),
        // Hyper-V: not known.
        (Some(guest(true, None)), false),
        (Some(guest(true, Some(false))), true),
        (Some(guest(false, None)), true),
    ];
    for (guest, told) in table {
        let facts = with(|f| f.guest = guest.clone());
        let answer = of(&facts, "ram_not_reducing");
        assert_eq!(
            answer.reasons.iter().any(|reason| reason.id == "guest"),
            told,
            "{guest:?}"
        );
        assert_eq!(answer.applies, told, "{guest:?}");
        if told {
            assert!(
                answer.next[0].contains("free-page-reporting=on"),
                "{:?}",
                answer.next
            );
        }
    }
}

#[test]
fn a_cgroup_full_of_cache_is_near_no_limit() {
    let full = |reclaimable| CgroupUse {
        max: Limit::Bytes(100 * M),
        reclaimable: Some(reclaimable),
        ..cgroup("/a", 100 * M)
    };
    let told = |cgroup: CgroupUse| {
        of(
            &with(|f| f.cgroups.top = vec![cgroup.clone()]),
            "near_limit",
        )
        .applies
    };
    assert!(told(full(0)));
    assert!(told(full(9 * M)));
    assert!(!told(full(40 * M)));
    assert!(!told(CgroupUse {
        max: Limit::None,
        ..full(0)
    }));
    assert!(!told(CgroupUse {
        current: None,
        ..full(0)
    }));
}

#[test]
fn figures_name_their_kind_in_json() {
    let reason = reason("x", "text")
        .bytes("a", 5, "file")
        .count("b", 2, "file")
        .text("c", "w", "file");
    let json = serde_json::to_value(&reason).unwrap();
    assert_eq!(
        json["figures"][0],
        serde_json::json!({"name": "a", "bytes": 5, "source": "file"})
    );
    assert_eq!(json["figures"][1]["count"], 2);
    assert_eq!(json["figures"][2]["text"], "w");
}
