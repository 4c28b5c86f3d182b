//! What replaying costs, on this machine: lines and bytes of `replay --json` a second of its one core, median of five
//! runs. CPU time and not the clock's: what else runs on the machine must not count.
//! `cargo run --release --example replay_cost [-- LINES] > /dev/null` (verdicts go to stdout, figures to stderr).
//!
//! The series are made up: cgroups with a level and noise, sampled each second, the last one leaking. `minimal` lines
//! hold what a line needs, `full` ones what `watch --json` writes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use grey_core::time::Timestamp;
use grey_user::cli::Switch;
use grey_user::replay::{self, ReplayArgs};

const RUNS: usize = 5;
const CGROUPS: u64 = 100;
const START: i64 = 1_795_237_200_000_000;

fn main() -> io::Result<()> {
    let lines: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let folder = std::env::temp_dir().join(format!("grey-replay-cost-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let result = all(&folder, lines);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn all(folder: &Path, lines: u64) -> io::Result<()> {
    for (name, line) in [("minimal", minimal as Line), ("full", full as Line)] {
        let plain = folder.join(format!("{name}.ndjson"));
        let mut out = BufWriter::new(File::create(&plain)?);
        write(&mut out, lines, line)?;
        out.flush()?;
        let gzip = folder.join(format!("{name}.ndjson.gz"));
        let mut out = GzEncoder::new(File::create(&gzip)?, Compression::fast());
        io::copy(&mut File::open(&plain)?, &mut out)?;
        out.finish()?;
        let bytes = std::fs::metadata(&plain)?.len();
        measure(name, &plain, lines, bytes);
        measure(&format!("{name}, gzip"), &gzip, lines, bytes);
        std::fs::remove_file(&plain)?;
    }
    Ok(())
}

fn measure(name: &str, file: &Path, lines: u64, bytes: u64) {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| once(file)).collect();
    times.sort();
    let seconds = times[RUNS / 2].as_secs_f64();
    eprintln!(
        "{name:<16} {:>5.2} M lines/s  {:>6.0} MB/s of NDJSON  ({} bytes a line, {:.2} s; fastest {:.2}, slowest {:.2})",
        lines as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        bytes / lines,
        seconds,
        times[0].as_secs_f64(),
        times[RUNS - 1].as_secs_f64(),
    );
}

fn once(file: &Path) -> Duration {
    let args = ReplayArgs {
        files: vec![PathBuf::from(file)],
        json: true,
        reorder: Duration::from_secs(10),
        cgroup: Vec::new(),
        processes: Switch::On,
        policy: None,
        config: None,
    };
    let start = cpu();
    if let Err(failure) = replay::run(&args) {
        eprintln!("{}", failure.message);
        std::process::exit(1);
    }
    cpu().saturating_sub(start)
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

type Line = fn(&mut dyn Write, Timestamp, u64, u64, u64) -> io::Result<()>;

fn write(out: &mut impl Write, lines: u64, line: Line) -> io::Result<()> {
    // A plain generator: the same lines each time.
    let mut noise = 1_u64;
    for n in 0..lines {
        let (tick, cgroup) = (n / CGROUPS, n % CGROUPS);
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let level = (50 + cgroup) << 20;
        let leak = if cgroup == CGROUPS - 1 { tick << 16 } else { 0 };
        let anon = level + leak + (noise >> 44 << 12) % (4 << 20);
        let ts = Timestamp(START + tick as i64 * 1_000_000 + cgroup as i64 * 1000);
        line(out, ts, n, cgroup, anon)?;
    }
    Ok(())
}

fn minimal(out: &mut dyn Write, ts: Timestamp, _: u64, cgroup: u64, anon: u64) -> io::Result<()> {
    writeln!(
        out,
        r#"{{"ts":"{ts}","cgroup":{{"path":"/system.slice/service-{cgroup}.service"}},"mem":{{"anon":{anon}}}}}"#
    )
}

fn full(out: &mut dyn Write, ts: Timestamp, seq: u64, cgroup: u64, anon: u64) -> io::Result<()> {
    let id = 100 + cgroup;
    let current = anon + 270_336;
    writeln!(
        out,
        r#"{{"schema":"grey-ebpf/1","ts":"{ts}","seq":{seq},"host":"n1","boot_id":"95718f77-d496-40f5-a19b-531891107e84","cgroup":{{"id":{id},"path":"/system.slice/service-{cgroup}.service","kind":"service","name":"service-{cgroup}.service"}},"lossy":false,"type":"sample","mem":{{"current":{current},"anon":{anon},"file":122880,"shmem":0,"kernel":147456,"slab":6192,"pagetables":126976,"sock":0,"swap":16236544,"max":null,"high":25165824}},"mem_source":"files","faults":{{"minor_total":{seq},"major_total":2,"user_read_total":1,"user_write_total":{seq},"user_exec_total":0,"kernel_total":0}},"vm":{{"mapped_total":31948800,"unmapped_total":0,"released_total":0,"map_calls_total":26,"unmap_calls_total":0,"release_calls_total":0,"virtual":{anon}}},"reclaim":{{"stall_us_total":1176413,"pages_total":3964,"direct_us_total":0,"memcg_us_total":1176413,"own_pages_total":0,"own_us_total":0,"refault_total":2}},"psi":{{"some_us_total":992327,"full_us_total":992327}},"events":{{"high_total":61,"max_total":0,"oom_total":0,"oom_kill_total":0}},"processes":1}}"#
    )
}
