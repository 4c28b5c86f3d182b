//! From a decision to the action that `enforce` would take by hand.

use std::time::Duration;

use grey_core::govern::{Decision, Rung};
use grey_core::units::Size;

use crate::enforce::compact::Compact;
use crate::enforce::freeze::{Freeze, FreezeArgs};
use crate::enforce::limit::{Limit, LimitArgs, Wanted};
use crate::enforce::pageout::{Pageout, PageoutArgs};
use crate::enforce::reclaim::{Reclaim, ReclaimArgs};
use crate::enforce::trim::{self, Trim, TrimArgs};
use crate::enforce::{Actuator, Common, Place};

/// memory.high for a runaway; PEERS' rule is 30 s at most.
const HIGH_LEASE: Duration = Duration::from_secs(30);
/// After this time it is looked at again whether a container is still idle.
const FREEZE_LEASE: Duration = Duration::from_secs(600);
/// How long anonymous memory must not have been touched.
const COLD: Duration = Duration::from_secs(5);

/// The arguments of an action.
pub(super) enum Means {
    Reclaim(ReclaimArgs),
    Pageout(PageoutArgs),
    Limit(LimitArgs),
    Freeze(FreezeArgs),
    Trim(TrimArgs),
    Compact,
}

impl Means {
    pub(super) fn of(decision: &Decision) -> Means {
        let cgroup = decision.path.clone();
        let reclaim = |file_only| {
            Means::Reclaim(ReclaimArgs {
                cgroup: decision.path.clone(),
                size: Size::Bytes(decision.bytes),
                file_only,
                swappiness: None,
                observe: None,
            })
        };
        match decision.rung {
            Rung::File => reclaim(true),
            Rung::Anon => reclaim(false),
            Rung::Trim => Means::Trim(TrimArgs {
                target: cgroup,
                no_collector: false,
                wait: trim::WAIT,
            }),
            Rung::Pageout => Means::Pageout(PageoutArgs {
                target: cgroup,
                cold: true,
                all: false,
                idle: COLD,
                max: Some(Size::Bytes(decision.bytes)),
                observe: None,
            }),
            Rung::High => Means::Limit(LimitArgs {
                cgroup,
                high: Some(Wanted::Size(Size::Bytes(decision.bytes))),
                max: None,
                min: None,
                low: None,
                swap_max: None,
            }),
            Rung::Freeze => Means::Freeze(FreezeArgs { cgroup, yes: true }),
            Rung::Compact => Means::Compact,
        }
    }

    pub(super) fn actuator(&self) -> Box<dyn Actuator + '_> {
        match self {
            Means::Reclaim(args) => Box::new(Reclaim::new(args)),
            Means::Pageout(args) => Box::new(Pageout::new(args)),
            Means::Limit(args) => Box::new(Limit::new(args)),
            Means::Freeze(args) => Box::new(Freeze::new(args)),
            Means::Trim(args) => Box::new(Trim::new(args)),
            Means::Compact => Box::new(Compact::new()),
        }
    }
}

/// What `enforce` would be told beside the action itself.
pub(super) fn common(decision: &Decision, place: &Place, dry_run: bool) -> Common {
    Common {
        dry_run,
        json: true,
        lease: match decision.rung {
            Rung::High => Some(HIGH_LEASE),
            Rung::Freeze => Some(FREEZE_LEASE),
            _ => None,
        },
        force: false,
        reason: format!("{}: {}", decision.policy, decision.reason),
        place: place.clone(),
    }
}
