//! Arguments as people type them, and figures as they read them.

use proptest::prelude::*;

use super::*;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const T: u64 = 1 << 40;

#[test]
fn sizes_are_binary_multiples_in_every_spelling() {
    for (text, want) in [
        ("0", 0),
        ("123", 123),
        ("123B", 123),
        ("4K", 4 * K),
        ("4k", 4 * K),
        ("4kb", 4 * K),
        ("4KiB", 4 * K),
        ("4Ki", 4 * K),
        ("512M", 512 * M),
        ("512MB", 512 * M),
        ("512 MiB", 512 * M),
        (" 512m ", 512 * M),
        ("1.5GiB", G + G / 2),
        (".5G", G / 2),
        ("2.T", 2 * T),
        ("1.1", 1),
        ("0.1K", 102),
        ("18446744073709551615", u64::MAX),
        ("16777215T", 16_777_215 * T),
        // Exact, which a float would not be.
        ("9007199254740993", 9_007_199_254_740_993),
        ("1.0000000000000000000000000000001K", K),
    ] {
        assert_eq!(parse_size(text), Ok(Size::Bytes(want)), "{text}");
    }
}

#[test]
fn percentages_are_kept_as_such() {
    for (text, want) in [
        ("50%", 50.0),
        ("12.5 %", 12.5),
        ("0%", 0.0),
        ("150%", 150.0),
    ] {
        assert_eq!(parse_size(text), Ok(Size::Percent(want)), "{text}");
    }
    assert_eq!(Size::Percent(50.0).bytes_of(G), G / 2);
    assert_eq!(Size::Bytes(7).bytes_of(G), 7);
    assert_eq!(Size::Percent(1e300).bytes_of(u64::MAX), u64::MAX);
}

#[test]
fn a_bad_size_says_what_is_wrong() {
    for (text, want) in [
        ("", "is empty"),
        ("  ", "is empty"),
        ("-1", "negative"),
        ("-1M", "negative"),
        ("M", "begin with a number"),
        ("nan", "begin with a number"),
        ("NaN%", "begin with a number"),
        ("inf", "begin with a number"),
        ("+1", "begin with a number"),
        ("%", "begin with a number"),
        (".", "not a number"),
        (".M", "not a number"),
        ("1.2.3", "not a number"),
        ("1.2.3%", "percentage"),
        ("1e9", "unknown unit"),
        ("1X", "unknown unit"),
        ("1 M M", "unknown unit"),
        ("1µ", "unknown unit"),
        ("18446744073709551616", "64 bits"),
        ("16777216T", "64 bits"),
        ("99999999999999999999999999999999999999999999", "64 bits"),
    ] {
        let error = parse_size(text).unwrap_err();
        assert!(error.reason.contains(want), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("`{text}`: ")));
    }
    let digits = "9".repeat(400);
    assert!(parse_size(&format!("{digits}%")).is_err());
}

#[test]
fn durations_have_units() {
    for (text, want) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("2 days", 172_800_000),
        (" 1s ", 1_000),
        ("0s", 0),
        ("0", 0),
        ("0.0", 0),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(want)),
            "{text}"
        );
    }
}

#[test]
fn a_bad_duration_says_what_is_wrong() {
    for (text, want) in [
        ("", "is empty"),
        ("-1s", "negative"),
        ("30", "has no unit; write 30s for seconds"),
        ("1.5", "has no unit; write 1.5s for seconds"),
        ("s", "is not a duration"),
        ("10x", "is not a duration"),
        ("nan", "is not a duration"),
        ("inf", "is not a duration"),
        ("99999999999999999999y", "is not a duration"),
    ] {
        let error = parse_duration(text).unwrap_err();
        assert!(error.reason.contains(want), "{text}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn bytes_are_short() {
    for (bytes, want) in [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (K, "1.0K"),
        (4 * K, "4.0K"),
        (10 * K, "10K"),
        (10 * K - 1, "10K"),
        (312 * M, "312M"),
        (M - 1, "1.0M"),
        (1023 * K + 511, "1023K"),
        (1023 * K + 512, "1.0M"),
        (G + G / 2, "1.5G"),
        (T, "1.0T"),
        (u64::MAX, "16E"),
    ] {
        assert_eq!(format_bytes(bytes), want, "{bytes}");
    }
}

#[test]
fn rates_have_a_sign() {
    for (rate, want) in [
        (0.0, "0/s"),
        (-0.2, "0/s"),
        (1_572_864.0, "+1.5M/s"),
        (-319_488.0, "-312K/s"),
        (f64::NAN, "?/s"),
        (f64::INFINITY, "+16E/s"),
        (f64::NEG_INFINITY, "-16E/s"),
    ] {
        assert_eq!(format_rate(rate), want);
    }
}

#[test]
fn durations_are_short() {
    for (us, want) in [
        (0, "0"),
        (850, "850us"),
        (1_000, "1.0ms"),
        (9_949, "9.9ms"),
        (9_950, "10ms"),
        (12_345, "12ms"),
        (999_499, "999ms"),
        (999_500, "1.0s"),
        (1_500_000, "1.5s"),
        (59_949_999, "59.9s"),
        (59_950_000, "1m00s"),
        (125_000_000, "2m05s"),
        (3_599_600_000, "1h00m"),
        (11_520_000_000, "3h12m"),
        (352_800_000_000, "4d02h"),
        (u64::MAX, "213503982d08h"),
    ] {
        assert_eq!(format_duration_us(us), want, "{us}");
    }
}

proptest! {
    #[test]
    fn a_formatted_size_reads_back_within_its_precision(bytes in 0..1000 * T, shift in 0_u32..50) {
        // Sizes are read up to T; nobody types petabytes of memory.
        let bytes = bytes >> shift;
        let text = format_bytes(bytes);
        prop_assert!(text.len() <= 5, "{}", text);
        let Ok(Size::Bytes(back)) = parse_size(&text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert!(back.abs_diff(bytes) <= bytes / 19, "{bytes} {text} {back}");
    }

    #[test]
    fn whole_bytes_read_back_exactly(bytes in any::<u64>()) {
        prop_assert_eq!(parse_size(&bytes.to_string()), Ok(Size::Bytes(bytes)));
    }

    #[test]
    fn any_argument_is_read_or_refused(text in any::<String>()) {
        let _ = parse_size(&text);
        let _ = parse_duration(&text);
    }

    #[test]
    fn near_arguments_are_read_or_refused(text in "[-+]?[0-9.]{0,30} ?[kKmMgGtTiBbs%hd]{0,4}") {
        if let Ok(Size::Percent(percent)) = parse_size(&text) {
            prop_assert!(percent.is_finite() && percent >= 0.0);
        }
        let _ = parse_duration(&text);
    }

    #[test]
    fn a_duration_in_humantime_reads_back(ms in 1..10_000_000_000_u64) {
        let duration = Duration::from_millis(ms);
        let text = humantime::format_duration(duration).to_string();
        prop_assert_eq!(parse_duration(&text), Ok(duration));
    }

    #[test]
    fn any_figure_has_a_text(us in any::<u64>(), rate in any::<f64>()) {
        prop_assert!(!format_duration_us(us).is_empty());
        prop_assert!(format_rate(rate).ends_with("/s"));
    }
}
