//! The stages of a LogPipeline, and the tests that they must pass to be accepted.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One step that each line goes through.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.parse), has(self.redact), has(self.drop), has(self.sample), has(self.enrich)].filter(given, given).size() == 1").message("a stage does one thing: give exactly one of parse, redact, drop, sample, enrich"))]
pub struct Stage {
    /// Name, unique among the pipeline's stages. Errors and labels show it.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The events that the stage applies to. If not set, all.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<Match>,
    /// Read fields from a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parse: Option<Parse>,
    /// Mask or remove secrets and personal data, before anything is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redact: Option<Redact>,
    /// Discard the event; its batch's receipt counts it. Written as `drop: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Discard>,
    /// Keep some of the events and drop the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// Set fields to constants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrich: Option<Enrich>,
}

/// Events that a stage concerns: those for which everything that is given here holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.services) || has(self.levels) || has(self.fields)").message("match needs services, levels or fields; leave match out to concern every event"))]
pub struct Match {
    /// The event's service is one of these.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The event's level is one of these, in any spelling: warn and WARNING are the same.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 32)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
    /// Conditions on fields, all of which must hold.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldMatch>,
}

/// What holds of one field.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.equals), has(self.matches), has(self.exists)].filter(given, given).size() == 1").message("give exactly one of equals, matches, exists"))]
pub struct FieldMatch {
    /// The field. Dots lead into objects: metadata.user.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The field's value, as text, equals this.
    #[schemars(length(max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// The field's value, as text, has a match of this regular expression. Use ^ and $ to match all of it.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// Whether the field exists and is not null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

/// Reads fields out of a text. What is read replaces fields of the same meaning that came beside the text.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.format != 'Regex' || has(self.pattern)").message("format Regex needs a pattern"),
    validation = Rule::new("!has(self.pattern) || self.format in ['Regex', 'Auto']").message("only the formats Regex and Auto take a pattern")
)]
pub struct Parse {
    /// Format of the text.
    #[serde(default)]
    pub format: Format,
    /// The field with the text. If not set, the event's message.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// For Regex, and for Auto as the last format: named groups become fields, such as `(?<user>\w+)`.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// An object for the fields. If not set, they become fields of the event itself.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// What happens to an event whose text is not in this format.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// Formats of a text.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The first that fits of Json, Syslog, Apache and the pattern.
    #[default]
    Auto,
    /// One JSON object.
    Json,
    /// JSON objects, one a line: the first one's fields, and all of them under records.
    Ndjson,
    /// An access log of Apache or nginx: common or combined.
    Apache,
    /// RFC 5424, or RFC 3164 with or without its priority.
    Syslog,
    /// A regular expression with named groups.
    Regex,
}

/// What becomes of an event that a parse stage can't read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It stays unchanged.
    #[default]
    Keep,
    /// It is dropped, and counted.
    Drop,
}

/// Makes parts of an event unreadable. What is redacted is stored nowhere: not in the raw line either.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.fields) || has(self.detectors) || has(self.patterns)").message("say what to redact: detectors or patterns for what is found in texts, fields for whole values"),
    validation = Rule::new("has(self.salt) == (has(self.action) && self.action == 'Hash')").message("action Hash needs a salt, and no other action takes one"),
    validation = Rule::new("!has(self.replacement) || !has(self.action) || self.action == 'Replace'").message("only action Replace takes a replacement")
)]
pub struct Redact {
    /// Search only these fields; without detectors and patterns, redact their whole values. Dots lead into objects and
    /// into each item of lists. If not set, the whole event is searched.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What to search for.
    #[schemars(length(min = 1, max = 4))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub detectors: Vec<Detector>,
    /// What else to search for.
    #[schemars(length(min = 1, max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub patterns: Vec<NamedPattern>,
    /// What to do with what was found.
    #[serde(default)]
    pub action: RedactAction,
    /// Text that replaces it. If not set, the detector's or pattern's name in brackets, such as `[email]`.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// For Hash: the key of the HMAC. Anyone who can read it here can try values until one matches.
    #[schemars(length(min = 16, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

/// What LoggerHub finds by itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detector {
    /// E-mail addresses.
    Email,
    /// Payment card numbers: 13 to 19 digits with a valid check digit.
    CardNumber,
    /// Credentials after Authorization, Bearer and Basic, JSON Web Tokens, keys of AWS, GitHub, Slack and of LoggerHub
    /// itself.
    Token,
    /// IPv4 and IPv6 addresses.
    IpAddress,
}

/// A regular expression with a name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NamedPattern {
    /// Replaces what was found, in brackets.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Regular expression without look-around or backreferences.
    #[schemars(length(min = 1, max = 1024))]
    pub regex: String,
}

/// What is done with what was found.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedactAction {
    /// Something else stands in its place.
    #[default]
    Replace,
    /// A keyed hash stands in its place: the same value has the same hash. A pseudonym, no anonymity.
    Hash,
    /// The field that holds it is removed.
    Remove,
}

/// Drops the event.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct Discard {}

/// Keeps some events. Which ones follows from the event, so a redelivery decides the same.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Keep one event out of this many; 1 keeps all.
    #[schemars(range(min = 1, max = 1000000))]
    pub keep_one_in: i32,
    /// Decide by this field's value, so that events that share it, such as those of a trace, are kept or dropped
    /// together. If not set, decide for each event.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Sets fields to constants.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Enrich {
    /// The fields and their values. Dots lead into objects.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub set: BTreeMap<String, Text>,
    /// Replace existing values too. Otherwise existing fields stay unchanged.
    #[serde(default)]
    pub overwrite: bool,
}

/// A short text.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct Text(#[schemars(length(max = 1024))] pub String);

/// A line, and what the stages must make of it. A pipeline that fails a test is not accepted, and the
/// stages that were accepted before go on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PipelineTest {
    /// Name, unique among the tests.
    #[schemars(length(min = 1, max = 80))]
    pub name: String,
    /// The line: a JSON object as a client sends it, or any other text, which becomes the message of an event.
    #[schemars(length(min = 1, max = 8192))]
    pub input: String,
    /// The expected result.
    pub expect: Expectation,
}

/// What must become of a test's line.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.dropped) || !self.dropped || !(has(self.fields) || has(self.absent) || has(self.lacks))").message("an event that is dropped has no fields to expect"),
    validation = Rule::new("(has(self.dropped) && self.dropped) || has(self.fields) || has(self.absent) || has(self.lacks)").message("say what to expect: dropped, fields, absent or lacks")
)]
pub struct Expectation {
    /// The event is dropped.
    #[serde(default)]
    pub dropped: bool,
    /// Values of fields, as text. Dots lead into objects. Fields that end up in `attributes` are found by their own name.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Text>,
    /// Fields that the event must not have.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    /// Texts that must not occur anywhere in what is stored: what must have been redacted.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
}
