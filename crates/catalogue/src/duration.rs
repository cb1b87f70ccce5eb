//! Durations as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units by name, the largest first, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const EXPECTED: &str = "a duration with its unit, such as 500ms, 1.5s, 10min, 1h30min or 2d";

/// A duration in text: `500ms`, `1.5s`, `10min`, `1h30min`, `2d`. The units are `d`, `h`, `min`, `s`, `ms`, `us` and
/// `ns`, the larger before the smaller. A bare number is refused: it has no unit.
///
/// What it prints, it reads back exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {EXPECTED}")]
pub struct ParseDurationError {
    text: String,
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, nanos) in UNITS {
            if rest >= nanos {
                write!(f, "{}{name}", rest / nanos)?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

impl FromStr for HumanDuration {
    type Err = ParseDurationError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_nanos(text)
            .and_then(|nanos| {
                let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
                let below = u32::try_from(nanos % 1_000_000_000).ok()?;
                Some(Self(Duration::new(seconds, below)))
            })
            .ok_or_else(|| ParseDurationError { text: text.chars().take(64).collect() })
    }
}

fn parse_nanos(text: &str) -> Option<u128> {
    let mut rest = text.trim();
    let (mut total, mut previous) = (0u128, u128::MAX);
    loop {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let tail = tail.trim_start();
        let (unit, after) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let (_, nanos) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        if nanos >= previous {
            return None;
        }
        previous = nanos;
        total = total.checked_add(parse_decimal(number, nanos)?)?;
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// `number` times `unit`, if that is a whole number.
fn parse_decimal(number: &str, unit: u128) -> Option<u128> {
    let digits = |text: &str| {
        let sound = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        sound.then(|| text.parse::<u128>().ok()).flatten()
    };
    let Some((whole, fraction)) = number.split_once('.') else {
        return digits(number)?.checked_mul(unit);
    };
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(fraction)?.checked_mul(unit)?;
    if !part.is_multiple_of(scale) {
        return None;
    }
    digits(whole)?.checked_mul(unit)?.checked_add(part / scale)
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "HumanDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "duration" })
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = HumanDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let of = |text: &str| text.parse::<HumanDuration>().unwrap().0;
        assert_eq!(of("500ms"), Duration::from_millis(500));
        assert_eq!(of("1s"), Duration::from_secs(1));
        assert_eq!(of("10min"), Duration::from_mins(10));
        assert_eq!(of(" 1.5 h "), Duration::from_mins(90));
        assert_eq!(of("1h30min"), Duration::from_mins(90));
        assert_eq!(of("2d 1s"), Duration::from_secs(172_801));
        assert_eq!(of("0s"), Duration::ZERO);
    }

    #[test]
    fn refuses_nonsense_and_says_what_it_wanted() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1m",
            "1sec",
            "1.s",
            ".5s",
            "1..5s",
            "1s1s",
            "1s1h",
            "1.5ns",
            "1e3s",
            "1s,",
            "١s",
            "99999999999999999999d",
        ] {
            let error = text.parse::<HumanDuration>().unwrap_err().to_string();
            assert!(error.contains("a duration with its unit"), "{text}: {error}");
        }
    }

    #[test]
    fn serde_refuses_a_number_without_a_unit() {
        assert!(serde_json::from_str::<HumanDuration>("5").unwrap_err().to_string().contains("with its unit"));
        assert_eq!(serde_json::from_str::<HumanDuration>("\"5s\"").unwrap().0, Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads_back(seconds in any::<u64>(), nanos in 0u32..1_000_000_000) {
            let duration = HumanDuration(Duration::new(seconds, nanos));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn parsing_never_panics(text in "[0-9.dhmins ]{0,60}|.*") {
            let _ = text.parse::<HumanDuration>();
        }
    }
}
