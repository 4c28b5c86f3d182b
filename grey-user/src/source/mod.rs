//! Where figures come from: rings, counters, files.
