//! `cargo xtask vm`: one or more guests, for the tests or for a command.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::vm::{Machines, Outcome, Payload, Piece, REQUIRED, Record, VmOptions, matrix, seconds};

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
    let otherwise = if args.all { matrix() } else { vec![REQUIRED] };
    let names = args.options.kernels(&args.kernel, &otherwise)?;
    let mut machines = Machines::prepare(&crate::workspace(), &args.options)?;
    let payload = match &args.exec {
        Some(command) => Payload::Command(command.clone()),
        None => Payload::Tests(args.tests.clone()),
    };
    let mut worst = 0;
    let many = names.len() > 1;
    for name in names {
        let start = Instant::now();
        let kernel = machines.kernel(&name)?;
        let run = machines.run(
            &name,
            &kernel,
            &payload,
            Duration::from_secs(args.timeout),
            show,
        )?;
        let code = run.ended?;
        if many || args.exec.is_none() {
            eprintln!(
                "kernel {} ({}): exit code {code} in {}",
                run.release,
                kernel.origin,
                seconds(start)
            );
        }
        if code != 0 {
            worst = code;
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
