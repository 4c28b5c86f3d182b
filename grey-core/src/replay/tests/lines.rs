//! One line at a time: what is taken, what is mended, what is bad.

use crate::detect::Point;
use crate::event::Limit;
use crate::replay::tests::{Run, replay};
use crate::replay::{Options, Stats};
use crate::time::Timestamp;

const TS: &str = "2026-11-21T05:00:00.000Z";
const AT: i64 = 1_795_237_200_000_000;

fn one(line: &[u8]) -> Run {
    replay(&[vec![line.to_vec()]], Options::default(), 1)
}

/// The trace of one sample.
fn given(host: &str, path: &str, point: Point) -> Vec<String> {
    let ts = Timestamp(point.at_us);
    vec![format!("{ts} {host} {path} {:?}", point)]
}

fn minimal() -> Point {
    Point {
        at_us: AT,
        anon: Some(4096),
        ..Point::default()
    }
}

#[test]
fn a_line_needs_a_time_a_path_and_anon() {
    let line = format!(r#"{{"ts":"{TS}","cgroup":{{"path":"/a"}},"mem":{{"anon":4096}}}}"#);
    let run = one(line.as_bytes());
    assert_eq!(run.given, given("", "/a", minimal()));
    assert_eq!((run.stats.samples, run.stats.bad, run.cgroups), (1, 0, 1));
    assert_eq!(run.stats.span, Some((Timestamp(AT), Timestamp(AT))));
}

#[test]
fn everything_that_the_detector_knows_is_taken_wherever_it_stands() {
    let line = format!(
        r#"{{"processes":3,"vm":{{"mapped_total":1,"virtual":77}},"faults":{{"minor_total":5,"major_total":6}},
        "mem":{{"max":null,"anon":4096,"swap":1,"file":2,"shmem":3,"kernel":4,"slab":5,"pagetables":6,"sock":7,
        "available":8,"current":9,"high":null,"new":{{"anon":1}}}},
        "type":"sample","cgroup":{{"name":"x","kind":"y","path":"/a","id":42}},"host":"n\u0031","ts":"{TS}"}}"#
    );
    let point = Point {
        id: Some(42),
        swap: Some(1),
        file: Some(2),
        shmem: Some(3),
        kernel: Some(4),
        slab: Some(5),
        pagetables: Some(6),
        sock: Some(7),
        virt: Some(77),
        max: Limit::None,
        available: Some(8),
        faults: Some(5),
        processes: Some(3),
        ..minimal()
    };
    assert_eq!(one(line.as_bytes()).given, given("n1", "/a", point));
}

#[test]
fn an_optional_figure_of_another_kind_is_an_unknown_figure() {
    for strange in [
        "null",
        "-1",
        "\"5\"",
        "{}",
        "[]",
        "true",
        "1e30",
        "99999999999999999999",
    ] {
        let line = format!(
            r#"{{"ts":"{TS}","cgroup":{{"path":"/a","id":{strange}}},"mem":{{"anon":4096,"swap":{strange},
            "file":{strange}}},"faults":{strange},"vm":{{"virtual":{strange}}},"processes":{strange},
            "seq":{strange},"boot_id":{{}},"lossy":{strange}}}"#
        );
        assert_eq!(
            one(line.as_bytes()).given,
            given("", "/a", minimal()),
            "{strange}"
        );
    }
    for (max, want) in [
        ("null", Limit::None),
        ("4096", Limit::Bytes(4096)),
        ("-1", Limit::Unknown),
        ("\"max\"", Limit::Unknown),
    ] {
        let line = format!(
            r#"{{"ts":"{TS}","cgroup":{{"path":"/a"}},"mem":{{"anon":4.096e3,"max":{max}}}}}"#
        );
        let point = Point {
            max: want,
            ..minimal()
        };
        assert_eq!(one(line.as_bytes()).given, given("", "/a", point), "{max}");
    }
}

#[test]
fn what_stands_around_a_line_does_no_harm() {
    let line = format!(r#"{{"ts":"{TS}","cgroup":{{"path":"/a"}},"mem":{{"anon":4096}}}}"#);
    for text in [
        format!("\u{feff}{line}"),
        format!("{line}\r"),
        format!("  {line}\t\r\n"),
        line.replace(TS, "2026-11-21T05:00:00Z"),
        line.replace(TS, "2026-11-21T07:00:00+02:00"),
        line.replace(TS, "2026-11-21T00:00:00.000000-05:00"),
    ] {
        assert_eq!(
            one(text.as_bytes()).given,
            given("", "/a", minimal()),
            "{text}"
        );
    }
    for blank in ["", "\r", "   ", "\t \r\n"] {
        let stats = Stats {
            lines: 1,
            ..Stats::default()
        };
        assert_eq!(one(blank.as_bytes()).stats, stats, "{blank:?}");
    }
}

#[test]
fn a_bad_line_is_counted_and_says_why() {
    let mem = r#""mem":{"anon":4096}"#;
    let cases: &[(&str, &str)] = &[
        ("nonsense", "not JSON: no JSON object at column 1"),
        ("[1]", "no JSON object"),
        ("{\"ts\":\"2026-11-21T05:00:00.0", "it ends within a string"),
        ("{\"a\":NaN}", "no value at column 6"),
        ("{\"a\":1}\0\0", "something after"),
        ("\0\0\0\0", "no JSON object"),
        ("{}", "neither a `type` nor a `mem`"),
        ("{\"type\":5}", "`type` is no string"),
        ("{\"mem\":{\"anon\":1}}", "no `ts`"),
        ("{\"ts\":17,\"mem\":{\"anon\":1}}", "no `ts` string"),
        (
            "{\"ts\":\"yesterday\\u001b\",\"mem\":{\"anon\":1}}",
            "no RFC 3339 instant: yesterday",
        ),
        (
            "{\"ts\":\"2026-11-21T05:00:00Z\",\"mem\":{}}",
            "no `cgroup` object",
        ),
        (
            "{\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":\"/a\",\"mem\":{}}",
            "no `cgroup` object",
        ),
        (
            "{\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{},\"mem\":{}}",
            "no `cgroup.path`",
        ),
        (
            "{\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{\"path\":\"\"},\"mem\":{}}",
            "is empty",
        ),
        (
            "{\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{\"path\":\"/a\"},\"mem\":{\"anon\":-1}}",
            "`mem.anon` is no number of bytes",
        ),
        (
            "{\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{\"path\":\"/\\ud800\"},\"mem\":{\"anon\":1}}",
            "`cgroup`: ",
        ),
        (
            "{\"type\":\"growth\",\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{\"path\":\"/a\"}}",
            "no `growth` object",
        ),
        (
            "{\"type\":\"process\",\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{\"path\":\"/a\"},\"process\":{\"pid\":1}}",
            "`process`: missing field `comm`",
        ),
        (
            "{\"type\":\"oom\",\"ts\":\"2026-11-21T05:00:00Z\",\"cgroup\":{\"path\":\"/a\"},\"oom\":{\"kills\":\"many\"}}",
            "`oom`: invalid type",
        ),
    ];
    for (text, why) in cases {
        let run = one(text.as_bytes());
        assert_eq!((run.stats.bad, run.given.len()), (1, 0), "{text}");
        let (input, line, told) = run.stats.first_bad.unwrap();
        assert_eq!((input, line), (0, 1));
        assert!(told.contains(why), "{text}: {told}");
        assert!(!told.contains(char::is_control), "{told:?}");
    }
    let latin1 = one(b"{\"ts\":\"\xe9\"}");
    assert_eq!(latin1.stats.first_bad.unwrap().2, "not UTF-8");
    let good = format!(r#"{{"ts":"{TS}","cgroup":{{"path":"/a"}},{mem}}}"#).into_bytes();
    let lines = vec![
        good.clone(),
        b"x".to_vec(),
        b"".to_vec(),
        b"y".to_vec(),
        good,
    ];
    let run = replay(&[lines], Options::default(), 2);
    assert_eq!(
        (run.stats.lines, run.stats.bad, run.stats.samples),
        (5, 2, 1)
    );
    assert_eq!(run.stats.first_bad.unwrap().1, 2);
}

#[test]
fn kinds_of_line_without_use_are_passed_over_without_a_look() {
    for text in [
        r#"{"type":"verdict","verdict":{"state":"confirmed"}}"#,
        r#"{"type":"health","health":{}}"#,
        r#"{"type":"stall","ts":"never"}"#,
        r#"{"type":"of the future","mem":{"anon":1}}"#,
        r#"{"type":"sample","ts":"2026-11-21T05:00:00Z","cgroup":{"path":"/a"}}"#,
    ] {
        let run = one(text.as_bytes());
        assert_eq!((run.stats.other, run.stats.bad), (1, 0), "{text}");
        assert!(!run.stats.usable());
    }
}

#[test]
fn growth_kills_and_processes_reach_the_detector_and_processes_can_be_left_out() {
    let head = format!(r#""ts":"{TS}","cgroup":{{"path":"/a"}}"#);
    let lines: Vec<Vec<u8>> = [
        format!(
            r#"{{"type":"growth",{head},"growth":{{"scope":"process","pid":7,"comm":"x","bytes":9,"since_ms":1}}}}"#
        ),
        format!(r#"{{"type":"oom",{head},"oom":{{"kills":2,"new":1}}}}"#),
        format!(r#"{{"type":"process",{head},"process":{{"pid":7,"comm":"x","rss":9,"new":null}}}}"#),
    ]
    .map(String::into_bytes)
    .to_vec();
    let run = replay(std::slice::from_ref(&lines), Options::default(), 1);
    assert_eq!((run.stats.events, run.stats.processes), (2, 1));
    for what in ["Growth", "kills: 2", "Process"] {
        assert!(
            run.given.iter().any(|given| given.contains(what)),
            "{:?}",
            run.given
        );
    }
    let without = Options {
        processes: false,
        ..Options::default()
    };
    let run = replay(&[lines], without, 1);
    assert_eq!(
        (run.stats.events, run.stats.processes, run.stats.other),
        (2, 0, 1)
    );
}
