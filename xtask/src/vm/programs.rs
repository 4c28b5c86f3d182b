//! Small programs of our own that are not part of grey-ebpf and that guests run to be watched: C built here, scripts as
//! they are. Series are recorded from them, and live tests run them (grey-eval/record/programs).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const SOURCES: &str = "grey-eval/record/programs";

/// The programs, and what could not be had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    files: Vec<PathBuf>,
    missing: String,
}

impl Extras {
    /// One more, which is there under its own name.
    pub(super) fn add(&mut self, program: PathBuf) {
        self.files.push(program);
    }

    /// Notes that the guest does without `what`.
    pub(super) fn lacks(&mut self, what: &str, why: &str) {
        eprintln!("the guest does without {what}: {why}");
        self.missing.push_str(&format!("{what}: {why}\n"));
    }

    /// Lines `WHAT: WHY`, for the tests in the guest.
    pub(super) fn missing(&self) -> &str {
        &self.missing
    }

    /// Name and contents of each.
    pub(super) fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.files
            .iter()
            .map(|path| {
                let name = path.file_name().context("a program without a name")?;
                let contents =
                    fs::read(path).with_context(|| format!("read {}", path.display()))?;
                Ok((name.to_string_lossy().into_owned(), contents))
            })
            .collect()
    }
}

/// Builds what must be built. A compiler that is missing costs its programs, not the run.
pub(super) fn build(root: &Path, cache: &Path) -> Extras {
    let mut extras = Extras::default();
    let out = cache.join("programs");
    if let Err(error) = fs::create_dir_all(&out) {
        extras.lacks("programs to watch", &format!("{}: {error}", out.display()));
        return extras;
    }
    let mut sources: Vec<PathBuf> = fs::read_dir(root.join(SOURCES))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    sources.sort();
    for source in sources {
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let built = match source.extension().and_then(|extension| extension.to_str()) {
            Some("c") => compile_c(&source, &out),
            Some("java") => compile_java(&source, &out),
            _ => Ok(source.clone()),
        };
        match built {
            Ok(path) => extras.files.push(path),
            Err(error) => extras.lacks(&name, &format!("{error:#}")),
        }
    }
    extras
}

/// Static, with the C library of this machine and its real allocator; with what a profile needs to name its functions.
fn compile_c(source: &Path, out: &Path) -> Result<PathBuf> {
    let target = out.join(source.file_stem().context("no name")?);
    let mut command = Command::new("cc");
    command.args([
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
        "-static",
        "-pthread",
    ]);
    command.args(["-Wall", "-Werror", "-o"]);
    make(command.arg(&target).arg(source), source, &target)
}

/// One class a file, for Java 17, which the guest has.
fn compile_java(source: &Path, out: &Path) -> Result<PathBuf> {
    let target = out.join(
        source
            .with_extension("class")
            .file_name()
            .context("no name")?,
    );
    let mut command = Command::new("javac");
    command.args(["--release", "17", "-d"]);
    make(command.arg(out).arg(source), source, &target)
}

/// Runs the compiler unless what it made is newer than the source.
fn make(command: &mut Command, source: &Path, target: &Path) -> Result<PathBuf> {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    if let (Ok(made), Ok(written)) = (time(target), time(source))
        && made > written
    {
        return Ok(target.to_owned());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("run {program}: is it installed?"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program}: {}",
            stderr.lines().next().unwrap_or("no message")
        );
    }
    Ok(target.to_owned())
}
