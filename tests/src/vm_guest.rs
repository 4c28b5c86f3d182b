//! Memory that a guest leaves idle goes back to its host, measured there; what the guest uses stays.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload, wait_until};
use crate::invocation::Scratch;
use crate::outside::{Files, HostMemory};
use crate::swap::{Swap, value_of};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_guest_gives_idle_page_cache_back_to_its_host_and_keeps_what_is_hot",
            page_cache,
        )
        .with_deadline(Duration::from_secs(180))
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_guest_gives_idle_anonymous_memory_back_to_its_host_by_zram",
            anonymous,
        )
        .with_deadline(Duration::from_secs(180))
        .shown_on(&["6.12"]),
    ]
}

const M: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Which free blocks are reported: of 2^n pages and larger.
const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
/// The files' sizes (`xtask/src/vm/files.rs`).
const HOT: u64 = 100_000_000;
const COLD: u64 = 500_000_000;
/// What the host may still hold of what was given back.
const LEFT: u64 = 40 * M;
/// Of what is written or read, the host holds so much more at the least. The rest finds a place in free blocks that the
/// guest has not reported since they are small.
const NEW: (u64, u64) = (3, 4);
/// In which all of it has gone back.
const WITHIN: Duration = Duration::from_secs(60);
/// How long the same guest is looked at while the daemon only observes.
const CONTROL: Duration = Duration::from_secs(8);
/// Between two looks: they are no rest for the guest, nor for the host.
const LOOK: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(30);
/// Shorter times than usual, so that a test need not wait, and larger steps.
const CONFIG: &str = "\
observe = \"2s\"
[govern.guest]
idle = \"3s\"
step = \"512M\"
[govern.budget]
action_bytes = \"1G\"
";

/// Bytes of this guest's RAM that the host holds.
fn held() -> Result<u64> {
    HostMemory::ask()?
        .ram
        .context("the host does not find the guest's RAM")
}

/// Free pages of the start are reported by and by.
fn settled() -> Result<u64> {
    let mut last = (held()?, Instant::now());
    wait_until("a host that holds the same for 3 s", SOON, || {
        let now = held()?;
        if now.abs_diff(last.0) > 2 * M {
            last = (now, Instant::now());
        }
        std::thread::sleep(LOOK);
        Ok((last.1.elapsed() > Duration::from_secs(3)).then_some(now))
    })
}

/// Why this guest cannot give anything back.
pub(crate) fn lacks() -> Result<Option<&'static str>> {
    let reports = fs::read_dir("/sys/bus/virtio/drivers/virtio_balloon")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let features = fs::read_to_string(entry.path().join("features")).unwrap_or_default();
            features.as_bytes().get(5) == Some(&b'1')
        });
    Ok((!reports).then_some("this guest has no balloon that reports free pages"))
}

/// The daemon, which only observes at first.
struct Daemon {
    scratch: Scratch,
    observer: Observer,
}

impl Daemon {
    fn start() -> Result<Self> {
        let scratch = Scratch::new("guest")?;
        configure(&scratch, "observe")?;
        let config = scratch.argument("config.toml")?;
        let state = scratch.argument("state")?;
        let observer = Observer::start(&["daemon", "--config", &config, "--state-dir", &state])?;
        let socket = scratch.join("state/daemon.sock");
        wait_until("the daemon", SOON, || Ok(socket.exists().then_some(())))?;
        Ok(Self { scratch, observer })
    }

    fn govern(&self) -> Result<()> {
        configure(&self.scratch, "guest")?;
        self.observer.signal(Signal::HUP)
    }
}

fn configure(scratch: &Scratch, policy: &str) -> Result<()> {
    // Under emulation everything costs twenty times as much.
    let text = format!("[budget]\ncpu_pct = 0\n\n[govern]\npolicy = \"{policy}\"\n{CONFIG}");
    Ok(fs::write(scratch.join("config.toml"), text)?)
}

/// What was done and what came of it, for the log of a test.
fn tell(daemon: &mut Daemon) -> Result<()> {
    for event in daemon.observer.events()? {
        let (action, outcome) = (&event["action"], &event["outcome"]);
        if action.is_object() {
            println!("{} {} {}", event["ts"], action["kind"], action["reason"]);
        } else if outcome.is_object() {
            let figures = [&outcome["freed_bytes"], &outcome["refaults"]];
            println!("{} {} {figures:?}", event["ts"], outcome["verdict"]);
        }
    }
    Ok(())
}

/// Nothing goes back by itself.
fn nothing_goes_back(full: u64) -> Result<()> {
    let end = Instant::now() + CONTROL;
    let mut least = full;
    while Instant::now() < end {
        least = least.min(held()?);
        std::thread::sleep(LOOK);
    }
    println!(
        "{} MiB at the least in {CONTROL:?} while it only observes",
        least / M
    );
    ensure!(
        least + 8 * M >= full,
        "{} MiB fell to {} MiB without us",
        full / M,
        least / M
    );
    Ok(())
}

/// Waits until the host holds what it held at the start, and tells how long that took.
fn goes_back(start: u64, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    let mut next = begun;
    let back = wait_until("the guest's memory back at the host", WITHIN, || {
        let now = held()?;
        if Instant::now() >= next {
            println!("{:5.1} s: {} MiB", begun.elapsed().as_secs_f64(), now / M);
            next += Duration::from_secs(2);
            meanwhile()?;
        }
        std::thread::sleep(LOOK);
        Ok((now <= start + LEFT).then_some(now))
    })?;
    println!(
        "back at {} MiB after {:.1} s",
        back / M,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn page_cache() -> Result<Outcome> {
    if let Some(why) = lacks()? {
        return Outcome::skipped(why);
    }
    let files = Files::mount()?;
    let cold = files.path("cold")?;
    let cgroup = TempCgroup::new("guest")?;
    let mut workload = Workload::start(&cgroup)?;
    let mut daemon = Daemon::start()?;
    let map = format!("map-file {}", files.path("hot")?);
    workload.step(&map)?;
    for _ in 0..3 {
        workload.step("read-last")?;
    }
    let start = settled()?;
    workload.step(&format!("read {cold}"))?;
    let full = held()?;
    println!(
        "{} MiB held at the start, {} MiB after reading",
        start / M,
        full / M
    );
    ensure!(
        full >= start + COLD * NEW.0 / NEW.1,
        "{} MiB -> {} MiB",
        start / M,
        full / M
    );
    nothing_goes_back(full)?;
    daemon.govern()?;
    let back = goes_back(start, || Ok(()));
    tell(&mut daemon)?;
    back?;
    println!("{}", HostMemory::ask()?);

    let again = read_again(&files, &mut workload)?;
    drop(daemon);
    // It leaves alone what is mapped.
    workload.step("unmap")?;
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    workload.step(&map)?;
    let dropped = read_again(&files, &mut workload)?;
    println!("read again of the hot set: {again} of {HOT} bytes, {dropped} after drop_caches");
    ensure!(
        dropped >= HOT * 9 / 10,
        "drop_caches left the hot set: {dropped} bytes read"
    );
    ensure!(
        again * 20 < dropped,
        "{again} bytes of the hot set were evicted, {dropped} by drop_caches"
    );
    Ok(Outcome::Passed)
}

/// Bytes that had to come from the disk for it.
fn read_again(files: &Files, workload: &mut Workload) -> Result<u64> {
    let before = files.bytes_read()?;
    workload.step("read-last")?;
    Ok(files.bytes_read()? - before)
}

fn anonymous() -> Result<Outcome> {
    if let Some(why) = lacks()? {
        return Outcome::skipped(why);
    }
    let _swap = Swap::on(700 * M)?;
    let cgroup = TempCgroup::new("guest")?;
    let mut workload = Workload::start(&cgroup)?;
    let mut daemon = Daemon::start()?;
    let start = settled()? + HOT;
    // Mappings of their own: to look for cold parts in a mapping in use takes an emulated guest too long.
    workload.step(&format!("apart {}", 500 * M / PAGE))?;
    workload.step(&format!("apart {}", HOT / PAGE))?;
    let full = held()?;
    println!("{} MiB are to stay, {} MiB held", start / M, full / M);
    ensure!(
        full >= start + 500 * M * NEW.0 / NEW.1,
        "{} MiB -> {} MiB",
        start / M,
        full / M
    );
    nothing_goes_back(full)?;
    let order = fs::read_to_string(ORDER)?;
    daemon.govern()?;
    let swapped = || value_of("/proc/vmstat", "pswpin");
    let before = swapped()?;
    wait_until("smaller blocks", SOON, || {
        Ok((fs::read_to_string(ORDER)?.trim() == "2").then_some(()))
    })?;
    let back = goes_back(start, || workload.step("touch-last").map(drop));
    tell(&mut daemon)?;
    back?;
    workload.step("touch-last")?;
    let again = swapped()? - before;
    println!(
        "{again} of {} pages of the hot set were swapped in",
        HOT / PAGE
    );
    ensure!(
        again * 20 < HOT / PAGE,
        "{again} pages of the hot set were evicted"
    );
    daemon.observer.signal(Signal::TERM)?;
    wait_until("the blocks that were reported before", SOON, || {
        Ok((fs::read_to_string(ORDER)? == order).then_some(()))
    })?;
    Ok(Outcome::Passed)
}
