//! Figures that may be unknown, for who keeps twenty of each of thousands of cgroups.

use std::num::NonZeroU64;

/// A figure that may be unknown, in eight bytes. The largest number there is, which nothing counts to, stands for unknown
/// too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure(Option<NonZeroU64>);

impl Figure {
    /// The figure, where it is known.
    #[must_use]
    pub fn get(self) -> Option<u64> {
        self.0.map(|more| more.get() - 1)
    }

    /// The figure, or zero where it is not known.
    #[must_use]
    pub fn or_zero(self) -> u64 {
        self.get().unwrap_or(0)
    }
}

impl From<Option<u64>> for Figure {
    fn from(figure: Option<u64>) -> Figure {
        // One more than it is, so that zero is free.
        Figure(figure.and_then(|figure| NonZeroU64::new(figure.wrapping_add(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_figure_is_what_it_was_and_zero_is_not_unknown() {
        for figure in [None, Some(0), Some(1), Some(u64::MAX - 1)] {
            assert_eq!(Figure::from(figure).get(), figure);
        }
        assert_eq!(size_of::<Figure>(), 8);
    }
}
