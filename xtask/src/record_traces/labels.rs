//! From what a guest handed over to the committed recording and its labels: times come from what the programs said and
//! from the recorded OOM kills, never from what was planned.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::scenario::{PARENT, Run, Series};

/// What is known of a run once it is over.
pub(super) struct Taken {
    pub(super) kernel: String,
    pub(super) packages: Vec<(String, String)>,
}

/// Packages whose versions matter to a reader.
const PROGRAMS: [&str; 5] = [
    "redis-server",
    "python3.11-minimal",
    "nodejs",
    "openjdk-17-jre-headless",
    "libc6",
];

/// Writes the recording and its labels and says what came out.
pub(super) fn write(run: &Run, taken: &Taken, scratch: &Path, into: &Path) -> Result<String> {
    let file = format!("{}.ndjson.gz", run.name);
    let kept = keep(&scratch.join(&file), &into.join(&file))?;
    let mut labels = read_labels(&into.join("labels.json"))?;
    labels.retain(|label| label["file"] != file.as_str());
    for series in &run.series {
        let said = fs::read_to_string(scratch.join("said").join(&series.name)).unwrap_or_default();
        labels.push(label(series, &file, &said, &kept, taken)?);
    }
    let text = serde_json::to_string_pretty(&labels).context("write the labels as JSON")?;
    fs::write(into.join("labels.json"), text + "\n").context("write the labels")?;
    Ok(format!(
        "{} series, {} lines, {} bytes",
        run.series.len(),
        kept.lines,
        fs::metadata(into.join(&file))?.len()
    ))
}

fn read_labels(path: &Path) -> Result<Vec<Value>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// What was seen while the recording was copied.
struct Kept {
    lines: usize,
    /// First OOM kill of each cgroup.
    killed: BTreeMap<String, String>,
    /// Level of each cgroup, anon and swap, in time.
    levels: BTreeMap<String, Vec<Level>>,
}

/// Anonymous bytes and swapped-out ones at a time, µs.
type Level = (i64, f64);

/// Copies what a detector may go by, compressed as well as it can be. The verdicts of the detector that recorded it are
/// left out: one that is scored must not read another's answers.
fn keep(from: &Path, to: &Path) -> Result<Kept> {
    let source = fs::File::open(from).with_context(|| format!("open {}", from.display()))?;
    let target = fs::File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut gzip = GzBuilder::new().write(target, Compression::best());
    let mut kept = Kept {
        lines: 0,
        killed: BTreeMap::new(),
        levels: BTreeMap::new(),
    };
    for line in BufReader::new(MultiGzDecoder::new(source)).lines() {
        let line = line.with_context(|| format!("read {}", from.display()))?;
        let event: Value = serde_json::from_str(&line).context("a recorded line")?;
        let path = event["cgroup"]["path"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        match event["type"].as_str() {
            Some("sample") => {
                let ts = event["ts"].as_str().context("a sample without time")?;
                let ts: Timestamp = ts.parse().with_context(|| format!("ts {ts}"))?;
                let bytes = |field: &str| event["mem"][field].as_f64().unwrap_or(0.0);
                let level = (ts.as_microsecond(), bytes("anon") + bytes("swap"));
                kept.levels.entry(path).or_default().push(level);
            }
            Some("oom") => {
                let ts = event["ts"].as_str().context("an OOM kill without time")?;
                kept.killed.entry(path).or_insert_with(|| ts.to_owned());
            }
            Some("process" | "growth") => {}
            _ => continue,
        }
        writeln!(gzip, "{line}").context("write the recording")?;
        kept.lines += 1;
    }
    gzip.finish().context("finish the recording")?;
    Ok(kept)
}

fn label(series: &Series, file: &str, said: &str, kept: &Kept, taken: &Taken) -> Result<Value> {
    let cgroup = format!("{PARENT}/{}", series.name);
    let levels = kept.levels.get(&cgroup).map_or(&[][..], Vec::as_slice);
    ensure!(
        levels.len() > 1,
        "{cgroup} has {} samples; the program said: {said}",
        levels.len()
    );
    let onset = said
        .lines()
        .find_map(|line| line.strip_prefix("onset "))
        .map(timestamp)
        .transpose()?;
    ensure!(
        series.leak == onset.is_some(),
        "{}: a leak tells its onset, and nothing else does; it said: {said}",
        series.name
    );
    let max = series.max.as_deref().map(bytes).transpose()?;
    let limit_hit = kept.killed.get(&cgroup).cloned().or_else(|| {
        let onset = onset?;
        at_limit(levels, onset, max?).map(text)
    });
    let versions: BTreeMap<&str, &str> = taken
        .packages
        .iter()
        .filter(|(name, _)| PROGRAMS.contains(&name.as_str()))
        .map(|(name, version)| (name.as_str(), version.as_str()))
        .collect();
    Ok(json!({
        "file": file,
        "cgroup": cgroup,
        "class": series.class,
        "leak": series.leak,
        "onset": onset.map(text),
        "limit_hit": limit_hit,
        "killed": kept.killed.contains_key(&cgroup),
        "causes": series.causes,
        "program": series.program,
        "description": series.description,
        "notes": notes(series, taken),
        "samples": levels.len(),
        "kernel": taken.kernel,
        "versions": versions,
    }))
}

/// How it was run.
fn notes(series: &Series, taken: &Taken) -> String {
    let mut notes = format!("Linux {}", taken.kernel);
    if let Some(max) = &series.max {
        notes.push_str(&format!("; memory.max {max}"));
    }
    notes.push_str(&format!("; {}", series.command));
    for more in [&series.beside, &series.notes].into_iter().flatten() {
        notes.push_str(&format!("; {more}"));
    }
    notes
}

/// When a leak would be at `limit` if it went on as it did from its onset to the last sample.
fn at_limit(levels: &[Level], onset: Timestamp, limit: f64) -> Option<Timestamp> {
    let onset = onset.as_microsecond();
    // One that leaks from the very begin had nothing before.
    let before = levels.iter().rfind(|(at, _)| *at <= onset);
    let (from, base) = before.copied().unwrap_or((onset, 0.0));
    let (to, level) = *levels.last()?;
    let rate = (level - base) / (to - from.max(onset)) as f64;
    if rate <= 0.0 {
        return None;
    }
    Timestamp::from_microsecond(to + ((limit - level) / rate).round() as i64).ok()
}

/// `512M`, as memory.max takes it.
fn bytes(text: &str) -> Result<f64> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, text.as_bytes()[number.len()]),
        None => (text, b'1'),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let number: f64 = number.parse().with_context(|| format!("size {text}"))?;
    Ok(number * f64::from(1u32 << shift))
}

/// Unix seconds.
fn timestamp(text: &str) -> Result<Timestamp> {
    let seconds: f64 = text
        .trim()
        .parse()
        .with_context(|| format!("onset {text}"))?;
    Timestamp::from_millisecond((seconds * 1e3).round() as i64).context("onset out of range")
}

/// As the events write times.
fn text(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_read_like_the_events() {
        let stamp = timestamp("1795253755.621").unwrap();
        assert_eq!(text(stamp), "2026-11-21T09:35:55.621Z");
        assert!(timestamp("soon").is_err());
    }

    #[test]
    fn a_leak_that_was_not_killed_would_have_hit_its_limit_at_its_rate() {
        let levels = [(0, 10.0), (1_000_000, 10.0), (3_000_000, 30.0)];
        let at = |us| Timestamp::from_microsecond(us).unwrap();
        assert_eq!(at_limit(&levels, at(1_000_000), 50.0), Some(at(5_000_000)));
        assert_eq!(at_limit(&levels[..2], at(0), 50.0), None);
        let from_nothing = at_limit(&levels[2..], at(0), 50.0);
        assert_eq!(from_nothing, Some(at(5_000_000)));
    }

    #[test]
    fn limits_read_as_the_kernel_reads_them() {
        assert_eq!(bytes("512M").unwrap(), 536_870_912.0);
        assert_eq!(bytes("4096").unwrap(), 4096.0);
        assert!(bytes("much").is_err());
    }
}
