//! `cargo xtask kernel-table`: runs `doctor` in a VM of each kernel and writes what it says into the tables of README
//! and docs/kernels.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::vm::{Machines, Payload, Piece, VmOptions, matrix};

const BEGIN: &str = "<!-- kernel-table:begin -->\n";
const END: &str = "<!-- kernel-table:end -->";

/// A line of the README's table: what is seen, and the families of probes it takes.
const FAMILIES: [(&str, &[&str]); 5] = [
    ("page faults and growth by cgroup", &["fault", "growth"]),
    ("mapped, unmapped, released bytes", &["vm"]),
    ("OOM kills: victim, trigger, limit", &["oom"]),
    ("reclaim stalls and pages", &["reclaim"]),
    ("cgroups and processes come and go", &["lifecycle"]),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: VmOptions,
}

/// What is taken from `doctor --json`.
#[derive(Debug, Deserialize)]
struct Report {
    facts: Facts,
    probes: Vec<Probe>,
}

#[derive(Debug, Deserialize)]
struct Facts {
    kernel: Kernel,
    memory_files: Option<bool>,
    features: Vec<Feature>,
}

#[derive(Debug, Deserialize)]
struct Kernel {
    release: String,
}

#[derive(Debug, Deserialize)]
struct Feature {
    name: String,
    present: String,
}

#[derive(Debug, Deserialize)]
struct Probe {
    name: String,
    family: String,
    hook: String,
    attached: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = crate::workspace();
    let names = args.options.kernels(&[], &matrix())?;
    let mut machines = Machines::prepare(&root, &args.options)?;
    let mut reports = Vec::new();
    for name in names {
        println!("== kernel {name}");
        let kernel = machines.kernel(&name)?;
        let mut output = Vec::new();
        // A cgroup below the root, so that its files can be looked at.
        let command = "mkdir /sys/fs/cgroup/sample && grey-ebpf doctor --json";
        machines
            .run(
                &name,
                &kernel,
                &Payload::Command(command.to_owned()),
                Duration::from_secs(300),
                |piece| {
                    if let Piece::Raw(bytes) = piece {
                        output.extend_from_slice(bytes);
                    }
                },
            )?
            .ended?;
        let report: Report = serde_json::from_slice(output.trim_ascii())
            .with_context(|| format!("kernel {name}: doctor --json"))?;
        reports.push((name, report));
    }
    let releases: Vec<&str> = reports
        .iter()
        .map(|(_, report)| report.facts.kernel.release.as_str())
        .collect();
    let head = format!(
        "Written by `cargo xtask kernel-table` from `grey-ebpf doctor --json` as root in VMs on Debian's kernels {}.\n\n",
        releases.join(", ")
    );
    put(
        &root.join("README.md"),
        &format!("{head}{}", families(&reports)),
    )?;
    let body = format!(
        "{head}{}\nWhat these kernels offer to act with (`doctor` shows it as `actuators`; [enforce.md](enforce.md) has what is done without):\n\n{}",
        probes(&reports),
        features(&reports)
    );
    put(&root.join("docs/kernels.md"), &body)?;
    println!(
        "README.md and docs/kernels.md: tables of {} kernels",
        reports.len()
    );
    Ok(ExitCode::SUCCESS)
}

type Reports = [(String, Report)];

/// One line of a table, the first cell as given, one cell a kernel.
fn line(first: &str, reports: &Reports, cell: impl Fn(&Report) -> String) -> String {
    let mut line = format!("| {first} |");
    for (_, report) in reports {
        let _ = write!(line, " {} |", cell(report));
    }
    line.push('\n');
    line
}

fn heading(reports: &Reports) -> String {
    let names: Vec<&str> = reports.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "| | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    )
}

fn families(reports: &Reports) -> String {
    let mut table = heading(reports);
    for (what, families) in FAMILIES {
        table += &line(what, reports, |report| family(report, families));
    }
    table
        + &line("memory.* files of cgroups", reports, |report| {
            if report.facts.memory_files == Some(true) {
                "yes"
            } else {
                "no"
            }
            .to_owned()
        })
}

/// `yes`, with what is attached otherwise than the first choice; or what is off.
fn family(report: &Report, families: &[&str]) -> String {
    let mut off = Vec::new();
    let mut other: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for probe in report
        .probes
        .iter()
        .filter(|probe| families.contains(&probe.family.as_str()))
    {
        let short = probe
            .name
            .split_once('_')
            .map_or(probe.name.as_str(), |(_, rest)| rest);
        match probe.attached.as_deref() {
            None => off.push(probe.name.as_str()),
            Some(way)
                if way.contains("kprobe") || way.contains("classic") || way.contains("syscall") =>
            {
                other.entry(way).or_default().push(short);
            }
            Some(_) => {}
        }
    }
    if !off.is_empty() {
        return format!("without {}", off.join(", "));
    }
    let ways: Vec<String> = other
        .iter()
        .map(|(way, names)| format!("{} by {way}", names.join(", ")))
        .collect();
    if ways.is_empty() {
        "yes".to_owned()
    } else {
        format!("yes ({})", ways.join("; "))
    }
}

fn probes(reports: &Reports) -> String {
    let mut table = heading(reports);
    for probe in reports
        .last()
        .into_iter()
        .flat_map(|(_, report)| &report.probes)
    {
        table += &line(
            &format!("`{}`: {}", probe.name, probe.hook),
            reports,
            |report| {
                report
                    .probes
                    .iter()
                    .find(|other| other.name == probe.name)
                    .and_then(|other| other.attached.clone())
                    .unwrap_or_else(|| "off".to_owned())
            },
        );
    }
    table
}

fn features(reports: &Reports) -> String {
    let mut table = heading(reports);
    for feature in reports
        .last()
        .into_iter()
        .flat_map(|(_, report)| &report.facts.features)
    {
        table += &line(&feature.name, reports, |report| {
            let found = report
                .facts
                .features
                .iter()
                .find(|other| other.name == feature.name);
            match found.map(|other| other.present.as_str()) {
                Some("yes") => "yes",
                Some("no") | None => "–",
                Some(_) => "not tried",
            }
            .to_owned()
        });
    }
    table
}

/// Replaces what is between the marks of a file.
fn put(path: &Path, body: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = replace(&text, body)
        .with_context(|| format!("{} has no marks of the kernel table", path.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn replace(text: &str, body: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{body}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(attached: Option<&str>) -> Report {
        Report {
            facts: Facts {
                kernel: Kernel {
                    release: "6.1".to_owned(),
                },
                memory_files: Some(true),
                features: vec![],
            },
            probes: vec![Probe {
                name: "vm_mmap".to_owned(),
                family: "vm".to_owned(),
                hook: "mmap".to_owned(),
                attached: attached.map(str::to_owned),
            }],
        }
    }

    #[test]
    fn a_cell_tells_the_second_choice_and_what_is_off() {
        assert_eq!(family(&report(Some("fexit")), &["vm"]), "yes");
        assert_eq!(
            family(&report(Some("kprobe")), &["vm"]),
            "yes (mmap by kprobe)"
        );
        assert_eq!(family(&report(None), &["vm"]), "without vm_mmap");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("a\n{BEGIN}old\n{END}\nb\n");
        assert_eq!(
            replace(&text, "new\n"),
            Some(format!("a\n{BEGIN}new\n{END}\nb\n"))
        );
        assert_eq!(replace("a", "new"), None);
    }
}
