//! `doctor`: what works here, how, and what is lost. The rules over the facts are in `rules`, the text in `render`.

use serde::Serialize;

use crate::host::Facts;

mod render;
mod rules;
mod run;
#[cfg(test)]
mod tests;

pub use render::use_color;
pub use run::run;

/// One probe, as the loader left it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProbeStatus {
    /// Name of the probe.
    pub name: String,
    /// `fault`, `vm`, `oom`, `reclaim`, `growth`, `lifecycle`.
    pub family: String,
    /// `BTF tracepoint`, `fexit`, `kprobe`, `classic tracepoint`, `syscall tracepoint`; `None` when it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached: Option<String>,
    /// The kernel's hook, as `page_fault_user`.
    pub hook: String,
    /// What the way it is attached costs, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// What is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It works.
    Ok,
    /// A fact that takes nothing away, or something that was not probed.
    Note,
    /// It works in part, or at a cost.
    Warn,
    /// It does not work.
    Off,
}

/// One finding. A `warn` or `off` says what is lost and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How well it works.
    pub mark: Mark,
    /// What it is about.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What is lost by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// What it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// What to do, or what is used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The findings on one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The topic.
    pub name: &'static str,
    /// In the order in which one depends on the other.
    pub findings: Vec<Finding>,
}

/// The whole report; its serialised form is what `doctor --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// Always `grey-ebpf/1`.
    pub schema: &'static str,
    /// Always `doctor`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// Whether `watch` can work.
    pub works: bool,
    /// One line: what `watch` shows here, or why it cannot work.
    pub summary: String,
    /// The findings.
    pub sections: Vec<Section>,
    /// What they were drawn from.
    pub facts: Facts,
    /// The probes as given.
    pub probes: Vec<ProbeStatus>,
}

impl DoctorReport {
    /// 0 where `watch` can work, 3 where this kernel or these privileges do not let it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.works { 0 } else { 3 }
    }

    /// The text for a person.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        render::text(self, color)
    }
}

/// Draws the findings. An empty list of probes means that none was tried.
#[must_use]
pub fn report(facts: &Facts, probes: &[ProbeStatus]) -> DoctorReport {
    let sources = rules::Sources::of(facts, probes);
    DoctorReport {
        schema: grey_core::event::SCHEMA,
        kind: "doctor",
        version: env!("CARGO_PKG_VERSION"),
        works: sources.any(),
        summary: sources.summary(),
        sections: rules::sections(facts, probes),
        facts: facts.clone(),
        probes: probes.to_vec(),
    }
}
