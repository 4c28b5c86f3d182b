//! `replay --policy`: what a policy would have decided over a recording, with no machine to act on.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{SECOND, START, lines, replay, through_a_pipe};
use crate::harness::{Outcome, Trial};
use crate::invocation::{Ended, Scratch};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_replay_a_policy_decides_within_its_bounds", decides),
        Trial::new(
            "native_replay_the_same_recording_gives_the_same_decisions",
            deterministic,
        ),
        Trial::new("native_replay_nothing_is_decided_without_need", nothing),
        Trial::new("native_replay_a_policy_that_is_none_is_one_line", bad_calls),
    ]
}

const M: u64 = 1 << 20;
/// The machine runs short at this second.
const SHORT: u64 = 60;

/// Two services and a protected one on a machine of 1 GiB without swap, of which a tenth is available from a minute on.
fn trace() -> String {
    let mut text = String::new();
    for second in 0..180_u64 {
        let ts = grey_core::time::Timestamp(START + second as i64 * SECOND).to_string();
        let available = if second < SHORT { 600 * M } else { 100 * M };
        let mut line = |path: &str, mem: Value| {
            let line = json!({
                "ts": ts, "host": "n1", "cgroup": {"path": path}, "mem": mem,
                "reclaim": {"refault_total": 0}, "psi": {"some_us_total": 0},
            });
            text.push_str(&format!("{line}\n"));
        };
        line(
            "/",
            json!({"anon": 300 * M, "total": 1024 * M, "available": available, "swap_free": 0}),
        );
        for path in ["/app/one.service", "/app/two.service", "/app/kept.service"] {
            line(
                path,
                json!({"anon": 60 * M, "current": 260 * M, "file": 200 * M, "inactive_file": 150 * M}),
            );
        }
    }
    text
}

struct Files {
    scratch: Scratch,
    trace: String,
    config: String,
}

fn files(name: &str) -> Result<Files> {
    let scratch = Scratch::new(name)?;
    let trace = scratch.argument("trace.ndjson")?;
    fs::write(&trace, self::trace())?;
    let config = scratch.argument("config.toml")?;
    fs::write(
        &config,
        "[safety]\nprotect = [\"kept.service\"]\n[govern]\nfloor = \"100M\"\n\
         [govern.dynamic]\navailable_pct = 20\ninterval = \"10s\"\n\
         [govern.budget]\nbytes_per_s = \"2M\"\n[govern.emergency]\nenabled = false\n",
    )?;
    Ok(Files {
        scratch,
        trace,
        config,
    })
}

fn by(files: &Files, policy: &str, more: &[&str]) -> Result<Ended> {
    let args = [&files.trace, "--policy", policy, "--config", &files.config];
    let ended = replay(&[&args, more].concat())?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    Ok(ended)
}

fn decides() -> Result<Outcome> {
    let files = files("decides")?;
    let actions = lines(&by(&files, "dynamic", &["--json"])?)?;
    ensure!(actions.len() > 10, "{} decisions", actions.len());
    let mut spent: Vec<(i64, u64)> = Vec::new();
    for (seq, event) in actions.iter().enumerate() {
        let action = &event["action"];
        let path = event["cgroup"]["path"].as_str().unwrap_or_default();
        ensure!(
            event["type"] == "action"
                && event["seq"] == seq
                && event["host"] == "n1"
                && action["dry_run"] == true
                && action.get("id").is_none()
                && action["policy"] == "dynamic"
                && action["kind"] == "reclaim"
                && action["target"] == path
                && action["expected_harm"]
                    .as_f64()
                    .is_some_and(|harm| (0.0..1.0).contains(&harm)),
            "{event}"
        );
        ensure!(
            ["/app/one.service", "/app/two.service"].contains(&path),
            "protected: {event}"
        );
        let reason = action["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("available"), "{reason}");
        let ts: grey_core::time::Timestamp = event["ts"].as_str().context("no ts")?.parse()?;
        let second = (ts.0 - START) / SECOND;
        ensure!(second >= SHORT as i64, "before it was short: {event}");
        spent.push((second, action["planned_bytes"].as_u64().context("no size")?));
    }
    for (from, _) in &spent {
        let within = |second: &i64| (*from..from + 10).contains(second);
        let bytes: u64 = spent.iter().filter(|it| within(&it.0)).map(|it| it.1).sum();
        ensure!(
            bytes <= 20 * M,
            "{bytes} bytes within ten seconds of {from}"
        );
    }
    let text = by(&files, "dynamic", &[])?.stdout;
    for word in ["reclaim", "/app/one.service  dynamic: ", "\ndecisions: "] {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    Ok(Outcome::Passed)
}

fn deterministic() -> Result<Outcome> {
    let files = files("decisions")?;
    let want = by(&files, "dynamic", &["--json"])?.stdout;
    ensure!(!want.is_empty(), "no decisions");
    ensure!(
        by(&files, "dynamic", &["--json"])?.stdout == want,
        "another time"
    );
    // In pieces of other sizes.
    let args = [
        "-",
        "--policy",
        "dynamic",
        "--config",
        &files.config,
        "--json",
    ];
    let piped = through_a_pipe(Path::new(&files.trace), &args)?;
    ensure!(piped == want, "through a pipe");
    // In two files.
    let trace = trace();
    let lines: Vec<&str> = trace.split_inclusive('\n').collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let halves = [files.scratch.argument("a")?, files.scratch.argument("b")?];
    fs::write(&halves[0], first.concat())?;
    fs::write(&halves[1], second.concat())?;
    let ended = replay(&[
        &halves[1],
        &halves[0],
        "--policy",
        "dynamic",
        "--config",
        &files.config,
        "--json",
    ])?;
    ensure!(ended.stdout == want, "in two files: {ended:?}");
    Ok(Outcome::Passed)
}

fn nothing() -> Result<Outcome> {
    let files = files("nothing")?;
    let observed = by(&files, "observe", &[])?.stdout;
    ensure!(observed.contains("decisions: 0; nothing in"), "{observed}");
    // Without figures of the machine there is no telling whether it is short.
    let parts: String = trace()
        .split_inclusive('\n')
        .filter(|line| !line.contains("\"path\":\"/\""))
        .collect();
    let path = files.scratch.argument("parts.ndjson")?;
    fs::write(&path, parts)?;
    let ended = replay(&[&path, "--policy", "dynamic", "--config", &files.config])?;
    ensure!(
        ended.code == Some(0)
            && ended
                .stdout
                .contains("decisions: 0; there are no figures of the machine"),
        "{ended:?}"
    );
    Ok(Outcome::Passed)
}

fn bad_calls() -> Result<Outcome> {
    let files = files("badpolicy")?;
    let broken = files.scratch.argument("broken.toml")?;
    fs::write(&broken, "[govern]\nfloor = \"lots\"\n")?;
    for (args, why) in [
        (
            vec![files.trace.as_str(), "--policy", "greedy"],
            "known are observe",
        ),
        (
            vec![
                files.trace.as_str(),
                "--policy",
                "dynamic",
                "--config",
                "/nonexistent.toml",
            ],
            "/nonexistent.toml",
        ),
        (
            vec![
                files.trace.as_str(),
                "--policy",
                "dynamic",
                "--config",
                &broken,
            ],
            "broken.toml:2: govern.floor",
        ),
        (
            vec![files.trace.as_str(), "--config", &files.config],
            "--policy",
        ),
    ] {
        let ended = replay(&args)?;
        ensure!(
            ended.code == Some(2) && ended.stdout.is_empty() && ended.stderr.contains(why),
            "{args:?}: {ended:?}"
        );
    }
    Ok(Outcome::Passed)
}
