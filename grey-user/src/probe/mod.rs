//! Facts to plan to load to attach of the kernel side.
