//! What is counted of events: tables, charts, facets, fields and their values, and what a query may go on with.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Listing, Source};

/// An answer to a question: events, a table or a chart, as its stages say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Answer {
    /// Of `| count`, `| top`, `| rare` and `| stats`.
    Table(Table),
    /// Of `| timechart`.
    Series(Series),
    /// Without any of these.
    Events(Events),
}

/// What an answer says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// Whether its numbers are exact for what it looked at. Else they are estimated, or which groups are shown is.
    pub exact: bool,
    /// By how many events it was estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
    /// Where it comes from.
    pub source: Source,
    /// Whether every event that matches was looked at.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A sample of events, each as likely as any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sampled {
    /// How many were looked at.
    pub used: u64,
    /// Of how many.
    pub of: u64,
}

/// `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventsKind {
    /// `events`.
    Events,
}

/// `table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// `table`.
    Table,
}

/// `series`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SeriesKind {
    /// `series`.
    Series,
}

/// Events, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// `events`.
    pub kind: EventsKind,
    /// A page of them.
    #[serde(flatten)]
    pub page: Listing,
    /// The fields that `| fields` asks to show; empty means all.
    pub columns: Vec<String>,
    /// How many events `| grep` looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<u64>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    /// `table`.
    pub kind: TableKind,
    /// Its columns: first the fields of `by`, then what is computed.
    pub columns: Vec<Column>,
    /// Its rows, those with most events first; of `| rare`, those with fewest.
    pub rows: Vec<Vec<Cell>>,
    /// How many events match.
    pub total: u64,
    /// How many of them are in no row.
    pub other: u64,
    /// Of `| top` and `| rare`: how many of them lack the field. They are in no row and not in `other`; null where that
    /// is not known, and they are in `other`.
    pub missing: Option<u64>,
    /// Whether there are more groups than rows.
    pub more: bool,
    /// What it says of itself.
    #[serde(flatten)]
    pub told: Told,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Column {
    /// A field, or a function such as `p95(latency_ms)`.
    pub name: String,
    /// What its cells are.
    pub kind: ColumnKind,
}

/// What a column's cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// A value of a field, as text; null for events without one.
    Group,
    /// A number; null where there is nothing to compute with.
    Number,
}

/// A cell of a table, or a point of a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Cell {
    /// How many.
    Count(u64),
    /// A number.
    Number(f64),
    /// A value of a field.
    Text(String),
    /// Nothing.
    Nothing,
}

/// Lines over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// `series`.
    pub kind: SeriesKind,
    /// What each point is: a function such as `count` or `p95(latency_ms)`.
    pub value: String,
    /// The field whose values the lines stand for.
    pub by: Option<String>,
    /// When the first point's time begins.
    #[schemars(extend("format" = "date-time"))]
    pub start: String,
    /// The time of one point, in milliseconds.
    pub interval_ms: u64,
    /// The lines, those with most events first. All have the same points.
    pub series: Vec<Line>,
    /// Events that are in no line, point by point; of counts by a field alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Vec<u64>>,
    /// How many events match.
    pub total: u64,
    /// Whether there are more values than lines.
    pub more: bool,
    /// What it says of itself.
    #[serde(flatten)]
    pub told: Told,
}

/// A line of a chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The value that its events have; null for those without one, and where there is but one line.
    pub name: Option<String>,
    /// Its points, from `start` on.
    pub points: Vec<Cell>,
}

/// What the values of some fields are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facets {
    /// The fields.
    pub facets: Vec<Facet>,
    /// How many events match.
    pub total: u64,
    /// What it says of itself.
    #[serde(flatten)]
    pub told: Told,
}

/// The values of a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facet {
    /// The field.
    pub field: String,
    /// Those that most events have.
    pub values: Vec<ValueCount>,
    /// Events with other values.
    pub other: u64,
    /// Whether there are more values than these.
    pub more: bool,
}

/// A value, and how many events have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValueCount {
    /// The value; null stands for events without one.
    pub value: Option<String>,
    /// How many.
    pub count: u64,
}

/// The values of one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Values {
    /// The values.
    #[serde(flatten)]
    pub facet: Facet,
    /// How many events match.
    pub total: u64,
    /// What it says of itself.
    #[serde(flatten)]
    pub told: Told,
}

/// The fields that events have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fields {
    /// The fields, those that most events have first.
    pub fields: Vec<FieldShare>,
    /// How many more there are.
    pub more: u64,
    /// What it says of itself.
    #[serde(flatten)]
    pub told: Told,
}

/// A field, and how many events have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldShare {
    /// Its name, as it is typed.
    pub name: String,
    /// Where it is: `metadata`, `attributes` or both. Empty for the fields that LoggerHub has names for.
    #[serde(rename = "in")]
    pub places: Vec<String>,
    /// In how many of the events that were looked at.
    pub events: u64,
    /// That as a share of them, from 0 to 1.
    pub share: f64,
    /// What its values are.
    pub types: Vec<FieldType>,
    /// Some of its values.
    pub values: Vec<String>,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// A number, or a text that is one.
    Number,
    /// A time.
    Time,
    /// `true` or `false`.
    Boolean,
    /// Any other text.
    Text,
}

/// What a query may go on with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Completions {
    /// Where what is replaced begins, in bytes of the query.
    pub position: usize,
    /// How many bytes are replaced.
    pub length: usize,
    /// What may stand there, the likeliest first.
    pub items: Vec<Completion>,
    /// Whether nothing is missing: values and fields are left out where they can't be had in time.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

/// Something that may stand at the cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Completion {
    /// What to write.
    pub text: String,
    /// What it is.
    pub kind: CompletionKind,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How many events have it: all of a value's, and of a field's those in a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// What a completion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompletionKind {
    /// A field's name.
    Field,
    /// A field's value.
    Value,
    /// A stage, or a word in it.
    Stage,
    /// A function of `stats` or `timechart`.
    Function,
}

impl Told {
    /// Of exact numbers about everything.
    pub fn whole(source: Source) -> Self {
        Self { exact: true, sampled: None, source, complete: true, notice: None, took_ms: 0 }
    }
}

impl From<Option<String>> for Cell {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::Nothing, Self::Text)
    }
}

impl From<Option<f64>> for Cell {
    /// JSON has no number for what is none.
    fn from(number: Option<f64>) -> Self {
        number.filter(|number| number.is_finite()).map_or(Self::Nothing, Self::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back_as_what_it_is() {
        let told = Told::whole(Source::Catalog);
        let table = Answer::Table(Table {
            kind: TableKind::Table,
            columns: vec![Column { name: "service".into(), kind: ColumnKind::Group }],
            rows: vec![vec![Cell::from(Some("api".to_owned())), Cell::Count(3), Cell::from(Some(1.5)), Cell::Nothing]],
            total: 3,
            other: 0,
            missing: None,
            more: false,
            told: told.clone(),
        });
        let series = Answer::Series(Series {
            kind: SeriesKind::Series,
            value: "count".into(),
            by: None,
            start: "2026-01-31T12:00:00.000000Z".into(),
            interval_ms: 1000,
            series: vec![Line { name: None, points: vec![Cell::Count(0), Cell::Nothing] }],
            other: None,
            total: 0,
            more: false,
            told,
        });
        for answer in [table, series] {
            let text = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer, "{text}");
        }
        assert_eq!(Cell::from(Some(f64::NAN)), Cell::Nothing);
    }
}
