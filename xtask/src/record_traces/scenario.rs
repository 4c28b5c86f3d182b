//! What is run for the recordings, as grey-eval/record/scenarios.json says it, and the guest's script made from it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The cgroup below which each series has its own.
pub(super) const PARENT: &str = "/rec";

/// Programs that run in one VM at the same time, in one recording.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) interval: String,
    pub(super) seconds: u64,
    pub(super) memory_mib: u32,
    /// Size of a zram swap device, for the series that may swap.
    #[serde(default)]
    pub(super) swap_mib: Option<u32>,
    pub(super) series: Vec<Series>,
}

/// One program, or a few, in a cgroup of their own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) program: String,
    pub(super) class: String,
    pub(super) leak: bool,
    pub(super) causes: Vec<Value>,
    /// Shell command in the cgroup.
    pub(super) command: String,
    /// Shell command outside of it, which finds its directory in `$CGROUP`.
    #[serde(default)]
    pub(super) beside: Option<String>,
    /// memory.max
    #[serde(default)]
    pub(super) max: Option<String>,
    #[serde(default)]
    swap: bool,
    #[serde(default)]
    pub(super) notes: Option<String>,
}

pub(super) fn read(path: &Path) -> Result<Vec<Run>> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let runs: Vec<Run> =
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    for run in &runs {
        for series in &run.series {
            // Names go into paths and into the script.
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            ensure!(
                !series.name.is_empty() && series.name.chars().all(plain),
                "{}: the name of a series has letters, digits and - only",
                series.name
            );
        }
    }
    Ok(runs)
}

impl Run {
    /// Starts all, records them, and writes an archive of the recording and of what the programs said to the second disk.
    pub(super) fn script(&self) -> String {
        let mut script = format!(
            "set -u\nR=/sys/fs/cgroup{PARENT}\nmkdir -p $R /sys/fs/cgroup/beside /tmp/out/said\n\
             echo +memory > $R/cgroup.subtree_control\n"
        );
        if let Some(mib) = self.swap_mib {
            let _ = writeln!(
                script,
                "echo {mib}M > /sys/block/zram0/disksize && mkswap /dev/zram0 >/dev/null && swapon /dev/zram0 || exit 9"
            );
        }
        for series in &self.series {
            script.push_str(&series.start());
        }
        let Self {
            name,
            interval,
            seconds,
            ..
        } = self;
        let _ = write!(
            script,
            "grey-ebpf record /tmp/out/{name}.ndjson.gz --interval {interval} --duration {seconds}s --cgroup / \
             --cgroup '{PARENT}/*' > /dev/null 2> /tmp/said || {{ cat /tmp/said; exit 8; }}\n\
             cd /tmp/out && tar -cf /dev/vdb . && sync\n"
        );
        script
    }
}

impl Series {
    fn start(&self) -> String {
        let Self {
            name,
            command,
            beside,
            max,
            swap,
            ..
        } = self;
        let mut script = format!("CGROUP=$R/{name}\nexport CGROUP\nmkdir $CGROUP\n");
        if let Some(max) = max {
            let _ = writeln!(script, "echo {max} > $CGROUP/memory.max");
        }
        if !swap {
            script.push_str("echo 0 > $CGROUP/memory.swap.max\n");
        }
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut start = |directory: &str, command: &str| {
            let _ = writeln!(
                script,
                "( echo 0 > {directory}/cgroup.procs; exec sh -c {} ) < /dev/null >> /tmp/out/said/{name} 2>&1 &",
                quoted(command)
            );
        };
        start("$CGROUP", command);
        if let Some(beside) = beside {
            start("/sys/fs/cgroup/beside", beside);
        }
        script
    }
}
