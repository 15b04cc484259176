//! From a JSON body to its events: which form it has, where each event begins and ends.
//!
//! Of an array's items and of lines, the good ones are events and the bad ones dead letters; an array of which
//! no one can say where its items end is refused.

use super::events::{Events, problem, unreadable};
use super::inspect::inspect;
use super::lexical::{length_of_item, with_whole_characters};
use super::limits::MAX_EVENTS;
use super::refusal::Refusal;

/// What RFC 7464 begins a record with.
const RECORD_SEPARATOR: u8 = 0x1e;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a sender says about a body's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON document; or objects one after another, which shippers call so too.
    Json,
    /// JSON objects, one a line.
    Lines,
    /// Nothing, or nothing that helps: look at the body.
    Unsaid,
}

impl Form {
    /// Finds the events of a body.
    pub fn split(self, body: &[u8], events: &mut Events<'_>) -> Result<(), Refusal> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let mut reader = Reader { events };
        let start = skip_space(body, 0);
        match (self, body.get(start)) {
            (_, None) => return Err(Refusal::EmptyBatch),
            (Self::Lines, _) => reader.lines(body)?,
            (_, Some(b'[')) => reader.array(body, start + 1)?,
            // One object may span lines; lines of objects begin with one too.
            (Self::Json, _) => match reader.object(body, start)? {
                Document::Whole => {}
                Document::Followed => reader.lines(body)?,
            },
            (Self::Unsaid, _) => match reader.object(body, start) {
                Err(Refusal::InvalidJson { .. }) | Ok(Document::Followed) => reader.lines(body)?,
                done => _ = done?,
            },
        }
        Ok(())
    }
}

struct Reader<'r, 'c> {
    events: &'r mut Events<'c>,
}

/// Whether a body is one object.
enum Document {
    Whole,
    /// Something comes after its first object, and nothing is taken yet.
    Followed,
}

impl Reader<'_, '_> {
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
        self.events.good(&bytes[..length], facts.time)?;
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
        self.events.bound()?;
        let bytes = &body[start..];
        let error = match inspect(bytes) {
            Ok((facts, length)) => {
                self.events.judge(&bytes[..length], &facts, index)?;
                return Ok(start + length);
            }
            Err(error) => Refusal::invalid(index, format!("{error} of the event, which begins at byte {start}")),
        };
        // What is no JSON still ends somewhere, if its brackets and quotation marks match.
        let Some(length) = length_of_item(bytes).filter(|length| *length > 0) else { return Err(error) };
        let item = &bytes[..length];
        if !self.take_objects(item)? {
            self.events.reject(item, unreadable(item), error)?;
        }
        Ok(start + length)
    }

    fn lines(&mut self, body: &[u8]) -> Result<(), Refusal> {
        for (index, line) in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate() {
            if line.is_empty() {
                continue;
            }
            self.events.bound()?;
            match inspect(line) {
                Ok((facts, length)) if length == line.len() => self.events.judge(line, &facts, index)?,
                Ok(_) | Err(_) => {
                    if !self.take_objects(line)? {
                        let why = unreadable(line);
                        self.events.reject(line, why, Refusal::of(why, index))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a line that is made of objects and of what writers put between them: nothing, a comma, or RFC
    /// 7464's record separator. Characters that were cut in two are replaced. Takes nothing of any other line.
    fn take_objects(&mut self, line: &[u8]) -> Result<bool, Refusal> {
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
                _ => return Ok(false),
            }
        }
        for (place, time) in &found {
            self.events.good(&line[place.clone()], *time)?;
        }
        self.events.bound_exceeded()?;
        Ok(!found.is_empty())
    }
}

fn skip_space(body: &[u8], from: usize) -> usize {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    body.get(from..).map_or(body.len(), |rest| from + rest.iter().take_while(|byte| space(byte)).count())
}
