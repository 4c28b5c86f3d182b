//! Acting on the kernel's memory knobs so that it can be undone: what may be changed, what the journal says of it, in
//! which order things happen, and how each change is taken back. Pure: files, processes and clocks come in by
//! [`World`], so that every crash can be played through in a model.
//!
//! One change of a knob goes: read the old value → journal old and new, synced → arm the guard → write → read back.
//! Undo puts `old` back only where the file still holds our `new`.

pub mod cooldown;
pub mod engine;
pub mod knob;
pub mod ledger;
pub mod protection;
pub mod record;
pub mod table;
pub mod watchdog;

pub use engine::{ActError, Actor, Change, Engine, Fault, MAX_STEPS, Set, Undone, World};
pub use knob::{Knob, KnobFile, Place, Value};
pub use ledger::{Action, Ledger, Lookback, Phase, Step};
pub use record::{Close, Damage, Harm, Record, decode_all, encode};
pub use table::{Slot, Table, Text, Verdict, undo};
