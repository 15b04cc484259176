//! Doors of this room for the fuzz targets.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;

use super::events::{Events, Taking};
use super::limits::{BYTE_COST, MAX_BYTES, MAX_EVENTS};
use super::parse::Form;
use super::protocols::http;
use crate::event::new_batch_id;
use crate::queue::Budget;
use crate::queue::entry::{BatchHeader, Header};
use crate::stores::batch::{Treatment, map};

/// An ordinary time.
const NOW: i64 = 1_767_323_045_000_000;

/// Parses a body in one of the three forms and maps what came of it.
pub(crate) fn parse_as(form: u8, body: &[u8]) {
    let form = [Form::Json, Form::Lines, Form::Unsaid][usize::from(form % 3)];
    let mut claim = Budget::new(0).claim();
    let mut events = Events::new(Taking::Each, NOW, body.len(), &mut claim);
    let split = form.split(body, &mut events);
    let Ok(parsed) = split.and_then(|()| events.finish()) else { return };
    assert!((1..=MAX_EVENTS).contains(&parsed.events.len()));
    let lengths: usize = parsed.events.iter().map(|event| event.length as usize).sum();
    assert_eq!(lengths, parsed.raw.len(), "every raw byte is some event's");
    let rejected = parsed.events.iter().filter(|event| event.rejected.is_some()).count();
    assert_eq!(rejected, parsed.rejected.len());
    let header = BatchHeader {
        batch_id: new_batch_id(),
        accepted_at: NOW,
        key_id: String::new(),
        body_hash: None,
        events: parsed.events,
    };
    let batch = map(&Header { batches: vec![header] }, &parsed.raw, Treatment::Process).remove(0);
    assert_eq!(batch.dead_letters.len(), rejected, "what ingest lets through, the stages take");
}

/// Reads a body under its headers: bounded, whatever it decompresses to.
pub(crate) fn read(headers: &HeaderMap, sent: Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let mut claim = Budget::new(4 * MAX_BYTES).claim();
    let hold = |bytes| Ok(claim.grow(BYTE_COST * bytes)?);
    let Ok(packed) = runtime.block_on(http::read(headers, Body::from(sent), Duration::MAX, hold)) else { return };
    let Ok(mut unpacking) = packed.unpacking() else { return };
    if let Ok(body) = unpacking.whole(&mut claim) {
        assert!(body.len() <= MAX_BYTES);
    }
}
