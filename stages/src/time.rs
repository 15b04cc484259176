//! Times as senders write them, brought to microseconds since 1970, UTC.

mod shown;

pub use shown::{Micros, date_time, micros, rfc3339};

use time::format_description::BorrowedFormatItem;
use time::macros::{datetime, format_description};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::json::Value;

/// Earliest time that we believe: before it, a clock was not set.
const EARLIEST: i64 = datetime!(1990-01-01 0:00 UTC).unix_timestamp() * MICROS_PER_SECOND;
/// How far behind acceptance a sender's zone or clock may put it.
const LATEST_AHEAD: i64 = 24 * 3600 * MICROS_PER_SECOND;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Whether an event accepted at `accepted_at` may have happened then.
pub fn is_plausible(time: i64, accepted_at: i64) -> bool {
    (EARLIEST..=accepted_at.saturating_add(LATEST_AHEAD)).contains(&time)
}

/// The time in a JSON value: a string of a known form, or a number.
pub(crate) fn parse(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => parse_text(text),
        Value::Number(number) => parse_number(number.as_str()),
        _ => None,
    }
}

/// The time in a text: RFC 3339 and its looser relatives, RFC 2822, the forms of web servers'
/// logs, or digits. A text without a zone is UTC; anything below a microsecond is cut off.
pub fn parse_text(text: &str) -> Option<i64> {
    let text = text.trim();
    // The longest form takes some 40 bytes; longer text is no time, and is not looked at.
    if text.len() > 64 || !text.is_ascii() {
        return None;
    }
    parse_iso(text).or_else(|| parse_number(text)).or_else(|| parse_named_month(text))
}

/// `2026-01-02T03:04:05.123456789+01:00`, `2026-01-02 03:04:05,123`, `2026/01/02 03:04:05Z`,
/// `2026-01-02`: written by hand, because nearly every event comes this way.
fn parse_iso(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| -> Option<i32> {
        bytes
            .get(from..from + count)?
            .iter()
            .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i32::from(byte - b'0')))
    };
    let separator = *bytes.get(4)?;
    if !matches!(separator, b'-' | b'/') || bytes.get(7) != Some(&separator) {
        return None;
    }
    let month = u8::try_from(digits(5, 2)?).ok()?.try_into().ok()?;
    let date = Date::from_calendar_date(digits(0, 4)?, month, u8::try_from(digits(8, 2)?).ok()?).ok()?;
    let Some(between) = bytes.get(10) else {
        return Some(micros(date.midnight().assume_utc()));
    };
    if !matches!(between, b'T' | b't' | b' ' | b'_') || bytes.get(13) != Some(&b':') {
        return None;
    }
    let (hour, minute) = (digits(11, 2)?, digits(14, 2)?);
    let mut at = 16;
    let mut second = 0;
    if bytes.get(at) == Some(&b':') {
        // A leap second is the last microsecond of its minute, as in RFC 3339's own advice.
        second = digits(at + 1, 2)?;
        at += 3;
    }
    let mut micro = 0;
    if matches!(bytes.get(at), Some(b'.' | b',')) {
        at += 1;
        let fraction = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        micro = (0..6).fold(0, |number, place| {
            number * 10 + if place < fraction { u32::from(bytes[at + place] - b'0') } else { 0 }
        });
        at += fraction;
    }
    if second == 60 {
        (second, micro) = (59, 999_999);
    }
    let time =
        Time::from_hms_micro(u8::try_from(hour).ok()?, u8::try_from(minute).ok()?, u8::try_from(second).ok()?, micro)
            .ok()?;
    let offset = parse_offset(text.get(at..)?.trim_start())?;
    Some(micros(PrimitiveDateTime::new(date, time).assume_offset(offset)))
}

/// Nothing, `Z`, `UTC`, `GMT`, `+01`, `+0100` or `+01:00`.
fn parse_offset(text: &str) -> Option<UtcOffset> {
    if matches!(text, "" | "Z" | "z" | "UTC" | "GMT") {
        return Some(UtcOffset::UTC);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i8>().ok()?, 0),
        4 => (digits[..2].parse::<i8>().ok()?, digits[2..].parse::<i8>().ok()?),
        _ => return None,
    };
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

/// The time in a number's text, of seconds, milliseconds, microseconds or nanoseconds since 1970: digits with an
/// optional fraction. The unit follows from the size, which no two units share between 1973 and 5138.
pub fn parse_number(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return exponent(text);
    }
    let (per_unit, places): (fn(i128) -> i128, u32) = match whole.trim_start_matches('0').len() {
        ..=11 => (|n| n * 1_000_000, 6),
        12..=14 => (|n| n * 1_000, 3),
        15..=17 => (|n| n, 0),
        18..=20 => (|n| n / 1_000, 0),
        _ => return None,
    };
    let mut micros = per_unit(whole.parse().ok()?);
    for (place, digit) in fraction.bytes().take(places as usize).enumerate() {
        micros += i128::from(digit - b'0') * 10_i128.pow(places - 1 - place as u32);
    }
    i64::try_from(micros).ok()
}

/// `1.7e9`: how some JSON writers print a large float.
fn exponent(text: &str) -> Option<i64> {
    if !text.contains(['e', 'E']) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    // Below 10^20 a float prints without an exponent.
    (0.0..1e20).contains(&number).then(|| parse_number(&format!("{number}"))).flatten()
}

/// `Fri, 02 Jan 2026 03:04:05 +0100`, `02/Jan/2026:03:04:05 +0100`, `Fri Jan  2 03:04:05 2026`.
fn parse_named_month(text: &str) -> Option<i64> {
    const WEB: &[BorrowedFormatItem<'_>] = format_description!(
        "[day padding:none]/[month repr:short]/[year]:[hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    const MAIL: &[BorrowedFormatItem<'_>] = format_description!(
        "[optional [[weekday repr:short], ]][day padding:none] [month repr:short] [year] [hour]:[minute]:[second]"
    );
    const C: &[BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:none] [hour]:[minute]:[second][optional [.[subsecond]]] [year]"
    );
    let single_spaced = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if let Ok(time) = OffsetDateTime::parse(&single_spaced, WEB) {
        return Some(micros(time));
    }
    if let Ok(time) = PrimitiveDateTime::parse(&single_spaced, C) {
        return Some(micros(time.assume_utc()));
    }
    let (without_zone, zone) = single_spaced.rsplit_once(' ')?;
    let offset = parse_offset(zone)?;
    Some(micros(PrimitiveDateTime::parse(without_zone, MAIL).ok()?.assume_offset(offset)))
}

/// `Oct  9 03:04:05`, which names no year, in this one, UTC.
pub(crate) fn micros_of_day_in_year(text: &str, year: i32) -> Option<i64> {
    const DAY: &[BorrowedFormatItem<'_>] =
        format_description!("[month repr:short] [day padding:none] [hour]:[minute]:[second] [year]");
    let (month, rest) = text.split_at_checked(4)?;
    let dated = format!("{month}{} {year:04}", rest.strip_prefix(' ').unwrap_or(rest));
    Some(micros(PrimitiveDateTime::parse(&dated, DAY).ok()?.assume_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_the_forms_that_senders_use() {
        let base = datetime!(2026-01-02 03:04:05 UTC).unix_timestamp() * MICROS_PER_SECOND;
        for (sent, expected) in [
            ("2026-01-02T03:04:05Z", base),
            ("2026-01-02t03:04:05z", base),
            ("2026-01-02T03:04:05.1Z", base + 100_000),
            ("2026-01-02T03:04:05.123456Z", base + 123_456),
            ("2026-01-02T03:04:05.123456999Z", base + 123_456),
            ("2026-01-02T04:04:05+01:00", base),
            ("2026-01-01T21:34:05-0530", base),
            ("2026-01-02T04:04:05+01", base),
            ("2026-01-02 03:04:05", base),
            ("2026-01-02 03:04:05,123", base + 123_000),
            ("2026-01-02 03:04:05.123 UTC", base + 123_000),
            ("2026-01-02 03:04:05 +0000", base),
            ("2026/01/02 03:04:05", base),
            ("2026-01-02T03:04Z", base - 5 * MICROS_PER_SECOND),
            ("2026-01-02", base - (3 * 3600 + 4 * 60 + 5) * MICROS_PER_SECOND),
            ("2026-01-02T03:04:60Z", base + 54_999_999),
            ("  2026-01-02T03:04:05Z ", base),
            ("1767323045", base),
            ("1767323045.5", base + 500_000),
            ("1767323045123", base + 123_000),
            ("1767323045123.25", base + 123_250),
            ("1767323045123456", base + 123_456),
            ("1767323045123456789", base + 123_456),
            ("1.767323045e9", base),
            ("1.767323045123e+12", base + 123_000),
            ("Fri, 02 Jan 2026 03:04:05 GMT", base),
            ("Fri, 2 Jan 2026 04:04:05 +0100", base),
            ("02 Jan 2026 03:04:05 +0000", base),
            ("02/Jan/2026:03:04:05 +0000", base),
            ("Fri Jan  2 03:04:05 2026", base),
            ("Fri Jan 02 03:04:05.123456 2026", base + 123_456),
        ] {
            assert_eq!(parse_text(sent), Some(expected), "{sent}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for sent in [
            "",
            "now",
            "yesterday at noon",
            "2026-13-01",
            "2026-02-30T00:00:00Z",
            "2026-01-02T25:00:00Z",
            "2026-01-02T03:04:05X",
            "2026-01-02T03:04:05+1",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T3:4:5Z",
            "2026-01/02",
            "-5",
            "1e400",
            "123456789012345678901",
            "２０２６-01-02",
            "2026-01-02T03:04:05+99:00",
            "1.2.3",
            ".5",
            &"1".repeat(100),
        ] {
            assert_eq!(parse_text(sent), None, "{sent}");
        }
    }

    #[test]
    fn numbers_and_only_numbers_are_times_too() {
        assert_eq!(parse(&serde_json::json!(1_767_323_045).into()), Some(1_767_323_045_000_000));
        assert_eq!(parse(&serde_json::json!(1_767_323_045.25).into()), Some(1_767_323_045_250_000));
        assert_eq!(parse(&serde_json::json!(0).into()), Some(0));
        for value in
            [serde_json::json!(-1), serde_json::json!(true), serde_json::json!([1]), serde_json::json!({"a": 1})]
        {
            assert_eq!(parse(&value.clone().into()), None, "{value}");
        }
    }

    #[test]
    fn an_absurd_time_is_not_believed() {
        let accepted = 1_767_323_045_000_000;
        for (time, expected) in [
            (accepted, true),
            (accepted + LATEST_AHEAD, true),
            (accepted + LATEST_AHEAD + 1, false),
            (EARLIEST, true),
            (EARLIEST - 1, false),
            (0, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(is_plausible(time, accepted), expected, "{time}");
        }
    }
}
