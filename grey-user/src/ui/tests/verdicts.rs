//! Verdicts on the screen: in the table, in a cgroup's details, among the alerts, as plain lines.

use grey_core::event::{Body, Cause, Event, Evidence, Grower, Memory, State, Verdict};
use grey_core::time::Timestamp;
use grey_core::view::{Model, Query, SortKey};
use insta::assert_snapshot;

use super::model::{MIB, POD, START, busy, event};
use super::{info, press, screen, state};
use crate::ui::plain::{Plain, alert_line};

fn verdict(state: State, cause: Cause, limit: Option<(u64, &str, f64)>) -> Verdict {
    let mib = MIB as f64;
    let grows = state != State::Recovered;
    Verdict {
        state,
        cause,
        memory: Memory::Anon,
        process: None,
        rate_bps: grows.then_some(4.0 * mib),
        rate_ci95: grows.then_some([3.9 * mib, 4.1 * mib]),
        confidence: 0.98,
        growth_bytes: grows.then_some(160 * MIB),
        since: grows.then_some(Timestamp(START + 2_000_000)),
        limit_bytes: limit.map(|(bytes, _, _)| bytes),
        limit_cgroup: limit.map(|(_, path, _)| path.to_owned()),
        ttl_s: limit.map(|(_, _, ttl)| ttl),
        ttl_ci95_s: limit.map(|(_, _, ttl)| [ttl * 0.97, ttl * 1.03]),
        trim_bytes: None,
        evidence: Evidence {
            reason:
                "grew 160M in 40s without a step back; 20 floors of 2s each above the one before"
                    .into(),
            grower: (state == State::Confirmed).then(|| Grower {
                pid: 4242,
                comm: "python3".into(),
                bytes: 158 * MIB,
            }),
            ..Evidence::default()
        },
        stacks: Vec::new(),
        advice: "See whose allocations grow: grey-ebpf profile --pid 4242".into(),
    }
}

fn events() -> Vec<Event> {
    let say = |second, path: &str, verdict| {
        let verdict = Box::new(verdict);
        event(second, path, "service", Body::Verdict { verdict })
    };
    let nginx = "/system.slice/nginx.service";
    let slab = Verdict {
        memory: Memory::Slab,
        ..verdict(State::Growing, Cause::Unknown, None)
    };
    vec![
        say(30, POD, verdict(State::Suspect, Cause::Leak, None)),
        say(
            40,
            POD,
            verdict(
                State::Confirmed,
                Cause::Leak,
                Some((1536 * MIB, POD, 101.4)),
            ),
        ),
        say(41, POD, slab),
        say(
            41,
            nginx,
            verdict(
                State::Suspect,
                Cause::Retention,
                Some((6 << 30, "/", 40_000.0)),
            ),
        ),
        say(
            42,
            "/system.slice/postgresql.service",
            verdict(State::Growing, Cause::Unknown, None),
        ),
        say(
            42,
            "/system.slice/ssh.service",
            verdict(State::Recovered, Cause::Leak, None),
        ),
    ]
}

fn troubled() -> Model {
    let mut model = busy();
    for event in events() {
        model.apply(&event);
    }
    model
}

#[test]
fn verdicts_at_80x24() {
    assert_snapshot!(screen(80, 24, &troubled(), &mut state()));
}

#[test]
fn verdicts_at_140x40() {
    assert_snapshot!(screen(140, 40, &troubled(), &mut state()));
}

#[test]
fn verdicts_in_a_tree() {
    let mut state = state();
    press(&mut state, "t");
    assert_snapshot!(screen(140, 30, &troubled(), &mut state));
}

#[test]
fn what_is_said_of_a_cgroup_at_80x24() {
    let mut state = state();
    screen(80, 24, &troubled(), &mut state);
    press(&mut state, "\n");
    assert_snapshot!(screen(80, 24, &troubled(), &mut state));
}

#[test]
fn what_is_said_of_a_cgroup_at_140x40() {
    let mut state = state();
    screen(140, 40, &troubled(), &mut state);
    press(&mut state, "\n");
    assert_snapshot!(screen(140, 40, &troubled(), &mut state));
}

#[test]
fn verdicts_as_plain_lines() {
    let mut out = Vec::new();
    for line in events().iter().filter_map(alert_line) {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    let mut plain = Plain::new(3, Query::default());
    plain.tick(&mut out, &troubled(), &info()).expect("written");
    assert_snapshot!(String::from_utf8(out).expect("UTF-8"));
}

#[test]
fn who_is_in_trouble_stays_among_the_few_plain_rows() {
    let mut model = troubled();
    let mut plain = Plain::new(2, Query::default());
    plain
        .tick(&mut Vec::new(), &model, &info())
        .expect("written");
    let mut out = Vec::new();
    plain.tick(&mut out, &model, &info()).expect("written");
    assert!(out.is_empty(), "nothing changed, nothing said");
    // Another one's figures change.
    let mut root = busy().get("/").expect("known").sample().clone();
    root.mem.anon = Some(7 << 30);
    model.apply(&event(50, "/", "root", Body::Sample(Box::new(root))));
    plain.tick(&mut out, &model, &info()).expect("written");
    let text = String::from_utf8(out).expect("UTF-8");
    let rows: Vec<&str> = text.lines().skip(2).collect();
    assert!(
        rows[0].contains("LEAK") && rows[1].contains("retention?") && rows[2].contains("1 more"),
        "{text}"
    );
}

#[test]
fn d_sorts_by_verdict() {
    let mut state = state();
    press(&mut state, "d");
    assert_eq!(state.query().sort, SortKey::Verdict);
    let text = screen(140, 40, &troubled(), &mut state);
    let order: Vec<usize> = ["LEAK 1m39s", "retention?", "growing", "recovered"]
        .iter()
        .map(|word| text.find(word).expect("in the table"))
        .collect();
    assert!(order.is_sorted(), "{text}");
}
