//! Sequences of the program itself, with SIGKILL at random times.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{FILES, M, Random, World, count, read, seed};
use crate::crash::orphans::Orphans;
use crate::harness::{Outcome, grey_ebpf, wait_until};
use crate::invocation::Scratch;

const STEPS: u64 = 5;
const SOON: Duration = Duration::from_secs(30);
const KSM: &str = "/sys/kernel/mm/ksm";

pub(super) fn run_one(random: &mut Random, serial: u64, kills: &mut u64) -> Result<()> {
    let scratch = Scratch::new(&format!("program-{serial}"))?;
    let mut sequence = Sequence {
        world: World::new(random)?,
        state: scratch.argument("state")?,
        kills: 0,
    };
    for name in ["run", "pages_to_scan", "sleep_millisecs"] {
        let path = std::path::Path::new(KSM).join(name);
        if path.exists() {
            let value = read(&path)?;
            sequence.world.expected.insert(path, value);
        }
    }
    for _ in 0..1 + random.below(STEPS) {
        let done = sequence.step(random);
        done.with_context(|| format!("after {:#?}", sequence.world.told))?;
    }
    sequence.rollback(&[], true)?;
    *kills += sequence.kills;
    sequence.world.check()
}

pub(super) fn run() -> Result<Outcome> {
    let start = Instant::now();
    let (seed, count) = (seed()?, count(100, 20));
    let mut kills = 0;
    for serial in 0..count {
        let mut random = Random(seed ^ serial.wrapping_mul(0x0100_0000_01b3));
        run_one(&mut random, serial, &mut kills).with_context(|| format!("sequence {serial}"))?;
    }
    ensure!(kills > count / 4, "only {kills} processes were killed");
    println!(
        "{count} sequences with {kills} processes killed; {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(Outcome::Passed)
}

struct Sequence {
    world: World,
    state: String,
    kills: u64,
}

impl Sequence {
    fn step(&mut self, random: &mut Random) -> Result<()> {
        let at = random.below(self.world.cgroups.len() as u64) as usize;
        match random.below(10) {
            0 | 1 => self.enforce(&self.limit(random, at), None),
            2 => {
                let what = *random.of(&["on", "off", "on --aggressive"]);
                let args: Vec<String> = format!("ksm {what}")
                    .split(' ')
                    .map(str::to_owned)
                    .collect();
                self.enforce(&args, None)
            }
            3..=6 => {
                let mut args = self.limit(random, at);
                if random.below(3) > 0 {
                    args.extend(["--lease".to_owned(), "1s".to_owned()]);
                }
                let after = Duration::from_micros(random.below(400_000));
                let whom = *random.of(&[Whom::Controller, Whom::Guard, Whom::Both]);
                self.enforce(&args, Some((whom, after)))
            }
            7 => self.world.intrude(at, random.of::<&str>(&FILES)),
            8 => {
                let id = (1 + random.below(4)).to_string();
                match random.below(2) {
                    0 => self.rollback(&["--id", &id], false),
                    _ => self.rollback(&[], false),
                }
            }
            _ => self.world.make_anew(at),
        }
    }

    fn limit(&self, random: &mut Random, at: usize) -> Vec<String> {
        let mut args = vec!["limit".to_owned(), self.world.cgroups[at].path().to_owned()];
        let flags = ["--high", "--max", "--low", "--swap-max"];
        let first = random.below(4) as usize;
        for flag in &flags[first..=(first + random.below(2) as usize).min(3)] {
            let bytes = (64 + random.below(64)) * M;
            args.extend([(*flag).to_owned(), bytes.to_string()]);
        }
        args
    }

    /// Runs it; somebody is killed after a time, if it takes that long. Waits until nobody of it is left.
    fn enforce(&mut self, args: &[String], kill: Option<(Whom, Duration)>) -> Result<()> {
        self.world.tell(format!("{args:?} {kill:?}"));
        let mut child = Command::new(grey_ebpf())
            .arg("enforce")
            .args(args)
            .args(["--state-dir", &self.state])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let mut orphans = None;
        if let Some((whom, after)) = kill {
            // The time of a kill is what is random here; nothing is awaited.
            std::thread::sleep(after);
            if child.try_wait()?.is_none() {
                let left = Orphans::of(child.id())?;
                self.kills += 1;
                if whom != Whom::Controller {
                    left.kill_guard()?;
                }
                if whom != Whom::Guard {
                    kill_process(Pid::from_child(&child), Signal::KILL)?;
                }
                orphans = Some(left);
            }
        }
        let status = wait_until("the end of the program", SOON, || Ok(child.try_wait()?))?;
        self.world.tell(format!("{status}"));
        ensure!(
            matches!(status.code(), None | Some(0..=4)),
            "it ended with {status}"
        );
        if let Some(orphans) = orphans {
            wait_until("the end of its guard", SOON, || {
                Ok(orphans.ended()?.then_some(()))
            })?;
        }
        Ok(())
    }

    fn rollback(&mut self, more: &[&str], last: bool) -> Result<()> {
        let mut args = vec!["rollback", "--state-dir", &self.state];
        args.extend(more);
        let done = run_program(&args)?;
        self.world.tell(format!("{args:?} {:?}", done.0));
        ensure!(
            done.0 == Some(0) || !last && matches!(done.0, Some(0..=4)),
            "{done:?} after {:#?}",
            self.world.told
        );
        Ok(())
    }
}

fn run_program(args: &[&str]) -> Result<(Option<i32>, String)> {
    let done = crate::harness::run(args, SOON)?;
    Ok((done.code(), done.stderr))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Controller,
    Guard,
    Both,
}
