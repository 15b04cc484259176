//! Parameters of the Loki API, from names and values to what is asked. Those that are not known are not looked at: each
//! release of Grafana sends further ones.

use stages::time::Micros;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::units;
use super::windows::Windows;

/// Lines that are answered with if the client does not say how many.
pub const DEFAULT_LIMIT: usize = 100;
/// Most lines of an answer.
pub const MAX_LIMIT: usize = 5000;
/// Most steps of a metric query.
pub const MAX_STEPS: i64 = 11_000;
/// How far back a question without a start goes, in nanoseconds.
const SINCE: i64 = 3600 * 1_000_000_000;

/// Why a parameter can't be used. Said to the client as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidParam(String);

/// Names and values, as they were sent.
pub type Pairs = [(String, String)];

/// From when to when, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From.
    pub start: i64,
    /// Up to.
    pub end: i64,
}

impl Span {
    /// The events of a question for lines: at `start` or after, and before `end`. Rounded up, both: a client goes on
    /// with the last time that it was told, or with a nanosecond after it.
    pub fn micros(self) -> (Micros, Micros) {
        (ceil(self.start), ceil(self.end))
    }
}

fn ceil(nanos: i64) -> Micros {
    nanos.div_euclid(1000) + i64::from(nanos.rem_euclid(1000) > 0)
}

/// The first value of a parameter; an empty one is none.
pub fn one<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs.iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// The values of a parameter under any of these names.
pub fn several<'a>(pairs: &'a Pairs, names: &[&str]) -> Vec<&'a str> {
    let found = pairs.iter().filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
    found.map(|(_, value)| value.as_str()).collect()
}

/// The query.
pub fn query(pairs: &Pairs) -> Result<&str, InvalidParam> {
    one(pairs, "query").ok_or_else(|| InvalidParam("parse error : parameter `query` is missing".to_owned()))
}

/// From when to when; `now` is in nanoseconds.
pub fn span(pairs: &Pairs, now: i64) -> Result<Span, InvalidParam> {
    let end = time(pairs, "end")?.unwrap_or(now);
    let since = match one(pairs, "since") {
        Some(text) => nanos(units::duration(text).ok_or_else(|| wrong("since", text, "a duration such as 1h"))?),
        None => SINCE,
    };
    let start = time(pairs, "start")?.unwrap_or_else(|| end.min(now).saturating_sub(since));
    if end < start {
        return Err(InvalidParam("end timestamp must not be before or equal to start time".to_owned()));
    }
    Ok(Span { start, end })
}

/// The moment of an instant query.
pub fn moment(pairs: &Pairs, now: i64) -> Result<i64, InvalidParam> {
    // Old clients say `start`.
    Ok(time(pairs, "time")?.or(time(pairs, "start")?).unwrap_or(now))
}

/// From when a tail tells of what was before.
pub fn tail_start(pairs: &Pairs, now: i64) -> Result<i64, InvalidParam> {
    Ok(time(pairs, "start")?.or(time(pairs, "from")?).unwrap_or_else(|| now.saturating_sub(SINCE)))
}

/// How many lines.
pub fn limit(pairs: &Pairs) -> Result<usize, InvalidParam> {
    let Some(text) = one(pairs, "limit") else { return Ok(DEFAULT_LIMIT) };
    let limit: i64 = text.parse().map_err(|_| wrong("limit", text, "a whole number"))?;
    match usize::try_from(limit).ok().filter(|limit| *limit > 0) {
        None => Err(InvalidParam("limit must be a positive value".to_owned())),
        Some(limit) if limit > MAX_LIMIT => Err(InvalidParam(format!(
            "max entries limit per query exceeded, limit > max_entries_limit ({limit} > {MAX_LIMIT})"
        ))),
        Some(limit) => Ok(limit),
    }
}

/// Whether the oldest lines come first.
pub fn forward(pairs: &Pairs) -> Result<bool, InvalidParam> {
    match one(pairs, "direction").map(str::to_ascii_lowercase).as_deref() {
        None | Some("backward") => Ok(false),
        Some("forward") => Ok(true),
        Some(other) => Err(InvalidParam(format!("invalid direction '{other}'"))),
    }
}

/// The steps of a metric query over a time.
pub fn windows(pairs: &Pairs, span: Span) -> Result<Windows, InvalidParam> {
    const SECOND: i64 = 1_000_000_000;
    let step = match one(pairs, "step") {
        None => (span.end.saturating_sub(span.start) / 250 / SECOND).max(1) * SECOND,
        Some(text) => {
            let seconds = text.parse().ok().filter(|seconds: &f64| seconds.is_finite());
            let seconds = seconds.or_else(|| units::duration(text));
            nanos(seconds.ok_or_else(|| wrong("step", text, "a duration such as 30s, or a number of seconds"))?)
        }
    };
    if step <= 0 {
        return Err(InvalidParam(
            "zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned(),
        ));
    }
    if span.end.saturating_sub(span.start) / step > MAX_STEPS {
        return Err(InvalidParam(
            "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter"
                .to_owned(),
        ));
    }
    Ok(Windows::over(span.start, span.end, step))
}

/// A time in nanoseconds: seconds with a fraction, seconds of at most ten digits, nanoseconds, or RFC 3339.
fn time(pairs: &Pairs, name: &str) -> Result<Option<i64>, InvalidParam> {
    let Some(text) = one(pairs, name) else { return Ok(None) };
    let number = match text.parse::<i64>() {
        Ok(seconds) if text.trim_start_matches('-').len() <= 10 => seconds.checked_mul(1_000_000_000),
        Ok(nanos) => Some(nanos),
        Err(_) => {
            let seconds = text.parse::<f64>().ok().filter(|seconds| text.contains('.') && seconds.abs() < 9e9);
            seconds.map(nanos)
        }
    };
    let in_text = || OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos().try_into().ok();
    let time = number.or_else(in_text);
    time.map(Some).ok_or_else(|| wrong(name, text, "a time in nanoseconds, or such as 2026-01-31T12:00:00Z"))
}

fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}

fn wrong(name: &str, text: &str, expected: &str) -> InvalidParam {
    let shown: String = text.chars().take(64).collect();
    InvalidParam(format!("parameter `{name}`: `{shown}` is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const NOW: i64 = 1_764_240_000_000_000_000;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, expected) in [
            ("1764240000000000001", 1_764_240_000_000_000_001),
            ("4000000000", 4_000_000_000_000_000_000),
            ("1764240000", NOW),
            ("1764240000.5", NOW + 500_000_000),
            ("2025-11-27T10:40:00Z", NOW),
            ("2025-11-27T10:40:00.000000001Z", NOW + 1),
            ("2025-11-27T11:40:00+01:00", NOW),
        ] {
            assert_eq!(moment(&pairs(&[("time", text)]), 5), Ok(expected), "{text}");
            assert_eq!(moment(&pairs(&[("start", text)]), 5), Ok(expected), "{text}");
        }
        for text in ["yesterday", "2025-11-27", "1e99", "99999999999999999999"] {
            assert!(moment(&pairs(&[("time", text)]), 5).is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_is_the_last_hour_unless_it_is_said() {
        let hour = 3600 * 1_000_000_000;
        assert_eq!(span(&[], NOW), Ok(Span { start: NOW - hour, end: NOW }));
        assert_eq!(span(&pairs(&[("since", "2h"), ("end", "")]), NOW), Ok(Span { start: NOW - 2 * hour, end: NOW }));
        let later = pairs(&[("end", "4000000000")]);
        assert_eq!(span(&later, NOW).unwrap().start, NOW - hour, "an end in the future moves no start");
        let turned = pairs(&[("start", "1764240000"), ("end", "1764239999")]);
        assert!(span(&turned, NOW).unwrap_err().to_string().contains("must not be before"));
        let exact = Span { start: 5000, end: 6001 };
        assert_eq!(exact.micros(), (5, 7));
        assert_eq!(Span { start: 5001, end: 6000 }.micros(), (6, 6));
    }

    #[test]
    fn numbers_are_bounded_in_the_words_that_clients_look_for() {
        let limit = |text: &str| limit(&pairs(&[("limit", text)]));
        assert_eq!((limit(""), limit("5000"), limit("1")), (Ok(100), Ok(5000), Ok(1)));
        assert_eq!(limit("0").unwrap_err().to_string(), "limit must be a positive value");
        assert_eq!(limit("-1").unwrap_err().to_string(), "limit must be a positive value");
        assert_eq!(
            limit("10000").unwrap_err().to_string(),
            "max entries limit per query exceeded, limit > max_entries_limit (10000 > 5000)"
        );
        let step = |text: &str| windows(&pairs(&[("step", text)]), Span { start: 0, end: 3_600_000_000_000 });
        for (text, steps) in [("", 258), ("60", 61), ("15000ms", 241), ("1m", 61), ("0.5", 7201)] {
            assert_eq!(step(text).unwrap().count, steps, "{text}");
        }
        assert!(step("1ms").unwrap_err().to_string().contains("11,000 points"));
        assert!(step("0").is_err() && step("-5").is_err() && step("x").is_err());
        for (text, expected) in [("", Ok(false)), ("BACKWARD", Ok(false)), ("forward", Ok(true))] {
            assert_eq!(forward(&pairs(&[("direction", text)])), expected);
        }
        assert!(forward(&pairs(&[("direction", "up")])).is_err());
        assert_eq!(several(&pairs(&[("match[]", "a"), ("match", "b")]), &["match[]", "match"]), ["a", "b"]);
    }
}
