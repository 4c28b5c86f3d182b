//! What watching costs against what it may cost, in `health`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::format_bytes;
use crate::view::printable;

/// Own cost of the last window against the budget, and what is switched off to keep it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// CPU time of this process and of its programs in the kernel, percent of one core; absent in the first window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// The part of it that the programs took, on all CPUs; absent in the first window and without programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpf_pct: Option<f64>,
    /// Why `bpf_pct` is estimated from what was counted; absent where the kernel measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpf_estimated: Option<String>,
    /// The most that `cpu_pct` may be; absent for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_cpu_pct: Option<f64>,
    /// Resident bytes of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The most that they may be; absent for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_memory_bytes: Option<u64>,
    /// Length of a window, seconds.
    pub window_s: f64,
    /// Steps down that are taken; 0 when everything is on.
    pub step: u64,
    /// What is done without, in the order in which it was given up: `stacks`, `interval`, `calls`, `faults`, `recorder`.
    #[serde(default)]
    pub steps: Vec<String>,
    /// Seconds between two looks at the counters now.
    pub interval_s: f64,
    /// What was over its limit in the last window: `cpu`, `memory`.
    #[serde(default)]
    pub exceeded: Vec<String>,
    /// True when nothing is left that could be done without.
    #[serde(default)]
    pub exhausted: bool,
}

impl Budget {
    /// What it costs and may cost, for people.
    #[must_use]
    pub fn cost(&self) -> String {
        let mut parts = Vec::new();
        if let Some(limit) = self.limit_cpu_pct {
            let cpu = self.cpu_pct.map_or("–".to_owned(), |pct| format!("{pct}"));
            let split = self.cpu_pct.zip(self.bpf_pct).map(|(cpu, bpf)| {
                let own = (cpu - bpf).max(0.0);
                format!(" ({own:.2} % its own, {bpf} % in the kernel)")
            });
            let split = split.unwrap_or_default();
            parts.push(format!("{cpu} % of a core{split}, budget {limit} %"));
        }
        if let Some(limit) = self.limit_memory_bytes {
            let memory = self.memory_bytes.map_or("–".to_owned(), format_bytes);
            parts.push(format!(
                "{memory} of memory, budget {}",
                format_bytes(limit)
            ));
        }
        parts.join("; ")
    }

    /// What is done without, for people; nothing where that is nothing.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        for step in &self.steps {
            parts.push(match step.as_str() {
                "interval" => format!("every {} s", self.interval_s),
                step => format!("no {}", printable(step)),
            });
        }
        if self.exhausted {
            parts.push("nothing left to save".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}
