//! The facts of `exit.rs` on this machine itself.

use crate::exit;
use crate::harness::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new("native_exit_on_sigint_is_clean", exit::on_sigint_is_clean),
        Trial::new("native_exit_on_sigterm_is_clean", exit::on_sigterm_is_clean),
        Trial::new("native_exit_on_sighup_is_clean", exit::on_sighup_is_clean),
        Trial::new(
            "native_exit_on_sigkill_leaves_nothing_in_the_kernel",
            exit::on_sigkill_leaves_nothing_in_the_kernel,
        ),
        Trial::new(
            "native_exit_of_the_reader_is_a_normal_end",
            exit::of_the_reader_is_a_normal_end,
        ),
    ]
}
