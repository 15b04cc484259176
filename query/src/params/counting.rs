//! Parameters of the routes that count events, and of completion.

use api::parameters::{DEFAULT_VALUES, MAX_QUERY, MAX_VALUE, MAX_VALUES};
use stages::time::Micros;

use super::{InvalidParams, bounded, once, page, read_span, say_known, unknown};
use crate::expression::Field;
use crate::filters::Page;
use crate::parse::{is_field_name, question};
use crate::stage::{Interval, Question, Shape};

/// What is asked at `GET /api/query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which events.
    pub page: Page,
    /// What is made of them.
    pub question: Question,
}

/// What is asked at `GET /api/fields/{name}/values`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuesOf {
    /// Which events.
    pub page: Page,
    /// The field.
    pub field: Field,
    /// What its values begin with.
    pub prefix: Option<String>,
    /// Most values.
    pub limit: u32,
}

/// What is asked at `GET /api/complete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// The query so far.
    pub q: String,
    /// Where the cursor stands in it.
    pub at: usize,
    /// Of which events fields and values are offered.
    pub page: Page,
}

/// Parameters of `GET /api/query`.
pub fn ask(pairs: &[(String, String)], now: Micros) -> Result<Ask, InvalidParams> {
    let mut asked = None;
    for (_, value) in pairs.iter().filter(|(name, _)| name == "q") {
        once(&mut asked, "q", question(value)?)?;
    }
    let asked = asked.ok_or_else(|| InvalidParams::of("q", "is missing: say what to ask"))?;
    let known = "q, limit, cursor, order, service, level, from, to, since";
    let mut page =
        page("query", pairs, now, known, |_, name, _| if name == "q" { Ok(()) } else { Err(unknown(name)) })?;
    page.query = Some(asked.query.clone());
    if let Shape::Events { limit: Some(limit), .. } = &asked.shape {
        page.limit = page.limit.min(*limit);
    }
    if page.after.is_some() && !matches!(asked.shape, Shape::Events { .. }) {
        return Err(InvalidParams::of("cursor", "is for events, and the query's stages make a table or a chart"));
    }
    Ok(Ask { page, question: asked })
}

/// Parameters of `GET /api/facets` and `GET /api/fields`.
pub fn chosen(pairs: &[(String, String)], now: Micros) -> Result<Page, InvalidParams> {
    read(pairs, now, "q, service, level, from, to, since", |name, _| Err(unknown(name)))
}

/// Parameters of `GET /api/histogram`.
pub fn histogram(pairs: &[(String, String)], now: Micros) -> Result<(Page, Option<Interval>), InvalidParams> {
    let mut interval = None;
    let page = read(pairs, now, "q, interval, service, level, from, to, since", |name, value| match name {
        "interval" => {
            let length = Interval::parse(value);
            once(
                &mut interval,
                name,
                length.ok_or_else(|| InvalidParams::of(name, "is a time such as 30s, 5m, 2h or 1d"))?,
            )
        }
        _ => Err(unknown(name)),
    })?;
    Ok((page, interval))
}

/// Parameters of `GET /api/fields/{name}/values`.
pub fn values(field: &str, pairs: &[(String, String)], now: Micros) -> Result<ValuesOf, InvalidParams> {
    let (mut prefix, mut limit) = (None, None);
    let page = read(pairs, now, "q, prefix, limit, service, level, from, to, since", |name, value| match name {
        "prefix" => once(&mut prefix, name, bounded(name, value)?),
        "limit" => {
            let number = value.parse().ok().filter(|limit| (1..=MAX_VALUES).contains(limit));
            once(
                &mut limit,
                name,
                number.ok_or_else(|| InvalidParams::of(name, format!("is a number from 1 to {MAX_VALUES}")))?,
            )
        }
        _ => Err(unknown(name)),
    })?;
    let of = Field::of(field);
    if !is_field_name(field) || field.len() > MAX_VALUE || of == Field::Text {
        return Err(InvalidParams::of(
            "name",
            "is a field's name, such as `service` or `metadata.user.id`, and not `message`",
        ));
    }
    Ok(ValuesOf { page, field: of, prefix, limit: limit.unwrap_or(DEFAULT_VALUES) })
}

/// Parameters of `GET /api/complete`.
pub fn complete(pairs: &[(String, String)], now: Micros) -> Result<Complete, InvalidParams> {
    let (mut q, mut at) = (None, None);
    let mut page = Page::default();
    for (name, value) in pairs {
        match name.as_str() {
            "q" if value.chars().count() > MAX_QUERY as usize => {
                return Err(InvalidParams::of(name, format!("has more than {MAX_QUERY} characters")));
            }
            "q" => once(&mut q, name, value.clone())?,
            "at" => {
                let place = value.parse().ok().filter(|at| *at <= MAX_QUERY);
                once(
                    &mut at,
                    name,
                    place.ok_or_else(|| InvalidParams::of(name, format!("is a number from 0 to {MAX_QUERY}")))?,
                )?;
            }
            "from" | "since" | "to" => read_span(&mut page.filters.from, &mut page.filters.to, name, value, now)?,
            _ => return Err(say_known(unknown(name), "q, at, from, to, since")),
        }
    }
    let q = q.ok_or_else(|| InvalidParams::of("q", "is missing: say what is to be completed"))?;
    let at = at.map_or(q.len(), |at: u32| at as usize);
    Ok(Complete { q, at, page })
}

/// Of a page that is not cut into pages: which events are counted. Of a query the part before its first `|`.
fn read(
    pairs: &[(String, String)],
    now: Micros,
    known: &str,
    mut own: impl FnMut(&str, &str) -> Result<(), InvalidParams>,
) -> Result<Page, InvalidParams> {
    let mut query = None;
    let mut common = Vec::new();
    for (name, value) in pairs {
        match name.as_str() {
            // An empty one asks for every event.
            "q" if value.trim().is_empty() => once(&mut query, name, None)?,
            "q" => once(&mut query, name, Some(question(value)?.query))?,
            "service" | "level" | "from" | "since" | "to" => common.push((name.clone(), value.clone())),
            other => own(other, value).map_err(|error| say_known(error, known))?,
        }
    }
    let mut page = page("", &common, now, known, |_, name, _| Err(unknown(name)))?;
    page.query = query.flatten();
    Ok(page)
}

/// The times of a page, if it has both.
pub fn range(page: &Page) -> Option<(Micros, Micros)> {
    page.filters.from.zip(page.filters.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_question_has_its_page() {
        let asked = ask(&pairs(&[("q", "a | limit 7"), ("level", "warning")]), 0).unwrap();
        assert_eq!((asked.page.limit, asked.page.filters.levels.as_slice()), (7, &["WARN".to_owned()][..]));
        assert_eq!(asked.page.query, Some(crate::parse("a").unwrap()));
        for wrong in [&[][..], &[("q", "a"), ("q", "a")], &[("q", "a |")], &[("q", "a"), ("x", "1")], &[("q", "")]] {
            assert!(ask(&pairs(wrong), 0).is_err(), "{wrong:?}");
        }
        let of_list = crate::Cursor { time: 5, event_id: uuid::Uuid::nil() };
        let sent = pairs(&[("q", "a | count")]);
        let cursor = of_list.encode(crate::Asked::of("query", &sent));
        let error = ask(&pairs(&[("q", "a | count"), ("cursor", &cursor)]), 0).unwrap_err().to_string();
        assert!(error.contains("`cursor`"), "{error}");
    }

    #[test]
    fn what_is_counted_may_be_everything() {
        assert_eq!(chosen(&[], 0).unwrap().query, None);
        assert_eq!(chosen(&pairs(&[("q", " ")]), 0).unwrap().query, None);
        assert_eq!(chosen(&pairs(&[("q", "a | count by x")]), 0).unwrap().query, Some(crate::parse("a").unwrap()));
        let (page, interval) = histogram(&pairs(&[("interval", "5m"), ("from", "1970-01-01T00:00:01Z")]), 0).unwrap();
        assert_eq!((page.filters.from, interval.unwrap().to_string().as_str()), (Some(1_000_000), "5m"));
        for (name, value) in [("interval", "5"), ("limit", "5"), ("q", "("), ("cursor", "x"), ("prefix", "x")] {
            assert!(histogram(&pairs(&[(name, value)]), 0).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn values_are_a_fields() {
        let asked = values("@status", &pairs(&[("prefix", "5"), ("limit", "3")]), 0).unwrap();
        assert_eq!((asked.field, asked.prefix.as_deref(), asked.limit), (Field::Either("status".into()), Some("5"), 3));
        for (name, parameters) in
            [("message", &[][..]), ("a b", &[]), ("x", &[("limit", "0")]), ("x", &[("limit", "101")])]
        {
            assert!(values(name, &pairs(parameters), 0).is_err(), "{name} {parameters:?}");
        }
    }

    #[test]
    fn a_cursor_in_a_query_is_at_its_end_unless_it_says_where() {
        assert_eq!(complete(&pairs(&[("q", "abc")]), 0).unwrap().at, 3);
        assert_eq!(complete(&pairs(&[("q", "abc"), ("at", "1")]), 0).unwrap().at, 1);
        for wrong in
            [&[][..], &[("q", "a"), ("at", "-1")], &[("q", "a"), ("at", "2049")], &[("q", "a"), ("level", "x")]]
        {
            assert!(complete(&pairs(wrong), 0).is_err(), "{wrong:?}");
        }
    }
}
