//! Sequences through the library, in this process: many, for nothing is started but guards.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use grey_core::act::{Knob, KnobFile, Value};
use grey_user::act::protect::Protection;
use grey_user::act::safety::Safety;
use grey_user::act::{Scene, Session};
use grey_user::cli::Failure;
use grey_user::host::{CgroupFs, Host};

use super::{FILES, M, Random, World, count, seed};
use crate::harness::Outcome;
use crate::invocation::Scratch;

/// Most steps of one sequence.
const STEPS: u64 = 12;

pub(super) fn run() -> Result<Outcome> {
    let start = Instant::now();
    let (seed, count) = (seed()?, count(400, 60));
    let mut steps = 0;
    let mut changes = 0;
    for serial in 0..count {
        let mut random = Random(seed ^ serial.wrapping_mul(0x0100_0000_01b3));
        let mut sequence = Sequence::new(&mut random, serial)?;
        let length = 1 + random.below(STEPS);
        for _ in 0..length {
            sequence.step(&mut random)?;
        }
        changes += sequence.changes;
        steps += length;
        sequence
            .end()
            .map_err(|error| error.context(format!("sequence {serial}")))?;
    }
    ensure!(changes > count, "only {changes} changes were made");
    println!(
        "{count} sequences of {steps} steps with {changes} changes; {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(Outcome::Passed)
}

struct Sequence {
    world: World,
    session: Option<Session>,
    /// Actions that were begun and neither kept nor undone.
    running: Vec<u64>,
    kept: Vec<u64>,
    changes: u64,
    scratch: Scratch,
}

fn failed(failure: Failure) -> anyhow::Error {
    anyhow!("{}", failure.message)
}

impl Sequence {
    fn new(random: &mut Random, serial: u64) -> Result<Sequence> {
        Ok(Sequence {
            world: World::new(random)?,
            session: None,
            running: Vec::new(),
            kept: Vec::new(),
            changes: 0,
            scratch: Scratch::new(&format!("sequence-{serial}"))?,
        })
    }

    fn scene(&self) -> Rc<Scene> {
        let host = Host::live();
        let cgroups = CgroupFs::discover(&host);
        Rc::new(Scene {
            host,
            cgroups,
            safety: Safety::default(),
            protection: Protection::default(),
            state_dir: self.scratch.join("state"),
        })
    }

    fn session(&mut self) -> Result<&mut Session> {
        if self.session.is_none() {
            self.world.tell("open");
            let (session, _) = Session::open(self.scene()).map_err(failed)?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(|| anyhow!("no session"))
    }

    fn step(&mut self, random: &mut Random) -> Result<()> {
        let at = random.below(self.world.cgroups.len() as u64) as usize;
        match random.below(12) {
            0..=4 => self.change(random, at),
            5 => self.keep(),
            6 => self.undo(random),
            // Gone without a word: its guard puts back what was not kept.
            7 => {
                self.world.tell("drop");
                self.session = None;
                self.running.clear();
                Ok(())
            }
            8 => self.rollback(false),
            9 | 10 => self.world.intrude(at, random.of::<&str>(&FILES)),
            _ => self.world.make_anew(at),
        }
    }

    fn change(&mut self, random: &mut Random, at: usize) -> Result<()> {
        let file = KnobFile::of_name(random.of::<&str>(&FILES)).ok_or_else(|| anyhow!("file"))?;
        let cgroup = &self.world.cgroups[at];
        let (path, knob) = (
            cgroup.path().to_owned(),
            Knob::cgroup(cgroup.path(), cgroup.id()?, file),
        );
        let value = Value::number((64 + random.below(64)) * M);
        let id = match self.running.last() {
            Some(id) if random.below(2) == 0 => *id,
            _ => {
                let id = self
                    .session()?
                    .begin("limit", &path, "a sequence", None)
                    .map_err(failed)?;
                self.running.push(id);
                id
            }
        };
        self.world.tell(format!("set {id} {knob} {value}"));
        // Another action that is under way may hold it, which is a refusal.
        if let Err(failure) = self.session()?.set(id, &knob, &value) {
            self.world.tell(format!("refused: {}", failure.message));
        } else {
            self.changes += 1;
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<()> {
        let Some(id) = self.running.pop() else {
            return Ok(());
        };
        self.world.tell(format!("keep {id}"));
        self.kept.push(id);
        if let Err(failure) = self.session()?.keep(id) {
            self.world.tell(format!("not kept: {}", failure.message));
        }
        Ok(())
    }

    fn undo(&mut self, random: &mut Random) -> Result<()> {
        let ids: Vec<u64> = self.running.iter().chain(&self.kept).copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let id = *random.of(&ids);
        self.world.tell(format!("undo {id}"));
        self.session()?.undo(id, false);
        self.running.retain(|running| *running != id);
        Ok(())
    }

    /// By another process's way, without lock and guard.
    fn rollback(&mut self, last: bool) -> Result<()> {
        self.world.tell("rollback");
        let Some((mut session, _)) = Session::attach(self.scene()).map_err(failed)? else {
            return Ok(());
        };
        let undone = session.undo_all(true, false);
        if last {
            ensure!(
                undone.failed.is_empty() && undone.journal.is_none(),
                "{undone:?} after {:#?}",
                self.world.told
            );
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.session = None;
        self.rollback(true)?;
        self.world.check()
    }
}
