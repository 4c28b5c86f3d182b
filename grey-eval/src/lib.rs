//! The public benchmark of leak detection: labelled traces from seeds, recorded ones, baselines, and scores.
//! It knows nothing of how the detector decides; docs/benchmark.md says how traces and baselines were chosen.

pub mod baseline;
mod cli;
mod cost;
mod criteria;
pub mod export;
pub mod generate;
pub mod judge;
pub mod recorded;
pub mod report;
pub mod rng;
pub mod score;
pub mod stats;
pub mod trace;

pub use cli::run;

#[cfg(test)]
mod tests;
