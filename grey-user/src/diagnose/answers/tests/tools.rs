//! memory.reclaim, KSM, huge pages, and what could not be read.

use super::*;

#[test]
fn reclaim_is_refused_by_the_first_thing_in_its_way() {
    let table: [(&str, Facts, Option<&str>); 9] = [
        ("there", fine(), None),
        (
            "5.10",
            with(|f| f.machine.reclaim_file = Some(false)),
            Some("old_kernel"),
        ),
        (
            "v1",
            with(|f| {
                f.machine.mode = Some(Mode::Hybrid);
                f.machine.has_memory = false;
                f.machine.v1_memory = Some("/sys/fs/cgroup/memory".into());
                f.machine.reclaim_file = None;
            }),
            Some("cgroup_v1"),
        ),
        (
            "v1 only",
            with(|f| {
                f.machine.mode = Some(Mode::V1Only);
                f.machine.has_memory = false;
            }),
            Some("cgroup_v1"),
        ),
        (
            "no controller",
            with(|f| f.machine.has_memory = false),
            Some("no_controller"),
        ),
        (
            "disabled",
            with(|f| {
                f.machine.memory_disabled = true;
                f.machine.has_memory = false;
            }),
            Some("disabled"),
        ),
        (
            "not delegated",
            with(|f| {
                f.machine.memory_delegated = Some(false);
                f.machine.reclaim_file = None;
            }),
            Some("not_delegated"),
        ),
        (
            "read-only",
            with(|f| f.machine.read_only = true),
            Some("read_only"),
        ),
        (
            "not root",
            with(|f| f.machine.reclaim_writable = Some(false)),
            Some("no_permission"),
        ),
    ];
    for (name, facts, want) in table {
        let answer = of(&facts, "reclaim_unavailable");
        assert_eq!(
            answer.reasons.first().map(|reason| reason.id),
            want,
            "{name}"
        );
        assert_eq!(answer.applies, want.is_some(), "{name}");
        assert_eq!(answer.next.len(), usize::from(want.is_some()), "{name}");
    }
}

#[test]
fn ksm_says_why_it_does_not_merge() {
    let ksm = |run, shared, sharing, unshared, full_scans, profit| {
        Some(Ksm {
            run: Some(run),
            pages_shared: Some(shared),
            pages_sharing: Some(sharing),
            pages_unshared: Some(unshared),
            pages_volatile: Some(0),
            full_scans: Some(full_scans),
            general_profit: Some(profit),
            pages_to_scan: Some(100),
            sleep_millisecs: Some(20),
            ..Ksm::default()
        })
    };
    let users = |offering| KsmUsers {
        looked_at: Some(10),
        offering: Some(offering),
        top: Vec::new(),
    };
    // Cause, state of KSM, processes that offer memory, whether it is worth telling.
    let table = [
        ("stopped", ksm(0, 0, 0, 0, 0, 0), 0, false),
        ("stopped", ksm(0, 0, 0, 0, 0, 0), 2, true),
        ("stopped", ksm(0, 10, 900, 5, 9, 1), 2, true),
        ("unmerging", ksm(2, 0, 0, 0, 9, 0), 2, true),
        ("nobody_asked", ksm(1, 0, 0, 0, 50, 0), 0, true),
        ("not_yet", ksm(1, 0, 0, 0, 0, 0), 1, true),
        ("not_yet", ksm(1, 0, 0, 800, 1, 0), 1, true),
        ("no_equals", ksm(1, 0, 0, 90_000, 30, -1), 1, true),
        ("no_equals", ksm(1, 3, 7, 90_000, 30, 1), 1, true),
        ("no_profit", ksm(1, 50, 900, 500, 30, -4096), 1, true),
        ("merging", ksm(1, 50, 9_000, 500, 30, 4096), 1, false),
        // 60 million pages at 5,000 a second: 200 minutes.
        (
            "merging",
            ksm(1, 50, 30_000_000, 30_000_000, 30, 4096),
            1,
            true,
        ),
    ];
    for (want, ksm, offering, applies) in table {
        let facts = with(|f| {
            f.ksm = ksm.clone();
            f.ksm_users = users(offering);
        });
        let answer = of(&facts, "ksm_not_merging");
        assert_eq!(answer.reasons[0].id, want, "{ksm:?}");
        assert_eq!(answer.applies, applies, "{want} {ksm:?}");
        assert_eq!(
            answer.answer.starts_with("Yes"),
            want == "merging",
            "{}",
            answer.answer
        );
    }
    let none = with(|f| f.ksm = None);
    assert!(of(&none, "ksm_not_merging").answer.contains("CONFIG_KSM"));
}

#[test]
fn an_advisor_paces_the_scan_by_itself() {
    let facts = with(|f| {
        f.ksm = Some(Ksm {
            run: Some(1),
            pages_sharing: Some(60_000_000),
            full_scans: Some(30),
            pages_to_scan: Some(100),
            sleep_millisecs: Some(20),
            advisor: Some("scan-time".to_owned()),
            ..Ksm::default()
        });
    });
    assert!(!of(&facts, "ksm_not_merging").applies);
}

#[test]
fn what_was_denied_is_told_with_what_would_help() {
    let denied = || Denied {
        what: "/dev/kmsg".to_owned(),
        reason: "open /dev/kmsg: Operation not permitted (os error 1)".to_owned(),
        lost: "why something was killed",
        remedy: "give the binary cap_syslog".to_owned(),
    };
    let table: [(&str, Facts, &str, &str); 4] = [
        (
            "user",
            with(|f| f.machine.euid = Some(1000)),
            "not root",
            "sudo",
        ),
        (
            "container",
            with(|f| f.machine.container = Some("Docker")),
            "Docker",
            "--privileged",
        ),
        (
            "namespace",
            with(|f| f.machine.in_user_namespace = true),
            "root",
            "outside of the user namespace",
        ),
        ("root", fine(), "capability", "doctor"),
    ];
    for (name, mut facts, says, next) in table {
        facts.machine.denied.push(denied());
        let answer = of(&facts, "permission_denied");
        assert!(
            answer.applies && answer.answer.contains(says),
            "{name}: {}",
            answer.answer
        );
        assert!(answer.next[0].contains(next), "{name}: {:?}", answer.next);
        assert!(answer.reasons[0].text.contains("/dev/kmsg"), "{name}");
        assert_eq!(
            answer.next.iter().any(|next| next.contains("cap_syslog")),
            name == "user",
            "{name}"
        );
    }
    let hidden = with(|f| {
        f.machine.hidepid = true;
        f.machine.capabilities = Some(vec![]);
    });
    assert_eq!(causes(&hidden, "permission_denied"), ["hidepid"]);
    let sees = with(|f| {
        f.machine.hidepid = true;
        f.machine.capabilities = Some(vec!["CAP_SYS_PTRACE"]);
    });
    assert!(!of(&sees, "permission_denied").applies);
}

#[test]
fn fragmentation_matters_where_huge_pages_are_wanted_and_memory_is_free() {
    let zone = |free: u64, unusable: f64| ZoneUse {
        node: 0,
        zone: "Normal".to_owned(),
        free,
        free_blocks: vec![],
        unusable: vec![unusable; 11],
    };
    let told = |thp: &str, zones: Vec<ZoneUse>| {
        of(
            &with(|f| {
                f.thp = Some(thp.to_owned());
                f.zones = zones;
            }),
            "fragmentation",
        )
    };
    assert!(told("madvise", vec![zone(4 * G, 0.9)]).applies);
    assert!(!told("never", vec![zone(4 * G, 0.9)]).applies);
    assert!(!told("always", vec![zone(4 * G, 0.5)]).applies);
    assert!(!told("always", vec![zone(100 * M, 0.9)]).applies);
    // Weighed by what is free: a small zone does not spoil a large one.
    let mixed = told("always", vec![zone(4 * G, 0.1), zone(100 * M, 1.0)]);
    assert!(!mixed.applies, "{}", mixed.answer);
}
