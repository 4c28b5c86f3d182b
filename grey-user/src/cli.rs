//! Commands and their arguments.
