//! Figures of a target before and after an action.

use grey_core::event::ActionState;

use super::scene::{Scene, Target};

/// The figures of a cgroup (and the machine) now.
#[must_use]
pub fn cgroup(_scene: &Scene, _target: &Target) -> ActionState {
    ActionState::default()
}

/// The figures of the machine now.
#[must_use]
pub fn machine(_scene: &Scene) -> ActionState {
    ActionState::default()
}
