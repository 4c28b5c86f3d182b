//! Acting without being asked: where the environment says from which amount on.

use crate::allocator;
use crate::settings::OwnAccord;
use crate::sys;
use crate::work::with_allocator;

/// How long it waits for the program at one look, nanoseconds.
const WITHIN_NS: u64 = 100_000_000;

/// What it knows from one look to the next.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) settings: OwnAccord,
    /// Bytes free after it was trimmed last: glibc counts those that were given back as free still.
    given_back: u64,
}

impl Watch {
    pub(crate) const fn new(settings: OwnAccord) -> Self {
        Watch {
            settings,
            given_back: 0,
        }
    }

    /// Looks, and trims where more than the threshold is held free.
    pub(crate) fn look(&mut self) {
        let Some(allocator) = allocator::of_the_program() else {
            return;
        };
        let until = sys::now_ns().saturating_add(WITHIN_NS);
        let (settings, given_back) = (self.settings, self.given_back);
        let free = with_allocator(until, || {
            let free = allocator::figures(allocator).free?;
            if free.saturating_sub(given_back) <= settings.threshold {
                return Some(free.min(given_back));
            }
            allocator::trim(allocator);
            allocator::figures(allocator).free
        });
        if let Some(Some(free)) = free {
            self.given_back = free;
        }
    }
}
