use std::path::{Path, PathBuf};

use grey_core::event::Body;

use super::class;
use crate::generate::generate;
use crate::recorded::{self, Answer};
use crate::score::score;
use crate::{export, judge};

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// A directory of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("grey-eval-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_label_names_a_series_of_a_committed_file() {
    let directory = committed();
    for label in recorded::labels(&directory).unwrap() {
        let events = recorded::events(&directory.join(&label.file)).unwrap();
        let samples: Vec<_> = events
            .iter()
            .filter(|event| matches!(event.body, Body::Sample(_)))
            .filter(|event| {
                event
                    .cgroup
                    .as_ref()
                    .is_some_and(|own| own.path == label.cgroup)
            })
            .collect();
        assert!(
            samples.len() >= 10,
            "{}: {} samples",
            label.name(),
            samples.len()
        );
        if let Some(onset) = label.onset {
            assert!(
                onset < samples[samples.len() - 1].ts,
                "{}: onset after the end",
                label.name()
            );
        }
    }
}

#[test]
fn every_committed_recording_has_a_label() {
    let directory = committed();
    let labels = recorded::labels(&directory).unwrap();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".ndjson.gz") {
            assert!(
                labels.iter().any(|label| label.file == name),
                "{name} has no label"
            );
        }
    }
}

#[test]
fn an_exported_trace_scores_as_the_trace_itself() {
    let scratch = Scratch::new("export");
    let traces: Vec<_> = ["malloc-4-mib-s", "malloc-100-mib-min", "idle"]
        .iter()
        .map(|name| generate(class(name), 1002))
        .collect();
    let labels: Vec<_> = traces
        .iter()
        .map(|trace| export::write(&scratch.0, trace).unwrap())
        .collect();
    export::write_labels(&scratch.0, &labels).unwrap();
    let series = recorded::run(&scratch.0, true).unwrap();
    assert_eq!(series.len(), traces.len());
    for (one, trace) in series.iter().zip(&traces) {
        let direct = score(trace, &judge::ours(trace), true);
        assert_eq!(one.ours.hit, direct.hit, "{}", trace.name);
        assert_eq!(one.ours.said, direct.said, "{}", trace.name);
        assert_eq!(
            one.ours.latency_s.is_some(),
            direct.latency_s.is_some(),
            "{}",
            trace.name
        );
        for (name, outcome) in &one.others {
            let mut judge = crate::baseline::all()
                .into_iter()
                .find(|judge| judge.name() == name)
                .unwrap();
            let direct = score(trace, &judge::other(&mut *judge, trace), false);
            assert_eq!(
                (outcome.hit, outcome.false_alarms),
                (direct.hit, direct.false_alarms)
            );
        }
    }
}

#[test]
fn a_label_that_contradicts_itself_is_told() {
    let scratch = Scratch::new("labels");
    let mut label = export::label("x.ndjson.gz", &generate(class("idle"), 1000));
    export::write_labels(&scratch.0, std::slice::from_ref(&label)).unwrap();
    assert_eq!(recorded::labels(&scratch.0).unwrap().len(), 1);
    label.causes = vec![Answer::Leak];
    export::write_labels(&scratch.0, std::slice::from_ref(&label)).unwrap();
    let error = recorded::labels(&scratch.0).unwrap_err().to_string();
    assert!(error.contains("disagree"), "{error}");
    // And a file that is named but not there.
    label.causes = vec![Answer::Normal];
    export::write_labels(&scratch.0, &[label]).unwrap();
    let error = format!("{:#}", recorded::run(&scratch.0, false).unwrap_err());
    assert!(error.contains("x.ndjson.gz"), "{error}");
}

#[test]
fn a_directory_without_labels_has_no_series() {
    let scratch = Scratch::new("empty");
    assert!(recorded::run(&scratch.0, true).unwrap().is_empty());
}
