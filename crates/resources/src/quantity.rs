//! Quantities that carry their unit in their type.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseQuantityError {
    text: String,
    expected: &'static str,
}

/// Declares a quantity: a `u64` newtype with saturating arithmetic, a textual form and serde through it.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, kind: $kind:literal, expected: $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0);

            /// The bare number, in this type's unit.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The sum, or the largest representable quantity.
            #[must_use]
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, or zero.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// The difference, or `None` if it would be negative.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(rest) => Some(Self(rest)),
                    None => None,
                }
            }

            /// This quantity times a factor, rounded up; negative and NaN factors count as zero.
            #[must_use]
            pub fn scale(self, factor: f64) -> Self {
                Self::from_f64(self.0 as f64 * factor)
            }

            /// The nearest quantity at or above `value`; negative and NaN values become zero, huge ones the maximum.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "float-to-integer casts saturate and map NaN to zero, which is what is documented"
            )]
            pub fn from_f64(value: f64) -> Self {
                Self(value.ceil() as u64)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "integer"], "title": $kind })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // The readable form where it loses nothing, else the bare number.
                let text = self.to_string();
                if text.parse() == Ok(*self) { serializer.serialize_str(&text) } else { serializer.serialize_u64(self.0) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_u64<E: de::Error>(self, value: u64) -> Result<$name, E> {
                        $name::from_number(value).ok_or_else(|| E::custom(format_args!("{value} is too large")))
                    }
                    fn visit_i64<E: de::Error>(self, value: i64) -> Result<$name, E> {
                        let value = u64::try_from(value)
                            .map_err(|_| E::custom(format_args!("{value} is negative")))?;
                        self.visit_u64(value)
                    }
                    fn visit_f64<E: de::Error>(self, value: f64) -> Result<$name, E> {
                        value.to_string().parse().map_err(E::custom)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

quantity! {
    /// An amount of memory or data, in bytes. Reads `1073741824`, `64MiB`, `1.5GiB`, `10MB`; prints the largest
    /// binary unit that divides it, or two decimals of it.
    Bytes, kind: "size", expected: "a number of bytes such as 64MiB, 1.5GiB or 1048576"
}

quantity! {
    /// CPU time per wall-clock time, in thousandths of a core. Reads `2` and `0.5` as cores and `1500m` as
    /// thousandths; prints `1500m`.
    CpuMillis, kind: "cores", expected: "a number of cores such as 2, 0.5 or 1500m"
}

quantity! {
    /// An I/O rate, in bytes per second. Reads `10MiB/s` and bare numbers.
    BytesPerSecond, kind: "rate", expected: "a rate such as 10MiB/s or 1048576"
}

const BINARY_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const DECIMAL_UNITS: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = BINARY_UNITS
        .iter()
        .chain(&DECIMAL_UNITS)
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number.trim_end(), *unit)))
        .unwrap_or((text, 1));
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    parse_scaled(number, unit)
}

/// Parses a non-negative decimal and multiplies it by `unit`, rounding to the nearest integer.
fn parse_scaled(number: &str, unit: u64) -> Option<u64> {
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked in the condition"
    )]
    (value.is_finite() && value < u64::MAX as f64).then_some(value.round() as u64)
}

fn format_bytes(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (suffix, unit) in BINARY_UNITS {
        if value >= unit {
            return if value.is_multiple_of(unit) {
                write!(f, "{}{suffix}", value / unit)
            } else {
                write!(f, "{:.2}{suffix}", value as f64 / unit as f64)
            };
        }
    }
    write!(f, "{value}B")
}

impl Bytes {
    /// So many KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }
    /// So many GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }
    #[expect(clippy::unnecessary_wraps, reason = "one signature for all quantities")]
    const fn from_number(value: u64) -> Option<Self> {
        Some(Self(value))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_bytes(self.0, f)
    }
}

impl FromStr for Bytes {
    type Err = ParseQuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_bytes(text).map(Self).ok_or_else(|| ParseQuantityError {
            text: text.to_owned(),
            expected: "a number of bytes such as 64MiB, 1.5GiB or 1048576",
        })
    }
}

impl CpuMillis {
    /// So many whole cores.
    pub const fn cores(n: u64) -> Self {
        Self(n.saturating_mul(1000))
    }
    const fn from_number(cores: u64) -> Option<Self> {
        match cores.checked_mul(1000) {
            Some(millis) => Some(Self(millis)),
            None => None,
        }
    }
}

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl FromStr for CpuMillis {
    type Err = ParseQuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let millis = match trimmed.strip_suffix('m') {
            Some(millis) => millis.parse().ok(),
            None => parse_scaled(trimmed, 1000),
        };
        millis.map(Self).ok_or_else(|| ParseQuantityError {
            text: text.to_owned(),
            expected: "a number of cores such as 2, 0.5 or 1500m",
        })
    }
}

impl BytesPerSecond {
    /// So many MiB per second.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }
    #[expect(clippy::unnecessary_wraps, reason = "one signature for all quantities")]
    const fn from_number(value: u64) -> Option<Self> {
        Some(Self(value))
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_bytes(self.0, f)?;
        f.write_str("/s")
    }
}

impl FromStr for BytesPerSecond {
    type Err = ParseQuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        parse_bytes(trimmed.strip_suffix("/s").unwrap_or(trimmed))
            .map(Self)
            .ok_or_else(|| ParseQuantityError { text: text.to_owned(), expected: "a rate such as 10MiB/s or 1048576" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!("64MiB".parse(), Ok(Bytes::mib(64)));
        assert_eq!("1.5 GiB".parse(), Ok(Bytes::mib(1536)));
        assert_eq!("10MB".parse(), Ok(Bytes(10_000_000)));
        assert_eq!("2".parse(), Ok(CpuMillis(2000)));
        assert_eq!("0.5".parse(), Ok(CpuMillis(500)));
        assert_eq!("1500m".parse(), Ok(CpuMillis(1500)));
        assert_eq!("10MiB/s".parse(), Ok(BytesPerSecond::mib(10)));
    }

    #[test]
    fn refuses_nonsense_and_says_what_it_wanted() {
        for text in ["", "MiB", "-1", "1e3", "NaN", "64 bits", "99999999999TiB"] {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.contains("a number of bytes"), "{text}: {error}");
        }
        assert!("x".parse::<CpuMillis>().is_err());
    }

    #[test]
    fn serde_reads_numbers_and_text() {
        assert_eq!(serde_json::from_str::<Bytes>("1024").unwrap(), Bytes::kib(1));
        assert_eq!(serde_json::from_str::<CpuMillis>("1.5").unwrap(), CpuMillis(1500));
        assert_eq!(serde_json::from_str::<CpuMillis>("2").unwrap(), CpuMillis::cores(2));
        assert!(serde_json::from_str::<Bytes>("-1").is_err());
    }

    #[test]
    fn scaling_never_wraps() {
        assert_eq!(Bytes(10).scale(-1.0), Bytes::ZERO);
        assert_eq!(Bytes(10).scale(f64::NAN), Bytes::ZERO);
        assert_eq!(Bytes(u64::MAX).scale(2.0), Bytes(u64::MAX));
    }

    proptest! {
        #[test]
        fn cpu_round_trips(millis in any::<u64>()) {
            prop_assert_eq!(CpuMillis(millis).to_string().parse(), Ok(CpuMillis(millis)));
        }

        #[test]
        fn whole_mebibytes_below_a_gibibyte_print_exactly(mib in 0u64..1024) {
            prop_assert_eq!(Bytes::mib(mib).to_string().parse(), Ok(Bytes::mib(mib)));
        }

        #[test]
        fn serde_loses_nothing(value in any::<u64>()) {
            let bytes = serde_json::to_string(&Bytes(value)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bytes>(&bytes).unwrap(), Bytes(value));
            let rate = serde_json::to_string(&BytesPerSecond(value)).unwrap();
            prop_assert_eq!(serde_json::from_str::<BytesPerSecond>(&rate).unwrap(), BytesPerSecond(value));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<CpuMillis>();
            let _ = text.parse::<BytesPerSecond>();
        }
    }
}
