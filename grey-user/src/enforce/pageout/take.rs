//! One process's memory given to swap, in bounded batches.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use grey_core::event::ActionState;
use grey_core::units::format_bytes;
use grey_core::view::printable;

use crate::act::{Scene, Session, Target, measure};
use crate::cli::Failure;
use crate::host::{ProcFs, ProcMem};

use super::super::time;
use super::maps::{self, Mapping, Range, Tick};
use super::target::{Found, Process, Wanted};
use super::worker::{Advice, Answer, MAX_RANGES, Worker};
use super::{cold, room};

/// Addresses that are looked at in one step.
pub(super) const WINDOW: u64 = 64 << 20;
/// Less is not told.
pub(super) const WORTH_TELLING: u64 = 1 << 20;

/// What became of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Bytes the kernel was told of.
    pub advised: u64,
    /// Ranges it refused.
    pub refused: u64,
    /// See [`cold::Selection`].
    pub touched: u64,
    pub mixed: u64,
    /// What the mappings held of what could be taken.
    pub eligible: u64,
}

/// What is left of a request.
#[derive(Debug)]
pub(super) struct Budget {
    pub left: u64,
    /// What bounds it.
    pub bound: String,
    /// Whether it was used up before everything was taken.
    pub over: bool,
}

pub(super) fn ended(process: &Process) -> Failure {
    Failure::failed(format!(
        "pid {} ({}): has ended meanwhile",
        process.pid,
        printable(&process.comm)
    ))
}

pub(super) fn reading_failed(process: &Process, path: &str, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT) => ended(process),
        Some(libc::EACCES | libc::EPERM) => {
            Failure::unsupported(format!("{path}: {error}; run it as root"))
        }
        _ => Failure::failed(format!("{path}: {error}")),
    }
}

/// What a process has that may be taken.
pub(super) fn mappings(
    scene: &Scene,
    process: &Process,
    tick: Tick<'_>,
) -> Result<Vec<Mapping>, Failure> {
    let path = format!("/proc/{}/smaps", process.pid);
    let (host, pid) = (scene.host.clone(), process.pid);
    let read = maps::patiently(&path, scene.safety.write_timeout, tick, move || {
        maps::read(&host, pid)
    })?;
    let mappings = read.map_err(|error| reading_failed(process, &path, &error))?;
    if process.lives() {
        Ok(mappings)
    } else {
        Err(ended(process))
    }
}

/// The pages of a window that may be taken.
pub(super) fn resident(
    scene: &Scene,
    process: &Process,
    window: Range,
    tick: Tick<'_>,
) -> Result<Vec<Range>, Failure> {
    let pagemap = cold::pagemap(scene, process)?;
    if !process.lives() {
        return Err(ended(process));
    }
    let path = format!("/proc/{}/pagemap", process.pid);
    let page = rustix::param::page_size() as u64;
    maps::patiently(&path, scene.safety.write_timeout, tick, move || {
        maps::resident(&pagemap, &window, page)
    })?
    .map_err(|error| reading_failed(process, &path, &error))
}

fn stacks(session: &mut Session, scene: &Scene, process: &Process) -> Result<Vec<Range>, Failure> {
    let path = format!("/proc/{}/task", process.pid);
    let (host, pid) = (scene.host.clone(), process.pid);
    maps::patiently(
        &path,
        scene.safety.write_timeout,
        &mut || session.poll(),
        move || maps::stacks(&host, pid),
    )
}

pub(in crate::enforce) fn memory(scene: &Scene, process: &Process) -> Option<ProcMem> {
    let memory = ProcFs::open(&scene.host).ok()?.memory(process.pid).ok()??;
    process.lives().then_some(memory)
}

/// The figures of who was meant: of the process by itself, of its cgroup, of the machine.
pub(in crate::enforce) fn measured(
    found: Option<&Found>,
    scene: &Scene,
    target: Option<&Target>,
) -> ActionState {
    let state = match target {
        Some(target) => measure::cgroup(scene, target),
        None => measure::machine(scene),
    };
    let Some(Found {
        wanted: Wanted::Process,
        processes,
        ..
    }) = found
    else {
        return state;
    };
    let memory = processes
        .first()
        .and_then(|process| memory(scene, process))
        .unwrap_or_default();
    ActionState {
        current: None,
        anon: memory.anon,
        file: memory.file,
        swap: memory.swap,
        rss: memory.rss,
        ..state
    }
}

/// Pages one process out, as far as the budget goes.
pub(super) fn take(
    session: &mut Session,
    scene: &Scene,
    target: &Target,
    process: &Process,
    cold: bool,
    budget: &mut Budget,
) -> Result<Taken, Failure> {
    let mut worker = start(process)?;
    let mut taken = Taken::default();
    let ranges = if cold {
        let selection = cold::select(session, scene, process, budget.left)?;
        taken.touched = selection.touched;
        taken.mixed = selection.mixed;
        selection.cold
    } else {
        let mappings = mappings(scene, process, &mut || session.poll())?;
        taken.eligible = mappings.iter().map(|mapping| mapping.anon).sum();
        mappings.into_iter().map(|mapping| mapping.range).collect()
    };
    let page = rustix::param::page_size() as u64;
    let spared = stacks(session, scene, process)?;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let window = at..(at / WINDOW + 1).saturating_mul(WINDOW).min(range.end);
            at = window.end;
            let pages = resident(scene, process, window, &mut || session.poll())?;
            let mut pages = maps::without(pages, &spared, page);
            pages.reverse();
            while !pages.is_empty() {
                bound(scene, target, budget);
                let batch = batch(&mut pages, scene.safety.step.min(budget.left));
                if batch.is_empty() {
                    budget.over = true;
                    return Ok(taken);
                }
                let answer = advise(
                    session,
                    scene,
                    process,
                    &mut worker,
                    Advice::Pageout,
                    &batch,
                )?;
                taken.advised += answer.advised;
                taken.refused += answer.refused;
                budget.left = budget.left.saturating_sub(answer.advised);
            }
        }
    }
    Ok(taken)
}

pub(super) fn start(process: &Process) -> Result<Worker, Failure> {
    Worker::start(process.pidfd.as_fd()).map_err(|error| {
        Failure::failed(format!(
            "a helper process cannot be started: {error}; nothing more was done"
        ))
    })
}

/// One request to the helper.
pub(super) fn advise(
    session: &mut Session,
    scene: &Scene,
    process: &Process,
    worker: &mut Worker,
    advice: Advice,
    ranges: &[Range],
) -> Result<Answer, Failure> {
    let timeout = scene.safety.write_timeout;
    let answer = worker.advise(advice, ranges, timeout, &mut || session.poll())?;
    session.poll()?;
    if answer.error == 0 {
        return Ok(answer);
    }
    let error = io::Error::from_raw_os_error(answer.error as i32);
    let call = format!("process_madvise pid {}", process.pid);
    Err(reading_failed(process, &call, &error))
}

/// No more than swap can take now.
fn bound(scene: &Scene, target: &Target, budget: &mut Budget) {
    match room::room(scene, &target.path) {
        Ok(room) if room.bytes < budget.left => {
            budget.left = room.bytes;
            budget.bound = format!("{} has no more room", room.bound);
        }
        Ok(_) => {}
        Err(why) => {
            budget.left = 0;
            budget.bound = why;
        }
    }
}

/// The next ranges, at most `bytes` and [`MAX_RANGES`] of them; `pages` is in reverse order.
fn batch(pages: &mut Vec<Range>, bytes: u64) -> Vec<Range> {
    let page = rustix::param::page_size() as u64;
    let mut left = bytes / page * page;
    let mut batch = Vec::new();
    while left > 0
        && batch.len() < MAX_RANGES
        && let Some(mut range) = pages.pop()
    {
        let length = range.end - range.start;
        if length > left {
            pages.push(range.start + left..range.end);
            range.end = range.start + left;
        }
        left -= range.end - range.start;
        batch.push(range);
    }
    batch
}

/// What became of a process, in words.
pub(super) fn told(
    process: &Process,
    before: &ProcMem,
    after: &ProcMem,
    taken: &Taken,
    cold: bool,
    idle: Duration,
) -> String {
    let mut text = format!("pid {} ({}):", process.pid, printable(&process.comm));
    let figure = |from: Option<u64>, to: Option<u64>| {
        let bytes = |figure: Option<u64>| figure.map_or("?".to_owned(), format_bytes);
        format!("{} -> {}", bytes(from), bytes(to))
    };
    text.push_str(&format!(
        " resident anonymous {}, swapped {}",
        figure(before.anon, after.anon),
        figure(before.swap, after.swap)
    ));
    if cold {
        text.push_str(&format!(
            "; {} were touched within {}",
            format_bytes(taken.touched),
            time(idle)
        ));
    }
    if let Some(anon) = before.anon
        && !cold
        && anon >= taken.eligible + WORTH_TELLING
    {
        text.push_str(&format!(
            "; {} left alone: stacks, locked, or of files",
            format_bytes(anon - taken.eligible)
        ));
    }
    let gone = before
        .anon
        .zip(after.anon)
        .map(|(before, after)| before.saturating_sub(after));
    if taken.advised >= WORTH_TELLING && gone.is_some_and(|gone| gone < taken.advised / 2) {
        text.push_str(&format!(
            "; of {} the kernel took about {}",
            format_bytes(taken.advised),
            format_bytes(gone.unwrap_or(0))
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_bytes_and_ranges_and_lose_nothing() {
        const P: u64 = 4096;
        let all: Vec<Range> = (0..2000).map(|at| at * 2 * P..at * 2 * P + P).collect();
        let mut pages = all.clone();
        pages.push(1 << 30..(1 << 30) + 100 * P);
        let want: u64 = pages.iter().map(|range| range.end - range.start).sum();
        pages.reverse();
        let mut got = 0;
        while !pages.is_empty() {
            let batch = batch(&mut pages, 64 * P + 1);
            let bytes: u64 = batch.iter().map(|range| range.end - range.start).sum();
            assert!(bytes <= 64 * P && !batch.is_empty() && batch.len() <= MAX_RANGES);
            got += bytes;
        }
        assert_eq!(got, want);
        let mut pages = all;
        pages.reverse();
        assert_eq!(batch(&mut pages, u64::MAX).len(), MAX_RANGES);
        assert!(batch(&mut pages, P - 1).is_empty());
    }
}
