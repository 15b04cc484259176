//! From a body to a batch: which form it has, where each event begins and ends, what each is.
//!
//! An object or an array is taken whole or not at all. Of lines, the good ones are events and the
//! bad ones dead letters; only a body without a good line is refused.

use sha2::{Digest, Sha256};

use super::inspect::{MAX_DEPTH, MAX_FIELDS, inspect};
use super::refusal::Refusal;
use crate::event::Micros;
use crate::queue::entry::{EventHeader, Rejection};

/// Longest event: what the index and the list can still show.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Most events of a body: what one transaction of the catalog can take.
pub(super) const MAX_EVENTS: usize = 10_000;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the sender says about the body's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    /// One JSON document.
    Json,
    /// JSON objects, one a line.
    Lines,
    /// Nothing, or nothing that helps: look at the body.
    Unsaid,
}

impl ContentType {
    /// Reads the header's value.
    pub(super) fn parse(value: Option<&str>) -> Result<Self, Refusal> {
        let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "text/json" => Ok(Self::Json),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines" => Ok(Self::Lines),
            "" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(Self::Unsaid),
            _ => Err(Refusal::UnsupportedContentType),
        }
    }
}

/// A body's events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// What was found out about each event.
    pub(super) events: Vec<EventHeader>,
    /// Their bytes exactly as sent, end to end.
    pub(super) raw: Vec<u8>,
    /// How many of them are for the dead letters.
    pub(super) rejected: usize,
}

/// SHA-256 of a body, to tell a resend from another body under the same key.
pub(super) fn body_hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Reads a body that `tenant`'s key sent, accepted at `now`.
pub(super) fn parse(body: &[u8], form: ContentType, tenant: &str, now: Micros) -> Result<Parsed, Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut reader = Reader { tenant, now, parsed: Parsed::default() };
    reader.parsed.raw.reserve_exact(body.len());
    let start = skip_space(body, 0);
    match (form, body.get(start)) {
        (_, None) => return Err(Refusal::EmptyBatch),
        (ContentType::Lines, _) => reader.lines(body)?,
        (_, Some(b'[')) => reader.array(body, start + 1)?,
        (ContentType::Json, _) => reader.object(body, start)?,
        // One object may span lines; lines of objects begin with one too.
        (ContentType::Unsaid, _) => match reader.object(body, start) {
            Err(Refusal::InvalidJson { .. }) => {
                reader.parsed = Parsed::default();
                reader.lines(body)?;
            }
            done => done?,
        },
    }
    match reader.parsed {
        parsed if parsed.events.is_empty() => Err(Refusal::EmptyBatch),
        parsed if parsed.rejected == parsed.events.len() => Err(none_parses(&parsed)),
        parsed => Ok(parsed),
    }
}

struct Reader<'a> {
    tenant: &'a str,
    now: Micros,
    parsed: Parsed,
}

impl Reader<'_> {
    fn object(&mut self, body: &[u8], start: usize) -> Result<(), Refusal> {
        let end = self.whole(body, start, 0)?;
        match skip_space(body, end) {
            after if after == body.len() => Ok(()),
            after => Err(Refusal::invalid(0, format!("something follows the object at byte {after}"))),
        }
    }

    /// `at` is behind the opening bracket.
    fn array(&mut self, body: &[u8], at: usize) -> Result<(), Refusal> {
        let mut at = skip_space(body, at);
        let mut index = 0;
        if body.get(at) != Some(&b']') {
            loop {
                at = skip_space(body, self.whole(body, at, index)?);
                match body.get(at) {
                    Some(b',') => at = skip_space(body, at + 1),
                    Some(b']') => break,
                    _ => return Err(Refusal::invalid(index, format!("expected `,` or `]` at byte {at}"))),
                }
                index += 1;
            }
        }
        match skip_space(body, at + 1) {
            after if after == body.len() => Ok(()),
            after => Err(Refusal::invalid(index, format!("something follows the array at byte {after}"))),
        }
    }

    /// One event of a body that is taken whole; gives back where it ends.
    fn whole(&mut self, body: &[u8], start: usize, index: usize) -> Result<usize, Refusal> {
        self.bound()?;
        let (facts, length) = inspect(&body[start..], self.tenant)
            .map_err(|error| Refusal::invalid(index, format!("{error} of the event, which begins at byte {start}")))?;
        if facts.foreign_tenant {
            return Err(Refusal::TenantMismatch);
        }
        if length > MAX_EVENT_BYTES {
            return Err(Refusal::of(Rejection::TooLarge, index));
        }
        if let Some(problem) = facts.problem {
            return Err(Refusal::of(problem, index));
        }
        self.push(&body[start..start + length], facts.time, None);
        Ok(start + length)
    }

    fn lines(&mut self, body: &[u8]) -> Result<(), Refusal> {
        for line in body.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            self.bound()?;
            if line.len() > MAX_EVENT_BYTES {
                self.push(line, None, Some(Rejection::TooLarge));
                continue;
            }
            match inspect(line, self.tenant) {
                Ok((facts, _)) if facts.foreign_tenant => return Err(Refusal::TenantMismatch),
                Ok((facts, length)) if length == line.len() => self.push(line, facts.time, facts.problem),
                Ok(_) | Err(_) => self.push(line, None, Some(Rejection::InvalidJson)),
            }
        }
        Ok(())
    }

    fn bound(&self) -> Result<(), Refusal> {
        if self.parsed.events.len() >= MAX_EVENTS { Err(Refusal::TooManyEvents) } else { Ok(()) }
    }

    fn push(&mut self, bytes: &[u8], time: Option<Micros>, rejected: Option<Rejection>) {
        let time = time.filter(|time| stages::time::is_plausible(*time, self.now));
        // A body is far below 4 GiB.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.parsed.raw.extend_from_slice(bytes);
        self.parsed.rejected += usize::from(rejected.is_some());
        self.parsed.events.push(EventHeader { length, time, rejected });
    }
}

/// Why a body without a good line is refused: its first line's reason.
fn none_parses(parsed: &Parsed) -> Refusal {
    match parsed.events[0].rejected {
        Some(problem @ (Rejection::TooDeep | Rejection::TooLarge | Rejection::TooManyFields)) => {
            Refusal::of(problem, 0)
        }
        _ => Refusal::invalid(0, "no line is a JSON object".to_owned()),
    }
}

impl Refusal {
    fn invalid(index: usize, reason: String) -> Self {
        Self::InvalidJson { index, reason }
    }

    fn of(problem: Rejection, index: usize) -> Self {
        match problem {
            Rejection::InvalidJson => Self::invalid(index, "it is not a JSON object".to_owned()),
            Rejection::TooDeep => Self::TooDeep { index, limit: MAX_DEPTH },
            Rejection::TooLarge => {
                Self::EventTooLarge { index, reason: format!("it is longer than {MAX_EVENT_BYTES} bytes") }
            }
            Rejection::TooManyFields => {
                Self::EventTooLarge { index, reason: format!("it has more than {MAX_FIELDS} fields") }
            }
        }
    }
}

fn skip_space(body: &[u8], from: usize) -> usize {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    body.get(from..).map_or(body.len(), |rest| from + rest.iter().take_while(|byte| space(byte)).count())
}
