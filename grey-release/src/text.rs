//! Text without allocation: a line of bounded length, and numbers out of text.

use core::fmt::{self, Write};

/// A line that is written piece by piece; what does not fit is left out as a whole piece.
#[derive(Debug)]
pub(crate) struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Line<N> {
    pub(crate) const fn new() -> Self {
        Line {
            bytes: [0; N],
            len: 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Appends ` key=value`.
    pub(crate) fn figure(&mut self, key: &str, value: impl fmt::Display) {
        let before = self.len;
        if write!(self, " {key}={value}").is_err() {
            self.len = before;
        }
    }

    /// As [`Line::figure`], where the value is known.
    pub(crate) fn known(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.figure(key, value);
        }
    }
}

impl<const N: usize> Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// A decimal number without a sign.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A hexadecimal number behind `0x`.
pub(crate) fn hex(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x")?;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(digit))
    })
}

/// Words between blanks and line ends.
pub(crate) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b'\n' | b'\t'))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_does_not_fit_is_left_out_as_a_whole() {
        let mut line = Line::<10>::new();
        line.figure("a", 12);
        line.figure("long", 123_456);
        line.figure("b", 3);
        assert_eq!(line.bytes(), b" a=12 b=3");
    }

    #[test]
    fn numbers_are_read_to_their_last_digit_or_not_at_all() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", "-1", "+1", "18446744073709551616", "1 ", "0x1"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        assert_eq!(hex(b"0x7ffe"), Some(0x7ffe));
        assert_eq!(hex(b"0xffffffffffffffff"), Some(u64::MAX));
        for text in ["0x", "7ffe", "0x1g", "0x10000000000000000"] {
            assert_eq!(hex(text.as_bytes()), None, "{text}");
        }
    }
}
