//! `cargo xtask`: builds the kernel object, runs the program, tests it on real kernels.

mod bench;
mod build_ebpf;
mod eval;
mod kernel_table;
mod record_traces;
mod release_agent;
mod test;
mod vm;
mod vm_command;
mod watch;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about, version)]
enum Task {
    /// Build the kernel object and write the committed one
    BuildEbpf {
        /// Fail if the committed object differs from a fresh build instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Build grey-ebpf and run `grey-ebpf watch`, as root where needed
    Watch {
        /// Arguments of `watch`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the release agent, the library that `enforce trim` speaks to, and say where it is
    ReleaseAgent,
    /// Run all tests: unit, native, and in VMs on each kernel
    Test(test::Args),
    /// Boot a test VM: run the VM tests in it, or a shell command
    Vm(vm_command::Args),
    /// Score leak detection and the baselines on the benchmark
    #[command(disable_help_flag = true)]
    Eval {
        /// Arguments of the evaluation; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure what grey-ebpf costs, side by side with what else one would use
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the benchmark; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Record real programs in a VM for the benchmark of leak detectors
    RecordTraces(record_traces::Args),
    /// Write the tables of what works on which kernel, from VM runs
    KernelTable(kernel_table::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::BuildEbpf { check } => build_ebpf::run(check).map(|()| ExitCode::SUCCESS),
        Task::Watch { args } => watch::run(&args),
        Task::ReleaseAgent => release_agent::run().map(|()| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm_command::run(&args),
        Task::Eval { args } => eval::run(&args),
        Task::Bench { args } => bench::run(&args),
        Task::RecordTraces(args) => record_traces::run(&args),
        Task::KernelTable(args) => kernel_table::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// The directory of the workspace.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(named)
}

/// Builds packages as they are shipped.
fn build_release(packages: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release"]).current_dir(workspace());
    for package in packages {
        cargo.args(["-p", package]);
    }
    if !cargo.status().context("run cargo")?.success() {
        bail!("{} did not build", packages.join(", "));
    }
    Ok(())
}

/// Runs a program in our place: its exit code and Ctrl-C are its own.
fn become_program(mut command: Command) -> Result<ExitCode> {
    let error = command.exec();
    let program = command.get_program().display().to_string();
    Err(error).with_context(|| format!("run {program}"))
}
