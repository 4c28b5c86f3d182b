//! The command line: every bad argument ends in one line and the right exit code, and without root the rest goes on.

mod output;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Outcome, Trial, cgroup_root};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
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
            "native_cli_without_root_watch_shows_what_files_tell",
            without_root_from_files,
        ),
        Trial::new(
            "native_cli_doctor_exits_0_where_watch_works",
            doctor_exit_code,
        ),
    ];
    trials.extend(output::trials());
    trials
}

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
            &["watch", "--budget-cpu", "much"],
            &["--budget-cpu", "percentage", "100"],
        ),
        (&["watch", "--budget-cpu", "101%"], &["--budget-cpu", "100"]),
        (&["watch", "--budget-cpu", "NaN"], &["--budget-cpu", "100"]),
        (
            &["watch", "--budget-memory", "10%"],
            &["--budget-memory", "16M"],
        ),
        (
            &["watch", "--budget-window", "1ms"],
            &["--budget-window", "500ms"],
        ),
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
