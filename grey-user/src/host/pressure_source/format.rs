//! What a source may say: one line. `37.5%` or `37.5` is the part of the host's memory in use; `6G 16G` is what is
//! available and all there is; `6442450944` or `6G` is what is available, where the configuration tells all there is.

use grey_core::units::{Size, parse_size};

/// More memory than any machine has: a number of another kind.
const MOST: u64 = 1 << 50;
/// So much of what was said is shown in an error.
const SHOWN: usize = 40;

/// Percent of the host's memory that is available.
///
/// # Errors
/// What is wrong with the text, for the user.
pub fn parse(text: &[u8], total: Option<u64>) -> Result<f64, String> {
    let text =
        std::str::from_utf8(text).map_err(|_| "says something that is no text".to_owned())?;
    let text = text.trim();
    let wrong = |why: &str| {
        let shown: String = text
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!(
            "says `{shown}`: {why}; expected is 37.5% in use, or what is available and all there is, as in 6G 16G"
        )
    };
    if text.lines().count() > 1 {
        return Err(wrong("more than one line"));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [] => Err(wrong("nothing")),
        [one] => {
            // A number up to 100 without a unit is a percentage: no host has so few bytes.
            if let Some(used) = one
                .strip_suffix('%')
                .map(number)
                .or_else(|| number(one).filter(|n| *n <= 100.0).map(Some))
            {
                return match used.filter(|used| (0.0..=100.0).contains(used)) {
                    Some(used) => Ok(100.0 - used),
                    None => Err(wrong("no percentage from 0 to 100")),
                };
            }
            let available = bytes(one).ok_or_else(|| wrong("no number"))?;
            let total =
                total.ok_or_else(|| wrong("of how much is not known: set `total` as well"))?;
            share(available, total).ok_or_else(|| wrong("more is available than there is"))
        }
        [available, total] => {
            let available = bytes(available).ok_or_else(|| wrong("the first is no size"))?;
            let total = bytes(total).ok_or_else(|| wrong("the second is no size"))?;
            share(available, total).ok_or_else(|| wrong("more is available than there is"))
        }
        _ => Err(wrong("more than two numbers")),
    }
}

fn share(available: u64, total: u64) -> Option<f64> {
    (total > 0 && available <= total).then(|| available as f64 * 100.0 / total as f64)
}

/// Digits with at most one point: no signs, exponents, `inf` or `nan`.
fn number(word: &str) -> Option<f64> {
    let plain = word
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    (plain && word.len() <= 20).then(|| word.parse().ok())?
}

fn bytes(word: &str) -> Option<u64> {
    match parse_size(word) {
        Ok(Size::Bytes(bytes)) => (bytes <= MOST).then_some(bytes),
        _ => None,
    }
}
