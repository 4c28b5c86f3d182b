//! Start, size, and what it takes at rest.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::beside::Process;
use crate::compare::{Bench, shown};
use crate::pairs::Spread;

/// How long it is looked at while little goes on.
const REST: Duration = Duration::from_secs(60);
/// After its start.
const SETTLE: Duration = Duration::from_secs(5);

/// The table.
///
/// # Errors
/// It does not start.
pub fn table(bench: &Bench) -> Result<String> {
    let mut first = Vec::new();
    for _ in 0..bench.rounds {
        first.push(first_line(bench)? * 1e3);
    }
    let first = Spread::of(first).context("no rounds")?;
    let size = fs::metadata(&bench.grey_ebpf)?.len();
    let mut command = Command::new(&bench.grey_ebpf);
    command.args(["watch", "--json"]);
    let process = Process::start(command, "")?;
    std::thread::sleep(SETTLE);
    let before = cpu_seconds(process.pid())?;
    let begun = Instant::now();
    std::thread::sleep(REST);
    let cpu = (cpu_seconds(process.pid())? - before) / begun.elapsed().as_secs_f64();
    let (now, peak) = resident(process.pid())?;
    Ok(format!(
        "## Start and rest\n\n| | |\n|---|---|\n\
         | start to the first line | {} ms |\n\
         | the program's file | {:.1} MiB |\n\
         | `watch --json`, little going on, {} s | {:.3} % of a core |\n\
         | resident then; at its highest | {:.1} MiB; {:.1} MiB |\n",
        shown(first, 0),
        mib(size),
        REST.as_secs(),
        cpu * 100.0,
        mib(now),
        mib(peak)
    ))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn first_line(bench: &Bench) -> Result<f64> {
    let begun = Instant::now();
    let mut child = Command::new(&bench.grey_ebpf)
        .args(["watch", "--json", "--once"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = child.stdout.take().context("no stdout")?;
    let mut out = BufReader::new(out);
    let mut line = String::new();
    out.read_line(&mut line)?;
    let took = begun.elapsed().as_secs_f64();
    std::io::copy(&mut out, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "watch --once failed");
    Ok(took)
}

/// User and system time of a process.
///
/// # Errors
/// It is gone.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .flat_map(str::parse::<u64>)
        .sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident bytes now and at most.
///
/// # Errors
/// It is gone.
pub fn resident(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.with_context(|| name.to_owned())?.parse::<u64>()? << 10)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}
