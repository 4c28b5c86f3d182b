//! What a cgroup path stands for.
