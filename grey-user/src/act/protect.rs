//! Which cgroup an argument means, and whether it may be touched.

use crate::cli::Failure;

use super::scene::{Scene, Target, Touch};

/// What must not be touched.
#[derive(Debug, Default)]
pub struct Protection {}

pub(super) fn target(scene: &Scene, argument: &str, _touch: Touch) -> Result<Target, Failure> {
    let missing = || Failure::usage(format!("{argument}: there is no such cgroup"));
    let path = format!("/{}", argument.trim_matches('/'));
    let id = scene.cgroups.id_of(&path).ok_or_else(missing)?;
    let dir = rustix::fs::open(
        scene.cgroups.reach(&path),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|_| missing())?;
    Ok(Target { path, id, dir })
}
