//! Wall-clock instants of events. No clock is read here.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, written as RFC 3339 UTC with millisecond precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the years that RFC 3339 can write, the last one: a formatting error would panic in `to_string`.
        let ts = jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        write!(f, "{ts:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .map(|ts| Timestamp(ts.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rfc_3339_utc_with_milliseconds() {
        for (us, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_237_200_000_000, "2026-11-21T05:00:00.000Z"),
            (1_795_237_200_123_999, "2026-11-21T05:00:00.123Z"),
        ] {
            assert_eq!(Timestamp(us).to_string(), want);
        }
    }

    #[test]
    fn instants_read_back_to_the_millisecond() {
        for us in [0, 1_795_237_200_123_000, -1_000] {
            let text = Timestamp(us).to_string();
            assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp(us), "{text}");
        }
    }

    #[test]
    fn an_offset_is_brought_to_utc() {
        let ts: Timestamp = "2026-11-21T07:00:00+02:00".parse().unwrap();
        assert_eq!(ts.to_string(), "2026-11-21T05:00:00.000Z");
    }

    #[test]
    fn no_instant_panics() {
        for us in [i64::MIN, i64::MAX] {
            assert!(Timestamp(us).to_string().ends_with('Z'));
            assert!(serde_json::to_string(&Timestamp(us)).is_ok());
        }
    }
}
