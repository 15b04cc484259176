//! Values of arguments, from text.

use std::time::Duration;

use crds::tenant::Scope;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A scope, in any case.
pub(super) fn scope(text: &str) -> Result<Scope, String> {
    let all = [("ingest", Scope::Ingest), ("query", Scope::Query), ("admin", Scope::Admin)];
    let found = all.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, scope)| scope).ok_or_else(|| "use Ingest, Query or Admin".to_owned())
}

/// A Secret as `NAMESPACE/NAME`.
pub(super) fn secret(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("use NAMESPACE/NAME, such as acme/loggerhub-key".to_owned()),
    }
}

/// A number of seconds, minutes, hours or days, such as `15m`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a span of time: use 30s, 15m, 2h or 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    // Ten years: beyond all retention, and far from any overflow.
    let count = text[..text.len() - 1].parse::<u32>().map_err(|_| wrong())?;
    let whole = u64::from(count) * seconds;
    if (1..=3650 * 86_400).contains(&whole) { Ok(Duration::from_secs(whole)) } else { Err(wrong()) }
}

/// An RFC 3339 time, or one so long ago, as the API wants it.
pub(super) fn moment(text: &str) -> Result<String, String> {
    moment_at(text, OffsetDateTime::now_utc())
}

fn moment_at(text: &str, now: OffsetDateTime) -> Result<String, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| span(text).ok().map(|span| now - span));
    let time = time.ok_or_else(|| {
        format!("`{text}` is neither a time such as 2026-01-31T12:00:00Z nor an age such as 15m, 2h or 7d")
    })?;
    time.format(&Rfc3339).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        let now = datetime!(2026-01-31 12:00 UTC);
        for (text, expected) in [
            ("2026-01-30T12:00:00+01:00", Some("2026-01-30T12:00:00+01:00")),
            ("15m", Some("2026-01-31T11:45:00Z")),
            ("7d", Some("2026-01-24T12:00:00Z")),
            ("15", None),
            ("d", None),
            ("", None),
            ("3651d", None),
            ("1é", None),
        ] {
            assert_eq!(moment_at(text, now).ok().as_deref(), expected, "{text}");
        }
    }
}
