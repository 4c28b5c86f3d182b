//! The report as a person sees it.

use grey_core::event::{
    Body, Cause, Cgroup, Event, Evidence, Memory, SCHEMA, State, Subject, Verdict,
};
use grey_core::replay::Stats;
use grey_core::time::Timestamp;

use super::{Report, Style};

const START: i64 = 1_795_237_200_000_000;
const S: i64 = 1_000_000;

fn event(at: i64, path: &str, verdict: Verdict) -> Event {
    Event {
        schema: SCHEMA.to_owned(),
        ts: Timestamp(START + at * S),
        seq: 0,
        host: "n1".to_owned(),
        boot_id: None,
        cgroup: Some(Cgroup {
            id: None,
            path: path.to_owned(),
            kind: "service".to_owned(),
            name: "x".to_owned(),
        }),
        lossy: false,
        body: Body::Verdict {
            verdict: Box::new(verdict),
        },
    }
}

fn said(state: State, cause: Cause, reason: &str) -> Verdict {
    Verdict {
        state,
        cause,
        memory: Memory::Anon,
        process: None,
        rate_bps: None,
        rate_ci95: None,
        confidence: 0.5,
        growth_bytes: None,
        since: None,
        limit_bytes: None,
        limit_cgroup: None,
        ttl_s: None,
        ttl_ci95_s: None,
        trim_bytes: None,
        evidence: Evidence {
            reason: reason.to_owned(),
            ..Evidence::default()
        },
        stacks: Vec::new(),
        advice: String::new(),
    }
}

fn leak(state: State) -> Verdict {
    Verdict {
        rate_bps: Some(4_194_304.0),
        growth_bytes: Some(104 << 20),
        since: Some(Timestamp(START)),
        limit_bytes: Some(512 << 20),
        limit_cgroup: Some("/system.slice/web.service".to_owned()),
        ttl_s: Some(101.0),
        advice: "take a heap profile".to_owned(),
        ..said(
            state,
            Cause::Leak,
            "the floor rose by 104M in 26s without falling back",
        )
    }
}

fn day() -> Vec<Event> {
    let process = Verdict {
        process: Some(Subject {
            pid: 17,
            comm: "py\u{1b}[31mthon".to_owned(),
        }),
        memory: Memory::Pagetables,
        rate_bps: Some(2048.0),
        ..said(State::Growing, Cause::Unknown, "page tables grow")
    };
    vec![
        event(20, "/system.slice/web.service", leak(State::Suspect)),
        event(26, "/system.slice/web.service", leak(State::Confirmed)),
        event(30, "/a", leak(State::Suspect)),
        event(31, "/b", said(State::Growing, Cause::Warmup, "a start")),
        event(40, "/c", process),
        event(
            86_500,
            "/a",
            said(State::Recovered, Cause::Leak, "it fell by 100M"),
        ),
        event(
            86_501,
            "/b",
            said(State::Normal, Cause::Warmup, "it slowed down"),
        ),
    ]
}

fn text(events: Vec<Event>, style: Style) -> String {
    let mut report = Report::default();
    let mut text = String::new();
    for event in events {
        text.push_str(&report.line(&event, style));
        text.push('\n');
        report.add(event);
    }
    let stats = Stats {
        samples: 12_340,
        span: Some((Timestamp(START), Timestamp(START + 90_000 * S))),
        ..Stats::default()
    };
    text + &report.summary(&["leak.ndjson.gz"], &["n1"], &stats, 31, style)
}

#[test]
fn the_report_in_a_pipe() {
    insta::assert_snapshot!(text(day(), Style::default()));
}

#[test]
fn the_report_on_a_narrow_terminal_in_colour() {
    let style = Style {
        colour: true,
        width: Some(60),
    };
    let text = text(day(), style).replace('\u{1b}', "ESC");
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_found_is_said() {
    let report = Report::default();
    let stats = Stats {
        samples: 1,
        span: Some((Timestamp(START), Timestamp(START))),
        ..Stats::default()
    };
    assert_eq!(
        report.summary(&["a", "b"], &["n1", "n2"], &stats, 1, Style::default()),
        "2 files: 2026-11-21 05:00:00 to 05:00:00 UTC, 0; 1 sample of 1 cgroup on 2 hosts\n\
         No leak: nothing grew for long enough to be suspect.\n"
    );
}

#[test]
fn series_of_several_hosts_are_told_apart() {
    let mut events = day();
    events[2].host = "n2".to_owned();
    let text = text(events, Style::default());
    assert!(text.contains("  n2:/a"), "{text}");
    assert!(text.contains("  n1:/system.slice/web.service"), "{text}");
}

#[test]
fn no_figure_panics() {
    for figure in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::MAX] {
        let verdict = Verdict {
            rate_bps: Some(figure),
            ttl_s: Some(figure),
            since: Some(Timestamp(i64::MIN)),
            limit_bytes: Some(u64::MAX),
            growth_bytes: Some(u64::MAX),
            ..leak(State::Confirmed)
        };
        text(
            vec![event(i64::MAX / S / 4, "/a", verdict)],
            Style::default(),
        );
    }
}
