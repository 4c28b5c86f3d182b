//! `record` and `replay`: what is recorded is replayed, whatever happened to the file in between.

mod ends;
mod policy;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::harness::{Outcome, Trial, cgroup_root, grey_ebpf};
use crate::invocation::{Ended, Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::new("native_replay_a_recording_is_replayed", recorded),
        Trial::new(
            "native_replay_a_leak_is_told_with_the_times_of_the_recording",
            leak,
        ),
        Trial::new(
            "native_replay_the_same_input_gives_the_same_bytes",
            deterministic,
        ),
        Trial::new(
            "native_replay_damaged_input_is_used_as_far_as_it_goes",
            damaged,
        ),
        Trial::new(
            "native_replay_only_the_cgroups_asked_for_are_told",
            asked_for,
        ),
        Trial::new("native_replay_a_bad_call_is_one_line", bad_calls),
    ];
    trials.extend(ends::trials());
    trials.extend(policy::trials());
    trials
}

fn replay(args: &[&str]) -> Result<Ended> {
    Invocation::new().run(&[&["replay"], args].concat())
}

/// The lines of stdout as JSON.
fn lines(ended: &Ended) -> Result<Vec<Value>> {
    ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes)?;
    Ok(out.finish()?)
}

const SECOND: i64 = 1_000_000;
/// 2026-11-21T05:00:00Z
const START: i64 = 1_795_237_200 * SECOND;

/// `/leak` takes 4 MiB each second after a calm minute and reaches its limit of 1 GiB; `/calm` goes up and down.
fn trace() -> Vec<String> {
    let mut lines = Vec::new();
    for second in 0..300_u64 {
        let ts = grey_core::time::Timestamp(START + second as i64 * SECOND).to_string();
        let noise = second.wrapping_mul(2_654_435_761) % (1 << 20);
        let leaked = second.saturating_sub(60) << 22;
        for (path, anon, max) in [
            (
                "/calm",
                (30 << 20) + ((second % 20) << 18) + noise,
                Value::Null,
            ),
            ("/leak", (40 << 20) + leaked + noise, json!(1_u64 << 30)),
        ] {
            let line = json!({"ts": ts, "host": "n1", "cgroup": {"path": path}, "mem": {"anon": anon, "max": max}});
            lines.push(format!("{line}\n"));
        }
    }
    lines
}

fn recorded() -> Result<Outcome> {
    if cgroup_root().is_err() {
        return Outcome::skipped("no cgroup v2 tree");
    }
    let scratch = Scratch::new("recorded")?;
    for (name, gzipped) in [("a.ndjson", false), ("a.ndjson.gz", true)] {
        let path = scratch.argument(name)?;
        let ended = Invocation::new().run(&[
            "record",
            &path,
            "--duration",
            "2s",
            "--interval",
            "100ms",
            "--processes",
        ])?;
        ensure!(
            ended.code == Some(0) && ended.stdout.is_empty(),
            "{ended:?}"
        );
        let summary = ended.stderr.lines().last().unwrap_or_default();
        let summary = summary.replace(',', "");
        let bytes = fs::read(&path)?;
        ensure!(bytes.starts_with(&[0x1f, 0x8b]) == gzipped, "gzip by name");
        let text = if gzipped {
            whole_gzip(&path)?
        } else {
            String::from_utf8(bytes)?
        };
        let events: Vec<Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        for kind in ["sample", "process", "health"] {
            ensure!(
                events.iter().any(|event| event["type"] == kind),
                "no {kind}"
            );
        }
        let told = format!(": {} events of ", events.len());
        ensure!(
            summary.contains(&told) && summary.contains(name) && summary.contains(" bytes in "),
            "{} events, but: {summary}",
            events.len()
        );
        let ended = replay(&[&path])?;
        ensure!(
            ended.code == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        let samples = events
            .iter()
            .filter(|event| event["type"] == "sample")
            .count();
        let of =
            |count: usize| format!("; {count} sample{} of ", if count == 1 { "" } else { "s" });
        ensure!(
            ended.stdout.replace(',', "").contains(&of(samples)),
            "{samples} samples: {}",
            ended.stdout
        );
        let ended = replay(&[&path, "--json"])?;
        ensure!(
            ended.code == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        for line in lines(&ended)? {
            ensure!(line["type"] == "verdict", "{line}");
        }
    }
    Ok(Outcome::Passed)
}

/// What gzip itself reads, its trailer with length and checksum included.
fn whole_gzip(path: &str) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(path)?)
        .read_to_string(&mut text)
        .with_context(|| format!("{path} is no whole gzip"))?;
    Ok(text)
}

fn leak() -> Result<Outcome> {
    let scratch = Scratch::new("leak")?;
    let path = scratch.argument("leak.ndjson.gz")?;
    fs::write(&path, gzip(trace().concat().as_bytes())?)?;
    let ended = replay(&[&path, "--json"])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let verdicts = lines(&ended)?;
    for (seq, verdict) in verdicts.iter().enumerate() {
        ensure!(
            verdict["schema"] == "grey-ebpf/1"
                && verdict["type"] == "verdict"
                && verdict["seq"] == seq
                && verdict["host"] == "n1"
                && verdict["cgroup"]["path"] == "/leak",
            "{verdict}"
        );
    }
    let confirmed = verdicts
        .iter()
        .find(|verdict| verdict["verdict"]["state"] == "confirmed")
        .with_context(|| format!("no confirmed verdict: {}", ended.stdout))?;
    ensure!(confirmed["verdict"]["cause"] == "leak", "{confirmed}");
    let ts = confirmed["ts"].as_str().unwrap_or_default();
    ensure!(
        ("2026-11-21T05:01:10.000Z".."2026-11-21T05:05:00.000Z").contains(&ts),
        "told at {ts}"
    );
    let rate = confirmed["verdict"]["rate_bps"].as_f64().context("rate")?;
    ensure!(
        (rate / f64::from(4 << 20) - 1.0).abs() < 0.1,
        "{rate} bytes/s"
    );
    let text = replay(&[&path])?.stdout;
    for word in [
        "confirmed  leak",
        "/leak  +4.0M/s",
        "\n→",
        "600 samples of 2 cgroups on n1",
    ] {
        let word = word.replace('\n', "           ");
        ensure!(text.contains(&word), "no {word:?} in:\n{text}");
    }
    ensure!(
        !text.contains('\u{1b}') && !text.contains("/calm"),
        "{text}"
    );
    Ok(Outcome::Passed)
}

fn deterministic() -> Result<Outcome> {
    let scratch = Scratch::new("same")?;
    let trace = trace();
    let whole = scratch.argument("whole.ndjson")?;
    fs::write(&whole, trace.concat())?;
    let want = replay(&[&whole, "--json"])?;
    ensure!(want.code == Some(0) && !want.stdout.is_empty(), "{want:?}");
    let (first, second) = trace.split_at(trace.len() / 2);
    let halves = [
        scratch.argument("first.ndjson")?,
        scratch.argument("second.ndjson.gz")?,
    ];
    fs::write(&halves[0], first.concat())?;
    fs::write(&halves[1], gzip(second.concat().as_bytes())?)?;
    // Out of order by up to five seconds, each line twice.
    let shuffled = scratch.argument("shuffled.ndjson")?;
    let mut lines: Vec<&String> = Vec::new();
    for chunk in trace.chunks(10) {
        lines.extend(chunk.iter().rev());
        lines.extend(chunk);
    }
    fs::write(
        &shuffled,
        lines.into_iter().map(String::as_str).collect::<String>(),
    )?;
    let runs: [&[&str]; 4] = [
        &[&whole],
        &[&halves[0], &halves[1]],
        &[&halves[1], &halves[0]],
        &[&shuffled],
    ];
    for files in runs {
        let ended = replay(&[files, &["--json"]].concat())?;
        ensure!(ended.code == Some(0), "{ended:?}");
        ensure!(
            ended.stdout == want.stdout,
            "{files:?}: {}\nand not\n{}",
            ended.stdout,
            want.stdout
        );
    }
    let ended = replay(&[&shuffled, "--reorder", "1s"])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.contains("too late for the window of 1s"),
        "{ended:?}"
    );
    Ok(Outcome::Passed)
}

fn damaged() -> Result<Outcome> {
    let scratch = Scratch::new("damaged")?;
    let trace = trace();
    let path = scratch.argument("x")?;
    let count = trace.len();
    let check = |bytes: &[u8], least: usize, says: &[&str]| -> Result<()> {
        fs::write(&path, bytes)?;
        let ended = replay(&[&path])?;
        ensure!(
            ended.code == Some(0) && ended.stderr.lines().count() == 1,
            "{ended:?}"
        );
        for word in says {
            ensure!(ended.stderr.contains(word), "no {word:?}: {}", ended.stderr);
        }
        let summary = ended
            .stdout
            .lines()
            .find(|line| line.contains(" samples of "));
        let samples: usize = summary
            .and_then(|line| {
                line.split("; ")
                    .nth(1)?
                    .split(' ')
                    .next()?
                    .replace(',', "")
                    .parse()
                    .ok()
            })
            .with_context(|| ended.stdout.clone())?;
        ensure!(
            samples >= least && samples <= count,
            "{samples} samples, not {least}"
        );
        Ok(())
    };
    let text = trace.concat();
    let zipped = gzip(text.as_bytes())?;
    check(
        &zipped[..zipped.len() * 2 / 3],
        count / 2,
        &["gzip is cut off after"],
    )?;
    check(
        &zipped[..zipped.len() - 4],
        count,
        &["gzip is cut off after 600 lines"],
    )?;
    let mut broken = zipped.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 32].fill(0xff);
    broken.extend(gzip(trace[..10].concat().as_bytes())?);
    check(&broken, count / 3, &["gzip is damaged after"])?;
    // Members one after another are ordinary.
    let two = [
        gzip(trace[..100].concat().as_bytes())?,
        gzip(trace[100..].concat().as_bytes())?,
    ]
    .concat();
    fs::write(&path, two)?;
    let ended = replay(&[&path])?;
    ensure!(
        ended.stderr.is_empty() && ended.stdout.contains("; 600 samples"),
        "{ended:?}"
    );
    let bad: &[(&[u8], &str)] = &[
        (b"nonsense\n", "not JSON"),
        (b"{\"ts\":\"\xff\"}\n", "not UTF-8"),
        (b"\0\0\0\0\0\0\n", "not JSON"),
        (
            b"{\"type\":\"sample\",\"mem\":{\"anon\":NaN}}\n",
            "not JSON",
        ),
        (b"{\"mem\":{\"anon\":1}}\n", "no `ts`"),
    ];
    for (line, why) in bad {
        let mut bytes = trace[0].clone().into_bytes();
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(trace[1..].concat().as_bytes());
        check(
            &bytes,
            count,
            &["1 bad line skipped", &format!("{path}:2: {why}")],
        )?;
    }
    let long = [
        vec![b'x'; 3 << 20],
        b"\n".to_vec(),
        text.clone().into_bytes(),
    ]
    .concat();
    check(
        &long,
        count,
        &["1 bad line skipped", ":1: longer than 1 MiB"],
    )?;
    check(
        &text.as_bytes()[..text.len() - 20],
        count - 1,
        &["1 bad line skipped", ":600: not JSON"],
    )?;
    // All of this is no damage.
    let mut harmless = b"\xef\xbb\xbf".to_vec();
    harmless.extend(
        text.replace('\n', "\r\n\r\n")
            .replace("{\"host\"", "{\"new\":[{}],\"host\"")
            .into_bytes(),
    );
    harmless.extend(b"{\"type\":\"of the future\"}\n{\"type\":\"verdict\",\"verdict\":{\"state\":\"confirmed\"}}\n");
    fs::write(&path, harmless)?;
    let ended = replay(&[&path])?;
    ensure!(
        ended.stderr.is_empty() && ended.stdout.contains("; 600 samples"),
        "{ended:?}"
    );
    Ok(Outcome::Passed)
}

fn asked_for() -> Result<Outcome> {
    let scratch = Scratch::new("asked")?;
    let path = scratch.argument("x.ndjson")?;
    fs::write(&path, trace().concat())?;
    for (pattern, told) in [
        ("/leak", true),
        ("leak", true),
        ("/l*", true),
        ("/calm", false),
    ] {
        let ended = replay(&[&path, "--json", "--cgroup", pattern])?;
        ensure!(ended.code == Some(0), "{ended:?}");
        ensure!(ended.stdout.is_empty() != told, "{pattern}: {ended:?}");
    }
    let ended = replay(&[&path, "--json", "--cgroup", "/none"])?;
    ended.is_one_line(2, &["--cgroup", "no cgroup '/none'", "2 recorded"])?;
    Ok(Outcome::Passed)
}

fn bad_calls() -> Result<Outcome> {
    let scratch = Scratch::new("calls")?;
    let folder = scratch.argument("")?;
    let missing = scratch.argument("none.ndjson")?;
    let text = scratch.argument("text")?;
    fs::write(&text, "no recording\nat all\n")?;
    let health = scratch.argument("health")?;
    fs::write(&health, "{\"type\":\"health\"}\n")?;
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["replay"], 2, &["<FILE>"]),
        (
            &["replay", &missing, "--reorder", "5"],
            2,
            &["--reorder", "5s"],
        ),
        (
            &["replay", &missing, "--cgroup", "["],
            2,
            &["--cgroup", "unclosed"],
        ),
        (
            &["replay", &missing, "--processes", "maybe"],
            2,
            &["--processes", "off"],
        ),
        (
            &["replay", &missing],
            1,
            &[&missing, "No such file", "check the name"],
        ),
        (&["replay", &folder], 1, &[&folder, "directory"]),
        (
            &["replay", &text],
            1,
            &[
                &text,
                "no sample among 2 lines",
                "2 bad lines",
                "record FILE",
            ],
        ),
        (&["replay", &health], 1, &["no sample among 1 line"]),
        (&["replay", "/dev/null"], 1, &["/dev/null", "empty"]),
        (&["replay", "-"], 1, &["stdin", "empty"]),
        (&["record"], 2, &["<FILE>"]),
        (&["record", "-"], 2, &["watch --json"]),
        (
            &["record", &missing, "--interval", "1us"],
            2,
            &["--interval", "10ms"],
        ),
        (
            &["record", &missing, "--cgroup", "/grey-none"],
            2,
            &["/grey-none", "--allow-missing"],
        ),
        (&["record", &folder], 1, &[&folder, "directory"]),
    ];
    for (args, code, says) in cases {
        Invocation::new()
            .run(args)?
            .is_one_line(*code, says)
            .with_context(|| args.join(" "))?;
    }
    for stdout in ["/dev/full"] {
        let path = scratch.argument("x.ndjson")?;
        fs::write(&path, trace().concat())?;
        for json in [&["replay", &path, "--json"][..], &["replay", &path]] {
            let full = fs::File::options().write(true).open(stdout)?;
            Invocation::new()
                .stdout(full)
                .run(json)?
                .is_one_line(1, &["stdout", "No space"])?;
            let (reader, writer) = std::io::pipe()?;
            drop(reader);
            let ended = Invocation::new().stdout(writer).run(json)?;
            ensure!(
                ended.code == Some(0) && ended.stderr.is_empty(),
                "{ended:?}"
            );
        }
    }
    Ok(Outcome::Passed)
}

/// Runs `replay ARGS` with a file as its stdin by way of a pipe.
fn through_a_pipe(path: &Path, args: &[&str]) -> Result<String> {
    let mut child = Command::new(grey_ebpf())
        .arg("replay")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let bytes = fs::read(path)?;
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer
        .join()
        .ok()
        .context("the writer panicked")?
        .context("write to replay")?;
    ensure!(output.status.success(), "replay -: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
