//! `profile` on this machine: the facts of `profiling.rs`, and real programs in three languages, each with a function that
//! leaks beside one that allocates more and frees it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{Outcome, Trial, run};
use crate::profiling::{self, figure};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_profile_of_a_cgroup_counts_what_was_touched_and_what_was_kept",
            profiling::of_a_cgroup_counts_what_was_touched_and_what_was_kept,
        ),
        Trial::new(
            "native_profile_what_mremap_moves_stays_with_who_brought_it",
            profiling::what_mremap_moves_stays_with_who_brought_it,
        ),
        Trial::new(
            "native_profile_huge_pages_count_with_all_they_bring",
            profiling::huge_pages_count_with_all_they_bring,
        ),
        Trial::new(
            "native_profile_a_reservation_that_nobody_touches_counts_nothing",
            profiling::a_reservation_that_nobody_touches_counts_nothing,
        ),
        Trial::new(
            "native_profile_memory_that_the_kernel_fills_counts_for_who_asked_for_it",
            profiling::memory_that_the_kernel_fills_counts_for_who_asked_for_it,
        ),
        Trial::new(
            "native_profile_a_page_that_comes_back_belongs_to_who_brought_it_back",
            profiling::a_page_that_comes_back_belongs_to_who_brought_it_back,
        ),
        Trial::new(
            "native_profile_follows_fewer_pages_where_the_budget_is_small",
            profiling::follows_fewer_pages_where_the_budget_is_small,
        ),
        Trial::new(
            "native_profile_leaves_nothing_in_the_kernel_however_it_ends",
            profiling::leaves_nothing_in_the_kernel_however_it_ends,
        ),
        Trial::new(
            "native_profile_refuses_in_one_line_what_it_cannot_profile",
            profiling::refuses_in_one_line_what_it_cannot_profile,
        ),
        Trial::new(
            "native_profile_of_cpp_names_the_leak_first_in_every_form",
            cpp_in_every_form,
        ),
        Trial::new("native_profile_of_rust_names_the_leak_first", rust),
        Trial::new("native_profile_of_python_names_the_leak_first", python),
        Trial::new(
            "native_profile_without_symbols_has_build_id_and_offset",
            without_symbols,
        ),
        Trial::new(
            "native_profile_of_a_reservation_beside_a_vector_blames_the_vector",
            a_reservation_and_a_vector,
        ),
    ]
}

const SOON: Duration = Duration::from_secs(20);
const CPP: &str = include_str!("../programs/growing.cpp");
const RUST: &str = include_str!("../programs/growing.rs");
const PYTHON: &str = include_str!("../programs/growing.py");

/// A folder of this test, and the program that grows in it.
struct Scene {
    folder: PathBuf,
    child: Option<Child>,
}

impl Scene {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("grey-profile-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            child: None,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes `source` and compiles it; `None` where there is no such compiler.
    fn compile(
        &self,
        compiler: &str,
        args: &[&str],
        name: &str,
        source: &str,
    ) -> Result<Option<PathBuf>> {
        let (from, to) = (self.path(name), self.path("growing"));
        std::fs::write(&from, source)?;
        let output = match Command::new(compiler)
            .args(args)
            .arg("-o")
            .args([&to, &from])
            .output()
        {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(compiler.to_owned()),
        };
        ensure!(
            output.status.success(),
            "{compiler}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Some(to))
    }

    fn cpp(&self, more: &[&str]) -> Result<Option<PathBuf>> {
        let args = [&["-O1", "-fno-omit-frame-pointer"], more].concat();
        self.compile("g++", &args, "growing.cpp", CPP)
    }

    /// Starts it, and waits until it grows. It dies with the test.
    fn start(&mut self, command: &mut Command) -> Result<String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call and does not allocate.
        unsafe {
            command.pre_exec(|| {
                Ok(rustix::process::set_parent_process_death_signal(Some(
                    rustix::process::Signal::KILL,
                ))?)
            });
        }
        let mut child = command.spawn().context("start the program")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let pid = child.id().to_string();
        self.child = Some(child);
        ensure!(line == "ready\n", "it said {line:?}");
        Ok(pid)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn profile(pid: &str) -> Result<Value> {
    let finished = run(
        &["profile", "--pid", pid, "--for", "1500ms", "--json"],
        SOON,
    )?;
    ensure!(finished.code() == Some(0), "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).with_context(|| finished.stdout.clone())
}

/// What all stacks of a function come to.
fn of_function(profile: &Value, name: &str, field: &str) -> Result<u64> {
    profile["stacks"]
        .as_array()
        .context("no stacks")?
        .iter()
        .filter(|stack| {
            stack["function"]
                .as_str()
                .is_some_and(|function| function.contains(name))
        })
        .map(|stack| figure(stack, field))
        .sum()
}

/// The leak is first by far by what it kept, and the other one brought in more.
fn ensure_blamed(profile: &Value, leak: &str, churn: &str) -> Result<()> {
    let first = &profile["stacks"][0];
    ensure!(
        first["function"]
            .as_str()
            .is_some_and(|name| name.contains(leak)),
        "{first} is first"
    );
    let kept = of_function(profile, leak, "kept_bytes")?;
    let all = figure(profile, "kept_bytes")?;
    ensure!(
        kept > 4 << 20 && kept * 10 > all * 8,
        "{leak} kept {kept} of {all} bytes"
    );
    let (more, less) = (
        of_function(profile, churn, "faulted_bytes")?,
        of_function(profile, leak, "faulted_bytes")?,
    );
    ensure!(
        more > less * 4,
        "{churn} brought in {more} bytes, {leak} {less}"
    );
    let left = of_function(profile, churn, "kept_bytes")?;
    ensure!(left < kept / 4, "{left} bytes left of {churn}");
    Ok(())
}

fn cpp_in_every_form() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let Some(program) = scene.cpp(&["-g"])? else {
        return Outcome::skipped("there is no g++ here");
    };
    let pid = scene.start(&mut Command::new(program))?;
    let found = profile(&pid)?;
    ensure_blamed(&found, "leak_a_block", "fill_and_free")?;
    let frames = found["stacks"][0]["frames"]
        .as_array()
        .context("no frames")?;
    ensure!(
        frames.iter().any(|frame| {
            frame["function"] == "main"
                && frame["file"]
                    .as_str()
                    .is_some_and(|file| file.ends_with("growing.cpp"))
                && frame["line"].as_u64().is_some()
        }),
        "main with file and line: {frames:?}"
    );
    for name in ["a.svg", "a.folded", "a.pb.gz", "a.json"] {
        let path = scene.path(name);
        let out = path.to_string_lossy();
        let finished = run(
            &["profile", "--pid", &pid, "--for", "500ms", "-o", &out],
            SOON,
        )?;
        ensure!(
            finished.code() == Some(0) && finished.stdout.contains("leak_a_block"),
            "{name}: {finished:?}"
        );
        let bytes = match name {
            "a.pb.gz" => profiling::unzipped(&path)?,
            _ => std::fs::read(&path)?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let is_so = match name {
            "a.svg" => text.contains("<svg") && text.contains("main"),
            "a.folded" => text.lines().any(|line| {
                line.contains(";main;leak_a_block")
                    || line.contains(";main;(anonymous namespace)::leak_a_block")
            }),
            _ => text.contains("main"),
        };
        ensure!(is_so && text.contains("leak_a_block"), "{name}: {text}");
    }
    let paths = ["a.folded", "a.json", "diff.svg"].map(|name| scene.path(name));
    let [before, after, out] = paths.each_ref().map(|path| path.to_string_lossy());
    let finished = run(&["profile", "diff", &before, &after, "-o", &out], SOON)?;
    ensure!(finished.code() == Some(0), "{finished:?}");
    ensure!(
        std::fs::read_to_string(&paths[2])?.contains("leak_a_block"),
        "no leak in the difference"
    );
    Ok(Outcome::Passed)
}

fn rust() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let args = ["-O", "-g", "-C", "force-frame-pointers=yes"];
    let Some(program) = scene.compile("rustc", &args, "growing.rs", RUST)? else {
        return Outcome::skipped("there is no rustc here");
    };
    let pid = scene.start(&mut Command::new(program))?;
    ensure_blamed(
        &profile(&pid)?,
        "growing::leak_a_block",
        "growing::fill_and_free",
    )?;
    Ok(Outcome::Passed)
}

/// A Python that writes perf maps and has frame pointers itself.
fn perf_python() -> Option<String> {
    let named = std::env::var("GREY_PYTHON").ok();
    let usual = [
        "python3",
        "python3.15",
        "python3.14",
        "python3.13",
        "python3.12",
    ];
    named
        .into_iter()
        .chain(usual.map(str::to_owned))
        .find(|name| {
            let check = "import sys, sysconfig; sys.activate_stack_trampoline('perf'); \
                     sys.exit('-fno-omit-frame-pointer' not in sysconfig.get_config_var('CFLAGS'))";
            let status = Command::new(name)
                .args(["-c", check])
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        })
}

fn python() -> Result<Outcome> {
    let Some(python) = perf_python() else {
        return Outcome::skipped(
            "no Python here has the perf trampoline (3.12) and frame pointers (3.15, or built so); GREY_PYTHON names one",
        );
    };
    let mut scene = Scene::new()?;
    let script = scene.path("growing.py");
    std::fs::write(&script, PYTHON)?;
    let mut command = Command::new(python);
    command.args([Path::new("-X"), Path::new("perf"), &script]);
    let pid = scene.start(command.env("MALLOC_MMAP_THRESHOLD_", "65536"))?;
    ensure_blamed(&profile(&pid)?, "py::leak_a_block", "py::fill_and_free")?;
    let _ = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
    Ok(Outcome::Passed)
}

fn without_symbols() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let Some(program) = scene.cpp(&[
        "-s",
        "-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567",
    ])?
    else {
        return Outcome::skipped("there is no g++ here");
    };
    let pid = scene.start(&mut Command::new(program))?;
    let found = profile(&pid)?;
    let frames = found["stacks"][0]["frames"]
        .as_array()
        .context("no frames")?;
    let frame = frames
        .iter()
        .find(|frame| frame["build_id"] == "0123456789abcdef0123456789abcdef01234567")
        .with_context(|| format!("no frame with the build id: {frames:?}"))?;
    ensure!(
        figure(frame, "offset")? > 0
            && frame["module"]
                .as_str()
                .is_some_and(|module| module.ends_with("/growing"))
            && frame.get("function").is_none(),
        "{frame}"
    );
    Ok(Outcome::Passed)
}

fn a_reservation_and_a_vector() -> Result<Outcome> {
    let mut scene = Scene::new()?;
    let Some(program) = scene.cpp(&["-g"])? else {
        return Outcome::skipped("there is no g++ here");
    };
    let pid = scene.start(Command::new(program).arg("reserve"))?;
    let found = profile(&pid)?;
    let first = &found["stacks"][0];
    let frames = first["frames"].to_string();
    ensure!(
        first["function"]
            .as_str()
            .is_some_and(|name| name.contains("remember_without_bound"))
            && frames.contains("std::vector<long")
            && frames.contains("push_back"),
        "{first} is first"
    );
    let (kept, all) = (figure(first, "kept_bytes")?, figure(&found, "kept_bytes")?);
    ensure!(
        kept > 4 << 20 && all < 4 << 30,
        "{kept} of {all} bytes kept"
    );
    ensure!(!found.to_string().contains("reserve_only"), "{found}");
    Ok(Outcome::Passed)
}
