//! Values of arguments, from text.

use std::time::Duration;

use crds::tenant::Scope;
use query::params::moment::{self, Limit};
use stages::time::{Micros, micros, rfc3339};
use time::OffsetDateTime;

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

/// A span of time, such as `15m` or `2h30m`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    // Ten years: beyond all retention.
    const LONGEST: u64 = 3650 * 86_400;
    let now = now();
    let begun = moment::ago(text, now);
    let span = begun.and_then(|begun| Some(Duration::from_micros(u64::try_from(now - begun).ok()?)));
    let fits = |span: &Duration| (1..=LONGEST).contains(&span.as_secs());
    span.filter(fits).ok_or_else(|| format!("`{text}` is not a span of time: use 30s, 15m, 2h30m or 7d"))
}

/// When a time range begins, in any form that the API knows, as RFC 3339: `15m` is one moment, however many pages are
/// asked for.
pub(super) fn moment(text: &str) -> Result<String, String> {
    read(text, Limit::Lower, now())
}

/// When a time range ends: a day ends with the day.
pub(super) fn until(text: &str) -> Result<String, String> {
    read(text, Limit::Upper, now())
}

fn read(text: &str, limit: Limit, now: Micros) -> Result<String, String> {
    moment::read(text, limit, now).map(rfc3339).map_err(|error| format!("`{text}` {error}"))
}

fn now() -> Micros {
    micros(OffsetDateTime::now_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_moment_is_said_as_the_api_knows_it() {
        let now = micros(datetime!(2026-01-31 12:00 UTC));
        for (text, from, to) in [
            ("2026-01-30T12:00:00+01:00", "2026-01-30T11:00:00.000000Z", "2026-01-30T11:00:00.000000Z"),
            ("15m", "2026-01-31T11:45:00.000000Z", "2026-01-31T11:45:00.000000Z"),
            ("yesterday", "2026-01-30T00:00:00.000000Z", "2026-01-31T00:00:00.000000Z"),
        ] {
            assert_eq!(read(text, Limit::Lower, now).as_deref(), Ok(from), "{text}");
            assert_eq!(read(text, Limit::Upper, now).as_deref(), Ok(to), "{text}");
        }
        assert!(read("15", Limit::Lower, now).unwrap_err().starts_with("`15` has no unit"));
    }

    #[test]
    fn a_span_is_a_duration_of_at_most_ten_years() {
        assert_eq!(span("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(span("2h30m"), Ok(Duration::from_secs(9_000)));
        for wrong in ["15", "d", "", "0s", "3651d", "1é", "now", "yesterday", "2026-01-01"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
