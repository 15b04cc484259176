//! The form of one queue entry: request batches of one tenant, and one zstd frame of raw lines.
//!
//! Stream fields: `v` version, `t` tenant, `n` events, `b` raw bytes, `h` header (postcard),
//! `p` payload (one zstd frame holding every batch's raw lines end to end, in header order).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Micros;

/// Version of the entry's form. A processor knows this one and the one before.
pub const VERSION: u32 = 1;

/// What the payload holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The request batches, in the order of their bytes in the payload.
    pub batches: Vec<BatchHeader>,
}

/// One request batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// The batch's id.
    pub batch_id: Uuid,
    /// When ingest accepted it.
    pub accepted_at: Micros,
    /// Public part of the key that sent it.
    pub key_id: String,
    /// SHA-256 of the body as decoded, if the client sent an `Idempotency-Key`.
    pub body_hash: Option<[u8; 32]>,
    /// Its events, in the order of their bytes.
    pub events: Vec<EventHeader>,
}

/// One event's bytes and what ingest found out about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHeader {
    /// Length of the raw line in bytes.
    pub length: u32,
    /// The time sent, if ingest could read it.
    pub time: Option<Micros>,
    /// Set if the line can't be processed and goes to the dead letters.
    pub rejected: Option<Rejection>,
}

/// Why ingest kept a line for the dead letters only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// Not a JSON object.
    InvalidJson,
    /// Nested deeper than allowed.
    TooDeep,
    /// Longer than one event may be.
    TooLarge,
    /// More fields than one event may have.
    TooManyFields,
}
