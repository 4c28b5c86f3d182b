//! `ksm status`: reads, judges, tells. Changes nothing and keeps no journal.

use std::collections::BTreeMap;
use std::time::Duration;

use grey_core::act::Value;
use grey_core::units::{format_bytes as size, format_duration_us};
use grey_core::view::printable;
use serde::Serialize;

use super::figures::{self, Ksmd, Users};
use super::verdict::{Seen, Verdict, judge, signed};
use crate::act::Scene;
use crate::cli::{self, Exit, Failure};
use crate::enforce::Common;
use crate::host::Ksm;

pub(crate) const HELP: &str = "While KSM is on its thread is watched for a second, for the CPU time it takes now.

--json writes one object:
  schema          grey-ebpf-ksm/1
  knobs           what the files below /sys/kernel/mm/ksm hold, by name: run, pages_to_scan, sleep_millisecs,
                  advisor_mode, advisor_max_cpu, … as far as this kernel has them
  ksm             the kernel's counts: pages_shared, pages_sharing, pages_unshared, pages_volatile, full_scans …
  saved_bytes     what would be in use were nothing merged
  profit_bytes    that less KSM's own memory; profit_source says whether the kernel computed it (kernel) or it
                  is by the formula of its documentation (computed)
  ksmd            its thread: pid, cpu_us since boot, cpu_pct of a core over window_s (only while KSM is on)
  processes       looked_at, offering, and top: pid, comm, cgroup, merged_bytes, tracked_bytes, profit_bytes, merge_any
  verdict         pays (true, false, absent where it cannot be told yet), id, text, next
  unreadable      files that are there and could not be read
The ids of a verdict: pays, few_equals, no_equals, loss, changes_too_fast, not_scanned, nobody_offers, stopped,
stopped_merged, unmerged, unknown.";

/// How long ksmd is watched.
const WINDOW: Duration = Duration::from_secs(1);

/// The answer.
#[derive(Debug, Serialize)]
struct Status {
    schema: &'static str,
    knobs: BTreeMap<&'static str, String>,
    ksm: Ksm,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profit_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profit_source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ksmd: Option<Thread>,
    processes: Users,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
}

/// KSM's thread.
#[derive(Debug, Serialize)]
struct Thread {
    pid: u32,
    cpu_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_pct: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_s: Option<f64>,
}

/// Tells how KSM stands.
///
/// # Errors
/// There is no KSM (exit 3), or it was asked to be taken back (exit 2).
pub(in crate::enforce) fn run(common: &Common) -> Result<Exit, Failure> {
    if common.lease.is_some() {
        return Err(Failure::usage(
            "ksm status changes nothing that a --lease could take back; leave it out",
        ));
    }
    let status = look(&Scene::find(&common.place)?)?;
    if common.json {
        let mut line = serde_json::to_string(&status)
            .map_err(|error| Failure::failed(format!("status: {error}")))?;
        line.push('\n');
        return cli::print(&line);
    }
    cli::print(&text(&status))
}

fn look(scene: &Scene) -> Result<Status, Failure> {
    let host = &scene.host;
    let knobs = figures::knobs(scene)?;
    let on = knobs
        .get(&grey_core::act::KnobFile::KsmRun)
        .is_some_and(|run| run.as_number() == Some(1));
    let began = Ksmd::read(host);
    let skipped = figures::machine(host, &mut Vec::new()).pages_skipped;
    // No condition to wait for: time is what is measured over.
    if began.is_some() && on {
        std::thread::sleep(WINDOW);
    }
    let ended = began.and_then(|began| began.again(host));
    let cpu_pct = began
        .zip(ended)
        .filter(|_| on)
        .and_then(|(began, ended)| ended.percent_since(&began));
    let mut unreadable = Vec::new();
    let ksm = figures::machine(host, &mut unreadable);
    let processes = Users::read(host);
    let verdict = judge(&Seen {
        ksm: &ksm,
        users: &processes,
        cpu_pct,
        scans: ksm.full_scans,
        seen_on: false,
        skipping: ksm.pages_skipped > skipped,
    });
    let profit = figures::profit(&ksm);
    Ok(Status {
        schema: "grey-ebpf-ksm/1",
        knobs: knobs
            .iter()
            .map(|(file, value): (_, &Value)| {
                let name = file.name();
                (name.strip_prefix("ksm/").unwrap_or(name), value.to_string())
            })
            .collect(),
        saved_bytes: figures::saved(&ksm),
        profit_bytes: profit.map(|(profit, _)| profit),
        profit_source: profit.map(|(_, kernel)| if kernel { "kernel" } else { "computed" }),
        ksmd: ended.map(|ksmd| Thread {
            pid: ksmd.pid,
            cpu_us: ksmd.cpu_us,
            cpu_pct,
            window_s: cpu_pct.map(|_| WINDOW.as_secs_f64()),
        }),
        ksm,
        processes,
        verdict,
        unreadable,
    })
}

fn text(status: &Status) -> String {
    let knob = |name: &str| status.knobs.get(name).map(String::as_str);
    let page = rustix::param::page_size() as u64;
    let mut text = match knob("run") {
        Some("0") => "KSM is off".to_owned(),
        Some("1") => "KSM is on".to_owned(),
        Some("2") => "KSM is off, everything unmerged (run is 2)".to_owned(),
        other => format!("KSM: run is {}", other.unwrap_or("not known")),
    };
    text.push('\n');
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10} {value}\n"));
    let mut pace = Vec::new();
    match knob("advisor_mode") {
        Some("none") | None => {}
        Some(mode) => {
            let mut by = format!("advisor {mode}");
            if let (Some(time), Some(cpu)) =
                (knob("advisor_target_scan_time"), knob("advisor_max_cpu"))
            {
                by.push_str(&format!(" (a scan in {time} s, at most {cpu} % of a core)"));
            }
            pace.push(by);
        }
    }
    if let (Some(pages), Some(sleep)) = (knob("pages_to_scan"), knob("sleep_millisecs")) {
        pace.push(format!("{pages} pages each {sleep} ms"));
    }
    for (name, what) in [
        ("smart_scan", "smart scan"),
        ("use_zero_pages", "empty pages too"),
    ] {
        if knob(name) == Some("1") {
            pace.push(what.to_owned());
        }
    }
    line("pace", pace.join(", "));
    let ksm = &status.ksm;
    let counts = [
        ("shared", ksm.pages_shared),
        ("sharing", ksm.pages_sharing),
        ("without equal", ksm.pages_unshared),
        ("volatile", ksm.pages_volatile),
        ("empty", ksm.zero_pages),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter_map(|(name, pages)| Some(format!("{name} {}", size(pages?.saturating_mul(page)))))
        .collect();
    line("pages", counts.join(", "));
    if let Some(scans) = ksm.full_scans {
        line("scans", format!("{scans} of all offered memory since boot"));
    }
    if let (Some(saved), Some(profit)) = (status.saved_bytes, status.profit_bytes) {
        let source = match status.profit_source {
            Some("kernel") => "the kernel's figure",
            _ => "64 bytes a page known to KSM",
        };
        line(
            "saved",
            format!(
                "{}, net {} after KSM's own memory ({source})",
                size(saved),
                signed(profit)
            ),
        );
    }
    if let Some(ksmd) = &status.ksmd {
        let now = ksmd
            .cpu_pct
            .map_or(String::new(), |pct| format!("{pct:.1} % of a core now, "));
        line(
            "ksmd",
            format!("{now}{} since boot", format_duration_us(ksmd.cpu_us)),
        );
    }
    if let (Some(offering), Some(all)) = (status.processes.offering, status.processes.looked_at) {
        line("offered by", format!("{offering} of {all} processes"));
    }
    for user in &status.processes.top {
        let part = |name: &str, bytes: Option<u64>| {
            bytes.map_or(String::new(), |bytes| format!(", {} {name}", size(bytes)))
        };
        let net = user
            .profit_bytes
            .map_or(String::new(), |profit| format!(", net {}", signed(profit)));
        text.push_str(&format!(
            "    {} (pid {}){}{}{net}\n",
            printable(&user.comm),
            user.pid,
            part("merged", user.merged_bytes),
            part("known", user.tracked_bytes)
        ));
    }
    for file in &status.unreadable {
        text.push_str(&format!("  not read: {file}\n"));
    }
    text.push_str(&format!("verdict: {}\n", status.verdict.text));
    if let Some(next) = &status.verdict.next {
        text.push_str(&format!("  {next}\n"));
    }
    text
}
