//! `k=v`, durations and JSON of the command line.

use std::io::Read as _;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::failure::Failure;

/// `key=value`, with a key that is not empty.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not of the form NAME=VALUE".to_owned()),
    }
}

/// `90s`, `10m`, `1h30m`, `2d`; `min` is the same as `m`. Whole numbers, larger units first.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400), ("h", 3_600), ("m", 60), ("min", 60), ("s", 1)];
    let wrong = || "it is not a duration such as 90s, 10m, 1h30m or 2d".to_owned();
    let (mut rest, mut total, mut smallest) = (text.trim(), 0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let (unit, after) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        if seconds >= smallest {
            return Err(wrong());
        }
        smallest = seconds;
        total = number.checked_mul(seconds).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    if total == 0 { Err("it must be longer than zero".to_owned()) } else { Ok(Duration::from_secs(total)) }
}

/// How often to look: a duration, or less than a second as `200ms`. From 100 ms to an hour.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let millis = text.trim().strip_suffix("ms").and_then(|number| number.parse().ok()).map(Duration::from_millis);
    let interval = match millis {
        Some(interval) => interval,
        None => duration(text)?,
    };
    if (Duration::from_millis(100)..=Duration::from_hours(1)).contains(&interval) {
        Ok(interval)
    } else {
        Err("it must be from 100ms to 1h".to_owned())
    }
}

/// The parameters of `--params-json`: an object, from the text itself, from `@FILE`, or with `@-` from standard input.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>, Failure> {
    let wrong = |what: &str, why: String| Failure::Usage(format!("--params-json: {what}{why}"));
    let (text, what) = match text.strip_prefix('@') {
        None => (text.to_owned(), String::new()),
        Some("-") => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).map_err(|error| wrong("standard input: ", error.to_string()))?;
            (read, "standard input: ".to_owned())
        }
        Some(file) => {
            let what = format!("{file}: ");
            (std::fs::read_to_string(file).map_err(|error| wrong(&what, error.to_string()))?, what)
        }
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong(&what, "it is no JSON object such as {\"level\": 9}".to_owned())),
        Err(error) => Err(wrong(&what, format!("it is not JSON: {error}"))),
    }
}

/// The value of `--param`. A parameter that is declared as `text` takes the text as it is; others, and those that are
/// not known, are JSON where they can be (`9`, `true`, `"9"`), else text.
pub(crate) fn parameter(text: &str, kind: Option<&str>) -> Value {
    if kind == Some("text") {
        return Value::from(text);
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn durations_read_as_people_write_them() {
        let of = |text: &str| duration(text).unwrap().as_secs();
        assert_eq!(of("90s"), 90);
        assert_eq!(of("10m"), 600);
        assert_eq!(of("10min"), 600);
        assert_eq!(of("1h30m"), 5_400);
        assert_eq!(of(" 2d 1s "), 172_801);
        for text in [
            "",
            "10",
            "m",
            "0s",
            "-1s",
            "1s1h",
            "1m1min",
            "1.5h",
            "1w",
            "99999999999999999999d",
            "9999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_need_a_name_and_may_hold_more_signs() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }

    #[test]
    fn a_value_is_what_its_parameter_is_declared_as() {
        assert_eq!(parameter("9", Some("integer")), json!(9));
        assert_eq!(parameter("9", Some("text")), json!("9"));
        assert_eq!(parameter("true", Some("flag")), json!(true));
        assert_eq!(parameter("9", None), json!(9));
        assert_eq!(parameter("\"9\"", None), json!("9"));
        assert_eq!(parameter("fast", None), json!("fast"));
        assert_eq!(parameter("nine", Some("integer")), json!("nine"));
    }

    #[test]
    fn parameters_come_from_text_or_file_and_must_be_an_object() {
        assert_eq!(object(r#"{"level": 9}"#).unwrap()["level"], json!(9));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("parameters.json");
        std::fs::write(&file, r#"{"level": 8}"#).unwrap();
        assert_eq!(object(&format!("@{}", file.display())).unwrap()["level"], json!(8));
        for (text, wanted) in [("[]", "no JSON object"), ("{", "not JSON"), ("@/nowhere/x", "/nowhere/x")] {
            let error = object(text).unwrap_err();
            assert!(matches!(&error, Failure::Usage(said) if said.contains(wanted)), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[0-9dhmins ]{0,40}|.*") {
            let _ = (duration(&text), pair(&text), parameter(&text, None));
        }
    }
}
