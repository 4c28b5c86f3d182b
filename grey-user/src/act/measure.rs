//! Figures of a target before and after an action.

use grey_core::event::ActionState;

use crate::host::{CgroupFiles, MemInfo, Reading};

use super::scene::{Scene, Target};

/// The figures of a cgroup, and what the machine has free, now. What cannot be read is absent.
#[must_use]
pub fn cgroup(scene: &Scene, target: &Target) -> ActionState {
    let files = CgroupFiles::open(&scene.cgroups, target.id, &target.path);
    let mut buf = Vec::new();
    let mut cpu = None;
    let reading = match files {
        Ok(Some(mut files)) if target.path == "/" => {
            Reading::of_root(&scene.host, &mut files, &mut buf).ok()
        }
        Ok(Some(mut files)) => {
            cpu = files.read_cpu(&mut buf);
            files.read(&mut buf).ok()
        }
        // Gone, or another cgroup has its path: its figures would be another's.
        Ok(None) | Err(_) => None,
    };
    ActionState {
        cpu_us: cpu,
        ..state(scene, reading)
    }
}

/// The figures of the machine now.
#[must_use]
pub fn machine(scene: &Scene) -> ActionState {
    state(scene, Reading::of_machine(&scene.host).ok())
}

/// Bytes a cgroup holds, by which what reclaim took is counted: memory.current, or where the kernel keeps none (the
/// root) the memory that reclaim could take.
#[must_use]
pub fn held(scene: &Scene, target: &Target) -> Option<u64> {
    let state = cgroup(scene, target);
    match state.current {
        Some(current) => Some(current),
        None => Some(state.anon?.saturating_add(state.file?)),
    }
}

fn state(scene: &Scene, reading: Option<Reading>) -> ActionState {
    let info = MemInfo::read(&scene.host).unwrap_or_default();
    let reading = reading.unwrap_or_default();
    ActionState {
        current: reading.mem.current,
        anon: reading.mem.anon,
        file: reading.mem.file,
        swap: reading.mem.swap,
        available: info.available,
        free: info.free,
        refaults: reading.refault,
        psi_some_us: reading.psi.as_ref().map(|psi| psi.some_us_total),
        psi_full_us: reading.psi.and_then(|psi| psi.full_us_total),
        major_faults: reading.pgmajfault,
        ..ActionState::default()
    }
}
