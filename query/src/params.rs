//! Parameters of a list or a search, from the URL's query string to checked values.

pub mod counting;
pub mod context;
pub mod export;
pub mod letters;
pub mod usage;
pub mod moment;
pub mod tail;

use api::parameters::{DEFAULT_LIMIT, MAX_CHOICES, MAX_LIMIT, MAX_VALUE, Order};

use crate::cursor::{Asked, Cursor, InvalidCursor};
use crate::expression::{Clause, Field, Pattern, Query};
use crate::filters::Page;
use crate::parse::{QueryError, parse};
use moment::Limit;
use stages::time::Micros;

/// Why a request's parameters can't be used. Said to the client as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParams {
    /// A parameter that is not known, or a value that it can't have.
    #[error("parameter `{name}`: {why}")]
    Parameter {
        /// The parameter.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cursor.
    #[error(transparent)]
    Cursor(#[from] InvalidCursor),
    /// The query.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl InvalidParams {
    /// A query string that is not one.
    pub fn unreadable(why: &str) -> Self {
        Self::of("?", why)
    }

    /// A value that a parameter can't have, which shows only when the stores were asked.
    pub fn parameter(name: &str, why: impl Into<String>) -> Self {
        Self::of(name, why)
    }

    fn of(name: &str, why: impl Into<String>) -> Self {
        Self::Parameter { name: name.chars().take(64).collect(), why: why.into() }
    }
}

/// Parameters of `GET /api/logs`; `now` is what relative times are relative to.
pub fn list(pairs: &[(String, String)], now: Micros) -> Result<Page, InvalidParams> {
    page("logs", pairs, now, &format!("{PAGE}, text"), |page, name, value| match name {
        "text" => once(&mut page.query, name, message_holds(bounded(name, value)?)),
        _ => Err(unknown(name)),
    })
}

/// A plain text, whatever its letters, as a query for just that.
fn message_holds(text: String) -> Query {
    Query::Clause(Clause { field: Field::Message, pattern: Pattern::Phrase(text) })
}

/// Parameters of `GET /api/search`.
pub fn search(pairs: &[(String, String)], now: Micros) -> Result<Page, InvalidParams> {
    let page = page("search", pairs, now, &format!("q, {PAGE}"), |page, name, value| match name {
        "q" => once(&mut page.query, name, parse(value)?),
        _ => Err(unknown(name)),
    })?;
    if page.query.is_none() {
        return Err(InvalidParams::of("q", "is missing: say what to search for"));
    }
    Ok(page)
}

/// Parameters of `GET /api/explain`: the query.
pub fn explain(pairs: &[(String, String)]) -> Result<String, InvalidParams> {
    let mut query = None;
    for (name, value) in pairs {
        match name.as_str() {
            "q" => once(&mut query, name, value.clone())?,
            _ => return Err(say_known(unknown(name), "q")),
        }
    }
    query.ok_or_else(|| InvalidParams::of("q", "is missing: say what to explain"))
}

/// Parameters of `GET /api/batches/{id}`: the receipt that came with the batch's 202.
pub fn batch(pairs: &[(String, String)]) -> Result<Option<String>, InvalidParams> {
    let mut receipt = None;
    for (name, value) in pairs {
        match name.as_str() {
            "receipt" => once(&mut receipt, name, value.clone())?,
            _ => return Err(say_known(unknown(name), "receipt")),
        }
    }
    Ok(receipt)
}

/// Of a route that has none.
pub fn none(pairs: &[(String, String)]) -> Result<(), InvalidParams> {
    match pairs.first() {
        None => Ok(()),
        Some((name, _)) => Err(InvalidParams::of(name, "is unknown; this route has none")),
    }
}

/// Parameters that lists of events have.
const PAGE: &str = "limit, cursor, order, service, level, from, to, since";

/// Parameters that both have; `own` reads the others. `known` is what an unknown one is answered with.
fn page(
    route: &str,
    pairs: &[(String, String)],
    now: Micros,
    known: &str,
    own: impl Fn(&mut Page, &str, &str) -> Result<(), InvalidParams>,
) -> Result<Page, InvalidParams> {
    let asked = Asked::of(route, pairs);
    let mut page = Page { asked, ..Page::default() };
    let (mut limit, mut order) = (None, None);
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => once(&mut limit, name, read_limit(value)?)?,
            "cursor" => once(&mut page.after, name, Cursor::decode(value, asked)?)?,
            "order" => once(&mut order, name, read_order(value)?)?,
            "from" | "since" | "to" => read_span(&mut page.filters.from, &mut page.filters.to, name, value, now)?,
            "service" => choices(&mut page.filters.services, name, value)?,
            "level" => choices(&mut page.filters.levels, name, value)?,
            other => own(&mut page, other, value).map_err(|error| say_known(error, known))?,
        }
    }
    page.limit = limit.unwrap_or(DEFAULT_LIMIT);
    page.order = order.unwrap_or_default();
    for level in &mut page.filters.levels {
        *level = stages::normalize_level(level);
    }
    Ok(page)
}

fn unknown(name: &str) -> InvalidParams {
    InvalidParams::of(name, String::new())
}

/// Completes [`unknown`] with what would be known.
fn say_known(error: InvalidParams, known: &str) -> InvalidParams {
    match error {
        InvalidParams::Parameter { name, why } if why.is_empty() => {
            InvalidParams::Parameter { name, why: format!("is unknown; known are {known}") }
        }
        error => error,
    }
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), InvalidParams> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidParams::of(name, "may stand only once")),
    }
}

fn read_limit(value: &str) -> Result<u32, InvalidParams> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| InvalidParams::of("limit", format!("is a number from 1 to {MAX_LIMIT}")))
}

fn read_order(value: &str) -> Result<Order, InvalidParams> {
    let order = [Order::Newest, Order::Oldest].into_iter().find(|order| order.as_str() == value);
    order.ok_or_else(|| InvalidParams::of("order", "is newest or oldest"))
}

/// One limit of a time range: `from`, which `since` is another word for, or `to`.
fn read_span(
    from: &mut Option<Micros>,
    to: &mut Option<Micros>,
    name: &str,
    value: &str,
    now: Micros,
) -> Result<(), InvalidParams> {
    if name == "to" {
        return once(to, name, read_time(name, value, Limit::Upper, now)?);
    }
    match from.replace(read_time(name, value, Limit::Lower, now)?) {
        None => Ok(()),
        Some(_) => Err(InvalidParams::of(name, "may stand only once, and `from` and `since` are the same limit")),
    }
}

fn read_time(name: &str, value: &str, limit: Limit, now: Micros) -> Result<Micros, InvalidParams> {
    moment::read(value, limit, now).map_err(|error| InvalidParams::of(name, error.to_string()))
}

fn bounded(name: &str, value: &str) -> Result<String, InvalidParams> {
    if value.is_empty() || value.chars().count() > MAX_VALUE || value.contains('\0') {
        return Err(InvalidParams::of(name, format!("is a text of 1 to {MAX_VALUE} characters")));
    }
    Ok(value.to_owned())
}

/// A choice is a list with commas, or the parameter several times.
fn choices(chosen: &mut Vec<String>, name: &str, value: &str) -> Result<(), InvalidParams> {
    for choice in value.split(',') {
        chosen.push(bounded(name, choice.trim())?);
    }
    if chosen.len() > MAX_CHOICES {
        return Err(InvalidParams::of(name, format!("holds more than {MAX_CHOICES} values")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::Filters;

    const NOW: Micros = 1_769_862_896_000_000;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn no_parameter_is_the_first_page() {
        assert_eq!(list(&[], NOW), Ok(Page { limit: 50, asked: Asked::of("logs", &[]), ..Page::default() }));
    }

    #[test]
    fn every_parameter_has_its_place() {
        let cursor = Cursor { time: 5, event_id: uuid::Uuid::from_u128(6) };
        let mut sent = pairs(&[
            ("limit", "500"),
            ("service", "api,web"),
            ("service", "db"),
            ("level", "error, Warning"),
            ("from", "1970-01-01T00:00:01.000001Z"),
            ("to", "1970-01-01T02:00:00+02:00"),
            ("text", "50%"),
        ]);
        let asked = Asked::of("logs", &sent);
        sent.push(("cursor".into(), cursor.encode(asked)));
        let page = list(&sent, NOW);
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let filters = Filters {
            services: texts(&["api", "web", "db"]),
            levels: texts(&["ERROR", "WARN"]),
            from: Some(1_000_001),
            to: Some(0),
        };
        let query = Some(message_holds("50%".into()));
        assert_eq!(page, Ok(Page { filters, query, asked, order: Order::Newest, after: Some(cursor), limit: 500 }));
    }

    #[test]
    fn every_parameter_that_the_api_names_is_read() {
        type Read = fn(&[(String, String)]) -> Result<(), InvalidParams>;
        let mut parameters = 0;
        for route in api::routes::of(api::Role::Search) {
            let read: Read = match (route.method, route.path) {
                (_, api::routes::LIST) => |pairs| list(pairs, NOW).map(drop),
                (_, api::routes::SEARCH) => |pairs| search(pairs, NOW).map(drop),
                (_, api::routes::EXPLAIN) => |pairs| explain(pairs).map(drop),
                (_, api::routes::ASK) => |pairs| counting::ask(pairs, NOW).map(drop),
                (_, api::routes::HISTOGRAM) => |pairs| counting::histogram(pairs, NOW).map(drop),
                (_, api::routes::FACETS | api::routes::FIELDS) => |pairs| counting::chosen(pairs, NOW).map(drop),
                (_, api::routes::VALUES) => |pairs| counting::values("x", pairs, NOW).map(drop),
                (_, api::routes::COMPLETE) => |pairs| counting::complete(pairs, NOW).map(drop),
                (_, api::routes::CONTEXT) => |pairs| context::context(uuid::Uuid::nil(), pairs).map(drop),
                (_, api::routes::EXPORT) => |pairs| export::export(pairs, NOW).map(drop),
                (_, api::routes::BATCH) => |pairs| batch(pairs).map(drop),
                (_, api::routes::USAGE) => |pairs| usage::read(pairs, 0, 30).map(drop),
                (api::Method::Get, api::routes::LETTERS) => |pairs| letters::page(pairs, NOW).map(drop),
                (api::Method::Delete, api::routes::LETTERS) => |pairs| letters::purge(pairs, NOW).map(drop),
                _ => none,
            };
            for parameter in api::openapi::parameters(route).iter().filter(|parameter| !parameter.path) {
                let told = read(&pairs(&[(&parameter.name, "1")])).err().map(|error| error.to_string());
                assert!(!told.clone().unwrap_or_default().contains("unknown"), "{route}: {told:?}");
                parameters += 1;
            }
            assert!(read(&pairs(&[("nobodys", "1")])).is_err(), "{route}");
        }
        assert!(parameters > 20, "{parameters} parameters");
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let long = "x".repeat(MAX_VALUE + 1);
        let many = "a,".repeat(MAX_CHOICES) + "a";
        for (name, value) in [
            ("limit", "0"),
            ("limit", "501"),
            ("limit", "-1"),
            ("limit", "ten"),
            ("from", "15"),
            ("to", "2026-13-01"),
            ("since", "1M"),
            ("order", "desc"),
            ("service", ""),
            ("service", "a,,b"),
            ("service", &long),
            ("service", "a\0b"),
            ("level", &many),
            ("text", ""),
            ("q", "x"),
            ("tenant", "other"),
            ("", ""),
        ] {
            match list(&pairs(&[(name, value)]), NOW) {
                Err(InvalidParams::Parameter { name: named, .. }) => assert_eq!(named, name),
                other => panic!("{name}={value}: {other:?}"),
            }
        }
        assert!(matches!(list(&pairs(&[("cursor", "x")]), NOW), Err(InvalidParams::Cursor(_))));
        assert!(matches!(search(&pairs(&[("q", "(")]), NOW), Err(InvalidParams::Query(_))));
    }

    #[test]
    fn a_time_may_be_relative_and_its_cursor_stays_valid() {
        let oldest = |since: &str, now| list(&pairs(&[("since", since), ("to", "now"), ("order", "oldest")]), now);
        let page = oldest("15m", NOW).unwrap();
        assert_eq!((page.filters.from, page.filters.to), (Some(NOW - 900_000_000), Some(NOW)));
        assert_eq!(page.order, Order::Oldest);
        let later = oldest("20m", NOW + 5_000_000).unwrap();
        let cursor = Cursor { time: 5, event_id: uuid::Uuid::from_u128(6) };
        assert_eq!(Cursor::decode(&cursor.encode(page.asked), later.asked), Ok(cursor));
    }

    #[test]
    fn a_parameter_that_stands_twice_is_refused() {
        for name in ["limit", "from"] {
            let value = if name == "limit" { "5" } else { "2026-01-01T00:00:00Z" };
            assert!(list(&pairs(&[(name, value), (name, value)]), NOW).is_err(), "{name}");
        }
        assert!(search(&pairs(&[("q", "ab"), ("q", "ab")]), NOW).is_err());
        assert!(list(&pairs(&[("from", "1h"), ("since", "1h")]), NOW).is_err());
    }

    #[test]
    fn a_search_needs_a_query() {
        let error = search(&[], NOW).unwrap_err().to_string();
        assert!(error.contains("`q`"), "{error}");
    }
}
