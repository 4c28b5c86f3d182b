//! Reclaim: what it freed and whom it held up, against the kernel's own figures, and whose doing it was.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grey_core::event::{Body, Reclaim};
use grey_core::glob::CgroupFilter;
use grey_user::host::{CgroupFs, Host};
use grey_user::probe::{self, Facts, Settings};
use grey_user::source::{self, Clock, Notice, Options};
use serde_json::Value;

use crate::attribution::scene::{Figures, Scene, rose_by, time_ms, wall_ms};
use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, assert_within};
use crate::swap::{ShortOfMemory, Swap, value_of};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_reclaim_agrees_with_memory_stat",
            reclaim_agrees_with_memory_stat,
        ),
        Trial::new(
            "vm_reclaim_of_a_parents_limit_is_the_parents",
            reclaim_of_a_parents_limit_is_the_parents,
        ),
        Trial::new(
            "vm_reclaim_of_our_own_is_told_apart",
            reclaim_of_our_own_is_told_apart,
        ),
        Trial::new(
            "vm_reclaim_of_the_whole_machine_is_seen",
            reclaim_of_the_whole_machine_is_seen,
        ),
    ]
}

const M: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// Touches twice what the limit of `a` allows: half of it goes to swap, by memcg reclaim of the workload itself.
fn reclaim_agrees_with_memory_stat() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let mut scene = Scene::with(&["--slow-ticks", "1", "--stall", "50us"])?;
    scene.a.write("memory.max", 24 * M)?;
    let mut workload = Workload::start(&scene.a)?;
    let _idle = Workload::start(&scene.b)?;
    let before = scene.look()?;
    let (stolen, stalled) = (scene.a.stat("memory.stat", "pgsteal")?, stall_us(&scene.a)?);
    workload.step(&format!("touch {}", 48 * M / PAGE))?;
    let after = scene.look()?;
    let stolen = scene.a.stat("memory.stat", "pgsteal")? - stolen;
    let stalled = stall_us(&scene.a)? - stalled;
    ensure!(
        stolen >= 20 * M / PAGE,
        "the kernel took only {stolen} pages"
    );
    let pages = after.a.rise(&before.a, "reclaim.pages_total")?;
    assert_within("reclaim.pages_total, by pgsteal", pages, stolen, 5.0)?;
    let us = after.a.rise(&before.a, "reclaim.stall_us_total")?;
    rose_by(&after.a, &before.a, "reclaim.memcg_us_total", us)?;
    rose_by(&after.a, &before.a, "reclaim.direct_us_total", 0)?;
    println!("{pages} pages of {stolen}, {us} us of {stalled}");
    // Pressure also counts waits outside of reclaim, and its clock ticks apart from ours.
    ensure!(
        us > 0 && stalled > 0,
        "{us} us of stall, {stalled} by pressure"
    );
    ensure!(
        us <= stalled + stalled / 2 && us >= stalled / 3,
        "{us} us of stall, {stalled} by memory.pressure"
    );
    rose_by(&after.parent, &before.parent, "reclaim.pages_total", pages)?;
    rose_by(&after.parent, &before.parent, "reclaim.stall_us_total", us)?;
    for other in ["reclaim.own_pages_total", "reclaim.own_us_total"] {
        rose_by(&after.a, &before.a, other, 0)?;
    }
    let totals = ["reclaim.pages_total", "reclaim.stall_us_total"];
    after.b.unmoved(&before.b, "the sibling", &totals)?;
    let stalls: Vec<Value> = scene
        .watch
        .events()?
        .into_iter()
        .filter(|event| event["type"] == "stall")
        .collect();
    let told: u64 = stalls
        .iter()
        .filter_map(|event| event["stall"]["us"].as_u64())
        .sum();
    let stall = stalls.first().context("no stall of 50 us")?;
    for event in &stalls {
        let it = &event["stall"];
        ensure!(
            event["cgroup"]["path"] == scene.a.path()
                && it["kind"] == "memcg"
                && it["own"] == false
                && it["pid"] == workload.pid()
                && it["us"].as_u64() >= Some(50),
            "{event}"
        );
        ensure!(
            it.get("target")
                .is_none_or(|target| target == scene.a.path()),
            "{event}"
        );
    }
    ensure!(stall["stall"]["pages"].as_u64() > Some(0), "{stall}");
    ensure!(
        told <= us + stalls.len() as u64,
        "{told} us in events, {us} in all"
    );
    Ok(Outcome::Passed)
}

/// memory.pressure: how long some task was stalled.
fn stall_us(cgroup: &TempCgroup) -> Result<u64> {
    let text = cgroup.read("memory.pressure")?;
    let total = text
        .lines()
        .find(|line| line.starts_with("some"))
        .and_then(|line| line.rsplit_once("total="))
        .context("no total in memory.pressure")?;
    Ok(total.1.parse()?)
}

/// The limit is on the parent: what is taken counts there, from whichever child, and the one that hits it waits.
fn reclaim_of_a_parents_limit_is_the_parents() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let mut scene = Scene::new()?;
    scene.parent.write("memory.max", 24 * M)?;
    let mut workload = Workload::start(&scene.a)?;
    let mut quiet = Workload::start(&scene.b)?;
    quiet.step(&format!("touch {}", 8 * M / PAGE))?;
    let before = scene.look()?;
    let stolen = scene.parent.stat("memory.stat", "pgsteal")?;
    workload.step(&format!("touch {}", 32 * M / PAGE))?;
    let after = scene.look()?;
    let stolen = scene.parent.stat("memory.stat", "pgsteal")? - stolen;
    ensure!(
        stolen >= 10 * M / PAGE,
        "the kernel took only {stolen} pages"
    );
    let pages = after.parent.rise(&before.parent, "reclaim.pages_total")?;
    assert_within("the parent's pages, by pgsteal", pages, stolen, 5.0)?;
    for (now, then) in [(&after.a, &before.a), (&after.b, &before.b)] {
        rose_by(now, then, "reclaim.pages_total", 0)?;
    }
    ensure!(
        after.a.rise(&before.a, "reclaim.stall_us_total")? > 0,
        "nobody waited"
    );
    rose_by(&after.b, &before.b, "reclaim.stall_us_total", 0)?;
    Ok(Outcome::Passed)
}

/// The library with this process marked as our own, as `watch` marks itself.
struct Inside {
    observer: source::Observer,
    cgroup: String,
}

impl Inside {
    fn new(cgroup: &TempCgroup) -> Result<Self> {
        let host = Host::live();
        let fs = CgroupFs::discover(&host);
        let settings = Settings {
            stall_ns: 1,
            ..Settings::default()
        }
        .with_fail_switch();
        let mut kernel = probe::load(&Facts::read(std::path::Path::new("/")), &settings)?;
        kernel.mark_own(std::process::id())?;
        let probes = kernel.probes.clone();
        let options = Options {
            filter: CgroupFilter::new(&[], "")?,
            processes: false,
            slow_ticks: 1,
            cpu: false,
        };
        let observer = source::Observer::new(host, fs, Some(kernel), probes, options);
        Ok(Self {
            observer,
            cgroup: cgroup.path().to_owned(),
        })
    }

    /// The cgroup's figures now, and whether each stall since the last look was our own.
    fn look(&mut self) -> Result<(Reclaim, Vec<bool>)> {
        let mut out = Vec::new();
        self.observer.tick(Clock::wall(), &mut out);
        let (mut figures, mut own) = (None, Vec::new());
        for notice in out {
            let Notice::Event(event) = notice else {
                continue;
            };
            match event.body {
                Body::Stall { stall } if stall.target.as_ref() == Some(&self.cgroup) => {
                    own.push(stall.own);
                }
                Body::Sample(sample) if event.cgroup.is_some_and(|it| it.path == self.cgroup) => {
                    figures = sample.reclaim;
                }
                _ => {}
            }
        }
        Ok((figures.context("no sample with reclaim figures")?, own))
    }
}

fn reclaim_of_our_own_is_told_apart() -> Result<Outcome> {
    let _swap = Swap::on(256 * M)?;
    let cgroup = TempCgroup::new("reclaimed")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step(&format!("touch {}", 48 * M / PAGE))?;
    let mut inside = Inside::new(&cgroup)?;
    let (first, _) = inside.look()?;
    let stolen = cgroup.stat("memory.stat", "pgsteal")?;
    // Kernels without memory.reclaim reclaim down to a memory.high that is written.
    let ours = take(&cgroup, None)?;
    let own_stolen = cgroup.stat("memory.stat", "pgsteal")? - stolen;
    let (second, stalls) = inside.look()?;
    let (own_pages, pages) = rises(&first, &second)?;
    println!("{ours}: own {own_pages} pages, others {pages}, the kernel {own_stolen}");
    ensure!(
        own_stolen >= 6 * M / PAGE,
        "the kernel took only {own_stolen} pages by {ours}"
    );
    assert_within("own_pages_total, by pgsteal", own_pages, own_stolen, 5.0)?;
    ensure!(
        pages == 0,
        "{pages} of our own pages count as the workload's"
    );
    ensure!(
        second.stall_us_total == first.stall_us_total,
        "our own stall counts as the workload's"
    );
    ensure!(
        second.own_us_total > first.own_us_total,
        "no time of our own"
    );
    ensure!(
        !stalls.is_empty() && stalls.iter().all(|own| *own),
        "stalls own: {stalls:?}"
    );
    // The control: the same by a process that nobody marked.
    let elsewhere = TempCgroup::new("writer")?;
    let mut writer = Workload::start(&elsewhere)?;
    let stolen = cgroup.stat("memory.stat", "pgsteal")?;
    take(&cgroup, Some(&mut writer))?;
    let others_stolen = cgroup.stat("memory.stat", "pgsteal")? - stolen;
    let (third, stalls) = inside.look()?;
    let (own_pages, pages) = rises(&second, &third)?;
    println!("control: own {own_pages} pages, others {pages}, the kernel {others_stolen}");
    assert_within("pages_total, by pgsteal", pages, others_stolen, 5.0)?;
    ensure!(
        own_pages == 0,
        "{own_pages} pages of another count as our own"
    );
    ensure!(
        !stalls.is_empty() && !stalls.contains(&true),
        "stalls own: {stalls:?}"
    );
    Ok(Outcome::Passed)
}

/// Own pages and other pages taken between two looks.
fn rises(before: &Reclaim, after: &Reclaim) -> Result<(u64, u64)> {
    let rise = |after: Option<u64>, before: Option<u64>| {
        after
            .zip(before)
            .map(|(after, before)| after - before)
            .context("an absent figure")
    };
    Ok((
        rise(after.own_pages_total, before.own_pages_total)?,
        rise(after.pages_total, before.pages_total)?,
    ))
}

/// Takes about 8 MiB out of the cgroup, by ourselves or by `writer`, and tells through which file.
fn take(cgroup: &TempCgroup, writer: Option<&mut Workload>) -> Result<&'static str> {
    let (file, amount) = if cgroup.has("memory.reclaim") {
        ("memory.reclaim", 8 * M)
    } else {
        ("memory.high", cgroup.number("memory.current")? - 8 * M)
    };
    match writer {
        None => cgroup.write(file, amount)?,
        Some(writer) => {
            let path = cgroup.directory().join(file);
            writer.step(&format!("put {} {amount}", path.display()))?;
        }
    }
    if file == "memory.high" {
        cgroup.write(file, "max")?;
    }
    Ok(file)
}

/// The watermarks are raised until the machine is short of memory: direct reclaim by who allocates, and kswapd.
fn reclaim_of_the_whole_machine_is_seen() -> Result<Outcome> {
    const ROOM: u64 = 32 * M;
    let _swap = Swap::on(256 * M)?;
    let cgroup = TempCgroup::new("hog")?;
    let mut watch = Observer::start(&[
        "watch",
        "--json",
        "--interval",
        "100ms",
        "--slow-ticks",
        "1",
    ])?;
    let mut workload = Workload::start(&cgroup)?;
    let sample = |watch: &mut Observer, path: &str, wanted: &dyn Fn(&Figures) -> bool| {
        let now = wall_ms()?;
        let found = watch.wait_event("a sample", Duration::from_secs(20), |event| {
            event["type"] == "sample"
                && event["cgroup"]["path"] == path
                && time_ms(event) > Some(now)
                && wanted(&Figures(event.clone()))
        })?;
        anyhow::Ok(Figures(found))
    };
    let first = vmstat("pgsteal_direct")?;
    let before = sample(&mut watch, "/", &|_| true)?;
    let stolen = vmstat("pgsteal_direct")?;
    {
        let _short = ShortOfMemory::with_room(ROOM)?;
        // kswapd may keep up for a while.
        for _ in 0..10 {
            workload.step(&format!("touch {}", 24 * M / PAGE))?;
            if vmstat("pgsteal_direct")? > stolen + 500 {
                break;
            }
        }
    }
    let stolen = vmstat("pgsteal_direct")? - stolen;
    ensure!(stolen > 0, "no direct reclaim came about");
    let hog = sample(&mut watch, cgroup.path(), &|_| true)?;
    ensure!(
        hog.get("reclaim.direct_us_total")? > 0,
        "the one that allocated did not wait"
    );
    ensure!(
        hog.get("reclaim.stall_us_total")? >= hog.get("reclaim.direct_us_total")?,
        "{hog:?}"
    );
    ensure!(
        hog.0["reclaim"].get("kswapd_us_total").is_none(),
        "kswapd is nobody's: {hog:?}"
    );
    // kswapd's time is known once it sleeps again, which it does with the watermarks back where they were.
    let then = before.get("reclaim.kswapd_us_total")?;
    let root = sample(&mut watch, "/", &|root| {
        root.get("reclaim.kswapd_us_total")
            .is_ok_and(|us| us > then)
    })?;
    // `watch` may have been held up itself, which is no stall of the workload's.
    let pages = root.rise(&before, "reclaim.pages_total")?;
    let own = root.rise(&before, "reclaim.own_pages_total")?;
    // What was reclaimed between a sample and the look beside it may be in either.
    let most = vmstat("pgsteal_direct")? - first;
    println!("{pages} pages and {own} of our own, the kernel {stolen} to {most}");
    assert_within(
        "direct reclaim, by pgsteal_direct",
        pages + own,
        (pages + own).clamp(stolen, most),
        5.0,
    )?;
    ensure!(
        pages >= hog.get("reclaim.pages_total")?,
        "the root lacks the workload's pages"
    );
    Ok(Outcome::Passed)
}

fn vmstat(key: &str) -> Result<u64> {
    value_of("/proc/vmstat", key)
}
