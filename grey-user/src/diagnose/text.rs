//! The report as text for a person: the worst finding first, aligned, no wider than the terminal.

mod clean;
mod findings;
mod machine;
mod pen;
mod tables;

use super::report::Report;
use pen::Pen;

/// Columns where there is no terminal.
pub(super) const PAGE: usize = 100;
/// Narrower than this nothing is aligned any more.
const NARROWEST: usize = 60;
/// Wider than this lines are hard to follow.
const WIDEST: usize = 140;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// With colours.
    pub(super) color: bool,
    /// Columns there are.
    pub(super) width: usize,
    /// All answers, with all figures.
    pub(super) verbose: bool,
}

/// The whole report.
pub(super) fn render(report: &Report, style: Style) -> String {
    let report = &clean::clean(report);
    let mut pen = Pen::new(style.color, style.width.clamp(NARROWEST, WIDEST));
    findings::head(&mut pen, report);
    if let Some(leaks) = &report.leaks {
        findings::leaks(&mut pen, leaks, style.verbose);
    }
    findings::findings(&mut pen, report, style.verbose);
    machine::memory(&mut pen, report);
    machine::pressure(&mut pen, report);
    tables::cgroups(&mut pen, report);
    tables::processes(&mut pen, report);
    machine::swap(&mut pen, report);
    machine::huge_pages(&mut pen, report, style.verbose);
    machine::ksm(&mut pen, report, style.verbose);
    findings::end(&mut pen, report);
    pen.into_text()
}
