//! Facts about the machine, read from files below an injectable root. No rules, no actions.
