//! What one request may hold, by whatever protocol it comes.

use crate::queue::entry::MAX_RAW_BYTES;

/// Longest body, as sent and as unpacked: Logstash sends up to 20 MiB at once, and an entry of
/// the queue holds one body.
pub(super) const MAX_BYTES: usize = MAX_RAW_BYTES;
/// Longest event: what the index and the list can still show.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Most events of a request: what one transaction of the catalog can take.
pub(super) const MAX_EVENTS: usize = 10_000;
/// Deepest nesting of an event, itself being 1. Real events stay below 10.
pub(super) const MAX_DEPTH: usize = 32;
/// Most fields of an event, at any depth.
pub(super) const MAX_FIELDS: usize = 1_000;
/// Longest idempotency key.
pub(super) const MAX_IDEMPOTENCY_KEY: usize = 255;

/// What a request takes from the budget before its bytes: its head, buffers and its task.
pub(super) const REQUEST_COST: usize = 16 * 1024;
/// What a byte of a request costs while it is in flight: itself, and its copy in the batch.
pub(super) const BYTE_COST: usize = 2;
