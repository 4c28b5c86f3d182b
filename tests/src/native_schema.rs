//! The stream: every line of it is JSON and holds against the committed schema, no line is missing or mixed with logs,
//! and a record file holds the same lines; the plain table keeps its shape.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use grey_core::event::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Outcome, TempCgroup, Trial, Workload, cgroup_root, grey_ebpf, wait_until};
use crate::invocation::{Invocation, Scratch};

/// The committed schema, as it was when this test was built.
const SCHEMA: &str = include_str!("../../docs/schema/grey-ebpf-1.schema.json");

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_schema_every_line_of_the_stream_holds_against_the_schema",
            stream_holds_against_the_schema,
        ),
        Trial::new(
            "native_schema_the_schema_refuses_a_line_that_is_wrong",
            schema_refuses,
        ),
        Trial::new(
            "native_schema_record_files_hold_the_lines_of_the_stream",
            record_files_hold_the_stream,
        ),
        Trial::new(
            "native_schema_a_killed_recording_ends_in_a_whole_line",
            killed_recording_is_whole,
        ),
        Trial::new("native_schema_one_table_keeps_its_shape", one_table),
        Trial::new("native_schema_a_pipe_gets_plain_lines", plain_lines),
    ]
}

fn stream_holds_against_the_schema() -> Result<Outcome> {
    let cgroup = cgroup_root().ok().map(|_| TempCgroup::new("stream"));
    let mut workload = match &cgroup {
        Some(Ok(cgroup)) => Workload::start(cgroup)?,
        _ => Workload::start_here()?,
    };
    let (reader, writer) = std::io::pipe()?;
    let run = std::thread::spawn(move || {
        Invocation::new()
            .stdout(writer)
            .env("GREY_EBPF_LOG", "trace")
            .run(&[
                "watch",
                "--json",
                "--duration",
                "3s",
                "--interval",
                "200ms",
                "--processes",
                "--growth",
                "1M",
            ])
    });
    // What happens meanwhile must show as more than samples.
    let reading = std::thread::spawn(move || -> std::io::Result<String> {
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text)?;
        Ok(text)
    });
    while !run.is_finished() {
        workload.step("touch 2000")?;
        workload.step("unmap")?;
    }
    let Ok(ended) = run.join() else {
        bail!("the run broke off");
    };
    let ended = ended?;
    let Ok(stdout) = reading.join() else {
        bail!("the reading broke off");
    };
    let stdout = stdout?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(
        ended.stderr.contains("DEBUG") && !ended.stderr.contains(r#""schema""#),
        "the log belongs to stderr, the stream does not: {}",
        ended.stderr
    );
    let kinds = holds(&stdout)?;
    for kind in ["sample", "process", "health"] {
        ensure!(
            kinds.iter().any(|seen| seen == kind),
            "no {kind} among {kinds:?}"
        );
    }
    Ok(Outcome::Passed)
}

/// Judges a whole stream and returns the types of its lines.
fn holds(stream: &str) -> Result<Vec<String>> {
    ensure!(stream.ends_with('\n'), "the last line has no end");
    let schema: Value = serde_json::from_str(SCHEMA)?;
    let validator = jsonschema::validator_for(&schema).context("the committed schema")?;
    let mut kinds = Vec::new();
    for (number, line) in stream.lines().enumerate() {
        let event: Value = serde_json::from_str(line)
            .with_context(|| format!("line {number} is not JSON: {line}"))?;
        if let Err(error) = validator.validate(&event) {
            bail!("line {number}: {error}: {line}");
        }
        serde_json::from_str::<Event>(line).with_context(|| format!("line {number}: {line}"))?;
        ensure!(
            event["seq"] == number,
            "line {number} has another seq: {line}"
        );
        ensure!(event["schema"] == "grey-ebpf/1", "another schema: {line}");
        let ts = event["ts"].as_str().unwrap_or_default();
        ensure!(
            ts.len() == "2026-11-21T05:00:00.000Z".len()
                && ts.ends_with('Z')
                && ts.as_bytes()[10] == b'T',
            "ts {ts} is not RFC 3339 in UTC"
        );
        kinds.push(event["type"].as_str().unwrap_or_default().to_owned());
    }
    Ok(kinds)
}

/// The judge itself can say no.
fn schema_refuses() -> Result<Outcome> {
    let ended = Invocation::new().run(&["watch", "--once", "--json"])?;
    holds(&ended.stdout)?;
    let sample = ended
        .stdout
        .lines()
        .find(|line| line.contains(r#""type":"sample""#))
        .context("no sample")?;
    let seq = &format!(r#""seq":{}"#, serde_json::from_str::<Value>(sample)?["seq"]);
    for (what, with) in [
        (seq.as_str(), r#""seq":-1"#),
        (seq, r#""seq":77"#),
        (r#""schema":"grey-ebpf/1""#, r#""schema":"grey-ebpf/2""#),
        (r#""type":"sample""#, r#""type":"novel""#),
        (r#""path":"/""#, r#""path":1"#),
        (r#"Z","seq""#, r#"+01:00","seq""#),
        (r#"{"schema""#, r#"log: {"schema""#),
    ] {
        ensure!(sample.contains(what), "no {what} in {sample}");
        let wrong = sample.replacen(what, with, 1);
        let stream = ended.stdout.replacen(sample, &wrong, 1);
        ensure!(holds(&stream).is_err(), "taken for right: {wrong}");
    }
    ensure!(
        holds(ended.stdout.trim_end()).is_err(),
        "a torn stream is taken for right"
    );
    Ok(Outcome::Passed)
}

fn record_files_hold_the_stream() -> Result<Outcome> {
    let scratch = Scratch::new("stream")?;
    for name in ["stream.ndjson", "stream.ndjson.gz"] {
        let path = scratch.argument(name)?;
        let ended = Invocation::new().run(&[
            "watch",
            "--json",
            "--duration",
            "600ms",
            "--interval",
            "100ms",
            "--processes",
            "--record",
            &path,
        ])?;
        ensure!(ended.code == Some(0), "{ended:?}");
        let mut file = File::open(&path)?;
        let mut text = String::new();
        match path.ends_with(".gz") {
            true => flate2::read::GzDecoder::new(file).read_to_string(&mut text)?,
            false => file.read_to_string(&mut text)?,
        };
        ensure!(
            text == ended.stdout && text.lines().count() > 5,
            "{name} differs from stdout: {} and {} lines",
            text.lines().count(),
            ended.stdout.lines().count()
        );
    }
    // The file holds the stream as well where stdout shows something else.
    let path = scratch.argument("plain.ndjson")?;
    let ended = Invocation::new().run(&["watch", "--once", "--record", &path])?;
    ensure!(ended.stdout.contains("CGROUP"), "no table: {ended:?}");
    holds(&fs::read_to_string(&path)?)?;
    Ok(Outcome::Passed)
}

fn killed_recording_is_whole() -> Result<Outcome> {
    let scratch = Scratch::new("killed")?;
    let path = scratch.argument("killed.ndjson")?;
    let mut child = Command::new(grey_ebpf())
        .args(["watch", "--json", "--interval", "10ms", "--slow-ticks", "1"])
        .args(["--processes", "--record", &path])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let seen = stops(&child, &path);
    let killed = kill_process(Pid::from_child(&child), Signal::KILL);
    child.wait()?;
    killed?;
    seen?;
    let text = fs::read_to_string(&path)?;
    let lines = holds(&text)?.len();
    // How many depends on the machine's processes; the recording went on between the stops in any case.
    ensure!(lines > 10, "only {lines} lines");
    Ok(Outcome::Passed)
}

/// What a kill would leave: the file, each time the recorder is stopped at another moment.
fn stops(child: &Child, path: &str) -> Result<()> {
    let pid = Pid::from_child(child);
    let within = Duration::from_secs(20);
    let length = || fs::metadata(path).map_or(0, |file| file.len());
    wait_until("a recording", within, || Ok((length() > 0).then_some(())))?;
    let file = File::open(path)?;
    for stop in 0..100 {
        let before = length();
        if stop % 10 == 0 {
            wait_until("more of the recording", within, || {
                Ok((length() > before).then_some(()))
            })?;
        }
        kill_process(pid, Signal::STOP)?;
        wait_until("the stop", within, || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
            Ok(stat.contains(") T ").then_some(()))
        })?;
        let mut last = [0];
        let end = length().saturating_sub(1);
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut last, end)?;
        kill_process(pid, Signal::CONT)?;
        ensure!(
            last == *b"\n",
            "a torn line after {end} bytes, at stop {stop}"
        );
    }
    Ok(())
}

fn one_table() -> Result<Outcome> {
    if let Err(error) = cgroup_root() {
        return Outcome::skipped(format!("{error:#}"));
    }
    let (first, second) = (TempCgroup::new("table-a")?, TempCgroup::new("table-b")?);
    let _workload = Workload::start(&first)?;
    let ended = Invocation::new().run(&[
        "watch",
        "--once",
        "--cgroup",
        first.path(),
        "--cgroup",
        second.path(),
    ])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [head, columns, rows @ ..] = lines.as_slice() else {
        bail!("no table: {ended:?}");
    };
    ensure!(
        head.contains(" UTC  ") && head.contains(" cgroups  ") && head.contains("available of"),
        "{head}"
    );
    ensure!(
        columns.split_whitespace().collect::<Vec<_>>()
            == [
                "CGROUP", "KIND", "MEMORY", "ANON", "GROWTH/S", "FAULTS/S", "MAPPED/S", "STALL/S",
                "PSI", "LIMIT", "OF"
            ],
        "{columns}"
    );
    let mut paths = Vec::new();
    for row in rows {
        let words: Vec<&str> = row.split_whitespace().collect();
        ensure!(
            words.len() == 10 || words.len() == 11,
            "{} columns: {row}",
            words.len()
        );
        ensure!(words[1] == "cgroup", "another kind: {row}");
        // One look has nothing to compare with: a rate is unknown, never 0.
        ensure!(
            words[4..8].iter().all(|rate| *rate == "–"),
            "a rate of one look: {row}"
        );
        ensure!(
            row.chars().count() <= columns.chars().count(),
            "wider than its head: {row}"
        );
        paths.push(words[0]);
    }
    paths.sort_unstable();
    let mut wanted = [first.path(), second.path()];
    wanted.sort_unstable();
    ensure!(paths == wanted, "{paths:?} instead of {wanted:?}");
    Ok(Outcome::Passed)
}

fn plain_lines() -> Result<Outcome> {
    let ended = Invocation::new().run(&["watch", "--duration", "1s", "--interval", "200ms"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let heads = ended
        .stdout
        .lines()
        .filter(|line| line.starts_with("CGROUP "))
        .count();
    ensure!(heads >= 2, "{heads} tables in a second: {ended:?}");
    ensure!(
        !ended.stdout.contains('\u{1b}') && !ended.stdout.contains('{'),
        "neither control sequences nor JSON in plain lines: {}",
        ended.stdout
    );
    Ok(Outcome::Passed)
}
