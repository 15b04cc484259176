//! JSON inside a text.

use super::Parsed;
use crate::json::{Map, Reader, Value};

/// Deepest nesting, and most fields, that are taken: as ingest bounds an event.
const MAX_DEPTH: usize = 24;
const MAX_FIELDS: usize = 1_000;

/// An object, and whether its fields say all that its text says: of a name that is there twice, they hold the
/// last value.
struct Object {
    fields: Map,
    complete: bool,
}

/// One JSON object.
pub(super) fn read(text: &str) -> Option<Parsed> {
    let text = text.trim();
    // A look before anything is parsed: most texts are not JSON.
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    Some(parsed(object(text)?))
}

/// One JSON object a line: the first one's fields, and where there are more, all of them as records.
pub(super) fn read_lines(text: &str) -> Option<Parsed> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let objects: Vec<Object> = lines.map(object).collect::<Option<_>>()?;
    let first = objects.first()?;
    let complete = objects.iter().all(|object| object.complete);
    let mut parsed = parsed(Object { fields: first.fields.clone(), complete });
    if objects.len() > 1 {
        let records = objects.into_iter().map(|object| Value::Object(object.fields)).collect();
        parsed.fields.insert("records".to_owned(), Value::Array(records));
    }
    Some(parsed)
}

fn object(text: &str) -> Option<Object> {
    let mut reader = Reader::new(text.as_bytes()).ok()?;
    let value = Value::read(&mut reader).ok()?;
    reader.end().ok()?;
    let Value::Object(fields) = value else { return None };
    let mut left = MAX_FIELDS;
    let is_bounded = fields.values().all(|value| is_bounded(value, MAX_DEPTH, &mut left));
    is_bounded.then_some(Object { fields, complete: !reader.repeated })
}

fn is_bounded(value: &Value, depth: usize, left: &mut usize) -> bool {
    if *left == 0 || depth == 0 {
        return false;
    }
    *left -= 1;
    match value {
        Value::Array(values) => values.iter().all(|value| is_bounded(value, depth - 1, left)),
        Value::Object(fields) => fields.values().all(|value| is_bounded(value, depth - 1, left)),
        _ => true,
    }
}

fn parsed(Object { mut fields, complete }: Object) -> Parsed {
    let message = crate::line::aliases("message")
        .iter()
        .find(|name| matches!(fields.get(**name), Some(Value::String(_))))
        .and_then(|name| fields.remove(*name));
    let message = message.map(crate::text::of);
    Parsed { fields, message, complete, ..Parsed::default() }
}
