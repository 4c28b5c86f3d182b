//! `replay`: recordings through the detector as fast as they can be read. docs/replay.md is its page.

mod args;
mod decide;
mod gunzip;
mod input;
mod losses;
mod progress;
mod report;
mod tell;

use std::io;

use grey_core::glob::{self, CgroupFilter};
use grey_core::replay::{Options, Replay};

use crate::cli::{Exit, Failure, Switch};
use crate::host;

pub(crate) use args::EXAMPLES;
pub use args::ReplayArgs;
use input::{Input, Piece};
use progress::Progress;
use tell::Tell;

/// Where the v2 tree nearly always is: a cgroup may be named by its absolute path. A recording does not tell.
const MOUNT: &str = "/sys/fs/cgroup";
/// Descriptors beside those of the inputs.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs `replay` to its end.
pub fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    let filter = CgroupFilter::new(&args.cgroup, MOUNT)
        .map_err(|error| Failure::usage(format!("--cgroup: {error}")))?;
    let mut inputs = open(args)?;
    let window_us = i64::try_from(args.reorder.as_micros()).unwrap_or(i64::MAX);
    let mut decide = decide::decide(args, window_us)?;
    let mut replay = Replay::new(Options {
        window_us,
        processes: args.processes == Switch::On,
    });
    for _ in &inputs {
        replay.add_input();
    }
    let mut tell = Tell::new(args.json);
    let mut progress = Progress::new(&inputs);
    let mut broken = None;
    let mut verdicts = Vec::new();
    while let Some(index) = replay.wants() {
        let read = inputs[index].read(|piece| match piece {
            Piece::Line(line) => {
                replay.line(index, line);
                if let Some(decide) = &mut decide {
                    decide.line(index, line);
                }
            }
            Piece::TooLong => replay.bad_line(index, "longer than 1 MiB"),
        });
        if !matches!(read, Ok(true)) {
            replay.end(index);
            if let Some(decide) = &mut decide {
                decide.end(index);
            }
        }
        if let Err(error) = read {
            // What was read before is used all the same.
            broken.get_or_insert_with(|| unreadable(&inputs[index].name, &error));
        }
        replay.advance(&mut verdicts);
        if let Some(decide) = &mut decide {
            let mut told = Vec::new();
            decide.advance(&mut verdicts, &mut told);
            verdicts = told;
        }
        verdicts.retain(|event| {
            event
                .cgroup
                .as_ref()
                .is_some_and(|cgroup| filter.matches(&cgroup.path, &cgroup.name))
        });
        if !verdicts.is_empty() {
            progress.clear();
            if !tell.verdicts(verdicts.drain(..))? {
                return Ok(Exit::Done);
            }
        }
        progress.draw(&inputs, &replay, tell.count());
    }
    progress.clear();
    if !replay.stats().usable() && broken.is_none() {
        return Err(Failure::failed(losses::nothing(&inputs, replay.stats())));
    }
    check_filter(args, &replay)?;
    if !tell.end(&inputs, &replay, decide.as_ref())? {
        return Ok(Exit::Done);
    }
    losses::tell(&inputs, replay.stats(), args.reorder);
    match broken {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

fn open(args: &ReplayArgs) -> Result<Vec<Input>, Failure> {
    // All are open at once, so that they can be merged by time.
    if let Err(error) = host::raise_nofile(args.files.len() as u64 + OTHER_DESCRIPTORS) {
        tracing::debug!("{error}");
    }
    args.files
        .iter()
        .map(|path| {
            Input::open(path).map_err(|error| unreadable(&path.display().to_string(), &error))
        })
        .collect()
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "check the name",
        io::ErrorKind::PermissionDenied => "run as somebody who may read it",
        io::ErrorKind::IsADirectory => "name the files in it",
        _ => "copy it to a sound disk and try again",
    };
    Failure::failed(format!("{name}: {error}; {remedy}"))
}

/// A cgroup that was named must be in the recording: silence about it would look like good news.
fn check_filter(args: &ReplayArgs, replay: &Replay) -> Result<(), Failure> {
    for pattern in &args.cgroup {
        let one = CgroupFilter::new(std::slice::from_ref(pattern), MOUNT)
            .map_err(|error| Failure::usage(format!("--cgroup: {error}")))?;
        let found = replay
            .identities()
            .any(|cgroup| one.matches(&cgroup.path, &cgroup.name));
        if !found {
            let what = if glob::is_literal(pattern) {
                "no cgroup"
            } else {
                "no cgroup matches"
            };
            return Err(Failure::usage(format!(
                "--cgroup: {what} '{pattern}' among the {} recorded; see the paths in the file",
                replay.cgroups()
            )));
        }
    }
    Ok(())
}
