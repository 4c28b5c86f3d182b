//! `cargo xtask eval`: builds the benchmark of leak detection optimised and runs it.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let root = crate::workspace();
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "-p", "grey-eval"])
        .current_dir(&root)
        .status()
        .context("run cargo")?;
    if !built.success() {
        bail!("the benchmark did not build");
    }
    let program = root.join("target/release/grey-eval");
    // exec: the exit code is the benchmark's own.
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}
