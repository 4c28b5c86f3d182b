//! The governor against a model of a machine: its rules, hours of mixed load under every policy, what its own law saves
//! beside those of others, and what it learns.
#![allow(clippy::unwrap_used, reason = "test code outside a #[test] function")]

mod catalogue;
mod compare;
mod learning;
mod load;
mod mixed;
mod rules;
mod run;
mod world;
