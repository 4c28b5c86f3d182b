//! What the probes cost those who run into them: page faults, mmap and its like, and everybody else.

use anyhow::Result;

use crate::beside::{Beside, Whom};
use crate::compare::{Bench, Variant, variant};
use crate::load::Load;
use crate::machine;

const NOTHING: &str = "nothing";
const EMPTY: &str = "empty programs on the same hooks";
const OURS: &str = "`grey-ebpf watch --json`";

/// bpftrace's counterpart of our fault counters, and of our growth.
const COUNT_FAULTS: &str = "tracepoint:exceptions:page_fault_user { @[cgroup] = count(); }";
const SUM_RSS: &str = "tracepoint:kmem:rss_stat { @[cgroup, args->member] = sum(args->size); }";

/// bcc's counterpart, for the whole machine.
const FUNCCOUNT: Beside = Beside::Other(
    &["funccount-bpfcc", "t:exceptions:page_fault_user"],
    "Tracing",
    "bpfcc-tools",
);

fn on_faults() -> [Variant; 9] {
    [
        variant(NOTHING, Beside::Nothing),
        variant(EMPTY, Beside::Empty(&["page_fault_user"])),
        variant(OURS, Beside::watch(&[])),
        variant("… `--growth 0`", Beside::watch(&["--growth", "0"])),
        variant(
            "`grey-ebpf profile` of another cgroup",
            Beside::Profile(Whom::Another),
        ),
        variant(
            "`grey-ebpf profile` of the load's cgroup",
            Beside::Profile(Whom::Load),
        ),
        variant("bcc, funccount", FUNCCOUNT),
        variant("bpftrace, faults by cgroup", Beside::Bpftrace(COUNT_FAULTS)),
        variant("bpftrace, rss_stat by cgroup", Beside::Bpftrace(SUM_RSS)),
    ]
}

/// Page faults.
///
/// # Errors
/// As [`Bench::compare`].
pub fn faults(bench: &Bench) -> Result<String> {
    let variants = on_faults();
    let mut out = String::from("## Page faults\n\n");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for (title, load, threads) in [
        ("One thread, 4 KiB pages", Load::Fault, 1),
        (
            "A thread on each processor, 4 KiB pages",
            Load::Fault,
            processors,
        ),
        ("One thread, 2 MiB pages", Load::HugeFault, 1),
    ] {
        if load == Load::HugeFault && !machine::huge_pages() {
            out.push_str("2 MiB pages: not measured, transparent huge pages are off here.\n\n");
            continue;
        }
        let compared = bench.compare(load, threads, &variants)?;
        out.push_str(&format!(
            "{title}:\n\n{}\n",
            compared.table("fault", Some(EMPTY))
        ));
    }
    Ok(out)
}

/// What the kernel's own statistics say of the programs.
///
/// # Errors
/// As [`Bench::run_times`].
pub fn times(bench: &Bench) -> Result<String> {
    Ok(format!(
        "## Programs by the kernel's own statistics\n\n\
         BPF_ENABLE_STATS, one thread, 4 KiB pages. A run here has a reading of the kernel's clock in it, an empty program's as well.\n\n{}",
        bench.run_times(Load::Fault, &on_faults()[1..])?
    ))
}

/// System calls.
///
/// # Errors
/// As [`Bench::compare`].
pub fn calls(bench: &Bench) -> Result<String> {
    let variants: Vec<Variant> = vec![
        variant(NOTHING, Beside::Nothing),
        variant(OURS, Beside::watch(&[])),
        variant(
            "… `--syscall-tracepoints off`",
            Beside::watch(&["--syscall-tracepoints", "off"]),
        ),
        variant(
            "bpftrace, sys_enter_mmap",
            Beside::Bpftrace("tracepoint:syscalls:sys_enter_mmap { @[cgroup] = count(); }"),
        ),
    ];
    let mut out = String::from("## System calls\n\n");
    for load in [Load::Getppid, Load::Map, Load::Break] {
        let compared = bench.compare(load, 1, &variants)?;
        let one = if load == Load::Getppid {
            "call"
        } else {
            "pair"
        };
        out.push_str(&format!(
            "{}:\n\n{}\n",
            load.name(),
            compared.table(one, None)
        ));
    }
    Ok(out)
}
