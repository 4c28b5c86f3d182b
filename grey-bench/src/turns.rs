//! The programs of the page fault by themselves, attached in turn, and the whole of a running `watch` in its turn: a turn is so
//! short that what changes slowly hits all of them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use aya_obj::btf::Btf;

use crate::beside::{Around, Beside};
use crate::bpf;
use crate::compare::{Bench, Compared, Loaded};
use crate::empty;
use crate::load::Load;
use crate::pairs::{Rounds, Spread, order};

/// Where the kernel puts the code of a program makes a difference of ten nanoseconds: each is loaded so many times.
const COPIES: usize = 6;
/// A measurement has this many faults, five times.
const FAULTS: usize = 20_000;
/// Turns in a round of the other tables, where a variant takes that much longer.
const TURNS: usize = 4;
/// Of the hook that they are all on.
const HOOK: &str = "page_fault_user";
const OURS: &str = "fault_user";
const NOTHING: &str = "nothing";
const EMPTY: &str = "an empty program";
const EMPTY_PROGRAMS: &str = "empty programs";
/// Times that one which runs is begun anew in a turn, with another place of its code each.
const LIVES: usize = 2;
/// After its start, and of the load where nothing runs.
const REST: Duration = Duration::from_millis(500);
/// After its end, while the kernel clears away what it had.
const CLEARED: Duration = Duration::from_millis(300);
/// What an application's own faults come by.
const HOOKS: [&str; 2] = ["page_fault_user", "page_fault_kernel"];

/// What is measured once in a turn.
enum Run {
    /// A program without whoever loaded it, or none.
    Program(Option<OwnedFd>),
    /// All of it, begun anew.
    Live(Beside),
}

impl Run {
    fn measure(&self, around: &Around<'_>, loaded: &mut Loaded) -> Result<f64> {
        match self {
            Run::Program(program) => {
                let program = program.as_ref().map(AsFd::as_fd);
                let link = program.map(bpf::attach).transpose()?;
                let figure = loaded.measure();
                drop(link);
                figure
            }
            Run::Live(beside) => {
                let running = beside.start(around)?;
                std::thread::sleep(REST);
                let figure = loaded.measure();
                drop(running);
                std::thread::sleep(CLEARED);
                figure
            }
        }
    }
}

/// Runs of the same.
struct Kind {
    name: &'static str,
    runs: Vec<Run>,
}

/// Measures.
///
/// # Errors
/// A program cannot be had, or the load does not run.
pub fn table(bench: &Bench) -> Result<String> {
    let around = Around::new(&bench.grey_ebpf)?;
    let turns = TURNS * bench.rounds;
    let programs = programs(&around)?;
    let (means, each) = in_turn(&around, &programs, 1, turns, "Programs")?;
    let mut out = format!(
        "## Programs in turn\n\n\
         The page fault's programs by themselves, of a `watch` that has ended, attached one after the other while a process \
         takes {FAULTS} faults of 4 KiB five times, another process every {TURNS} turns; {turns} turns. Each is loaded {COPIES} \
         times, since the place of its code makes a difference; the mean of its copies counts.\n\n{}\nOne by one, added ns: ",
        compared(&programs, means).table("fault", Some(EMPTY))
    );
    let (mut first, mut end) = (1, "");
    for kind in &programs[1..] {
        let added = (first..first + kind.runs.len()).filter_map(|at| each.added(at, 0));
        let added: Vec<String> = added
            .map(|Spread { median, .. }| format!("{median:.0}"))
            .collect();
        let _ = write!(out, "{end}{} {}", kind.name, added.join(", "));
        (first, end) = (first + kind.runs.len(), "; ");
    }
    let _ = write!(
        out,
        ".\n\nA running `watch`, with all of its probes and all that it does, and empty programs on the same two hooks, each \
         begun anew {LIVES} times in a turn; {turns} turns.\n"
    );
    let lives = lives();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = vec![
        (1, "One thread"),
        (processors, "A thread on each processor"),
    ];
    threads.dedup_by_key(|(threads, _)| *threads);
    for (threads, title) in threads {
        let (means, _) = in_turn(&around, &lives, threads, turns, title)?;
        let table = compared(&lives, means).table("fault", Some(EMPTY_PROGRAMS));
        let _ = write!(out, "\n{title}:\n\n{table}");
    }
    Ok(out)
}

/// What of a program can be attached and left again.
fn programs(around: &Around<'_>) -> Result<Vec<Kind>> {
    let btf = Btf::from_sys_fs().context("the kernel's BTF")?;
    let besides = [
        (EMPTY, None),
        ("`watch --json`", Some(Beside::watch(&[]))),
        ("… `--growth 0`", Some(Beside::watch(&["--growth", "0"]))),
    ];
    let kind = |name, runs| Kind { name, runs };
    let mut kinds = vec![kind(NOTHING, vec![Run::Program(None)])];
    kinds.extend(besides.each_ref().map(|(name, _)| kind(*name, Vec::new())));
    for _ in 0..COPIES {
        for (kind, (_, beside)) in kinds[1..].iter_mut().zip(&besides) {
            kind.runs.push(Run::Program(Some(match beside {
                None => empty::program(&btf, HOOK)?,
                Some(beside) => of(beside, around)?,
            })));
        }
    }
    Ok(kinds)
}

/// What is begun and ended.
fn lives() -> Vec<Kind> {
    let kind = |name, beside: fn() -> Beside| Kind {
        name,
        runs: std::iter::repeat_with(|| Run::Live(beside()))
            .take(LIVES)
            .collect(),
    };
    vec![
        kind(NOTHING, || Beside::Nothing),
        kind(EMPTY_PROGRAMS, || Beside::Empty(&HOOKS)),
        kind("`grey-ebpf watch --json`", || Beside::watch(&[])),
    ]
}

/// Turn after turn, in changing order: the mean of each kind's runs, and each run.
fn in_turn(
    around: &Around<'_>,
    kinds: &[Kind],
    threads: usize,
    turns: usize,
    what: &str,
) -> Result<(Rounds, Rounds)> {
    let runs: Vec<&Run> = kinds.iter().flat_map(|kind| &kind.runs).collect();
    let start = || Loaded::start(around, Load::Fault, threads, FAULTS);
    let mut loaded = start()?;
    let (mut means, mut each) = (Rounds::default(), Rounds::default());
    for turn in 0..turns {
        let mut figures = vec![0.0; runs.len()];
        for at in order(turn, runs.len()) {
            figures[at] = runs[at].measure(around, &mut loaded)?;
        }
        let (mut of, mut rest) = (Vec::new(), &figures[..]);
        for kind in kinds {
            let (own, others) = rest.split_at(kind.runs.len());
            of.push(own.iter().sum::<f64>() / own.len() as f64);
            rest = others;
        }
        means.0.push(of);
        each.0.push(figures);
        if (turn + 1).is_multiple_of(TURNS) {
            eprintln!("  {what}, turn {} of {turns}", turn + 1);
            // Another one, whose own place in memory is another.
            loaded = start()?;
        }
    }
    Ok((means, each))
}

fn compared(kinds: &[Kind], means: Rounds) -> Compared {
    Compared::new(kinds.iter().map(|kind| kind.name), means)
}

/// The program of one that is begun and ended for it.
fn of(beside: &Beside, around: &Around<'_>) -> Result<OwnedFd> {
    let ours = || {
        loaded_programs()
            .filter_map(Result::ok)
            .filter(|info| info.name_as_str() == Some(OURS))
    };
    let before: HashSet<u32> = ours().map(|info| info.id()).collect();
    let running = beside.start(around)?;
    let program = ours()
        .find(|info| !before.contains(&info.id()))
        .with_context(|| format!("no program {OURS} was loaded"))?
        .fd()?;
    let program = program.as_fd().try_clone_to_owned()?;
    drop(running);
    Ok(program)
}
