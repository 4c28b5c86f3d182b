//! What the proactive policy saves and costs beside others on the same workload: a hot set, cold memory and cache (60 % of
//! all), and bursts. Each runs alone for some minutes on the same guest; a run without any before and after them is the
//! measure of speed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::harness::{Observer, Outcome, TempCgroup, Trial, Workload};
use crate::invocation::Scratch;
use crate::swap::Swap;
use crate::vm_enforce::cache::Files;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_compare_proactive_saves_more_at_less_cost_than_others",
            compare,
        )
        .with_deadline(Duration::from_secs(3600))
        .on_request(),
    ]
}

const M: u64 = 1 << 20;
const PAGE: u64 = 4096;
const HOT_ANON: u64 = 48 * M;
const COLD_ANON: u64 = 96 * M;
const HOT_FILE: u64 = 48 * M;
const COLD_FILE: u64 = 96 * M;
const BURST: u64 = 24 * M;
/// Each is given this time …
const RUN: Duration = Duration::from_secs(150);
/// … and what it saves is the mean over its last part.
const LAST: Duration = Duration::from_secs(90);
const TICK: Duration = Duration::from_millis(500);

/// Who governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Law {
    Nobody,
    DropCaches,
    DamonReclaim,
    Senpai,
    Ours,
}

#[derive(Clone, Copy, Debug)]
struct Score {
    /// Mean of memory.current and what zram takes.
    held: f64,
    /// Passes a second.
    speed: f64,
    /// Part of the time in which tasks stalled.
    stalled: f64,
}

fn compare() -> Result<Outcome> {
    let mut scores = Vec::new();
    for law in [
        Law::Nobody,
        Law::Ours,
        Law::Senpai,
        Law::DropCaches,
        Law::DamonReclaim,
        Law::Nobody,
    ] {
        let Some(score) = measure(law)? else {
            println!("{law:?}: this kernel does not have it");
            continue;
        };
        println!(
            "{law:?}: {:.1} MiB held, {:.3} passes/s, stalled {:.3} % of the time",
            score.held / M as f64,
            score.speed,
            score.stalled * 100.0
        );
        scores.push((law, score));
    }
    let nobody: Vec<Score> = of(&scores, Law::Nobody);
    let mean =
        |figure: fn(&Score) -> f64| nobody.iter().map(figure).sum::<f64>() / nobody.len() as f64;
    let (held, speed) = (mean(|score| score.held), mean(|score| score.speed));
    let saved = |score: &Score| held - score.held;
    // What the same run without any differs by is no slowdown.
    let noise = (nobody[0].speed - nobody[nobody.len() - 1].speed).abs() / speed;
    let slower = |score: &Score| (1.0 - score.speed / speed).max(0.0);
    println!("noise {:.2} %", noise * 100.0);
    for (law, score) in &scores {
        println!(
            "{law:?}: saved {:.1} MiB, {:.2} % slower",
            saved(score) / M as f64,
            slower(score) * 100.0
        );
    }
    let ours = of(&scores, Law::Ours)[0];
    let others = scores
        .iter()
        .filter(|(law, _)| !matches!(law, Law::Nobody | Law::Ours));
    for (law, other) in others {
        let as_much =
            saved(&ours) >= saved(other) && slower(&ours) <= (slower(other) / 2.0).max(noise);
        let more = saved(&ours) >= 1.2 * saved(other) && slower(&ours) <= slower(other).max(noise);
        // Who saves less and costs more is out of the question.
        ensure!(as_much || more, "{law:?} is better than we are");
    }
    Ok(Outcome::Passed)
}

fn of(scores: &[(Law, Score)], law: Law) -> Vec<Score> {
    scores
        .iter()
        .filter(|(other, _)| *other == law)
        .map(|(_, score)| *score)
        .collect()
}

fn measure(law: Law) -> Result<Option<Score>> {
    if law == Law::DamonReclaim && !fs::exists(DAMON)? {
        return Ok(None);
    }
    let files = Files::new()?;
    let hot = files.file("hot", HOT_FILE)?;
    let cold = files.file("cold", COLD_FILE)?;
    let _swap = Swap::on(256 * M)?;
    let cgroup = TempCgroup::new("compared")?;
    let mut workload = Workload::start(&cgroup)?;
    workload.step(&format!("unlike {}", COLD_ANON / PAGE))?;
    workload.step(&format!("read {cold}"))?;
    workload.step(&format!("unlike {}", HOT_ANON / PAGE))?;
    workload.step(&format!("serve {} {} {hot}", HOT_ANON / PAGE, BURST / PAGE))?;
    let mut governor = Governor::start(law, &cgroup)?;
    let begun = Instant::now();
    let passes: u64 = workload.step("passes")?.parse()?;
    let stalled = some_us(&cgroup)?;
    let zram = zram()?;
    let (mut sum, mut looks) = (0.0, 0_u32);
    while begun.elapsed() < RUN {
        governor.tick(&cgroup)?;
        if begun.elapsed() >= RUN - LAST {
            let current = cgroup.number("memory.current")?;
            sum += current as f64 + self::zram()?.saturating_sub(zram) as f64;
            looks += 1;
        }
        std::thread::sleep(TICK);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let done: u64 = workload.step("passes")?.parse()?;
    let score = Score {
        held: sum / f64::from(looks),
        speed: (done - passes) as f64 / elapsed,
        stalled: (some_us(&cgroup)? - stalled) as f64 / 1e6 / elapsed,
    };
    governor.end()?;
    Ok(Some(score))
}

fn some_us(cgroup: &TempCgroup) -> Result<u64> {
    let text = cgroup.read("memory.pressure")?;
    let total = text
        .lines()
        .next()
        .and_then(|line| line.split("total=").nth(1));
    total.context("no total")?.trim().parse().context("total")
}

/// What zram takes for what was swapped out.
fn zram() -> Result<u64> {
    let text = fs::read_to_string("/sys/block/zram0/mm_stat")?;
    let used = text.split_whitespace().nth(2).context("mem_used_total")?;
    Ok(used.parse()?)
}

const DAMON: &str = "/sys/module/damon_reclaim/parameters";

/// Our configuration for so short a time: the law is the same, its steps come as often as Senpai's.
const OURS: &str = "[budget]\ncpu_pct = 0\n\n[govern]\npolicy = \"observe\"\nobserve = \"2s\"\n\
    [govern.proactive]\ninterval = \"2s\"\n[govern.emergency]\nenabled = false\n";

enum Governor {
    Nobody,
    DropCaches(Instant),
    DamonReclaim,
    Senpai(Senpai),
    Ours(Box<Observer>, Scratch),
}

impl Governor {
    fn start(law: Law, cgroup: &TempCgroup) -> Result<Self> {
        Ok(match law {
            Law::Nobody => Self::Nobody,
            Law::DropCaches => Self::DropCaches(Instant::now()),
            Law::DamonReclaim => {
                // Ten seconds untouched, whatever the machine has free; the quotas are the kernel's own.
                for (name, value) in [
                    ("min_age", "10000000"),
                    ("wmarks_high", "1000"),
                    ("wmarks_mid", "999"),
                    ("wmarks_low", "0"),
                    ("enabled", "Y"),
                ] {
                    fs::write(format!("{DAMON}/{name}"), value).with_context(|| name.to_owned())?;
                }
                Self::DamonReclaim
            }
            Law::Senpai => Self::Senpai(Senpai::new(cgroup)?),
            Law::Ours => {
                let scratch = Scratch::new("compare")?;
                let text = format!(
                    "{OURS}[[govern.override]]\nmatch = \"{}\"\npolicy = \"proactive\"\n",
                    cgroup.path()
                );
                fs::write(scratch.join("config.toml"), text)?;
                let config = scratch.argument("config.toml")?;
                let state = scratch.argument("state")?;
                let args = ["daemon", "--config", &config, "--state-dir", &state];
                Self::Ours(Box::new(Observer::start(&args)?), scratch)
            }
        })
    }

    fn tick(&mut self, cgroup: &TempCgroup) -> Result<()> {
        match self {
            Self::Nobody | Self::DamonReclaim | Self::Ours(..) => Ok(()),
            Self::DropCaches(last) => {
                if last.elapsed() >= Duration::from_secs(30) {
                    *last = Instant::now();
                    fs::write("/proc/sys/vm/drop_caches", "1")?;
                }
                Ok(())
            }
            Self::Senpai(senpai) => senpai.tick(cgroup),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::DamonReclaim => Ok(fs::write(format!("{DAMON}/enabled"), "N")?),
            Self::Ours(mut observer, _scratch) => {
                for event in observer.events()? {
                    if event["type"] == "outcome" {
                        let outcome = &event["outcome"];
                        println!(
                            "  {} freed {} kept {} refaults {}",
                            outcome["kind"],
                            outcome["freed_bytes"],
                            outcome["kept_bytes"],
                            outcome["refaults"]
                        );
                    }
                }
                observer.signal(Signal::TERM)?;
                let finished = observer.finish(Duration::from_secs(30))?;
                ensure!(finished.code() == Some(0), "{finished:?}");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The law of senpai.py as it was published, for this comparison only: memory.high follows the stalls. s is the stall time
/// since the last change; over P it backs off at once, else it presses after six ticks.
struct Senpai {
    limit: u64,
    total: u64,
    stalled: u64,
    grace: u32,
    last: Instant,
}

impl Senpai {
    const PRESSURE_US: f64 = 10_000.0;
    const INTERVAL: u32 = 6;
    const PROBE: f64 = 10.0;
    const BACKOFF: f64 = 20.0;
    const MAX_PROBE: f64 = 0.01;
    const MAX_BACKOFF: f64 = 1.0;

    fn new(cgroup: &TempCgroup) -> Result<Self> {
        let mut senpai = Self {
            limit: 0,
            total: some_us(cgroup)?,
            stalled: 0,
            grace: Self::INTERVAL,
            last: Instant::now(),
        };
        let current = cgroup.number("memory.current")?;
        senpai.set(cgroup, current)?;
        Ok(senpai)
    }

    fn set(&mut self, cgroup: &TempCgroup, limit: u64) -> Result<()> {
        self.limit = limit.max(100 * M) / PAGE * PAGE;
        cgroup.write("memory.high", self.limit)
    }

    fn tick(&mut self, cgroup: &TempCgroup) -> Result<()> {
        if self.last.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        self.last = Instant::now();
        let total = some_us(cgroup)?;
        self.stalled += total - self.total;
        self.total = total;
        let share = self.stalled as f64 / Self::PRESSURE_US;
        if share > 1.0 {
            let factor = (share / Self::BACKOFF).powi(2).min(Self::MAX_BACKOFF);
            self.adjust(cgroup, 1.0 + factor)
        } else if self.grace > 0 {
            self.grace -= 1;
            Ok(())
        } else {
            let pressing = Self::PRESSURE_US / (self.stalled as f64).max(1.0) / Self::PROBE;
            let factor = (Self::MAX_PROBE * pressing.powi(2)).min(Self::MAX_PROBE);
            self.adjust(cgroup, 1.0 - factor)
        }
    }

    fn adjust(&mut self, cgroup: &TempCgroup, factor: f64) -> Result<()> {
        self.grace = Self::INTERVAL;
        self.stalled = 0;
        self.set(cgroup, (self.limit as f64 * factor) as u64)
    }
}
