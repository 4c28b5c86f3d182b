//! `diagnose` on the machine itself: its figures beside those of /proc, as root and as somebody without rights.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, assert_within, run};
use crate::invocation::{Invocation, Scratch};
use crate::swap::value_of;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_diagnose_a_bad_argument_is_one_line_and_code_2",
            bad_arguments,
        ),
        Trial::new(
            "native_diagnose_figures_are_those_of_proc_meminfo",
            figures_of_meminfo,
        ),
        Trial::new(
            "native_diagnose_divides_shared_pages_by_their_users",
            shared_pages,
        ),
        Trial::new(
            "native_diagnose_without_root_says_what_is_missing",
            without_root,
        ),
        Trial::new("native_diagnose_text_names_every_part", text),
        Trial::new(
            "native_diagnose_detect_leaks_ends_in_time_or_when_interrupted",
            detect_leaks_ends,
        ),
    ]
}

/// The report as JSON, and nothing else on either output.
pub(crate) fn report(args: &[&str]) -> Result<Value> {
    let mut all = vec!["diagnose", "--json"];
    all.extend(args);
    let ended = run(&all, Duration::from_secs(40))?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    ensure!(ended.stderr.is_empty(), "stderr: {}", ended.stderr);
    ensure!(ended.stdout.lines().count() == 1, "not one document");
    serde_json::from_str(&ended.stdout).context("the report is no JSON")
}

/// An answer of a report by its id.
pub(crate) fn answer<'a>(report: &'a Value, id: &str) -> Result<&'a Value> {
    report["answers"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|answer| answer["id"] == id)
        .with_context(|| format!("no answer {id}: {}", report["answers"]))
}

pub(crate) fn bytes(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no figure at {pointer}: {value}"))
}

/// Bytes of a part of the machine's memory.
pub(crate) fn part(report: &Value, name: &str) -> Result<u64> {
    report["memory"]["parts"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|part| part["name"] == name)
        .and_then(|part| part["bytes"].as_u64())
        .with_context(|| format!("no part {name}"))
}

fn bad_arguments() -> Result<Outcome> {
    let cases: &[(&[&str], &[&str])] = &[
        (&["diagnose", "--bogus"], &["--bogus"]),
        (&["diagnose", "extra"], &["extra"]),
        (&["diagnose", "--top", "0"], &["--top", "0"]),
        (&["diagnose", "--top", "many"], &["--top", "many"]),
        (&["diagnose", "--for", "5s"], &["--detect-leaks"]),
        (
            &["diagnose", "--detect-leaks", "--for", "5"],
            &["--for", "5s"],
        ),
        (
            &["diagnose", "--detect-leaks", "--for", "0s"],
            &["--for", "1s"],
        ),
        (
            &["diagnose", "--cgroup", "/grey-none"],
            &["/grey-none", "no cgroup"],
        ),
        (
            &["diagnose", "--json", "--cgroup", "grey-none-*"],
            &["grey-none-*", "matches"],
        ),
        (&["diagnose", "--cgroup", "[a"], &["[a", "unclosed"]),
        (&["diagnose", "--cgroup", ""], &["empty"]),
    ];
    for (args, says) in cases {
        Invocation::new()
            .run(args)?
            .is_one_line(2, says)
            .with_context(|| format!("grey-ebpf {}", args.join(" ")))?;
    }
    Ok(Outcome::Passed)
}

/// A figure lies between two readings of /proc/meminfo around it. Other programs work meanwhile, up and down again, so
/// each figure has room for some; and a moment in which they took or gave more is tried again.
fn figures_of_meminfo() -> Result<Outcome> {
    const ROOM: u64 = 16 << 20;
    let meminfo = |key: &str| Ok(value_of("/proc/meminfo", key)? * 1024);
    let lines = [
        ("MemFree", "/memory/free"),
        ("MemAvailable", "/memory/available"),
        ("Cached", "/memory/cached"),
        ("Buffers", "/memory/buffers"),
        ("AnonPages", "anon"),
        ("SUnreclaim", "slab_unreclaimable"),
        ("KReclaimable", "slab_reclaimable"),
        ("PageTables", "pagetables"),
        ("Percpu", "percpu"),
    ];
    let once = || -> Result<()> {
        let read = || -> Result<Vec<u64>> { lines.iter().map(|(key, _)| meminfo(key)).collect() };
        let before = read()?;
        let report = report(&[])?;
        let after = read()?;
        ensure!(
            bytes(&report, "/memory/total")? == meminfo("MemTotal")?,
            "total: {report}"
        );
        for (((key, at), before), after) in lines.iter().zip(before).zip(after) {
            let told = match at.starts_with('/') {
                true => bytes(&report, at)?,
                false => part(&report, at)?,
            };
            let (low, high) = (before.min(after), before.max(after));
            ensure!(
                told + ROOM >= low && told <= high + ROOM,
                "{key}: {told}, between {low} and {high}"
            );
        }
        let memory = &report["memory"];
        let figure = |name: &str| bytes(memory, &format!("/{name}"));
        ensure!(
            figure("held")? == figure("total")? - figure("free")?,
            "held: {memory}"
        );
        ensure!(
            figure("actual_use")? == figure("held")? - figure("reclaimable")?,
            "actual use: {memory}"
        );
        let parts: u64 = memory["parts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| part["bytes"].as_u64())
            .sum();
        // Where nothing is unaccounted for, the counters overlap by what was moved while they were read.
        ensure!(
            parts.abs_diff(figure("held")?) <= ROOM,
            "the parts make {parts}: {memory}"
        );
        Ok(())
    };
    let mut last = once();
    for _ in 0..4 {
        if last.is_ok() {
            break;
        }
        last = once();
    }
    last?;
    Ok(Outcome::Passed)
}

/// 64 MiB that two processes share after a fork: half of it in the PSS of each, none of it in the USS.
fn shared_pages() -> Result<Outcome> {
    const PAGES: u64 = 16_384;
    const SHARED: u64 = PAGES * 4096;
    let cgroup = TempCgroup::new("shared")?;
    let mut workload = Workload::start(&cgroup)?;
    let of = |report: &Value, pid: u64| -> Result<Value> {
        report["processes"]["top"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|process| process["pid"] == pid)
            .cloned()
            .with_context(|| format!("no process {pid}: {}", report["processes"]))
    };
    let pid = u64::from(workload.pid());
    let look = || report(&["--cgroup", cgroup.path()]);
    let before = bytes(&of(&look()?, pid)?, "/pss")?;
    workload.step(&format!("touch {PAGES}"))?;
    let alone = of(&look()?, pid)?;
    workload.step("fork-hold 1 16")?;
    let child = cgroup
        .processes()?
        .into_iter()
        .map(u64::from)
        .find(|other| *other != pid)
        .context("no child")?;
    let report = look()?;
    let (parent, child) = (of(&report, pid)?, of(&report, child)?);
    for (name, process) in [("parent", &parent), ("child", &child)] {
        ensure!(
            process["cgroup"] == cgroup.path(),
            "cgroup of the {name}: {process}"
        );
        let (rss, pss, uss) = (
            bytes(process, "/rss")?,
            bytes(process, "/pss")?,
            bytes(process, "/uss")?,
        );
        ensure!(
            rss >= SHARED && uss < SHARED / 8 && uss <= pss && pss <= rss,
            "{name}: {process}"
        );
        // Beside the mapping: the program's own pages, at most those of before, for more share them now.
        let mapping = pss.saturating_sub(before);
        assert_within(
            &format!("PSS of the {name} less {before}"),
            mapping,
            SHARED / 2,
            12.5,
        )?;
    }
    ensure!(
        bytes(&alone, "/uss")? >= SHARED,
        "alone it is all its own: {alone}"
    );
    ensure!(
        report["processes"]["top"].as_array().map(Vec::len) == Some(2),
        "others than asked for: {}",
        report["processes"]
    );
    // The cgroup's sum counts what is shared in each of them where there is no memory controller, once where there is.
    let own = &report["cgroups"]["top"][0];
    ensure!(own["path"] == cgroup.path(), "{}", report["cgroups"]);
    let anon = bytes(own, "/anon")?;
    let source = report["cgroups"]["source"].as_str().unwrap_or_default();
    let want = if source == "files" {
        SHARED
    } else {
        2 * SHARED
    };
    assert_within(&format!("anon by {source}"), anon, want, 6.0)?;
    Ok(Outcome::Passed)
}

fn without_root() -> Result<Outcome> {
    let scratch = Scratch::new("diagnose")?;
    let program = scratch.program()?;
    let nobody = || Invocation::new().program(&program).nobody();
    let ended = nobody().run(&["diagnose", "--json"])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let report: Value = serde_json::from_str(&ended.stdout).context("no JSON")?;
    ensure!(bytes(&report, "/memory/total")? > 0, "{report}");
    let denied = answer(&report, "permission_denied")?;
    ensure!(denied["applies"] == true, "{denied}");
    ensure!(
        denied["next"][0]
            .as_str()
            .is_some_and(|next| next.starts_with("sudo")),
        "{denied}"
    );
    let refused: Vec<&Value> = report["processes"]["top"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|process| process.get("pss").is_none())
        .collect();
    ensure!(
        !refused.is_empty(),
        "who may look into root's processes? {report}"
    );
    ensure!(
        refused
            .iter()
            .all(|process| process["rss"].as_u64() > Some(0) && process.get("uss").is_none()),
        "RSS comes from status: {refused:?}"
    );
    ensure!(
        bytes(&report, "/processes/denied")? == refused.len() as u64,
        "{} of {}",
        report["processes"]["denied"],
        refused.len()
    );
    let ended = nobody().run(&["diagnose"])?;
    ensure!(
        ended.code == Some(0)
            && ended.stdout.contains("not root")
            && ended.stdout.contains("cap_sys_ptrace"),
        "{}",
        ended.stdout
    );
    Ok(Outcome::Passed)
}

fn text() -> Result<Outcome> {
    let ended = Invocation::new().run(&["diagnose", "--verbose"])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    for part in [
        "FINDINGS",
        "MEMORY",
        "PRESSURE",
        "CGROUPS",
        "PROCESSES",
        "HUGE PAGES",
        "held",
        "actual use",
        "waste",
        "page cache",
        "slab unreclaimable",
        "next",
    ] {
        ensure!(ended.stdout.contains(part), "no {part}: {}", ended.stdout);
    }
    ensure!(!ended.stdout.contains('\x1b'), "colours in a pipe");
    Ok(Outcome::Passed)
}

fn detect_leaks_ends() -> Result<Outcome> {
    let cgroup = TempCgroup::new("idle")?;
    let _idle = Workload::start(&cgroup)?;
    let begun = Instant::now();
    let seen = report(&["--detect-leaks", "--for", "2s", "--cgroup", cgroup.path()])?;
    ensure!(begun.elapsed() >= Duration::from_secs(2), "too early");
    let watched = seen["leaks"]["watched_s"].as_f64().context("no time")?;
    ensure!((2.0..10.0).contains(&watched), "{}", seen["leaks"]);
    ensure!(
        seen["leaks"]["interrupted"] == false && seen["leaks"]["cgroups"] == 1,
        "{}",
        seen["leaks"]
    );
    ensure!(
        seen["leaks"]["standing"]
            .as_array()
            .is_some_and(Vec::is_empty),
        "an idle process leaks: {}",
        seen["leaks"]
    );
    // A signal before its handler is there ends it as signals do, so it is sent again until the report comes.
    let observer = Observer::start(&[
        "diagnose",
        "--json",
        "--detect-leaks",
        "--for",
        "1h",
        "--cgroup",
        cgroup.path(),
    ])?;
    let caught = || -> Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", observer.pid()))?;
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .context("no SigCgt")?;
        let mask = u64::from_str_radix(mask.trim(), 16)?;
        Ok(mask & (1 << (libc::SIGINT - 1)) != 0)
    };
    crate::harness::wait_until("the handler of SIGINT", Duration::from_secs(30), || {
        Ok(caught()?.then_some(()))
    })?;
    let ended = observer.stop(Signal::INT, Duration::from_secs(20))?;
    if ended.code() != Some(0) {
        bail!("{ended:?}");
    }
    let seen: Value = serde_json::from_str(&ended.stdout).context("no JSON")?;
    ensure!(seen["leaks"]["interrupted"] == true, "{}", seen["leaks"]);
    Ok(Outcome::Passed)
}
