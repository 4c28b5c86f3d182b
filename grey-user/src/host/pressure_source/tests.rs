//! What sources say, what they do wrong, and that nobody waits for them.

use std::path::Path;

use super::*;
use crate::host::fixture::Tree;

const SOON: Duration = Duration::from_secs(20);

fn command(words: &[&str]) -> Options {
    let words = words.iter().map(OsString::from).collect();
    Options::of(Source::Command(words))
}

fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn trouble(options: Options) -> String {
    let pressure = HostPressure::run(options).unwrap();
    let told = wait("trouble", || pressure.trouble());
    assert_eq!(pressure.available_pct(), None, "{told}");
    told
}

fn is_running(pid: &str) -> bool {
    // A zombie's command line is empty.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn what_a_source_says_is_read_or_refused() {
    const G: u64 = 1 << 30;
    let good = [
        ("75%\n", None, 25.0),
        (" 37.5% ", None, 62.5),
        ("37.5", None, 62.5),
        ("0", None, 100.0),
        ("100%", None, 0.0),
        ("4G 16G\r\n", None, 25.0),
        ("4194304K 16777216K\r\n", None, 25.0),
        ("4294967296", Some(16 * G), 25.0),
        ("4G", Some(16 * G), 25.0),
    ];
    for (text, total, pct) in good {
        let found = parse(text.as_bytes(), total);
        let found = found.unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert!((found - pct).abs() < 1e-9, "{text:?}: {found}");
    }
    let bad = [
        "",
        "\n",
        "-1%",
        "101%",
        "nan%",
        "inf",
        "1e1%",
        "%",
        "4G",
        "17G 16G",
        "0 0",
        "4G 16G 1",
        "4G\n16G",
        "lots",
        "99999999T 99999999T",
        "5% 6%",
        "1.2.3",
        "\u{7f}",
    ];
    for text in bad {
        let why = parse(text.as_bytes(), None).unwrap_err();
        assert!(
            why.contains("expected") && !why.contains(['\n', '\u{7f}']),
            "{text:?}: {why}"
        );
    }
    assert!(parse(b"\xff\xfe", None).unwrap_err().contains("no text"));
    assert!(parse(b"17G", Some(16 * G)).is_err());
}

#[test]
fn a_file_is_followed() {
    let tree = Tree::new();
    let path = tree.path("/pressure");
    tree.file("/pressure", "80%\n");
    let pressure = HostPressure::run(Options {
        every: Duration::from_millis(5),
        ..Options::of(Source::File(path))
    })
    .unwrap();
    let is = |pct: f64| {
        wait("the figure", || {
            pressure.available_pct().filter(|found| *found == pct)
        })
    };
    is(20.0);
    tree.file("/pressure", "10%\n");
    is(90.0);
    // One bad reading does not take away what was known a moment ago, but is told.
    tree.file("/pressure", "broken\n");
    let told = wait("trouble", || pressure.trouble());
    assert!(
        told.contains("broken") && told.contains("/pressure"),
        "{told}"
    );
    // With time it does.
    wait("staleness", || {
        pressure.available_pct().is_none().then_some(())
    });
}

#[test]
fn files_that_are_none_of_ours_are_not_read() {
    let tree = Tree::new();
    let options = |path: &Path| Options::of(Source::File(path.to_owned()));
    assert!(trouble(options(&tree.path("/missing"))).contains("No such file"));
    assert!(trouble(options(Path::new("/dev/zero"))).contains("no regular file"));
    let pipe = tree.path("/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(trouble(options(&pipe)).contains("no regular file"));
    tree.file("/long", &"1".repeat(MOST_BYTES + 1));
    assert!(trouble(options(&tree.path("/long"))).contains("4 KiB"));
}

#[test]
fn a_command_is_asked_without_a_shell() {
    let pressure = HostPressure::start(command(&["echo", "62.5%"])).unwrap();
    assert_eq!(wait("the answer", || pressure.available_pct()), 37.5);
    // A shell would put something else in its place.
    let told = trouble(command(&["echo", "$(echo 5)%"]));
    assert!(told.contains("$(echo 5)%"), "{told}");
}

#[test]
fn a_command_that_fails_is_told_of() {
    assert!(trouble(command(&["false"])).contains("false: exit code 1"));
    assert!(trouble(command(&["no-such-program"])).contains("no command"));
    assert!(trouble(command(&["true"])).contains("nothing"));
    assert!(trouble(command(&["yes", "5%"])).contains("4 KiB"));
    assert!(trouble(Options::of(Source::Command(Vec::new()))).contains("no command"));
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    let tree = Tree::new();
    let pids = tree.path("/pids");
    let script = format!(
        "sleep 100 & echo $$ $! > {0}.new; mv {0}.new {0}; wait",
        pids.display()
    );
    let told = trouble(Options {
        timeout: Duration::from_millis(500),
        ..command(&["sh", "-c", &script])
    });
    assert!(told.contains("longer than 500ms"), "{told}");
    let text = std::fs::read_to_string(&pids).unwrap();
    let pids: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(pids.len(), 2, "{text}");
    wait("the end of both", || {
        (!pids.iter().any(|pid| is_running(pid))).then_some(())
    });
}

#[test]
fn the_end_does_not_wait_for_a_command() {
    let tree = Tree::new();
    let pid = tree.path("/pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 100",
        pid.display()
    );
    let pressure = HostPressure::run(Options {
        timeout: Duration::from_secs(60),
        ..command(&["sh", "-c", &script])
    })
    .unwrap();
    let pid = wait("its start", || std::fs::read_to_string(&pid).ok());
    // Nobody waits for it while it runs, either.
    assert_eq!((pressure.available_pct(), pressure.trouble()), (None, None));
    let start = Instant::now();
    drop(pressure);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    wait("its end", || (!is_running(pid.trim())).then_some(()));
}

#[test]
fn what_fails_is_asked_less_and_less() {
    let options = |words: &[&str]| Options {
        every: Duration::from_millis(10),
        ..command(words)
    };
    let good = HostPressure::run(options(&["echo", "5%"])).unwrap();
    let bad = HostPressure::run(options(&["false"])).unwrap();
    wait("some readings", || (good.readings() >= 30).then_some(()));
    // 20 + 40 + 80 + 160 + 160 … ms apart against 10.
    assert!(
        bad.readings() * 2 < good.readings(),
        "{} {}",
        bad.readings(),
        good.readings()
    );
}

#[test]
fn intervals_are_held_within_their_bounds() {
    let pressure = HostPressure::start(Options {
        every: Duration::ZERO,
        ..command(&["echo", "5%"])
    })
    .unwrap();
    wait("the first", || pressure.available_pct());
    assert_eq!(pressure.readings(), 1);
    assert_eq!(pressure.fresh, LEAST_EVERY * 3 + Duration::from_secs(5));
}

#[test]
fn windows_is_asked_by_its_own_tool_in_the_format_that_is_read() {
    let Source::Command(words) = Source::windows() else {
        unreachable!("a command")
    };
    assert_eq!(words.len(), 5);
    assert!(words[0].to_str().unwrap().ends_with("/powershell.exe"));
    // What the format string yields for 4 of 16 GiB, with Windows' end of line.
    assert_eq!(parse(b"4194304K 16777216K\r\n", None), Ok(25.0));
}
