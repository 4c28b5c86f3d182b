//! `enforce pageout`: anonymous memory of a process, or of a cgroup's processes, goes to swap.

mod cold;
mod maps;
mod room;
pub(super) mod take;
pub(super) mod target;
mod worker;

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use grey_core::event::{ActionPlan, ActionState, PlannedWrite};
use grey_core::units::{self, Size, format_bytes};
use grey_core::view::printable;
use rustix::io::Errno;

use crate::act::session::refused;
use crate::act::{Scene, Target};
use crate::cli::{self, Failure};

use self::take::{Budget, Taken, WORTH_TELLING, mappings, measured, memory, take, told};
use self::target::{Found, Process, Wanted};

use super::{Act, Actuator, Common, Plan, time};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce pageout 1234 --cold                  what process 1234 does not touch for 10s
  grey-ebpf enforce pageout web.service --cold --idle 1m --max 512M --observe 1m
  grey-ebpf enforce pageout 1234 --all --dry-run         all its anonymous memory: what would be done

Takes private anonymous memory only: no stacks, no locked, shared, file or hugetlb memory. It needs swap (zram is
enough). A page comes back, with a delay, when the process next touches it; that cannot be taken back otherwise.";

/// Processes that are named one by one.
const NAMED: usize = 8;

/// Arguments of `pageout`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which"))]
pub struct PageoutArgs {
    /// Process id, or path, unit or container name of a cgroup
    #[arg(value_name = "PID|CGROUP", allow_negative_numbers = true)]
    pub target: String,
    /// Only what is not touched during --idle, as without --all
    #[arg(long, group = "which")]
    pub cold: bool,
    /// All its anonymous memory, also what is in use
    #[arg(long, group = "which")]
    pub all: bool,
    /// How long memory must not be touched to be cold
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    pub idle: Duration,
    /// At most so much; percent of what could be taken
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max: Option<Size>,
    /// Look on for this time how much of it comes back
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub observe: Option<Duration>,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = cli::duration(text)?;
    if span < Duration::from_millis(100) || span > Duration::from_secs(24 * 3600) {
        return Err("a time to look on is between 100ms and 24h".to_owned());
    }
    Ok(span)
}

fn size(text: &str) -> Result<Size, String> {
    let size = units::parse_size(text).map_err(|error| error.to_string())?;
    if size.bytes_of(u64::MAX) == 0 {
        return Err("nothing is to be taken".to_owned());
    }
    Ok(size)
}

/// The action.
pub(crate) struct Pageout<'a> {
    args: &'a PageoutArgs,
    found: Option<Found>,
    budget: u64,
}

impl<'a> Pageout<'a> {
    pub(crate) fn new(args: &'a PageoutArgs) -> Self {
        Pageout {
            args,
            found: None,
            budget: 0,
        }
    }

    fn effect(&self, found: &Found, eligible: u64) -> String {
        let mut effect = match (!self.args.all, found.processes.len()) {
            (true, _) => format!(
                "what of {} is not touched for {} goes to swap; until then all of it counts as unused for the kernel, which would take it first if memory ran short",
                format_bytes(eligible),
                time(self.args.idle)
            ),
            (false, _) => format!(
                "{} go to swap, also what is in use: it comes back when it is touched, with a delay",
                format_bytes(self.budget.min(eligible))
            ),
        };
        if found.wanted == Wanted::Cgroup {
            effect.push_str(&format!("; of {} processes", found.processes.len()));
        }
        effect
    }

    fn writes(&self, found: &Found) -> Vec<PlannedWrite> {
        let write = |file: String, new: &str| PlannedWrite {
            file,
            old: None,
            new: new.to_owned(),
            reversible: false,
        };
        let each = |of: &dyn Fn(&Process) -> String, all: String, new: &str| {
            if found.processes.len() > NAMED {
                vec![write(all, new)]
            } else {
                found
                    .processes
                    .iter()
                    .map(|process| write(of(process), new))
                    .collect()
            }
        };
        let count = found.processes.len();
        each(
            &|process| format!("process_madvise pid {}", process.pid),
            format!("process_madvise of {count} processes"),
            if !self.args.all {
                "MADV_COLD, MADV_PAGEOUT"
            } else {
                "MADV_PAGEOUT"
            },
        )
    }
}

impl Actuator for Pageout<'_> {
    fn plan(&mut self, scene: &Scene, common: &Common) -> Result<Plan, Failure> {
        if common.lease.is_some() {
            return Err(Failure::usage(
                "pageout: has no --lease, as it cannot be taken back; --observe looks on for a time",
            ));
        }
        let mut found = target::find(scene, &self.args.target)?;
        allowed(&mut found)?;
        let mut eligible = 0;
        let mut left = Vec::new();
        for process in found.processes.drain(..) {
            match mappings(scene, &process, &mut || Ok(())) {
                Ok(mappings) => {
                    eligible += mappings.iter().map(|mapping| mapping.anon).sum::<u64>();
                    left.push(process);
                }
                // Ended meanwhile.
                Err(_) if found.wanted == Wanted::Cgroup && !process.lives() => {}
                Err(failure) => return Err(failure),
            }
        }
        found.processes = left;
        if found.processes.is_empty() {
            let why = found
                .left_out
                .first()
                .map_or(String::new(), |why| format!(" ({why})"));
            return Err(Failure::usage(format!(
                "{}: has no process in it or below whose memory could be taken{why}",
                printable(&found.name)
            )));
        }
        let room = room::room(scene, &found.target.path)
            .map_err(|why| Failure::unsupported(format!("{}: {why}", printable(&found.name))))?;
        let cap = scene.safety.cap;
        let wanted = match self.args.max {
            Some(max) => max.bytes_of(eligible),
            None => cap,
        };
        if self.args.max.is_some() && wanted > cap {
            return Err(refused(format!(
                "--max: {} is more than {}, the most of one request",
                format_bytes(wanted),
                format_bytes(cap)
            )));
        }
        self.budget = wanted;
        let action = ActionPlan {
            id: None,
            kind: "pageout".to_owned(),
            target: found.name.clone(),
            planned_bytes: Some(wanted.min(eligible).min(room.bytes)),
            reason: common.reason.clone(),
            dry_run: false,
            writes: self.writes(&found),
            effect: Some(self.effect(&found, eligible)),
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
            return Err(Failure::failed("pageout: without a plan"));
        };
        let scene = Rc::clone(&act.session.scene);
        act.notes.extend(found.left_out.iter().cloned());
        // A process that ends meanwhile is a failure only where it is the only one that was meant.
        let alone = found.wanted == Wanted::Process;
        let mut gone = 0;
        let mut here: Vec<&Process> = Vec::new();
        for process in &found.processes {
            let forgot = if !self.args.all {
                cold::forget(act.session, &scene, process)
            } else {
                Ok(())
            };
            match forgot {
                Ok(()) => here.push(process),
                Err(_) if !alone && !process.lives() => gone += 1,
                Err(failure) => return Err(failure),
            }
        }
        if !self.args.all {
            act.tell
                .progress(&format!("looking on for {}", time(self.args.idle)));
            let waited = act.session.wait(self.args.idle);
            act.tell.clear();
            waited?;
        }
        let mut budget = Budget {
            left: self.budget,
            bound: match self.args.max {
                Some(_) => "--max is reached".to_owned(),
                None => format!("{} are the most of one request", format_bytes(self.budget)),
            },
            over: false,
        };
        let mut sum = Taken::default();
        for (at, process) in here.iter().enumerate() {
            if budget.over {
                break;
            }
            let before = memory(&scene, process);
            let cold = !self.args.all;
            let taken = match take(
                act.session,
                &scene,
                &found.target,
                process,
                cold,
                &mut budget,
            ) {
                Ok(taken) => taken,
                Err(_) if !alone && !process.lives() => {
                    gone += 1;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let after = memory(&scene, process);
            if at < NAMED
                && let (Some(before), Some(after)) = (before, after)
            {
                act.notes
                    .push(told(process, &before, &after, &taken, cold, self.args.idle));
            }
            sum.advised += taken.advised;
            sum.refused += taken.refused;
            sum.touched += taken.touched;
            sum.mixed += taken.mixed;
        }
        if here.len() > NAMED {
            act.notes.push(format!(
                "{} processes in all: {} given to swap",
                here.len(),
                format_bytes(sum.advised)
            ));
        }
        if gone > 0 {
            act.notes.push(format!("{gone} processes ended meanwhile"));
        }
        if sum.mixed >= WORTH_TELLING {
            act.notes.push(format!(
                "{} more were not touched either, but lie among touched pages; this kernel does not tell which they are",
                format_bytes(sum.mixed)
            ));
        }
        if sum.refused > 0 {
            act.notes.push(format!(
                "the kernel refused {} ranges that were unmapped or locked meanwhile",
                sum.refused
            ));
        }
        if budget.over {
            act.notes
                .push(format!("{}; more could be taken", budget.bound));
        }
        Ok(())
    }

    fn observe(&self) -> Option<Duration> {
        self.args.observe
    }

    fn measure(&self, scene: &Scene, target: Option<&Target>) -> ActionState {
        measured(self.found.as_ref(), scene, target)
    }
}

/// The helper of `pageout`, if these are its arguments: no command, and nothing that anybody types.
#[must_use]
pub fn helper(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    worker::main(args)
}

/// Leaves out whom we may not touch; an error if that is all.
fn allowed(found: &mut Found) -> Result<(), Failure> {
    let mut denied = None;
    found
        .processes
        .retain(|process| match worker::check(process.pidfd.as_fd()) {
            Ok(()) => true,
            Err(Errno::SRCH) => false,
            Err(error) => {
                denied = denied.take().or(Some((process.pid, error)));
                false
            }
        });
    match denied {
        Some((_, Errno::NOSYS)) => Err(Failure::unsupported(
            "process_madvise: not in this kernel; processes can be paged out since Linux 5.10",
        )),
        Some((pid, _)) if found.processes.is_empty() => Err(Failure::unsupported(format!(
            "pid {pid}: paging it out takes CAP_SYS_NICE and the right to trace it; run it as root"
        ))),
        Some((pid, _)) => {
            found.left_out.push(format!(
                "left out: pid {pid} and maybe more, which may not be traced"
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

/// A second handle of the same cgroup: one stays with what was found.
pub(super) fn reopen(scene: &Scene, target: &Target) -> Result<Target, Failure> {
    let dir = target.dir.try_clone().map_err(|error| {
        Failure::failed(format!(
            "{}: {error}",
            scene.cgroups.reach(&target.path).display()
        ))
    })?;
    Ok(Target {
        path: target.path.clone(),
        id: target.id,
        dir,
    })
}
