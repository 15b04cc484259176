//! What a frame of raw lines becomes: events to store and index, and dead letters.
//!
//! The mapping depends on nothing but the header and the bytes. So the processor, late indexing,
//! and whoever rebuilds a tenant from its archive come to the same events.

use std::panic::{AssertUnwindSafe, catch_unwind};

use uuid::Uuid;

use crate::event::{EventIds, Micros, TIME_OF_ACCEPTANCE, resend_batch_id};
use crate::queue::entry::{BatchHeader, Header, Rejection};

/// Characters kept of a dead letter's error.
const ERROR_CHARS: usize = 1000;

/// Raw lines as they came through the queue, and what they become.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The header, encoded.
    pub header: Vec<u8>,
    /// One zstd frame of the raw lines.
    pub payload: Vec<u8>,
    /// Length of the raw lines.
    pub raw_bytes: u64,
    /// The request batches.
    pub batches: Vec<Batch>,
}

/// One request batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its id.
    pub batch_id: Uuid,
    /// When ingest accepted it.
    pub accepted_at: Micros,
    /// Public part of the key that sent it.
    pub key_id: String,
    /// SHA-256 of the body, if the client sent an `Idempotency-Key`.
    pub body_hash: Option<[u8; 32]>,
    /// The batch that had its `Idempotency-Key` first, which is what its client calls it by.
    pub first_batch_id: Option<Uuid>,
    /// Its first raw byte, from the frame's first.
    pub raw_start: u64,
    /// Its raw bytes.
    pub raw_bytes: u64,
    /// Its events.
    pub events: Vec<BatchEvent>,
    /// Lines of it that can't be events.
    pub dead_letters: Vec<DeadLetter>,
    /// Where lines were that the pipeline's stages dropped, from the batch's first raw byte, in order.
    pub dropped: Vec<u32>,
}

/// One event of a batch.
#[derive(Debug, Clone)]
pub struct BatchEvent {
    /// Its id.
    pub id: Uuid,
    /// Its first raw byte, from the batch's first.
    pub raw_offset: u32,
    /// Its raw bytes.
    pub raw_length: u32,
    /// When it happened: the time sent, else acceptance.
    pub time: Micros,
    /// Flags of the catalog.
    pub flags: i16,
    /// What it says.
    pub event: stages::Event,
}

/// Why a batch does not count as what its `Idempotency-Key` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// Another body came under the key before: its lines are kept as dead letters.
    OtherBody,
    /// The key's window is over, and the key is free again.
    LaterWindow,
}

/// A line that can't be an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The id that the event would have had.
    pub id: Uuid,
    /// Its first raw byte, from the batch's first.
    pub raw_offset: u32,
    /// Its raw bytes.
    pub raw_length: u32,
    /// Why, for programs.
    pub code: &'static str,
    /// Why, for people.
    pub error: String,
}

/// Whether lines are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Each line goes through the stages.
    Process,
    /// Processors died over this entry: every line is a dead letter, none is looked at.
    DeadLetter,
}

/// The batches of a frame. `raw` has the length that the header says.
pub fn map(header: &Header, raw: &[u8], treatment: Treatment) -> Vec<Batch> {
    let mut start = 0;
    let mut batches = Vec::with_capacity(header.batches.len());
    for batch in &header.batches {
        let bytes = batch.raw_bytes();
        batches.push(map_batch(batch, start as u64, raw.get(start..start + bytes).unwrap_or_default(), treatment));
        start += bytes;
    }
    batches
}

fn map_batch(header: &BatchHeader, raw_start: u64, raw: &[u8], treatment: Treatment) -> Batch {
    let mut batch = Batch {
        batch_id: header.batch_id,
        accepted_at: header.accepted_at,
        key_id: header.key_id.replace('\0', "\u{fffd}"),
        body_hash: header.body_hash,
        first_batch_id: None,
        raw_start,
        raw_bytes: raw.len() as u64,
        events: Vec::with_capacity(header.events.len()),
        dead_letters: Vec::new(),
        dropped: Vec::new(),
    };
    let ids = EventIds::new(header.batch_id, header.accepted_at);
    let mut raw_offset = 0;
    for (position, (event, line)) in (0..).zip(header.lines(raw)) {
        if event.is_dropped() {
            batch.dropped.push(raw_offset);
            continue;
        }
        let id = ids.at(position);
        let mapped = match (treatment, event.rejected) {
            (Treatment::DeadLetter, _) => {
                Err(("deliveries", "processors died while they worked on its entry".to_owned()))
            }
            (_, Some(rejection)) => Err(rejected(rejection)),
            (Treatment::Process, None) => staged(line, header.accepted_at),
        };
        match mapped {
            Ok(staged) => batch.events.push(BatchEvent {
                id,
                raw_offset,
                raw_length: event.length,
                time: staged.time.unwrap_or(header.accepted_at),
                flags: if staged.time.is_none() { TIME_OF_ACCEPTANCE } else { 0 },
                event: staged,
            }),
            Err((code, error)) => {
                batch.dead_letters.push(DeadLetter {
                    id,
                    raw_offset,
                    raw_length: event.length,
                    code,
                    error: kept(&error),
                });
            }
        }
        raw_offset += event.length;
    }
    batch
}

/// The event in a line. A line that makes the stages panic is a dead letter like any other that
/// they refuse.
fn staged(line: &[u8], accepted_at: Micros) -> Result<stages::Event, (&'static str, String)> {
    match catch_unwind(AssertUnwindSafe(|| stages::event(line, accepted_at))) {
        Ok(Ok(event)) => Ok(event),
        Ok(Err(error)) => Err((error.code(), error.to_string())),
        Err(_) => Err(("stages_failed", "the stages failed on this line".to_owned())),
    }
}

fn rejected(rejection: Rejection) -> (&'static str, String) {
    let (code, error) = match rejection {
        Rejection::InvalidJson => ("invalid_json", "not a JSON object"),
        Rejection::TooDeep => ("too_deep", "nested deeper than allowed"),
        Rejection::TooLarge => ("event_too_large", "longer than one event may be"),
        Rejection::TooManyFields => ("too_many_fields", "more fields than one event may have"),
    };
    (code, error.to_owned())
}

/// An error as the catalog keeps it.
pub(super) fn kept(error: &str) -> String {
    error.chars().take(ERROR_CHARS).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

impl Batch {
    /// The id that its client was told.
    pub fn told_id(&self) -> Uuid {
        self.first_batch_id.unwrap_or(self.batch_id)
    }

    /// Whether it came under an `Idempotency-Key` that another body has.
    pub fn is_other_body(&self) -> bool {
        self.first_batch_id.is_some() && self.body_hash.is_none()
    }

    /// Makes it a batch of its own beside the one that had its key first. Its id follows from what
    /// tells the two apart, and its events' ids follow from that, so they meet nobody else's: the
    /// first batch may have been accepted in the same millisecond.
    pub fn tell_apart(&mut self, why: Resend) {
        let first = self.batch_id;
        self.first_batch_id = Some(first);
        self.batch_id = match (why, self.body_hash) {
            (Resend::OtherBody, Some(hash)) => resend_batch_id(first, &hash),
            _ => resend_batch_id(first, &self.accepted_at.to_be_bytes()),
        };
        let mut offsets: Vec<u32> = self.events.iter().map(|event| event.raw_offset).collect();
        offsets.extend(self.dead_letters.iter().map(|letter| letter.raw_offset));
        offsets.sort_unstable();
        let ids = EventIds::new(self.batch_id, self.accepted_at);
        let dropped = std::mem::take(&mut self.dropped);
        let id_at = |offset: u32| {
            let lines = offsets.partition_point(|other| *other < offset);
            // Where a dropped line was, the next one begins.
            let dropped = dropped.partition_point(|other| *other <= offset);
            // A batch has at most 10,000 lines.
            let position = u32::try_from(lines + dropped).unwrap_or(u32::MAX);
            ids.at(position)
        };
        self.events.iter_mut().for_each(|event| event.id = id_at(event.raw_offset));
        self.dead_letters.iter_mut().for_each(|letter| letter.id = id_at(letter.raw_offset));
        self.dropped = dropped;
        if why == Resend::OtherBody {
            // Its key is the first batch's: it has none of its own.
            self.body_hash = None;
            let error = format!("another body came before under the same Idempotency-Key, as batch {first}");
            self.dead_letters.extend(self.events.drain(..).map(|event| DeadLetter {
                id: event.id,
                raw_offset: event.raw_offset,
                raw_length: event.raw_length,
                code: "idempotency_key_reused",
                error: error.clone(),
            }));
        }
    }

    /// Turns the events that a store refused into dead letters.
    pub fn refuse(&mut self, refused: &[(Uuid, String)]) {
        self.events.retain(|event| {
            let Some((_, error)) = refused.iter().find(|(id, _)| *id == event.id) else { return true };
            self.dead_letters.push(DeadLetter {
                id: event.id,
                raw_offset: event.raw_offset,
                raw_length: event.raw_length,
                code: "refused",
                error: kept(error),
            });
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::event_id;
    use crate::queue::entry::EventHeader;

    const ACCEPTED: Micros = 1_767_323_045_000_000;

    fn header(lines: &[&str]) -> (Header, Vec<u8>) {
        let events =
            lines.iter().map(|line| EventHeader { length: line.len() as u32, time: None, rejected: None }).collect();
        let batch = |id: u128, events| BatchHeader {
            batch_id: Uuid::from_u128(id),
            accepted_at: ACCEPTED,
            key_id: "k\0".into(),
            body_hash: None,
            events,
        };
        let first = vec![EventHeader { length: 2, time: None, rejected: Some(Rejection::TooDeep) }];
        (Header { batches: vec![batch(1, first), batch(2, events)] }, format!("[]{}", lines.concat()).into_bytes())
    }

    #[test]
    fn every_line_becomes_an_event_or_a_dead_letter_with_its_place() {
        let (header, raw) =
            header(&[r#"{"message":"a"}"#, "broken", r#"{"message":"b","time":"2026-01-02T03:04:05Z"}"#]);
        let batches = map(&header, &raw, Treatment::Process);
        assert_eq!((batches[0].events.len(), batches[0].dead_letters[0].code), (0, "too_deep"));
        let batch = &batches[1];
        assert_eq!((batch.raw_start, batch.raw_bytes, batch.key_id.as_str()), (2, raw.len() as u64 - 2, "k\u{fffd}"));
        let places: Vec<_> =
            batch.events.iter().map(|e| (e.raw_offset, e.raw_length, e.flags, e.event.message.as_str())).collect();
        assert_eq!(places, [(0, 15, TIME_OF_ACCEPTANCE, "a"), (21, 45, 0, "b")]);
        let dead = &batch.dead_letters[0];
        assert_eq!((dead.raw_offset, dead.raw_length, dead.code), (15, 6, "invalid_json"));
        assert_eq!(dead.id, event_id(Uuid::from_u128(2), ACCEPTED, 1), "ids go by position");
        assert_eq!(batch.events[1].id, event_id(Uuid::from_u128(2), ACCEPTED, 2));
    }

    #[test]
    fn a_line_that_was_dropped_leaves_its_place_to_nobody() {
        let (mut header, raw) = header(&["", r#"{"message":"a"}"#, "", "", r#"{"message":"b"}"#, ""]);
        header.batches.remove(0);
        let mut batch = map(&header, &raw[2..], Treatment::Process).remove(0);
        assert_eq!(
            (batch.events.len(), batch.dead_letters.len(), batch.dropped.as_slice()),
            (2, 0, [0, 15, 15, 30].as_slice())
        );
        let ids = |id: Uuid| [1, 4].map(|position| event_id(id, ACCEPTED, position)).to_vec();
        let found = |batch: &Batch| batch.events.iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(found(&batch), ids(batch.batch_id), "ids go by the position of the line as sent");
        batch.tell_apart(Resend::LaterWindow);
        assert_eq!((found(&batch), batch.dropped.len()), (ids(batch.batch_id), 4));
    }

    #[test]
    fn an_entry_that_killed_processors_is_not_looked_at() {
        let (header, raw) = header(&[r#"{"message":"a"}"#]);
        let batches = map(&header, &raw, Treatment::DeadLetter);
        assert!(batches.iter().all(|batch| batch.events.is_empty() && batch.dead_letters[0].code == "deliveries"));
    }

    #[test]
    fn a_refused_event_becomes_a_dead_letter() {
        let (header, raw) = header(&[r#"{"message":"a"}"#, r#"{"message":"b"}"#]);
        let mut batch = map(&header, &raw, Treatment::Process).remove(1);
        let id = batch.events[0].id;
        batch.refuse(&[(id, "no\0".into())]);
        assert_eq!((batch.events.len(), batch.events[0].event.message.as_str()), (1, "b"));
        assert_eq!((batch.dead_letters[0].id, batch.dead_letters[0].error.as_str()), (id, "no\u{fffd}"));
    }
    #[test]
    fn a_resend_is_a_batch_of_its_own_and_keeps_the_order_of_its_lines() {
        let (header, raw) = header(&[r#"{"message":"a"}"#, "broken", r#"{"message":"b"}"#]);
        let mut first = map(&header, &raw, Treatment::Process).remove(1);
        first.body_hash = Some([7; 32]);
        let (mut other, mut later) = (first.clone(), first.clone());

        other.tell_apart(Resend::OtherBody);
        assert_eq!((other.told_id(), other.is_other_body(), other.events.len()), (first.batch_id, true, 0));
        let codes: Vec<_> = other.dead_letters.iter().map(|letter| (letter.raw_offset, letter.code)).collect();
        let reused = "idempotency_key_reused";
        assert_eq!(codes, [(15, "invalid_json"), (0, reused), (21, reused)]);

        later.tell_apart(Resend::LaterWindow);
        assert_eq!((later.told_id(), later.is_other_body(), later.events.len()), (first.batch_id, false, 2));
        // The same ids as if the lines were mapped under the new id: what late indexing does.
        let renamed = Header { batches: vec![BatchHeader { batch_id: later.batch_id, ..header.batches[1].clone() }] };
        let mapped = map(&renamed, &raw[2..], Treatment::Process).remove(0);
        let ids = |batch: &Batch| batch.events.iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!((ids(&later), later.dead_letters[0].id), (ids(&mapped), mapped.dead_letters[0].id));
        assert!(ids(&later).iter().all(|id| !ids(&first).contains(id)), "accepted at the same time as the first");
        assert_ne!(later.batch_id, other.batch_id);
    }
}
