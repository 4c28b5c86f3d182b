//! `replay --policy`: what a policy would have decided, beside the verdicts.

use grey_core::act::protection::Pattern;
use grey_core::event::{ActionPlan, Event};
use grey_core::replay::{Decide, Protected};
use grey_core::units::format_bytes;
use grey_core::view::printable;

use super::{MOUNT, ReplayArgs, report};
use crate::cli::Failure;
use crate::config;

/// The governor of `--policy` over these inputs; `None` where none is asked for.
pub(super) fn decide(args: &ReplayArgs, window_us: i64) -> Result<Option<Decide>, Failure> {
    let Some(policy) = args.policy else {
        return Ok(None);
    };
    let config = config::load(args.config.as_deref())?;
    let mut settings = config.govern;
    settings.policy = policy;
    let patterns = |texts: &[String]| {
        texts
            .iter()
            .filter_map(|text| Pattern::new(text, MOUNT).ok())
            .collect()
    };
    let protected = Protected {
        critical: patterns(&config.safety.critical),
        protect: patterns(&config.safety.protect),
    };
    // The same recording gives the same decisions wherever it is replayed: its times are taken as they are written.
    let mut decide = Decide::new(settings, 0, protected);
    for _ in &args.files {
        decide.add_input(window_us);
    }
    Ok(Some(decide))
}

/// One line for a person.
pub(super) fn line(event: &Event, action: &ActionPlan) -> String {
    let bytes = action.planned_bytes.map(format_bytes).unwrap_or_default();
    format!(
        "{}  {:<9}  {:<6} {}  {}: {}",
        report::second(event.ts),
        action.kind,
        bytes,
        printable(&action.target),
        action.policy.as_deref().unwrap_or_default(),
        printable(&action.reason),
    )
}

/// What was decided in all, for a person; and why it may be nothing.
pub(super) fn summary(decide: &Decide) -> String {
    let hint = if decide.decisions() > 0 {
        ""
    } else if decide.knows_a_machine() {
        "; nothing in the recording made it act"
    } else {
        "; there are no figures of the machine as a whole: record without --cgroup"
    };
    format!("decisions: {}{hint}\n", decide.decisions())
}
