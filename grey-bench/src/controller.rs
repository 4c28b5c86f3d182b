//! What `watch` takes by the number of cgroups and how many of them do something, beside a collector that reads every
//! memory.stat at each tick.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::beside::{Process, daemon};
use crate::cgroup::Cgroup;
use crate::compare::Bench;
use crate::scratch::Scratch;
use crate::start::{cpu_seconds, resident};

/// Between two ticks of all that is compared.
const TICK: Duration = Duration::from_secs(1);
/// After the start.
const SETTLE: Duration = Duration::from_secs(5);
/// The same where cgroups are so many that the first look at all of them takes its time: `watch` has been once round those
/// in which nothing happens then.
const SETTLE_MANY: Duration = Duration::from_secs(45);
const MANY: usize = 10_000;
/// Of so many: each is looked at once meanwhile.
const TIME_MANY: Duration = Duration::from_secs(40);
/// Parts of the cgroups that do something, percent.
const ACTIVE: &[usize] = &[1, 10, 100];
/// What an active cgroup does in a tick: pages that are touched and given back.
const PAGES: usize = 16;

/// How much is measured.
struct Extent {
    /// Numbers of cgroups, and the parts of each that do something.
    sizes: &'static [(usize, &'static [usize])],
    time: Duration,
}

const ON_MACHINE: Extent = Extent {
    sizes: &[
        (10, ACTIVE),
        (100, ACTIVE),
        (1000, ACTIVE),
        (10_000, ACTIVE),
    ],
    time: Duration::from_secs(20),
};
/// Processors may be emulated: more than a hundred active ones of ten thousand is more than they can do.
const IN_GUEST: Extent = Extent {
    sizes: &[(10, ACTIVE), (100, ACTIVE), (1000, ACTIVE), (10_000, &[1])],
    time: Duration::from_secs(15),
};

/// CPU as a part of one core, and memory.
struct Taken {
    cpu: f64,
    resident: u64,
    peak: u64,
}

/// The table.
///
/// # Errors
/// There is no cgroup v2 tree in which cgroups can be made.
pub fn table(bench: &Bench) -> Result<String> {
    measured(bench, &ON_MACHINE)
}

/// The same in a guest.
///
/// # Errors
/// As [`table`].
pub fn in_guest(bench: &Bench) -> Result<String> {
    measured(bench, &IN_GUEST)
}

fn measured(bench: &Bench, extent: &Extent) -> Result<String> {
    let tree = Tree::new()?;
    let what = if tree.0.has_memory() {
        "memory.stat"
    } else {
        "cgroup.stat (the v2 tree has no memory controller here)"
    };
    let cgtop = if tree.0.has_memory() {
        cgtop()
    } else {
        Err("it wants memory.* files".to_owned())
    };
    let mut out = format!(
        "## `watch --json` and `daemon` by number of cgroups\n\n\
         An active one touches {PAGES} pages in each second. CPU is of one core, over {} s, once, {} s from {MANY} cgroups on; \"reading all\" reads each cgroup's {what} once a second, \
         as little as a collector can do; systemd-cgtop looks once a second too. Each has {} s to settle, {} s of so many. \"times\" is against `watch`.\n\n\
         | cgroups | active | CPU | resident, peak | `daemon`, CPU | resident, peak | reading all, CPU | times | systemd-cgtop, CPU | times |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        extent.time.as_secs(),
        TIME_MANY.as_secs(),
        SETTLE.as_secs(),
        SETTLE_MANY.as_secs()
    );
    let mut made = 0;
    for &(count, parts) in extent.sizes {
        made = tree.grow(made, count)?;
        let (settle, time) = if count < MANY {
            (SETTLE, extent.time)
        } else {
            (SETTLE_MANY, TIME_MANY)
        };
        let mut actives: Vec<usize> = parts
            .iter()
            .map(|part| (count * part).div_ceil(100))
            .collect();
        actives.dedup();
        for active in actives {
            eprintln!("  {count} cgroups, {active} active");
            let beside = |words: &dyn Fn() -> Result<Command>| {
                let once = || -> Result<Taken> {
                    let command = words()?;
                    Active::start(&tree, active)?.beside(|| measure(command, settle, time))
                };
                // A machine that stood still for a second is asked again.
                once().or_else(|error| {
                    eprintln!("    once more: {error:#}");
                    once()
                })
            };
            match row(bench, &tree, cgtop.is_ok(), beside) {
                Ok(row) => out.push_str(&format!("| {count} | {active} |{row}\n")),
                Err(error) => out.push_str(&format!(
                    "| {count} | {active} | not measured: {error:#} | | | | | | | |\n"
                )),
            }
        }
    }
    if let Err(why) = cgtop {
        out.push_str(&format!("\nNot measured: systemd-cgtop: {why}.\n"));
    }
    Ok(out)
}

/// Whether it runs here; if not, why.
fn cgtop() -> Result<(), String> {
    let mut once = Command::new("systemd-cgtop");
    once.args(["--batch", "--iterations=1"])
        .stdin(Stdio::null());
    match once.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Ours, and the others each in its turn, under the same load.
fn row(
    bench: &Bench,
    tree: &Tree,
    cgtop: bool,
    beside: impl Fn(&dyn Fn() -> Result<Command>) -> Result<Taken>,
) -> Result<String> {
    let taken = beside(&|| {
        let mut watch = Command::new(&bench.grey_ebpf);
        watch.args(["watch", "--json"]);
        Ok(watch)
    })?;
    let mut row = shown(&taken);
    let state = Scratch::new("state")?;
    let words = daemon(state.path())?;
    row.push_str(&shown(&beside(&|| {
        let mut daemon = Command::new(&bench.grey_ebpf);
        daemon.args(&words);
        Ok(daemon)
    })?));
    let mut other = |other: Taken| {
        let times = other.cpu / taken.cpu;
        row.push_str(&format!(" {:.2} % | {times:.1} |", other.cpu * 100.0));
    };
    other(beside(&|| {
        let mut reader = Command::new(std::env::current_exe()?);
        reader.args(["load", "read-all"]).arg(tree.0.path());
        Ok(reader)
    })?);
    if cgtop {
        other(beside(&|| {
            let mut top = Command::new("systemd-cgtop");
            top.args(["--batch", "--raw", "--delay=1s", "--iterations=100000"]);
            Ok(top)
        })?);
    } else {
        row.push_str(" – | – |");
    }
    Ok(row)
}

fn shown(taken: &Taken) -> String {
    format!(
        " {:.2} % | {:.1} MiB, {:.1} |",
        taken.cpu * 100.0,
        mib(taken.resident),
        mib(taken.peak)
    )
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn measure(command: Command, settle: Duration, time: Duration) -> Result<Taken> {
    let process = Process::start(command, "")?;
    std::thread::sleep(settle);
    let before = cpu_seconds(process.pid())?;
    let begun = Instant::now();
    std::thread::sleep(time);
    let cpu = (cpu_seconds(process.pid())? - before) / begun.elapsed().as_secs_f64();
    let (resident, peak) = resident(process.pid())?;
    Ok(Taken {
        cpu,
        resident,
        peak,
    })
}

/// Cgroups with as many in them as are wanted.
struct Tree(Cgroup);

impl Tree {
    fn new() -> Result<Tree> {
        let top = Cgroup::new("many")?;
        if top.has_memory() {
            top.write("cgroup.subtree_control", "+memory")?;
        }
        Ok(Tree(top))
    }

    fn grow(&self, from: usize, to: usize) -> Result<usize> {
        for number in from..to {
            fs::create_dir(self.0.path().join(format!("c{number}")))?;
        }
        Ok(to)
    }
}

/// A process that goes from one cgroup to the next, and touches memory in each, all of them in each second.
struct Active {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Active {
    fn start(tree: &Tree, active: usize) -> Result<Active> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["load", "go-round"])
            .arg(tree.0.path())
            .arg(active.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let active = Active { child, stdin };
        ensure!(line == "round\n", "cgroups were not entered: {line}");
        Ok(active)
    }

    fn beside<T>(mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = work()?;
        ensure!(
            self.child.try_wait()?.is_none(),
            "it ended before it was told to: are there seconds in which not all cgroups were visited?"
        );
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "it did not keep up: {status}");
        Ok(done)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// `load go-round TOP ACTIVE`: until stdin ends.
///
/// # Errors
/// A cgroup cannot be entered, or there was not time for all in a second.
pub fn go_round(words: &[String]) -> Result<()> {
    let [top, active] = words else {
        bail!("load go-round TOP ACTIVE");
    };
    let active: usize = active.parse().context("ACTIVE")?;
    let top = Path::new(top);
    let outside = top.parent().context("no parent")?.join("cgroup.procs");
    let procs: Vec<fs::File> = (0..active)
        .map(|number| {
            let path = top.join(format!("c{number}/cgroup.procs"));
            fs::File::options()
                .write(true)
                .open(&path)
                .with_context(|| path.display().to_string())
        })
        .collect::<Result<_>>()?;
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let (mut rounds, mut late) = (0_u32, 0_u32);
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        let begun = Instant::now();
        for mut file in &procs {
            file.write_all(b"0")?;
            crate::load::touch(PAGES)?;
        }
        rounds += 1;
        if rounds == 1 {
            println!("round");
        } else if begun.elapsed() > TICK {
            late += 1;
        }
        std::thread::sleep(TICK.saturating_sub(begun.elapsed()));
    }
    fs::write(outside, "0")?;
    ensure!(
        late * 10 <= rounds,
        "{late} of {rounds} rounds took longer than a second"
    );
    Ok(())
}

/// `load read-all TOP`: reads a file of every cgroup once a second, as collectors do: opened by path, read, closed.
///
/// # Errors
/// Files that cannot be read.
pub fn read_all(words: &[String]) -> Result<()> {
    let [top] = words else {
        bail!("load read-all TOP");
    };
    let name = if Path::new(top).join("memory.stat").exists() {
        "memory.stat"
    } else {
        "cgroup.stat"
    };
    let mut bytes = Vec::new();
    loop {
        let begun = Instant::now();
        let mut sum = 0_u64;
        for entry in fs::read_dir(top)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            bytes.clear();
            fs::File::open(entry.path().join(name))?.read_to_end(&mut bytes)?;
            // The least that is done with it.
            for line in bytes.split(|byte| *byte == b'\n') {
                let figure = line.rsplit(|byte| *byte == b' ').next().unwrap_or(line);
                let figure = std::str::from_utf8(figure)
                    .ok()
                    .and_then(|text| text.parse::<u64>().ok());
                sum = sum.wrapping_add(figure.unwrap_or(0));
            }
        }
        println!("{sum}");
        std::thread::sleep(TICK.saturating_sub(begun.elapsed()));
    }
}
