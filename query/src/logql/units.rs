//! Numbers with units: durations as Go writes them, and sizes.

use crate::scalar::Scalar;

/// A duration in seconds: `250ms`, `1h30m`, `1.5d`, `-3s`.
pub(super) fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|end| *end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                "y" => 31_536_000.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(sign * seconds)
}

/// A number of bytes: `10KB` is 10,000, `10KiB` 10,240.
pub(super) fn bytes(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).filter(|end| *end > 0)?;
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "pb" | "p" => 1e15,
        "kib" | "ki" => 1024.0,
        "mib" | "mi" => 1_048_576.0,
        "gib" | "gi" => 1_073_741_824.0,
        "tib" | "ti" => 1_099_511_627_776.0,
        "pib" | "pi" => 1_125_899_906_842_624.0,
        _ => return None,
    };
    Some(number * unit)
}

/// A decimal number, as the index has words for.
pub(super) fn number(text: &str) -> Option<f64> {
    matches!(Scalar::of(text)?, Scalar::Number(_)).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("250ms", Some(0.25)),
            ("1h30m", Some(5400.0)),
            ("1.5s", Some(1.5)),
            ("-2m", Some(-120.0)),
            ("7d", Some(604_800.0)),
            ("10µs", Some(1e-5)),
            ("5", None),
            ("", None),
            ("m", None),
            ("5x", None),
            ("1.2.3s", None),
        ] {
            let read = duration(text);
            assert!(
                read == seconds || (read.unwrap_or(0.0) - seconds.unwrap_or(1.0)).abs() < 1e-12,
                "{text}: {read:?}"
            );
        }
        for (text, size) in [
            ("10B", Some(10.0)),
            ("10KB", Some(10_000.0)),
            ("1.5MiB", Some(1_572_864.0)),
            ("2 kb", Some(2_000.0)),
            ("10", None),
            ("KB", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
        for (text, value) in [("5e2", Some(500.0)), ("-1.5", Some(-1.5)), ("nan", None), ("0x10", None), ("", None)] {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
