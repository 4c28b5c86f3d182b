//! `profile`: whose stacks grow. Page-fault stacks of one process or cgroup for a bounded time, with what each of them kept.

mod args;
mod blame;
mod diff;
mod document;
mod flame;
mod fold;
mod maps;
mod moves;
mod names;
mod pprof;
mod resident;
mod symbols;
mod table;
mod take;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use grey_core::units::format_duration_us;
use tokio::signal::unix::{SignalKind, signal};

use crate::act::protect;
use crate::cli::{self, Exit, Failure};
use crate::host::{self, CgroupFs, Host};
use crate::probe::{LoadError, Settings, StackRoom};
use crate::ui::figure;

pub(crate) use args::EXAMPLES;
pub use args::{Format, ProfileArgs, ProfileCommand, TakeArgs, Value};
pub use diff::DiffArgs;
pub use document::{Cost, Frame, Lost, Profile, SCHEMA, Stack};
pub(crate) use take::{Options, TICK, Taking, Target};

/// Between two drawings of the progress.
const REDRAW: Duration = Duration::from_millis(250);

/// Runs `profile`.
///
/// # Errors
/// Bad usage (2), the kernel or the privileges are not enough (3), a file cannot be written (1).
pub fn run(args: &ProfileArgs) -> Result<Exit, Failure> {
    match &args.command {
        Some(ProfileCommand::Diff(args)) => diff::run(args),
        None => take(&args.take),
    }
}

fn take(args: &TakeArgs) -> Result<Exit, Failure> {
    let asked = if args.json {
        Some(Format::Json)
    } else {
        args.format
    };
    let format = Format::chosen(asked, args.output.as_deref())?;
    if let Some(path) = &args.output {
        writable(path)?;
    }
    let host = Host::live();
    let fs = CgroupFs::discover(&host);
    let target = target(args, &host, &fs)?;
    let profile = observe(args, host, fs, target)?;
    let terminal = io::stdout().is_terminal();
    match (format, &args.output) {
        (Some(format), Some(path)) => {
            write(path, &form(&profile, format, args)?)?;
            show(&profile, args, terminal)
        }
        (Some(format), None) => {
            write(Path::new("-"), &form(&profile, format, args)?).map(|()| Exit::Done)
        }
        // A pipe gets what programs read.
        (None, _) if !terminal => {
            write(Path::new("-"), &form(&profile, Format::Json, args)?).map(|()| Exit::Done)
        }
        (None, _) => show(&profile, args, terminal),
    }
}

fn show(profile: &Profile, args: &TakeArgs, terminal: bool) -> Result<Exit, Failure> {
    let width = terminal
        .then(|| crossterm::terminal::size().ok())
        .flatten()
        .map(|(width, _)| usize::from(width).max(40));
    cli::print(&table::text(profile, args.top, width))
}

/// Whom the arguments name.
fn target(args: &TakeArgs, host: &Host, fs: &CgroupFs) -> Result<Target, Failure> {
    match (args.pid, &args.cgroup) {
        (Some(pid), _) if !host.has(format!("/proc/{pid}")) => Err(Failure::usage(format!(
            "--pid {pid}: there is no such process"
        ))),
        (Some(pid), _) => Ok(Target::Process(pid)),
        (None, Some(name)) => Ok(Target::Cgroup(protect::named(host, fs, name)?.0)),
        (None, None) => Err(Failure::usage("name a --cgroup or a --pid")),
    }
}

/// Room for a profile by hand: 17 MB of stacks, 2 MB of counts, 8 MB of pages.
const ROOM: StackRoom = StackRoom {
    stacks: 16_384,
    counts: 16_384,
    pages: 65_536,
};

/// Takes the profile; a signal ends it early and well.
fn observe(args: &TakeArgs, host: Host, fs: CgroupFs, target: Target) -> Result<Profile, Failure> {
    // Before any thread; without it moves by mremap may not be seen.
    if let Err(error) = host::mount_tracefs_privately() {
        tracing::debug!("{error}");
    }
    if let Err(error) = host::raise_memlock() {
        tracing::debug!("{error}");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the event loop: {error}")))?
        .block_on(follow(args, host, fs, target))
}

fn unsupported(error: LoadError) -> Failure {
    match rustix::process::geteuid().is_root() {
        true => Failure::unsupported(format!("{error}; see `grey-ebpf doctor`")),
        false => Failure::unsupported(
            "not root: stacks need CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN; run it as root",
        ),
    }
}

async fn follow(
    args: &TakeArgs,
    host: Host,
    fs: CgroupFs,
    target: Target,
) -> Result<Profile, Failure> {
    let wait = |error: io::Error| Failure::failed(format!("cannot wait for events: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wait)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wait)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(wait)?;
    let options = Options {
        budget: args.overhead,
        room: ROOM,
        symbols_only: false,
    };
    let settings = Settings::default().with_fail_switch();
    // A signal that comes from here on ends it well.
    let mut taking = Taking::start(host, fs, target, options, &settings).map_err(unsupported)?;
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let end = tokio::time::sleep(args.time);
    tokio::pin!(end);
    let terminal = io::stderr().is_terminal();
    let mut drawn: Option<std::time::Instant> = None;
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            _ = ticker.tick() => {
                taking.tick();
                if drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
                    drawn = Some(std::time::Instant::now());
                    if !taking.lives() {
                        break;
                    }
                    if terminal {
                        draw(&taking, args.time);
                    }
                }
            }
        }
    }
    if terminal {
        let _ = io::stderr().write_all(b"\r\x1b[Klooking up names");
    }
    let profile = taking.finish();
    if terminal {
        let _ = io::stderr().write_all(b"\r\x1b[K");
    }
    Ok(profile)
}

/// Draws the line of progress. Nobody misses one that cannot be written.
fn draw(taking: &Taking, time: Duration) {
    let (faults, one_in) = taking.figures();
    let shown = |time: Duration| {
        figure::interval(u64::try_from(time.as_millis() / 100 * 100_000).unwrap_or(u64::MAX))
    };
    let line = format!(
        "\r\x1b[Kprofiling  {} of {}  {} page faults, one page in {one_in} followed  Ctrl-C ends it",
        shown(taking.elapsed()),
        format_duration_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        figure::total(Some(faults)),
    );
    let _ = io::stderr().write_all(line.as_bytes());
}

/// The profile in a form.
fn form(profile: &Profile, format: Format, args: &TakeArgs) -> Result<Vec<u8>, Failure> {
    Ok(match format {
        Format::Json => {
            let mut text = serde_json::to_vec(profile)
                .map_err(|error| Failure::failed(format!("profile: {error}")))?;
            text.push(b'\n');
            text
        }
        Format::Folded => fold::text(&fold::of_profile(profile, args.bytes)).into_bytes(),
        Format::Pprof => {
            pprof::encode(profile).map_err(|error| Failure::failed(format!("profile: {error}")))?
        }
        Format::Svg => {
            let folded = fold::of_profile(profile, args.bytes);
            if folded.is_empty() {
                let hint = match args.bytes {
                    Value::Kept if profile.faulted_bytes > 0 => {
                        "nothing was kept, so there is nothing to draw; add --bytes faulted"
                    }
                    _ => {
                        "no memory came in, so there is nothing to draw; give it more time with --for"
                    }
                };
                return Err(Failure::failed(hint));
            }
            let text = fold::text(&folded);
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let target = match (&profile.cgroup, profile.pid) {
                (Some(path), _) => path.clone(),
                (None, pid) => format!("pid {}", pid.unwrap_or(0)),
            };
            let subtitle = format!(
                "{} on {}, {}",
                format_duration_us(profile.duration_ms.saturating_mul(1000)),
                profile.host,
                profile.ts
            );
            flame::svg(
                &format!("Memory {} by {target}", args.bytes.word()),
                &subtitle,
                &lines,
            )?
        }
    })
}

/// Whether a file can be made there: nobody wants to learn that after a minute of profiling.
fn writable(path: &Path) -> Result<(), Failure> {
    use rustix::fs::{Access, access};
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.as_os_str() == "-" {
        return Ok(());
    }
    if path.is_dir() {
        return Err(Failure::usage(format!(
            "-o {}: is a directory; name a file in it",
            path.display()
        )));
    }
    access(folder, Access::WRITE_OK).map_err(|error| {
        Failure::failed(format!(
            "-o {}: {}: {error}; name a file in a folder you may write to",
            path.display(),
            folder.display()
        ))
    })
}

/// Writes a file whole or not at all; `-` is stdout.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        let mut out = io::stdout();
        return match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(cli::stdout_failed(&error))
            }
            _ => Ok(()),
        };
    }
    let mut new = OsString::from(path);
    new.push(".new");
    let result = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path));
    result.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        Failure::failed(format!(
            "-o {}: {error}; make room there or write somewhere else",
            path.display()
        ))
    })
}
