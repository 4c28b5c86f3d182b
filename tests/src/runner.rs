//! Runs a list of tests one at a time, each in a process of its own, so that a crash or a hang costs one test.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::harness::{Outcome, Trial, wait_until};
use crate::protocol::Results;

/// The exit code of a skipped test, as automake has it; the reason is the last line of its output.
const SKIPPED: u8 = 77;
/// Enough of a failed test's output to see why.
const OUTPUT_TAIL: usize = 8 * 1024;

/// Runs the tests that the arguments select (libtest's syntax) and sends a record of each.
pub(crate) fn run(
    suite: &'static str,
    trials: Vec<Trial>,
    args: impl Iterator<Item = String>,
) -> ExitCode {
    let mut arguments =
        Arguments::from_iter(std::iter::once(format!("grey-tests {suite}")).chain(args));
    // Tests measure counters of one kernel: side by side they would disturb each other.
    arguments.test_threads = Some(1);
    let list = trials
        .into_iter()
        .map(|trial| {
            libtest_mimic::Trial::ignorable_test(trial.name, move || supervise(suite, trial))
                .with_kind(suite)
        })
        .collect::<Vec<_>>();
    let count = list
        .iter()
        .filter(|trial| !arguments.is_filtered_out(trial))
        .count();
    Results::from_env().send(&json!({"event": "plan", "suite": suite, "tests": count}));
    libtest_mimic::run(&arguments, list).exit_code()
}

/// Runs one test in this process: what the runner starts, and what a person runs under a debugger.
pub(crate) fn run_one(mut trials: impl Iterator<Item = Trial>, name: Option<String>) -> ExitCode {
    let Some(trial) = trials.find(|trial| Some(trial.name) == name.as_deref()) else {
        eprintln!("no test of the name {name:?}");
        return ExitCode::from(2);
    };
    match trial.perform() {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Skipped(reason)) => {
            println!("{reason}");
            ExitCode::from(SKIPPED)
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(suite: &str, trial: Trial) -> Result<Completion, Failed> {
    let results = Results::from_env();
    results.send(&json!({
        "event": "start", "suite": suite, "test": trial.name, "deadline": trial.deadline.as_secs()
    }));
    let start = Instant::now();
    let outcome = in_child(trial);
    let seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    let mut record =
        json!({"event": "result", "suite": suite, "test": trial.name, "seconds": seconds});
    let mut tell = |outcome: &str, detail: Option<&str>| {
        record["outcome"] = outcome.into();
        if let Some(detail) = detail {
            record["detail"] = Value::from(detail);
        }
        results.send(&record);
    };
    match outcome {
        Ok(Outcome::Passed) => {
            tell("passed", None);
            Ok(Completion::Completed)
        }
        Ok(Outcome::Skipped(reason)) => {
            tell("skipped", Some(&reason));
            Ok(Completion::ignored_with(reason))
        }
        Err(error) => {
            let detail = format!("{error:#}");
            tell("failed", Some(&detail));
            Err(Failed::from(detail))
        }
    }
}

fn in_child(trial: Trial) -> Result<Outcome> {
    // A file and not a pipe: a stray process that keeps it open cannot hold us up.
    let path = std::env::temp_dir().join(format!("grey-tests-{}.out", std::process::id()));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["one", trial.name])
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("share the output file")?)
        .stderr(file)
        .process_group(0);
    let mut child = command.spawn().context("start the test")?;
    let group = Pid::from_child(&child);
    let ended = wait_until("the end of the test", trial.deadline, || {
        child.try_wait().context("wait for the test")
    });
    // Also after a regular end: what a test leaves running must not disturb the next.
    let _ = kill_process_group(group, Signal::KILL);
    if ended.is_err() {
        let _ = child.wait();
    }
    let bytes = std::fs::read(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    let output =
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(OUTPUT_TAIL)..]).into_owned();
    judge(ended.ok(), &output, trial.deadline)
}

fn judge(status: Option<ExitStatus>, output: &str, deadline: Duration) -> Result<Outcome> {
    let output = output.trim_end();
    let Some(status) = status else {
        bail!("killed after its deadline of {deadline:?}\n{output}");
    };
    match status.code() {
        Some(0) => Ok(Outcome::Passed),
        Some(code) if code == i32::from(SKIPPED) => Ok(Outcome::Skipped(
            output
                .lines()
                .last()
                .unwrap_or("no reason given")
                .to_owned(),
        )),
        Some(1) => bail!("{output}"),
        Some(code) => bail!("exit code {code}\n{output}"),
        None => bail!("ended by signal {}\n{output}", status.signal().unwrap_or(0)),
    }
}
