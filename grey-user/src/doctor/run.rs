//! The command `doctor`: gathers the facts, tries every probe as `watch` would, detaches them and reports.

use crate::cli::{self, Exit, Failure};
use crate::host::{CgroupFs, Facts, Host};
use crate::probe::Settings;
use crate::watch::machine;

use super::{report, use_color};

/// Prints the report, as text or as JSON.
pub fn run(json: bool) -> Result<Exit, Failure> {
    let host = Host::live();
    // Before tracefs is mounted and a limit raised for us alone: the report is about the machine.
    let facts = Facts::gather(&host, &CgroupFs::discover(&host));
    let (_, probes, _) = machine::kernel_side(&Settings::default().with_fail_switch());
    let report = report(&facts, &probes);
    let text = if json {
        let line = serde_json::to_string(&report)
            .map_err(|error| Failure::failed(format!("report: {error}")))?;
        format!("{line}\n")
    } else {
        report.render(use_color())
    };
    cli::print(&text)?;
    Ok(match report.works {
        true => Exit::Done,
        false => Exit::Unsupported,
    })
}
