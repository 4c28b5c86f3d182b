//! `enforce` on the machine itself: what is refused before anything is touched. Nothing here changes a knob.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::enforcing::{Desk, knobs};
use crate::harness::{Outcome, TempCgroup, Trial, cgroup_root};
use crate::invocation::Invocation;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_enforce_a_bad_size_is_one_line_and_code_2",
            bad_sizes,
        ),
        Trial::new(
            "native_enforce_what_names_no_cgroup_is_one_line_and_code_2",
            no_cgroup,
        ),
        Trial::new(
            "native_enforce_a_path_of_a_v1_hierarchy_is_one_line_and_code_2",
            v1_hierarchy,
        ),
        Trial::new(
            "native_enforce_the_root_is_refused_with_code_4",
            root_cgroup,
        ),
        Trial::new(
            "native_enforce_without_root_is_one_line_and_code_3",
            without_root,
        ),
        Trial::new(
            "native_enforce_without_the_memory_controller_is_one_line_and_code_3",
            without_controller,
        ),
        Trial::new(
            "native_enforce_a_bad_configuration_is_told_with_its_line",
            bad_configuration,
        ),
    ]
}

/// `limit CGROUP --high 64M` is refused with this code and one line; the journal is not begun.
fn refused(desk: &Desk, how: Invocation, cgroup: &str, code: i32, says: &[&str]) -> Result<()> {
    let all = desk.arguments(&["limit", cgroup, "--high", "64M"])?;
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    how.run(&all)?
        .is_one_line(code, says)
        .with_context(|| format!("{cgroup:?}"))?;
    ensure!(!desk.scratch.join("state").exists(), "a journal was begun");
    Ok(())
}

fn bad_sizes() -> Result<Outcome> {
    let desk = Desk::new("sizes", "")?;
    let sizes = [
        ("", "is empty"),
        (" ", "is empty"),
        ("-1", "negative"),
        ("-64M", "negative"),
        ("-0", "negative"),
        ("18446744073709551616", "more than 64 bits"),
        ("16777216T", "more than 64 bits"),
        (
            "99999999999999999999999999999999999999999999999",
            "more than 64 bits",
        ),
        ("NaN", "number"),
        ("inf", "number"),
        ("M", "number"),
        ("64Q", "unknown unit"),
        ("64MM", "unknown unit"),
        ("1e9", "unknown unit"),
        ("0x4000000", "unknown unit"),
        ("64M;reboot", "unknown unit"),
        ("64\u{0661}M", "unknown unit"),
        ("6.4.0M", "not a number"),
        (".", "not a number"),
        ("1.2.3%", "not a percentage"),
    ];
    for (size, says) in sizes {
        let flag = format!("--high={size}");
        let all = desk.arguments(&["limit", "/no-such-cgroup", &flag])?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Invocation::new()
            .run(&all)?
            .is_one_line(2, &["--high", says])
            .with_context(|| format!("{size:?}"))?;
    }
    Ok(Outcome::Passed)
}

fn no_cgroup() -> Result<Outcome> {
    let Ok(root) = cgroup_root() else {
        return Outcome::skipped("no cgroup v2 tree is mounted");
    };
    let desk = Desk::new("names", "")?;
    let before = knobs()?;
    let escape = format!("{}/../../etc", root.display());
    let below = format!("{}/no-such-cgroup", root.display());
    let table: &[(&str, &str)] = &[
        ("", "is empty"),
        ("no-such-cgroup-anywhere", "no such cgroup"),
        ("/no-such-cgroup/anywhere", "no such cgroup"),
        (&below, "no such cgroup"),
        (&escape, "`..`"),
        ("/etc", "no such cgroup"),
        ("..", "`..`"),
        ("a//b", "empty part"),
        ("*", "pattern"),
        ("a\tb", "control character"),
    ];
    for (cgroup, says) in table {
        refused(&desk, Invocation::new(), cgroup, 2, &[says])?;
    }
    ensure!(knobs()? == before, "a knob was written");
    Ok(Outcome::Passed)
}

/// Mount points of v1 hierarchies.
fn v1_mounts() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let target = words.next()?;
            (words.next()? == "cgroup").then(|| PathBuf::from(target))
        })
        .collect())
}

fn v1_hierarchy() -> Result<Outcome> {
    let mounts = v1_mounts()?;
    if mounts.is_empty() || cgroup_root().is_err() {
        return Outcome::skipped("this machine has no v1 hierarchy beside a v2 tree");
    }
    let desk = Desk::new("v1", "")?;
    for mount in mounts {
        for path in [mount.clone(), mount.join("some.slice")] {
            let path = path.to_str().context("a path that is no text")?;
            refused(&desk, Invocation::new(), path, 2, &["v1", "cgroup v2"])?;
        }
    }
    Ok(Outcome::Passed)
}

fn root_cgroup() -> Result<Outcome> {
    let Ok(root) = cgroup_root() else {
        return Outcome::skipped("no cgroup v2 tree is mounted");
    };
    let desk = Desk::new("root", "")?;
    let root = root.display().to_string();
    for cgroup in ["/", &root] {
        refused(&desk, Invocation::new(), cgroup, 4, &["whole machine"])?;
    }
    Ok(Outcome::Passed)
}

fn without_root() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("only root can make the cgroup that others may not write to");
    }
    let Ok(cgroup) = TempCgroup::new("nobody") else {
        return Outcome::skipped("no cgroup of our own can be made here");
    };
    let desk = Desk::new("nobody", "")?;
    let program = desk.scratch.program()?;
    let nobody = Invocation::new().program(&program).nobody();
    refused(
        &desk,
        nobody,
        cgroup.path(),
        3,
        &[cgroup.path(), "run it as root"],
    )?;
    Ok(Outcome::Passed)
}

fn without_controller() -> Result<Outcome> {
    let Ok(cgroup) = TempCgroup::new("bare") else {
        return Outcome::skipped("no cgroup of our own can be made here");
    };
    if cgroup.has("memory.high") {
        return Outcome::skipped("the v2 tree of this machine has the memory controller");
    }
    let desk = Desk::new("bare", "")?;
    refused(
        &desk,
        Invocation::new(),
        cgroup.path(),
        3,
        &[cgroup.path(), "memory controller"],
    )?;
    Ok(Outcome::Passed)
}

fn bad_configuration() -> Result<Outcome> {
    let desk = Desk::new("config", "")?;
    let table: &[(&str, u32, i32, &str)] = &[
        (
            "[safety]\nleast_limit = \"1M\"\n",
            0o644,
            2,
            "config.toml:2: safety.least_limit: 1.0M is out of bounds; write 64M to ",
        ),
        (
            "# bounds\n[sefaty]\n",
            0o644,
            2,
            "config.toml:2: sefaty: is not known",
        ),
        (
            "[safety]\nhang = 5\n",
            0o644,
            2,
            "config.toml:2: safety.hang: ",
        ),
        ("[safety]\n", 0o646, 4, "everybody can write to it"),
    ];
    for (text, mode, code, says) in table {
        desk.write_config(text, *mode)?;
        refused(&desk, Invocation::new(), "/no-such-cgroup", *code, &[says])?;
    }
    Ok(Outcome::Passed)
}
