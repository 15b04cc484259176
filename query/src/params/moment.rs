//! Times as people type them: RFC 3339, ages, Grafana's `now-1d/d`, days, and counts since 1970. A text without a zone
//! is UTC. The clock is handed in.

use std::ops::RangeInclusive;

use jiff::civil::{DateTime, DateTimeRound};
use jiff::fmt::friendly::SpanParser;
use jiff::tz::TimeZone;
use jiff::{RoundMode, Span, Timestamp, Unit};
use stages::time::{Micros, parse_number, parse_text};

/// Which limit of a time range a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At this time or after.
    Lower,
    /// Before this time. A whole day, `2026-01-31` or `today`, ends with the day, and so does what is rounded to it.
    Upper,
}

/// Why a text is no time. Said to the client as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMoment {
    /// No form that is known.
    #[error(
        "is a time such as 2026-01-31T12:00:00Z, 2026-01-31, 15m (ago), now-1h, now/d, today, or seconds, ms, µs or ns \
         since 1970 (write `+` as %2B)"
    )]
    Unknown,
    /// A number that nobody means as a time.
    #[error("has no unit: write 15m for an age, or seconds, ms, µs or ns since 1970")]
    NoUnit,
    /// A month or a minute.
    #[error("can't tell a month from a minute: write 1mo, 1min, or now-1M")]
    MonthOrMinute,
}

/// Counts of seconds below this, in 1973, are taken for ages without a unit.
const FIRST_SECOND: i64 = 100_000_000;
/// Longest text that is looked at.
const LONGEST: usize = 64;

/// The years 0 to 9999: every store can be asked for a time in them.
const KNOWN: RangeInclusive<Micros> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// The moment that a text stands for; of one beyond all calendars, the nearest.
pub fn read(text: &str, limit: Limit, now: Micros) -> Result<Micros, NoMoment> {
    unbounded(text.trim(), limit, now).map(|moment| moment.clamp(*KNOWN.start(), *KNOWN.end()))
}

fn unbounded(text: &str, limit: Limit, now: Micros) -> Result<Micros, NoMoment> {
    if text.len() > LONGEST {
        return Err(NoMoment::Unknown);
    }
    let clock = civil(now).ok_or(NoMoment::Unknown)?;
    if let Some(day) = day(text, clock) {
        return match limit {
            Limit::Lower => Ok(day),
            Limit::Upper => Ok(day + DAY),
        };
    }
    if let Some(steps) = text.strip_prefix("now") {
        return stepped(clock, steps, limit).and_then(micros).ok_or(NoMoment::Unknown);
    }
    if let Some(count) = parse_number(text) {
        return if count == 0 || count >= FIRST_SECOND * 1_000_000 { Ok(count) } else { Err(NoMoment::NoUnit) };
    }
    if let Some(time) = parse_text(text) {
        return Ok(time);
    }
    let count = text.strip_suffix('M').map(|count| count.trim_start_matches('-'));
    if count.is_some_and(|count| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(NoMoment::MonthOrMinute);
    }
    ago(text, now).ok_or(NoMoment::Unknown)
}

/// The moment that is so long ago: `15m`, `-15m`, `2h30m`, `1 day ago`.
pub fn ago(text: &str, now: Micros) -> Option<Micros> {
    // What has a colon is meant as a time of the day, and not as hours and minutes ago.
    if text.contains([':', '+']) {
        return None;
    }
    let span = SpanParser::new().parse_span(text).ok()?.abs();
    civil(now)?.checked_sub(span).ok().and_then(micros)
}

const DAY: Micros = 86_400 * 1_000_000;

/// The beginning of a day that is named as a whole.
fn day(text: &str, clock: DateTime) -> Option<Micros> {
    match text {
        "today" => micros(clock.start_of_day()),
        "yesterday" => micros(clock.start_of_day().checked_sub(Span::new().days(1)).ok()?),
        // The length of a date without a time.
        _ if text.len() == "2026-01-31".len() && text.contains(['-', '/']) => parse_text(text),
        _ => None,
    }
}

/// A moment after Grafana's steps, such as `-1d/d`.
fn stepped(mut at: DateTime, steps: &str, limit: Limit) -> Option<DateTime> {
    let mut rest = steps;
    while let Some(sign) = rest.chars().next() {
        rest = &rest[sign.len_utf8()..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: i64 = if digits == 0 { 1 } else { rest[..digits].parse().ok()? };
        rest = &rest[digits..];
        let unit = rest.chars().next()?;
        rest = &rest[unit.len_utf8()..];
        at = match sign {
            '-' => at.checked_sub(units(unit, count)?).ok()?,
            // A `+` that was not encoded in a URL is a space.
            '+' | ' ' => at.checked_add(units(unit, count)?).ok()?,
            '/' if digits == 0 => match limit {
                Limit::Lower => beginning(at, unit)?,
                Limit::Upper => beginning(at, unit)?.checked_add(units(unit, 1)?).ok()?,
            },
            _ => return None,
        };
    }
    Some(at)
}

/// So many of Grafana's units.
fn units(unit: char, count: i64) -> Option<Span> {
    let span = Span::new();
    match unit {
        's' => span.try_seconds(count),
        'm' => span.try_minutes(count),
        'h' => span.try_hours(count),
        'd' => span.try_days(count),
        'w' => span.try_weeks(count),
        'M' => span.try_months(count),
        'y' => span.try_years(count),
        _ => return None,
    }
    .ok()
}

/// Where the unit begins that a moment is in. Weeks begin with Monday.
fn beginning(at: DateTime, unit: char) -> Option<DateTime> {
    let cut = |unit| at.round(DateTimeRound::new().smallest(unit).mode(RoundMode::Trunc)).ok();
    match unit {
        's' => cut(Unit::Second),
        'm' => cut(Unit::Minute),
        'h' => cut(Unit::Hour),
        'd' => Some(at.start_of_day()),
        'w' => at.start_of_day().checked_sub(Span::new().days(at.weekday().to_monday_zero_offset())).ok(),
        'M' => Some(at.first_of_month().start_of_day()),
        'y' => Some(at.first_of_year().start_of_day()),
        _ => None,
    }
}

fn civil(time: Micros) -> Option<DateTime> {
    Some(TimeZone::UTC.to_datetime(Timestamp::from_microsecond(time).ok()?))
}

fn micros(time: DateTime) -> Option<Micros> {
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Saturday, 12:34:56.789.
    const NOW: &str = "2026-01-31T12:34:56.789Z";

    fn at(text: &str, limit: Limit) -> Result<String, NoMoment> {
        read(text, limit, parse_text(NOW).unwrap()).map(stages::time::rfc3339)
    }

    fn shown(text: &str) -> String {
        stages::time::rfc3339(parse_text(text).unwrap())
    }

    #[test]
    fn a_time_is_read_as_people_type_it() {
        for (text, lower, upper) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", None),
            ("2026-01-31t14:00:00.5+02:00", "2026-01-31T12:00:00.5Z", None),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z", None),
            ("2026-01-31 12:00", "2026-01-31T12:00:00Z", None),
            ("2026-01-31", "2026-01-31T00:00:00Z", Some("2026-02-01T00:00:00Z")),
            ("2026/01/31", "2026-01-31T00:00:00Z", Some("2026-02-01T00:00:00Z")),
            ("today", "2026-01-31T00:00:00Z", Some("2026-02-01T00:00:00Z")),
            ("yesterday", "2026-01-30T00:00:00Z", Some("2026-01-31T00:00:00Z")),
            ("15m", "2026-01-31T12:19:56.789Z", None),
            ("-15m", "2026-01-31T12:19:56.789Z", None),
            ("15m ago", "2026-01-31T12:19:56.789Z", None),
            ("15 minutes", "2026-01-31T12:19:56.789Z", None),
            ("2h30m", "2026-01-31T10:04:56.789Z", None),
            ("1.5h", "2026-01-31T11:04:56.789Z", None),
            ("90s", "2026-01-31T12:33:26.789Z", None),
            ("7d", "2026-01-24T12:34:56.789Z", None),
            ("1w", "2026-01-24T12:34:56.789Z", None),
            ("1mo", "2025-12-31T12:34:56.789Z", None),
            ("1y", "2025-01-31T12:34:56.789Z", None),
            ("now", NOW, None),
            ("now-1h", "2026-01-31T11:34:56.789Z", None),
            ("now+1h", "2026-01-31T13:34:56.789Z", None),
            ("now 1h", "2026-01-31T13:34:56.789Z", None),
            ("now-1M", "2025-12-31T12:34:56.789Z", None),
            ("now-1d-1h", "2026-01-30T11:34:56.789Z", None),
            ("now-d", "2026-01-30T12:34:56.789Z", None),
            ("now/s", "2026-01-31T12:34:56Z", Some("2026-01-31T12:34:57Z")),
            ("now/m", "2026-01-31T12:34:00Z", Some("2026-01-31T12:35:00Z")),
            ("now/h", "2026-01-31T12:00:00Z", Some("2026-01-31T13:00:00Z")),
            ("now/d", "2026-01-31T00:00:00Z", Some("2026-02-01T00:00:00Z")),
            ("now-1d/d", "2026-01-30T00:00:00Z", Some("2026-01-31T00:00:00Z")),
            ("now/d+9h", "2026-01-31T09:00:00Z", Some("2026-02-01T09:00:00Z")),
            ("now/w", "2026-01-26T00:00:00Z", Some("2026-02-02T00:00:00Z")),
            ("now/M", "2026-01-01T00:00:00Z", Some("2026-02-01T00:00:00Z")),
            ("now/y", "2026-01-01T00:00:00Z", Some("2027-01-01T00:00:00Z")),
            ("1769862896", "2026-01-31T12:34:56Z", None),
            ("1769862896.5", "2026-01-31T12:34:56.5Z", None),
            ("1769862896789", "2026-01-31T12:34:56.789Z", None),
            ("1769862896789123", "2026-01-31T12:34:56.789123Z", None),
            ("1769862896789123456", "2026-01-31T12:34:56.789123Z", None),
            ("0", "1970-01-01T00:00:00Z", None),
            ("9999-12-31", "9999-12-31T00:00:00Z", Some("9999-12-31T23:59:59.999999Z")),
            ("now-9000y", "0000-01-01T00:00:00Z", None),
            (" 2026-01-31T12:00:00Z ", "2026-01-31T12:00:00Z", None),
            ("Sat, 31 Jan 2026 12:00:00 GMT", "2026-01-31T12:00:00Z", None),
        ] {
            assert_eq!(at(text, Limit::Lower), Ok(shown(lower)), "{text}");
            assert_eq!(at(text, Limit::Upper), Ok(shown(upper.unwrap_or(lower))), "{text} as an upper limit");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("", NoMoment::Unknown),
            ("15", NoMoment::NoUnit),
            ("2026", NoMoment::NoUnit),
            ("1M", NoMoment::MonthOrMinute),
            ("-2M", NoMoment::MonthOrMinute),
            ("10:30", NoMoment::Unknown),
            ("10 PM", NoMoment::Unknown),
            ("+15m", NoMoment::Unknown),
            ("tomorrow at noon", NoMoment::Unknown),
            ("now-", NoMoment::Unknown),
            ("now-1", NoMoment::Unknown),
            ("now-1q", NoMoment::Unknown),
            ("now/2d", NoMoment::Unknown),
            ("nowadays", NoMoment::Unknown),
            ("now-99999999999y", NoMoment::Unknown),
            ("99999999999y", NoMoment::Unknown),
            ("2026-13-01", NoMoment::Unknown),
            ("2026-01-31T12:00:00 02:00", NoMoment::Unknown),
            ("12345678é", NoMoment::Unknown),
            (&"1".repeat(40), NoMoment::Unknown),
            (&"x".repeat(100), NoMoment::Unknown),
        ] {
            for limit in [Limit::Lower, Limit::Upper] {
                assert_eq!(at(text, limit), Err(expected), "{text}");
            }
        }
    }
}
