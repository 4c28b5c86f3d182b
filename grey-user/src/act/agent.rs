//! The release agent in a process, from outside: where its library is, and how it is spoken to.

pub mod library;
