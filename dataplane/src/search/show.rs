//! What clients see: events, pages and batches as JSON.

use serde::{Deserialize, Serialize};
use stages::Map;
use uuid::Uuid;

use query::cursor::Cursor;

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// PostgreSQL's rows.
    Catalog,
    /// OpenSearch.
    Index,
    /// Raw bytes in PostgreSQL, not archived yet.
    Spool,
    /// Raw bytes in the object store.
    Archive,
    /// The queue, by its receipt.
    Queue,
}

/// An event in a list: what its row holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// The event's id.
    pub id: Uuid,
    /// When it happened.
    pub timestamp: String,
    /// When it was accepted.
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
#[derive(Debug, Serialize)]
pub struct Event {
    /// What its row holds.
    #[serde(flatten)]
    pub item: Item,
    /// The whole text, where it is more than the message.
    pub full_log: Option<String>,
    /// What the client sent as `metadata`.
    pub metadata: Option<Map>,
    /// Fields that LoggerHub has no name for.
    pub attributes: Option<Map>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether nothing is missing from it.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

/// A page of a list or a search.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// The events, newest first.
    pub items: Vec<Item>,
    /// What to send as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether every event that matches is on this page or a later one.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

/// How far a batch has come.
#[derive(Debug, PartialEq, Serialize)]
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
    pub accepted_at: String,
    /// When its rows were written.
    pub stored_at: Option<String>,
    /// When it could be searched.
    pub indexed_at: Option<String>,
    /// When its raw bytes were moved to the object store.
    pub archived_at: Option<String>,
    /// What else came under its `Idempotency-Key` and is not it.
    pub resends: Vec<Resend>,
    /// Where this answer comes from.
    pub source: Source,
    /// Whether nothing is missing from it.
    pub complete: bool,
    /// Why it is not complete, or what is special about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

/// A batch that came under an `Idempotency-Key` after another: with another body, so that it is dead
/// letters, or after the key's window, so that it is events.
#[derive(Debug, PartialEq, Serialize)]
pub struct Resend {
    /// Its own id.
    pub batch_id: Uuid,
    /// When it was accepted.
    pub accepted_at: String,
    /// Events in it.
    pub events: i64,
    /// Lines of it that are dead letters.
    pub dead_letters: Option<i64>,
}

/// How far a batch has come. A batch that is archived before it could be indexed is `stored`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

/// An event as the index holds it.
///
/// Its fields are those of [`Item`] and [`Event`].
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

impl Batch {
    /// The furthest state of a batch that is stored.
    pub fn state_of(indexed: bool, archived: bool) -> BatchState {
        match (indexed, archived) {
            (false, _) => BatchState::Stored,
            (true, false) => BatchState::Indexed,
            (true, true) => BatchState::Archived,
        }
    }
}

/// The first `limit` of what was found, and the cursor after them if there was more.
pub fn cut<T>(mut found: Vec<T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> (Vec<T>, Option<Cursor>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(cursor);
    (found, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shown_with_all_its_digits() {
        let metadata =
            r#"{"neg":-9223372036854775808,"pi":3.14159265358979323846,"price":1.10,"wei":12345678901234567890123}"#;
        let line = format!(r#"{{"message":"m","metadata":{metadata},"n":1e2}}"#);
        let of_raw = stages::event(line.as_bytes(), 0).unwrap();
        let source = format!(
            r#"{{"id":"{id}","@timestamp":"t","accepted_at":"a","service":"s","level":"INFO","message":"m",
                "metadata":{metadata},"attributes":{{"n":1e2}},"batch_id":"{id}","leaves":["metadata.price=1.10"]}}"#,
            id = Uuid::nil()
        );
        let of_index: Document = serde_json::from_str(&source).unwrap();
        for (of_event, attributes) in [(of_raw.metadata, of_raw.attributes), (of_index.metadata, of_index.attributes)] {
            let item = Item {
                id: Uuid::nil(),
                timestamp: String::new(),
                accepted_at: String::new(),
                tenant: "acme".to_owned(),
                service: "s".to_owned(),
                application: None,
                level: "INFO".to_owned(),
                message: "m".to_owned(),
                language: None,
                batch_id: Uuid::nil(),
                raw_path: None,
                indexed: true,
                flags: Vec::new(),
            };
            let event = Event {
                item,
                full_log: None,
                metadata: of_event,
                attributes,
                source: Source::Index,
                complete: true,
                notice: None,
            };
            let shown = serde_json::to_string(&event).unwrap();
            let expected = format!(r#""metadata":{metadata},"attributes":{{"n":1e2}}"#);
            assert!(shown.contains(&expected), "{shown}");
        }
    }

    #[test]
    fn a_page_has_a_cursor_only_if_more_was_found() {
        let cursor = |time: &i64| Cursor { time: *time, event_id: Uuid::nil() };
        assert_eq!(cut(vec![3, 2, 1], 3, cursor), (vec![3, 2, 1], None));
        assert_eq!(cut(vec![3, 2, 1], 2, cursor), (vec![3, 2], Some(cursor(&2))));
        assert_eq!(cut(vec![], 2, cursor), (vec![], None));
    }

    #[test]
    fn a_stored_batch_is_archived_only_when_it_is_indexed_too() {
        assert_eq!(Batch::state_of(false, false), BatchState::Stored);
        assert_eq!(Batch::state_of(false, true), BatchState::Stored);
        assert_eq!(Batch::state_of(true, false), BatchState::Indexed);
        assert_eq!(Batch::state_of(true, true), BatchState::Archived);
    }
}
