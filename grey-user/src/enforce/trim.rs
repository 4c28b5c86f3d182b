//! `enforce trim`: asks the release agent inside a process to give freed memory back; where there is none, says so and
//! what to do.

use std::fs;

use grey_core::view::printable;

use crate::act::Scene;
use crate::cli::Failure;

use super::pageout::target::{self, Wanted};
use super::{Act, Actuator, Common, Plan};

pub(crate) const EXAMPLES: &str = "Examples:
  grey-ebpf enforce trim 1234               the release agent of process 1234
  grey-ebpf enforce trim web.service        of all its processes

Freed memory that an allocator holds on to comes back only from inside the process: by the release agent, which is
loaded at its start.";

/// File name of the agent, as it is seen in /proc/PID/maps.
const AGENT: &str = "libgrey_release";

/// Arguments of `trim`.
#[derive(Clone, Debug, clap::Args)]
pub struct TrimArgs {
    /// Process id, or path, unit or container name of a cgroup
    #[arg(value_name = "PID|CGROUP", allow_negative_numbers = true)]
    pub target: String,
}

/// The action.
pub(crate) struct Trim<'a> {
    args: &'a TrimArgs,
}

impl<'a> Trim<'a> {
    pub(crate) fn new(args: &'a TrimArgs) -> Self {
        Trim { args }
    }
}

impl Actuator for Trim<'_> {
    fn plan(&mut self, scene: &Scene, _common: &Common) -> Result<Plan, Failure> {
        let found = target::find(scene, &self.args.target)?;
        let mut seen = Vec::new();
        let mut denied = None;
        for process in &found.processes {
            let path = scene.host.path(format!("/proc/{}/maps", process.pid));
            match fs::read_to_string(path) {
                Ok(maps) => seen.push((process, Allocator::of(&maps), maps.contains(AGENT))),
                Err(error) => denied = denied.or(Some((process.pid, error))),
            }
        }
        let Some((process, allocator, _)) = seen.iter().find(|seen| seen.2).or(seen.first()) else {
            return Err(Failure::unsupported(match denied {
                Some((pid, error)) => {
                    format!("/proc/{pid}/maps: {error}; run it as root")
                }
                None => format!("{}: has no process", printable(&found.name)),
            }));
        };
        if seen.iter().any(|seen| seen.2) {
            return Err(Failure::unsupported(format!(
                "pid {}: a release agent is loaded, and this version cannot speak to one; `grey-ebpf enforce pageout {} --cold` works from outside",
                process.pid, process.pid
            )));
        }
        let who = match &found.wanted {
            Wanted::Process => format!(
                "no release agent in pid {} ({})",
                process.pid,
                printable(&process.comm)
            ),
            Wanted::Cgroup if seen.len() == 1 => format!(
                "no release agent in {}, whose process is pid {} ({})",
                printable(&found.name),
                process.pid,
                printable(&process.comm)
            ),
            Wanted::Cgroup => format!(
                "no release agent in any of the {} processes of {}, such as pid {} ({})",
                seen.len(),
                printable(&found.name),
                process.pid,
                printable(&process.comm)
            ),
        };
        Err(Failure::unsupported(format!(
            "{who}: {}; from outside, `grey-ebpf enforce pageout {} --cold` takes what is not used",
            allocator.advice(),
            printable(&self.args.target)
        )))
    }

    fn act(&mut self, _act: &mut Act<'_>) -> Result<(), Failure> {
        Err(Failure::failed("trim: without a plan"))
    }
}

/// The allocator of a process, as far as its mappings tell. One that is linked in cannot be seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allocator {
    Jemalloc,
    Tcmalloc,
    Mimalloc,
    Glibc,
    Musl,
    Static,
}

impl Allocator {
    fn of(maps: &str) -> Allocator {
        let files: Vec<&str> = maps
            .lines()
            .filter_map(|line| line.split_once('/'))
            .filter_map(|(_, path)| path.rsplit('/').next())
            .collect();
        let any = |starts: &[&str]| {
            files
                .iter()
                .any(|file| starts.iter().any(|start| file.starts_with(start)))
        };
        // A preloaded allocator takes the place of libc's, which is mapped all the same.
        if any(&["libjemalloc"]) {
            Allocator::Jemalloc
        } else if any(&["libtcmalloc"]) {
            Allocator::Tcmalloc
        } else if any(&["libmimalloc"]) {
            Allocator::Mimalloc
        } else if any(&["libc.so.6", "libc-2."]) {
            Allocator::Glibc
        } else if any(&["ld-musl-", "libc.musl-"]) {
            Allocator::Musl
        } else {
            Allocator::Static
        }
    }

    /// What it is and what of its own makes it give memory back, at the next start of the process.
    fn advice(self) -> &'static str {
        match self {
            Allocator::Jemalloc => {
                "it uses jemalloc, which gives back sooner with MALLOC_CONF=dirty_decay_ms:1000,muzzy_decay_ms:0"
            }
            Allocator::Tcmalloc => {
                "it uses tcmalloc, which gives back sooner with TCMALLOC_RELEASE_RATE=10"
            }
            Allocator::Mimalloc => {
                "it uses mimalloc, which gives back sooner with MIMALLOC_PURGE_DELAY=0"
            }
            Allocator::Glibc => {
                "it uses glibc's malloc, which holds on to less when started with MALLOC_ARENA_MAX=2 and MALLOC_TRIM_THRESHOLD_=131072"
            }
            Allocator::Musl => {
                "it uses musl's malloc, which has no setting and gives whole groups of pages back by itself"
            }
            Allocator::Static => {
                "it is linked statically, so that its allocator cannot be seen and no agent can be loaded into it"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_told_from_the_mapped_files() {
        let maps = |file: &str| {
            format!(
                "7f00-7f01 r-xp 00000000 08:01 12   {file}\n5500-5600 rw-p 00000000 00:00 0      [heap]\n"
            )
        };
        for (file, want) in [
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", Allocator::Glibc),
            ("/lib/x86_64-linux-gnu/libc-2.31.so", Allocator::Glibc),
            ("/lib/ld-musl-x86_64.so.1", Allocator::Musl),
            ("/usr/lib/libjemalloc.so.2", Allocator::Jemalloc),
            (
                "/usr/lib/libtcmalloc_minimal.so.4 (deleted)",
                Allocator::Tcmalloc,
            ),
            ("/usr/lib/libmimalloc.so.2.0", Allocator::Mimalloc),
            ("/opt/libc.so.6/app", Allocator::Static),
        ] {
            assert_eq!(Allocator::of(&maps(file)), want, "{file}");
        }
        let preloaded = maps("/usr/lib/libjemalloc.so.2") + &maps("/lib/libc.so.6");
        assert_eq!(Allocator::of(&preloaded), Allocator::Jemalloc);
        assert_eq!(Allocator::of(""), Allocator::Static);
    }
}
