//! Random sequences of actions, kills, foreign writes and cgroups made anew: after `rollback` the machine is as it was at
//! the start, but for what others have written.

mod binary;
mod library;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{TempCgroup, Trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_sequences_of_the_library_end_as_they_began",
            library::run,
        )
        .with_deadline(Duration::from_secs(300)),
        Trial::new(
            "vm_sequences_of_the_program_with_kills_end_as_they_began",
            binary::run,
        )
        .with_deadline(Duration::from_secs(300)),
    ]
}

const M: u64 = 1 << 20;
/// The files of a cgroup that are changed, by us and by others.
const FILES: [&str; 4] = ["memory.high", "memory.max", "memory.low", "memory.swap.max"];

/// How many sequences: a part of them, with GREY_ALL=1 all.
fn count(all: u64, part: u64) -> u64 {
    if std::env::var_os("GREY_ALL").is_some() {
        all
    } else {
        part
    }
}

/// The seed of a run, told so that it can be run again with it: GREY_SEED.
fn seed() -> Result<u64> {
    let seed = match std::env::var("GREY_SEED") {
        Ok(text) => text.parse().context("GREY_SEED")?,
        Err(_) => {
            let mut bytes = [0; 8];
            std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
            u64::from_ne_bytes(bytes)
        }
    };
    println!("GREY_SEED={seed}");
    Ok(seed)
}

/// splitmix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// A few cgroups, and what each file has to hold in the end.
struct World {
    cgroups: Vec<TempCgroup>,
    expected: BTreeMap<PathBuf, String>,
    /// Counts foreign values, so that none is like another or like one of ours.
    foreign: u64,
    told: Vec<String>,
}

impl World {
    fn new(random: &mut Random) -> Result<World> {
        let mut world = World {
            cgroups: vec![TempCgroup::new("one")?, TempCgroup::new("two")?],
            expected: BTreeMap::new(),
            foreign: 0,
            told: Vec::new(),
        };
        for at in 0..world.cgroups.len() {
            for file in FILES {
                if random.below(2) == 0 {
                    world.intrude(at, file)?;
                } else {
                    let path = world.cgroups[at].directory().join(file);
                    let value = read(&path)?;
                    world.expected.insert(path, value);
                }
            }
        }
        Ok(world)
    }

    fn tell(&mut self, step: impl Into<String>) {
        self.told.push(step.into());
    }

    /// Somebody else writes.
    fn intrude(&mut self, at: usize, file: &str) -> Result<()> {
        self.foreign += 1;
        // Multiples of a page, and never of a MiB as ours are.
        let value = (512 * M + 4096 * self.foreign).to_string();
        self.cgroups[at].write(file, &value)?;
        self.tell(format!("foreign {at} {file} {value}"));
        let path = self.cgroups[at].directory().join(file);
        self.expected.insert(path, value);
        Ok(())
    }

    /// Removes a cgroup and makes another one of its name.
    fn make_anew(&mut self, at: usize) -> Result<()> {
        let directory = self.cgroups[at].directory().to_owned();
        fs::remove_dir(&directory)?;
        fs::create_dir(&directory)?;
        self.tell(format!("anew {at}"));
        for file in FILES {
            let path = directory.join(file);
            let value = read(&path)?;
            self.expected.insert(path, value);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for (path, expected) in &self.expected {
            let now = read(path)?;
            ensure!(
                now == *expected,
                "{} holds {now} instead of {expected} after {:#?}",
                path.display(),
                self.told
            );
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}
