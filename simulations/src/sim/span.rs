//! Spans of virtual time as people write them: `250ms`, `10s`, `1.5m`, `2h`; a bare number is milliseconds.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::state::Ms;

/// Units, the longest first, in ms.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A span that is read from text and written as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Ms);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().find(|(_, ms)| self.0 >= *ms && self.0.is_multiple_of(*ms));
        let (unit, ms) = fits.unwrap_or(&("s", 1_000));
        write!(f, "{}{unit}", self.0 / ms)
    }
}

/// Reads one.
pub(crate) fn parse(text: &str) -> Result<Ms, String> {
    let wrong = || format!("{text:?} is no span of time; write 250ms, 10s, 1.5m or 2h");
    let digits = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" => "ms",
        "min" => "m",
        unit => unit,
    };
    let (_, ms) = UNITS.iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let span = (number * *ms as f64).round();
    if !(0.0..1e15).contains(&span) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "looked at above")]
    Ok(span as Ms)
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Ms;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a span of time, such as 250ms, 10s, 1.5m or 2h")
    }

    fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Ms, E> {
        Ok(ms)
    }

    fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Ms, E> {
        Ms::try_from(ms).map_err(|_| E::custom("a span of time is not negative"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Ms, E> {
        parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        deserializer.deserialize_any(Reader).map(Span)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// For `#[serde(with = "span")]`.
pub(super) fn serialize<S: Serializer>(ms: &Ms, serializer: S) -> Result<S::Ok, S::Error> {
    Span(*ms).serialize(serializer)
}

/// For `#[serde(with = "span")]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ms, D::Error> {
    Span::deserialize(deserializer).map(|span| span.0)
}

/// The same for spans that may be missing.
pub(super) mod maybe {
    use serde::{Serialize, Serializer};

    use super::{Ms, Span};

    /// For `#[serde(serialize_with = "span::maybe::serialize")]`.
    pub(in super::super) fn serialize<S: Serializer>(ms: &Option<Ms>, serializer: S) -> Result<S::Ok, S::Error> {
        ms.map(Span).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_people_write_it_and_written_in_its_longest_whole_unit() {
        for (text, ms, written) in [
            ("250ms", 250, "250ms"),
            ("10s", 10_000, "10s"),
            ("1.5m", 90_000, "90s"),
            ("2h", 7_200_000, "2h"),
            ("7", 7, "7ms"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(parse(text), Ok(ms));
            assert_eq!(Span(ms).to_string(), written);
        }
    }

    #[test]
    fn what_is_no_span_is_refused_in_words() {
        for text in ["", "s", "-1s", "10 parsecs", "1e3s", "1..5s", "99999999999999h"] {
            assert!(parse(text).is_err_and(|error| error.contains("no span of time")), "{text}");
        }
    }
}
