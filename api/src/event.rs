//! Events as they are read: in a list, and one whole.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stages::Map;
use uuid::Uuid;

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// PostgreSQL's rows.
    Catalog,
    /// OpenSearch.
    Index,
    /// OpenSearch, and raw lines for what it lacks.
    #[serde(rename = "index+scan")]
    IndexAndScan,
    /// Raw lines, read one by one.
    Scan,
    /// Raw bytes in PostgreSQL, not archived yet.
    Spool,
    /// Raw bytes in the object store.
    Archive,
    /// The queue, by its receipt.
    Queue,
}

/// An event in a list: what its row holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// The event's id.
    pub id: Uuid,
    /// When it happened.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: String,
    /// When it was accepted.
    #[schemars(extend("format" = "date-time"))]
    pub accepted_at: String,
    /// Whose it is.
    pub tenant: String,
    /// What sent it.
    pub service: String,
    /// The application that the service belongs to.
    pub application: Option<String>,
    /// TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or what was sent.
    pub level: String,
    /// The message, at most 500 characters of it in a list.
    pub message: String,
    /// The programming language.
    pub language: Option<String>,
    /// The request that brought it.
    pub batch_id: Uuid,
    /// Where its raw bytes are.
    pub raw_path: Option<String>,
    /// Whether full-text search can find it.
    pub indexed: bool,
    /// Remarks: `time_of_acceptance`.
    pub flags: Vec<String>,
}

/// One whole event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// What its row holds.
    #[serde(flatten)]
    pub item: Item,
    /// The whole text, where it is more than the message.
    pub full_log: Option<String>,
    /// What the client sent as `metadata`.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub metadata: Option<Map>,
    /// Fields that LoggerHub has no name for.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub attributes: Option<Map>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether nothing is missing from it.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

/// What was read of the raw lines for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scanned {
    /// Events that were looked at.
    pub events: u64,
    /// Bytes of their lines, as they were sent.
    pub bytes: u64,
    /// How far lines were read, where the time that a request has did not suffice: the next page goes on there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub until: Option<String>,
}

/// A page of a list or a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Listing {
    /// The events, newest first unless the oldest were asked for.
    pub items: Vec<Item>,
    /// What to send as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether every event that matches is on this page or a later one.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
    /// What was read of the raw lines, where they were searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned: Option<Scanned>,
}

impl Source {
    /// As it stands in an answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Index => "index",
            Self::IndexAndScan => "index+scan",
            Self::Scan => "scan",
            Self::Spool => "spool",
            Self::Archive => "archive",
            Self::Queue => "queue",
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Listing {
    /// The events' messages.
    pub fn messages(&self) -> Vec<&str> {
        self.items.iter().map(|item| item.message.as_str()).collect()
    }
}
