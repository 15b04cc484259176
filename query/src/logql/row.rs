//! One event as LogQL sees it: a line, and its labels in three kinds.

use std::collections::BTreeMap;

use stages::time::Micros;
use stages::{Event, Map, Value};
use uuid::Uuid;

/// Names and values.
pub type Labels = BTreeMap<String, String>;

/// Labels that one event has at most, of its leaves and of what is read in its line.
const MAX_LABELS: usize = 256;
/// Longest name of a label that is read in a line, in bytes.
pub(super) const MAX_NAME: usize = 256;
/// Bytes of an event's leaves that are labels, as many as the index has words of.
const MAX_LEAF_BYTES: usize = 256 * 1024;
/// Names that a leaf may not take.
const TAKEN: [&str; 6] = ["application", "detected_level", "event_id", "language", "level", "service_name"];
/// The label that tells each event from all others. It is no part of what streams or series are told apart by.
pub(super) const EVENT_ID: &str = "event_id";

/// A line and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When it happened.
    pub time: Micros,
    /// The event.
    pub id: Uuid,
    /// The whole text.
    pub line: String,
    /// What it is a stream by.
    pub stream: Labels,
    /// What it has besides: its level, and the leaves of `metadata` and `attributes`.
    pub structured: Labels,
    /// What the query read in the line.
    pub parsed: Labels,
    /// Why the query could not read it.
    pub(super) error: Option<&'static str>,
}

impl Row {
    /// Of an event.
    pub fn new(event: Event, time: Micros, id: Uuid) -> Self {
        let Event { level, service, application, message, full_log, language, metadata, attributes, .. } = event;
        let named = [("service_name", Some(service)), ("application", application), ("language", language)];
        let present = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let stream = present.filter(|(_, value)| !value.is_empty()).collect();
        let mut structured = leaves(metadata.as_ref(), attributes.as_ref());
        structured.insert("detected_level".to_owned(), shown_level(&level));
        structured.insert(EVENT_ID.to_owned(), id.to_string());
        Self { time, id, line: full_log.unwrap_or(message), stream, structured, parsed: Labels::new(), error: None }
    }

    /// Of labels that are known.
    pub fn of_labels(time: Micros, id: Uuid, line: String, stream: Labels, structured: Labels, parsed: Labels) -> Self {
        Self { time, id, line, stream, structured, parsed, error: None }
    }

    /// A label's value; "" if there is none.
    pub fn label(&self, name: &str) -> &str {
        let found = self.parsed.get(name).or_else(|| self.stream.get(name)).or_else(|| self.structured.get(name));
        match (found, name) {
            (Some(value), _) => value,
            // What people call it.
            (None, "level") => self.structured.get("detected_level").map_or("", String::as_str),
            (None, "__error__") => self.error.unwrap_or_default(),
            (None, _) => "",
        }
    }

    /// All labels as one set, for clients that know of one only.
    pub fn merged(&self) -> Labels {
        let mut all = self.stream.clone();
        all.extend(self.structured.iter().chain(&self.parsed).map(|(name, value)| (name.clone(), value.clone())));
        all.remove(EVENT_ID);
        if let Some(error) = self.error {
            all.insert("__error__".to_owned(), error.to_owned());
        }
        all
    }

    /// What the query read in the line, and why it could not.
    pub fn parsed_with_error(&self) -> Labels {
        let mut parsed = self.parsed.clone();
        parsed.extend(self.error.map(|error| ("__error__".to_owned(), error.to_owned())));
        parsed
    }

    /// Bytes of an answer that it takes.
    pub fn weight(&self) -> usize {
        let labels = [&self.stream, &self.structured, &self.parsed];
        let labels = labels.into_iter().flatten().map(|(name, value)| name.len() + value.len() + 8);
        self.line.len() + labels.sum::<usize>() + 64
    }

    /// Adds what was read in the line. A label that is there keeps its value, and the other has a name of its own.
    pub(super) fn extract(&mut self, name: &str, value: String) {
        if name.len() > MAX_NAME || self.is_full() {
            return;
        }
        let name = sanitized(name);
        if name.is_empty() {
            return;
        }
        let known = self.stream.get(&name).or_else(|| self.structured.get(&name));
        match known {
            // A leaf that is written in the line as well.
            Some(known) if *known == value => {}
            Some(_) => {
                self.parsed.insert(format!("{name}_extracted"), value);
            }
            None => {
                self.parsed.insert(name, value);
            }
        }
    }

    /// Whether it has as many labels of its line as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.parsed.len() >= MAX_LABELS
    }

    /// Removes a label.
    pub(super) fn remove(&mut self, name: &str) {
        for labels in [&mut self.stream, &mut self.structured, &mut self.parsed] {
            labels.remove(name);
        }
        if name == "__error__" {
            self.error = None;
        }
    }
}

/// A level as LogQL's clients know it.
pub(super) fn shown_level(level: &str) -> String {
    if level.is_empty() { "unknown".to_owned() } else { level.to_lowercase() }
}

/// A name that a label may have.
pub(super) fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn leaves(metadata: Option<&Map>, attributes: Option<&Map>) -> Labels {
    let mut labels = Labels::new();
    let mut left = MAX_LEAF_BYTES;
    for (root, map) in [("metadata", metadata), ("attributes", attributes)] {
        // One root's own leaves are of one name each, but for lists and for names that are alike to a label.
        let mut own = Labels::new();
        walk(map.into_iter().flatten(), &mut String::new(), &mut own, &mut left);
        for (name, value) in own {
            if labels.len() >= MAX_LABELS {
                return labels;
            }
            let taken = TAKEN.contains(&name.as_str()) || labels.contains_key(&name);
            labels.insert(if taken { format!("{root}_{name}") } else { name }, value);
        }
    }
    labels
}

fn walk<'a>(
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
    path: &mut String,
    into: &mut Labels,
    left: &mut usize,
) {
    let above = path.len();
    for (name, value) in fields {
        if above > 0 {
            path.push('_');
        }
        path.push_str(&sanitized(name));
        leaf(value, path, into, left);
        path.truncate(above);
    }
}

fn leaf(value: &Value, path: &mut String, into: &mut Labels, left: &mut usize) {
    let text = match value {
        Value::Null => return,
        Value::Object(fields) => return walk(fields.iter(), path, into, left),
        Value::Array(values) => return values.iter().for_each(|value| leaf(value, path, into, left)),
        Value::Bool(flag) => {
            if *flag {
                "true"
            } else {
                "false"
            }
        }
        Value::Number(number) => number.as_str(),
        Value::String(text) => text,
    };
    let bytes = path.len() + text.len();
    if bytes > *left {
        *left = 0;
        return;
    }
    *left -= bytes;
    // The values of a list stand side by side.
    into.entry(path.clone())
        .and_modify(|value| {
            value.push(',');
            value.push_str(text);
        })
        .or_insert_with(|| text.to_owned());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn row(line: &str) -> Row {
        let event = stages::event(line.as_bytes(), 0).unwrap();
        Row::new(event, 5, Uuid::from_u128(7))
    }

    fn shown(labels: &Labels) -> String {
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_event_is_a_line_and_its_labels() {
        let row = row(r#"{"message":"hello","service":"api","level":"WARNING","application":"shop","status":500,
                "metadata":{"user.id":1,"k8s":{"pod":"p-1"},"status":404,"service_name":"other","none":null},
                "tags":["a","b"],"ok":true}"#);
        assert_eq!((row.line.as_str(), row.time), ("hello", 5));
        assert_eq!(shown(&row.stream), "application=shop service_name=api");
        assert_eq!(
            shown(&row.structured),
            "attributes_status=500 detected_level=warn event_id=00000000-0000-0000-0000-000000000007 k8s_pod=p-1 \
             metadata_service_name=other ok=true status=404 tags=a,b user_id=1"
        );
        for (name, value) in [
            ("service_name", "api"),
            ("level", "warn"),
            ("detected_level", "warn"),
            ("user_id", "1"),
            ("nothing", ""),
            ("__error__", ""),
        ] {
            assert_eq!(row.label(name), value, "{name}");
        }
    }

    #[test]
    fn what_is_read_in_a_line_replaces_nothing() {
        let mut row = row(r#"{"message":"m","service":"api","status":500}"#);
        for (name, value) in [("status", "500"), ("service_name", "web"), ("took-ms", "5"), ("detected_level", "info")]
        {
            row.extract(name, value.to_owned());
        }
        assert_eq!(shown(&row.parsed), "service_name_extracted=web took_ms=5");
    }

    #[test]
    fn leaves_are_bounded() {
        let many: String = (0..1000).map(|n| format!(r#","f{n}":{n}"#)).collect();
        assert!(row(&format!(r#"{{"message":"m"{many}}}"#)).structured.len() <= MAX_LABELS + 2);
        let long = "x".repeat(MAX_LEAF_BYTES);
        assert_eq!(row(&format!(r#"{{"message":"m","a":"{long}","b":"c"}}"#)).structured.len(), 2);
    }
}
