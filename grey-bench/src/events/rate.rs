//! How many events a second go through the ring and out as lines, and what is lost above that.

use std::ffi::c_void;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{lines_of, load};
use crate::compare::Bench;
use crate::start::cpu_seconds;

/// The kernel side looks at a process's size at the start of each of these in any case.
const WINDOW: usize = 2 << 20;
/// Of a file, one fault maps so much around it (fault_around_bytes).
const AROUND: usize = 64 << 10;
/// Windows of the file.
const WINDOWS: usize = 16;
/// The kernel moves its counters of resident pages by 32 and more at a time (percpu_counter_batch): by that of two faults.
const FAULTS_AN_EVENT: usize = 2;
/// What one process tells faster than every 2 ms is taken for one report by two threads, and is told once.
const MOST_OF_ONE: u32 = 400;
/// More would together outweigh the one that is measured, though each gives way to it.
const MOST_PROCESSES: u32 = 250;
/// Events a second that are asked for.
const RATES: [u32; 7] = [1_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000];
const TIME: Duration = Duration::from_secs(4);
/// After the last event: everything that is in the ring is read by then.
const REST: Duration = Duration::from_secs(2);

/// What came of a rate.
struct Told {
    asked: u32,
    seconds: f64,
    emitted: u64,
    read: u64,
    dropped: u64,
    lines: u64,
    cpu: f64,
}

/// The table.
///
/// # Errors
/// `watch` does not start, or its figures do not add up.
pub fn table(bench: &Bench) -> Result<String> {
    let mut out = format!(
        "Processes, as many as it takes for {MOST_OF_ONE} events a second each, map pieces of a file that is in memory, over and over, 64 KiB a fault; with \
         `--growth 128K` each second fault is an event, as the kernel's counters move then. {TIME:?} a rate, with a ring of the default \
         size; emitted, read and dropped are of the last `health`, with what else grew on the machine; lines are those that came through the pipe in all. On a machine with few processors \
         the load, `watch` and the reader share them; the load gives way (SCHED_IDLE). \
         Above {} a second the processes are faster than 2 ms each, and what one tells within 2 ms is one line.\n\n\
         | asked, a second | emitted | a second | read | dropped | lines | CPU of `watch` |\n|---|---|---|---|---|---|---|\n",
        MOST_OF_ONE * MOST_PROCESSES
    );
    let mut sustained: f64 = 0.0;
    for asked in RATES {
        eprintln!("  {asked} events a second");
        let told = at(bench, asked)?;
        let rate = told.emitted as f64 / told.seconds;
        ensure!(
            told.read + told.dropped == told.emitted,
            "{} read and {} dropped are not {} emitted",
            told.read,
            told.dropped,
            told.emitted
        );
        if told.dropped == 0 {
            sustained = sustained.max(rate);
        }
        out.push_str(&format!(
            "| {} | {} | {rate:.0} | {} | {} ({:.2} %) | {} | {:.0} % |\n",
            told.asked,
            told.emitted,
            told.read,
            told.dropped,
            told.dropped as f64 * 100.0 / told.emitted.max(1) as f64,
            told.lines,
            told.cpu * 100.0
        ));
    }
    out.push_str(&format!(
        "\nThe highest rate without a loss was {sustained:.0} events a second.\n"
    ));
    Ok(out)
}

fn at(bench: &Bench, asked: u32) -> Result<Told> {
    let mut child = Command::new(&bench.grey_ebpf)
        .args(["watch", "--json", "--interval", "1h", "--growth", "128K"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| bench.grey_ebpf.display().to_string())?;
    let told = drive(&mut child, asked);
    if told.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    told
}

fn drive(child: &mut Child, asked: u32) -> Result<Told> {
    let mut out = BufReader::with_capacity(1 << 18, child.stdout.take().context("no stdout")?);
    let mut first = String::new();
    while !first.contains("\"type\":\"health\"") {
        first.clear();
        ensure!(out.read_line(&mut first)? > 0, "watch did not begin");
    }
    let reader = std::thread::spawn(move || count(out));
    let before = cpu_seconds(child.id())?;
    let words = ["tell", &asked.to_string(), &TIME.as_millis().to_string()];
    let lines = lines_of(load(&words)?, "tell")?;
    let seconds: f64 = lines.first().context("no time")?.parse()?;
    let cpu = (cpu_seconds(child.id())? - before) / seconds;
    std::thread::sleep(REST);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no pid")?, Signal::INT)?;
    let Ok(read) = reader.join() else {
        bail!("the reader panicked");
    };
    let (lines, health) = read?;
    let health = &health["health"];
    let sum = |table: &str| -> u64 {
        let kinds = health[table].as_object().into_iter().flatten();
        kinds.filter_map(|(_, count)| count.as_u64()).sum()
    };
    ensure!(health["rejected"] == 0, "records were not understood");
    Ok(Told {
        asked,
        seconds,
        emitted: sum("emitted"),
        read: sum("read"),
        dropped: sum("dropped"),
        lines,
        cpu,
    })
}

/// How many lines came, and the last one, which is a `health`.
fn count(mut out: BufReader<ChildStdout>) -> Result<(u64, Value)> {
    const KEPT: usize = 1 << 16;
    let (mut lines, mut tail) = (0, Vec::new());
    let mut space = vec![0; 1 << 18];
    loop {
        let read = out.read(&mut space)?;
        if read == 0 {
            break;
        }
        lines += space[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        tail.extend_from_slice(&space[..read]);
        if tail.len() > 2 * KEPT {
            tail.drain(..tail.len() - KEPT);
        }
    }
    let last = last_line(&tail).context("no whole line")?;
    let health: Value = serde_json::from_slice(last)?;
    ensure!(health["type"] == "health", "the last line is no health");
    Ok((lines, health))
}

fn last_line(text: &[u8]) -> Option<&[u8]> {
    text.strip_suffix(b"\n")?
        .rsplit(|byte| *byte == b'\n')
        .next()
}

/// `load tell RATE MS`: so many events a second, of as many processes as that takes; prints the seconds it took.
///
/// # Errors
/// Arguments, or what the kernel refuses.
pub fn tell(words: &[String]) -> Result<()> {
    let [rate, time] = words else {
        bail!("load tell RATE MS");
    };
    let rate: u32 = rate.parse().context("RATE")?;
    let time = Duration::from_millis(time.parse().context("MS")?);
    let file = File::from(memfd_create("grey-bench", MemfdFlags::CLOEXEC)?);
    let full = vec![1; AROUND];
    for window in 0..WINDOWS {
        file.write_all_at(&full, (window * WINDOW) as u64)?;
    }
    let room = Room::reserve()?;
    let processes = rate.div_ceil(MOST_OF_ONE).clamp(1, MOST_PROCESSES);
    let period = Duration::from_secs(1) * processes / rate.max(1);
    give_way()?;
    let begun = Instant::now();
    let mut children = Vec::new();
    for number in 0..processes {
        // SAFETY: this process has one thread, so its child may do anything.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // Not all at the same instant.
            let first = begun + period * number / processes;
            let code = i32::from(events(&room, &file, first, period, begun + time).is_err());
            std::process::exit(code);
        }
        ensure!(pid > 0, "fork: {}", std::io::Error::last_os_error());
        children.push(pid);
    }
    for pid in children {
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        ensure!(waited == pid && status == 0, "a process of the load failed");
    }
    println!("{:.6}", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Runs when nobody else wants to (SCHED_IDLE): hundreds that do would leave the one that is measured next to nothing.
fn give_way() -> Result<()> {
    // SAFETY: of all zeros, which is what this policy takes.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: of this process itself, with parameters that live on.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    ensure!(done == 0, "SCHED_IDLE: {}", std::io::Error::last_os_error());
    Ok(())
}

/// An event each `period` at most: what is late is not made up for, since two in a row would be told as one.
fn events(room: &Room, file: &File, first: Instant, period: Duration, end: Instant) -> Result<()> {
    let mut due = first;
    loop {
        let start = room.map(file)?;
        for window in 0..WINDOWS {
            if window.is_multiple_of(FAULTS_AN_EVENT) {
                if Instant::now() >= end {
                    return Ok(());
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due = due.max(Instant::now()) + period;
            }
            let byte = start.wrapping_add(window * WINDOW);
            // SAFETY: inside of the mapping that was just made, of a file that long.
            std::hint::black_box(unsafe { byte.read_volatile() });
        }
    }
}

/// Addresses that begin at a window's border.
struct Room(*mut c_void);

impl Room {
    fn reserve() -> Result<Room> {
        // SAFETY: a new mapping at an address of the kernel's choice; it is never unmapped but replaced by others.
        let start = unsafe {
            mmap_anonymous(
                null_mut(),
                (WINDOWS + 1) * WINDOW,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let start = start.cast::<u8>();
        Ok(Room(start.wrapping_add(start.align_offset(WINDOW)).cast()))
    }

    /// Maps the file anew.
    fn map(&self, file: &File) -> Result<*const u8> {
        // SAFETY: the addresses are ours, and nobody uses what was mapped there before.
        let start = unsafe {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            mmap(self.0, WINDOWS * WINDOW, ProtFlags::READ, flags, file, 0)
        }?;
        Ok(start.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_a_whole_one() {
        assert_eq!(last_line(b"a\nbc\n"), Some(&b"bc"[..]));
        assert_eq!(last_line(b"bc\n"), Some(&b"bc"[..]));
        assert_eq!(last_line(b"a\nbc"), None);
    }
}
