//! Intervals and quantiles of the scores.

/// Wilson's interval of a proportion at 95 %; (0, 1) without cases.
#[must_use]
pub fn wilson(hits: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let z = 1.959_963_985;
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // Exact at the ends, where rounding would leave a trace.
    let low = if hits == 0 {
        0.0
    } else {
        (centre - half).max(0.0)
    };
    let high = if hits == of {
        1.0
    } else {
        (centre + half).min(1.0)
    };
    (low, high)
}

/// The exact 95 % interval of a Poisson mean from one count (Garwood 1936), by bisection of the Poisson sums.
#[must_use]
pub fn poisson(count: u64) -> (f64, f64) {
    let below = |mean: f64, most: u64| {
        // Logarithms: with some hundred events e^-mean alone is no longer a number.
        let mut log_term = -mean;
        let mut sum = log_term.exp();
        for k in 1..=most {
            log_term += (mean / k as f64).ln();
            sum += log_term.exp();
        }
        sum
    };
    let solve = |wanted: f64, most: u64| {
        let (mut low, mut high) = (0.0, 10.0 + 3.0 * count as f64);
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            if below(middle, most) > wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    };
    let low = if count == 0 {
        0.0
    } else {
        solve(0.975, count - 1)
    };
    (low, solve(0.025, count))
}

/// The quantile, by linear interpolation; `None` without values.
#[must_use]
pub fn quantile(values: &mut [f64], q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = q * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let above = values[(low + 1).min(last)];
    Some(values[low] + part * (above - values[low]))
}
