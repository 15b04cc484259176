//! Parameters of `GET /api/usage`.

use api::usage::{By, Form};
use stages::time::Micros;

use super::{InvalidParams, once, read_span, say_known, unknown};

const DAY: Micros = 24 * 3600 * 1_000_000;
/// How far back is looked unless the client says.
const USUAL: Micros = 30 * DAY;

/// What usage is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuestion {
    /// Accepted at this time or after.
    pub from: Micros,
    /// Accepted before this time.
    pub to: Micros,
    /// Summed up by.
    pub by: By,
    /// How to answer.
    pub form: Form,
}

/// Reads the parameters. The time ends `now` unless it is said, and begins no earlier than events are kept, which is for
/// `kept_days`.
pub fn read(pairs: &[(String, String)], now: Micros, kept_days: i32) -> Result<UsageQuestion, InvalidParams> {
    let (mut from, mut to, mut by, mut form) = (None, None, None, None);
    for (name, value) in pairs {
        match name.as_str() {
            "from" | "since" | "to" => read_span(&mut from, &mut to, name, value, now)?,
            "by" => {
                let read = By::of(value);
                let read = read.ok_or_else(|| InvalidParams::of(name, "is one of hour, day, key, service"))?;
                once(&mut by, name, read)?;
            }
            "format" => {
                let read = match value.as_str() {
                    "json" => Form::Json,
                    "csv" => Form::Csv,
                    _ => return Err(InvalidParams::of(name, "is one of json, csv")),
                };
                once(&mut form, name, read)?;
            }
            _ => return Err(say_known(unknown(name), "from, to, since, by, format")),
        }
    }
    let by = by.unwrap_or_default();
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| {
        to.saturating_sub(if by == By::Hour { DAY } else { USUAL }.min(Micros::from(kept_days) * DAY))
    });
    Ok(UsageQuestion { from, to, by, form: form.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_767_323_045_000_000;

    fn asked(text: &str) -> Result<UsageQuestion, String> {
        let pairs: Vec<_> = text
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        read(&pairs, NOW, 365).map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_thirty_days_by_day_unless_it_is_said() {
        let whole = UsageQuestion { from: NOW - 30 * DAY, to: NOW, by: By::Day, form: Form::Json };
        assert_eq!(asked(""), Ok(whole));
        assert_eq!(
            asked("by=hour&format=csv"),
            Ok(UsageQuestion { from: NOW - DAY, by: By::Hour, form: Form::Csv, ..whole })
        );
        let to = "to=2026-01-02T00:00:00Z";
        let day = 1_767_312_000_000_000;
        assert_eq!(
            asked(&format!("from=2026-01-01T00:00:00Z&{to}&by=key")),
            Ok(UsageQuestion { from: day - DAY, to: day, by: By::Key, form: Form::Json })
        );
    }

    #[test]
    fn what_can_not_be_answered_is_refused() {
        for (text, why) in [
            ("by=week", "parameter `by`: is one of hour, day, key, service"),
            ("format=xml", "parameter `format`: is one of json, csv"),
            ("limit=5", "parameter `limit`: is unknown; known are from, to, since, by, format"),
            ("by=day&by=key", "parameter `by`: may stand only once"),
        ] {
            assert_eq!(asked(text), Err(why.to_owned()), "{text}");
        }
    }
}
