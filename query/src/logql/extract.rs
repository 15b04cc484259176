//! Labels that a query reads in a line: JSON, logfmt, patterns, groups of a regular expression.

use regex::Regex;
use stages::{Map, Value};

use super::row::{MAX_NAME, Row};
use super::tree::LinePattern;

const JSON_ERROR: &str = "JSONParserErr";
const LOGFMT_ERROR: &str = "LogfmtParserErr";
/// Deepest nesting that becomes labels.
const MAX_DEPTH: usize = 32;

/// Reads the line as a JSON object: all of it, or these paths.
pub(super) fn json(row: &mut Row, fields: &[(String, Vec<String>)]) {
    let Ok(object) = serde_json::from_str::<Map>(&row.line) else {
        row.error = Some(JSON_ERROR);
        return;
    };
    if fields.is_empty() {
        return all_of(row, &object, "", 0);
    }
    for (name, path) in fields {
        let value = at(&object, path).map(text).unwrap_or_default();
        row.extract(name, value);
    }
}

fn all_of(row: &mut Row, object: &Map, above: &str, depth: usize) {
    for (name, value) in object {
        if row.is_full() {
            return;
        }
        // A long name is that of each value inside.
        if above.len() + name.len() >= MAX_NAME {
            continue;
        }
        let name = if above.is_empty() { name.clone() } else { format!("{above}_{name}") };
        match value {
            Value::Object(inner) if depth < MAX_DEPTH => all_of(row, inner, &name, depth + 1),
            // As Loki does: a list has no name for each of its values.
            Value::Array(_) | Value::Null | Value::Object(_) => {}
            value => row.extract(&name, text(value)),
        }
    }
}

fn at<'a>(object: &'a Map, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(object.get(first)?, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(values) => values.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reads the line as logfmt.
pub(super) fn logfmt(row: &mut Row, strict: bool, keep_empty: bool, fields: &[(String, String)]) {
    let (pairs, whole) = pairs(&row.line);
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if !whole && (strict || pairs.is_empty()) {
        row.error = Some(LOGFMT_ERROR);
    }
    if !whole && strict {
        return;
    }
    if fields.is_empty() {
        for (key, value) in pairs {
            if keep_empty || !value.is_empty() {
                row.extract(&key, value);
            }
        }
        return;
    }
    for (name, key) in fields {
        let value = pairs.iter().find(|(found, _)| found == key).map(|(_, value)| value.clone()).unwrap_or_default();
        row.extract(name, value);
    }
}

/// The pairs of a line in logfmt, and whether all of it was read. What is none is passed over.
pub(super) fn pairs(line: &str) -> (Vec<(&str, String)>, bool) {
    let (mut pairs, mut whole) = (Vec::new(), true);
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace() || c == '"').unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        rest = if let Some(value) = after.strip_prefix('=').filter(|_| !key.is_empty()) {
            let (value, after, good) = value_of(value);
            whole &= good;
            pairs.push((key, value));
            after
        } else if after.starts_with(['"', '=']) {
            whole = false;
            after.split_once(char::is_whitespace).map_or("", |(_, after)| after)
        } else {
            // A word without a value.
            pairs.push((key, String::new()));
            after
        };
        rest = rest.trim_start();
    }
    (pairs, whole)
}

/// A value, what follows it, and whether it was well formed.
fn value_of(text: &str) -> (String, &str, bool) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (value.to_owned(), after, !value.contains('"'));
    };
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => {
                let inside = &quoted[..at];
                let value = serde_json::from_str(&format!("\"{inside}\"")).unwrap_or_else(|_| inside.to_owned());
                return (value, &quoted[at + 1..], true);
            }
            _ => escaped = false,
        }
    }
    (quoted.to_owned(), "", false)
}

/// Takes labels from where they stand.
pub(super) fn pattern(row: &mut Row, pattern: &LinePattern) {
    let mut found = Vec::new();
    let Some(at) = row.line.find(&pattern.first) else { return };
    let mut rest = &row.line[at + pattern.first.len()..];
    for (name, text) in &pattern.rest {
        let end = if text.is_empty() { Some(rest.len()) } else { rest.find(text) };
        let value = &rest[..end.unwrap_or(rest.len())];
        if let Some(name) = name {
            found.push((name.clone(), value.to_owned()));
        }
        let Some(end) = end else { break };
        rest = &rest[end + text.len()..];
    }
    for (name, value) in found {
        row.extract(&name, value);
    }
}

impl LinePattern {
    /// Whether a whole line is so: its texts in their order, with something in the place of each name.
    pub(super) fn matches(&self, line: &str) -> bool {
        let Some(mut rest) = line.strip_prefix(self.first.as_str()) else { return false };
        let Some(((_, last), before)) = self.rest.split_last() else { return rest.is_empty() };
        let after_one = |text: &'_ str| text.chars().next().map(char::len_utf8);
        for (_, text) in before {
            let Some(skip) = after_one(rest) else { return false };
            let Some(at) = rest[skip..].find(text.as_str()) else { return false };
            rest = &rest[skip + at + text.len()..];
        }
        let Some(skip) = after_one(rest) else { return false };
        rest[skip..].ends_with(last.as_str())
    }
}

/// Takes labels from the groups of a regular expression.
pub(super) fn regexp(row: &mut Row, regex: &Regex) {
    let found: Vec<(String, String)> = match regex.captures(&row.line) {
        None => return,
        Some(captures) => {
            let named = regex.capture_names().flatten();
            named.filter_map(|name| Some((name.to_owned(), captures.name(name)?.as_str().to_owned()))).collect()
        }
    };
    for (name, value) in found {
        row.extract(&name, value);
    }
}

/// A line without the colour codes of terminals.
pub(super) fn decolorized(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        let code = &rest[at + 2..];
        let end = code.find(|c: char| !(c.is_ascii_digit() || c == ';')).unwrap_or(code.len());
        match code[end..].strip_prefix(['m', 'K']) {
            Some(after) => rest = after,
            None => {
                plain.push_str(&rest[at..at + 2]);
                rest = code;
            }
        }
    }
    plain.push_str(rest);
    plain
}
