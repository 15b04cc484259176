//! An event as the live tail shows it.

use std::borrow::Cow;

use api::tail::TailEvent;
use uuid::Uuid;

use super::{Micros, rfc3339};

/// Flag in the catalog: the time sent was absent or unusable, so the event's time is acceptance.
pub const TIME_OF_ACCEPTANCE: i16 = 1;

/// The catalog's flags by their names.
pub fn flag_names(flags: i16) -> Vec<&'static str> {
    if flags & TIME_OF_ACCEPTANCE != 0 { vec!["time_of_acceptance"] } else { Vec::new() }
}

/// An event as it comes from the stages.
pub fn shown<'a>(
    tenant: &'a str,
    batch_id: Uuid,
    accepted_at: Micros,
    id: Uuid,
    event: &'a stages::Event,
) -> TailEvent<'a> {
    let flags = if event.time.is_none() { TIME_OF_ACCEPTANCE } else { 0 };
    TailEvent {
        id,
        timestamp: rfc3339(event.time.unwrap_or(accepted_at)),
        accepted_at: rfc3339(accepted_at),
        tenant: tenant.into(),
        service: event.service.as_str().into(),
        application: event.application.as_deref().map(Cow::Borrowed),
        level: event.level.as_str().into(),
        message: event.message.as_str().into(),
        full_log: event.full_log.as_deref().map(Cow::Borrowed),
        language: event.language.as_deref().map(Cow::Borrowed),
        metadata: event.metadata.as_ref().map(Cow::Borrowed),
        attributes: event.attributes.as_ref().map(Cow::Borrowed),
        batch_id,
        raw_path: None,
        indexed: false,
        flags: flag_names(flags).into_iter().map(Cow::Borrowed).collect(),
    }
}
