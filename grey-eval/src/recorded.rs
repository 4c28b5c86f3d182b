//! Series recorded from real programs: files of events and a list of labels. data/README.md describes the format.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;
use grey_core::detect::{Detector, Point};
use grey_core::event::{Body, Cause, Event, Memory};
use grey_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::baseline;
use crate::generate::CLASSES;
use crate::judge::{self, Listener, Said};
use crate::score::{Outcome, score};
use crate::stats::quantile;
use crate::trace::{Kind, Trace, Truth};

/// Recorded caches that fill evenly up to a cap nobody outside knows.
const EVEN_FILL: &str = "even-fill";

/// A right answer of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Saying nothing.
    Normal,
    /// This cause, and so on.
    Leak,
    /// See [`Cause`].
    Retention,
    /// See [`Cause`].
    Cache,
    /// See [`Cause`].
    Reservation,
    /// See [`Cause`].
    Warmup,
    /// See [`Cause`].
    Load,
}

impl Answer {
    fn cause(self) -> Option<Cause> {
        Some(match self {
            Answer::Normal => return None,
            Answer::Leak => Cause::Leak,
            Answer::Retention => Cause::Retention,
            Answer::Cache => Cause::Cache,
            Answer::Reservation => Cause::Reservation,
            Answer::Warmup => Cause::Warmup,
            Answer::Load => Cause::Load,
        })
    }

    /// The answers of a truth.
    #[must_use]
    pub fn of(truth: &Truth) -> Vec<Answer> {
        let all = [
            Answer::Leak,
            Answer::Retention,
            Answer::Cache,
            Answer::Reservation,
            Answer::Warmup,
            Answer::Load,
        ];
        let right = |answer: &Answer| {
            answer
                .cause()
                .is_some_and(|cause| truth.causes.contains(&cause))
        };
        let mut answers: Vec<Answer> = all.into_iter().filter(right).collect();
        if truth.silence {
            answers.push(Answer::Normal);
        }
        answers
    }
}

/// One labelled series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Label {
    /// File name beside the labels.
    pub file: String,
    /// What the program did.
    pub description: String,
    /// What it is.
    pub program: String,
    /// Class.
    pub class: String,
    /// Path of the judged cgroup.
    pub cgroup: String,
    /// Whether it leaks.
    pub leak: bool,
    /// When the leak began.
    pub onset: Option<Timestamp>,
    /// When the limit was hit, or would have been.
    pub limit_hit: Option<Timestamp>,
    /// Right answers.
    pub causes: Vec<Answer>,
    /// How it was run.
    #[serde(default)]
    pub notes: String,
}

impl Label {
    /// File and cgroup.
    #[must_use]
    pub fn name(&self) -> String {
        format!(
            "{} {}",
            self.file.trim_end_matches(".ndjson.gz"),
            self.cgroup
        )
    }

    /// Whether it is of a class that nobody can tell from a leak from outside.
    #[must_use]
    pub fn ambiguous(&self) -> bool {
        let known = CLASSES.iter().find(|class| class.name == self.class);
        self.class == EVEN_FILL || known.is_some_and(|class| class.kind == Kind::Ambiguous)
    }

    fn truth(&self) -> Truth {
        Truth {
            leak: self.leak,
            onset_us: self.onset.map(|at| at.0),
            rate_bps: None,
            limit_us: self.limit_hit.map(|at| at.0),
            memory: self.leak.then_some(Memory::Anon),
            causes: self
                .causes
                .iter()
                .filter_map(|answer| answer.cause())
                .collect(),
            silence: self.causes.contains(&Answer::Normal),
        }
    }
}

/// How one recorded series went.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Its label.
    pub label: Label,
    /// grey-ebpf's detector.
    pub ours: Outcome,
    /// The baselines by name.
    pub others: Vec<(String, Outcome)>,
}

impl Series {
    /// Whether a leak was confirmed in time, and nothing called one that is none.
    #[must_use]
    pub fn told_apart(label: &Label, outcome: &Outcome) -> bool {
        outcome.hit == label.leak && outcome.false_alarms == 0
    }
}

/// The labels in this directory; none where there is no labels.json.
///
/// # Errors
/// The file cannot be read, or a label contradicts itself.
pub fn labels(directory: &Path) -> Result<Vec<Label>> {
    let path = directory.join("labels.json");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let labels: Vec<Label> = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a list of labels (see README.md)", path.display()))?;
    for label in &labels {
        if label.leak != label.onset.is_some() {
            bail!(
                "{}: {}: a leak has an onset, and nothing else has",
                path.display(),
                label.name()
            );
        }
        if label.leak != label.causes.contains(&Answer::Leak) {
            bail!(
                "{}: {}: `leak` and `causes` disagree",
                path.display(),
                label.name()
            );
        }
        if label.causes.is_empty() {
            bail!("{}: {}: no right answer", path.display(), label.name());
        }
    }
    Ok(labels)
}

/// The events of one file that a detector looks at. Lines of types that this version does not know are left out.
///
/// # Errors
/// The file cannot be read, or a line of a known type is broken.
pub fn events(path: &Path) -> Result<Vec<Event>> {
    #[derive(Deserialize)]
    struct Head {
        r#type: String,
    }
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut events = Vec::new();
    for (number, line) in BufReader::new(MultiGzDecoder::new(file))
        .lines()
        .enumerate()
    {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let line = line.with_context(place)?;
        let head: Head = serde_json::from_str(&line).with_context(place)?;
        if ["sample", "process", "growth", "oom"].contains(&head.r#type.as_str()) {
            events.push(serde_json::from_str(&line).with_context(place)?);
        }
    }
    Ok(events)
}

/// Scores all labelled series of a directory.
///
/// # Errors
/// As [`labels`] and [`events`]; and a label whose cgroup is not in its file.
pub fn run(directory: &Path, baselines: bool) -> Result<Vec<Series>> {
    let labels = labels(directory)?;
    let mut files: Vec<&str> = Vec::new();
    for label in &labels {
        if !files.contains(&label.file.as_str()) {
            files.push(&label.file);
        }
    }
    let mut series = Vec::new();
    for file in files {
        let path = directory.join(file);
        let events = events(&path)?;
        for label in labels.iter().filter(|label| label.file == file) {
            series
                .push(one(label, &events, baselines).with_context(|| path.display().to_string())?);
        }
    }
    Ok(series)
}

fn one(label: &Label, events: &[Event], baselines: bool) -> Result<Series> {
    let (trace, said) = told(label, events)?;
    let mut others = Vec::new();
    if baselines {
        for mut judge in baseline::all() {
            let said = judge::other(&mut *judge, &trace);
            others.push((judge.name().to_owned(), score(&trace, &said, false)));
        }
    }
    Ok(Series {
        label: label.clone(),
        ours: score(&trace, &said, true),
        others,
    })
}

/// The judged series, and what grey-ebpf's detector says of it when it is told all events of the file.
fn told(label: &Label, events: &[Event]) -> Result<(Trace, Said)> {
    let trace = trace(label, events);
    if trace.points.is_empty() {
        bail!("no sample of {}", label.cgroup);
    }
    let mut detector = Detector::new();
    let mut listener = Listener::new(&label.cgroup, false);
    let mut found = Vec::new();
    for event in events {
        detector.observe(event, &mut found);
        found.drain(..).for_each(|finding| listener.hear(finding));
    }
    Ok((trace, listener.said()))
}

/// The recorded series of this name (as [`Label::name`]) and what is said of it; `None` where no label has the name.
///
/// # Errors
/// As [`run`].
pub fn named(directory: &Path, name: &str) -> Result<Option<(Trace, Said)>> {
    let labels = labels(directory)?;
    let Some(label) = labels.iter().find(|label| label.name() == name) else {
        return Ok(None);
    };
    told(label, &events(&directory.join(&label.file))?).map(Some)
}

/// The judged series alone, as the baselines see it.
fn trace(label: &Label, events: &[Event]) -> Trace {
    let mut cgroups = Vec::new();
    let mut points = Vec::new();
    for event in events {
        if let (Some(cgroup), Body::Sample(sample)) = (&event.cgroup, &event.body)
            && cgroup.path == label.cgroup
        {
            if cgroups.is_empty() {
                cgroups.push(cgroup.clone());
            }
            points.push((0, Point::of_sample(event.ts, cgroup, sample)));
        }
    }
    let mut apart: Vec<f64> = points
        .windows(2)
        .map(|pair: &[(u8, Point)]| (pair[1].1.at_us - pair[0].1.at_us) as f64 / 1e6)
        .collect();
    let interval = quantile(&mut apart, 0.5).map_or(0.0, f64::round);
    Trace {
        name: label.name(),
        class: "recorded",
        kind: match label.leak {
            true => Kind::Leak,
            false if label.ambiguous() => Kind::Ambiguous,
            false => Kind::Negative,
        },
        seed: 0,
        interval_s: interval,
        cgroups,
        points,
        truth: label.truth(),
    }
}
