//! Numbers for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forecastle_protos::v1;
use forecastle_resources::Bytes;

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time span from milliseconds: `850 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn span(millis: u64) -> String {
    let (seconds, minutes, hours) = (millis / 1000, millis / 60_000, millis / 3_600_000);
    match millis {
        0..1_000 => format!("{millis} ms"),
        // Not rounded up to 60.0.
        1_000..60_000 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60_000..3_600_000 => format!("{minutes} min {} s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// A time span from fractional milliseconds, as forecasts have them.
pub(crate) fn span_f64(millis: f64) -> String {
    span(whole(millis))
}

/// The nearest whole number; nonsense is zero.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float-to-integer casts saturate and map NaN to zero, which is what is documented"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// CPU from thousandths of a core: `1 core`, `0.5 cores`, `1.25 cores`.
pub(crate) fn cores(millis: f64) -> String {
    let text = format!("{:.2}", whole(millis) as f64 / 1000.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "1" { "1 core".to_owned() } else { format!("{text} cores") }
}

/// Memory or data: `64 MiB`, `1.5 GiB`, `0 B`; at most one decimal.
pub(crate) fn bytes(value: u64) -> String {
    let units = [("TiB", Bytes::gib(1024)), ("GiB", Bytes::gib(1)), ("MiB", Bytes::mib(1)), ("KiB", Bytes::kib(1))];
    for (name, unit) in units {
        if value >= unit.get() {
            let text = format!("{:.1}", value as f64 / unit.get() as f64);
            return format!("{} {name}", text.strip_suffix(".0").unwrap_or(&text));
        }
    }
    format!("{value} B")
}

/// Memory or data in as few characters as a column has: `512M`, `3.1G`, `0`.
pub(crate) fn brief_bytes(value: u64) -> String {
    let units = [("T", Bytes::gib(1024)), ("G", Bytes::gib(1)), ("M", Bytes::mib(1)), ("K", Bytes::kib(1))];
    for (name, unit) in units {
        if value >= unit.get() {
            let amount = value as f64 / unit.get() as f64;
            let text = if amount < 9.95 { format!("{amount:.1}") } else { format!("{amount:.0}") };
            return format!("{}{name}", text.strip_suffix(".0").unwrap_or(&text));
        }
    }
    value.to_string()
}

/// CPU in as few characters as a column has: `0.25`, `2`, `96`, in cores.
pub(crate) fn brief_cores(millis: u64) -> String {
    let cores = millis as f64 / 1000.0;
    let text = if millis < 10_000 { format!("{cores:.2}") } else { format!("{cores:.0}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Memory or data from a forecast.
pub(crate) fn bytes_f64(value: f64) -> String {
    bytes(whole(value))
}

/// `used` as a share of `whole`: `93 %`; nothing of nothing has no share.
pub(crate) fn percent(used: f64, whole_of: f64) -> Option<String> {
    (whole_of > 0.0 && used.is_finite()).then(|| match whole(used / whole_of * 100.0) {
        0 if used > 0.0 => "under 1 %".to_owned(),
        share => format!("{share} %"),
    })
}

/// A probability as a quantile's name: `p95`, `p99.9`.
pub(crate) fn quantile(probability: f64) -> String {
    let text = format!("{:.1}", probability * 100.0);
    format!("p{}", text.strip_suffix(".0").unwrap_or(&text))
}

/// What a vector holds, without what it holds nothing of: `1 core, 512 MiB, 10 MiB/s, 5 GiB scratch, 2 gpu`.
pub(crate) fn vector(vector: &v1::ResourceVector) -> String {
    let mut parts = vec![cores(f64::from(vector.cpu_millis)), bytes(vector.memory_bytes)];
    if vector.io_bytes_per_second > 0 {
        parts.push(format!("{}/s", bytes(vector.io_bytes_per_second)));
    }
    if vector.scratch_bytes > 0 {
        parts.push(format!("{} scratch", bytes(vector.scratch_bytes)));
    }
    parts.extend(
        vector.named.iter().filter(|(_, amount)| **amount > 0).map(|(name, amount)| format!("{amount} {name}")),
    );
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let pairs = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (7_500_000, "2 h 5 min"),
            (86_400_000 * 3 + 3_600_000 * 4, "3 d 4 h"),
        ];
        for (millis, text) in pairs {
            assert_eq!(span(millis), text);
        }
        assert!(!span(u64::MAX).is_empty());
    }

    #[test]
    fn amounts_read_well_and_nonsense_does_not_panic() {
        assert_eq!(cores(1000.0), "1 core");
        assert_eq!(cores(500.0), "0.5 cores");
        assert_eq!(cores(1250.4), "1.25 cores");
        assert_eq!(cores(0.0), "0 cores");
        assert_eq!(bytes(Bytes::mib(64).get()), "64 MiB");
        assert_eq!(bytes(Bytes::mib(1536).get()), "1.5 GiB");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(quantile(0.95), "p95");
        assert_eq!(quantile(0.999), "p99.9");
        assert_eq!(percent(93.0, 100.0).as_deref(), Some("93 %"));
        assert_eq!(percent(1.0, 1000.0).as_deref(), Some("under 1 %"));
        assert_eq!(percent(0.0, 1000.0).as_deref(), Some("0 %"));
        assert_eq!(percent(1.0, 0.0), None);
        for nonsense in [f64::NAN, f64::INFINITY, -1.0] {
            let _ =
                (cores(nonsense), bytes_f64(nonsense), span_f64(nonsense), quantile(nonsense), percent(nonsense, 1.0));
        }
    }

    #[test]
    fn brief_amounts_take_at_most_five_characters() {
        let pairs =
            [(0, "0"), (1023, "1023"), (1 << 10, "1K"), (1536 << 20, "1.5G"), (512 << 20, "512M"), (64 << 30, "64G")];
        for (amount, text) in pairs {
            assert_eq!(brief_bytes(amount), text);
        }
        for (millis, text) in
            [(0, "0"), (4, "0"), (5, "0.01"), (250, "0.25"), (1500, "1.5"), (2000, "2"), (96_000, "96")]
        {
            assert_eq!(brief_cores(millis), text);
        }
        for amount in [9 << 10, 1_047_552, 10_485_759, 1 << 40, 999 << 30] {
            assert!(brief_bytes(amount).len() <= 5, "{}", brief_bytes(amount));
        }
    }

    #[test]
    fn a_vector_names_what_it_holds() {
        let mut held = v1::ResourceVector { cpu_millis: 500, memory_bytes: 1 << 29, ..Default::default() };
        assert_eq!(vector(&held), "0.5 cores, 512 MiB");
        held.io_bytes_per_second = 10 << 20;
        held.scratch_bytes = 5 << 30;
        held.named = [("gpu".to_owned(), 2), ("licence".to_owned(), 0)].into();
        assert_eq!(vector(&held), "0.5 cores, 512 MiB, 10 MiB/s, 5 GiB scratch, 2 gpu");
    }
}
