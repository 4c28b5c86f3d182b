//! Allocators other than glibc's, preloaded beside the agent, in front of it and behind it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::harness::{Outcome, Trial};

use super::guest::{Bench, Guest, absent, library};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_release_jemalloc_gives_back", jemalloc),
        Trial::new("native_release_tcmalloc_gives_back", tcmalloc),
        Trial::new(
            "native_release_mimalloc_is_told_to_and_stays_whole",
            mimalloc,
        ),
        Trial::new("native_release_a_musl_program_is_left_alone", musl),
    ]
}

const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// A shared library, by the begin of its name.
fn find(start: &str) -> Option<PathBuf> {
    FOLDERS.iter().find_map(|folder| {
        let mut entries = std::fs::read_dir(folder).ok()?;
        entries.find_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            name.starts_with(start).then_some(path)
        })
    })
}

/// Runs the program with an allocator that keeps what is freed; whether less than `part` percent is left after a trim, and
/// what was held is whole.
fn gives_back(
    label: &str,
    start: &str,
    keep: &[(&str, &str)],
    part: Option<u64>,
) -> Result<Outcome> {
    let Some(allocator) = find(start) else {
        return absent(start);
    };
    let bench = Bench::new(label)?;
    let name = label.strip_prefix("release-").unwrap_or(label);
    let agent = library()?;
    let orders: [[&Path; 2]; 2] = [[&agent, &allocator], [&allocator, &agent]];
    for libraries in orders {
        let Some(mut program) = bench.c("fragment", &["100", "0"])? else {
            return absent("cc");
        };
        program.envs(keep.iter().copied());
        let mut guest = Guest::begin(program, &libraries)?;
        guest.ready()?;
        let before = guest.resident()?;
        let answer = guest.trim()?;
        let after = guest.resident()?;
        ensure!(!answer.busy && answer.allocator == name, "{answer:?}");
        if let Some(part) = part {
            ensure!(before > 60 << 20, "nothing was retained: {before}");
            ensure!(
                after < before / 100 * part,
                "{before} -> {after}: {answer:?}"
            );
        }
        guest.finish_whole()?;
        // And amid threads that allocate.
        let Some(program) = bench.c("fragment", &["20", "4"])? else {
            return absent("cc");
        };
        let mut guest = Guest::begin(program, &libraries)?;
        guest.ready()?;
        for _ in 0..50 {
            guest.trim()?;
        }
        guest.finish_whole()?;
    }
    Ok(Outcome::Passed)
}

fn jemalloc() -> Result<Outcome> {
    let keep = [("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1")];
    gives_back("release-jemalloc", "libjemalloc.so.", &keep, Some(40))
}

fn tcmalloc() -> Result<Outcome> {
    let keep = [("TCMALLOC_RELEASE_RATE", "0")];
    gives_back(
        "release-tcmalloc",
        "libtcmalloc_minimal.so.",
        &keep,
        Some(60),
    )
}

/// Its heaps belong to their threads: what another thread asks for does not touch them, and is not to harm them.
fn mimalloc() -> Result<Outcome> {
    gives_back("release-mimalloc", "libmimalloc.so.", &[], None)
}

fn musl() -> Result<Outcome> {
    let bench = Bench::new("release-musl")?;
    let source = bench.scratch.join("lives.c");
    let program = bench.scratch.join("lives-musl");
    let built = std::process::Command::new("musl-gcc")
        .args(["-O2", "-pthread", "-o"])
        .args([&program, &source])
        .output();
    if !built.is_ok_and(|built| built.status.success()) {
        return absent("musl-gcc");
    }
    let mut command = std::process::Command::new(&program);
    command.arg("rests");
    let guest = Guest::start(command)?;
    ensure!(
        super::guest::status(guest.pid(), "Threads:")? == 1,
        "it has a thread"
    );
    let (said, status) = guest.finish()?;
    ensure!(
        status.success() && said == ["unknown"],
        "{status}: {said:?}"
    );
    Ok(Outcome::Passed)
}
