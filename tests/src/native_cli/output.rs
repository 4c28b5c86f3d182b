//! Where output goes: one that cannot be written is an error and never a panic; help, completions and the manual page.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Outcome, Trial};
use crate::invocation::Invocation;

pub(super) fn trials() -> Vec<Trial> {
    vec![
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
