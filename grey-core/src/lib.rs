//! The pure logic of grey-ebpf: no aya, no tokio, no I/O and no clock, so that replay and property tests need no root.
#![deny(missing_docs)]

pub mod act;
pub mod budget;
pub mod decode;
pub mod detect;
pub mod event;
pub mod glob;
pub mod govern;
pub mod identity;
pub mod replay;
pub mod schema;
pub mod time;
pub mod tree;
pub mod units;
pub mod view;
