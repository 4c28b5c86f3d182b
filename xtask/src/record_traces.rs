//! `cargo xtask record-traces`: runs real programs in a VM, records them with `grey-ebpf record`, and writes the
//! recordings with their labels to grey-eval/data.

mod labels;
mod scenario;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::labels::Taken;
use self::scenario::Run;
use crate::vm::{Machines, Payload, Userland, VmOptions, seconds};
use crate::vm_command::show;

/// What a run may hand over, uncompressed by the file system that it does without.
const OUTPUT_BYTES: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A kernel of the matrix
    #[arg(long, value_name = "VERSION", default_value = crate::vm::REQUIRED)]
    kernel: String,
    /// Shorten the runs to so many seconds, to try a change of the scenarios
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Where recordings and labels go
    #[arg(long, value_name = "DIR", default_value = "grey-eval/data")]
    into: PathBuf,
    #[command(flatten)]
    options: VmOptions,
    /// Record these runs only, by name
    runs: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = crate::workspace();
    let into = root.join(&args.into);
    fs::create_dir_all(&into).with_context(|| format!("create {}", into.display()))?;
    let runs = scenario::read(&root.join("grey-eval/record/scenarios.json"))?;
    for name in &args.runs {
        if runs.iter().all(|run| run.name != *name) {
            let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
            bail!("no run {name}; there are {}", names.join(", "));
        }
    }
    for run in runs
        .into_iter()
        .filter(|run| args.runs.is_empty() || args.runs.contains(&run.name))
    {
        let run = Run {
            seconds: args.seconds.unwrap_or(run.seconds),
            ..run
        };
        record(&root, args, &run, &into)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn record(root: &Path, args: &Args, run: &Run, into: &Path) -> Result<()> {
    let start = Instant::now();
    let scratch = root.join(format!("target/vm/record-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let taken = in_vm(root, args, run, &scratch);
    let done = taken.and_then(|taken| labels::write(run, &taken, &scratch, into));
    // What took so long to record is kept where something is wrong with it.
    let written = done.with_context(|| format!("the run {} ({})", run.name, scratch.display()))?;
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    println!("{}: {written} in {}", run.name, seconds(start));
    Ok(())
}

/// Boots, lets the programs run, and unpacks what was recorded into `scratch`.
fn in_vm(root: &Path, args: &Args, run: &Run, scratch: &Path) -> Result<Taken> {
    let output = scratch.join("output.tar");
    let file = fs::File::create(&output).context("create the disk for what is recorded")?;
    file.set_len(OUTPUT_BYTES)
        .context("size the disk for what is recorded")?;
    let mut machines = Machines::prepare(root, &args.options)?;
    machines.equip(Userland::Recordings)?;
    ensure!(
        machines.missing().is_empty(),
        "recordings need all programs: {}",
        machines.missing().trim_end()
    );
    machines.enlarge(run.memory_mib, output.clone());
    let kernel = machines.kernel(&args.kernel)?;
    let payload = Payload::Command(run.script());
    let total = Duration::from_secs(run.seconds + 600);
    let guest = machines.run(&args.kernel, &kernel, &payload, total, show)?;
    let code = guest.ended?;
    ensure!(code == 0, "the guest's script ended with {code}");
    let status = Command::new("tar")
        .arg("-xf")
        .arg(&output)
        .arg("-C")
        .arg(scratch)
        .status()
        .context("run tar")?;
    ensure!(status.success(), "tar cannot read what the guest wrote");
    Ok(Taken {
        kernel: guest.release,
        packages: machines.packages().to_vec(),
    })
}
