//! `watch --json` with a reader that notes when each line came.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::child::ends_with_us;
use crate::compare::Bench;

/// How long it may take to begin.
const START: Duration = Duration::from_secs(60);
/// After the last that it has to tell, before it is ended.
const REST: Duration = Duration::from_secs(1);

/// A line and when it was read.
#[derive(Clone, Debug)]
pub struct Line {
    pub event: Value,
    /// Nanoseconds of the wall clock.
    pub arrived: i64,
}

impl Line {
    /// When it happened as it says itself, nanoseconds of the wall clock.
    pub fn ts(&self) -> Result<i64> {
        let text = self.event["ts"].as_str().context("an event without ts")?;
        let ts: jiff::Timestamp = text.parse().with_context(|| text.to_owned())?;
        Ok(i64::try_from(ts.as_nanosecond())?)
    }
}

/// Nanoseconds of the wall clock.
pub fn wall() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// It runs until it is told to stop.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    reader: Option<JoinHandle<Vec<(String, i64)>>>,
}

impl Listener {
    /// Starts it without ticks; keeps the lines that have `sign` in them.
    ///
    /// # Errors
    /// It does not begin.
    pub fn start(bench: &Bench, more: &[&str], sign: &'static str) -> Result<Listener> {
        let mut child = ends_with_us(&mut Command::new(&bench.grey_ebpf))
            .args(["watch", "--json", "--interval", "1h"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| bench.grey_ebpf.display().to_string())?;
        let out = child.stdout.take().context("no stdout")?;
        let (sender, begun) = channel();
        let reader = std::thread::spawn(move || {
            let mut out = BufReader::with_capacity(1 << 18, out);
            let (mut line, mut kept) = (String::new(), Vec::new());
            while out.read_line(&mut line).is_ok_and(|read| read > 0) {
                let now = wall();
                if line.contains(sign) {
                    kept.push((line.clone(), now));
                } else if line.contains("\"type\":\"health\"") {
                    let _ = sender.send(());
                }
                line.clear();
            }
            kept
        });
        let listener = Listener {
            child,
            reader: Some(reader),
        };
        listener.begun(&begun)?;
        Ok(listener)
    }

    fn begun(&self, begun: &Receiver<()>) -> Result<()> {
        if begun.recv_timeout(START).is_err() {
            bail!("watch did not begin within {START:?}");
        }
        Ok(())
    }

    /// Ends it; what it has told.
    ///
    /// # Errors
    /// A line that is no JSON.
    pub fn stop(mut self) -> Result<Vec<Line>> {
        std::thread::sleep(REST);
        self.end();
        let reader = self.reader.take().context("no reader")?;
        let Ok(kept) = reader.join() else {
            bail!("the reader panicked");
        };
        kept.into_iter()
            .map(|(line, arrived)| {
                let event = serde_json::from_str(&line).with_context(|| line.clone())?;
                Ok(Line { event, arrived })
            })
            .collect()
    }

    fn end(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.reader.is_some() {
            self.end();
        }
    }
}
