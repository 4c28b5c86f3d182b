//! How many events a second go through the ring and out as lines, and what is lost above that.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::feed::{BURST, Fed, Feed, STEP};
use crate::child::ends_with_us;
use crate::compare::Bench;
use crate::load::used;
use crate::start::cpu_seconds;

/// Events a second that are asked for.
const RATES: [u32; 7] = [1_000, 10_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];
/// Sizes of the ring: that of the default, and one that keeps what comes while the reader waits for a processor.
const RINGS: [&str; 2] = ["256K", "4M"];
const TIME: Duration = Duration::from_secs(4);
/// After the last event: everything that is in the ring is read by then.
const REST: Duration = Duration::from_secs(2);

/// What came of a rate.
struct Told {
    fed: Fed,
    emitted: u64,
    read: u64,
    dropped: u64,
    lines: u64,
    /// Processors that `watch` took, and the reader of its pipe.
    cpu: f64,
    reader_cpu: f64,
}

impl Told {
    fn a_second(&self) -> f64 {
        self.fed.count as f64 / self.fed.seconds
    }

    /// `| asked | emitted | a second | read | dropped | lines | CPU of watch | of the reader | of the load |`
    fn row(&self, asked: u32) -> String {
        format!(
            "| {asked} | {} | {:.0} | {} | {} ({:.2} %) | {} | {:.0} % | {:.0} % | {:.0} % |\n",
            self.emitted,
            self.a_second(),
            self.read,
            self.dropped,
            self.dropped as f64 * 100.0 / self.emitted.max(1) as f64,
            self.lines,
            self.cpu * 100.0,
            self.reader_cpu * 100.0,
            self.fed.cpu * 100.0
        )
    }

    /// Nothing is lost that is not told.
    fn adds_up(&self) -> Result<()> {
        let (emitted, read, dropped) = (self.emitted, self.read, self.dropped);
        ensure!(
            read + dropped == emitted,
            "{read} read and {dropped} dropped are not {emitted} emitted"
        );
        let fed = self.fed.count;
        ensure!(emitted >= fed, "{emitted} emitted are not the {fed} made");
        let lines = self.lines;
        ensure!(lines >= read, "{read} read made {lines} lines");
        Ok(())
    }
}

/// The tables, one for each size of the ring.
///
/// # Errors
/// `watch` does not start, or its figures do not add up.
pub fn table(bench: &Bench) -> Result<String> {
    let mut out = format!(
        "A program of the benchmark's own, run by hand (BPF_PROG_TEST_RUN), puts records of growth of the cgroups in which processes live here into \
         the ring of a `watch --json` and counts them as its own programs do: the growth has not happened, but ring, counts, reader and lines are the \
         real ones. Every {STEP:?} a burst, of what {BURST:?} asks for at most; {TIME:?} a rate. Emitted, read and dropped are of \
         the last `health`, with whatever else happened, and read and dropped add up to emitted; lines are those that came through the pipe in all. \
         CPU is in parts of one processor; `watch`, the reader of its pipe and the load share those of the machine, and with whoever else runs there.\n"
    );
    for ring in RINGS {
        out.push_str(&format!(
            "\n`--ring {ring}`:\n\n\
             | asked, a second | emitted | a second | read | dropped | lines | CPU of `watch` | of the reader | of the load |\n\
             |---|---|---|---|---|---|---|---|---|\n"
        ));
        let (mut sustained, mut lossless): (f64, bool) = (0.0, true);
        for asked in RATES {
            eprintln!("  {asked} events a second, {ring}");
            let told = at(bench, asked, ring)?;
            lossless &= told.dropped == 0;
            if lossless {
                sustained = told.a_second();
            }
            out.push_str(&told.row(asked));
        }
        out.push_str(&format!(
            "\nThe highest rate up to which nothing was lost was {sustained:.0} events a second.\n"
        ));
    }
    Ok(out)
}

fn at(bench: &Bench, asked: u32, ring: &str) -> Result<Told> {
    let mut child = ends_with_us(&mut Command::new(&bench.grey_ebpf))
        .args(["watch", "--json", "--interval", "1h", "--ring", ring])
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
    let feed = Feed::of(child.id())?;
    let before = cpu_seconds(child.id())?;
    let fed = feed.at(asked, TIME)?;
    let cpu = (cpu_seconds(child.id())? - before) / fed.seconds;
    std::thread::sleep(REST);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no pid")?, Signal::INT)?;
    let Ok(read) = reader.join() else {
        bail!("the reader panicked");
    };
    let (lines, health, reader_cpu) = read?;
    let health = &health["health"];
    let sum = |table: &str| -> u64 {
        let kinds = health[table].as_object().into_iter().flatten();
        kinds.filter_map(|(_, count)| count.as_u64()).sum()
    };
    ensure!(health["rejected"] == 0, "records were not understood");
    let told = Told {
        fed,
        emitted: sum("emitted"),
        read: sum("read"),
        dropped: sum("dropped"),
        lines,
        cpu,
        reader_cpu: reader_cpu / fed.seconds,
    };
    told.adds_up()?;
    Ok(told)
}

/// How many lines came, the last one, which is a `health`, and the seconds of processor time that took.
fn count(mut out: BufReader<ChildStdout>) -> Result<(u64, Value, f64)> {
    const KEPT: usize = 1 << 16;
    let (mut lines, mut tail) = (0, Vec::new());
    let mut space = vec![0; 1 << 18];
    loop {
        let read = out.read(&mut space)?;
        if read == 0 {
            break;
        }
        lines += newlines(&space[..read]);
        tail.extend_from_slice(&space[read.saturating_sub(KEPT)..read]);
        if tail.len() > 2 * KEPT {
            tail.drain(..tail.len() - KEPT);
        }
    }
    let last = last_line(&tail).context("no whole line")?;
    let health: Value = serde_json::from_slice(last)?;
    ensure!(health["type"] == "health", "the last line is no health");
    Ok((lines, health, used()))
}

/// In pieces in which a byte can count them: the processor does many bytes at once then.
fn newlines(text: &[u8]) -> u64 {
    let pieces = text.chunks(u8::MAX.into());
    let counts = pieces.map(|piece| {
        piece
            .iter()
            .map(|byte| u8::from(*byte == b'\n'))
            .sum::<u8>()
    });
    counts.map(u64::from).sum()
}

fn last_line(text: &[u8]) -> Option<&[u8]> {
    text.strip_suffix(b"\n")?
        .rsplit(|byte| *byte == b'\n')
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_newline_counts() {
        assert_eq!(newlines(&[b'\n'; 1000]), 1000);
        assert_eq!(newlines(&b"a\n".repeat(300)), 300);
        assert_eq!(newlines(b""), 0);
    }

    #[test]
    fn the_last_line_is_a_whole_one() {
        assert_eq!(last_line(b"a\nbc\n"), Some(&b"bc"[..]));
        assert_eq!(last_line(b"bc\n"), Some(&b"bc"[..]));
        assert_eq!(last_line(b"a\nbc"), None);
    }
}
