//! How far a batch has come.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Source;

/// How far a batch has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Batch {
    /// The batch's id.
    pub batch_id: Uuid,
    /// The batch that had its `Idempotency-Key` first, if it is not this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_batch_id: Option<Uuid>,
    /// The furthest state that it has reached.
    pub state: BatchState,
    /// Events in it; while it is queued, its lines.
    pub events: i64,
    /// Lines of it that went to the dead letters; unknown while it is queued.
    pub dead_letters: Option<i64>,
    /// Lines of it that the pipeline's stages dropped; unknown while it is queued.
    pub dropped: Option<i64>,
    /// When it was accepted.
    #[schemars(extend("format" = "date-time"))]
    pub accepted_at: String,
    /// When its rows were written.
    #[schemars(extend("format" = "date-time"))]
    pub stored_at: Option<String>,
    /// When it could be searched.
    #[schemars(extend("format" = "date-time"))]
    pub indexed_at: Option<String>,
    /// When its raw bytes were moved to the object store.
    #[schemars(extend("format" = "date-time"))]
    pub archived_at: Option<String>,
    /// What else came under its `Idempotency-Key` and is not it.
    pub resends: Vec<Resend>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether nothing is missing from it.
    pub complete: bool,
    /// Why it is not complete, or what is special about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

/// A batch that came under an `Idempotency-Key` after another: with another body, so that it is dead
/// letters, or after the key's window, so that it is events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resend {
    /// Its own id.
    pub batch_id: Uuid,
    /// When it was accepted.
    #[schemars(extend("format" = "date-time"))]
    pub accepted_at: String,
    /// Events in it.
    pub events: i64,
    /// Lines of it that are dead letters.
    pub dead_letters: Option<i64>,
}

/// How far a batch has come. A batch that is archived before it could be indexed is `stored`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchState {
    /// On the queue's disk.
    Queued,
    /// In the catalog: listed, its raw bytes readable.
    Stored,
    /// Found by search too.
    Indexed,
    /// Its raw bytes in the object store too.
    Archived,
}

impl BatchState {
    /// The furthest state of a batch that is stored.
    pub fn of(indexed: bool, archived: bool) -> Self {
        match (indexed, archived) {
            (false, _) => Self::Stored,
            (true, false) => Self::Indexed,
            (true, true) => Self::Archived,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_batch_is_archived_only_when_it_is_indexed_too() {
        assert_eq!(BatchState::of(false, false), BatchState::Stored);
        assert_eq!(BatchState::of(false, true), BatchState::Stored);
        assert_eq!(BatchState::of(true, false), BatchState::Indexed);
        assert_eq!(BatchState::of(true, true), BatchState::Archived);
    }
}
