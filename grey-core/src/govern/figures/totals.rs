//! Counters of a cgroup, and what came between two looks at them.

use crate::event::Sample;
use crate::govern::view::Since;
use crate::time::Timestamp;
use crate::units::Figure;

/// Counters at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) at: Timestamp,
    pub(super) psi_some_us: Figure,
    pub(super) psi_full_us: Figure,
    pub(super) refaults: Figure,
    pub(super) majors: Figure,
    pub(super) faults: Figure,
    pub(super) cpu_us: Figure,
}

impl Totals {
    pub(super) fn of(sample: &Sample, at: Timestamp) -> Totals {
        let faults = sample.faults.as_ref();
        let user = |faults: &crate::event::Faults| {
            Some(faults.user_read_total? + faults.user_write_total? + faults.user_exec_total?)
        };
        let psi = sample.psi.as_ref();
        Totals {
            at,
            psi_some_us: psi.map(|psi| psi.some_us_total).into(),
            psi_full_us: psi.and_then(|psi| psi.full_us_total).into(),
            refaults: sample
                .reclaim
                .as_ref()
                .and_then(|it| it.refault_total)
                .into(),
            majors: faults.and_then(|faults| faults.major_total).into(),
            faults: faults
                .and_then(|faults| faults.minor_total.or_else(|| user(faults)))
                .into(),
            cpu_us: sample.cpu.as_ref().map(|cpu| cpu.usage_us_total).into(),
        }
    }

    /// What came between `then` and this. A counter that went back (a cgroup made anew) tells nothing.
    pub(super) fn since(&self, then: &Totals, now: Timestamp) -> Since {
        let less = |now: Figure, then: Figure| now.get()?.checked_sub(then.get()?);
        Since {
            us: micros(now.0 - then.at.0),
            psi_some_us: less(self.psi_some_us, then.psi_some_us),
            psi_full_us: less(self.psi_full_us, then.psi_full_us),
            refaults: less(self.refaults, then.refaults),
            majors: less(self.majors, then.majors),
            faults: less(self.faults, then.faults),
            cpu_us: less(self.cpu_us, then.cpu_us),
        }
    }
}

/// Where a count begins: the counters at an instant. Most cgroups count nothing for long, and are the same now as then.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    at: Timestamp,
    /// The counters then, where those of now are others.
    then: Option<Box<Totals>>,
}

impl Mark {
    /// At what is counted now.
    pub(super) fn new(at: Timestamp) -> Mark {
        Mark { at, then: None }
    }

    /// Holds on to what was counted until now, where it becomes something else.
    pub(super) fn hold(&mut self, before: &Totals, now: &Totals) {
        let before = Totals {
            at: now.at,
            ..*before
        };
        if self.then.is_none() && before != *now {
            self.then = Some(Box::new(before));
        }
    }

    /// What was counted then, as far as it is known.
    pub(super) fn totals(&self, now: &Totals) -> Totals {
        let counters = self.then.as_deref().unwrap_or(now);
        Totals {
            at: self.at,
            ..*counters
        }
    }

    /// Its faults are not known any more.
    pub(super) fn without_faults(&mut self) {
        if let Some(then) = &mut self.then {
            then.faults = Figure::default();
        }
    }
}

/// Time that is negative after a clock was set back counts as none.
pub(super) fn micros(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_totals() -> impl Strategy<Value = Totals> {
        let figure = || prop_oneof![Just(None), (0..3_u64).prop_map(Some)].prop_map(Figure::from);
        (0..9_i64, figure(), figure()).prop_map(|(at, refaults, faults)| Totals {
            at: Timestamp(at),
            refaults,
            faults,
            ..Totals::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// As if all of it were kept at each mark.
        #[test]
        fn a_mark_tells_what_was_counted_when_it_was_made(all in vec((any_totals(), any::<bool>()), 1..20)) {
            let mut now = all[0].0;
            let (mut mark, mut kept) = (Mark::new(now.at), now);
            for (next, again) in all {
                mark.hold(&now, &next);
                now = next;
                if again {
                    (mark, kept) = (Mark::new(now.at), now);
                }
                if now.faults.get().is_none() {
                    mark.without_faults();
                    kept.faults = Figure::default();
                }
                prop_assert_eq!(mark.totals(&now), kept);
            }
        }
    }
}
