//! Resource limits of this process: raised only as far as its privileges go, for itself alone.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::HostError;

/// Raises RLIMIT_MEMLOCK to no limit. Kernels before 5.11 account BPF maps to it.
///
/// # Errors
/// Without `CAP_SYS_RESOURCE` the soft limit is raised to the hard one, and that is an error only if it fails.
pub fn raise_memlock() -> Result<Option<u64>, HostError> {
    raise(Resource::Memlock, None, "setrlimit RLIMIT_MEMLOCK")
}

/// Raises RLIMIT_NOFILE to `wanted` descriptors, or to the hard limit where that is all we may. Returns the limit.
///
/// # Errors
/// Where not even the hard limit is granted.
pub fn raise_nofile(wanted: u64) -> Result<Option<u64>, HostError> {
    raise(Resource::Nofile, Some(wanted), "setrlimit RLIMIT_NOFILE")
}

/// The soft limit of RLIMIT_MEMLOCK; `None` means no limit.
#[must_use]
pub fn memlock() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

fn raise(
    resource: Resource,
    wanted: Option<u64>,
    what: &'static str,
) -> Result<Option<u64>, HostError> {
    // Rlimit's `None` is infinity, hence larger than any figure.
    let reaches = |limit: Option<u64>| match (limit, wanted) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(limit), Some(wanted)) => limit >= wanted,
    };
    let now = getrlimit(resource);
    if reaches(now.current) {
        return Ok(now.current);
    }
    let hard = if reaches(now.maximum) {
        now.maximum
    } else {
        wanted
    };
    if setrlimit(
        resource,
        Rlimit {
            current: wanted,
            maximum: hard,
        },
    )
    .is_ok()
    {
        return Ok(wanted);
    }
    match setrlimit(
        resource,
        Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        },
    ) {
        Ok(()) => Ok(now.maximum),
        Err(source) => Err(HostError::Call {
            what,
            source: source.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_high_enough_stays() {
        let before = getrlimit(Resource::Nofile);
        assert_eq!(raise_nofile(1).unwrap(), before.current);
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}
