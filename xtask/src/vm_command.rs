//! `cargo xtask vm`: one or more guests, for the tests or for a command.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::vm::{KERNELS, Machines, Outcome, Payload, Piece, REQUIRED, Record, VmOptions, seconds};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A kernel of the matrix; may be given more than once [default: 6.12]
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Every kernel of the matrix
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Run a shell command in the guest instead of the tests, and exit with its code
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 1200, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    options: VmOptions,
    /// Which tests to run, in libtest's syntax
    #[arg(last = true)]
    tests: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut machines = Machines::prepare(&crate::workspace(), &args.options)?;
    let names: Vec<&str> = match (args.all, args.kernel.as_slice()) {
        (true, _) => KERNELS.iter().map(|kernel| kernel.name).collect(),
        (false, []) => vec![REQUIRED],
        (false, names) => names.iter().map(String::as_str).collect(),
    };
    let payload = match &args.exec {
        Some(command) => Payload::Command(command.clone()),
        None => Payload::Tests(args.tests.clone()),
    };
    let mut worst = 0;
    for name in names {
        let start = Instant::now();
        let kernel = machines.kernel(name)?;
        let run = machines.run(
            name,
            &kernel,
            &payload,
            Duration::from_secs(args.timeout),
            show,
        )?;
        if args.exec.is_none() || args.all || args.kernel.len() > 1 {
            eprintln!(
                "kernel {} ({}): exit code {} in {}",
                run.release,
                kernel.origin,
                run.code,
                seconds(start)
            );
        }
        if run.code != 0 {
            worst = run.code;
        }
    }
    match u8::try_from(worst) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(_) => bail!("the guest ended with {worst}"),
    }
}

/// A command's output goes out as it is; a test's result becomes a line.
pub(crate) fn show(piece: &Piece) {
    match piece {
        Piece::Raw(bytes) => {
            let mut stdout = std::io::stdout().lock();
            // A closed pipe is the reader's wish.
            let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
        }
        Piece::Record(Record::Result(result)) => {
            let detail = result.detail.as_deref().unwrap_or_default();
            match result.outcome {
                Outcome::Passed => println!("  passed  {} ({:.2} s)", result.test, result.seconds),
                Outcome::Skipped => println!("  skipped {}: {detail}", result.test),
                Outcome::Failed => println!(
                    "  FAILED  {} ({:.2} s)\n{detail}",
                    result.test, result.seconds
                ),
            }
        }
        Piece::Record(_) => {}
    }
}
