//! The release agent in real programs: what it frees, what it leaves as it was, and who may speak to it. All on processes
//! that the tests start.

mod allocators;
mod guest;
mod lives;
mod memory;
mod runtimes;
mod speed;
mod strangers;

use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    trials.extend(memory::trials());
    trials.extend(allocators::trials());
    trials.extend(lives::trials());
    trials.extend(runtimes::trials());
    trials.extend(strangers::trials());
    trials.extend(speed::trials());
    trials
}
