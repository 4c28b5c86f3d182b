//! What stands about a cgroup: kept, ordered, counted, put first, told as an alert.

use super::*;

fn judged(state: State, cause: Cause) -> Verdict {
    Verdict {
        state,
        cause,
        memory: Memory::Anon,
        process: None,
        rate_bps: Some(4.0 * MIB as f64),
        rate_ci95: None,
        confidence: 0.9,
        growth_bytes: Some(104 * MIB),
        since: None,
        limit_bytes: Some(512 * MIB),
        limit_cgroup: Some("/a".into()),
        ttl_s: Some(101.0),
        ttl_ci95_s: None,
        trim_bytes: None,
        evidence: Evidence {
            reason: "grew 104M in 26 s.".into(),
            ..Evidence::default()
        },
        stacks: Vec::new(),
        advice: "Look at its heap.".into(),
    }
}

fn say(model: &mut Model, at_ms: i64, path: &str, verdict: Verdict) {
    let verdict = Box::new(verdict);
    model.apply(&event(at_ms, path, Body::Verdict { verdict }));
}

fn states(model: &Model, path: &str) -> Vec<State> {
    model
        .verdicts(path)
        .iter()
        .map(|judged| judged.verdict.state)
        .collect()
}

#[test]
fn the_last_verdict_of_each_memory_and_process_stands_the_gravest_first() {
    let mut model = model();
    say(&mut model, 0, "/a", judged(State::Growing, Cause::Unknown));
    say(&mut model, 1000, "/a", judged(State::Suspect, Cause::Leak));
    assert_eq!(states(&model, "/a"), [State::Suspect]);
    let slab = Verdict {
        memory: Memory::Slab,
        ..judged(State::Confirmed, Cause::Leak)
    };
    say(&mut model, 1000, "/a", slab);
    let process = |pid, ttl_s| Verdict {
        process: Some(Subject {
            pid,
            comm: "p".into(),
        }),
        ttl_s,
        ..judged(State::Suspect, Cause::Leak)
    };
    say(&mut model, 1000, "/a", process(1, None));
    say(&mut model, 1000, "/a", process(2, Some(5.0)));
    let order: Vec<_> = model
        .verdicts("/a")
        .iter()
        .map(|judged| (judged.verdict.memory, judged.verdict.ttl_s))
        .collect();
    assert_eq!(
        order,
        [
            (Memory::Slab, Some(101.0)),
            (Memory::Anon, Some(5.0)),
            (Memory::Anon, Some(101.0)),
            (Memory::Anon, None)
        ]
    );
    say(
        &mut model,
        2000,
        "/a",
        judged(State::Normal, Cause::Unknown),
    );
    assert_eq!(model.verdicts("/a").len(), 3, "normal is nothing to show");
}

#[test]
fn trouble_is_counted_by_cgroup_and_a_recovery_is_shown_for_a_while() {
    let mut model = model();
    say(&mut model, 0, "/a", judged(State::Confirmed, Cause::Leak));
    say(&mut model, 0, "/b", judged(State::Suspect, Cause::Leak));
    say(&mut model, 0, "/c", judged(State::Growing, Cause::Unknown));
    let trouble = |suspect, confirmed| Trouble { suspect, confirmed };
    assert_eq!(model.trouble(), trouble(1, 1));
    say(
        &mut model,
        1000,
        "/a",
        judged(State::Recovered, Cause::Leak),
    );
    assert_eq!(model.trouble(), trouble(1, 0));
    for second in (0..700).step_by(20) {
        if !(600..660).contains(&second) {
            assert_eq!(
                model.verdicts("/a").len(),
                usize::from(second < 600),
                "at {second}"
            );
        }
        sample(&mut model, second * 1000, "/d", anon(MIB));
    }
    assert_eq!(
        states(&model, "/b"),
        [State::Suspect],
        "stands until it is over"
    );
}

#[test]
fn the_time_to_the_limit_runs_down() {
    let mut model = model();
    say(&mut model, 0, "/a", judged(State::Confirmed, Cause::Leak));
    for (second, left) in [(1, Some(100.0)), (100, Some(1.0)), (101, None), (999, None)] {
        sample(&mut model, second * 1000, "/a", anon(MIB));
        let rows = model.rows(&Query::default());
        assert_eq!(rows[0].time_left, left, "at {second}");
    }
}

#[test]
fn what_was_said_of_a_cgroup_goes_with_it() {
    let mut model = model();
    for path in ["/a", "/b"] {
        sample(&mut model, 0, path, anon(MIB));
        say(&mut model, 0, path, judged(State::Confirmed, Cause::Leak));
    }
    model.remove("/a");
    let mut again = event(1000, "/b", Body::Sample(Box::new(anon(MIB))));
    again.cgroup.as_mut().expect("set").id = Some(8);
    model.apply(&again);
    assert_eq!(
        (states(&model, "/a"), states(&model, "/b")),
        (vec![], vec![])
    );
}

#[test]
fn who_is_in_trouble_comes_first_whatever_the_order() {
    let mut model = model();
    for n in 0..20 {
        sample(&mut model, 0, &format!("/p/c{n:02}"), anon((n + 1) * MIB));
        sample(&mut model, 0, &format!("/q/c{n:02}"), anon((n + 1) * MIB));
    }
    sample(&mut model, 0, "/p", anon(1));
    sample(&mut model, 0, "/q", anon(2));
    say(&mut model, 0, "/p/c03", judged(State::Suspect, Cause::Leak));
    say(
        &mut model,
        0,
        "/p/c01",
        judged(State::Confirmed, Cause::Leak),
    );
    say(
        &mut model,
        0,
        "/q/c05",
        judged(State::Growing, Cause::Unknown),
    );
    let first = |query: &Query, n: usize| -> Vec<String> {
        let rows = model.rows(query);
        rows.iter()
            .take(n)
            .map(|row| row.entry.path().to_owned())
            .collect()
    };
    for sort in SortKey::ALL {
        for descending in [true, false] {
            let query = Query {
                sort,
                descending,
                ..Query::default()
            };
            if sort == SortKey::Verdict {
                continue;
            }
            assert_eq!(first(&query, 2), ["/p/c01", "/p/c03"], "{sort:?}");
            let tree = Query {
                tree: true,
                ..query
            };
            assert_eq!(first(&tree, 3), ["/p", "/p/c01", "/p/c03"], "{sort:?}");
        }
    }
    let mut query = Query {
        sort: SortKey::Verdict,
        ..Query::default()
    };
    assert_eq!(first(&query, 3), ["/p/c01", "/p/c03", "/q/c05"]);
    query.descending = false;
    assert_eq!(first(&query, 3), ["/q/c05", "/p/c03", "/p/c01"]);
}

#[test]
fn an_alert_says_what_who_how_fast_until_when_why_and_what_next() {
    let text = |verdict| {
        let verdict = Box::new(verdict);
        let alert = Alert::of(&event(0, "/a", Body::Verdict { verdict })).expect("an alert");
        (alert.kind.label(), alert.text)
    };
    assert_eq!(
        text(judged(State::Confirmed, Cause::Leak)),
        (
            "LEAK",
            "confirmed leak, +4.0M/s, 512M in 1m41s: grew 104M in 26 s. Look at its heap"
                .to_owned()
        )
    );
    let mut slow = judged(State::Suspect, Cause::Retention);
    slow.memory = Memory::Shmem;
    slow.ttl_s = None;
    slow.process = Some(Subject {
        pid: 7,
        comm: "py\x1b".into(),
    });
    slow.advice.clear();
    assert_eq!(
        text(slow),
        (
            "KEEPS?",
            "suspect retention of shmem in 7 py\u{fffd}, +4.0M/s: grew 104M in 26 s".to_owned()
        )
    );
    assert_eq!(
        text(judged(State::Recovered, Cause::Leak)),
        (
            "OK",
            "recovered leak: grew 104M in 26 s. Look at its heap".to_owned()
        )
    );
    for state in [State::Growing, State::Suspect, State::Confirmed] {
        for cause in [
            Cause::Leak,
            Cause::Retention,
            Cause::Cache,
            Cause::Reservation,
            Cause::Warmup,
            Cause::Load,
            Cause::Unknown,
        ] {
            let label = AlertKind::Verdict(state, cause).label();
            assert!(!label.is_empty() && label.len() <= 6, "{label}");
        }
    }
}

#[test]
fn each_change_of_state_is_an_alert_of_its_own() {
    let mut model = model();
    for (at, state) in [
        State::Growing,
        State::Suspect,
        State::Confirmed,
        State::Confirmed,
    ]
    .into_iter()
    .enumerate()
    {
        say(
            &mut model,
            at as i64 * 1000,
            "/a",
            judged(state, Cause::Leak),
        );
    }
    let alerts: Vec<_> = model
        .alerts()
        .map(|alert| (alert.kind.label(), alert.count))
        .collect();
    assert_eq!(alerts, [("LEAK", 2), ("LEAK?", 1), ("GROWS", 1)]);
}

#[test]
fn a_recalled_verdict_stands_but_is_no_news() {
    let mut model = model();
    let verdict = Box::new(judged(State::Confirmed, Cause::Leak));
    model.recall(&event(0, "/a", Body::Verdict { verdict }));
    assert_eq!(states(&model, "/a"), [State::Confirmed]);
    assert_eq!(model.alerts().len(), 0);
}
