//! Ordinary least squares.

/// A fitted line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Units a second.
    pub slope: f64,
    /// Value at time 0.
    pub intercept: f64,
    /// Share of the variance explained.
    pub r2: f64,
}

/// The line through (seconds, value); `None` with fewer than three points or no spread in time.
#[must_use]
pub fn line(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<Line> {
    let (mut n, mut sx, mut sy) = (0.0, 0.0, 0.0);
    for (x, y) in points.clone() {
        n += 1.0;
        sx += x;
        sy += y;
    }
    if n < 3.0 {
        return None;
    }
    let (mx, my) = (sx / n, sy / n);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mx) * (x - mx);
        xy += (x - mx) * (y - my);
        yy += (y - my) * (y - my);
    }
    if xx <= 0.0 {
        return None;
    }
    let slope = xy / xx;
    let r2 = if yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 };
    Some(Line {
        slope,
        intercept: my - slope * mx,
        r2,
    })
}
