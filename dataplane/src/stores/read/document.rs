//! An event as the index gives it back.

use serde::Deserialize;
use stages::Map;
use uuid::Uuid;

/// An event as the index holds it.
///
/// Its fields are those of [`api::event::Event`].
#[derive(Debug, Deserialize)]
pub struct Document {
    pub id: Uuid,
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    pub accepted_at: String,
    pub service: String,
    pub application: Option<String>,
    pub level: String,
    pub message: String,
    pub full_log: Option<String>,
    pub language: Option<String>,
    pub metadata: Option<Map>,
    pub attributes: Option<Map>,
    pub batch_id: Uuid,
    #[serde(default)]
    pub flags: Vec<String>,
    /// Why the index holds less than the whole event, where it does.
    pub index_error: Option<String>,
}
