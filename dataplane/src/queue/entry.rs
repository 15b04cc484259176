//! The form of one queue entry: request batches of one tenant, and one zstd frame of raw lines.
//!
//! Stream fields: `v` version, `t` tenant, `n` events, `b` raw bytes, `h` header (postcard),
//! `p` payload (one zstd frame holding every batch's raw lines end to end, in header order).

use crds::TenantName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zstd::bulk::Compressor;

use crate::event::Micros;

/// Version of the entry's form. A processor knows this one and the one before.
pub const VERSION: u32 = 1;

/// Most raw bytes in one entry: one request batch as large as ingest takes one.
pub const MAX_RAW_BYTES: usize = 20 * 1024 * 1024;
/// Most raw bytes that an entry becomes in the spool: the stages may make each line twice as long and
/// 2 KiB more, of 10,000 lines.
pub const MAX_STORED_BYTES: usize = 64 * 1024 * 1024;
const _: () = assert!(2 * MAX_RAW_BYTES + 10_000 * stages::MAX_GROWTH <= MAX_STORED_BYTES);
/// Most bytes of a header: 10,000 events at up to 18 bytes and 2,000 batches at up to 80 stay below.
const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// zstd's fastest ordinary level: half a microsecond an event, 4.5 times smaller.
const COMPRESSION_LEVEL: i32 = 1;

/// What an entry takes in Redis besides its header and payload, about.
const ENTRY_OVERHEAD: usize = 512;

/// Why an entry of a tenant that the registry does not have is put aside.
pub const UNKNOWN_TENANT: &str = "no such tenant";

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

impl EventHeader {
    /// Whether the pipeline's stages dropped the line: nothing of it is stored but its position, which
    /// the ids of the lines behind it follow from. No line that is sent has no length.
    pub fn is_dropped(&self) -> bool {
        self.length == 0 && self.rejected.is_none()
    }
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

/// A stream entry's fields as Redis gives them.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose lines these are.
    pub tenant: TenantName,
    /// The request batches.
    pub header: Header,
    /// The zstd frame as it came.
    pub frame: Vec<u8>,
    /// The raw lines of all batches, end to end.
    pub raw: Vec<u8>,
}

impl Entry {
    /// Events of all batches.
    pub fn events(&self) -> usize {
        self.header.events()
    }

    /// Each batch with its raw bytes.
    pub fn batches(&self) -> impl Iterator<Item = (&BatchHeader, &[u8])> {
        let mut rest = self.raw.as_slice();
        self.header.batches.iter().map(move |batch| {
            let (bytes, after) = rest.split_at(batch.raw_bytes());
            rest = after;
            (batch, bytes)
        })
    }

    /// The entry in the form in which it lay in the queue, for keeping it aside.
    pub fn into_undecodable(self, reason: &'static str) -> Undecodable {
        let header = postcard::to_stdvec(&self.header).unwrap_or_default();
        let fields = [
            ("v", VERSION.to_string().into_bytes()),
            ("t", self.tenant.to_string().into_bytes()),
            ("h", header),
            ("p", self.frame),
        ];
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value)).to_vec();
        Undecodable { reason, tenant: Some(self.tenant), fields }
    }

    /// Reads an entry back; nothing in it is trusted, since whoever reaches Redis could have put
    /// it there.
    pub fn decode(fields: Fields) -> Result<Self, Undecodable> {
        let tenant = field(&fields, b"t").and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
        let undecodable = |reason| Undecodable { reason, tenant: tenant.clone(), fields: fields.clone() };
        let version = number(&fields, b"v").ok_or_else(|| undecodable("no version"))?;
        if version != u64::from(VERSION) {
            return Err(undecodable("a version that is not ours"));
        }
        let Some(name) = tenant.clone() else { return Err(undecodable("no tenant")) };
        let header = field(&fields, b"h").ok_or_else(|| undecodable("no header"))?;
        if header.len() > MAX_HEADER_BYTES {
            return Err(undecodable("the header is too long"));
        }
        let header: Header = postcard::from_bytes(header).map_err(|_| undecodable("the header can't be read"))?;
        let frame = field(&fields, b"p").ok_or_else(|| undecodable("no payload"))?;
        let total = header.raw_bytes().filter(|total| *total <= MAX_RAW_BYTES);
        let total = total.ok_or_else(|| undecodable("more raw bytes than an entry may hold"))?;
        // The capacity bounds what is decompressed: a bomb ends here as an error.
        let raw = zstd::bulk::decompress(frame, total).map_err(|_| undecodable("the payload can't be decompressed"))?;
        if raw.len() != total {
            return Err(undecodable("the payload has not the length that the header says"));
        }
        let frame = frame.to_vec();
        Ok(Self { tenant: name, header, frame, raw })
    }
}

/// An entry that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// What is wrong with it.
    pub reason: &'static str,
    /// Whose it is, if that much can be read.
    pub tenant: Option<TenantName>,
    /// Its fields as they are.
    pub fields: Fields,
}

impl Header {
    /// Events of all batches.
    pub fn events(&self) -> usize {
        self.batches.iter().map(|batch| batch.events.len()).sum()
    }

    /// Raw bytes of all batches; `None` if no machine could hold them.
    fn raw_bytes(&self) -> Option<usize> {
        let lengths = self.batches.iter().flat_map(|batch| &batch.events).map(|event| event.length as usize);
        lengths.into_iter().try_fold(0_usize, usize::checked_add)
    }
}

impl BatchHeader {
    /// Raw bytes of its events.
    pub fn raw_bytes(&self) -> usize {
        self.events.iter().map(|event| event.length as usize).sum()
    }

    /// Each event with its raw line; `raw` holds this batch's bytes.
    pub fn lines<'a>(&'a self, raw: &'a [u8]) -> impl Iterator<Item = (&'a EventHeader, &'a [u8])> {
        let mut rest = raw;
        self.events.iter().map(move |event| {
            let (line, after) = rest.split_at((event.length as usize).min(rest.len()));
            rest = after;
            (event, line)
        })
    }
}

/// An entry ready to be added to a stream.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) header: Vec<u8>,
    pub(super) frame: Vec<u8>,
    pub(super) events: usize,
    pub(super) raw_bytes: usize,
}

/// What frames are compressed with.
pub(super) fn compressor() -> std::io::Result<Compressor<'static>> {
    Compressor::new(COMPRESSION_LEVEL)
}

/// Encodes batches and their raw bytes, given end to end.
pub(super) fn encode(compressor: &mut Compressor<'_>, header: &Header, raw: &[u8]) -> std::io::Result<Encoded> {
    Ok(Encoded {
        header: postcard::to_stdvec(header).map_err(std::io::Error::other)?,
        frame: compressor.compress(raw)?,
        events: header.events(),
        raw_bytes: raw.len(),
    })
}

/// What an entry counts in its lane's counters: its events and its payload bytes. An entry that
/// can't be read counts what it says.
pub(super) fn weight(fields: &Fields) -> (u64, u64) {
    (number(fields, b"n").unwrap_or(0), field(fields, b"p").map_or(0, |payload| payload.len() as u64))
}

/// What an entry counts in its tenant's share of the queue, and whose: its bytes, and what Redis needs
/// for any entry, so that very small ones count too.
pub(super) fn tenant_weight(tenant: &str, header: usize, payload: usize) -> (String, u64) {
    (tenant.to_owned(), (header + payload + ENTRY_OVERHEAD) as u64)
}

/// [`tenant_weight`] of an entry as it is in the stream.
pub(super) fn tenant_weight_of(fields: &Fields) -> (String, u64) {
    let length = |name| field(fields, name).map_or(0, <[u8]>::len);
    let tenant = String::from_utf8_lossy(field(fields, b"t").unwrap_or_default());
    tenant_weight(&tenant, length(b"h"), length(b"p"))
}

fn field<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
}

fn number(fields: &Fields, name: &[u8]) -> Option<u64> {
    std::str::from_utf8(field(fields, name)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: u128, lengths: &[u32]) -> BatchHeader {
        BatchHeader {
            batch_id: Uuid::from_u128(id),
            accepted_at: 1_700_000_000_000_000,
            key_id: "abc".into(),
            body_hash: None,
            events: lengths.iter().map(|length| EventHeader { length: *length, time: None, rejected: None }).collect(),
        }
    }

    fn fields() -> Fields {
        let header = Header { batches: vec![batch(1, &[2, 3]), batch(2, &[1])] };
        let encoded = encode(&mut compressor().unwrap(), &header, b"aabbbc").unwrap();
        [
            ("v", b"1".to_vec()),
            ("t", b"acme".to_vec()),
            ("n", b"3".to_vec()),
            ("h", encoded.header),
            ("p", encoded.frame),
        ]
        .map(|(name, value)| (name.as_bytes().to_vec(), value))
        .to_vec()
    }

    fn with(name: &str, value: &[u8]) -> Fields {
        let mut fields = fields();
        fields.iter_mut().filter(|(key, _)| key == name.as_bytes()).for_each(|field| field.1 = value.to_vec());
        fields
    }

    #[test]
    fn an_entry_reads_back_line_by_line() {
        let entry = Entry::decode(fields()).unwrap();
        let lines: Vec<_> = entry
            .batches()
            .flat_map(|(batch, raw)| batch.lines(raw).map(|(_, line)| (batch.batch_id.as_u128(), line.to_vec())))
            .collect();
        assert_eq!(lines, [(1, b"aa".to_vec()), (1, b"bbb".to_vec()), (2, b"c".to_vec())]);
        assert_eq!((entry.events(), weight(&fields()).0), (3, 3));
    }

    #[test]
    fn an_entry_that_is_not_ours_is_undecodable_and_says_why() {
        let bomb = zstd::bulk::compress(&vec![0; 100_000_000], 1).unwrap();
        let huge = postcard::to_stdvec(&Header { batches: vec![batch(1, &[u32::MAX; 8])] }).unwrap();
        for (changed, reason) in [
            (with("v", b"2"), "a version that is not ours"),
            (with("v", b"one"), "no version"),
            (with("t", b"../x"), "no tenant"),
            (with("t", b"\xff"), "no tenant"),
            (with("h", b"\xff\xff\xff\xff\xff\xff"), "the header can't be read"),
            (with("h", &vec![0; MAX_HEADER_BYTES + 1]), "the header is too long"),
            (with("h", &huge), "more raw bytes than an entry may hold"),
            (with("p", b"garbage"), "the payload can't be decompressed"),
            (with("p", &bomb), "the payload can't be decompressed"),
            (
                with("p", &zstd::bulk::compress(b"short", 1).unwrap()),
                "the payload has not the length that the header says",
            ),
            (Vec::new(), "no version"),
        ] {
            let undecodable = Entry::decode(changed.clone()).unwrap_err();
            assert_eq!(undecodable.reason, reason);
            assert_eq!(undecodable.fields, changed);
        }
    }
}
