//! `enforce trim`: asks the release agent inside a process to give freed memory back; where there is none, says so and
//! what to do.

mod allocator;
mod words;

use std::fs;
use std::rc::Rc;
use std::time::Duration;

use grey_core::event::{ActionPlan, ActionState, PlannedWrite};
use grey_core::units::{format_bytes, format_duration_us};
use grey_core::view::printable;

use crate::act::agent::{self, AgentError, Answer, Question};
use crate::act::{Scene, Target};
use crate::cli::{self, Failure};

use self::allocator::Allocator;

use super::pageout::reopen;
use super::pageout::take::{measured, memory};
use super::pageout::target::{self, Found, Process, Wanted};
use super::{Act, Actuator, Common, Plan};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce trim 1234 --dry-run     what its allocator holds free, and what to expect
  grey-ebpf enforce trim 1234               its collector, then its allocator, give back what is free
  grey-ebpf enforce trim web.service        of all its processes that have the agent

Freed memory that an allocator holds on to comes back only from inside the process: by the release agent, which is
loaded at its start (LD_PRELOAD=…/libgrey_release.so). It needs no undo: nothing that is in use is touched.";

/// How long an agent waits at a plan until its program is seen at rest.
const PLAN_WAIT: Duration = Duration::from_millis(200);
/// And at a trim, unless it is told.
pub(crate) const WAIT: Duration = Duration::from_secs(2);
/// Processes that are named one by one.
const NAMED: usize = 8;

/// Arguments of `trim`.
#[derive(Clone, Debug, clap::Args)]
pub struct TrimArgs {
    /// Process id, or path, unit or container name of a cgroup
    #[arg(value_name = "PID|CGROUP", allow_negative_numbers = true)]
    pub target: String,
    /// The allocator only: the runtime's own collector (CPython's) is not run before it
    #[arg(long)]
    pub no_collector: bool,
    /// How long the collector is waited for, and a program of one thread to come to rest
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = wait)]
    pub wait: Duration,
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = cli::duration(text)?;
    if wait > Duration::from_secs(60) {
        return Err("an agent waits for 60s at most".to_owned());
    }
    Ok(wait)
}

/// The action.
pub(crate) struct Trim<'a> {
    args: &'a TrimArgs,
    found: Option<Found>,
}

impl<'a> Trim<'a> {
    pub(crate) fn new(args: &'a TrimArgs) -> Self {
        Trim { args, found: None }
    }

    fn question(&self) -> Question {
        Question::Trim {
            collector: !self.args.no_collector,
            wait: self.args.wait,
        }
    }
}

/// A process without an agent.
struct Without {
    pid: u32,
    comm: String,
    allocator: Allocator,
}

/// Leaves those that have an agent; tells the others, and those whose mappings cannot be read.
fn with_agent(scene: &Scene, found: &mut Found) -> (Vec<Without>, Option<String>) {
    let (mut without, mut denied) = (Vec::new(), None);
    let all = std::mem::take(&mut found.processes);
    for process in all {
        let path = scene.host.path(format!("/proc/{}/maps", process.pid));
        match fs::read_to_string(path) {
            Ok(maps) if agent::is_loaded(&maps) => found.processes.push(process),
            Ok(maps) => without.push(Without {
                pid: process.pid,
                allocator: Allocator::of(&maps),
                comm: process.comm,
            }),
            Err(error) => {
                denied = denied.or(Some(format!(
                    "/proc/{}/maps: {error}; run it as root",
                    process.pid
                )));
            }
        }
    }
    (without, denied)
}

/// Why nothing can be done where no process has an agent.
fn no_agent(found: &Found, argument: &str, without: &[Without], denied: Option<String>) -> Failure {
    let Some(first) = without.first() else {
        return Failure::unsupported(match denied {
            Some(why) => why,
            None => format!("{}: has no process", printable(&found.name)),
        });
    };
    let process = format!("pid {} ({})", first.pid, printable(&first.comm));
    let who = match &found.wanted {
        Wanted::Process => format!("no release agent in {process}"),
        Wanted::Cgroup if without.len() == 1 => format!(
            "no release agent in {}, whose process is {process}",
            printable(&found.name)
        ),
        Wanted::Cgroup => format!(
            "no release agent in any of the {} processes of {}, such as {process}",
            without.len(),
            printable(&found.name),
        ),
    };
    let start = match agent::agent_library() {
        _ if first.allocator == Allocator::Static => String::new(),
        Ok(library) => format!("; started with LD_PRELOAD={} it has one", library.display()),
        Err(_) => format!(
            "; started with LD_PRELOAD=/path/of/{} it has one",
            agent::library::FILE
        ),
    };
    Failure::unsupported(format!(
        "{who}: {}{start}; from outside, `grey-ebpf enforce pageout {} --cold` takes what is not used",
        first.allocator.advice(),
        printable(argument)
    ))
}

fn names(without: &[Without]) -> String {
    let mut names: Vec<String> = without
        .iter()
        .take(NAMED)
        .map(|process| format!("pid {} ({})", process.pid, printable(&process.comm)))
        .collect();
    if without.len() > NAMED {
        names.push(format!("{} more", without.len() - NAMED));
    }
    format!("left out: {}: no release agent", names.join(", "))
}

fn unanswered(process: &Process, error: &AgentError) -> Failure {
    let text = format!(
        "pid {} ({}): {error}",
        process.pid,
        printable(&process.comm)
    );
    match error {
        AgentError::Nobody
        | AgentError::Another(_)
        | AgentError::Denied(_)
        | AgentError::Refused
        | AgentError::Version(_) => Failure::unsupported(format!(
            "{text}; `grey-ebpf enforce pageout {} --cold` works from outside",
            process.pid
        )),
        AgentError::Silent(_) | AgentError::BrokenOff | AgentError::Other(..) => {
            Failure::failed(text)
        }
    }
}

impl Actuator for Trim<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        if common.lease.is_some() {
            return Err(Failure::usage(
                "trim: has no --lease, as there is nothing to take back: what is in use is not touched",
            ));
        }
        let mut found = target::find(scene, &self.args.target)?;
        let (without, denied) = with_agent(scene, &mut found);
        if found.processes.is_empty() {
            return Err(no_agent(&found, &self.args.target, &without, denied));
        }
        if !without.is_empty() {
            found.left_out.push(names(&without));
        }
        let (mut sum, mut told, mut failure) = (None, Vec::new(), None);
        let mut left = Vec::new();
        for process in found.processes.drain(..) {
            let question = Question::Stat { wait: PLAN_WAIT };
            match agent::ask(&scene.host, process.pid, question, &mut || true) {
                Ok(answer) => {
                    let smaps = scene.host.path(format!("/proc/{}/smaps", process.pid));
                    let smaps = fs::read(smaps).unwrap_or_default();
                    let bytes = agent::expect::expected(&answer, &smaps);
                    sum = bytes.map_or(sum, |bytes| Some(sum.unwrap_or(0) + bytes));
                    let anon = memory(scene, &process).and_then(|memory| memory.anon);
                    told.push(words::expectation(process.pid, &answer, bytes, anon));
                    left.push(process);
                }
                Err(error) => {
                    let why = unanswered(&process, &error);
                    found.left_out.push(format!("left out: {}", why.message));
                    failure = failure.or(Some(why));
                }
            }
        }
        found.processes = left;
        if let (true, Some(failure)) = (found.processes.is_empty(), failure) {
            return Err(failure);
        }
        let action = ActionPlan {
            id: None,
            kind: "trim".to_owned(),
            target: found.name.clone(),
            planned_bytes: sum,
            reason: common.reason.clone(),
            dry_run: false,
            writes: self.writes(&found),
            effect: Some(effect(&told, sum, &found.left_out)),
            lease_s: None,
            policy: None,
            expected_harm: None,
        };
        let target = reopen(scene, &found.target)?;
        self.found = Some(found);
        Ok(Plan {
            action,
            target: Some(target),
            lease: None,
        })
    }

    fn act(&mut self, act: &mut Act<'_>) -> Result<(), Failure> {
        let Some(found) = &self.found else {
            return Err(Failure::failed("trim: without a plan"));
        };
        let scene = Rc::clone(&act.session.scene);
        act.notes.extend(found.left_out.iter().cloned());
        let mut failure = None;
        let mut done = 0_usize;
        for (at, process) in found.processes.iter().enumerate() {
            act.session.poll()?;
            let mut broken = None;
            let asked = agent::ask(&scene.host, process.pid, self.question(), &mut || {
                broken = act.session.poll().err();
                broken.is_none()
            });
            if let Some(broken) = broken {
                return Err(broken);
            }
            match asked {
                Ok(answer) if answer.busy => {
                    failure = failure.or(Some(Failure::failed(format!(
                        "pid {} ({}): has one thread, which did not come to rest; its allocator is only called when that is certain to be outside it; a longer --wait may see it",
                        process.pid,
                        printable(&process.comm)
                    ))));
                }
                Ok(answer) => {
                    done += 1;
                    if at < NAMED {
                        act.notes.extend(told(process, &answer));
                    }
                }
                Err(error) => {
                    failure = failure.or(Some(unanswered(process, &error)));
                }
            }
        }
        match failure {
            Some(failure) if done == 0 => Err(failure),
            Some(failure) => {
                act.notes.push(format!("left out: {}", failure.message));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn measure(&self, scene: &Scene, target: Option<&Target>) -> ActionState {
        measured(self.found.as_ref(), scene, target)
    }
}

impl Trim<'_> {
    fn writes(&self, found: &Found) -> Vec<PlannedWrite> {
        let what = if self.args.no_collector {
            "trim"
        } else {
            "collect, trim"
        };
        let write = |file: String| PlannedWrite {
            file,
            old: None,
            new: what.to_owned(),
            reversible: false,
        };
        if found.processes.len() > NAMED {
            return vec![write(format!(
                "agents of {} processes",
                found.processes.len()
            ))];
        }
        let each = found.processes.iter();
        each.map(|process| write(format!("agent of pid {}", process.pid)))
            .collect()
    }
}

/// What is to be expected of all of them.
fn effect(told: &[String], sum: Option<u64>, left_out: &[String]) -> String {
    let mut effect = match told {
        [one] => one.clone(),
        several => {
            let sum = sum.map_or("nothing that is known".to_owned(), |sum| {
                format!("up to {}", format_bytes(sum))
            });
            format!("{sum} of {} processes", several.len())
        }
    };
    for why in left_out {
        effect.push_str("; ");
        effect.push_str(why);
    }
    effect
}

/// What came of one process, in words: its layers one by one.
fn told(process: &Process, answer: &Answer) -> Vec<String> {
    let mut text = format!("pid {} ({}):", process.pid, printable(&process.comm));
    let size = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), format_bytes);
    text.push_str(&format!(" {}", size(answer.rss_before)));
    match answer.collector_state.as_deref() {
        Some("done") => text.push_str(&format!(
            " -> {} by CPython's collector ({} objects)",
            size(answer.rss_collected),
            answer.collected.unwrap_or(0)
        )),
        Some("off") => text.push_str(" -> CPython's collector is switched off by the program"),
        Some("later") => text.push_str(
            " -> CPython's collector runs when the main thread next gets to it, which it did not in time",
        ),
        Some(_) => text.push_str(" -> CPython's collector could not be asked"),
        None => {}
    }
    match answer.allocator.as_str() {
        "unknown" => text.push_str("; its allocator is none that can be told to"),
        allocator => text.push_str(&format!(" -> {} by {allocator}", size(answer.rss_after))),
    }
    if let Some(us) = answer.took_us {
        text.push_str(&format!(", in {}", format_duration_us(us)));
    }
    let mut notes = vec![text];
    if answer.allocator == "mimalloc" {
        notes.push(format!(
            "pid {}: mimalloc's heaps belong to threads; those of threads that live give back only what they give back themselves",
            process.pid
        ));
    }
    notes
}
