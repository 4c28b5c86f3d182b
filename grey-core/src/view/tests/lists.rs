//! Rows, alerts and growing processes.

use super::*;

fn oom(pid: u32) -> Body {
    let victim = OomVictim {
        pid,
        comm: "python3".into(),
        anon: Some(512 * MIB),
        file: None,
        shmem: Some(0),
        pgtables: None,
        r#virtual: None,
        oom_score_adj: None,
    };
    let constraint = Some(Constraint::Memcg);
    Body::Oom {
        oom: Oom {
            victim: Some(victim),
            trigger: None,
            constraint,
            limit_cgroup: None,
            kills: 1,
        },
    }
}

#[test]
fn the_nearest_limit_may_be_an_ancestors() {
    let mut model = model();
    let limited = |current, max| Sample {
        mem: Mem {
            current: Some(current),
            max,
            ..Mem::default()
        },
        ..Sample::default()
    };
    sample(&mut model, 0, "/p", limited(90, Limit::Bytes(100)));
    sample(&mut model, 0, "/p/own", limited(40, Limit::Bytes(50)));
    sample(&mut model, 0, "/p/own/tight", limited(19, Limit::Bytes(20)));
    sample(&mut model, 0, "/free", limited(19, Limit::None));
    let limit = |path: &str| {
        let entry = model.get(path).expect("known");
        model
            .limit(entry)
            .map(|limit| (limit.owner.path().to_owned(), limit.used, limit.bytes))
    };
    assert_eq!(limit("/p/own"), Some(("/p".into(), 90, 100)));
    assert_eq!(limit("/p/own/tight"), Some(("/p/own/tight".into(), 19, 20)));
    assert_eq!(limit("/free"), None);
}

fn three() -> Model {
    let mut model = model();
    sample(&mut model, 0, "/b", anon(2 * MIB));
    sample(&mut model, 0, "/b/x", anon(MIB));
    sample(&mut model, 0, "/b/y", anon(3 * MIB));
    sample(&mut model, 0, "/a", faults(1));
    model
}

fn paths(model: &Model, query: &Query) -> Vec<String> {
    model
        .rows(query)
        .iter()
        .map(|row| row.entry.path().to_owned())
        .collect()
}

#[test]
fn unknown_figures_come_last_in_both_directions() {
    let model = three();
    let mut query = Query {
        sort: SortKey::Anon,
        ..Query::default()
    };
    assert_eq!(paths(&model, &query), ["/b/y", "/b", "/b/x", "/a"]);
    query.descending = false;
    assert_eq!(paths(&model, &query), ["/b/x", "/b", "/b/y", "/a"]);
    query.sort = SortKey::Name;
    assert_eq!(paths(&model, &query), ["/a", "/b", "/b/x", "/b/y"]);
}

#[test]
fn a_filter_needs_every_word_and_ignores_case() {
    let model = three();
    for (filter, expected) in [
        ("B/", &["/b/y", "/b/x"][..]),
        ("b Y", &["/b/y"]),
        ("service /a", &["/a"]),
        ("zz", &[]),
    ] {
        let query = Query {
            filter: filter.into(),
            ..Query::default()
        };
        assert_eq!(paths(&model, &query), expected, "{filter}");
    }
}

#[test]
fn a_tree_keeps_children_below_parents_and_the_ancestors_of_matches() {
    let model = three();
    let mut query = Query {
        tree: true,
        ..Query::default()
    };
    let shape = |query: &Query| -> Vec<(usize, String, bool)> {
        model
            .rows(query)
            .iter()
            .map(|row| (row.depth, row.label.to_owned(), row.matched))
            .collect()
    };
    let line = |depth, label: &str, matched| (depth, label.to_owned(), matched);
    assert_eq!(
        shape(&query),
        [
            line(0, "b", true),
            line(1, "y", true),
            line(1, "x", true),
            line(0, "a", true)
        ]
    );
    query.filter = "/x".into();
    assert_eq!(shape(&query), [line(0, "b", false), line(1, "x", true)]);
}

#[test]
fn repeats_fold_into_one_alert_and_a_storm_of_growth_hides_no_kill() {
    let mut model = model();
    model.apply(&event(0, "/a", oom(1)));
    for n in 0..12 {
        model.apply(&event(n * 1000, "/a", growth(5, "java", 16 * MIB, 400)));
    }
    let alerts: Vec<_> = model
        .alerts()
        .map(|alert| (alert.kind, alert.count))
        .collect();
    assert_eq!(alerts, [(AlertKind::Growth, 12), (AlertKind::Oom, 1)]);
    for n in 0..1000 {
        model.apply(&event(
            20_000,
            "/a",
            growth(n, &format!("p{n}"), 16 * MIB, 400),
        ));
    }
    assert_eq!(model.alerts().len(), 200);
    assert!(model.alerts().any(|alert| alert.kind == AlertKind::Oom));
}

#[test]
fn a_kill_says_who_and_how_much() {
    let alert = Alert::of(&event(0, "/shop", oom(4242))).expect("an alert");
    assert_eq!(alert.text, "killed 4242 python3 (anon 512M), cgroup limit");
    assert_eq!(alert.cgroup.as_deref(), Some("/shop"));
}

#[test]
fn names_chosen_by_others_cannot_reach_the_terminal_as_escapes() {
    let alert =
        Alert::of(&event(0, "/a", growth(1, "\u{1b}[2Jevil\r\n", MIB, 10))).expect("an alert");
    assert!(
        !alert.text.chars().any(char::is_control),
        "{:?}",
        alert.text
    );
}

#[test]
fn new_losses_are_an_alert_and_old_ones_are_not() {
    let mut model = model();
    let health = |lost| {
        let dropped = [("growth".to_owned(), lost)].into();
        Body::Health {
            health: Health {
                dropped,
                ..Health::default()
            },
        }
    };
    for (at, lost, lately, alerts) in [(0, 0, 0, 0), (1000, 5, 5, 1), (2000, 5, 0, 1)] {
        model.apply(&event(at, "/", health(lost)));
        assert_eq!(
            (model.lost(), model.lost_lately(), model.alerts().len()),
            (Some(lost), lately, alerts)
        );
    }
}

#[test]
fn growing_processes_are_ranked_and_fade_when_reports_stop() {
    let mut model = model();
    model.apply(&event(0, "/a", growth(1, "slow", 16 * MIB, 8000)));
    model.apply(&event(0, "/a", growth(2, "fast", 16 * MIB, 1000)));
    let order = |model: &Model| model.growing(9).iter().map(|p| p.pid).collect::<Vec<_>>();
    assert_eq!(order(&model), [2, 1]);
    assert_eq!(model.growing(1)[0].rate, 16.0 * MIB as f64);
    sample(&mut model, 16_000, "/a", anon(0));
    assert_eq!(
        model.growing(1)[0].rate,
        MIB as f64,
        "no report for 16 s: at most the threshold in that time"
    );
    model.apply(&event(16_000, "/a", growth(2, "a thread", MIB, 1000)));
    let second = |model: &Model| {
        model
            .growing(9)
            .iter()
            .find(|p| p.pid == 2)
            .map(|p| (p.comm.to_owned(), p.grown))
    };
    assert_eq!(
        second(&model),
        Some(("fast".into(), 17 * MIB)),
        "threads of one process"
    );
    sample(&mut model, 60_000, "/a", anon(0));
    model.apply(&event(60_000, "/a", growth(2, "new", MIB, 1000)));
    assert_eq!(
        second(&model),
        Some(("new".into(), MIB)),
        "the pid was used again"
    );
}

#[test]
fn a_burst_of_growth_counts_once_in_its_tick() {
    let mut model = model();
    for n in 0..10 {
        model.apply(&event(n * 20, "/a", growth(1, "rustc", 16 * MIB, 10)));
    }
    assert_eq!(model.growing(1)[0].rate, 160.0 * MIB as f64);
    model.apply(&event(3000, "/a", growth(1, "rustc", 16 * MIB, 10)));
    assert_eq!(model.growing(1)[0].rate, 16.0 * MIB as f64);
}

#[test]
fn polled_processes_are_measured_by_their_samples() {
    let mut model = model();
    for (at, anon) in [(0, 10), (1000, 14), (2000, 12)] {
        let process = Process {
            pid: 9,
            comm: "p".into(),
            anon: Some(anon * MIB),
            ..Process::default()
        };
        model.apply(&event(at, "/a", Body::Process { process }));
        if at == 1000 {
            assert_eq!(model.growing(1)[0].rate, 4.0 * MIB as f64);
        }
    }
    let grown = model.growing(1);
    assert_eq!((grown[0].grown, grown[0].rate), (4 * MIB, 0.0));
}

#[test]
fn a_killed_process_grows_no_more() {
    let mut model = model();
    model.apply(&event(0, "/a", growth(7, "api", 16 * MIB, 1000)));
    model.apply(&event(100, "/a", growth(8, "web", 16 * MIB, 2000)));
    model.apply(&event(200, "/a", oom(7)));
    let pids: Vec<u32> = model.growing(9).iter().map(|p| p.pid).collect();
    assert_eq!(pids, [8]);
}
