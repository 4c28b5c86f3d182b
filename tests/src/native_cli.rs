//! The command line: every bad argument ends in one line and the right exit code, every output that cannot be written
//! is an error and never a panic, and without root the rest goes on.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Outcome, Trial, cgroup_root};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_cli_a_bad_argument_is_one_line_and_code_2",
            bad_arguments,
        ),
        Trial::new(
            "native_cli_a_bad_cgroup_is_one_line_and_code_2",
            bad_cgroups,
        ),
        Trial::new(
            "native_cli_an_unwritable_record_file_is_one_line_and_code_1",
            unwritable_record_files,
        ),
        Trial::new(
            "native_cli_a_mistyped_cgroup_does_not_empty_an_earlier_recording",
            earlier_recording_survives,
        ),
        Trial::new(
            "native_cli_a_full_stdout_is_one_line_and_code_1",
            full_stdout,
        ),
        Trial::new(
            "native_cli_a_reader_that_went_away_is_no_error",
            closed_pipe,
        ),
        Trial::new(
            "native_cli_watch_ends_when_its_reader_has_enough",
            reader_has_enough,
        ),
        Trial::new(
            "native_cli_an_unwritable_stderr_is_no_panic",
            unwritable_stderr,
        ),
        Trial::new(
            "native_cli_without_root_watch_shows_what_files_tell",
            without_root_from_files,
        ),
        Trial::new(
            "native_cli_doctor_exits_0_where_watch_works",
            doctor_exit_code,
        ),
        Trial::new("native_cli_help_shows_examples_and_every_option", help),
        Trial::new(
            "native_cli_completions_and_manual_page_are_valid",
            generated,
        ),
    ]
}

/// What each of these runs writes to stdout when nothing is wrong.
const WRITERS: [&[&str]; 9] = [
    &["watch", "--once"],
    &["watch", "--once", "--json"],
    &["doctor"],
    &["doctor", "--json"],
    &["completions", "bash"],
    &["man"],
    &["--help"],
    &["watch", "--help"],
    &["--version"],
];

fn bad_arguments() -> Result<Outcome> {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--bogus"], &["--bogus"]),
        (&["nonsense"], &["nonsense"]),
        (&["watch", "--bogus"], &["--bogus"]),
        (&["watch", "extra"], &["extra"]),
        (&["doctor", "--bogus"], &["--bogus"]),
        (&["completions"], &["<SHELL>"]),
        (&["completions", "tcsh9"], &["tcsh9", "bash"]),
        (&["watch", "--interval"], &["--interval"]),
        (&["watch", "--interval", ""], &["--interval", "500ms"]),
        (&["watch", "--interval", "0"], &["--interval", "10ms"]),
        (&["watch", "--interval", "0s"], &["--interval", "10ms"]),
        (&["watch", "--interval", "1us"], &["--interval", "10ms"]),
        (&["watch", "--interval=-1s"], &["--interval", "negative"]),
        (&["watch", "--interval", "-1s"], &["-1"]),
        (&["watch", "--interval", "5"], &["--interval", "5s"]),
        (&["watch", "--interval", "2h"], &["--interval", "1h"]),
        (
            &["watch", "--interval", "soon"],
            &["--interval", "soon", "30s"],
        ),
        (
            &["watch", "--interval", "99999999999999999999h"],
            &["--interval"],
        ),
        (&["watch", "--duration", "x"], &["--duration", "30s"]),
        (&["watch", "--duration=-3s"], &["--duration", "negative"]),
        (&["watch", "--duration", "3"], &["--duration", "3s"]),
        (
            &["watch", "--once", "--duration", "3s"],
            &["--once", "--duration"],
        ),
        (&["watch", "--growth", "lots"], &["--growth", "512M"]),
        (&["watch", "--growth", "10%"], &["--growth", "16M"]),
        (&["watch", "--growth=-1M"], &["--growth", "negative"]),
        (
            &["watch", "--growth", "99999999999999999999"],
            &["--growth", "64 bits"],
        ),
        (
            &["watch", "--growth", "99999999T"],
            &["--growth", "64 bits"],
        ),
        (&["watch", "--growth", "16X"], &["--growth", "unit"]),
        (&["watch", "--stall", "foo"], &["--stall", "30s"]),
        (&["watch", "--stall", "10"], &["--stall", "10s"]),
        (&["watch", "--ring", "100000"], &["--ring", "power of two"]),
        (&["watch", "--ring", "0"], &["--ring", "power of two"]),
        (&["watch", "--ring", "2G"], &["--ring", "64M"]),
        (&["watch", "--slow-ticks", "0"], &["--slow-ticks", "1"]),
        (&["watch", "--top", "many"], &["--top"]),
        (&["watch", "--json", "--plain"], &["--json", "--plain"]),
        (&["watch", "--record"], &["--record"]),
        (&["watch", "--cgroup"], &["--cgroup"]),
        (
            &["watch", "--syscall-tracepoints", "maybe"],
            &["--syscall-tracepoints", "off"],
        ),
    ];
    for (args, says) in cases {
        Invocation::new()
            .run(args)?
            .is_one_line(2, says)
            .with_context(|| format!("grey-ebpf {}", args.join(" ")))?;
    }
    // No command at all: there the whole help is of more use than one line.
    let ended = Invocation::new().run(&[])?;
    ensure!(
        ended.code == Some(2) && ended.stdout.is_empty() && ended.stderr.contains("Usage:"),
        "{ended:?}"
    );
    Ok(Outcome::Passed)
}

fn bad_cgroups() -> Result<Outcome> {
    let root = cgroup_root()?;
    let missing = root.join("grey-none");
    let missing = missing.to_str().context("a mount that is no text")?;
    let cases: &[(&str, &[&str])] = &[
        (
            "/grey-none",
            &["/grey-none", "no cgroup", "--allow-missing"],
        ),
        (missing, &[missing, "no cgroup", "--allow-missing"]),
        ("grey-none.service", &["grey-none.service", "no cgroup"]),
        (
            "/grey-none*/**",
            &["/grey-none*/**", "matches", "--allow-missing"],
        ),
        ("grey-none-*", &["grey-none-*", "matches"]),
        ("[a", &["[a", "unclosed"]),
        ("{a", &["{a"]),
        ("", &["empty"]),
    ];
    for (pattern, says) in cases {
        for output in ["--json", "--plain"] {
            Invocation::new()
                .run(&["watch", "--once", output, "--cgroup", pattern])?
                .is_one_line(2, says)
                .with_context(|| format!("--cgroup {pattern:?} {output}"))?;
        }
    }
    // One good pattern does not excuse a bad one.
    Invocation::new()
        .run(&["watch", "--once", "--cgroup", "/", "--cgroup", "/grey-none"])?
        .is_one_line(2, &["/grey-none"])?;
    let waits = Invocation::new().run(&[
        "watch",
        "--once",
        "--json",
        "--cgroup",
        "/grey-none",
        "--allow-missing",
    ])?;
    ensure!(waits.code == Some(0), "--allow-missing: {waits:?}");
    Ok(Outcome::Passed)
}

fn unwritable_record_files() -> Result<Outcome> {
    let scratch = Scratch::new("record")?;
    let folder = scratch.argument("")?;
    let nowhere = scratch.argument("none/x.ndjson")?;
    for (path, cause) in [(&folder, "directory"), (&nowhere, "No such file")] {
        Invocation::new()
            .run(&["watch", "--once", "--record", path])?
            .is_one_line(1, &["--record", path, cause, "folder you may write to"])?;
    }
    let program = scratch.program()?;
    let closed = scratch.argument("x.ndjson.gz")?;
    Invocation::new()
        .program(&program)
        .nobody()
        .run(&["watch", "--once", "--record", &closed])?
        .is_one_line(
            1,
            &[
                "--record",
                &closed,
                "Permission denied",
                "folder you may write to",
            ],
        )?;
    for args in [
        ["watch", "--once", "--json", "--record", "/dev/full"],
        ["watch", "--duration", "5s", "--record", "/dev/full"],
    ] {
        Invocation::new()
            .run(&args)?
            .ends_with_one_line(1, &["--record /dev/full", "No space", "make room"])?;
    }
    Ok(Outcome::Passed)
}

fn earlier_recording_survives() -> Result<Outcome> {
    let scratch = Scratch::new("earlier")?;
    let path = scratch.argument("kept.ndjson")?;
    fs::write(&path, "a recording\n")?;
    Invocation::new()
        .run(&[
            "watch",
            "--once",
            "--record",
            &path,
            "--cgroup",
            "/grey-none",
        ])?
        .is_one_line(2, &["/grey-none"])?;
    ensure!(
        fs::read_to_string(&path)? == "a recording\n",
        "a command that failed emptied the file"
    );
    let ended = Invocation::new().run(&["watch", "--once", "--record", &path])?;
    let text = fs::read_to_string(&path)?;
    ensure!(
        ended.code == Some(0) && text.starts_with(r#"{"schema":"grey-ebpf/1""#),
        "{ended:?}\n{text}"
    );
    Ok(Outcome::Passed)
}

fn full_stdout() -> Result<Outcome> {
    for args in WRITERS {
        let full = File::options().write(true).open("/dev/full")?;
        Invocation::new()
            .stdout(full)
            .run(args)?
            .ends_with_one_line(1, &["stdout", "No space", "make room"])
            .with_context(|| args.join(" "))?;
    }
    Ok(Outcome::Passed)
}

fn closed_pipe() -> Result<Outcome> {
    for args in WRITERS {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let ended = Invocation::new().stdout(writer).run(args)?;
        ensure!(ended.code == Some(0), "{}: {ended:?}", args.join(" "));
        ensure!(
            !ended.stderr.contains("stdout"),
            "{}: {ended:?}",
            args.join(" ")
        );
    }
    Ok(Outcome::Passed)
}

/// `grey-ebpf watch --json | head -n 1`.
fn reader_has_enough() -> Result<Outcome> {
    use std::io::BufRead as _;
    let mut child = Command::new(crate::harness::grey_ebpf())
        .args(["watch", "--json", "--interval", "50ms"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        std::io::BufReader::new(stdout).read_line(&mut line)?;
    }
    let ended = crate::harness::wait_until("the end of watch", Duration::from_secs(20), || {
        Ok(child.try_wait()?)
    });
    let _ = child.kill();
    let _ = child.wait();
    ensure!(line.starts_with('{'), "the first line: {line:?}");
    ensure!(ended?.code() == Some(0), "another exit code");
    Ok(Outcome::Passed)
}

fn unwritable_stderr() -> Result<Outcome> {
    let cases: &[(&[&str], i32)] = &[
        (&["watch", "--bogus"], 2),
        (&["watch", "--once", "--cgroup", "/grey-none"], 2),
        (&["watch", "--once", "--json"], 0),
        (&["watch", "--once", "--record", "/nowhere/x"], 1),
        (&[], 2),
    ];
    for (args, code) in cases {
        let full = File::options().write(true).open("/dev/full")?;
        let (reader, broken) = std::io::pipe()?;
        drop(reader);
        for stderr in [full.into(), std::os::fd::OwnedFd::from(broken)] {
            let ended = Invocation::new()
                .stderr(stderr)
                .env("GREY_EBPF_LOG", "trace")
                .run(args)?;
            ensure!(ended.code == Some(*code), "{}: {ended:?}", args.join(" "));
        }
    }
    Ok(Outcome::Passed)
}

fn without_root_from_files() -> Result<Outcome> {
    let scratch = Scratch::new("nobody")?;
    let program = scratch.program()?;
    let ended = Invocation::new().program(&program).nobody().run(&[
        "watch",
        "--once",
        "--json",
        "--processes",
    ])?;
    if cgroup_root().is_err() {
        ended.is_one_line(3, &["nothing to watch", "root", "doctor"])?;
        return Ok(Outcome::Passed);
    }
    ensure!(
        ended.code == Some(0) && ended.stderr.lines().count() == 1,
        "{ended:?}"
    );
    ensure!(
        ended.stderr.contains("not root") && ended.stderr.contains("run as root"),
        "what is lost and why: {}",
        ended.stderr
    );
    let events = ended
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    let of = |kind: &str| {
        events
            .iter()
            .find(|event| event["type"] == kind)
            .with_context(|| format!("no {kind} among {} events", events.len()))
    };
    let sample = of("sample")?;
    ensure!(
        sample["processes"].as_u64() > Some(0),
        "no processes: {sample}"
    );
    // Absent and not zero: nobody counted them.
    for (group, field) in [
        ("faults", "minor_total"),
        ("vm", "mapped_total"),
        ("reclaim", "stall_us_total"),
    ] {
        ensure!(
            sample[group].get(field).is_none(),
            "{group}.{field}: {sample}"
        );
    }
    ensure!(
        of("process")?["process"]["rss"].is_u64(),
        "no size of a process"
    );
    let health = &of("health")?["health"];
    let lost = health["degraded"].as_array().context("degraded")?;
    ensure!(
        lost.iter()
            .any(|probe| probe["probe"] == "fault_user" && probe["attached"] == "off"),
        "health does not name the probes that are off: {health}"
    );
    Ok(Outcome::Passed)
}

fn doctor_exit_code() -> Result<Outcome> {
    let scratch = Scratch::new("doctor")?;
    let program = scratch.program()?;
    for nobody in [false, true] {
        let doctor = |args: &[&str]| {
            let invocation = Invocation::new().program(&program);
            let invocation = if nobody {
                invocation.nobody()
            } else {
                invocation
            };
            invocation.run(args)
        };
        let ended = doctor(&["doctor", "--json"])?;
        ensure!(ended.stderr.is_empty(), "{}", ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout)?;
        let works = report["works"].as_bool().context("works")?;
        ensure!(ended.code == Some(if works { 0 } else { 3 }), "{ended:?}");
        ensure!(
            works == (cgroup_root().is_ok() || !nobody),
            "works: {works}, without root: {nobody}"
        );
        let text = doctor(&["doctor"])?;
        ensure!(
            text.code == ended.code && text.stderr.is_empty(),
            "{text:?}"
        );
        let probes = report["probes"].as_array().context("probes")?;
        ensure!(probes.len() >= 10, "only {} probes", probes.len());
        for probe in probes {
            let name = probe["name"].as_str().context("a probe without a name")?;
            ensure!(text.stdout.contains(name), "the text leaves out {name}");
        }
        ensure!(!text.stdout.contains('\u{1b}'), "colours in a pipe");
    }
    Ok(Outcome::Passed)
}

fn help() -> Result<Outcome> {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--help"],
            &[
                "watch",
                "doctor",
                "completions",
                "man",
                "Examples:",
                "Exit codes: 0 done",
            ],
        ),
        (
            &["watch", "--help"],
            &[
                "Examples:",
                "--json",
                "--interval",
                "--cgroup",
                "--processes",
                "--once",
                "--duration",
                "--record",
                "--growth",
                "--stall",
                "--allow-missing",
            ],
        ),
        (&["doctor", "--help"], &["--json", "Exits with 0"]),
    ];
    for (args, says) in cases {
        let ended = Invocation::new().run(args)?;
        ensure!(
            ended.code == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        for word in *says {
            ensure!(
                ended.stdout.contains(word),
                "{}: no {word}\n{}",
                args.join(" "),
                ended.stdout
            );
        }
        ensure!(
            ended.stdout.lines().all(|line| line.chars().count() <= 100),
            "{}: lines of more than 100 columns",
            args.join(" ")
        );
    }
    Ok(Outcome::Passed)
}

fn generated() -> Result<Outcome> {
    // The shell reads the script without running it, where that shell is installed.
    let checkers: &[(&str, &str, &[&str])] = &[
        ("bash", "complete -F _grey__ebpf", &["bash", "-n"]),
        ("zsh", "#compdef grey-ebpf", &["zsh", "-n"]),
        ("fish", "complete -c grey-ebpf", &["fish", "--no-execute"]),
    ];
    for (shell, says, checker) in checkers {
        let script = Invocation::new().run(&["completions", shell])?;
        ensure!(
            script.code == Some(0) && script.stderr.is_empty(),
            "{shell}: {}",
            script.stderr
        );
        for word in [*says, "interval", "doctor"] {
            ensure!(
                script.stdout.contains(word),
                "{shell}: no {word} in the script"
            );
        }
        check(checker, &script.stdout)?;
    }
    let page = Invocation::new().run(&["man"])?;
    ensure!(
        page.code == Some(0) && page.stdout.contains(".TH grey-ebpf 8"),
        "{page:?}"
    );
    check(
        &["man", "--warnings", "-E", "UTF-8", "-l", "-"],
        &page.stdout,
    )?;
    Ok(Outcome::Passed)
}

/// Feeds `text` to a program that judges it; one that is not installed judges nothing.
fn check(program: &[&str], text: &str) -> Result<()> {
    let started = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        return Ok(());
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{}: {}",
        program.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
