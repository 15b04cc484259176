//! Dead letters: lines that could not be events; listed, read, redriven and purged.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Source;
use crate::parameters::LetterFilter;

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The id that its event would have, and will have once it is redriven.
    pub id: Uuid,
    /// The request that brought it; null for what could not be read at all.
    pub batch_id: Option<Uuid>,
    /// Why it is no event, for programs.
    pub code: String,
    /// Why, for people. Not `error`, which is what a refusal has.
    pub reason: String,
    /// The pipeline that it failed in.
    pub pipeline: String,
    /// That pipeline's generation.
    pub pipeline_generation: i64,
    /// When it was accepted.
    #[schemars(extend("format" = "date-time"))]
    pub accepted_at: Option<String>,
    /// When it was put among the dead letters.
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it was tried last, if more than once.
    #[schemars(extend("format" = "date-time"))]
    pub retried_at: Option<String>,
    /// Since when it waits to be tried again.
    #[schemars(extend("format" = "date-time"))]
    pub redrive_requested_at: Option<String>,
    /// Whether it can be tried again.
    pub redrivable: bool,
    /// How many original bytes there are.
    pub raw_bytes: i64,
    /// Where they are.
    pub raw_path: Option<String>,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Letters {
    /// The letters, newest first.
    pub items: Vec<DeadLetter>,
    /// What to send as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether every letter that matches is on this page or a later one.
    pub complete: bool,
}

/// One dead letter with its original bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WholeLetter {
    /// What the list shows.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The original bytes, at most 1 MiB of them.
    pub raw: Option<String>,
    /// What `raw` is.
    pub encoding: Option<Encoding>,
    /// Where the bytes come from.
    pub source: Source,
    /// Whether all of them are shown.
    pub complete: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

/// How original bytes stand in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// As text.
    #[serde(rename = "utf-8")]
    Utf8,
    /// As base64, because they are no text.
    #[serde(rename = "base64")]
    Base64,
}

/// Which dead letters are tried again: the body of `POST /api/dead-letters/redrive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Redrive {
    /// These.
    Ids(#[schemars(length(min = 1, max = 1000))] Vec<Uuid>),
    /// Those that match.
    Filter(#[schemars(extend("minProperties" = 1))] LetterFilter),
    /// All.
    All(#[schemars(extend("const" = true))] bool),
}

/// What was marked to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Marked {
    /// How many letters.
    pub marked: u64,
    /// Whether more may match: ask again.
    pub more: bool,
}

/// What was purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Purged {
    /// How many letters.
    pub purged: u64,
    /// Whether more may match: ask again.
    pub more: bool,
}
