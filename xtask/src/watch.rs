//! `cargo xtask watch`: builds the program and runs `watch` with the privileges it wants.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let root = crate::workspace();
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "-p", "grey-user"])
        .current_dir(&root)
        .status()
        .context("run cargo")?;
    if !built.success() {
        bail!("grey-ebpf did not build");
    }
    let program = root.join("target/release/grey-ebpf");
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&program)
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg(&program);
        sudo
    } else {
        eprintln!("not root and no sudo: watch goes on without kernel events");
        Command::new(&program)
    };
    // exec: Ctrl-C and the exit code are the program's own.
    let error = command.arg("watch").args(args).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .any(|directory| {
            let path: &Path = &directory.join(program);
            path.is_file()
        })
}
