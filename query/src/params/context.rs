//! Parameters of `GET /api/logs/{id}/context`, and which events stand around one.

use api::parameters::{DEFAULT_CONTEXT, MAX_CHOICES, MAX_CONTEXT};
use stages::Map;
use uuid::Uuid;

use super::{InvalidParams, bounded, once, say_known, unknown};
use crate::cursor::{Asked, Cursor};
use crate::expression::{Clause, Field, Pattern, Query};
use crate::leaves::Leaves;
use crate::parse::is_field_name;
use crate::{Order, Page};

/// What is asked for around an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// How many events before it.
    pub before: u32,
    /// How many after it.
    pub after: u32,
    /// The field whose value they share with it.
    pub same: Option<Field>,
    /// Where to go on, and in which direction alone.
    pub from: Option<(Cursor, Order)>,
    /// What its cursors belong to.
    pub asked: Asked,
}

/// An event's own values of the fields with names of their own.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// What sent it.
    pub service: &'a str,
    /// Its level.
    pub level: &'a str,
    /// Its application.
    pub application: Option<&'a str>,
    /// Its language.
    pub language: Option<&'a str>,
}

/// Reads the parameters, for the event of this id.
pub fn context(id: Uuid, pairs: &[(String, String)]) -> Result<Around, InvalidParams> {
    let own = ("id".to_owned(), id.to_string());
    let asked = Asked::of("context", &[pairs, &[own]].concat());
    let (mut before, mut after, mut same, mut from) = (None, None, None, None);
    for (name, value) in pairs {
        match name.as_str() {
            "before" => once(&mut before, name, count(name, value)?)?,
            "after" => once(&mut after, name, count(name, value)?)?,
            "same" => once(&mut same, name, field(&bounded(name, value)?)?)?,
            "cursor" => once(&mut from, name, Cursor::decode_either(value, asked)?)?,
            _ => return Err(say_known(unknown(name), "before, after, same, cursor")),
        }
    }
    let (before, after) = (before.unwrap_or(DEFAULT_CONTEXT), after.unwrap_or(DEFAULT_CONTEXT));
    Ok(Around { before, after, same: same.unwrap_or(Some(Field::Service)), from, asked })
}

fn count(name: &str, value: &str) -> Result<u32, InvalidParams> {
    let count = value.parse().ok().filter(|count| *count <= MAX_CONTEXT);
    count.ok_or_else(|| InvalidParams::of(name, format!("is a number from 0 to {MAX_CONTEXT}")))
}

fn field(name: &str) -> Result<Option<Field>, InvalidParams> {
    if name == "none" {
        return Ok(None);
    }
    match Field::of(name) {
        Field::Text | Field::Message => {
            Err(InvalidParams::of("same", "is a field with a value, such as service or metadata.pod, or none"))
        }
        // As a query means it, a name may be a text, too. Here it is a field.
        Field::Named(name) if is_field_name(&name) => Ok(Some(Field::Either(name))),
        Field::Named(_) => Err(InvalidParams::of("same", "is a field such as service or metadata.pod, or none")),
        field => Ok(Some(field)),
    }
}

impl Around {
    /// The page of neighbours in one direction, if any are asked for: the events before are those that are older, newest
    /// first. `place` is the event's own.
    pub fn page(&self, order: Order, place: Cursor, query: Option<Query>) -> Option<Page> {
        let limit = match order {
            Order::Newest => self.before,
            Order::Oldest => self.after,
        };
        let after = match self.from {
            Some((cursor, direction)) => (direction == order).then_some(cursor),
            None => Some(place),
        }?;
        let asked = self.asked.ordered(order);
        (limit > 0).then(|| Page { query, order, after: Some(after), limit, asked, ..Page::default() })
    }
}

/// The values that an event has of a field.
pub fn values(field: &Field, names: Names<'_>, metadata: Option<&Map>, attributes: Option<&Map>) -> Vec<String> {
    let one = |value: Option<&str>| value.map(str::to_owned).into_iter().collect();
    match field {
        Field::Service => one(Some(names.service)),
        Field::Level => one(Some(names.level)),
        Field::Application => one(names.application),
        Field::Language => one(names.language),
        Field::Text | Field::Message => Vec::new(),
        Field::Metadata(_) | Field::Attributes(_) | Field::Either(_) | Field::Named(_) => {
            let begins: Vec<String> = field.paths().into_iter().map(|path| format!("{path}=")).collect();
            let mut values: Vec<String> = Vec::new();
            let Ok(()) = Leaves { metadata, attributes }.each(|word| {
                let value = begins.iter().find_map(|begin| word.strip_prefix(begin));
                if let Some(value) = value
                    && values.len() < MAX_CHOICES
                    && !values.iter().any(|known| known == value)
                {
                    values.push(value.to_owned());
                }
                Ok::<(), std::convert::Infallible>(())
            });
            values
        }
    }
}

/// The query for the events that have one of these values in a field.
pub fn having(field: &Field, values: &[String]) -> Query {
    let clause =
        |value: &String| Query::Clause(Clause { field: field.clone(), pattern: Pattern::Phrase(value.clone()) });
    Query::Or(values.iter().map(clause).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Around, InvalidParams> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        context(Uuid::from_u128(7), &pairs)
    }

    #[test]
    fn neighbours_are_of_the_same_service_unless_another_field_is_named() {
        for (pairs, same) in [
            (&[][..], Some(Field::Service)),
            (&[("same", "none")], None),
            (&[("same", "svc")], Some(Field::Service)),
            (&[("same", "application")], Some(Field::Application)),
            (&[("same", "metadata.pod")], Some(Field::Metadata("pod".into()))),
            (&[("same", "trace_id")], Some(Field::Either("trace_id".into()))),
        ] {
            assert_eq!(read(pairs).map(|around| around.same), Ok(same), "{pairs:?}");
        }
        for wrong in [
            ("same", ""),
            ("same", "message"),
            ("same", "a b"),
            ("before", "251"),
            ("after", "-1"),
            ("cursor", "x"),
            ("limit", "5"),
        ] {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_direction_is_a_page_and_a_cursor_goes_on_in_one() {
        let place = Cursor { time: 5, event_id: Uuid::from_u128(7) };
        let around = read(&[("before", "3"), ("after", "0")]).unwrap();
        let earlier = around.page(Order::Newest, place, None).unwrap();
        assert_eq!((earlier.limit, earlier.after, earlier.order), (3, Some(place), Order::Newest));
        assert_eq!(around.page(Order::Oldest, place, None), None);

        let text = place.encode(earlier.asked);
        let going_on = read(&[("before", "50"), ("cursor", &text)]).unwrap();
        assert_eq!(going_on.page(Order::Newest, Cursor { time: 9, ..place }, None).unwrap().after, Some(place));
        assert_eq!(going_on.page(Order::Oldest, place, None), None);
        assert!(context(Uuid::from_u128(8), &[("cursor".into(), text.clone())]).is_err(), "of another event");
        assert!(read(&[("same", "none"), ("cursor", &text)]).is_err(), "of other neighbours");
    }

    #[test]
    fn an_events_values_are_those_that_a_query_would_find_it_by() {
        let line = br#"{"message": "m", "service": "api", "metadata": {"pod": "p-1", "tags": ["a", "b", "a"]}, "n": 5, "pod": "q"}"#;
        let event = stages::event(line, 0).unwrap();
        let names = Names { service: "api", level: "INFO", application: None, language: None };
        let subject = crate::matches::Subject::new(&event, 0);
        for (name, expected) in [
            ("service", &["api"][..]),
            ("application", &[]),
            ("metadata.pod", &["p-1"]),
            ("pod", &["p-1", "q"]),
            ("tags", &["a", "b"]),
            ("attributes.n", &["5"]),
            ("metadata.po", &[]),
        ] {
            let field = field(name).unwrap().unwrap();
            let found = values(&field, names, event.metadata.as_ref(), event.attributes.as_ref());
            assert_eq!(found, expected, "{name}");
            assert_eq!(subject.matches(&having(&field, &found)), !expected.is_empty(), "{name}");
        }
    }
}
