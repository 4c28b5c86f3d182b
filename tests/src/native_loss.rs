//! The facts of `loss.rs` on this machine itself.

use crate::harness::Trial;
use crate::loss;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "native_loss_is_counted_by_kind_with_a_page_of_ring",
            loss::is_counted_by_kind_with_a_page_of_ring,
        ),
        Trial::new(
            "native_loss_is_none_with_a_large_ring",
            loss::is_none_with_a_large_ring,
        ),
    ]
}
