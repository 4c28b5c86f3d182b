//! Which cgroups a user asked for.
