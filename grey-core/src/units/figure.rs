//! Figures that may be unknown, for who keeps twenty of each of thousands of cgroups.

use std::num::NonZeroU64;

/// A figure that may be unknown, in eight bytes. The largest number there is, which nothing counts to, stands for unknown
/// too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// The figure; where it is not known it is `first` from now on.
    pub fn get_or_insert(&mut self, first: u64) -> u64 {
        self.get().unwrap_or_else(|| {
            *self = Some(first).into();
            first
        })
    }

    /// As it is kept: zero where it is not known, else one more than it is.
    #[must_use]
    pub fn to_word(self) -> u64 {
        self.0.map_or(0, NonZeroU64::get)
    }

    /// The figure that is kept as this.
    #[must_use]
    pub fn from_word(word: u64) -> Figure {
        Figure(NonZeroU64::new(word))
    }
}

impl From<Option<u64>> for Figure {
    fn from(figure: Option<u64>) -> Figure {
        Figure::from_word(figure.map_or(0, |figure| figure.wrapping_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_figure_is_what_it_was_and_zero_is_not_unknown() {
        for figure in [None, Some(0), Some(1), Some(u64::MAX - 1)] {
            let kept = Figure::from(figure);
            assert_eq!(kept.get(), figure);
            assert_eq!(Figure::from_word(kept.to_word()), kept);
            let mut first = kept;
            assert_eq!(first.get_or_insert(7), figure.unwrap_or(7));
            assert_eq!(first.get(), figure.or(Some(7)));
        }
        assert_eq!(size_of::<Figure>(), 8);
    }
}
