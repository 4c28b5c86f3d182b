//! One load beside each of some variants, round after round, and the table of it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::beside::{Around, Beside};
use crate::child::ends_with_us;
use crate::load::Load;
use crate::pairs::{Rounds, Spread, order};

/// What is measured with.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The program under test.
    pub grey_ebpf: PathBuf,
    /// How many rounds.
    pub rounds: usize,
}

/// A variant and what a table calls it.
#[derive(Clone, Debug)]
pub struct Variant {
    /// In the table.
    pub name: String,
    /// What runs.
    pub beside: Beside,
}

/// A variant.
#[must_use]
pub fn variant(name: &str, beside: Beside) -> Variant {
    Variant {
        name: name.to_owned(),
        beside,
    }
}

/// A load beside all variants.
#[derive(Debug)]
pub struct Compared {
    names: Vec<String>,
    rounds: Rounds,
    left_out: Vec<LeftOut>,
}

/// Those that start here, and why the others do not.
pub fn to_be_had<'a>(
    around: &Around<'_>,
    variants: &'a [Variant],
) -> (Vec<&'a Variant>, Vec<LeftOut>) {
    let (mut there, mut left_out) = (Vec::new(), Vec::new());
    for variant in variants {
        match variant.beside.start(around) {
            Ok(_running) => there.push(variant),
            Err(error) => left_out.push(LeftOut {
                name: variant.name.clone(),
                why: format!("{error:#}"),
            }),
        }
    }
    (there, left_out)
}

/// A variant that cannot be had here.
#[derive(Clone, Debug)]
pub struct LeftOut {
    name: String,
    why: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LeftOut { name, why } = self;
        write!(
            f,
            "\nNot measured: {name}: {}.\n",
            why.trim_end_matches('.')
        )
    }
}

/// A load in a process of its own, in the load's cgroup, which measures when it is told to.
#[derive(Debug)]
pub struct Loaded {
    process: Child,
    /// A line each.
    answers: BufReader<ChildStdout>,
}

impl Loaded {
    /// Starts it; it does nothing until it is asked to, and then `count` of them five times in each thread.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(around: &Around<'_>, load: Load, threads: usize, count: usize) -> Result<Loaded> {
        let mut command = Command::new(std::env::current_exe()?);
        around.load.hold(&mut command)?;
        let mut process = ends_with_us(&mut command)
            .args(["load", load.name()])
            .args([threads, count].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the load")?;
        let answers = process.stdout.take().context("no stdout")?;
        Ok(Loaded {
            process,
            answers: BufReader::new(answers),
        })
    }

    /// Nanoseconds of one, now.
    ///
    /// # Errors
    /// The load fails, which says why on stderr.
    pub fn measure(&mut self) -> Result<f64> {
        let asked = self.process.stdin.as_mut().context("no stdin")?;
        asked.write_all(b"\n").context("the load has ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer.trim().parse().context("no figure from the load")
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // Without anybody who asks it ends.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Bench {
    /// Measures; the first variant is what the others are compared with.
    ///
    /// # Errors
    /// The load does not run, or a variant that ran once does not a second time.
    pub fn compare(&self, load: Load, threads: usize, variants: &[Variant]) -> Result<Compared> {
        let around = Around::new(&self.grey_ebpf)?;
        let (there, left_out) = to_be_had(&around, variants);
        let mut rounds = Rounds::default();
        for round in 0..self.rounds {
            let mut figures = vec![0.0; there.len()];
            // One process a round: which pages it was given makes more of a difference than most variants.
            let mut loaded = Loaded::start(&around, load, threads, load.count())?;
            for at in order(round, there.len()) {
                let running = there[at].beside.settled(&around)?;
                figures[at] = loaded.measure()?;
                drop(running);
            }
            eprintln!(
                "  {} x{threads}, round {} of {}",
                load.name(),
                round + 1,
                self.rounds
            );
            rounds.0.push(figures);
        }
        Ok(Compared {
            names: there.iter().map(|variant| variant.name.clone()).collect(),
            rounds,
            left_out,
        })
    }
}

impl Compared {
    /// Of figures that were measured elsewhere; the first one is what the others are compared with.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, rounds: Rounds) -> Compared {
        Compared {
            names: names.into_iter().map(str::to_owned).collect(),
            rounds,
            left_out: Vec::new(),
        }
    }

    /// Index of a variant that ran.
    fn at(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// As Markdown: each variant's time, what it adds, and that relative to what `floor` adds.
    #[must_use]
    pub fn table(&self, one: &str, floor: Option<&str>) -> String {
        let floor = floor.and_then(|floor| self.at(floor));
        let mut out = format!("| beside | ns a {one} | ratio | added ns |");
        out.push_str(if floor.is_some() {
            " added, of the empty one's |\n|---|---|---|---|---|\n"
        } else {
            "\n|---|---|---|---|\n"
        });
        for (at, name) in self.names.iter().enumerate() {
            let plain = |spread: Option<Spread>, digits: usize| match spread {
                Some(spread) => shown(spread, digits),
                None => "–".to_owned(),
            };
            let others = at > 0;
            let _ = write!(
                out,
                "| {name} | {} | {} | {} |",
                plain(self.rounds.of(at), 0),
                plain(self.rounds.ratio(at, 0).filter(|_| others), 3),
                plain(self.rounds.added(at, 0).filter(|_| others), 0),
            );
            if let Some(floor) = floor {
                let ratio = self.rounds.added_ratio(at, floor, 0);
                let _ = write!(
                    out,
                    " {} |",
                    plain(ratio.filter(|_| others && at != floor), 2)
                );
            }
            out.push('\n');
        }
        for left_out in &self.left_out {
            let _ = write!(out, "{left_out}");
        }
        out
    }
}

/// `median [low, high]`.
#[must_use]
pub fn shown(spread: Spread, digits: usize) -> String {
    format!(
        "{:.digits$} [{:.digits$}, {:.digits$}]",
        spread.median, spread.low, spread.high
    )
}
