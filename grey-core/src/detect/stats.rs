//! Robust statistics over a handful of floors: Theil–Sen, Mann–Kendall with the Hamed–Rao correction, MAD, CUSUM.

/// Points judged at once; longer segments are thinned, since the cost is quadratic.
pub(super) const MOST: usize = 28;

/// MAD of a normal distribution times this is its standard deviation.
const MAD_SIGMA: f64 = 1.4826;

/// Room for one judgement, reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Numbers as [`key`]s, to be put in order.
    pub(super) keys: Vec<i64>,
    pub(super) spare: Vec<f64>,
    ranks: Vec<f64>,
    order: Vec<(i64, usize)>,
}

/// A trend of `n` points.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slope {
    /// Median of the slopes of all pairs.
    pub(super) median: f64,
    /// Its 95 % confidence interval, from Sen's ranks.
    pub(super) low: f64,
    pub(super) high: f64,
    /// Standard deviation of Mann–Kendall's S, corrected for autocorrelation.
    pub(super) deviation: f64,
    /// Mann–Kendall Z.
    pub(super) z: f64,
    /// Kendall's tau.
    pub(super) tau: f64,
}

/// Median of the values, for which `keys` is room. `None` without values.
pub(super) fn median(values: &[f64], keys: &mut Vec<i64>) -> Option<f64> {
    median_of(values.iter().copied(), keys)
}

fn median_of(values: impl Iterator<Item = f64>, keys: &mut Vec<i64>) -> Option<f64> {
    keys.clear();
    keys.extend(values.map(key_of));
    median_of_keys(keys)
}

/// A number in the order of `f64::total_cmp`, which integers are compared in faster. Its own inverse.
fn key(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

fn key_of(value: f64) -> i64 {
    key(value.to_bits() as i64)
}

fn of_key(of: i64) -> f64 {
    f64::from_bits(key(of) as u64)
}

/// [`median`] of [`key`]s.
fn median_of_keys(keys: &mut [i64]) -> Option<f64> {
    if keys.is_empty() {
        return None;
    }
    let (middle, odd) = (keys.len() / 2, keys.len() % 2 == 1);
    let (below, at, _) = keys.select_nth_unstable(middle);
    let at = of_key(*at);
    if odd {
        return Some(at);
    }
    let lower = of_key(below.iter().copied().max()?);
    Some((at + lower) / 2.0)
}

/// Standard deviation estimated from the median absolute deviation.
pub(super) fn sigma(values: &[f64], keys: &mut Vec<i64>) -> f64 {
    let Some(middle) = median(values, keys) else {
        return 0.0;
    };
    let away = values.iter().map(|value| (value - middle).abs());
    median_of(away, keys).unwrap_or(0.0) * MAD_SIGMA
}

/// Noise of the values: the spread of the steps from each to the next, so that a steady climb is none.
pub(super) fn noise(y: &[f64], scratch: &mut Scratch) -> f64 {
    let Scratch { keys, spare, .. } = scratch;
    spare.clear();
    spare.extend(y.windows(2).map(|pair| pair[1] - pair[0]));
    sigma(spare, keys) / std::f64::consts::SQRT_2
}

/// CUSUM of what the values lie above the median of their first quarter, beyond a sigma each: whether it has reached
/// five sigmas. Sigma is their [`noise`], or the least that is believed.
pub(super) fn cusum(y: &[f64], sigma: f64, keys: &mut Vec<i64>) -> bool {
    let begin = &y[..y.len().min((y.len() / 4).max(3))];
    let Some(usual) = median(begin, keys) else {
        return false;
    };
    let mut sum = 0.0_f64;
    for value in y {
        sum = (sum + (value - usual) - sigma).max(0.0);
    }
    sum >= 5.0 * sigma
}

/// Theil–Sen slope of `y` over `t` with its interval, Mann–Kendall Z and tau. `t` rises strictly; 3 points at least.
///
/// Var(S) = [n(n−1)(2n+5) − Σ u(u−1)(2u+5)]/18 for ties of u values; by Hamed and Rao (1998) it is multiplied with
/// 1 + 2/(n(n−1)(n−2)) Σ (n−i)(n−i−1)(n−i−2) ρ_i over the significant autocorrelations of the detrended ranks. The
/// factor is never taken below 1, so that no series counts for more than its points. An all but perfectly monotone one
/// (tau ≥ 0.95) is not corrected: what remains after a straight line is then its curve and no noise.
pub(super) fn slope(t: &[f64], y: &[f64], scratch: &mut Scratch) -> Option<Slope> {
    let n = t.len().min(y.len());
    if n < 3 {
        return None;
    }
    let slopes = &mut scratch.keys;
    slopes.clear();
    let (mut s, mut equal) = (0i64, false);
    for i in 0..n {
        for j in i + 1..n {
            let rise = y[j] - y[i];
            s += i64::from(rise > 0.0) - i64::from(rise < 0.0);
            equal |= rise == 0.0;
            slopes.push(key_of(rise / (t[j] - t[i])));
        }
    }
    let pairs = slopes.len();
    let tau = s as f64 / pairs as f64;
    let mid = median_of_keys(slopes)?;
    let count = n as f64;
    let mut variance = count * (count - 1.0) * (2.0 * count + 5.0);
    if equal {
        variance -= ties(&y[..n], &mut scratch.keys);
    }
    variance = (variance / 18.0).max(1.0);
    if tau.abs() < 0.95 {
        variance *= hamed_rao(t, y, n, mid, scratch);
    }
    let deviation = variance.sqrt();
    let z = (s as f64 - (s.signum() as f64)) / deviation;
    let slope = Slope {
        median: mid,
        low: mid,
        high: mid,
        deviation,
        z,
        tau,
    };
    mid.is_finite().then_some(slope)
}

/// Sen's interval of a slope from [`slope`] over the same points: the slopes of the pairs at ranks (N ∓ 1.96 σ)/2. Apart,
/// since it is wanted for what is told only.
pub(super) fn interval(slope: &mut Slope, t: &[f64], y: &[f64], scratch: &mut Scratch) {
    let n = t.len().min(y.len());
    let slopes = &mut scratch.keys;
    slopes.clear();
    for i in 0..n {
        for j in i + 1..n {
            slopes.push(key_of((y[j] - y[i]) / (t[j] - t[i])));
        }
    }
    let pairs = slopes.len();
    if pairs == 0 {
        return;
    }
    let reach = 1.96 * slope.deviation;
    let last = pairs - 1;
    let low = (((pairs as f64 - reach) / 2.0).floor().max(0.0) as usize).min(last);
    let high = (((pairs as f64 + reach) / 2.0).ceil().max(0.0) as usize).min(last);
    let low = of_key(*slopes.select_nth_unstable(low).1);
    let high = of_key(*slopes.select_nth_unstable(high).1);
    if low.is_finite() && high.is_finite() {
        (slope.low, slope.high) = (low, high);
    }
}

/// Σ u(u−1)(2u+5) over the groups of u equal values.
fn ties(y: &[f64], keys: &mut Vec<i64>) -> f64 {
    keys.clear();
    keys.extend(y.iter().copied().map(key_of));
    keys.sort_unstable();
    let mut sum = 0.0;
    for run in keys.chunk_by(|a, b| of_key(*a) == of_key(*b)) {
        let u = run.len() as f64;
        sum += u * (u - 1.0) * (2.0 * u + 5.0);
    }
    sum
}

fn hamed_rao(t: &[f64], y: &[f64], n: usize, slope: f64, scratch: &mut Scratch) -> f64 {
    let residuals = &mut scratch.spare;
    residuals.clear();
    residuals.extend((0..n).map(|i| y[i] - slope * (t[i] - t[0])));
    let order = &mut scratch.order;
    order.clear();
    order.extend(residuals.iter().copied().map(key_of).zip(0..));
    order.sort_unstable();
    let ranks = &mut scratch.ranks;
    ranks.clear();
    ranks.resize(n, 0.0);
    for (rank, (_, at)) in order.iter().enumerate() {
        ranks[*at] = rank as f64;
    }
    let mean = (n - 1) as f64 / 2.0;
    let spread: f64 = ranks.iter().map(|rank| (rank - mean).powi(2)).sum();
    if spread <= 0.0 {
        return 1.0;
    }
    let count = n as f64;
    let significant = 1.96 / count.sqrt();
    let mut sum = 0.0;
    // Beyond half the length an autocorrelation rests on too few pairs.
    for lag in 1..=n / 2 {
        let rho: f64 = ranks
            .iter()
            .zip(&ranks[lag..])
            .map(|(a, b)| (a - mean) * (b - mean))
            .sum::<f64>()
            / spread;
        if rho.abs() > significant {
            let left = count - lag as f64;
            sum += left * (left - 1.0) * (left - 2.0) * rho;
        }
    }
    (1.0 + 2.0 / (count * (count - 1.0) * (count - 2.0)) * sum).max(1.0)
}

/// Correlation of two rows where both are known, and the slope of `b` on `a`; `None` below 8 pairs or without spread.
pub(super) fn correlation(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let known = || {
        a.iter()
            .zip(b)
            .filter(|(a, b)| a.is_finite() && b.is_finite())
    };
    let n = known().count();
    if n < 8 {
        return None;
    }
    let count = n as f64;
    let mean_a = known().map(|(a, _)| a).sum::<f64>() / count;
    let mean_b = known().map(|(_, b)| b).sum::<f64>() / count;
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in known() {
        aa += (x - mean_a).powi(2);
        bb += (y - mean_b).powi(2);
        ab += (x - mean_a) * (y - mean_b);
    }
    if aa <= 0.0 || bb <= 0.0 {
        return None;
    }
    Some((ab / (aa * bb).sqrt(), ab / aa))
}

/// Probability that a standard normal value is at most `z` (Abramowitz and Stegun 26.2.17, error below 1e-7).
pub(super) fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let tail = density
        * t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    if z >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(y: &[f64]) -> Slope {
        let t: Vec<f64> = (0..y.len()).map(|i| i as f64).collect();
        let scratch = &mut Scratch::default();
        let mut found = slope(&t, y, scratch).unwrap();
        interval(&mut found, &t, y, scratch);
        found
    }

    #[test]
    fn a_straight_line_has_its_slope_and_no_doubt() {
        let line: Vec<f64> = (0..20).map(|i| 5.0 + 2.0 * f64::from(i)).collect();
        let slope = of(&line);
        assert_eq!(
            (slope.median, slope.low, slope.high, slope.tau),
            (2.0, 2.0, 2.0, 1.0)
        );
        // S = 190, Var = 20·19·45/18 = 950: Z = 189/√950.
        assert!(
            (slope.z - 189.0 / 950.0_f64.sqrt()).abs() < 1e-9,
            "{slope:?}"
        );
    }

    #[test]
    fn ties_and_falls_count_as_in_the_textbook() {
        // pyMannKendall.original_test([1, 2, 2, 3, 1, 4]): S = 7, Var = (6·5·17 − 2·(2·1·9))/18 = 26.33.
        let slope = of(&[1.0, 2.0, 2.0, 3.0, 1.0, 4.0]);
        let uncorrected = 6.0 / (474.0_f64 / 18.0).sqrt();
        assert!(
            slope.z <= uncorrected + 1e-9 && slope.z > 0.0,
            "{slope:?} {uncorrected}"
        );
        let flat = of(&[3.0; 12]);
        assert_eq!((flat.median, flat.z, flat.tau), (0.0, 0.0, 0.0));
    }

    #[test]
    fn autocorrelation_makes_less_of_a_wave() {
        // A slow wave looks like a trend to the uncorrected test.
        let wave: Vec<f64> = (0..40)
            .map(|i| {
                (f64::from(i) / 40.0 * std::f64::consts::PI).sin() * 10.0 + f64::from(i) * 0.05
            })
            .collect();
        let slope = of(&wave);
        assert!(slope.z.abs() < 3.0, "{slope:?}");
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_slope() {
        let mut line: Vec<f64> = (0..21).map(f64::from).collect();
        line[10] = 1e6;
        assert!((of(&line).median - 1.0).abs() < 0.05);
        let mut keys = Vec::new();
        assert_eq!(median(&[1.0, 2.0, 1e9], &mut keys), Some(2.0));
        assert_eq!(median(&[2.0, -1e9, 1.0, -3.0], &mut keys), Some(-1.0));
        assert_eq!(median(&[], &mut keys), None);
        assert!((sigma(&[1.0, 2.0, 3.0, 4.0, 100.0], &mut keys) - MAD_SIGMA).abs() < 1e-9);
    }

    #[test]
    fn cusum_rises_with_a_drift_and_not_with_noise() {
        let mut scratch = Scratch::default();
        let mut x = 0x9E37_79B9_u64;
        let noise: Vec<f64> = (0..60)
            .map(|_| {
                // xorshift64
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 40) as f64 / 1e6
            })
            .collect();
        let sigma = super::noise(&noise, &mut scratch);
        assert!(!cusum(&noise, sigma, &mut scratch.keys));
        let drift: Vec<f64> = noise
            .iter()
            .enumerate()
            .map(|(i, y)| y + 40.0 * i as f64)
            .collect();
        let sigma = super::noise(&drift, &mut scratch);
        assert!(cusum(&drift, sigma, &mut scratch.keys));
    }

    #[test]
    fn the_normal_distribution_is_the_tables() {
        for (z, p) in [
            (0.0, 0.5),
            (1.96, 0.975_002),
            (-1.645, 0.049_985),
            (3.09, 0.998_999),
        ] {
            assert!((normal_cdf(z) - p).abs() < 1e-5, "{z}");
        }
    }
}
