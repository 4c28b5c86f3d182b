//! Decodes the records of the kernel side's rings.
