//! Ids, paths and totals of the cgroups.
