//! Figures of rounds. In each round every variant ran once, one after the other in a changing order, so that what changes
//! slowly on the machine changes all of them: a figure is compared with those of its own round only.

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle of the rounds.
    pub median: f64,
    /// 95 % interval of the median, from the order of the values (binomial; no distribution is assumed). All rounds
    /// where they are too few for one.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Spread {
    /// `None` without values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let skip = outside(n);
        Some(Spread {
            median: middle(&sorted)?,
            low: *sorted.get(skip)?,
            high: *sorted.get(n.checked_sub(1 + skip)?)?,
            rounds: n,
        })
    }
}

impl Spread {
    /// In another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Spread {
        Spread {
            median: self.median * factor,
            low: self.low * factor,
            high: self.high * factor,
            rounds: self.rounds,
        }
    }
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    let upper = *sorted.get(n / 2)?;
    Some(if n % 2 == 1 {
        upper
    } else {
        f64::midpoint(sorted[n / 2 - 1], upper)
    })
}

/// How many values lie below a 95 % interval of the median: the largest k for which P(Bin(n, 1/2) < k) is at most 2.5 %.
fn outside(n: usize) -> usize {
    let mut term = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let (mut below, mut k) = (0.0, 0);
    while k < n / 2 {
        below += term;
        if below > 0.025 {
            break;
        }
        k += 1;
        term *= (n - k + 1) as f64 / k as f64;
    }
    k
}

/// The rounds of some variants; `rounds[r][v]`.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<Vec<f64>>);

impl Rounds {
    /// A variant's own figures.
    #[must_use]
    pub fn of(&self, variant: usize) -> Option<Spread> {
        Spread::of(self.0.iter().map(|round| round[variant]))
    }

    /// A variant relative to another one.
    #[must_use]
    pub fn ratio(&self, variant: usize, base: usize) -> Option<Spread> {
        Spread::of(self.0.iter().map(|round| round[variant] / round[base]))
    }

    /// What a variant adds to another one.
    #[must_use]
    pub fn added(&self, variant: usize, base: usize) -> Option<Spread> {
        Spread::of(self.0.iter().map(|round| round[variant] - round[base]))
    }

    /// What a variant adds to `base`, relative to what another adds to it. The medians are divided, since a round in
    /// which the other adds next to nothing has no quotient; the interval is that of resampled rounds (bootstrap, 2000 times).
    #[must_use]
    pub fn added_ratio(&self, variant: usize, other: usize, base: usize) -> Option<Spread> {
        let quotient = |pick: &mut dyn FnMut(usize) -> usize| -> Option<f64> {
            let mut added = [Vec::new(), Vec::new()];
            for at in 0..self.0.len() {
                let round = &self.0[pick(at)];
                added[0].push(round[variant] - round[base]);
                added[1].push(round[other] - round[base]);
            }
            let [variant, other] = added.map(|mut values| {
                values.sort_by(f64::total_cmp);
                middle(&values)
            });
            Some(variant? / other?)
        };
        let median = quotient(&mut |at| at)?;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut resampled: Vec<f64> = (0..2000)
            .filter_map(|_| {
                quotient(&mut |_| {
                    // xorshift64: only has to be even.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state % self.0.len() as u64) as usize
                })
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        Some(Spread {
            median,
            low: *resampled.get(resampled.len() / 40)?,
            high: *resampled.get(resampled.len() - 1 - resampled.len() / 40)?,
            rounds: self.0.len(),
        })
    }
}

/// The order of a round's variants: each comes at each place, and behind each other one, equally often, since what one
/// leaves behind may reach the next. A Latin square of E. J. Williams (1949), and the same backwards in every other round,
/// which an odd number of variants needs.
pub fn order(round: usize, variants: usize) -> impl Iterator<Item = usize> {
    (0..variants).map(move |at| {
        let at = if round.is_multiple_of(2) {
            at
        } else {
            variants - 1 - at
        };
        let zigzag = if at.is_multiple_of(2) {
            at / 2
        } else {
            variants - at.div_ceil(2)
        };
        (zigzag + round / 2) % variants
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_is_that_of_the_binomial_tables() {
        // Values outside on each side, as in tables of the sign test at 5 %, two-sided.
        for (n, k) in [
            (0, 0),
            (5, 0),
            (6, 1),
            (8, 1),
            (9, 2),
            (10, 2),
            (12, 3),
            (15, 4),
            (20, 6),
            (25, 8),
            (30, 10),
            (50, 18),
        ] {
            assert_eq!(outside(n), k, "{n}");
        }
    }

    #[test]
    fn a_spread_is_of_the_middle() {
        let spread = Spread::of((1..=10).map(f64::from)).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (5.5, 3.0, 8.0));
        assert_eq!(Spread::of([]), None);
        let one = Spread::of([2.0]).unwrap();
        assert_eq!((one.median, one.low, one.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn what_is_added_is_compared_within_a_round() {
        // The machine gets slower by the round; the variants add 10 and 20 to it.
        let rounds = Rounds(
            (0..12)
                .map(|at| {
                    let base = 100.0 + f64::from(at) * 50.0;
                    vec![base, base + 10.0, base + 20.0]
                })
                .collect(),
        );
        assert_eq!(rounds.added(1, 0).unwrap().median, 10.0);
        let ratio = rounds.added_ratio(2, 1, 0).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (2.0, 2.0, 2.0));
        assert!(rounds.ratio(1, 0).unwrap().median > 1.0);
    }

    #[test]
    fn each_variant_comes_at_each_place_and_behind_each_other_equally_often() {
        for variants in 1..8 {
            let mut places = vec![vec![0; variants]; variants];
            let mut behind = vec![vec![0; variants]; variants];
            for round in 0..2 * variants {
                let order: Vec<usize> = order(round, variants).collect();
                for (place, &variant) in order.iter().enumerate() {
                    places[variant][place] += 1;
                }
                for pair in order.windows(2) {
                    behind[pair[1]][pair[0]] += 1;
                }
            }
            assert_eq!(places, vec![vec![2; variants]; variants]);
            for (variant, behind) in behind.iter_mut().enumerate() {
                assert_eq!(behind.remove(variant), 0);
                assert!(behind.iter().all(|&times| times == 2), "{behind:?}");
            }
        }
    }
}
