//! `watch`: the loop.
