//! An event as the index keeps it.

use query::leaves::Leaves;
use serde::Serialize;
use stages::Map;
use uuid::Uuid;

use crate::event::{flag_names, rfc3339};
use crate::stores::batch::{Batch, BatchEvent};

/// The form of the documents that are made now: of 1 are those before numbers and times had words to be compared by.
pub const FORM: u32 = 2;

/// What `_source` holds: the event as it is shown, less what changes later.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    #[serde(rename = "@timestamp")]
    at: String,
    id: Uuid,
    accepted_at: &'a str,
    tenant: &'a str,
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<&'a str>,
    level: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_log: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Map>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a Map>,
    /// What can be searched for in the two.
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    leaves: Leaves<'a>,
    /// [`FORM`], by which search knows what can be compared. Not indexed.
    form: u32,
    batch_id: Uuid,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    /// Why this document does not hold the whole event, where it does not: its raw line does.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_error: Option<String>,
}

impl<'a> Document<'a> {
    /// The document of one event; `accepted_at` is its batch's, as it is shown.
    pub fn new(tenant: &'a str, batch: &Batch, accepted_at: &'a str, event: &'a BatchEvent) -> Self {
        let BatchEvent { id, time, flags, event: said, .. } = event;
        let (metadata, attributes) = (said.metadata.as_ref(), said.attributes.as_ref());
        Self {
            at: rfc3339(*time),
            id: *id,
            accepted_at,
            tenant,
            service: &said.service,
            application: said.application.as_deref(),
            level: &said.level,
            message: &said.message,
            full_log: said.full_log.as_deref(),
            language: said.language.as_deref(),
            metadata,
            attributes,
            leaves: Leaves { metadata, attributes },
            form: FORM,
            batch_id: batch.batch_id,
            flags: flag_names(*flags),
            index_error: None,
        }
    }

    /// The same with its message only, for an event that OpenSearch refuses as a whole.
    pub fn reduced(self, reason: String) -> Self {
        Self {
            full_log: None,
            metadata: None,
            attributes: None,
            leaves: Leaves { metadata: None, attributes: None },
            index_error: Some(reason),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn documents(line: &Value) -> (Value, Value) {
        let batch = Batch {
            batch_id: Uuid::from_u128(1),
            accepted_at: 1_767_323_045_000_000,
            key_id: "k".into(),
            body_hash: None,
            first_batch_id: None,
            raw_start: 0,
            raw_bytes: 0,
            events: Vec::new(),
            dead_letters: Vec::new(),
            dropped: Vec::new(),
        };
        let event = stages::event(line.to_string().as_bytes(), batch.accepted_at).unwrap();
        let time = event.time.unwrap_or(batch.accepted_at);
        let event = BatchEvent { id: Uuid::from_u128(2), raw_offset: 0, raw_length: 0, time, flags: 0, event };
        let accepted_at = rfc3339(batch.accepted_at);
        let document = || Document::new("acme", &batch, &accepted_at, &event);
        let whole = serde_json::to_value(document()).unwrap();
        (whole, serde_json::to_value(document().reduced("why".into())).unwrap())
    }

    #[test]
    fn a_document_is_the_event_less_what_is_absent() {
        let line = json!({"message": "m", "service": "s", "level": "warn", "timestamp": "2026-01-02T03:04:05Z", "metadata": {"a": 1}, "b": [true]});
        let (whole, reduced) = documents(&line);
        let mut expected = json!({
            "@timestamp": "2026-01-02T03:04:05.000000Z", "accepted_at": "2026-01-02T03:04:05.000000Z",
            "id": Uuid::from_u128(2), "batch_id": Uuid::from_u128(1), "tenant": "acme", "service": "s",
            "level": "WARN", "message": "m", "metadata": {"a": 1}, "attributes": {"b": [true]},
            "leaves": ["metadata.a=1", "metadata.a\u{1}bff0000000000000", "attributes.b=true"], "form": 2,
        });
        assert_eq!(whole, expected);
        let fields = expected.as_object_mut().unwrap();
        fields.retain(|field, _| !["metadata", "attributes", "leaves"].contains(&field.as_str()));
        fields.insert("index_error".to_owned(), json!("why"));
        assert_eq!(reduced, expected);
    }
}
