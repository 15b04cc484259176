//! Text that every store can keep.

use crate::json::{Map, Value};

/// The first `chars` characters.
pub(crate) fn cut(text: &str, chars: usize) -> &str {
    // A character has at least one byte.
    if text.len() <= chars {
        return text;
    }
    match text.char_indices().nth(chars) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// A value as text: a string as it is, anything else as its JSON.
pub(crate) fn of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The text with U+FFFD in place of each NUL.
pub(crate) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Replaces each NUL in every string and every key. Recurses as deep as the parser let it be: 128.
pub(crate) fn replace_nul(fields: &mut Map) {
    if fields.keys().any(|key| key.contains('\0')) {
        *fields = std::mem::take(fields).into_iter().map(|(key, value)| (without_nul(key), value)).collect();
    }
    fields.values_mut().for_each(replace_nul_in);
}

pub(crate) fn replace_nul_in(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = without_nul(std::mem::take(text)),
        Value::Array(values) => values.iter_mut().for_each(replace_nul_in),
        Value::Object(fields) => replace_nul(fields),
        _ => {}
    }
}
