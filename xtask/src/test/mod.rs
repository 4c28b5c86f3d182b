//! `cargo xtask test`: unit tests, native tests and a VM for each kernel, added up in one last line.

mod again;
mod native;
mod report;
mod unit;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::again::alone;
use self::report::{Report, Suite};
use crate::vm::{Machines, Payload, REQUIRED, VmOptions, matrix, seconds};
use crate::vm_command::show;

/// A whole VM run on a slow machine; a test has its own deadline in the guest.
const TOTAL: Duration = Duration::from_secs(2700);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unit and native tests only: no VM
    #[arg(long, conflicts_with = "vm_only")]
    native_only: bool,
    /// VM tests only
    #[arg(long)]
    vm_only: bool,
    /// Which kernels to run the VM tests on; may be given more than once [default: all]
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    #[command(flatten)]
    options: VmOptions,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = crate::workspace();
    let kernels = args.options.kernels(&args.kernel, &matrix())?;
    let filter: Vec<String> = args.filter.iter().cloned().collect();
    let mut report = Report::default();
    if !args.vm_only {
        report.add("unit", unit::run(&root, &filter));
    }
    match Machines::prepare(&root, &args.options) {
        Ok(mut machines) => {
            if !args.vm_only {
                report.add("native", native::run(&root, machines.tests(), &filter));
            }
            if !args.native_only {
                for name in &kernels {
                    report.add(name, on_kernel(&mut machines, name, &filter));
                }
            }
        }
        Err(error) => report.add("build", Suite::failed(format!("{error:#}"))),
    }
    report.write(&root.join("target/test-results.json"))?;
    report.print();
    Ok(if report.has_failures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn on_kernel(machines: &mut Machines, name: &str, filter: &[String]) -> Suite {
    let start = Instant::now();
    println!("== kernel {name}");
    let kernel = match machines.kernel(name) {
        Ok(kernel) => kernel,
        Err(error) if name == REQUIRED => {
            return Suite::failed(format!("no kernel {name}: {error:#}"));
        }
        Err(error) => return Suite::skipped(format!("{error:#}")),
    };
    let payload = Payload::Tests(filter.to_vec());
    let run = match machines.run(name, &kernel, &payload, TOTAL, show) {
        Ok(run) => run,
        Err(error) => return Suite::failed(format!("{error:#}")),
    };
    println!(
        "   {} ({}) in {}",
        run.release,
        kernel.origin,
        seconds(start)
    );
    let mut suite = Suite::of(run.results);
    suite.kernel = Some(run.release);
    suite.origin = Some(kernel.origin.clone());
    suite.restarts = run.restarts;
    suite.seconds = start.elapsed().as_secs_f64();
    suite.judge_end(run.ended);
    suite.try_again(|test| {
        let payload = Payload::Tests(alone(test).to_vec());
        Ok(machines.run(name, &kernel, &payload, TOTAL, show)?.results)
    });
    suite
}
