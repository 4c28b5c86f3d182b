//! The programs of the page fault by themselves, attached in turn: nothing else of ours runs meanwhile, and a turn is so short
//! that what changes slowly hits all of them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

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
/// Turns of all of them in a round of the other tables, where a variant takes that much longer.
const TURNS: usize = 4;
/// Of the hook that they are all on.
const HOOK: &str = "page_fault_user";
const OURS: &str = "fault_user";
const NOTHING: &str = "nothing";
const EMPTY: &str = "an empty program";

/// A kind of program and its copies.
struct Kind {
    name: &'static str,
    copies: Vec<OwnedFd>,
}

/// Measures.
///
/// # Errors
/// A program cannot be had, or the load does not run.
pub fn table(bench: &Bench) -> Result<String> {
    let around = Around::new(&bench.grey_ebpf)?;
    let mut kinds = [
        (EMPTY, None),
        ("`watch --json`", Some(Beside::watch(&[]))),
        ("… `--growth 0`", Some(Beside::watch(&["--growth", "0"]))),
    ]
    .map(|(name, beside)| {
        let copies = Vec::new();
        (Kind { name, copies }, beside)
    });
    let btf = Btf::from_sys_fs().context("the kernel's BTF")?;
    for _ in 0..COPIES {
        for (kind, beside) in &mut kinds {
            kind.copies.push(match beside {
                None => empty::program(&btf, HOOK)?,
                Some(beside) => of(beside, &around)?,
            });
        }
    }
    let kinds = kinds.map(|(kind, _)| kind);
    let mut loaded = Loaded::start(&around, Load::Fault, 1, FAULTS)?;
    let (mut rounds, mut each) = (Rounds::default(), Rounds::default());
    for round in 0..TURNS * bench.rounds {
        // Nothing, and the copies of the kinds one after the other.
        let mut figures = vec![0.0; 1 + kinds.len() * COPIES];
        for at in order(round, figures.len()) {
            let program = at
                .checked_sub(1)
                .map(|at| &kinds[at / COPIES].copies[at % COPIES]);
            let link = program
                .map(|program| bpf::attach(program.as_fd()))
                .transpose()?;
            figures[at] = loaded.measure()?;
            drop(link);
        }
        let mut means = vec![figures[0]];
        for copies in figures[1..].chunks_exact(COPIES) {
            means.push(copies.iter().sum::<f64>() / COPIES as f64);
        }
        rounds.0.push(means);
        each.0.push(figures);
        if (round + 1).is_multiple_of(TURNS) {
            eprintln!("  round {} of {}", round.div_ceil(TURNS), bench.rounds);
        }
    }
    let names = std::iter::once(NOTHING).chain(kinds.iter().map(|kind| kind.name));
    let compared = Compared::new(names, rounds);
    let mut out = format!(
        "## Programs in turn\n\n\
         The page fault's programs by themselves, of a `watch` that has ended, attached one after the other while one process \
         takes {FAULTS} faults of 4 KiB five times; {} turns. Each is loaded {COPIES} times, since the place of its code makes a \
         difference; the mean of its copies counts.\n\n{}\nOne by one, added ns: ",
        TURNS * bench.rounds,
        compared.table("fault", Some(EMPTY))
    );
    for (at, kind) in kinds.iter().enumerate() {
        let added = (0..COPIES).filter_map(|copy| each.added(1 + at * COPIES + copy, 0));
        let added: Vec<String> = added
            .map(|Spread { median, .. }| format!("{median:.0}"))
            .collect();
        let end = if at + 1 < kinds.len() { "; " } else { ".\n" };
        let _ = write!(out, "{} {}{end}", kind.name, added.join(", "));
    }
    Ok(out)
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
