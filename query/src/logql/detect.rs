//! Which labels some lines have, and of which type: what Grafana lists as fields.

use std::collections::{BTreeMap, BTreeSet};

use stages::{Map, Value};

use super::extract::pairs;
use super::row::{EVENT_ID, MAX_NAME, Row, sanitized};
use super::tree::Unit;
use super::units;

/// Fields that are told of.
const MAX_FIELDS: usize = 1000;
/// Values of a field that are remembered.
const MAX_VALUES: usize = 1000;
/// Characters of a value that are remembered.
const MAX_VALUE: usize = 256;

/// A field of some lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// What its values are: string, int, float, boolean, duration, bytes.
    pub kind: &'static str,
    /// Its values, as far as they were seen.
    pub values: BTreeSet<String>,
    /// What reads it in a line: `json`, `logfmt`; none if the event has it by itself.
    pub parser: Option<&'static str>,
    /// Where it is in the line's JSON.
    pub json_path: Vec<String>,
}

/// The fields of these lines, by their names.
pub fn detect<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeMap<String, Detected> {
    let mut fields = BTreeMap::new();
    for row in rows {
        for (name, value) in row.structured.iter().filter(|(name, _)| *name != EVENT_ID) {
            add(&mut fields, name, value, None, &[]);
        }
        for (path, value) in json_values(&row.line) {
            if let Some(name) = name_in(row, &path.join("_"), &value) {
                add(&mut fields, &name, &value, Some("json"), &path);
            }
        }
        if row.line.trim_start().starts_with('{') {
            continue;
        }
        let (found, whole) = pairs(&row.line);
        for (key, value) in found.into_iter().filter(|(_, value)| whole && !value.is_empty()) {
            if let Some(name) = name_in(row, key, &value) {
                add(&mut fields, &name, &value, Some("logfmt"), &[]);
            }
        }
    }
    for field in fields.values_mut() {
        field.kind = kind(&field.values);
    }
    fields
}

/// The name under which a parser gives it, if it gives it at all.
fn name_in(row: &Row, name: &str, value: &str) -> Option<String> {
    if name.len() > MAX_NAME {
        return None;
    }
    let name = sanitized(name);
    match row.stream.get(&name).or_else(|| row.structured.get(&name)) {
        Some(known) if known == value => None,
        Some(_) => Some(format!("{name}_extracted")),
        None => (!name.is_empty()).then_some(name),
    }
}

fn add(
    fields: &mut BTreeMap<String, Detected>,
    name: &str,
    value: &str,
    parser: Option<&'static str>,
    path: &[String],
) {
    if fields.len() >= MAX_FIELDS && !fields.contains_key(name) {
        return;
    }
    let field = fields.entry(name.to_owned()).or_insert_with(|| Detected {
        kind: "string",
        values: BTreeSet::new(),
        parser,
        json_path: path.to_vec(),
    });
    if field.values.len() < MAX_VALUES {
        field.values.insert(value.chars().take(MAX_VALUE).collect());
    }
}

/// The values in a line of JSON, each with its path.
fn json_values(line: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    if line.trim_start().starts_with('{')
        && let Ok(object) = serde_json::from_str::<Map>(line)
    {
        collect(&object, &mut Vec::new(), &mut found);
    }
    found
}

fn collect(object: &Map, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    for (name, value) in object {
        if found.len() >= MAX_FIELDS {
            return;
        }
        // A long name is that of each value inside.
        if path.iter().map(String::len).sum::<usize>() + name.len() > MAX_NAME {
            continue;
        }
        path.push(name.clone());
        match value {
            Value::Object(inner) if path.len() < 16 => collect(inner, path, found),
            Value::Object(_) | Value::Array(_) | Value::Null => {}
            Value::String(text) => found.push((path.clone(), text.clone())),
            Value::Bool(_) | Value::Number(_) => found.push((path.clone(), value.to_string())),
        }
        path.pop();
    }
}

/// What all values are.
fn kind(values: &BTreeSet<String>) -> &'static str {
    let all = |is: &dyn Fn(&str) -> bool| !values.is_empty() && values.iter().all(|value| is(value));
    match () {
        () if all(&|text| text.len() < 19 && text.parse::<i64>().is_ok()) => "int",
        () if all(&|text| units::number(text).is_some()) => "float",
        () if all(&|text| matches!(text, "true" | "false")) => "boolean",
        () if all(&|text| Unit::Duration.read(text).is_some()) => "duration",
        () if all(&|text| units::bytes(text).is_some()) => "bytes",
        () => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn fields_have_a_type_and_say_where_they_stand() {
        let rows = [
            row(
                r#"{"message":"{\"a\":{\"b\":1},\"status\":200,\"service_name\":\"x\"}","service":"api","status":200,"ok":true}"#,
            ),
            row(r#"{"message":"took=5ms size=10KB ratio=0.5","service":"api","status":404}"#),
            row(r#"{"message":"plain text = not logfmt \"","service":"api"}"#),
        ];
        let found = detect(&rows);
        let shown: Vec<String> = found
            .iter()
            .map(|(name, field)| {
                let (parser, path) = (field.parser.unwrap_or("-"), field.json_path.join("."));
                format!("{name} {} {} {parser} {path}", field.kind, field.values.len()).trim_end().to_owned()
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a_b int 1 json a.b",
                "detected_level string 1 -",
                "ok boolean 1 -",
                "ratio float 1 logfmt",
                "service_name_extracted string 1 json service_name",
                "size bytes 1 logfmt",
                "status int 2 -",
                "took duration 1 logfmt",
            ]
        );
    }
}
