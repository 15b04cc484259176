//! Sending events: what a body holds, and the answer to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::BatchState;

/// An event as it is sent. Any JSON object is one; these fields mean something, and all others are kept as
/// `attributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// When it happened: RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970. Of
    /// what is absent or unusable, the time of acceptance takes the place. Also `@timestamp`, `time`, `ts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub timestamp: Option<String>,
    /// What sends it. Also `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub service: Option<String>,
    /// The application that the service belongs to. Also `app`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub application: Option<String>,
    /// `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR`, `FATAL`, in whatever case, or another word. Also `severity`, `lvl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub level: Option<String>,
    /// The message. Also `msg`, `log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub message: Option<String>,
    /// The whole text, where the message is only its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub full_log: Option<String>,
    /// Programming or human language.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub language: Option<String>,
}

/// The answer to accepted events. A 202 is a promise: the batch is on the queue's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The batch, to ask for.
    pub batch_id: Uuid,
    /// Events that are kept.
    pub accepted: u64,
    /// Lines that became dead letters at once.
    pub rejected: u64,
    /// Lets `GET /api/batches/{id}` tell of the batch before it is stored.
    pub receipt: String,
    /// Whether the same body was kept before under the same `Idempotency-Key`; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// How far the batch has come: `stored` or `queued`, from `POST /data/` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<BatchState>,
}
