//! What an action is refused for: one line, the right exit code, and no knob of the whole tree written.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::enforcing::{Desk, knobs};
use crate::harness::{Outcome, TempCgroup, Trial, cgroup_root};
use crate::invocation::Invocation;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_protect_bad_sizes_and_cgroups_are_refused_and_nothing_is_written",
            bad_input,
        ),
        Trial::new(
            "vm_protect_what_is_protected_is_refused_with_all_below_and_above_it",
            protected,
        ),
        Trial::new(
            "vm_protect_a_read_only_tree_and_a_user_without_rights_write_nothing",
            without_rights,
        ),
        Trial::new(
            "vm_protect_a_bad_configuration_is_one_line_and_nothing_is_written",
            bad_configuration,
        ),
    ]
}

const USAGE: i32 = 2;
const UNSUPPORTED: i32 = 3;
const REFUSED: i32 = 4;

impl Desk {
    /// `enforce ARGS` is refused with this code and one line that says all of `says`, and no journal is begun.
    fn refuses(&self, how: Invocation, args: &[&str], code: i32, says: &[&str]) -> Result<()> {
        let all = self.arguments(args)?;
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        how.run(&all)?
            .is_one_line(code, says)
            .with_context(|| args.join(" "))?;
        let journal = self.scratch.join("state");
        ensure!(!journal.exists(), "{args:?} began a journal");
        Ok(())
    }
}

fn bad_input() -> Result<Outcome> {
    let desk = Desk::new("input", "")?;
    let cgroup = TempCgroup::new("target")?;
    let before = knobs()?;
    ensure!(before.len() > 4, "no knobs to compare: {before:?}");
    let path = cgroup.path();
    let sizes: &[(&str, i32, &str)] = &[
        ("", USAGE, "is empty"),
        ("-1", USAGE, "negative"),
        ("18446744073709551616", USAGE, "more than 64 bits"),
        ("NaN", USAGE, "number"),
        ("64Q", USAGE, "unknown unit"),
        ("6.4.0M", USAGE, "not a number"),
        ("64M;reboot", USAGE, "unit"),
        ("0", REFUSED, "64M"),
        ("63M", REFUSED, "64M"),
        ("0%", REFUSED, "64M"),
    ];
    for (size, code, says) in sizes {
        let flag = format!("--high={size}");
        desk.refuses(Invocation::new(), &["limit", path, &flag], *code, &[says])?;
    }
    let link = desk.scratch.join("link");
    std::os::unix::fs::symlink(cgroup.directory(), &link)?;
    let link = desk.scratch.argument("link")?;
    let root = cgroup_root()?.display().to_string();
    let name = path.trim_start_matches('/');
    let near = format!("{name}x");
    let glob = format!("{name}*");
    let doubled = format!("/{path}");
    let up = format!("{path}/../{name}");
    let deep = format!("{path}/nothing");
    let absolute_up = format!("{root}/../cgroup{path}");
    let newline = format!("{path}\n");
    let long = format!("/{}", "a/".repeat(3000));
    let cgroups: &[(&str, &str)] = &[
        ("", "is empty"),
        ("/no/such", "no such cgroup"),
        (&deep, "no such cgroup"),
        (&near, path),
        (&glob, "pattern"),
        (&doubled, "empty part"),
        (&up, "`..`"),
        ("..", "`..`"),
        (&absolute_up, "`..`"),
        (&newline, "control character"),
        (&link, "no such cgroup"),
        ("/etc", "no such cgroup"),
        (&long, "longer"),
    ];
    for (argument, says) in cgroups {
        let args = ["limit", argument, "--high", "64M"];
        desk.refuses(Invocation::new(), &args, USAGE, &[says])?;
    }
    for action in [&["limit", "/"][..], &["limit", &root]] {
        let args = [action, &["--high", "64M"]].concat();
        desk.refuses(Invocation::new(), &args, REFUSED, &["the whole machine"])?;
    }
    let (a, b) = (TempCgroup::new("a")?, TempCgroup::new("b")?);
    let (_a, _b) = (a.child("twin.service")?, b.child("twin.service")?);
    let args = ["limit", "twin", "--high", "64M"];
    let both = format!("{0}/twin.service, {1}/twin.service", a.path(), b.path());
    desk.refuses(Invocation::new(), &args, USAGE, &["2 cgroups", &both])?;
    drop((_a, _b, a, b));
    ensure!(knobs()? == before, "a knob was written");
    Ok(Outcome::Passed)
}

/// This process in a cgroup for as long as the value lives.
struct Inside(PathBuf);

impl Inside {
    fn of(cgroup: &TempCgroup) -> Result<Self> {
        let root = cgroup_root()?.join("cgroup.procs");
        cgroup.adopt(std::process::id())?;
        Ok(Self(root))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.0, "0") {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn protected() -> Result<Outcome> {
    let parent = TempCgroup::new("parent")?;
    parent.delegate("+memory")?;
    let names = ["own", "vital.service", "mine", "free"];
    let children: Vec<TempCgroup> = names
        .iter()
        .map(|name| parent.child(name))
        .collect::<Result<_>>()?;
    let [own, vital, mine, free] = &children[..] else {
        unreachable!("as many as names");
    };
    let inner = vital.child("inner")?;
    let config = format!(
        "[safety]\ncritical = [\"vital\"]\nprotect = [\"{}\"]\n",
        mine.path()
    );
    let desk = Desk::new("protected", &config)?;
    let inside = Inside::of(own)?;
    let before = knobs()?;
    let critical = "`vital` is a critical service";
    let by_file = format!("`{}` is protected", mine.path());
    let more: &[&str] = &[];
    let table: &[(&TempCgroup, &[&str], &[&str])] = &[
        (
            own,
            more,
            &["it must not be touched", "this command runs in it"],
        ),
        (vital, more, &[critical]),
        (&inner, more, &["it is inside", vital.path(), critical]),
        (mine, more, &[&by_file]),
        (&parent, more, &["it holds", free.path()]),
        (free, &["--protect", "fr*"], &["`fr*` is protected"]),
        (&parent, &["--protect", "fr*"], &["it holds"]),
    ];
    for (cgroup, more, says) in table {
        let args = [&["limit", cgroup.path(), "--high", "64M"], *more].concat();
        desk.refuses(Invocation::new(), &args, REFUSED, says)?;
    }
    let guard = cgroup_root()?.join("grey-ebpf-guard");
    let made = fs::create_dir(&guard).is_ok();
    let args = ["limit", "/grey-ebpf-guard", "--high", "64M"];
    let by_guard = desk.refuses(Invocation::new(), &args, REFUSED, &["the guard runs in it"]);
    if made {
        fs::remove_dir(&guard)?;
    }
    by_guard?;
    ensure!(knobs()? == before, "a knob was written");
    // Its sibling is nobody's concern.
    let finished = desk.enforce(&["limit", free.path(), "--high", "64M", "--lease", "100ms"])?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    ensure!(knobs()? == before, "a knob was not put back");
    drop(inside);
    Ok(Outcome::Passed)
}

fn without_rights() -> Result<Outcome> {
    let desk = Desk::new("rights", "")?;
    let cgroup = TempCgroup::new("target")?;
    let before = knobs()?;
    let root = cgroup_root()?;
    for args in [
        &["limit", cgroup.path(), "--high", "64M"][..],
        &["limit", cgroup.path(), "--high", "64M", "--dry-run"],
    ] {
        let read_only = Invocation::new().read_only(&root);
        desk.refuses(read_only, args, UNSUPPORTED, &["read-only"])?;
        let program = desk.scratch.program()?;
        let nobody = Invocation::new().program(&program).nobody();
        desk.refuses(nobody, args, UNSUPPORTED, &["run it as root"])?;
        let without = Invocation::new().without(&root);
        desk.refuses(without, args, UNSUPPORTED, &["no cgroup v2 tree"])?;
    }
    ensure!(knobs()? == before, "a knob was written");
    Ok(Outcome::Passed)
}

fn bad_configuration() -> Result<Outcome> {
    let cgroup = TempCgroup::new("target")?;
    let desk = Desk::new("config", "")?;
    let before = knobs()?;
    let args = ["limit", cgroup.path(), "--high", "64M"];
    let table: &[(&str, u32, i32, &[&str])] = &[
        (
            "[safety]\nleast_limit = \"1M\"\n",
            0o644,
            USAGE,
            &["config.toml:2: safety.least_limit: ", "64M"],
        ),
        (
            "[safety]\n\nstap = 1\n",
            0o644,
            USAGE,
            &["config.toml:3: safety.stap: is not known", "`step`"],
        ),
        (
            "[watchdog]\nevery = \"1h\"\n",
            0o644,
            USAGE,
            &["config.toml:2: watchdog.every: "],
        ),
        ("[safety\n", 0o644, USAGE, &["config.toml:1: "]),
        ("", 0o666, REFUSED, &["config.toml", "chmod 644"]),
    ];
    for (text, mode, code, says) in table {
        desk.write_config(text, *mode)?;
        desk.refuses(Invocation::new(), &args, *code, says)?;
    }
    fs::remove_file(desk.scratch.join("config.toml"))?;
    desk.refuses(Invocation::new(), &args, USAGE, &["no such file"])?;
    ensure!(knobs()? == before, "a knob was written");
    Ok(Outcome::Passed)
}
