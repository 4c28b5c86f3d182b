//! The command `doctor`: gathers the facts, tries every probe as `watch` would, detaches them and reports.

use std::io::{ErrorKind, Write as _};

use crate::cli::{Exit, Failure};
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
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("stdout: {error}")))
        }
        _ if report.works => Ok(Exit::Done),
        _ => Ok(Exit::Unsupported),
    }
}
