//! `rollback`: takes back what the journal says is in force, newest first. Needs neither daemon nor guard.

use std::path::PathBuf;
use std::rc::Rc;

use grey_core::act::{Action, Fault, Ledger, Phase, Undone};

use crate::act::protect::Protection;
use crate::act::safety::Safety;
use crate::act::session::refused;
use crate::act::{Scene, Session};
use crate::cli::{self, Exit, Failure};
use crate::config;
use crate::host::{CgroupFs, Host};

mod list;
mod tell;
#[cfg(test)]
mod tests;

use tell::Tell;

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf rollback --list             every action, what it changed, and what the files hold now
  grey-ebpf rollback                    take everything back, newest first
  grey-ebpf rollback --id 3             only action 3
  grey-ebpf rollback --id 3 --force     also where somebody else has written to the file since
  grey-ebpf rollback --unfinished       only what was broken off (for systemd: ExecStopPost=)

A file gets its old value back only where it still holds what was written: somebody else's later
write wins and is reported. A cgroup that was removed or made anew is left alone, and so is what is
from before a reboot. While another grey-ebpf acts, what was kept is taken back all the same, but
what that one is in the middle of only with --id or --force: it does not go on with it then.

Exits with 0 also where there was nothing to do; 1 if a file could not be put back (it stays on the
list); 2 if there is no action of that id; 3 without the permission to read the journal or to write
to the files; 4 if the journal cannot be used, or another grey-ebpf is in the middle of something.";

/// Arguments of `rollback`.
#[derive(Clone, Debug, clap::Args)]
pub struct RollbackArgs {
    /// Only show the actions, what they changed and what the files hold now
    #[arg(long, conflicts_with_all = ["force", "unfinished"])]
    pub list: bool,
    /// Only this action
    #[arg(long, value_name = "ID")]
    pub id: Option<u64>,
    /// Overwrite what somebody else has written since, and take back what another grey-ebpf is in the middle of
    #[arg(long)]
    pub force: bool,
    /// Only what was broken off, not what was meant to stay
    #[arg(long, conflicts_with = "id")]
    pub unfinished: bool,
    /// NDJSON on stdout: `rollback` events, or one object an action with --list
    #[arg(long)]
    pub json: bool,
    /// Folder of the journal [default: /var/lib/grey-ebpf, or `state_dir` of the configuration]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/grey-ebpf/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs `rollback`.
///
/// # Errors
/// See the exit codes.
pub fn run(args: &RollbackArgs) -> Result<Exit, Failure> {
    let scene = Rc::new(scene(args)?);
    let mut tell = Tell::new(&scene, args.json);
    if args.list {
        return list::run(&scene, args, &tell);
    }
    let Some((mut session, stale)) = Session::attach(Rc::clone(&scene))? else {
        if let Some(id) = args.id {
            return Err(unknown(id, &scene));
        }
        tell.nothing(&format!("there is no journal in {}", dir(&scene)))?;
        return Ok(Exit::Done);
    };
    tell.damage(&session.damage);
    if let Some(id) = args.id
        && session.ledger().get(id).is_none()
    {
        return Err(unknown(id, &scene));
    }
    let mut sum = Sum::default();
    tell.undone(None, CLOSED, &stale)?;
    sum.add(stale);
    for id in wanted(session.ledger(), args) {
        let Some(action) = session.ledger().get(id).cloned() else {
            continue;
        };
        match one(&mut session, &action, args)? {
            One::Undone(undone) => {
                tell.undone(Some(&action), cause(args), &undone)?;
                sum.add(undone);
            }
            One::Left(pid) => sum.left.push((action, pid)),
        }
    }
    sum.end(&mut tell)
}

/// What is from before the last boot is not undone.
const CLOSED: &str = "boot: what it changed is gone since the last boot";

fn cause(args: &RollbackArgs) -> &'static str {
    if args.unfinished {
        "controller: left behind by one that ended early"
    } else {
        "by hand"
    }
}

/// The actions to take back, newest first.
fn wanted(ledger: &Ledger, args: &RollbackArgs) -> Vec<u64> {
    if let Some(id) = args.id {
        return vec![id];
    }
    ledger
        .actions()
        .rev()
        .filter(|action| action.phase == Phase::Running || (!args.unfinished && action.is_open()))
        .map(|action| action.id)
        .collect()
}

enum One {
    Undone(Undone),
    /// Another process is in the middle of it.
    Left(u32),
}

fn one(session: &mut Session, action: &Action, args: &RollbackArgs) -> Result<One, Failure> {
    let named = args.id.is_some();
    session.in_turn(|session| {
        // As it is now that it is our turn.
        let running = session
            .ledger()
            .get(action.id)
            .is_some_and(|action| action.phase == Phase::Running);
        if running
            && !named
            && !args.force
            && let Some(pid) = session.controller()
        {
            return Ok(One::Left(pid));
        }
        if named && args.force {
            return session.undo_foreign(action.id).map(One::Undone);
        }
        Ok(One::Undone(session.undo(action.id, args.force)))
    })
}

/// What all of it came to.
#[derive(Default)]
struct Sum {
    undone: Undone,
    left: Vec<(Action, u32)>,
}

impl Sum {
    fn add(&mut self, undone: Undone) {
        self.undone.extend(undone);
    }

    fn end(self, tell: &mut Tell<'_>) -> Result<Exit, Failure> {
        let Undone {
            restored,
            skipped,
            failed,
            journal,
        } = &self.undone;
        if let Some(fault) = journal {
            cli::tell(&format!(
                "journal: {fault}; what was taken back is not noted there, and the next rollback looks at it again"
            ));
        }
        if restored.is_empty() && skipped.is_empty() && failed.is_empty() && self.left.is_empty() {
            tell.nothing("no change of ours is in force")?;
        }
        if let Some((knob, fault)) = failed.first() {
            let more = match failed.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let denied = failed.iter().all(|(_, fault)| *fault == Fault::Denied);
            let message = format!("{knob}: not put back: {fault}{more}; ");
            return Err(if denied {
                Failure::unsupported(message + "run it as root")
            } else {
                Failure::failed(message + "it stays on the list, and the next rollback tries again")
            });
        }
        match self.left.first() {
            None => Ok(Exit::Done),
            Some((action, pid)) => Err(refused(format!(
                "action {id}: another grey-ebpf (pid {pid}) is in the middle of it; wait for its end, or take it back \
                 with --id {id}",
                id = action.id
            ))),
        }
    }
}

fn unknown(id: u64, scene: &Scene) -> Failure {
    Failure::usage(format!(
        "--id {id}: there is no such action in the journal in {}; see `grey-ebpf rollback --list`",
        dir(scene)
    ))
}

fn dir(scene: &Scene) -> std::path::Display<'_> {
    scene.state_dir.display()
}

/// The machine, without protection: what we changed is put back wherever it is. A mistake in the configuration must not
/// keep anything in force.
fn scene(args: &RollbackArgs) -> Result<Scene, Failure> {
    let safety = bounds(args)?;
    let host = Host::live();
    let cgroups = CgroupFs::discover(&host);
    Ok(Scene {
        host,
        cgroups,
        state_dir: args
            .state_dir
            .clone()
            .unwrap_or_else(|| safety.state_dir.clone()),
        safety,
        protection: Protection::default(),
    })
}

/// What the configuration says, as far as it can be read. One that was named has to be there, and where it is no TOML
/// nobody knows which folder it would have named.
fn bounds(args: &RollbackArgs) -> Result<Safety, Failure> {
    match config::load_leniently(args.config.as_deref()) {
        Ok((config, errors)) => {
            let Some(first) = errors.first() else {
                return Ok(config.safety);
            };
            let unread = errors.iter().any(|error| error.key.is_none());
            if unread && args.config.is_some() && args.state_dir.is_none() {
                return Err(Failure::usage(format!(
                    "{first}; mend it, or name the folder of the journal with --state-dir"
                )));
            }
            cli::tell(&format!("{first}; going on with what can be read of it"));
            Ok(config.safety)
        }
        Err(failure) if args.config.is_some() => Err(failure),
        Err(failure) => {
            cli::tell(&format!("{}; going on without it", failure.message));
            Ok(Safety::default())
        }
    }
}
