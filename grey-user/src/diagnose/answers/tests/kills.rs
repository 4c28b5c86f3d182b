//! What is told of OOM kills.

use super::*;

fn record() -> OomRecord {
    OomRecord {
        boot_us: 1_000_000,
        pid: 7,
        comm: "web".to_owned(),
        constraint: OomConstraint::Memcg,
        limit_cgroup: Some("/shop".to_owned()),
        victim_cgroup: Some("/shop/web".to_owned()),
        anon: Some(90 * M),
        limit: Some(100 * M),
        usage: Some(100 * M),
        cgroup_anon: Some(95 * M),
        cgroup_file: Some(M),
        candidates: vec![OomCandidate {
            pid: 7,
            comm: "web".to_owned(),
            rss: 90 * M,
            swap: 0,
        }],
        ..OomRecord::default()
    }
}

#[test]
fn a_kill_names_victim_limit_and_what_used_the_memory() {
    let told = |change: fn(&mut OomRecord)| {
        let mut record = record();
        change(&mut record);
        of(
            &with(|f| {
                f.oom.records = vec![record];
                f.oom.kills_since_boot = Some(1);
                f.oom.uptime_us = Some(181_000_000);
            }),
            "oom_killed",
        )
    };
    let answer = told(|_| ());
    assert!(answer.applies && answer.severity == Severity::Critical);
    assert_eq!(
        answer.answer,
        "1 kill since boot. The last, 3min ago: web (pid 7) in /shop/web was killed at the limit of /shop above it (100M); it had 90M of program memory."
    );
    assert!(
        answer.reasons[0].text.starts_with("3min ago: web"),
        "{}",
        answer.reasons[0].text
    );
    let figures: Vec<String> = answer.reasons[0]
        .figures
        .iter()
        .map(|figure| format!("{}={}", figure.name, figure.value))
        .collect();
    for want in [
        "limit=100M",
        "usage=100M",
        "limit_cgroup=/shop",
        "victim_cgroup=/shop/web",
        "was_using=web (pid 7) 90M",
    ] {
        assert!(figures.contains(&want.to_owned()), "{want}: {figures:?}");
    }
    assert!(
        answer.next[0].contains("--cgroup '/shop'"),
        "{:?}",
        answer.next
    );
    assert!(answer.next[1].contains("leak"), "{:?}", answer.next);

    let own = told(|record| record.victim_cgroup.clone_from(&record.limit_cgroup));
    assert!(
        own.answer.contains("at its own limit (100M)"),
        "{}",
        own.answer
    );
    let group = told(|record| record.group = true);
    assert!(
        group.answer.contains("with all of its group"),
        "{}",
        group.answer
    );
    let global = told(|record| {
        record.constraint = OomConstraint::Global;
        record.limit_cgroup = None;
    });
    assert!(
        global.answer.contains("the whole machine ran out"),
        "{}",
        global.answer
    );
    assert!(global.next[0].contains("MemoryMax="), "{:?}", global.next);
    let bare = told(|record| {
        *record = OomRecord {
            pid: 7,
            comm: "web".to_owned(),
            constraint: OomConstraint::Memcg,
            ..OomRecord::default()
        };
    });
    assert!(
        bare.answer
            .ends_with("web (pid 7) was killed at the limit of a cgroup."),
        "{}",
        bare.answer
    );
}

#[test]
fn kills_without_a_log_come_from_the_counters() {
    let counted = |change: fn(&mut Facts)| {
        of(
            &with(|f| {
                f.oom.kills_since_boot = Some(3);
                f.oom.cgroups = vec![OomCgroup {
                    path: "/shop/web".to_owned(),
                    kills: 3,
                    group_kills: Some(1),
                    limit: Some(EffectiveLimit {
                        cgroup: "/shop".to_owned(),
                        bytes: 100 * M,
                        current: Some(M),
                    }),
                }];
                change(f);
            }),
            "oom_killed",
        )
    };
    let closed = counted(|f| f.oom.log_read = false);
    assert!(
        closed.answer.starts_with("3 kills since boot") && closed.answer.contains("may not read"),
        "{}",
        closed.answer
    );
    assert_eq!(
        closed.reasons[0].text,
        "/shop/web: 3 kills of its processes since it began, under the limit of 100M of /shop"
    );
    assert!(closed.next[0].starts_with("sudo"), "{:?}", closed.next);
    let gone = counted(|_| ());
    assert!(
        gone.answer.contains("no longer has them"),
        "{}",
        gone.answer
    );
    // Kills in a container whose /proc/vmstat does not count.
    let inside = counted(|f| f.oom.kills_since_boot = None);
    assert!(
        inside.applies && inside.answer.starts_with("3 kills;"),
        "{}",
        inside.answer
    );
}

#[test]
fn a_kill_of_yesterday_is_no_alarm() {
    let facts = with(|f| {
        f.oom.records = vec![record()];
        f.oom.kills_since_boot = Some(1);
        f.oom.uptime_us = Some(90_000_000_000);
    });
    assert_eq!(of(&facts, "oom_killed").severity, Severity::Warning);
}
