use super::settings::{Idle, Override};
use super::*;
use crate::act::protection::Pattern;
use crate::event::{
    Body, Cause, Cgroup, Cpu, Event, Evidence, Faults, Mem, Memory, Psi, Reclaim, SCHEMA, Sample,
    State, Verdict,
};

const SECOND: i64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn sample(path: &str, kind: &str, second: i64, refaults: u64) -> Event {
    Event {
        schema: SCHEMA.to_owned(),
        ts: Timestamp(second * SECOND),
        seq: 0,
        host: String::new(),
        boot_id: None,
        cgroup: Some(Cgroup {
            id: None,
            path: path.to_owned(),
            kind: kind.to_owned(),
            name: path.to_owned(),
        }),
        lossy: false,
        body: Body::Sample(Box::new(Sample {
            mem: Mem {
                current: Some(500 * MIB),
                anon: Some(100 * MIB),
                file: Some(400 * MIB),
                ..Mem::default()
            },
            reclaim: Some(Reclaim {
                refault_total: Some(refaults),
                ..Reclaim::default()
            }),
            psi: Some(Psi {
                some_us_total: 0,
                full_us_total: None,
            }),
            ..Sample::default()
        })),
    }
}

/// The root's faults at this second; `None` while nobody counts them.
fn faults(second: i64, total: Option<u64>) -> Event {
    let mut event = sample("/", "root", second, 0);
    if let Body::Sample(sample) = &mut event.body {
        sample.faults = total.map(|total| Faults {
            minor_total: Some(total),
            ..Faults::default()
        });
    }
    event
}

#[test]
fn a_time_in_which_faults_were_not_counted_is_no_quiet_time() {
    let mut governor = Governor::default();
    for (second, total) in [(1, Some(1000)), (2, Some(2000)), (3, None), (4, Some(2100))] {
        governor.observe(&faults(second, total));
    }
    let view = governor.view(Timestamp(4 * SECOND));
    assert_eq!(view.machine.since.faults, None);
    governor.observe(&faults(5, Some(2200)));
    let view = governor.view(Timestamp(5 * SECOND));
    assert_eq!(view.machine.since.faults, None);
    assert!(view.machine.quiet_us <= SECOND as u64);
}

fn seen(cgroups: &[(&str, &str)]) -> Vec<String> {
    let mut governor = Governor::default();
    for (path, kind) in cgroups {
        governor.observe(&sample(path, kind, 1, 0));
    }
    let view = governor.view(Timestamp(SECOND));
    view.groups.into_iter().map(|group| group.path).collect()
}

#[test]
fn no_cgroup_that_may_be_acted_on_lies_inside_another() {
    assert_eq!(
        seen(&[
            ("/", "root"),
            ("/system.slice", "slice"),
            ("/system.slice/a.service", "service"),
            ("/system.slice/a.service/inner", "cgroup"),
            // Sorts between a cgroup and what lies inside it.
            ("/system.slice/a.service-2", "service"),
        ]),
        ["/system.slice/a.service", "/system.slice/a.service-2"]
    );
}

#[test]
fn what_holds_containers_is_looked_at_by_them() {
    assert_eq!(
        seen(&[
            ("/docker", "cgroup"),
            ("/docker/one", "container"),
            ("/docker/two", "container"),
            ("/kube/pod1", "pod"),
            ("/kube/pod1/c", "container"),
            ("/kube/pod2", "pod"),
        ]),
        ["/docker/one", "/docker/two", "/kube/pod1/c", "/kube/pod2"]
    );
}

fn proactive() -> Governor {
    let settings = Settings {
        policy: PolicyKind::Proactive,
        ..Settings::default()
    };
    Governor::new(settings, learn::Model::default())
}

/// Observed from `second` on, until it decides something.
fn next(governor: &mut Governor, second: &mut i64, refaults: u64) -> Decision {
    loop {
        *second += 1;
        assert!(*second < 10_000, "nothing is decided");
        governor.observe(&sample("/a", "service", *second, refaults));
        let now = Timestamp(*second * SECOND);
        if let Some(decision) = governor.decide(now, &|_| None).pop() {
            return decision;
        }
    }
}

#[test]
fn what_was_not_done_leaves_no_trace_but_its_budget() {
    let mut governor = proactive();
    let mut second = 0;
    let first = next(&mut governor, &mut second, 0);
    assert!(governor.view(Timestamp(second * SECOND)).groups[0].busy);
    governor.not_done(first.number);
    let group = governor.view(Timestamp(second * SECOND)).groups.remove(0);
    assert!(!group.busy && group.last.is_none());
    let then = second;
    let again = next(&mut governor, &mut second, 0);
    // At its next turn, the same step.
    assert_eq!((second - then, again.bytes), (6, first.bytes));
    assert_eq!(governor.model().outcomes, 0);
}

/// `/a` keeps freed memory, of which a release agent would give this much back.
fn retention(second: i64, trim_bytes: Option<u64>) -> Event {
    let verdict = Verdict {
        state: State::Suspect,
        cause: Cause::Retention,
        memory: Memory::Anon,
        process: None,
        rate_bps: None,
        rate_ci95: None,
        confidence: 0.8,
        growth_bytes: None,
        since: None,
        limit_bytes: None,
        limit_cgroup: None,
        ttl_s: None,
        ttl_ci95_s: None,
        trim_bytes,
        stacks: Vec::new(),
        evidence: Evidence::default(),
        advice: String::new(),
    };
    Event {
        body: Body::Verdict {
            verdict: Box::new(verdict),
        },
        ..sample("/a", "service", second, 0)
    }
}

#[test]
fn release_agents_are_asked_once_a_verdict_and_then_it_is_gone_on() {
    for trim_bytes in [Some(64 * MIB), None] {
        let mut governor = Governor::new(
            Settings {
                policy: PolicyKind::Dynamic,
                ..Settings::default()
            },
            learn::Model::default(),
        );
        let short = |second| {
            let mut event = sample("/", "root", second, 0);
            if let Body::Sample(sample) = &mut event.body {
                sample.mem.total = Some(4096 * MIB);
                sample.mem.available = Some(64 * MIB);
                sample.mem.swap_free = Some(1024 * MIB);
            }
            event
        };
        let mut rungs = Vec::new();
        governor.observe(&sample("/a", "service", 1, 0));
        governor.observe(&retention(1, trim_bytes));
        for second in 2..200 {
            governor.observe(&short(second));
            governor.observe(&sample("/a", "service", second, 0));
            for decision in governor.decide(Timestamp(second * SECOND), &|_| None) {
                rungs.push((decision.rung, decision.bytes));
                // There is no agent, or none that answers.
                governor.not_done(decision.number);
            }
        }
        let trims: Vec<u64> = rungs
            .iter()
            .filter(|(rung, _)| *rung == Rung::Trim)
            .map(|(_, bytes)| *bytes)
            .collect();
        assert_eq!(trims, trim_bytes.into_iter().collect::<Vec<_>>());
        assert_eq!(
            rungs.first().map(|(rung, _)| *rung == Rung::Trim),
            Some(trim_bytes.is_some())
        );
        assert!(rungs.len() > 2, "{rungs:?}");
    }
}

fn outcome(decision: &Decision) -> Outcome {
    Outcome {
        freed: decision.bytes,
        kept: decision.bytes,
        elapsed_us: 10_000_000,
        ..Outcome::default()
    }
}

#[test]
fn a_lesson_is_learned_when_five_minutes_have_passed() {
    let mut governor = proactive();
    let mut second = 0;
    let decision = next(&mut governor, &mut second, 0);
    let at = second;
    let done = Timestamp((second + 10) * SECOND);
    governor.outcome(decision.number, outcome(&decision), done);
    governor.configure(Settings::default());
    for second in at..=at + 301 {
        governor.observe(&sample("/a", "service", second, 0));
        assert!(
            governor
                .decide(Timestamp(second * SECOND), &|_| None)
                .is_empty()
        );
        let want = u64::from(second >= at + 300);
        assert_eq!(governor.model().outcomes, want, "after {} s", second - at);
    }
    assert_eq!(governor.model().bad, 0);
}

#[test]
fn what_comes_back_minutes_later_is_put_down_to_the_step_once() {
    let mut governor = proactive();
    let mut second = 0;
    let decision = next(&mut governor, &mut second, 0);
    second += 10;
    let now = Timestamp(second * SECOND);
    governor.outcome(decision.number, outcome(&decision), now);
    governor.configure(Settings::default());
    assert!(
        governor
            .bounds()
            .cools_down("/a", Rung::File, now)
            .is_none()
    );
    second += 200;
    let all = decision.bytes / view::PAGE;
    for later in 0..20 {
        second += 1;
        governor.observe(&sample("/a", "service", second, all / 2 + later));
        governor.decide(Timestamp(second * SECOND), &|_| None);
    }
    assert_eq!((governor.model().outcomes, governor.model().bad), (1, 1));
    let settled = governor.history().next().unwrap();
    assert_eq!(settled.bad, Some(learn::Bad::Refaults));
    let left = governor
        .bounds()
        .cools_down("/a", Rung::File, Timestamp(second * SECOND));
    assert!(left.is_some_and(|left| left <= 60 * SECOND), "{left:?}");
}

#[test]
fn feedback_blames_what_was_done_lately_there() {
    let mut governor = proactive();
    let mut second = 0;
    let decision = next(&mut governor, &mut second, 0);
    let now = Timestamp((second + 10) * SECOND);
    governor.outcome(decision.number, outcome(&decision), now);
    assert_eq!(governor.feedback_bad(now, Some("/b")), 0);
    assert_eq!(governor.feedback_bad(now, Some("/a")), 1);
    assert_eq!(governor.feedback_bad(now, None), 0, "twice");
    assert_eq!((governor.model().outcomes, governor.model().bad), (1, 1));
    let late = Timestamp((second + 400) * SECOND);
    assert_eq!(governor.feedback_bad(late, None), 0);
}

/// Idle and confirmed; observed until it is to be frozen, for at most so many seconds.
fn freeze(governor: &mut Governor, second: &mut i64, most: i64) -> Option<Decision> {
    for _ in 0..most {
        *second += 1;
        let mut event = sample("/a", "container", *second, 0);
        if let Body::Sample(sample) = &mut event.body {
            sample.cpu = Some(Cpu { usage_us_total: 7 });
        }
        governor.observe(&event);
        let now = Timestamp(*second * SECOND);
        if let Some(decision) = governor.decide(now, &|_| None).pop() {
            assert_eq!(decision.rung, Rung::Freeze);
            return Some(decision);
        }
    }
    None
}

#[test]
fn what_was_wanted_while_frozen_is_not_frozen_again_before_a_growing_time() {
    let settings = Settings {
        policy: PolicyKind::Conservative,
        idle: Idle {
            after_us: 2 * SECOND,
            ..Idle::default()
        },
        overrides: vec![Override {
            matches: Pattern::new("/a", "/sys/fs/cgroup").unwrap(),
            policy: None,
            floor: None,
            ceiling: None,
            anon: None,
            freeze: true,
        }],
        ..Settings::default()
    };
    let mut governor = Governor::new(settings, learn::Model::default());
    let mut second = 0;
    let ended = |governor: &mut Governor, decision: &Decision, second: i64, wanted: bool| {
        let outcome = Outcome {
            elapsed_us: 1_000_000,
            wanted,
            ..Outcome::default()
        };
        governor.outcome(decision.number, outcome, Timestamp(second * SECOND));
    };
    let decision = freeze(&mut governor, &mut second, 20).unwrap();
    // At the end of its time it may be frozen at the next turn.
    ended(&mut governor, &decision, second, false);
    let mut decision = freeze(&mut governor, &mut second, 20).unwrap();
    for pause in [60, 120, 240] {
        ended(&mut governor, &decision, second, true);
        let now = Timestamp(second * SECOND);
        let cooling: Vec<String> = governor.bounds().cooling(now).collect();
        assert!(
            cooling.len() == 1 && cooling[0].ends_with("in a row were cut short"),
            "{cooling:?}"
        );
        let settled = governor.history().next_back().unwrap();
        assert_eq!((settled.bad, governor.model().bad), (None, 0));
        assert!(freeze(&mut governor, &mut second, pause - 1).is_none());
        // Turns are ten seconds apart.
        decision = freeze(&mut governor, &mut second, 11).unwrap();
    }
}
