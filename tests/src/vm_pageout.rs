//! `enforce pageout`: what is not used goes to swap, what is used stays, and what must not be touched is not. And the
//! refusal of `enforce trim`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload};
use crate::invocation::{Ended, Invocation, Scratch};
use crate::swap::{Swap, value_of};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_pageout_takes_the_cold_and_leaves_the_hot", cold),
        Trial::new("vm_pageout_tells_cold_from_hot_within_a_mapping", mixed),
        Trial::new("vm_pageout_of_a_cgroup_takes_from_all_processes", cgroup),
        Trial::new("vm_pageout_all_is_bounded_and_spares_what_it_must", all),
        Trial::new("vm_pageout_without_room_in_swap_does_nothing", no_room),
        Trial::new("vm_pageout_refuses_bad_targets", bad_targets),
        Trial::new("vm_trim_says_that_there_is_no_agent", trim),
    ]
}

const M: u64 = 1 << 20;
/// Pages of a MiB.
const P: u64 = 256;

struct Scene {
    state: String,
    cgroup: TempCgroup,
    _scratch: Scratch,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let scratch = Scratch::new(label)?;
        Ok(Self {
            state: scratch.argument("state")?,
            cgroup: TempCgroup::new(label)?,
            _scratch: scratch,
        })
    }

    fn run(&self, args: &[&str]) -> Result<Ended> {
        let mut all = vec!["enforce", "--state-dir", &self.state];
        all.extend(args);
        Invocation::new().run(&all)
    }

    /// The events of a run that has to succeed: the action and its outcome.
    fn events(&self, args: &[&str]) -> Result<(Value, Value)> {
        let mut all = vec!["--json"];
        all.extend(args);
        let ended = self.run(&all)?;
        ensure!(ended.code == Some(0), "{args:?}: {ended:?}");
        let mut events = Vec::new();
        for line in ended.stdout.lines() {
            events.push(
                serde_json::from_str::<Value>(line).with_context(|| format!("not JSON: {line}"))?,
            );
        }
        let of = |kind: &str| {
            events
                .iter()
                .find(|event| event["type"] == kind)
                .map(|event| event[kind].clone())
                .with_context(|| format!("no {kind} among {events:?}"))
        };
        let told = (of("action")?, of("outcome")?);
        println!("{} took {} us", told.1["notes"], told.1["took_us"]);
        Ok(told)
    }
}

/// A mapping of a workload and what smaps says of it.
struct Mapping {
    pid: u32,
    start: String,
    bytes: u64,
}

impl Mapping {
    fn new(workload: &mut Workload, mib: u64) -> Result<Self> {
        let start = workload.step(&format!("apart {}", mib * P))?;
        Ok(Self {
            pid: workload.pid(),
            start,
            bytes: mib * M,
        })
    }

    fn figure(&self, key: &str) -> Result<u64> {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.pid))?;
        let kib: u64 = smaps
            .lines()
            .skip_while(|line| !line.starts_with(&self.start))
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
            .with_context(|| format!("no {key} of {} in smaps", self.start))?;
        Ok(kib * 1024)
    }

    fn swapped_pct(&self) -> Result<f64> {
        Ok(self.figure("Swap")? as f64 * 100.0 / self.bytes as f64)
    }

    fn is_mostly_out(&self, percent: f64) -> Result<()> {
        let out = self.swapped_pct()?;
        println!("{}: {out:.1} % of {} MiB are out", self.pid, self.bytes / M);
        ensure!(out >= percent, "only {out:.1} % are out");
        Ok(())
    }

    fn is_mostly_in(&self, percent: f64) -> Result<()> {
        let out = self.swapped_pct()?;
        println!("{}: {out:.1} % of {} MiB are out", self.pid, self.bytes / M);
        ensure!(out < percent, "{out:.1} % are out");
        Ok(())
    }
}

/// A workload with a cold mapping and a hot one.
fn cold_and_hot(cgroup: &TempCgroup, cold: u64, hot: u64) -> Result<(Workload, Mapping, Mapping)> {
    let mut workload = Workload::start(cgroup)?;
    let cold = Mapping::new(&mut workload, cold)?;
    let in_use = Mapping::new(&mut workload, hot)?;
    workload.step(&format!("keep-hot 0 {}", hot * P))?;
    Ok((workload, cold, in_use))
}

fn cold() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let scene = Scene::new("pageout-cold")?;
    let (workload, cold, hot) = cold_and_hot(&scene.cgroup, 64, 32)?;
    let pid = workload.pid().to_string();
    let plan = scene.run(&["pageout", &pid, "--cold", "--dry-run"])?;
    ensure!(
        plan.code == Some(0)
            && plan.stdout.contains(&format!("process_madvise pid {pid}"))
            && plan.stdout.contains("MADV_COLD, MADV_PAGEOUT")
            && plan.stdout.contains("cannot be taken back"),
        "{plan:?}"
    );
    cold.is_mostly_in(0.1)?;
    let args = ["pageout", &pid, "--cold", "--idle", "2s", "--observe", "1s"];
    let (action, outcome) = scene.events(&args)?;
    cold.is_mostly_out(90.0)?;
    hot.is_mostly_in(5.0)?;
    ensure!(
        action["kind"] == "pageout" && action["target"] == format!("pid {pid}"),
        "{action}"
    );
    let least = 64 * M * 9 / 10;
    for figure in ["freed_bytes", "kept_bytes"] {
        ensure!(
            outcome[figure].as_u64() >= Some(least),
            "{figure}: {outcome}"
        );
    }
    ensure!(
        outcome["after"]["swap"].as_u64() >= Some(least) && outcome["took_us"].is_u64(),
        "{outcome}"
    );
    // A second time there is nothing left to take.
    let (_, again) = scene.events(&["pageout", &pid, "--cold", "--idle", "1s"])?;
    ensure!(
        again["freed_bytes"].as_u64() < Some(4 * M),
        "taken twice: {again}"
    );
    hot.is_mostly_in(5.0)?;
    Ok(Outcome::Passed)
}

fn mixed() -> Result<Outcome> {
    let _swap = Swap::on(128 * M)?;
    let scene = Scene::new("pageout-mixed")?;
    let mut workload = Workload::start(&scene.cgroup)?;
    let mapping = Mapping::new(&mut workload, 48)?;
    // 8 MiB of 48 are in use, from the 20th on.
    workload.step(&format!("keep-hot {} {}", 20 * P, 8 * P))?;
    let pid = workload.pid().to_string();
    scene.events(&["pageout", &pid, "--cold", "--idle", "2s"])?;
    let out = mapping.figure("Swap")?;
    println!("{} of 40 MiB cold are out", out / M);
    ensure!(out >= 40 * M * 8 / 10, "only {} MiB are out", out / M);
    let hot = hot_swapped(&mapping, 20 * P, 8 * P)?;
    println!("{hot} of {} hot pages are out", 8 * P);
    ensure!(hot < 8 * P / 20, "{hot} hot pages are out");
    Ok(Outcome::Passed)
}

/// How many pages of a part of a mapping are swapped out.
fn hot_swapped(mapping: &Mapping, first: u64, pages: u64) -> Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let (start, _) = mapping.start.split_once('-').context("no range")?;
    let start = u64::from_str_radix(start, 16)? / 4096 + first;
    let mut entries = vec![0; pages as usize * 8];
    fs::File::open(format!("/proc/{}/pagemap", mapping.pid))?
        .read_exact_at(&mut entries, start * 8)?;
    Ok(entries
        .chunks_exact(8)
        .filter(|entry| entry[7] & 0x40 != 0)
        .count() as u64)
}

fn cgroup() -> Result<Outcome> {
    let _swap = Swap::on(128 * M)?;
    let scene = Scene::new("pageout-cgroup")?;
    let below = scene.cgroup.child("below")?;
    let outside = TempCgroup::new("pageout-outside")?;
    let (_one, cold, hot) = cold_and_hot(&scene.cgroup, 24, 8)?;
    let (_two, cold_below, hot_below) = cold_and_hot(&below, 24, 8)?;
    let (_three, cold_outside, _) = cold_and_hot(&outside, 8, 4)?;
    let path = scene.cgroup.path();
    let args = ["pageout", path, "--cold", "--idle", "2s"];
    let (action, outcome) = scene.events(&args)?;
    for cold in [&cold, &cold_below] {
        cold.is_mostly_out(90.0)?;
    }
    for hot in [&hot, &hot_below] {
        hot.is_mostly_in(5.0)?;
    }
    cold_outside.is_mostly_in(1.0)?;
    ensure!(action["target"] == path, "{action}");
    ensure!(outcome["freed_bytes"].as_u64() >= Some(40 * M), "{outcome}");
    // One that holds what is protected is left alone as a whole.
    scene
        .run(&["pageout", path, "--cold", "--protect", below.path()])?
        .is_one_line(4, &[path, below.path()])?;
    Ok(Outcome::Passed)
}

fn all() -> Result<Outcome> {
    let _swap = Swap::on(128 * M)?;
    let scene = Scene::new("pageout-all")?;
    let mut workload = Workload::start(&scene.cgroup)?;
    let pid = workload.pid().to_string();
    let shared = Mapping::new(&mut workload, 8)?;
    workload.step("fork-share")?;
    let locked = Mapping::new(&mut workload, 8)?;
    workload.step("lock-last")?;
    let free = Mapping::new(&mut workload, 24)?;
    scene
        .run(&["pageout", &pid, "--cold", "--all"])?
        .is_one_line(2, &["--cold", "--all"])?;
    let (action, outcome) = scene.events(&["pageout", &pid, "--all", "--max", "16M"])?;
    ensure!(action["planned_bytes"] == 16 * M, "{action}");
    let out = value_of(&format!("/proc/{pid}/status"), "VmSwap")? * 1024;
    ensure!(
        (15 * M..=16 * M).contains(&out),
        "{out} bytes are out instead of 16 MiB: {outcome}"
    );
    ensure!(outcome["notes"].to_string().contains("--max"), "{outcome}");
    scene.events(&["pageout", &pid, "--all"])?;
    free.is_mostly_out(95.0)?;
    locked.is_mostly_in(0.1)?;
    // What two processes map is left by the kernel.
    shared.is_mostly_in(0.1)?;
    Ok(Outcome::Passed)
}

fn no_room() -> Result<Outcome> {
    let scene = Scene::new("pageout-no-room")?;
    let inner = scene.cgroup.child("inner")?;
    scene.cgroup.delegate("+memory").ok();
    let mut workload = Workload::start(&inner)?;
    let mapping = Mapping::new(&mut workload, 16)?;
    let pid = workload.pid().to_string();
    let untouched = || -> Result<()> {
        mapping.is_mostly_in(0.1)?;
        let marked = mapping.figure("Referenced")?;
        ensure!(marked >= 16 * M, "marks were cleared: {marked}");
        Ok(())
    };
    for target in [pid.as_str(), inner.path()] {
        scene
            .run(&["pageout", target, "--cold", "--idle", "100ms"])?
            .is_one_line(3, &[target, "no swap"])?;
    }
    untouched()?;
    let _swap = Swap::on(64 * M)?;
    // An ancestor's limit counts.
    scene.cgroup.write("memory.swap.max", 0)?;
    scene
        .run(&["pageout", &pid, "--all"])?
        .is_one_line(3, &["memory.swap.max", scene.cgroup.path()])?;
    untouched()?;
    // And bounds what is taken.
    scene.cgroup.write("memory.swap.max", 4 * M)?;
    let (action, outcome) = scene.events(&["pageout", &pid, "--all"])?;
    ensure!(action["planned_bytes"] == 4 * M, "{action}");
    let out = mapping.figure("Swap")?;
    ensure!(
        (3 * M..=4 * M).contains(&out),
        "{out} bytes are out: {outcome}"
    );
    ensure!(
        outcome["notes"].to_string().contains("memory.swap.max"),
        "{outcome}"
    );
    Ok(Outcome::Passed)
}

fn bad_targets() -> Result<Outcome> {
    let _swap = Swap::on(16 * M)?;
    let scene = Scene::new("pageout-bad")?;
    let mut workload = Workload::start(&scene.cgroup)?;
    let pid = workload.pid().to_string();
    let gone = workload.step("gone")?;
    let gone = gone.split(' ').next().context("no pid")?.to_owned();
    for (target, says) in [
        ("0", "between 1 and"),
        ("-1", "between 1 and"),
        ("4294967296", "between 1 and"),
        ("99999999999999999999", "between 1 and"),
        ("2", "kernel thread"),
        (gone.as_str(), "no such process"),
        ("/no-such-cgroup", "no-such-cgroup"),
    ] {
        scene
            .run(&["pageout", target, "--all"])?
            .is_one_line(2, &[target, says])?;
    }
    let empty = TempCgroup::new("pageout-empty")?;
    scene
        .run(&["pageout", empty.path(), "--all"])?
        .is_one_line(2, &[empty.path(), "no process"])?;
    scene
        .run(&["pageout", "1", "--all"])?
        .is_one_line(4, &["pid 1", "init"])?;
    let ours = Observer::start(&["watch", "--json", "--interval", "1h"])?;
    let own = ours.pid().to_string();
    scene
        .run(&["pageout", &own, "--all"])?
        .is_one_line(4, &[&own, "grey-ebpf itself"])?;
    drop(ours);
    let path = scene.cgroup.path();
    scene
        .run(&["pageout", &pid, "--all", "--protect", path])?
        .is_one_line(4, &[path])?;
    for (option, value) in [
        ("--max", "0"),
        ("--max", "-1"),
        ("--max", "18446744073709551616"),
        ("--idle", "0s"),
        ("--lease", "1s"),
    ] {
        scene
            .run(&["pageout", &pid, "--cold", option, value])?
            .is_one_line(2, &[])?;
    }
    scene
        .run(&["pageout", &pid, "--all", "--max", "65G"])?
        .is_one_line(4, &["64G"])?;
    let scratch = Scratch::new("pageout-nobody")?;
    let state = scratch.argument("state")?;
    Invocation::new()
        .program(&scratch.program()?)
        .nobody()
        .run(&["enforce", "--state-dir", &state, "pageout", &pid, "--all"])?
        .is_one_line(3, &["root"])?;
    let swapped = value_of(&format!("/proc/{pid}/status"), "VmSwap")?;
    ensure!(swapped == 0, "{swapped} KiB were taken");
    Ok(Outcome::Passed)
}

fn trim() -> Result<Outcome> {
    let scene = Scene::new("trim")?;
    let workload = Workload::start(&scene.cgroup)?;
    let pid = workload.pid().to_string();
    for target in [pid.as_str(), scene.cgroup.path()] {
        scene.run(&["trim", target])?.is_one_line(
            3,
            &["no release agent", &pid, "statically", "pageout", target],
        )?;
    }
    scene
        .run(&["trim", "0"])?
        .is_one_line(2, &["between 1 and"])?;
    scene.run(&["trim", "1"])?.is_one_line(4, &["init"])?;
    Ok(Outcome::Passed)
}
