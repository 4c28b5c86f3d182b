//! Whether faults and calls are counted where they were made: the same tests on the machine itself and in a VM.

pub(crate) mod calls;
pub(crate) mod faults;
pub(crate) mod moves;
pub(crate) mod scene;
