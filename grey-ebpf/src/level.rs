//! How much memory each cgroup holds, in one walk over all of them. Through files it would be an open, a read and a close
//! for each, a hundred times as much.

use core::ffi::c_void;

use crate::kernel::read;
use crate::maps::{LEVELS, offset};

/// Runs once for each cgroup, parents first, and once more without one at the end, while whoever reads the iterator waits.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/cgroup")]
pub fn cgroup_levels(ctx: *mut c_void) -> i32 {
    // SAFETY: `struct bpf_iter__cgroup`, two pointers of which the second one is the cgroup.
    let cgroup = unsafe { ctx.cast::<*mut u8>().add(1).read_volatile() };
    if cgroup.is_null() {
        return 0;
    }
    let Some(head) = LEVELS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a live element; nobody else walks at the same time, and the user side waits.
    let at = unsafe {
        (*head).cgroup += 1;
        (*head).cgroup as u32
    };
    // One too many shows in the number.
    let Some(level) = LEVELS.get_ptr_mut(at) else {
        return 0;
    };
    // SAFETY: the verifier knows the types behind the cgroup and checks each offset against the kernel's BTF; a load through
    // a bad pointer reads 0. The element is live, as above.
    unsafe {
        let kn = cgroup
            .add(offset!(cgroup_kn) as usize)
            .cast::<*mut u8>()
            .read_volatile();
        let css = cgroup
            .add(offset!(cgroup_memory) as usize)
            .cast::<*mut u8>()
            .read_volatile();
        (*level).cgroup = kn
            .add(offset!(kn_id) as usize)
            .cast::<u64>()
            .read_volatile();
        (*level).cpu_ns = cgroup
            .add(offset!(cgroup_cpu) as usize)
            .cast::<u64>()
            .read_volatile();
        // Behind what the verifier knows of the type: the structure around it.
        (*level).pages = if css.is_null() {
            0
        } else {
            read(css as u64, offset!(css_usage))
        };
    }
    0
}
