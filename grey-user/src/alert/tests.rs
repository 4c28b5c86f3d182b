//! Choice, rate and the command itself, with commands that every system has.

use std::path::PathBuf;

use grey_core::event::{Cause, Cgroup, Evidence, Memory, Oom, SCHEMA, State, Verdict};
use grey_core::time::Timestamp;

use super::*;

fn verdict(path: &str, state: State) -> Event {
    let verdict = Box::new(Verdict {
        state,
        cause: Cause::Leak,
        memory: Memory::Anon,
        process: None,
        rate_bps: Some(1.0),
        rate_ci95: None,
        confidence: 0.9,
        growth_bytes: None,
        since: None,
        limit_bytes: None,
        limit_cgroup: None,
        ttl_s: None,
        ttl_ci95_s: None,
        trim_bytes: None,
        evidence: Evidence::default(),
        stacks: Vec::new(),
        advice: String::new(),
    });
    event(path, Body::Verdict { verdict })
}

fn event(path: &str, body: Body) -> Event {
    Event {
        schema: SCHEMA.into(),
        ts: Timestamp(0),
        seq: 0,
        host: "n1".into(),
        boot_id: None,
        cgroup: Some(Cgroup {
            id: None,
            path: path.into(),
            kind: "service".into(),
            name: path.into(),
        }),
        lossy: false,
        body,
    }
}

fn oom() -> Event {
    let oom = Oom {
        victim: None,
        trigger: None,
        constraint: None,
        limit_cgroup: None,
        kills: 1,
    };
    event("/a", Body::Oom { oom })
}

#[test]
fn an_alert_is_a_kill_a_verdict_from_the_state_on_and_its_recovery() {
    use State::{Confirmed, Growing, Normal, Recovered, Suspect};
    for (on, states) in [
        (
            AlertOn::Confirmed,
            [
                (Growing, false),
                (Suspect, false),
                (Recovered, false),
                (Confirmed, true),
                (Suspect, false),
                (Confirmed, true),
                (Recovered, true),
                (Recovered, false),
                (Normal, false),
            ],
        ),
        (
            AlertOn::Suspect,
            [
                (Growing, false),
                (Normal, false),
                (Suspect, true),
                (Confirmed, true),
                (Suspect, true),
                (Growing, false),
                (Normal, true),
                (Normal, false),
                (Recovered, false),
            ],
        ),
    ] {
        let mut choice = Choice::new(on);
        assert!(choice.is_alert(&oom()));
        for (at, (state, expected)) in states.into_iter().enumerate() {
            assert!(!choice.is_alert(&verdict("/other", Recovered)));
            assert_eq!(
                choice.is_alert(&verdict("/a", state)),
                expected,
                "{on:?}: {at}, {state}"
            );
        }
    }
}

#[test]
fn no_window_of_the_rates_length_has_more_starts_than_it_says() {
    let rate = Rate {
        number: 3,
        window: Duration::from_secs(60),
    };
    assert_eq!(rate.to_string(), "3 in 1m00s");
    let mut limiter = Limiter::new(rate);
    let begin = Instant::now();
    let allowed: Vec<u64> = (0..200)
        .filter(|second| limiter.allow(begin + Duration::from_secs(*second)))
        .collect();
    assert_eq!(allowed, [0, 1, 2, 60, 61, 62, 120, 121, 122, 180, 181, 182]);
}

#[test]
fn a_command_that_is_not_there_or_is_none_is_told() {
    for (name, expected) in [
        (
            "no-such-command-1f3",
            "no command 'no-such-command-1f3' in PATH",
        ),
        ("", "no command ''"),
        ("/no/such/file", "'/no/such/file': No such file"),
        ("/", "'/' is not an executable file"),
        ("/proc/version", "'/proc/version' is not an executable file"),
    ] {
        let error = program(name.as_ref()).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(program("sh".as_ref()).unwrap().is_absolute());
}

/// A folder that commands of a test write to.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("grey-alert-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(command: &[&str], timeout: Duration, number: u32) -> Alerts {
    Alerts::start(Options {
        command: command.iter().map(OsString::from).collect(),
        on: AlertOn::Confirmed,
        rate: Rate {
            number,
            window: Duration::from_secs(3600),
        },
        timeout,
        output: false,
    })
    .unwrap()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_event_comes_on_stdin_as_it_is_and_nothing_of_it_is_interpreted() {
    let folder = Folder::new("stdin");
    let path = "/a b/$(touch evil);`id`/\"'\n*";
    let script = format!(
        "cat >> {0}/lines; printf '%s|' \"$GREY_EBPF_EVENT\" \"$GREY_EBPF_STATE\" \"$GREY_EBPF_CAUSE\" \
         \"$GREY_EBPF_CGROUP\" \"$GREY_EBPF_LEFT_OUT\" >> {0}/vars",
        folder.0.display()
    );
    let mut alerts = start(&["sh", "-c", &script], LONG, 10);
    let events = [verdict(path, State::Confirmed), oom()];
    for event in &events {
        assert_eq!(alerts.offer(event), None);
    }
    assert_eq!(alerts.offer(&verdict(path, State::Growing)), None);
    assert_eq!(alerts.finish(), [""; 0]);
    let lines: Vec<Event> = folder
        .text("lines")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines, events);
    assert_eq!(
        folder.text("vars"),
        format!("verdict|confirmed|leak|{path}|0|oom|||/a|0|")
    );
}

#[test]
fn a_command_that_fails_is_told_with_its_code_and_the_next_one_runs() {
    for (script, expected) in [
        ("exit 3", "--on-alert sh: exit code 3"),
        ("kill -9 $$", "--on-alert sh: ended by signal 9"),
    ] {
        let mut alerts = start(&["sh", "-c", script], LONG, 10);
        alerts.offer(&oom());
        alerts.offer(&oom());
        assert_eq!(alerts.finish(), [expected, expected]);
    }
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let folder = Folder::new("hangs");
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! $$ > {}/pids; wait; wait",
        folder.0.display()
    );
    let mut alerts = start(&["sh", "-c", &script], Duration::from_millis(300), 10);
    let begin = Instant::now();
    alerts.offer(&oom());
    let told = alerts.finish();
    assert_eq!(
        told,
        ["--on-alert sh: took longer than 300ms, and was ended"]
    );
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    let pids = folder.text("pids");
    assert_eq!(pids.split_whitespace().count(), 2, "{pids}");
    for pid in pids.split_whitespace() {
        // A process of init's that is being reaped is over as well.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[test]
fn beyond_the_rate_alerts_are_counted_and_told_once_and_with_the_next() {
    let folder = Folder::new("rate");
    let script = format!("echo run >> {}/runs", folder.0.display());
    let mut alerts = start(&["sh", "-c", &script], LONG, 2);
    let told: Vec<String> = (0..5).filter_map(|_| alerts.offer(&oom())).collect();
    assert_eq!(
        told,
        ["--on-alert sh: more than 2 in 1h00m; the next ones are counted, not run (--alert-rate)"]
    );
    assert_eq!(alerts.finish(), ["--on-alert sh: 3 alerts were not run"]);
    assert_eq!(folder.text("runs"), "run\nrun\n");
    assert_eq!(
        job(&oom(), 3).environment.last().unwrap().1,
        Some("3".into())
    );
}

#[test]
fn the_end_of_the_watch_waits_for_what_is_pending_but_not_for_ever() {
    let folder = Folder::new("end");
    let script = format!(
        "read line; echo run >> {0}/runs; exec sleep 1000",
        folder.0.display()
    );
    let mut alerts = start(&["sh", "-c", &script], LONG, 10);
    for _ in 0..3 {
        alerts.offer(&oom());
    }
    let begin = Instant::now();
    assert_eq!(
        alerts.finish(),
        [
            "--on-alert sh: was still running when the watch ended, and was ended",
            "--on-alert sh: 2 alerts were still waiting at the end"
        ]
    );
    let took = begin.elapsed();
    assert!(
        took >= LAST && took < LAST + Duration::from_secs(4),
        "{took:?}"
    );
    assert_eq!(folder.text("runs"), "run\n");
}

#[test]
fn the_command_has_three_descriptors_and_none_of_ours() {
    use std::os::fd::AsRawFd as _;
    let folder = Folder::new("fds");
    // One that is inherited on purpose, as by a careless library.
    let open = std::fs::File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let script = format!("ls -l /proc/$$/fd > {}/fds", folder.0.display());
    let mut alerts = start(&["sh", "-c", &script], LONG, 10);
    alerts.offer(&oom());
    assert_eq!(alerts.finish(), [""; 0]);
    let fds = folder.text("fds");
    let inherited = format!(" {} -> ", open.as_raw_fd());
    assert!(!fds.contains(&inherited) && !fds.contains("zero"), "{fds}");
    assert!(fds.contains(" 0 -> /memfd:alert"), "{fds}");
}
