//! How a recording ends: by a signal, by SIGKILL, on a full disk. What was written stays readable.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::{lines, replay, through_a_pipe, trace, whole_gzip};
use crate::harness::{Observer, Outcome, Trial, cgroup_root, grey_ebpf, wait_until};
use crate::invocation::Scratch;

const SOON: Duration = Duration::from_secs(30);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_replay_a_signal_ends_a_recording_well", by_signal),
        Trial::new(
            "native_replay_after_sigkill_all_but_the_end_is_there",
            by_kill,
        ),
        Trial::new(
            "native_replay_a_full_disk_is_one_line_and_leaves_what_fitted",
            full_disk,
        ),
        Trial::new("native_replay_stdin_is_replayed_as_it_comes", from_stdin),
    ]
}

/// A recording that has written something. A quiet machine writes little: everything is read at every tick, and a
/// few ticks suffice.
fn recording(path: &str) -> Result<Observer> {
    let observer = Observer::start(&[
        "record",
        path,
        "--interval",
        "50ms",
        "--slow-ticks",
        "1",
        "--processes",
    ])?;
    wait_until("a recording of some size", SOON, || {
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        Ok((size > 3000).then_some(()))
    })?;
    Ok(observer)
}

fn by_signal() -> Result<Outcome> {
    if cgroup_root().is_err() {
        return Outcome::skipped("no cgroup v2 tree");
    }
    let scratch = Scratch::new("signal")?;
    for (signal, name) in [
        (Signal::INT, "int.gz"),
        (Signal::TERM, "term.gz"),
        (Signal::HUP, "hup.gz"),
    ] {
        let path = scratch.argument(name)?;
        let ended = recording(&path)?.stop(signal, SOON)?;
        ensure!(ended.code() == Some(0), "{signal:?}: {ended:?}");
        let text = whole_gzip(&path)?;
        let last: Value = serde_json::from_str(text.lines().last().context("empty")?)?;
        ensure!(
            text.ends_with('\n') && last["type"] == "health",
            "the last line: {last}"
        );
        let told = format!(": {} events of ", text.lines().count());
        let summary = ended.stderr.replace(',', "");
        ensure!(summary.contains(&told), "{told}: {summary}");
        let replayed = replay(&[&path])?;
        ensure!(
            replayed.code == Some(0) && replayed.stderr.is_empty(),
            "{replayed:?}"
        );
    }
    Ok(Outcome::Passed)
}

fn by_kill() -> Result<Outcome> {
    if cgroup_root().is_err() {
        return Outcome::skipped("no cgroup v2 tree");
    }
    let scratch = Scratch::new("kill")?;
    for name in ["x.ndjson.gz", "x.ndjson"] {
        let path = scratch.argument(name)?;
        let ended = recording(&path)?.stop(Signal::KILL, SOON)?;
        ensure!(ended.code().is_none(), "{ended:?}");
        let replayed = replay(&[&path])?;
        ensure!(replayed.code == Some(0), "{replayed:?}");
        ensure!(replayed.stdout.contains(" sample"), "{replayed:?}");
        if name.ends_with(".gz") {
            ensure!(
                replayed.stderr.contains("gzip is cut off after"),
                "{replayed:?}"
            );
            ensure!(
                !replayed.stderr.contains("bad line"),
                "a line was torn: {replayed:?}"
            );
            ensure!(whole_gzip(&path).is_err(), "SIGKILL left a whole gzip");
        } else {
            ensure!(replayed.stderr.is_empty(), "{replayed:?}");
        }
    }
    Ok(Outcome::Passed)
}

/// A limit on the size of files stands for a full disk: nothing may be mounted here.
fn full_disk() -> Result<Outcome> {
    if cgroup_root().is_err() {
        return Outcome::skipped("no cgroup v2 tree");
    }
    const ROOM: u64 = 16 << 10;
    let scratch = Scratch::new("full")?;
    for name in ["x.ndjson.gz", "x.ndjson"] {
        let path = scratch.argument(name)?;
        let mut command = Command::new(grey_ebpf());
        command
            .args([
                "record",
                &path,
                "--interval",
                "20ms",
                "--slow-ticks",
                "1",
                "--processes",
                "--duration",
                "25s",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let limit = || {
            use rustix::process::{Resource, Rlimit, setrlimit};
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            setrlimit(
                Resource::Fsize,
                Rlimit {
                    current: Some(ROOM),
                    maximum: Some(ROOM),
                },
            )?;
            // Ignored, so that the write fails instead.
            // SAFETY: setting a signal's disposition to "ignore" runs no code of ours.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls and does not allocate.
        unsafe { command.pre_exec(limit) };
        let output = command.output()?;
        let stderr = String::from_utf8(output.stderr)?;
        let last = stderr.lines().last().unwrap_or_default();
        ensure!(
            output.status.code() == Some(1),
            "{}: {stderr}",
            output.status
        );
        ensure!(
            last.starts_with(&format!("grey-ebpf: {path}: ")) && last.contains("make room there"),
            "{stderr}"
        );
        ensure!(fs::metadata(&path)?.len() <= ROOM, "the limit did not hold");
        let replayed = replay(&[&path])?;
        ensure!(
            replayed.code == Some(0) && replayed.stdout.contains(" sample"),
            "{replayed:?}"
        );
    }
    Ok(Outcome::Passed)
}

fn from_stdin() -> Result<Outcome> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let scratch = Scratch::new("stdin")?;
    let path = scratch.argument("x.ndjson")?;
    let trace = trace();
    fs::write(&path, trace.concat())?;
    let want = replay(&[&path, "--json"])?;
    ensure!(!lines(&want)?.is_empty(), "no verdict");
    let got = through_a_pipe(Path::new(&path), &["-", "--json"])?;
    ensure!(got == want.stdout, "{got}\nand not\n{}", want.stdout);
    // A verdict comes when it is reached, and not when the input ends.
    let mut child = Command::new(grey_ebpf())
        .args(["replay", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let stdout = child.stdout.take().context("stdout")?;
    let writer = std::thread::spawn(move || {
        let written = stdin.write_all(trace.concat().as_bytes());
        (written, stdin)
    });
    let mut first = String::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let result = BufReader::new(stdout).read_line(&mut first);
        let _ = sender.send(result.map(|_| first));
    });
    let line = receiver.recv_timeout(SOON);
    let open = writer.join();
    let _ = child.kill();
    let _ = child.wait();
    let line = line.context("no verdict while the input is open")??;
    ensure!(
        open.is_ok() && Some(line.trim_end()) == want.stdout.lines().next(),
        "{line}"
    );
    Ok(Outcome::Passed)
}
