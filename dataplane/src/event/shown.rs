//! An event as the API and the live tail show it.

use serde::Serialize;
use stages::Map;
use uuid::Uuid;

use super::{Micros, rfc3339};

/// One event as JSON. A list leaves out the fields marked so.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    /// The event's id.
    pub id: Uuid,
    /// When it happened.
    pub timestamp: String,
    /// When it was accepted.
    pub accepted_at: String,
    /// Whose it is.
    pub tenant: &'a str,
    /// What sent it.
    pub service: &'a str,
    /// The application that the service belongs to.
    pub application: Option<&'a str>,
    /// Its level.
    pub level: &'a str,
    /// The first 500 characters of its message.
    pub message: &'a str,
    /// The whole text; not in lists.
    pub full_log: Option<&'a str>,
    /// Programming or human language.
    pub language: Option<&'a str>,
    /// As sent; not in lists.
    pub metadata: Option<&'a Map>,
    /// Fields that have no place of their own; not in lists.
    pub attributes: Option<&'a Map>,
    /// The request batch that it came in.
    pub batch_id: Uuid,
    /// Where its raw line is.
    pub raw_path: Option<String>,
    /// Whether the index has it.
    pub indexed: bool,
    /// What is special about it.
    pub flags: Vec<&'static str>,
}

/// Flag in the catalog: the time sent was absent or unusable, so the event's time is acceptance.
pub const TIME_OF_ACCEPTANCE: i16 = 1;

/// The catalog's flags by their names.
pub fn flag_names(flags: i16) -> Vec<&'static str> {
    if flags & TIME_OF_ACCEPTANCE != 0 { vec!["time_of_acceptance"] } else { Vec::new() }
}

impl<'a> Shown<'a> {
    /// An event as it comes from the stages.
    pub fn new(tenant: &'a str, batch_id: Uuid, accepted_at: Micros, id: Uuid, event: &'a stages::Event) -> Self {
        let flags = if event.time.is_none() { TIME_OF_ACCEPTANCE } else { 0 };
        Self {
            id,
            timestamp: rfc3339(event.time.unwrap_or(accepted_at)),
            accepted_at: rfc3339(accepted_at),
            tenant,
            service: &event.service,
            application: event.application.as_deref(),
            level: &event.level,
            message: &event.message,
            full_log: event.full_log.as_deref(),
            language: event.language.as_deref(),
            metadata: event.metadata.as_ref(),
            attributes: event.attributes.as_ref(),
            batch_id,
            raw_path: None,
            indexed: false,
            flags: flag_names(flags),
        }
    }
}
