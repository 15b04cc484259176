//! JSON inside a text.

use serde_json::{Map, Value};

use super::Parsed;

/// Deepest nesting, and most fields, that are taken: as ingest bounds an event.
const MAX_DEPTH: usize = 24;
const MAX_FIELDS: usize = 1_000;

/// One JSON object.
pub(super) fn read(text: &str) -> Option<Parsed> {
    let text = text.trim();
    // A look before anything is parsed: most texts are not JSON.
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    parsed(object(text)?)
}

/// One JSON object a line: the first one's fields, and where there are more, all of them as records.
pub(super) fn read_lines(text: &str) -> Option<Parsed> {
    let objects: Option<Vec<_>> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(object).collect();
    let objects = objects?;
    let mut parsed = parsed(objects.first()?.clone())?;
    if objects.len() > 1 {
        let records = objects.into_iter().map(Value::Object).collect();
        parsed.fields.insert("records".to_owned(), Value::Array(records));
    }
    Some(parsed)
}

fn object(text: &str) -> Option<Map<String, Value>> {
    let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
    let mut left = MAX_FIELDS;
    fields.values().all(|value| is_bounded(value, MAX_DEPTH, &mut left)).then_some(fields)
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

fn parsed(mut fields: Map<String, Value>) -> Option<Parsed> {
    let message = crate::line::aliases("message")
        .iter()
        .find(|name| fields.get(**name).is_some_and(Value::is_string))
        .and_then(|name| fields.remove(*name));
    let message = message.map(crate::text::of);
    Some(Parsed { fields, message, complete: true, ..Parsed::default() })
}
