//! Fields of lines, as Grafana lists them.

use std::collections::BTreeMap;

use api::loki::DetectedField;
use query::logql::Detected;
use uuid::Uuid;

/// Said of values that are of some lines.
pub(super) const SAMPLED: &str = "these are the values of the newest lines only";

/// Fields by their names.
pub(super) type Fields = BTreeMap<String, Detected>;

/// As a client reads it.
pub(super) fn shown((label, field): (String, Detected)) -> DetectedField {
    DetectedField {
        label,
        kind: field.kind.to_owned(),
        cardinality: field.values.len() as u64,
        parsers: field.parser.map(|parser| vec![parser.to_owned()]),
        json_path: field.json_path,
    }
}

/// Whether a value is no name to choose by: a UUID or a number.
pub(super) fn is_id(value: &str) -> bool {
    Uuid::parse_str(value).is_ok() || value.parse::<f64>().is_ok()
}
