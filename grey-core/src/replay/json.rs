//! A strict JSON reader over one line that allocates nothing: what is not asked for is checked and skipped in place.

use std::borrow::Cow;

/// Depth at which a line is no longer taken for an event. The same as serde_json's.
const DEEPEST: u32 = 128;

/// Why a line is not JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What was found or missing.
    pub(super) why: &'static str,
    /// Bytes before it.
    pub(super) at: usize,
}

/// A string of the line, still with its escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    /// Between the quotes.
    pub(super) raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// What it stands for; `None` if an escape stands for nothing (half of a surrogate pair).
    pub(super) fn decoded(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(self.raw.into());
        }
        serde_json::from_str::<String>(&format!("\"{}\"", self.raw))
            .ok()
            .map(Cow::Owned)
    }
}

/// A place in a line.
pub(super) struct Cursor<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor {
            text,
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
        }
    }

    fn fault<T>(&self, why: &'static str) -> Result<T, Fault> {
        Err(Fault { why, at: self.at })
    }

    /// The next byte that is no white space; 0 at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                Some(&byte) => return byte,
                None => return 0,
            }
        }
    }

    /// That nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.peek();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            self.fault("something after the object")
        }
    }

    /// Calls `member` with each key of an object; it has to read the value.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a [u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.peek() != b'{' {
            return self.fault("no JSON object");
        }
        self.open()?;
        if self.peek() == b'}' {
            return self.close();
        }
        loop {
            if self.peek() != b'"' {
                return self.fault("no key");
            }
            let (start, end, _) = self.quoted()?;
            if self.peek() != b':' {
                return self.fault("no colon after a key");
            }
            self.at += 1;
            member(self, &self.bytes[start..end])?;
            match self.peek() {
                b',' => self.at += 1,
                b'}' => return self.close(),
                _ => return self.fault("no comma or brace after a value"),
            }
        }
    }

    fn open(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.fault("nested too deeply");
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// A string where there is one; any other value is skipped.
    pub(super) fn maybe_string(&mut self) -> Result<Option<Text<'a>>, Fault> {
        if self.peek() == b'"' {
            self.string().map(Some)
        } else {
            self.skip()?;
            Ok(None)
        }
    }

    fn string(&mut self) -> Result<Text<'a>, Fault> {
        let (start, end, escaped) = self.quoted()?;
        // Both ends are at quotes, so on the borders of characters.
        let raw = self.text.get(start..end).unwrap_or_default();
        Ok(Text { raw, escaped })
    }

    /// Reads over a string: where it begins and ends between its quotes, and whether there are escapes in it.
    #[inline]
    fn quoted(&mut self) -> Result<(usize, usize, bool), Fault> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = plain_until(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at = self.escape(at)?;
                }
                Some(_) => {
                    self.at = at;
                    return self.fault("a control character in a string");
                }
                None => {
                    self.at = at;
                    return self.fault("it ends within a string");
                }
            }
        }
        self.at = at + 1;
        Ok((start, at, escaped))
    }

    /// Where the escape that begins at `at` ends.
    fn escape(&mut self, at: usize) -> Result<usize, Fault> {
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u')
                if self
                    .bytes
                    .get(at + 2..at + 6)
                    .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) =>
            {
                Ok(at + 6)
            }
            _ => {
                self.at = at;
                self.fault("an escape that is none")
            }
        }
    }

    /// A count of bytes, events or the like: a number that is not negative and fits in 64 bits, rounded where it has a
    /// fraction. Anything else is skipped and `None`.
    pub(super) fn figure(&mut self) -> Result<Option<u64>, Fault> {
        let start = match self.peek() {
            b'0'..=b'9' => self.at,
            _ => {
                self.skip()?;
                return Ok(None);
            }
        };
        let mut value = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            // Nineteen digits fit; what is longer is read again below.
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - start;
        let plain = !matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E'));
        if plain && digits <= 19 && (self.bytes[start] != b'0' || digits == 1) {
            return Ok(Some(value));
        }
        self.at = start;
        let number = self.number()?;
        if plain {
            return Ok(number.parse().ok());
        }
        // 2^64 is the first that does not fit; `as` would saturate.
        Ok(number
            .parse::<f64>()
            .ok()
            .map(f64::round)
            .filter(|value| *value < 18_446_744_073_709_551_616.0)
            .map(|value| value as u64))
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        let whole = self.at;
        self.digits()?;
        if self.bytes[whole] == b'0' && self.at > whole + 1 {
            return self.fault("a number with a zero before it");
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if self.at == start {
            return self.fault("a number without a digit");
        }
        Ok(())
    }

    /// Reads over a value that stood like this, complete, in another line. `None` if this one does not.
    #[inline]
    pub(super) fn again(&mut self, value: &str) -> Option<&'a str> {
        self.peek();
        let end = self.at + value.len();
        // What comes first cannot be the begin of something longer: an object ends with its brace.
        let same = value.ends_with('}') && self.bytes.get(self.at..end)? == value.as_bytes();
        let text = same.then(|| self.text.get(self.at..end)).flatten()?;
        self.at = end;
        Some(text)
    }

    /// Reads over a value of any kind and returns it as it stands in the line.
    pub(super) fn skip(&mut self) -> Result<&'a str, Fault> {
        let first = self.peek();
        let start = self.at;
        match first {
            b'"' => {
                self.quoted()?;
            }
            b'0'..=b'9' => {
                self.figure()?;
            }
            b'{' => self.object(|cursor, _| cursor.skip().map(|_| ()))?,
            b'[' => self.array()?,
            b'-' => {
                self.number()?;
            }
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ if start == self.bytes.len() => return self.fault("it ends before a value"),
            _ => return self.fault("no value"),
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn array(&mut self) -> Result<(), Fault> {
        self.open()?;
        if self.peek() == b']' {
            return self.close();
        }
        loop {
            self.skip()?;
            match self.peek() {
                b',' => self.at += 1,
                b']' => return self.close(),
                _ => return self.fault("no comma or bracket after a value"),
            }
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Fault> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            self.fault("no value")
        }
    }
}

/// Where a quote, a backslash or a control character comes, or the end. Eight bytes at a time: most of a line is names.
#[inline]
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    // The top bit of the first byte under `n` is set, and of none before it.
    let less = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & TOPS;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let quote = less(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = less(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | less(word, 0x20);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Result<(), Fault> {
        let mut cursor = Cursor::new(text);
        cursor.skip()?;
        cursor.end()
    }

    #[test]
    fn json_is_told_from_what_is_none() {
        for good in [
            "{}",
            "[]",
            " { \"a\" : [ 1 , -2.5e+3 , true , false , null , \"x\\u00e9\\n\" ] } \r",
            "0",
            "-0",
            "1E5",
            "\"日本\"",
        ] {
            assert_eq!(whole(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "{",
            "}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "[1,]",
            "[1 2]",
            "01",
            "-",
            "1.",
            "1e",
            "+1",
            ".5",
            "NaN",
            "Infinity",
            "nul",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a\tb\"",
            "{} {}",
            "{a:1}",
            "\0",
        ] {
            assert!(whole(bad).is_err(), "{bad}");
            assert!(
                serde_json::from_str::<serde_json::Value>(bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (depth, ok) in [(127, true), (129, false), (1_000_000, false)] {
            assert_eq!(
                whole(&("[".repeat(depth) + &"]".repeat(depth))).is_ok(),
                ok,
                "{depth}"
            );
        }
    }

    #[test]
    fn a_figure_is_a_number_of_64_bits_or_nothing() {
        for (text, want) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999999", None),
            ("1e3", Some(1000)),
            ("4096.0", Some(4096)),
            ("1.5", Some(2)),
            ("1e400", None),
            ("1.8446744073709552e19", None),
            ("-1", None),
            ("-0.0", None),
            ("null", None),
            ("\"5\"", None),
            ("{\"a\":1}", None),
            ("[1]", None),
            ("true", None),
        ] {
            let mut cursor = Cursor::new(text);
            assert_eq!(cursor.figure(), Ok(want), "{text}");
            assert_eq!(cursor.end(), Ok(()), "{text}");
        }
        for bad in ["01", "1.", "1e", "00.5", "NaN", ""] {
            let mut cursor = Cursor::new(bad);
            assert!(cursor.figure().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_ends_a_plain_text_is_found_wherever_it_stands(bytes in proptest::collection::vec(any::<u8>(), 0..40), at in 0_usize..45) {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let want = bytes.get(at..).map_or(at, |rest| at + rest.iter().position(special).unwrap_or(rest.len()));
            prop_assert_eq!(plain_until(&bytes, at), want);
        }

        /// serde_json takes one thing that this reader does not see through: half of a surrogate pair in an escape,
        /// which is an error there.
        #[test]
        fn it_agrees_with_serde_json(text in "[\\[\\]{}\",:0-9eE.+\\-a-c \\\\u\\u{0}-\\u{20}é]{0,24}") {
            let ours = whole(&text).is_ok();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let out_of_range = text.contains(['e', 'E']) || text.contains("\\u");
            prop_assert!(ours == theirs || (ours && out_of_range), "{text:?}: {ours} {theirs}");
        }
    }
}
