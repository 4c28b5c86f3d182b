//! Live verdicts: real programs in cgroups of their own, `watch` beside them, and what it said of each.

mod program;
mod scene;

pub(crate) use self::{
    program::{HEAP, Program, TRAFFIC, lacks},
    scene::{Life, Live, bytes},
};
