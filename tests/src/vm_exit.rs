//! The facts of `exit.rs` on the kernel of a VM.

use crate::exit;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("vm_exit_on_sigint_is_clean", exit::on_sigint_is_clean)
            .shown_on(&["5.10", "6.12"]),
        Trial::new("vm_exit_on_sigterm_is_clean", exit::on_sigterm_is_clean)
            .shown_on(&["5.10", "6.12"]),
        Trial::new("vm_exit_on_sighup_is_clean", exit::on_sighup_is_clean)
            .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_exit_on_sigkill_leaves_nothing_in_the_kernel",
            exit::on_sigkill_leaves_nothing_in_the_kernel,
        ),
        Trial::new(
            "vm_exit_of_the_reader_is_a_normal_end",
            exit::of_the_reader_is_a_normal_end,
        )
        .shown_on(&["5.10", "6.12"]),
        Trial::new(
            "vm_exit_leaves_the_kernel_as_it_was",
            exit::leaves_the_kernel_as_it_was,
        ),
    ]
}
