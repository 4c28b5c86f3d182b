//! The benchmark itself held against facts.

mod baselines;
mod generator;
mod recordings;
mod scores;

use crate::generate::{CLASSES, Class};

fn class(name: &str) -> &'static Class {
    CLASSES.iter().find(|class| class.name == name).unwrap()
}
