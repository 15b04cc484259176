//! Event rows in PostgreSQL's binary COPY form: a quarter of the cost of inserts.

use uuid::Uuid;

use crate::event::Micros;
use crate::stores::batch::{Batch, BatchEvent};

/// The statement that takes [`rows`].
pub(super) const COPY_LOGS: &str = "COPY logs (event_id, event_time, batch_id, raw_offset, raw_length, level, service, \
                                    application, language, message, flags) FROM STDIN (FORMAT binary)";

const COLUMNS: i16 = 11;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// PostgreSQL counts from 2000-01-01.
const POSTGRES_EPOCH: Micros = 946_684_800_000_000;
/// What a row takes beyond its texts: lengths, ids and numbers.
const ROW_BYTES: usize = 96;

/// One row to be: an event and the batch it belongs to.
pub(super) type Row<'a> = (Uuid, &'a BatchEvent);

/// The rows of these batches.
pub(super) fn rows_of<'a>(batches: impl Iterator<Item = &'a Batch>) -> Vec<Row<'a>> {
    batches.flat_map(|batch| batch.events.iter().map(|event| (batch.batch_id, event))).collect()
}

/// The whole COPY of these rows.
pub(super) fn encode(rows: &[Row<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.iter().map(|(_, row)| row_bytes(row)).sum::<usize>() + 32);
    out.extend_from_slice(SIGNATURE);
    // Neither flags nor an extension of the header.
    out.extend_from_slice(&[0; 8]);
    for (batch_id, row) in rows {
        out.extend_from_slice(&COLUMNS.to_be_bytes());
        field(&mut out, row.id.as_bytes());
        field(&mut out, &row.time.saturating_sub(POSTGRES_EPOCH).to_be_bytes());
        field(&mut out, batch_id.as_bytes());
        field(&mut out, &integer(row.raw_offset));
        field(&mut out, &integer(row.raw_length));
        field(&mut out, row.event.level.as_bytes());
        field(&mut out, row.event.service.as_bytes());
        optional(&mut out, row.event.application.as_deref());
        optional(&mut out, row.event.language.as_deref());
        field(&mut out, row.event.message.as_bytes());
        field(&mut out, &row.flags.to_be_bytes());
    }
    out.extend_from_slice(&(-1_i16).to_be_bytes());
    out
}

/// What a row takes at most.
fn row_bytes(row: &BatchEvent) -> usize {
    let event = &row.event;
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let texts = event.level.len() + event.service.len() + event.message.len();
    ROW_BYTES + texts + optional(&event.application) + optional(&event.language)
}

fn field(out: &mut Vec<u8>, value: &[u8]) {
    // A raw line has at most 1 MiB, so no field of it is longer than an i32 can say.
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => field(out, value.as_bytes()),
        None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
}

/// Places in an entry are below 20 MiB.
fn integer(value: u32) -> [u8; 4] {
    i32::try_from(value).unwrap_or(i32::MAX).to_be_bytes()
}
