//! `snapshot save` and `snapshot compare`, around programs whose memory is known to the page.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Outcome, TempCgroup, Trial, Workload, cgroup_root, grey_ebpf, run};
use crate::invocation::{Invocation, Scratch};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_snapshot_shows_what_a_program_took_and_gave_back",
            took_and_gave_back,
        ),
        Trial::new(
            "native_snapshot_tells_new_gone_and_made_again",
            new_gone_and_made_again,
        ),
        Trial::new(
            "native_snapshot_of_everything_holds_each_cgroup_and_process",
            of_everything,
        ),
        Trial::new(
            "native_snapshot_files_are_packed_by_name_and_replaced_only_by_force",
            files,
        ),
        Trial::new(
            "native_snapshot_a_bad_file_is_one_line_and_code_2",
            bad_files,
        ),
        Trial::new(
            "native_snapshot_without_root_has_what_may_be_read_and_says_the_rest",
            without_root,
        ),
    ]
}

pub(crate) const M: i64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);

/// Snapshots of one test.
pub(crate) struct Album {
    scratch: Scratch,
    chosen: Vec<String>,
}

impl Album {
    /// Of these cgroups.
    pub(crate) fn of(label: &str, chosen: &[&str]) -> Result<Self> {
        let chosen = chosen.iter().flat_map(|glob| ["--cgroup", glob]);
        Ok(Self {
            scratch: Scratch::new(label)?,
            chosen: chosen.map(str::to_owned).collect(),
        })
    }

    pub(crate) fn path(&self, name: &str) -> Result<String> {
        self.scratch.argument(name)
    }

    pub(crate) fn save(&self, name: &str) -> Result<Value> {
        let path = self.path(name)?;
        let mut args = vec!["snapshot", "save", &path];
        args.extend(self.chosen.iter().map(String::as_str));
        let ended = run(&args, SOON)?;
        ensure!(
            ended.code() == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        ensure!(
            ended.stdout.starts_with(&format!("{path}: ")) && ended.stdout.lines().count() == 1,
            "{ended:?}"
        );
        serde_json::from_str(&fs::read_to_string(&path)?).context("a snapshot")
    }

    pub(crate) fn compare(&self, before: &str, after: &str) -> Result<Value> {
        let (before, after) = (self.path(before)?, self.path(after)?);
        let ended = run(&["snapshot", "compare", "--json", &before, &after], SOON)?;
        ensure!(
            ended.code() == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        serde_json::from_str(&ended.stdout).context("a comparison")
    }

    fn text(&self, before: &str, after: &str) -> Result<String> {
        let (before, after) = (self.path(before)?, self.path(after)?);
        let ended = run(&["snapshot", "compare", &before, &after], SOON)?;
        ensure!(
            ended.code() == Some(0) && ended.stderr.is_empty(),
            "{ended:?}"
        );
        Ok(ended.stdout)
    }
}

/// The entry of a list with this value.
pub(crate) fn find<'a>(
    document: &'a Value,
    list: &str,
    key: &str,
    value: impl Into<Value>,
) -> Result<&'a Value> {
    let value = value.into();
    document[list]
        .as_array()
        .with_context(|| format!("no {list}"))?
        .iter()
        .find(|entry| entry[key] == value)
        .with_context(|| format!("no {key} {value} in {}", document[list]))
}

/// A reduction within `off` bytes of what is wanted.
pub(crate) fn reduced(entry: &Value, figure: &str, want: i64, off: i64) -> Result<()> {
    let got = entry["figures"][figure]["reduction_bytes"]
        .as_i64()
        .with_context(|| format!("no reduction of {figure}: {entry}"))?;
    ensure!(
        got.abs_diff(want) <= off.unsigned_abs(),
        "{figure}: {got}, not {want} ± {off}: {entry}"
    );
    Ok(())
}

/// Pages of the program's file, which other tests map as well: each of them that begins or ends changes their share.
const SHARED: i64 = 3 * M;

/// 64 MiB are mapped and touched, and unmapped again. Also for VMs, where the cgroup has memory.* files.
pub(crate) fn took_and_gave_back() -> Result<Outcome> {
    let cgroup = TempCgroup::new("snapshot")?;
    let mut workload = Workload::start(&cgroup)?;
    // Once before, so that the code for it is there.
    workload.step("touch 1")?;
    workload.step("unmap")?;
    let album = Album::of("took", &[cgroup.path()])?;
    album.save("small")?;
    workload.step("touch 16384")?;
    let large = album.save("large")?;
    workload.step("unmap")?;
    album.save("after")?;
    ensure!(
        large["schema"] == "grey-ebpf-snapshot/1"
            && large["cgroups"][0]["cgroup"]["id"] == cgroup.id()?,
        "{large}"
    );
    let with_files = cgroup.has("memory.current");
    let by = if with_files { "current" } else { "anon_swap" };
    for (before, after, want) in [("small", "large", -64 * M), ("large", "after", 64 * M)] {
        let comparison = album.compare(before, after)?;
        let process = find(&comparison, "processes", "pid", workload.pid())?;
        for figure in ["pss", "uss", "rss", "anon"] {
            // The kernel adds resident pages up with some delay (up to 64 a CPU and counter).
            let off = if figure == "anon" { M } else { SHARED };
            reduced(process, figure, want, off)?;
        }
        ensure!(
            process["status"] == "same" && process["figure"] == "pss",
            "{process}"
        );
        let entry = find(&comparison, "cgroups", "path", cgroup.path())?;
        // Charged in batches of 64 pages a CPU, and page tables with it.
        reduced(entry, by, want, 2 * M)?;
        reduced(entry, "anon", want, M)?;
        reduced(entry, "pss", want, SHARED)?;
        ensure!(
            entry["status"] == "same" && entry["figure"] == by,
            "{entry}"
        );
        let sum = comparison["accounted"]["cgroups_bytes"].as_i64();
        ensure!(sum == entry["reduction_bytes"].as_i64(), "{comparison}");
        let share = entry["reduction_pct"].as_f64().context("no share")?;
        ensure!(share.signum() == (want as f64).signum(), "{entry}");
    }
    let there = album.text("small", "large")?;
    let back = album.text("large", "after")?;
    let line = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(cgroup.path()));
        line.map(str::to_owned)
            .with_context(|| format!("not told of: {text}"))
    };
    let says = |line: &str, sign: &str| {
        let sizes = ["63M", "64M", "65M"];
        sizes
            .iter()
            .any(|size| line.contains(&format!(" {sign}{size} ")))
    };
    ensure!(says(&line(&there)?, "+"), "{there}");
    ensure!(says(&line(&back)?, "-"), "{back}");
    Ok(Outcome::Passed)
}

fn new_gone_and_made_again() -> Result<Outcome> {
    let parent = TempCgroup::new("snapshot-again")?;
    let album = Album::of("again", &[parent.path(), &format!("{}/**", parent.path())])?;
    let first = parent.child("x")?;
    let (path, before_id) = (first.path().to_owned(), first.id()?);
    let old = Workload::start(&first)?;
    let old_pid = old.pid();
    let gone = parent.child("gone")?;
    let gone_path = gone.path().to_owned();
    album.save("before")?;
    drop((old, first, gone));
    let second = parent.child("x")?;
    ensure!(
        second.id()? != before_id,
        "the kernel gave the id out again"
    );
    let new = Workload::start(&second)?;
    let fresh = parent.child("fresh")?;
    album.save("after")?;
    let comparison = album.compare("before", "after")?;
    for (list, key, value, status) in [
        ("cgroups", "path", Value::from(parent.path()), "same"),
        ("cgroups", "path", Value::from(path), "recreated"),
        ("cgroups", "path", Value::from(gone_path), "gone"),
        ("cgroups", "path", Value::from(fresh.path()), "new"),
        ("processes", "pid", Value::from(old_pid), "gone"),
        ("processes", "pid", Value::from(new.pid()), "new"),
    ] {
        let entry = find(&comparison, list, key, value)?;
        ensure!(entry["status"] == status, "not {status}: {entry}");
    }
    let uss = &find(&comparison, "processes", "pid", old_pid)?["figures"]["uss"];
    ensure!(
        uss["reduction_bytes"] == uss["before"]
            && uss["reduction_pct"] == 100.0
            && uss.get("after").is_none(),
        "{uss}"
    );
    let codes: Vec<&Value> = comparison["notes"]
        .as_array()
        .context("no notes")?
        .iter()
        .map(|note| &note["code"])
        .collect();
    ensure!(codes.iter().any(|code| **code == "recreated"), "{codes:?}");
    let text = album.text("before", "after")?;
    for word in ["made again", "new", "gone", "note"] {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(Outcome::Passed)
}

fn of_everything() -> Result<Outcome> {
    let cgroup = TempCgroup::new("snapshot-all")?;
    let workload = Workload::start(&cgroup)?;
    let album = Album::of("all", &[])?;
    let all = album.save("all")?;
    let entry = find(&all["processes"], "list", "pid", workload.pid())?;
    ensure!(
        entry["cgroup"] == cgroup.path() && entry["started"].as_u64() > Some(0),
        "{entry}"
    );
    for path in ["/", cgroup.path()] {
        let known = all["cgroups"]
            .as_array()
            .context("no cgroups")?
            .iter()
            .any(|entry| entry["cgroup"]["path"] == path);
        ensure!(known, "no {path}");
    }
    let total = all["machine"]["memory"]["total"].as_u64();
    let meminfo = crate::swap::value_of("/proc/meminfo", "MemTotal")? * 1024;
    ensure!(total == Some(meminfo), "{total:?} of {meminfo}");
    // With itself: nothing changed, and nothing is made up.
    let same = album.compare("all", "all")?;
    for list in ["cgroups", "processes"] {
        for entry in same[list].as_array().context("no list")? {
            ensure!(
                entry["status"] == "same"
                    && entry["reduction_bytes"].as_i64().is_none_or(|n| n == 0),
                "{entry}"
            );
        }
    }
    let most = album.path("all")?;
    let ended = run(
        &["snapshot", "compare", "--json", "--top", "1", &most, &most],
        SOON,
    )?;
    let short: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(
        short["processes"].as_array().map(Vec::len) == Some(1),
        "{short}"
    );
    Ok(Outcome::Passed)
}

fn files() -> Result<Outcome> {
    let album = Album::of("files", &[])?;
    let save = |args: &[&str]| Invocation::new().run(&[&["snapshot", "save"], args].concat());
    let (plain, packed) = (album.path("a.json")?, album.path("a.json.gz")?);
    for path in [&plain, &packed] {
        ensure!(save(&[path])?.code == Some(0), "{path}");
        let before = fs::read(path)?;
        save(&[path])?.is_one_line(4, &[path, "--force"])?;
        ensure!(fs::read(path)? == before, "{path} was changed");
        ensure!(save(&[path, "--force"])?.code == Some(0), "{path}");
        ensure!(fs::read(path)? != before, "{path} was not replaced");
    }
    ensure!(fs::read(&packed)?.starts_with(&[0x1f, 0x8b]), "not packed");
    let names = fs::read_dir(album.scratch.join(""))?.count();
    ensure!(names == 2, "{names} files: something temporary was left");
    let ended = Invocation::new().run(&["snapshot", "compare", &plain, &packed])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    // Through pipes.
    let ended = save(&["-"])?;
    let piped: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(
        piped["schema"] == "grey-ebpf-snapshot/1" && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let output = Command::new(grey_ebpf())
        .args(["snapshot", "compare", "-", &plain])
        .stdin(Stdio::from(File::open(&packed)?))
        .output()?;
    ensure!(
        output.status.code() == Some(0) && !output.stdout.is_empty(),
        "{output:?}"
    );
    // Where it cannot be written.
    save(&["/nowhere/a.json"])?.is_one_line(1, &["/nowhere/a.json", "somewhere else"])?;
    save(&["/proc/a.json"])?.is_one_line(1, &["/proc/a.json"])?;
    save(&["/dev/full"])?.is_one_line(1, &["/dev/full", "No space"])?;
    save(&["/tmp"])?.is_one_line(2, &["/tmp", "directory"])?;
    for args in [
        &["snapshot", "save", "-"][..],
        &["snapshot", "compare", &plain, &packed],
    ] {
        let full = File::options().write(true).open("/dev/full")?;
        let ended = Invocation::new().stdout(full).run(args)?;
        ended.is_one_line(1, &["stdout", "No space"])?;
    }
    Ok(Outcome::Passed)
}

fn bad_files() -> Result<Outcome> {
    let album = Album::of("bad", &[])?;
    album.save("good")?;
    let good = album.path("good")?;
    let whole = fs::read(&good)?;
    fs::write(album.path("packed.gz")?, [0x1f, 0x8b, 8, 0, 0, 0])?;
    fs::write(album.path("cut")?, &whole[..whole.len() / 2])?;
    fs::write(album.path("empty")?, "")?;
    fs::write(album.path("foreign")?, "MZ\0\0 something else")?;
    fs::write(album.path("json")?, "{\"a\":1}")?;
    fs::write(
        album.path("stream")?,
        "{\"schema\":\"grey-ebpf/1\",\"type\":\"health\"}\n",
    )?;
    fs::write(
        album.path("later")?,
        "{\"schema\":\"grey-ebpf-snapshot/9\"}",
    )?;
    let cases: &[(&str, &[&str])] = &[
        ("packed.gz", &["cut off or damaged", "save it again"]),
        ("cut", &["cut off", "save it again"]),
        ("empty", &["is empty", "snapshot save"]),
        ("foreign", &["not a snapshot", "snapshot save"]),
        ("json", &["not a snapshot", "snapshot save"]),
        ("stream", &["a recording", "snapshot save"]),
        ("later", &["grey-ebpf-snapshot/9", "newer"]),
        ("none", &["no such file", "snapshot save"]),
        ("", &["directory"]),
    ];
    for (name, says) in cases {
        let bad = album.path(name)?;
        for pair in [[&bad, &good], [&good, &bad]] {
            for more in [&[][..], &["--json"]] {
                let args = [&["snapshot", "compare", pair[0], pair[1]], more].concat();
                let ended = Invocation::new().run(&args)?;
                ended
                    .is_one_line(2, &[&bad])
                    .and_then(|()| ended.is_one_line(2, says))?;
            }
        }
    }
    let cases: &[(&[&str], &[&str])] = &[
        (&["snapshot", "compare", "-", "-"], &["stdin", "once"]),
        (&["snapshot", "compare", "-", &good], &["stdin", "is empty"]),
        (&["snapshot", "compare", &good], &["<AFTER>"]),
        (
            &["snapshot", "compare", "--top", "x", &good, &good],
            &["--top"],
        ),
        (&["snapshot", "save"], &["<FILE>"]),
        (&["snapshot", "save", "--processes", "-1", "x"], &["-1"]),
        (
            &["snapshot", "save", "--cgroup", "/grey-none", "x"],
            &["--cgroup", "/grey-none", "no cgroup"],
        ),
        (
            &["snapshot", "save", "--cgroup", "[a", "x"],
            &["--cgroup", "[a", "unclosed"],
        ),
        (&["snapshot", "delete"], &["delete"]),
    ];
    for (args, says) in cases {
        Invocation::new()
            .run(args)?
            .is_one_line(2, says)
            .with_context(|| args.join(" "))?;
    }
    ensure!(
        !std::path::Path::new("x").exists(),
        "a file was made all the same"
    );
    Ok(Outcome::Passed)
}

fn without_root() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Outcome::skipped("there is no other user's process to be refused");
    }
    let album = Album::of("nobody", &[])?;
    let program = album.scratch.program()?;
    let ended = Invocation::new()
        .program(&program)
        .nobody()
        .run(&["snapshot", "save", "-"])?;
    ensure!(
        ended.code == Some(0) && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let snapshot: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(
        snapshot["processes"]["denied"].as_u64() > Some(0),
        "nothing was refused"
    );
    let own = find(&snapshot["processes"], "list", "pid", std::process::id())?;
    ensure!(
        own["rss"].as_u64() > Some(0) && own.get("pss").is_none(),
        "{own}"
    );
    fs::write(album.path("nobody")?, &ended.stdout)?;
    album.save("root")?;
    let comparison = album.compare("nobody", "root")?;
    let own = find(&comparison, "processes", "pid", std::process::id())?;
    ensure!(own["figure"] == "rss", "{own}");
    let told = comparison["notes"].as_array().context("no notes")?;
    ensure!(
        told.iter().any(|note| note["code"] == "pss_denied"),
        "{told:?}"
    );
    // Nothing at all without /proc; cgroups may be missing.
    let ended = Invocation::new()
        .without(&cgroup_root()?)
        .run(&["snapshot", "save", "-"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let snapshot: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(
        snapshot["cgroups"].as_array().map(Vec::len) == Some(1),
        "{}",
        snapshot["cgroups"]
    );
    Ok(Outcome::Passed)
}
