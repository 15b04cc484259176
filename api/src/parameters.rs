//! The parameters in a URL, by route.
//!
//! An unknown parameter is refused, and so is one that stands twice and is no choice. A choice stands several times, or
//! once with commas.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::usage::{By, Form};

/// Events or letters on a page unless the client asks otherwise.
pub const DEFAULT_LIMIT: u32 = 50;
/// Most events or letters on a page: some 500 KB of answer.
pub const MAX_LIMIT: u32 = 500;
/// Events on either side of one unless the client asks otherwise.
pub const DEFAULT_CONTEXT: u32 = 25;
/// Most events on either side of one.
pub const MAX_CONTEXT: u32 = 250;
/// Most events of one export.
pub const MAX_EXPORT: u64 = 1_000_000;
/// Most choices in one request.
pub const MAX_CHOICES: usize = 32;
/// Longest value of a filter, in characters; longer service names are cut when they are stored.
pub const MAX_VALUE: usize = 256;
/// Most values of a field in one answer.
pub const MAX_VALUES: u32 = 100;
/// Values of a field unless the client asks otherwise.
pub const DEFAULT_VALUES: u32 = 20;
/// Longest query, in bytes.
pub const MAX_QUERY: u32 = 2048;
/// Dead letters that one request may name: some 40 KB of body.
pub const MAX_IDS: usize = 1000;

/// Of `POST /logs` and `POST /data/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Send {
    /// Whether the first bad event refuses the whole body. Else the good ones are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atomic: Option<bool>,
}

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Paging {
    /// 1 to 500; 50 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    pub limit: Option<u32>,
    /// `next_cursor` of the previous page. It is valid for the same route and parameters only; the times and
    /// `limit` may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-cursor"))]
    pub cursor: Option<String>,
}

/// Which time. Every form of a time that people type is one: see docs/api.md.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Span {
    /// A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns
    /// since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-time"))]
    pub from: Option<String>,
    /// The same as `from`; only one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-time"))]
    pub since: Option<String>,
    /// A time, exclusive, in the forms of `from`. A day ends with the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-time"))]
    pub to: Option<String>,
}

/// Which events come first. Either is the exact opposite of the other, also where times are equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The newest.
    #[default]
    Newest,
    /// The oldest.
    Oldest,
}

impl Order {
    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In which order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Ordered {
    /// `newest` first, or `oldest`. A cursor is valid in its own order only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Order")]
    pub order: Option<Order>,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EventChoice {
    /// One or more services: `a,b`, or the parameter several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Choice>", length(max = MAX_CHOICES))]
    pub service: Vec<String>,
    /// One or more levels, in any case: `a,b`, or the parameter several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Choice>", length(max = MAX_CHOICES))]
    pub level: Vec<String>,
}

/// Of `GET /api/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct List {
    /// Which page.
    #[serde(flatten)]
    pub paging: Paging,
    /// In which order.
    #[serde(flatten)]
    pub ordered: Ordered,
    /// Which time.
    #[serde(flatten)]
    pub span: Span,
    /// Which events.
    #[serde(flatten)]
    pub events: EventChoice,
    /// A text in the first 500 characters of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_VALUE), extend("format" = "loggerhub-text"))]
    pub text: Option<String>,
}

/// Of `GET /api/search`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Search {
    /// The query: `word`, `"a phrase"`, `-not`, `OR`, `( )`, `prefix*`, `field:value`, `level:>=warn`, `status:500..599`;
    /// see docs/query-language.md.
    #[schemars(length(min = 1), extend("format" = "loggerhub-query"))]
    pub q: String,
    /// Which page.
    #[serde(flatten)]
    pub paging: Paging,
    /// In which order.
    #[serde(flatten)]
    pub ordered: Ordered,
    /// Which time.
    #[serde(flatten)]
    pub span: Span,
    /// Which events.
    #[serde(flatten)]
    pub events: EventChoice,
}

/// Of `GET /api/explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explain {
    /// The query.
    #[schemars(length(min = 1), extend("format" = "loggerhub-query"))]
    pub q: String,
}

/// Of `GET /api/query`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Ask {
    /// A query and its stages: `level:error | count by service`, `| timechart 5m count by level`,
    /// `| stats p95(latency_ms) by service`; see docs/query-language.md.
    #[schemars(length(min = 1), extend("format" = "loggerhub-question"))]
    pub q: String,
    /// Which page, of events.
    #[serde(flatten)]
    pub paging: Paging,
    /// In which order, of events.
    #[serde(flatten)]
    pub ordered: Ordered,
    /// Which time.
    #[serde(flatten)]
    pub span: Span,
    /// Which events.
    #[serde(flatten)]
    pub events: EventChoice,
}

/// Which events are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Chosen {
    /// A query, of which the part before the first `|` counts; without it, every event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-query"))]
    pub q: Option<String>,
    /// Which time.
    #[serde(flatten)]
    pub span: Span,
    /// Which events.
    #[serde(flatten)]
    pub events: EventChoice,
}

/// Of `GET /api/histogram`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Histogram {
    /// Which events.
    #[serde(flatten)]
    pub chosen: Chosen,
    /// The time of one bar: `30s`, `5m`, `2h`, `1d`. Without it, one that suits the range. At most 1,000 bars.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-interval"))]
    pub interval: Option<String>,
}

/// Of `GET /api/fields/{name}/values`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OfField {
    /// Which events.
    #[serde(flatten)]
    pub chosen: Chosen,
    /// What the values begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_VALUE), extend("format" = "loggerhub-text"))]
    pub prefix: Option<String>,
    /// Most values, 1 to 100; 20 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_VALUES))]
    pub limit: Option<u32>,
}

/// Of `GET /api/complete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Complete {
    /// The query as it is so far. It may be unfinished.
    #[schemars(length(max = MAX_QUERY))]
    pub q: String,
    /// Where the cursor stands, in bytes of it; without it, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_QUERY))]
    pub at: Option<u32>,
    /// Of which time fields and values are offered.
    #[serde(flatten)]
    pub span: Span,
}

/// The form of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
    /// Time, level, service and the whole text.
    Text,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ndjson, Self::Csv, Self::Text];

    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Text => "text",
        }
    }
}

impl JsonSchema for Format {
    fn schema_name() -> Cow<'static, str> {
        "Format".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

/// Of `GET /api/export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Export {
    /// The query; without it every event. See docs/query-language.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("format" = "loggerhub-query"))]
    pub q: Option<String>,
    /// `ndjson`, `csv` or `text`; `ndjson` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Format")]
    pub format: Option<Format>,
    /// 1 to 1000000, which is also what it is by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_EXPORT))]
    pub limit: Option<u64>,
    /// `next_cursor` of the last line of an export of the same events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-cursor"))]
    pub cursor: Option<String>,
    /// The id of the last event that came of an export that broke off: goes on after it. Not beside `cursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Uuid>,
    /// `true` leaves the cells of a CSV as they are, also those that a spreadsheet would take for a formula.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<bool>,
    /// In which order.
    #[serde(flatten)]
    pub ordered: Ordered,
    /// Which time.
    #[serde(flatten)]
    pub span: Span,
    /// Which events.
    #[serde(flatten)]
    pub events: EventChoice,
}

/// Of `GET /api/logs/{id}/context`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OfContext {
    /// How many events before it: 0 to 250; 25 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_CONTEXT))]
    pub before: Option<u32>,
    /// How many events after it: 0 to 250; 25 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_CONTEXT))]
    pub after: Option<u32>,
    /// What they have in common with it: `service` by default, `application`, any field such as `metadata.pod`, or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_VALUE), extend("format" = "loggerhub-same"))]
    pub same: Option<String>,
    /// `earlier_cursor` or `later_cursor` of an answer about the same event: goes on in that direction alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-cursor"))]
    pub cursor: Option<String>,
}

/// Of `WS /ws/logs` and `GET /api/tail`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tail {
    /// The query; without it every event. See docs/query-language.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("format" = "loggerhub-query"))]
    pub q: Option<String>,
    /// The id of an event: what was stored after it is shown first. `GET /api/tail` also takes it as `Last-Event-ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Uuid>,
    /// Which events.
    #[serde(flatten)]
    pub events: EventChoice,
}

/// Of `GET /api/batches/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OfBatch {
    /// The receipt in the batch's 202. With it, a batch that is not stored yet is found, and a key that may only send can
    /// ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "loggerhub-receipt"))]
    pub receipt: Option<String>,
}

/// Of `GET /api/usage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OfUsage {
    /// What to sum up by; `day` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// JSON by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Form>,
    /// Which time, of acceptance: the last 30 days by default, by the hour the last one.
    #[serde(flatten)]
    pub span: Span,
}

/// Which dead letters, in a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LetterChoice {
    /// One or more codes: `a,b`, or the parameter several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Choice>", length(max = MAX_CHOICES))]
    pub code: Vec<String>,
    /// One or more pipelines: `a,b`, or the parameter several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Choice>", length(max = MAX_CHOICES))]
    pub pipeline: Vec<String>,
    /// A batch's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Uuid>,
    /// Which time, of being put among the dead letters.
    #[serde(flatten)]
    pub span: Span,
}

/// Of `GET /api/dead-letters`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ListLetters {
    /// Which page.
    #[serde(flatten)]
    pub paging: Paging,
    /// Which letters.
    #[serde(flatten)]
    pub letters: LetterChoice,
}

/// Of `DELETE /api/dead-letters`: `all`, or a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Purge {
    /// All of them; needed unless there is a filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = true))]
    pub all: Option<bool>,
    /// Which letters.
    #[serde(flatten)]
    pub letters: LetterChoice,
}

/// Which dead letters, in a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LetterFilter {
    /// With any of these codes.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Choices")]
    pub code: Option<Choices>,
    /// Of any of these pipelines.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Choices")]
    pub pipeline: Option<Choices>,
    /// Of this batch.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Uuid")]
    pub batch: Option<Uuid>,
    /// Put among the dead letters at this time or after.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "loggerhub-time"))]
    pub from: Option<String>,
    /// Before this time.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "loggerhub-time"))]
    pub to: Option<String>,
}

/// One text to choose, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Choices {
    /// One.
    One(#[schemars(with = "Choice")] String),
    /// Any of these.
    Any(#[schemars(with = "Vec<Choice>", length(min = 1, max = MAX_CHOICES))] Vec<String>),
}

impl Choices {
    /// The texts.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Any(texts) => texts,
        }
    }
}

/// What is named must have a value: `null` would look like a filter, and be none.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// How one text to choose is described: without commas, and not of spaces alone.
struct Choice;

impl JsonSchema for Choice {
    fn schema_name() -> Cow<'static, str> {
        "Choice".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_VALUE, "format": "loggerhub-choice"})
    }
}

impl JsonSchema for Order {
    fn schema_name() -> Cow<'static, str> {
        "Order".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ["newest", "oldest"]})
    }
}

/// Parameters as the pairs of a URL's query, not encoded. A choice is a pair for each.
pub fn pairs(parameters: &impl Serialize) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(parameters) else { return Vec::new() };
    let mut pairs = Vec::new();
    for (name, value) in fields {
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        pairs.extend(values.into_iter().map(|value| match value {
            Value::String(text) => (name.clone(), text),
            other => (name.clone(), other.to_string()),
        }));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_pairs_and_what_is_not_said_is_none() {
        let search = Search {
            q: "a b".into(),
            paging: Paging { limit: Some(5), cursor: None },
            ordered: Ordered { order: Some(Order::Oldest) },
            span: Span { from: None, since: None, to: Some("2026-01-31T12:00:00Z".into()) },
            events: EventChoice { service: vec!["a".into(), "b".into()], level: Vec::new() },
        };
        let told: Vec<_> = pairs(&search).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(told, ["limit=5", "order=oldest", "q=a b", "service=a", "service=b", "to=2026-01-31T12:00:00Z"]);
        let all = Purge { all: Some(true), ..Purge::default() };
        assert_eq!(pairs(&all), [("all".to_owned(), "true".to_owned())]);
        assert!(pairs(&List::default()).is_empty());
    }
}
