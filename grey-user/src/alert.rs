//! `--on-alert`: starts a command of the user's for each alert, the event on its standard input. Nothing that the
//! command does, or fails to do, holds up or ends the watch.

mod args;
mod child;
mod choice;
mod rate;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grey_core::event::{Body, Event};
use rustix::event::{EventfdFlags, eventfd};

pub use args::{AlertArgs, AlertOn, program};
pub use rate::Rate;

use child::{Outcome, Program};
use choice::Choice;
use rate::Limiter;

/// Alerts that may wait for the one that runs. The rate keeps the queue short; a command that hangs fills it.
const QUEUE: usize = 16;
/// Time for what is pending when the watch ends.
const LAST: Duration = Duration::from_secs(5);

/// What to run, when, how often and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// From which state on a verdict is an alert.
    pub on: AlertOn,
    /// How many may start in what time.
    pub rate: Rate,
    /// Time for one.
    pub timeout: Duration,
    /// Whether its output goes to our stderr; else nowhere.
    pub output: bool,
}

/// Runs the command, one at a time, on a thread of its own.
#[derive(Debug)]
pub struct Alerts {
    name: String,
    choice: Choice,
    limiter: Limiter,
    /// Not run since the last one that was, for want of rate or room.
    left_out: u64,
    queue: SyncSender<Job>,
    reports: Receiver<String>,
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

/// One start of the command.
#[derive(Debug)]
pub(crate) struct Job {
    /// The event, a line of JSON.
    line: Vec<u8>,
    environment: Vec<(&'static str, Option<OsString>)>,
}

/// Tells the thread until when it may go on.
#[derive(Debug)]
pub(crate) struct Stop {
    wake: OwnedFd,
    until: Mutex<Option<Instant>>,
    output: AtomicBool,
}

impl Stop {
    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alerts {
    /// Gets ready to run; the program has been found ([`program`]).
    ///
    /// # Errors
    /// No more descriptors or threads.
    pub fn start(options: Options) -> io::Result<Alerts> {
        let name = options
            .command
            .first()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let (queue, jobs) = sync_channel(QUEUE);
        let (report, reports) = channel();
        let stop = Arc::new(Stop {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            until: Mutex::new(None),
            output: AtomicBool::new(options.output),
        });
        let program = Program::new(options.command, options.timeout);
        let thread = {
            let (stop, name) = (Arc::clone(&stop), name.clone());
            std::thread::Builder::new()
                .name("alert".to_owned())
                .spawn(move || work(&program, &name, &jobs, &report, &stop))?
        };
        Ok(Alerts {
            name,
            choice: Choice::new(options.on),
            limiter: Limiter::new(options.rate),
            left_out: 0,
            queue,
            reports,
            stop,
            thread,
        })
    }

    /// The terminal is drawn on from now on: what the command writes would spoil the picture.
    pub fn silence(&self) {
        self.stop.output.store(false, Ordering::Relaxed);
    }

    /// A verdict that stood before this run: its recovery is an alert too.
    pub fn recall(&mut self, event: &Event) {
        self.choice.is_alert(event);
    }

    /// Runs the command if the event is an alert. Returns a line to tell when something is left out.
    pub fn offer(&mut self, event: &Event) -> Option<String> {
        if !self.choice.is_alert(event) {
            return None;
        }
        let first = self.left_out == 0;
        if !self.limiter.allow(Instant::now()) {
            self.left_out += 1;
            return first.then(|| {
                format!(
                    "--on-alert {}: more than {}; the next ones are counted, not run (--alert-rate)",
                    self.name, self.limiter
                )
            });
        }
        match self.queue.try_send(job(event, self.left_out)) {
            Ok(()) => {
                self.left_out = 0;
                None
            }
            Err(TrySendError::Full(_)) => {
                self.left_out += 1;
                first.then(|| {
                    format!(
                        "--on-alert {}: {QUEUE} are waiting already; the next ones are counted, not run",
                        self.name
                    )
                })
            }
            // The thread ends with us only.
            Err(TrySendError::Disconnected(_)) => None,
        }
    }

    /// What there is to tell of commands that failed.
    pub fn reports(&self) -> impl Iterator<Item = String> + '_ {
        self.reports.try_iter()
    }

    /// Waits for what is pending, but not for ever, and returns what there is to tell.
    pub fn finish(self) -> Vec<String> {
        let Alerts {
            name,
            left_out,
            queue,
            reports,
            stop,
            thread,
            ..
        } = self;
        *stop.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LAST);
        // Fails only when the counter is full.
        let _ = rustix::io::write(&stop.wake, &1u64.to_ne_bytes());
        drop(queue);
        let _ = thread.join();
        let mut told: Vec<String> = reports.try_iter().collect();
        if left_out > 0 {
            told.push(format!("--on-alert {name}: {left_out} alerts were not run"));
        }
        told
    }
}

fn job(event: &Event, left_out: u64) -> Job {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    let (kind, state, cause) = match &event.body {
        Body::Verdict { verdict } => ("verdict", Some(verdict.state), Some(verdict.cause)),
        _ => ("oom", None, None),
    };
    let path = event.cgroup.as_ref().map(|cgroup| cgroup.path.as_str());
    Job {
        line,
        // `None` takes away what we may have inherited ourselves.
        environment: vec![
            ("GREY_EBPF_EVENT", Some(kind.into())),
            ("GREY_EBPF_STATE", state.map(|state| state.word().into())),
            ("GREY_EBPF_CAUSE", cause.map(|cause| cause.word().into())),
            ("GREY_EBPF_CGROUP", path.map(OsString::from)),
            ("GREY_EBPF_LEFT_OUT", Some(left_out.to_string().into())),
        ],
    }
}

/// The thread: one command after the other.
fn work(program: &Program, name: &str, jobs: &Receiver<Job>, report: &Sender<String>, stop: &Stop) {
    let mut late = 0u64;
    for job in jobs {
        if stop.until().is_some_and(|until| Instant::now() >= until) {
            late += 1;
            continue;
        }
        let what = match program.run(&job, stop) {
            Outcome::Done => continue,
            other => other,
        };
        if report.send(format!("--on-alert {name}: {what}")).is_err() {
            return;
        }
    }
    if late > 0 {
        let _ = report.send(format!(
            "--on-alert {name}: {late} alerts were still waiting at the end"
        ));
    }
}
