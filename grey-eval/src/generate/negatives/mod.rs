//! Programs that do not leak, though many of them grow.
//!
//! One rule bounds their sizes: whoever must call a leak when it has taken about an eighth of the room cannot know what a
//! steady climb beyond that will do. Steady climbs are therefore short (20 s) or small (an eighth of the room), or come
//! after others like them; those that are not are kept apart as ambiguous.

mod bounded;
mod still;
mod work;

pub(crate) use bounded::*;
pub(crate) use still::*;
pub(crate) use work::*;

use grey_core::event::Cause;

use super::parts::{self, Held, Part, faults_of, part};
use super::positives::bound;
use super::{HOUR, Plan};
use crate::rng::Rng;

type Parts = Vec<Box<dyn Part>>;

pub(super) fn plan(
    rng: &mut Rng,
    parts: Parts,
    held: f64,
    room: f64,
    duration: f64,
    causes: &'static [Cause],
) -> Plan {
    Plan {
        parts,
        bound: bound(rng, held, room),
        duration,
        interval: None,
        onset: None,
        memory: None,
        causes,
        silence: true,
        enforced: None,
        siblings: 0,
        faults_may_miss: true,
    }
}

pub(super) fn program(rng: &mut Rng, anon: f64) -> Parts {
    let mut parts = vec![parts::base(rng, anon)];
    parts.extend(parts::noise(rng, anon));
    parts
}

/// A level given by a function of time, with the faults of its growth.
pub(super) fn level(mut at: impl FnMut(f64) -> f64 + 'static) -> Box<dyn Part> {
    let mut before = 0.0;
    part(move |t, _, _: &mut Rng, held: &mut Held| {
        let level = at(t);
        held.anon += level;
        held.virt += level;
        held.faulted += faults_of(level - before);
        before = level;
    })
}

/// Observed for 3 to 36 hours.
pub(super) fn hours(rng: &mut Rng) -> f64 {
    rng.log_range(3.0, 36.0) * HOUR
}
