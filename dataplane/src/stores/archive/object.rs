//! The form of an archive object.
//!
//! ```text
//!  frame · frame · … · footer (zstd of postcard) · trailer: footer length u64, crc32c of footer u32, "LHZ1"
//! ```
//! A frame is a zstd frame of about 256 KiB of raw lines, cut between two lines and readable by itself.
//! The footer says where each frame begins, with its checksum, and which lines of which batches they
//! hold: with the objects alone, a tenant's rows and index can be made again.

use std::io::Read as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zstd::bulk::Compressor;

use super::{Error, Frames};
use crate::event::{Micros, date_time};
use crate::queue::entry::{BatchHeader, EventHeader};
use crate::tenancy::Tenant;

/// Raw bytes of a frame: one event read costs some 60 KB over the network, and compression is near
/// its best.
const FRAME_BYTES: usize = 256 * 1024;
/// zstd's default: the archive is written once and kept long.
const COMPRESSION_LEVEL: i32 = 3;
/// Version of the form.
const VERSION: u32 = 1;
const MAGIC: [u8; 4] = *b"LHZ1";
/// Bytes after the footer.
pub(super) const TRAILER_BYTES: usize = 16;

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Version of the form.
    pub version: u32,
    /// Whose lines these are.
    pub tenant: String,
    /// Length in raw bytes, length in the object, and crc32c of each frame.
    pub frames: Vec<(u32, u32, u32)>,
    /// When the first and the last batch were accepted.
    pub accepted: (Micros, Micros),
    /// The request batches, in the order of their bytes.
    pub batches: Vec<FooterBatch>,
}

/// One request batch of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FooterBatch {
    /// Its id.
    pub batch_id: Uuid,
    /// When ingest accepted it.
    pub accepted_at: Micros,
    /// Public part of the key that sent it.
    pub key_id: String,
    /// SHA-256 of the body, if the client sent an `Idempotency-Key`.
    pub body_hash: Option<[u8; 32]>,
    /// Its first raw byte in the object.
    pub raw_start: u64,
    /// Its lines.
    pub events: Vec<EventHeader>,
}

impl Footer {
    /// Where the object's frames begin.
    pub fn places(&self) -> Frames {
        frames(self)
    }
}

impl FooterBatch {
    /// Raw bytes of its lines.
    pub fn raw_bytes(&self) -> u64 {
        self.events.iter().map(|event| u64::from(event.length)).sum()
    }

    /// The batch as it came through the queue.
    pub fn into_queued(self) -> BatchHeader {
        let Self { batch_id, accepted_at, key_id, body_hash, raw_start: _, events } = self;
        BatchHeader { batch_id, accepted_at, key_id, body_hash, events }
    }
}

/// An object in the making. Only compressed frames are held, and the lines of one.
pub struct Builder {
    /// One for all frames: its tables are larger than a frame.
    compressor: Compressor<'static>,
    out: Vec<u8>,
    pending: Vec<u8>,
    raw_bytes: u64,
    footer: Footer,
}

/// An object ready to be put.
#[derive(Debug)]
pub struct Built {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// Raw bytes that it holds.
    pub raw_bytes: u64,
    /// Lines that it holds.
    pub events: u64,
    /// Where its frames begin.
    pub frames: Frames,
    /// What it says of itself.
    pub footer: Footer,
}

impl Builder {
    /// An empty object.
    pub fn new(tenant: &Tenant) -> Result<Self, Error> {
        let footer = Footer {
            version: VERSION,
            tenant: tenant.name().to_string(),
            frames: Vec::new(),
            accepted: (Micros::MAX, Micros::MIN),
            batches: Vec::new(),
        };
        let compressor = Compressor::new(COMPRESSION_LEVEL)?;
        Ok(Self { compressor, out: Vec::new(), pending: Vec::with_capacity(FRAME_BYTES), raw_bytes: 0, footer })
    }

    /// Adds a batch and its raw lines.
    pub fn push(&mut self, batch: &BatchHeader, raw: &[u8]) -> Result<(), Error> {
        let raw_start = self.raw_bytes;
        for (_, line) in batch.lines(raw) {
            if !self.pending.is_empty() && self.pending.len() + line.len() > FRAME_BYTES {
                self.cut()?;
            }
            self.pending.extend_from_slice(line);
            self.raw_bytes += line.len() as u64;
        }
        let (first, last) = self.footer.accepted;
        self.footer.accepted = (first.min(batch.accepted_at), last.max(batch.accepted_at));
        self.footer.batches.push(FooterBatch {
            batch_id: batch.batch_id,
            accepted_at: batch.accepted_at,
            key_id: batch.key_id.clone(),
            body_hash: batch.body_hash,
            raw_start,
            events: batch.events.clone(),
        });
        Ok(())
    }

    /// The object; `None` if nothing was added.
    pub fn finish(mut self, tenant: &Tenant) -> Result<Option<Built>, Error> {
        if self.footer.batches.is_empty() {
            return Ok(None);
        }
        if !self.pending.is_empty() {
            self.cut()?;
        }
        let frames = frames(&self.footer);
        let footer = self.compressor.compress(&postcard::to_stdvec(&self.footer)?)?;
        self.out.extend_from_slice(&footer);
        self.out.extend_from_slice(&(footer.len() as u64).to_le_bytes());
        self.out.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        self.out.extend_from_slice(&MAGIC);
        let events = self.footer.batches.iter().map(|batch| batch.events.len() as u64).sum();
        let key = key(tenant, &self.footer, &self.out);
        let bytes = Bytes::from(self.out);
        Ok(Some(Built { key, bytes, raw_bytes: self.raw_bytes, events, frames, footer: self.footer }))
    }

    fn cut(&mut self) -> Result<(), Error> {
        let frame = self.compressor.compress(&self.pending)?;
        // A frame holds 256 KiB, or one line of at most 20 MiB.
        self.footer.frames.push((self.pending.len() as u32, frame.len() as u32, crc32c::crc32c(&frame)));
        self.out.extend_from_slice(&frame);
        self.pending.clear();
        Ok(())
    }
}

/// `<prefix>logs/<tenant>/<date>/<hour>/<first>-<last>-<hash>.lhz`: when the batches were accepted,
/// in milliseconds, and what the bytes are.
fn key(tenant: &Tenant, footer: &Footer, bytes: &[u8]) -> String {
    let (first, last) = footer.accepted;
    let at = date_time(first);
    let hash: String = Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}logs/{}/{:04}-{:02}-{:02}/{:02}/{}-{}-{hash}.lhz",
        tenant.registered().archive.prefix,
        tenant.name(),
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        first / 1000,
        last / 1000,
    )
}

fn frames(footer: &Footer) -> Frames {
    let mut frames = Frames { raw_starts: vec![0], starts: vec![0] };
    let (mut raw, mut start) = (0, 0);
    for (raw_length, length, _) in &footer.frames {
        raw += i64::from(*raw_length);
        start += i64::from(*length);
        frames.raw_starts.push(raw);
        frames.starts.push(start);
    }
    frames
}

/// The footer's length, from an object's last bytes.
pub(super) fn footer_length(trailer: &[u8]) -> Option<u64> {
    let (length, rest) = trailer.split_first_chunk::<8>()?;
    rest.ends_with(&MAGIC).then(|| u64::from_le_bytes(*length))
}

/// Most bytes of a footer, decompressed: an object of the smallest events needs a third of it.
const MAX_FOOTER_BYTES: u64 = 256 * 1024 * 1024;

/// The footer, from an object's bytes that begin with it.
pub(super) fn read_footer(bytes: &[u8]) -> Option<Footer> {
    let (footer, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_BYTES)?)?;
    let checksum = u32::from_le_bytes(trailer.get(8..12)?.try_into().ok()?);
    if checksum != crc32c::crc32c(footer) {
        return None;
    }
    let mut decoded = Vec::new();
    zstd::Decoder::with_buffer(footer).ok()?.take(MAX_FOOTER_BYTES).read_to_end(&mut decoded).ok()?;
    postcard::from_bytes(&decoded).ok()
}

/// `length` bytes after `skip` of what zstd frames hold, and no more.
pub fn unpack(frames: &[u8], skip: u64, length: u64) -> Option<Vec<u8>> {
    let mut reader = zstd::Decoder::with_buffer(frames).ok()?;
    let skipped = std::io::copy(&mut reader.by_ref().take(skip), &mut std::io::sink()).ok()?;
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes).ok()?;
    (skipped == skip && bytes.len() as u64 == length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::fixtures::tenant;

    fn batch(id: u128, line: &str, lines: usize) -> (BatchHeader, Vec<u8>) {
        let event = EventHeader { length: line.len() as u32, time: None, rejected: None };
        let header = BatchHeader {
            batch_id: Uuid::from_u128(id),
            accepted_at: 1_767_323_045_000_000 + id as i64,
            key_id: "k".into(),
            body_hash: None,
            events: vec![event; lines],
        };
        (header, line.repeat(lines).into_bytes())
    }

    fn built() -> Built {
        let tenant = tenant("acme");
        let mut builder = Builder::new(&tenant).unwrap();
        for (header, raw) in
            [batch(1, r#"{"message":"one"}"#, 20_000), batch(2, "x", 3), batch(3, &"y".repeat(400_000), 1)]
        {
            builder.push(&header, &raw).unwrap();
        }
        builder.finish(&tenant).unwrap().unwrap()
    }

    #[test]
    fn the_same_lines_make_the_same_object() {
        let (a, b) = (built(), built());
        assert_eq!((&a.key, &a.bytes), (&b.key, &b.bytes));
        let begin = "logs/acme/2026-01-02/03/1767323045000-1767323045000-";
        assert!(a.key.starts_with(begin) && a.key.ends_with(".lhz"), "{}", a.key);
    }

    #[test]
    fn every_frame_ends_with_a_line_and_reads_by_itself() {
        let built = built();
        for (raw, object) in built.frames.raw_starts.windows(2).zip(built.frames.starts.windows(2)) {
            let frame = &built.bytes[object[0] as usize..object[1] as usize];
            let text = zstd::decode_all(frame).unwrap();
            assert_eq!(text.len() as i64, raw[1] - raw[0]);
            assert!(text.ends_with(b"}") || text.ends_with(b"x") || text.ends_with(b"y"));
        }
        assert!(built.frames.starts.len() > 3, "several frames");
        assert_eq!(built.frames.raw_starts.last(), Some(&(built.raw_bytes as i64)));
    }

    #[test]
    fn the_footer_tells_everything_again_and_damage_is_noticed() {
        let built = built();
        let length = footer_length(&built.bytes[built.bytes.len() - TRAILER_BYTES..]).unwrap();
        let from = built.bytes.len() - TRAILER_BYTES - length as usize;
        assert_eq!(read_footer(&built.bytes[from..]).as_ref(), Some(&built.footer));
        assert_eq!(built.footer.batches[1].raw_start, 20_000 * 17);
        let mut damaged = built.bytes[from..].to_vec();
        damaged[3] ^= 1;
        assert_eq!(read_footer(&damaged), None);
        assert_eq!(read_footer(b"short"), None);
    }

    #[test]
    fn nothing_makes_no_object() {
        let tenant = tenant("acme");
        assert!(Builder::new(&tenant).unwrap().finish(&tenant).unwrap().is_none());
    }
}
