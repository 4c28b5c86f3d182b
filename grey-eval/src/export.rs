//! Writes traces as NDJSON of events with labels, so that other detectors can be scored on them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use grey_core::detect::Point;
use grey_core::event::{Body, Cgroup, Event, Faults, Limit, Mem, MemSource, SCHEMA, Sample, Vm};
use grey_core::time::Timestamp;

use crate::recorded::{Answer, Label};
use crate::trace::Trace;

/// The `sample` event of a point.
#[must_use]
pub fn event(seq: u64, cgroup: &Cgroup, point: &Point) -> Event {
    let sum = |parts: [Option<u64>; 3]| {
        parts
            .iter()
            .any(Option::is_some)
            .then(|| parts.iter().flatten().sum())
    };
    Event {
        schema: SCHEMA.to_owned(),
        ts: Timestamp(point.at_us),
        seq,
        host: "benchmark".to_owned(),
        boot_id: None,
        cgroup: Some(Cgroup {
            id: point.id,
            ..cgroup.clone()
        }),
        lossy: false,
        body: Body::Sample(Box::new(Sample {
            mem: Mem {
                current: sum([point.anon, point.file, point.kernel]),
                anon: point.anon,
                file: point.file,
                shmem: point.shmem,
                kernel: point.kernel,
                slab: point.slab,
                pagetables: point.pagetables,
                sock: point.sock,
                swap: point.swap,
                available: point.available,
                max: point.max,
                high: Limit::Unknown,
                ..Mem::default()
            },
            mem_source: Some(if point.available.is_some() {
                MemSource::Machine
            } else {
                MemSource::Files
            }),
            faults: point.faults.map(|minor| Faults {
                minor_total: Some(minor),
                ..Faults::default()
            }),
            vm: point.virt.map(|size| Vm {
                r#virtual: Some(size),
                ..Vm::default()
            }),
            processes: point.processes,
            ..Sample::default()
        })),
    }
}

/// The label of a trace in this file.
#[must_use]
pub fn label(file: &str, trace: &Trace) -> Label {
    Label {
        file: file.to_owned(),
        description: format!("synthetic, class {}, seed {}", trace.class, trace.seed),
        program: "grey-eval".to_owned(),
        class: trace.class.to_owned(),
        cgroup: trace.cgroups[0].path.clone(),
        leak: trace.truth.leak,
        onset: trace.truth.onset_us.map(Timestamp),
        limit_hit: trace.truth.limit_us.map(Timestamp),
        causes: Answer::of(&trace.truth),
        notes: format!("{:?}, name {}", trace.kind, trace.name),
    }
}

/// Writes one trace into the directory and returns its label.
///
/// # Errors
/// The file cannot be written.
pub fn write(directory: &Path, trace: &Trace) -> Result<Label> {
    let file = format!("{}-{}.ndjson.gz", trace.class, trace.seed);
    let path = directory.join(&file);
    let place = || format!("write {}", path.display());
    let out = File::create(&path).with_context(place)?;
    let mut out = GzEncoder::new(BufWriter::new(out), Compression::default());
    for (seq, (index, point)) in trace.points.iter().enumerate() {
        let event = event(seq as u64, &trace.cgroups[usize::from(*index)], point);
        serde_json::to_writer(&mut out, &event).with_context(place)?;
        out.write_all(b"\n").with_context(place)?;
    }
    out.finish()
        .and_then(|mut out| out.flush())
        .with_context(place)?;
    Ok(label(&file, trace))
}

/// Writes labels.json.
///
/// # Errors
/// The file cannot be written.
pub fn write_labels(directory: &Path, labels: &[Label]) -> Result<()> {
    let path = directory.join("labels.json");
    let text = serde_json::to_string_pretty(labels).context("labels")? + "\n";
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
