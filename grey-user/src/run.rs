//! `run`: starts a command in a cgroup of its own, with limits, with the release agent, with page merging. The command
//! takes this process's place as it does under `env`: its pid, its terminal, its signals and its exit code are its own.
//! Its limits are those of a cgroup that did not exist before and goes with it, so that there is nothing to take back and no
//! journal of it.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::time::Duration;

use grey_core::units::{self, Size};
use rustix::io::Errno;

use crate::act::agent::agent_library;
use crate::cli::{Exit, Failure, interval, size, tell};
use crate::host::{Host, MemInfo};

mod command;
mod image;
mod ksm;
mod pipe_signal;
mod place;
mod tidy;

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf run --release -- python3 app.py              with the agent that `enforce trim` speaks to
  grey-ebpf run --release --trim-threshold 64M -- app    … which gives back by itself what is held beyond 64M
  grey-ebpf run --high 2G --swap-max 0 -- make -j8       slowed down above 2G, never swapped
  sudo grey-ebpf run --ksm -- qemu-system-x86_64 …       its equal pages may be merged
  systemd-run --user --scope grey-ebpf run --max 1G -- app   without root, in a session that systemd manages

The command takes the place of `grey-ebpf`: pid, terminal, signals and exit code are its own, as under `env`.
Its cgroup is `grey-run-PID-NAME.scope`; it is removed when the last process in it has ended.

Exit codes: those of the command; 126 if it cannot be started, 127 if it is not found, else as of `grey-ebpf` itself.";

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Load the release agent into it, so that `enforce trim` and the daemon can ask it for freed memory
    #[arg(long)]
    pub release: bool,
    /// The agent looks so often by itself, and gives back what is held beyond the threshold (30s)
    #[arg(long, value_name = "TIME", requires = "release", value_parser = interval)]
    pub trim_interval: Option<Duration>,
    /// What the allocator may hold before the agent gives it back by itself (32M with an interval, else never)
    #[arg(long, value_name = "SIZE", requires = "release", value_parser = size)]
    pub trim_threshold: Option<u64>,
    /// Let the kernel merge its equal pages (Linux 6.4, CAP_SYS_RESOURCE); kept by what it starts
    #[arg(long)]
    pub ksm: bool,
    /// memory.high: above it the command is slowed down and its memory reclaimed
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub high: Option<Size>,
    /// memory.max: above it the OOM killer runs
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub max: Option<Size>,
    /// memory.swap.max: what may be swapped out
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub swap_max: Option<Size>,
    /// Stay in the cgroup it is started in
    #[arg(long, conflicts_with_all = ["high", "max", "swap_max"])]
    pub no_cgroup: bool,
    /// Say on stderr where it runs and what was set
    #[arg(long, short)]
    pub verbose: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// What the allocator may hold where only the interval is given.
const THRESHOLD: u64 = 32 << 20;

/// Why the command does not run, and the exit code that says so.
#[derive(Debug)]
struct NotRun {
    code: u8,
    message: String,
}

impl From<Failure> for NotRun {
    fn from(failure: Failure) -> Self {
        NotRun {
            code: failure.exit as u8,
            message: failure.message,
        }
    }
}

/// Only returns where the command could not be started.
pub(crate) fn run(args: &RunArgs) -> ExitCode {
    let not_run = match start(args) {
        Ok(never) => match never {},
        Err(not_run) => not_run,
    };
    tell(&not_run.message);
    ExitCode::from(not_run.code)
}

fn start(args: &RunArgs) -> Result<std::convert::Infallible, NotRun> {
    let host = Host::live();
    let (name, rest) = args
        .command
        .split_first()
        .ok_or_else(|| Failure::usage("run: no command"))?;
    let program = command::find(name, std::env::var_os("PATH").as_deref())?;
    let mut environment = command::Environment::own();
    if args.release {
        preload(args, &program, &mut environment)?;
    }
    let limits = limits(args, &host)?;
    if args.ksm {
        ksm::allow(&host)?;
    }
    let placed = if args.no_cgroup {
        None
    } else {
        Some(place::enter(&host, name, &limits)?)
    };
    if args.verbose {
        verbose(args, placed.as_ref(), &limits, &environment);
    }
    // The other end of its pipe is told by the exec, or by our end.
    let error = command::exec(&program, name, rest, &environment);
    Err(match error {
        Errno::NOENT => NotRun {
            code: 127,
            message: format!(
                "{}: the interpreter in its first line, or its dynamic loader, does not exist",
                program.display()
            ),
        },
        error => NotRun {
            code: 126,
            message: format!("{}: cannot be started: {error}", program.display()),
        },
    })
}

/// Sets the environment in which the agent is loaded; warns where it cannot be.
fn preload(
    args: &RunArgs,
    program: &std::path::Path,
    environment: &mut command::Environment,
) -> Result<(), Failure> {
    let library = agent_library().map_err(|error| Failure::unsupported(error.to_string()))?;
    match image::fits(program, &library) {
        image::Fit::Yes => {}
        image::Fit::ItsChildren(why) => tell(&format!(
            "warning: {}: {why}, so that the release agent does nothing in it; in what it starts it may",
            program.display()
        )),
        image::Fit::No(why) => {
            tell(&format!(
                "warning: {}: {why}, so that it runs without the release agent; `enforce pageout --cold` works from outside",
                program.display()
            ));
            return Ok(());
        }
    }
    environment.preload(&library);
    let by_itself = args.trim_interval.map(|_| THRESHOLD);
    if let Some(threshold) = args.trim_threshold.or(by_itself) {
        // The agent takes 0 for nothing said.
        environment.set("GREY_RELEASE_THRESHOLD", threshold.max(1).to_string());
    }
    if let Some(interval) = args.trim_interval {
        environment.set(
            "GREY_RELEASE_INTERVAL",
            format!("{}ms", interval.as_millis()),
        );
    }
    Ok(())
}

/// The files of the new cgroup and what they are set to.
fn limits(args: &RunArgs, host: &Host) -> Result<Vec<place::Limit>, Failure> {
    let asked = [
        ("memory.high", args.high),
        ("memory.max", args.max),
        ("memory.swap.max", args.swap_max),
    ];
    let mut limits = Vec::new();
    for (file, size) in asked {
        let Some(size) = size else { continue };
        let whole = match size {
            Size::Bytes(_) => 0,
            Size::Percent(_) => MemInfo::read(host)
                .map_err(|error| Failure::failed(error.to_string()))?
                .total
                .unwrap_or(0),
        };
        limits.push(place::Limit {
            file,
            bytes: size.bytes_of(whole),
        });
    }
    Ok(limits)
}

fn verbose(
    args: &RunArgs,
    placed: Option<&String>,
    limits: &[place::Limit],
    environment: &command::Environment,
) {
    if let Some(path) = placed {
        tell(&format!("cgroup {path}"));
    }
    for limit in limits {
        tell(&format!("{} {}", limit.file, limit.bytes));
    }
    for (key, value) in environment.changed() {
        tell(&format!("{}={}", key.display(), value.display()));
    }
    if args.ksm {
        tell("its equal pages may be merged");
    }
}

/// The last part of a path, as far as it makes a name of a cgroup that needs no quoting.
fn plain_name(command: &OsStr) -> String {
    let last = std::path::Path::new(command)
        .file_name()
        .unwrap_or(OsStr::new("command"));
    let plain: String = last
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    plain
}

/// Failing before the command runs is no failure of the command.
const _: () = assert!((Exit::Unsupported as u8) < 126);

#[cfg(test)]
mod tests;
