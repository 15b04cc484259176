//! Answers of the Loki API, as Grafana and logcli read them: a foreign API, which OpenAPI does not describe here. The
//! order of members matters: Grafana reads them as they come.

use std::collections::BTreeMap;

use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};

/// Labels of a stream or a series.
pub type Labels = BTreeMap<String, String>;

/// Said in `encodingFlags` where lines have a third element.
pub const CATEGORIZED: &str = "categorize-labels";
/// The header by which a client asks for that.
pub const ENCODING_FLAGS: &str = "x-loki-response-encoding-flags";

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer<R> {
    /// `success`
    pub status: String,
    /// What is missing from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was found.
    pub data: Data<R>,
}

/// What a query found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data<R> {
    /// `streams`, `matrix`, `vector` or `scalar`.
    pub result_type: String,
    /// [`CATEGORIZED`], or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoding_flags: Vec<String>,
    /// By its type.
    pub result: R,
    /// What it cost.
    #[serde(default)]
    pub stats: Stats,
}

/// Lines with the same labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// The labels.
    pub stream: Labels,
    /// The lines.
    pub values: Vec<Entry>,
}

/// A line: its time in nanoseconds, as a text, and its text. With a third element, if the client knows of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry(pub String, pub String, #[serde(default)] pub Option<Categorized>);

/// Labels of one line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Categorized {
    /// Those that it came with.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub structured_metadata: Labels,
    /// Those that the query read in it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub parsed: Labels,
}

/// Values over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatrixSeries {
    /// What tells it from others.
    pub metric: Labels,
    /// The values.
    pub values: Vec<Sample>,
}

/// A value at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorSeries {
    /// What tells it from others.
    pub metric: Labels,
    /// The value.
    pub value: Sample,
}

/// A moment in milliseconds, shown in seconds, and a number, shown as a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub millis: i64,
    /// The number.
    pub value: f64,
}

/// What a query cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// In sum.
    pub summary: Summary,
}

/// What a query cost, in sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Bytes of lines that were read, a second.
    pub bytes_processed_per_second: u64,
    /// Lines that were read, a second.
    pub lines_processed_per_second: u64,
    /// Bytes of lines that were read.
    pub total_bytes_processed: u64,
    /// Lines that were read.
    pub total_lines_processed: u64,
    /// Seconds.
    pub exec_time: f64,
}

/// Names, values or sets of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Names<T> {
    /// `success`
    pub status: String,
    /// What is missing from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The names; never absent.
    pub data: Vec<T>,
}

/// How much a selector finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexStats {
    /// Sets of labels.
    pub streams: u64,
    /// Always 0: there are no chunks.
    pub chunks: u64,
    /// Bytes of the lines, estimated.
    pub bytes: u64,
    /// Lines.
    pub entries: u64,
}

/// Labels that can be chosen by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectedLabels {
    /// The labels.
    pub detected_labels: Vec<DetectedLabel>,
}

/// A label that can be chosen by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectedLabel {
    /// Its name.
    pub label: String,
    /// How many values it has.
    pub cardinality: u64,
}

/// Fields of lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectedFields {
    /// The fields.
    pub fields: Vec<DetectedField>,
    /// How many were asked for.
    pub limit: u64,
}

/// A field of lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectedField {
    /// Its name.
    pub label: String,
    /// string, int, float, boolean, duration or bytes.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many values were seen.
    pub cardinality: u64,
    /// What reads it in a line; null if a line has it by itself.
    pub parsers: Option<Vec<String>>,
    /// Where it is in the line's JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json_path: Vec<String>,
}

/// Values of a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectedValues {
    /// The values.
    pub values: Vec<String>,
    /// How many were asked for.
    pub limit: u64,
}

/// A frame of a tail. Both members are always there: a client may read each frame over the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TailFrame {
    /// Lines.
    pub streams: Vec<Stream>,
    /// Lines that were left out.
    pub dropped_entries: Option<Vec<DroppedEntry>>,
    /// [`CATEGORIZED`], or nothing.
    #[serde(rename = "encodingFlags", default, skip_serializing_if = "Vec::is_empty")]
    pub encoding_flags: Vec<String>,
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DroppedEntry {
    /// Its time in nanoseconds, as a text.
    pub timestamp: String,
    /// Its stream.
    pub labels: Labels,
}

/// What every answer that is one says.
pub const SUCCESS: &str = "success";

impl<R> Answer<R> {
    /// What was found.
    pub fn new(result_type: &str, result: R) -> Self {
        let data =
            Data { result_type: result_type.to_owned(), encoding_flags: Vec::new(), result, stats: Stats::default() };
        Self { status: SUCCESS.to_owned(), warnings: Vec::new(), data }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2 + usize::from(self.2.is_some()))?;
        tuple.serialize_element(&self.0)?;
        tuple.serialize_element(&self.1)?;
        if let Some(categorized) = &self.2 {
            tuple.serialize_element(categorized)?;
        }
        tuple.end()
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        if self.millis % 1000 == 0 {
            tuple.serialize_element(&(self.millis / 1000))?;
        } else {
            tuple.serialize_element(&(self.millis as f64 / 1000.0))?;
        }
        tuple.serialize_element(&shown(self.value))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (seconds, value) = <(f64, String)>::deserialize(deserializer)?;
        let value = value.trim_start_matches('+').parse().map_err(serde::de::Error::custom)?;
        Ok(Self { millis: (seconds * 1000.0).round() as i64, value })
    }
}

/// A number as Go writes it.
fn shown(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn members_come_in_the_order_in_which_they_are_read() {
        let labels = Labels::from([("service_name".to_owned(), "api".to_owned())]);
        let entry = |third| Entry("1764240000000001000".to_owned(), "a\"b".to_owned(), third);
        let stream = |third| vec![Stream { stream: labels.clone(), values: vec![entry(third)] }];
        let stats = r#""stats":{"summary":{"bytesProcessedPerSecond":0,"linesProcessedPerSecond":0,"totalBytesProcessed":0,"totalLinesProcessed":0,"execTime":0.0}}"#;
        let mut answer = Answer::new("streams", stream(None));
        assert_eq!(
            json(&answer),
            format!(
                r#"{{"status":"success","data":{{"resultType":"streams","result":[{{"stream":{{"service_name":"api"}},"values":[["1764240000000001000","a\"b"]]}}],{stats}}}}}"#
            )
        );
        answer.warnings.push("w".to_owned());
        answer.data.encoding_flags.push(CATEGORIZED.to_owned());
        answer.data.result = stream(Some(Categorized::default()));
        assert_eq!(
            json(&answer),
            format!(
                r#"{{"status":"success","warnings":["w"],"data":{{"resultType":"streams","encodingFlags":["categorize-labels"],"result":[{{"stream":{{"service_name":"api"}},"values":[["1764240000000001000","a\"b",{{}}]]}}],{stats}}}}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Answer<Vec<Stream>>>(&json(&answer)).unwrap(), answer);
        let third = Categorized { structured_metadata: labels.clone(), parsed: Labels::new() };
        assert_eq!(
            json(entry(Some(third))),
            r#"["1764240000000001000","a\"b",{"structuredMetadata":{"service_name":"api"}}]"#
        );
        assert_eq!(serde_json::from_str::<Entry>(r#"["1","x"]"#).unwrap(), Entry("1".into(), "x".into(), None));
    }

    #[test]
    fn samples_have_seconds_as_numbers_and_values_as_texts() {
        for (millis, value, text) in [
            (1_764_240_000_123, 42.0, r#"[1764240000.123,"42"]"#),
            (4_000_000_000_000, 2.0, r#"[4000000000,"2"]"#),
            (0, 0.5, r#"[0,"0.5"]"#),
            (0, 1e21, r#"[0,"1000000000000000000000"]"#),
            (0, f64::INFINITY, r#"[0,"+Inf"]"#),
            (0, f64::NEG_INFINITY, r#"[0,"-Inf"]"#),
        ] {
            let sample = Sample { millis, value };
            assert_eq!(json(&sample), text);
            assert_eq!(serde_json::from_str::<Sample>(text).unwrap(), sample);
        }
        assert_eq!(json(Sample { millis: 0, value: f64::NAN }), r#"[0,"NaN"]"#);
    }

    #[test]
    fn a_frame_has_both_members_and_a_field_says_null() {
        let frame = TailFrame { streams: Vec::new(), dropped_entries: None, encoding_flags: Vec::new() };
        assert_eq!(json(frame), r#"{"streams":[],"dropped_entries":null}"#);
        let field = DetectedField {
            label: "a".into(),
            kind: "int".into(),
            cardinality: 1,
            parsers: None,
            json_path: Vec::new(),
        };
        assert_eq!(json(field), r#"{"label":"a","type":"int","cardinality":1,"parsers":null}"#);
    }
}
