//! From a body to a batch: which form it has, where each event begins and ends, what each is.
//!
//! Of an array's items and of lines, the good ones are events and the bad ones dead letters; a body without
//! a good one is refused, and so is an array of which no one can say where its items end. A sender that wants
//! all or nothing says so ([`Taking::Atomic`]).

use sha2::{Digest, Sha256};

use super::inspect::{Facts, MAX_DEPTH, MAX_FIELDS, inspect};
use super::lexical::{length_of_item, with_whole_characters};
use super::refusal::Refusal;
use crate::event::Micros;
use crate::queue::entry::{EventHeader, Rejection};

/// Longest event: what the index and the list can still show.
pub(super) const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Most events of a body: what one transaction of the catalog can take.
pub(super) const MAX_EVENTS: usize = 10_000;

/// What RFC 7464 begins a record with.
const RECORD_SEPARATOR: u8 = 0x1e;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the sender says about the body's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    /// One JSON document; or objects one after another, which shippers call so too.
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
            ""
            | "text/plain"
            | "application/stream+json"
            | "application/x-json-stream"
            | "application/json-seq"
            | "application/octet-stream"
            | "application/x-www-form-urlencoded" => Ok(Self::Unsaid),
            _ => Err(Refusal::UnsupportedContentType),
        }
    }
}

/// What becomes of the good events beside a bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Taking {
    /// They are kept, and the bad one is a dead letter.
    #[default]
    Each,
    /// Nothing of the body is kept.
    Atomic,
}

impl Taking {
    /// Reads the parameter `atomic` of a request's query.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Refusal> {
        let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=').or(Some((pair, ""))));
        let mut given = pairs.filter(|(name, _)| *name == "atomic").map(|(_, value)| value);
        match (given.next(), given.next()) {
            (None, _) | (Some("false"), None) => Ok(Self::Each),
            (Some("true"), None) => Ok(Self::Atomic),
            _ => Err(Refusal::InvalidAtomic),
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

/// Reads a body that was accepted at `now`.
pub(super) fn parse(body: &[u8], form: ContentType, taking: Taking, now: Micros) -> Result<Parsed, Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut reader = Reader { taking, now, parsed: Parsed::default(), first_bad: None };
    reader.parsed.raw.reserve_exact(body.len());
    let start = skip_space(body, 0);
    match (form, body.get(start)) {
        (_, None) => return Err(Refusal::EmptyBatch),
        (ContentType::Lines, _) => reader.lines(body)?,
        (_, Some(b'[')) => reader.array(body, start + 1)?,
        // One object may span lines; lines of objects begin with one too.
        (ContentType::Json, _) => match reader.object(body, start)? {
            Document::Whole => {}
            Document::Followed => reader.lines(body)?,
        },
        (ContentType::Unsaid, _) => match reader.object(body, start) {
            Err(Refusal::InvalidJson { .. }) | Ok(Document::Followed) => reader.lines(body)?,
            done => _ = done?,
        },
    }
    match reader {
        Reader { parsed, .. } if parsed.events.is_empty() => Err(Refusal::EmptyBatch),
        Reader { parsed, first_bad: Some(first), .. } if parsed.rejected == parsed.events.len() => Err(first),
        Reader { parsed, .. } => Ok(parsed),
    }
}

struct Reader {
    taking: Taking,
    now: Micros,
    parsed: Parsed,
    /// Why the first bad event is none: the answer if there is no good one.
    first_bad: Option<Refusal>,
}

/// Whether a body is one object.
enum Document {
    Whole,
    /// Something comes after its first object, and nothing is taken yet.
    Followed,
}

impl Reader {
    fn object(&mut self, body: &[u8], start: usize) -> Result<Document, Refusal> {
        let bytes = &body[start..];
        let (facts, length) = match inspect(bytes) {
            Ok(found) => found,
            Err(error) => match with_whole_characters(bytes) {
                Some(mended) if inspect(&mended).is_ok() => return self.object(&mended, 0),
                _ => return Err(Refusal::invalid(0, format!("{error} of the event, which begins at byte {start}"))),
            },
        };
        if skip_space(bytes, length) != bytes.len() {
            return Ok(Document::Followed);
        }
        if let Some(problem) = problem(&facts, length) {
            return Err(Refusal::of(problem, 0));
        }
        self.push(&bytes[..length], facts.time, None);
        Ok(Document::Whole)
    }

    /// `at` is behind the opening bracket.
    fn array(&mut self, body: &[u8], at: usize) -> Result<(), Refusal> {
        let mut at = skip_space(body, at);
        let mut index = 0;
        if body.get(at) != Some(&b']') {
            loop {
                at = skip_space(body, self.item(body, at, index)?);
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

    /// One item of an array; gives back where it ends.
    fn item(&mut self, body: &[u8], start: usize, index: usize) -> Result<usize, Refusal> {
        self.bound()?;
        let bytes = &body[start..];
        let error = match inspect(bytes) {
            Ok((facts, length)) => {
                match problem(&facts, length) {
                    None => self.push(&bytes[..length], facts.time, None),
                    Some(problem) => self.reject(&bytes[..length], problem, Refusal::of(problem, index))?,
                }
                return Ok(start + length);
            }
            Err(error) => Refusal::invalid(index, format!("{error} of the event, which begins at byte {start}")),
        };
        // What is no JSON still ends somewhere, if its brackets and quotation marks match.
        let Some(length) = length_of_item(bytes).filter(|length| *length > 0) else { return Err(error) };
        let item = &bytes[..length];
        if self.take_objects(item) {
            self.bound_exceeded()?;
        } else {
            let problem = if length > MAX_EVENT_BYTES { Rejection::TooLarge } else { Rejection::InvalidJson };
            self.reject(item, problem, error)?;
        }
        Ok(start + length)
    }

    fn lines(&mut self, body: &[u8]) -> Result<(), Refusal> {
        for (index, line) in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate() {
            if line.is_empty() {
                continue;
            }
            self.bound()?;
            match inspect(line) {
                Ok((facts, length)) if length == line.len() => match problem(&facts, length) {
                    None => self.push(line, facts.time, None),
                    Some(problem) => self.reject(line, problem, Refusal::of(problem, index))?,
                },
                Ok(_) | Err(_) if self.take_objects(line) => self.bound_exceeded()?,
                Ok(_) | Err(_) => {
                    let problem =
                        if line.len() > MAX_EVENT_BYTES { Rejection::TooLarge } else { Rejection::InvalidJson };
                    self.reject(line, problem, Refusal::of(problem, index))?;
                }
            }
        }
        Ok(())
    }

    /// Takes a line that is made of objects and of what writers put between them: nothing, a comma, or RFC
    /// 7464's record separator. Characters that were cut in two are replaced. Takes nothing of any other line.
    fn take_objects(&mut self, line: &[u8]) -> bool {
        let mended = with_whole_characters(line);
        let line = mended.as_deref().unwrap_or(line);
        let between = |from: usize| {
            let rest = line[from..].iter().copied();
            from + rest.take_while(|byte| matches!(*byte, b' ' | b'\t' | b'\r' | b',' | RECORD_SEPARATOR)).count()
        };
        let mut found = Vec::new();
        let mut at = between(0);
        while at < line.len() {
            match inspect(&line[at..]) {
                Ok((facts, length)) if problem(&facts, length).is_none() && found.len() <= MAX_EVENTS => {
                    found.push((at..at + length, facts.time));
                    at = between(at + length);
                }
                _ => return false,
            }
        }
        for (place, time) in &found {
            self.push(&line[place.clone()], *time, None);
        }
        !found.is_empty()
    }

    fn reject(&mut self, bytes: &[u8], problem: Rejection, refusal: Refusal) -> Result<(), Refusal> {
        if self.taking == Taking::Atomic {
            return Err(refusal);
        }
        self.first_bad.get_or_insert(refusal);
        self.push(bytes, None, Some(problem));
        Ok(())
    }

    /// Whether there is room for one more.
    fn bound(&self) -> Result<(), Refusal> {
        if self.parsed.events.len() >= MAX_EVENTS { Err(Refusal::TooManyEvents) } else { Ok(()) }
    }

    /// Whether a line or an item of several objects was one too many.
    fn bound_exceeded(&self) -> Result<(), Refusal> {
        if self.parsed.events.len() > MAX_EVENTS { Err(Refusal::TooManyEvents) } else { Ok(()) }
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

/// What forbids to process an event.
fn problem(facts: &Facts, length: usize) -> Option<Rejection> {
    if length > MAX_EVENT_BYTES { Some(Rejection::TooLarge) } else { facts.problem }
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
