//! Sizes and durations as users write them.
