//! The events of one request, as its protocol finds them: each is looked at once, and its bytes stand end
//! to end, as the queue takes them.
//!
//! Good events are kept, and bad ones are dead letters; a request without a good one is refused. A sender that
//! wants all or nothing says so ([`Taking::Atomic`]).

use std::collections::BTreeMap;

use serde::Serialize;

use super::inspect::{Facts, inspect};
use super::limits::{MAX_BYTES, MAX_EVENT_BYTES, MAX_EVENTS};
use super::refusal::Refusal;
use crate::event::Micros;
use crate::queue::Claim;
use crate::queue::entry::{EventHeader, Rejection};

/// What becomes of the good events beside a bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Taking {
    /// They are kept, and the bad one is a dead letter.
    #[default]
    Each,
    /// Nothing of the request is kept.
    Atomic,
}

/// An event that is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Its position among the request's events.
    pub position: usize,
    /// Why it is not processed.
    pub why: Rejection,
}

/// What a protocol knows of a line of text.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Known<'a> {
    /// When it was written, in microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Micros>,
    /// How severe it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<&'a str>,
    /// What wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    /// What the service belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<&'a str>,
    /// Everything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<&'a str, &'a str>,
}

/// Takes a request's events one after another.
#[derive(Debug)]
pub struct Events<'a> {
    taking: Taking,
    now: Micros,
    found: Found,
    /// Why the first bad event is none: the answer if there is no good one.
    first_bad: Option<Refusal>,
    claim: &'a mut Claim,
    /// Bytes of events that the claim has room for.
    paid: usize,
}

/// The events that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What was found out about each event.
    pub(super) events: Vec<EventHeader>,
    /// Their bytes, end to end.
    pub(super) raw: Vec<u8>,
    /// Those of them that are for the dead letters.
    pub(super) rejected: Vec<Rejected>,
}

impl<'a> Events<'a> {
    /// None so far, of a body of `paid` bytes, for which the claim has room already.
    pub(super) fn new(taking: Taking, now: Micros, paid: usize, claim: &'a mut Claim) -> Self {
        let mut found = Found::default();
        found.raw.reserve_exact(paid);
        Self { taking, now, found, first_bad: None, claim, paid }
    }

    /// Events taken so far, dead letters included: the position of the next one.
    pub fn len(&self) -> usize {
        self.found.events.len()
    }

    /// Whether none is taken so far.
    pub fn is_empty(&self) -> bool {
        self.found.events.is_empty()
    }

    /// Takes an event that its protocol has as the text of a JSON object, whose bytes are kept as they are.
    pub fn event(&mut self, text: &[u8]) -> Result<(), Refusal> {
        self.bound()?;
        let index = self.len();
        match inspect(text) {
            Ok((facts, length)) if length == text.len() => self.judge(text, &facts, index),
            Ok(_) | Err(_) => {
                let why = unreadable(text);
                self.reject(text, why, Refusal::of(why, index))
            }
        }
    }

    /// Takes an event that its protocol has as a value, which becomes the text of a JSON object.
    pub fn record(&mut self, value: &impl Serialize) -> Result<(), Refusal> {
        self.bound()?;
        let (index, start) = (self.len(), self.found.raw.len());
        if serde_json::to_writer(&mut self.found.raw, value).is_err() {
            return Err(Refusal::of(Rejection::InvalidJson, index));
        }
        self.pay()?;
        let text = &self.found.raw[start..];
        let length = text.len();
        let (time, why) = match inspect(text) {
            Ok((facts, whole)) if whole == length => (facts.time, problem(&facts, length)),
            Ok(_) | Err(_) => (None, Some(unreadable(text))),
        };
        match why {
            None => self.note(length, time, None),
            Some(why) => {
                self.may_reject(Refusal::of(why, index))?;
                self.note(length, None, Some(why));
            }
        }
        Ok(())
    }

    /// Takes a line of text, which becomes an event's message, with what its protocol knows of it.
    pub fn line(&mut self, line: &[u8], known: &Known<'_>) -> Result<(), Refusal> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            known: &'a Known<'a>,
            message: &'a str,
        }
        let message = String::from_utf8_lossy(line);
        self.record(&Line { known, message: &message })
    }

    /// Takes what its protocol could not decode as a dead letter.
    pub fn dead_letter(&mut self, bytes: &[u8], why: Rejection) -> Result<(), Refusal> {
        self.bound()?;
        let index = self.len();
        self.reject(bytes, why, Refusal::of(why, index))
    }

    /// Takes a JSON object by what was found out about it. `index` is where its sender finds it.
    pub(super) fn judge(&mut self, text: &[u8], facts: &Facts, index: usize) -> Result<(), Refusal> {
        match problem(facts, text.len()) {
            None => self.push(text, facts.time, None),
            Some(why) => self.reject(text, why, Refusal::of(why, index)),
        }
    }

    /// Takes an event that is good.
    pub(super) fn good(&mut self, text: &[u8], time: Option<Micros>) -> Result<(), Refusal> {
        self.push(text, time, None)
    }

    /// Takes a bad event; `refusal` is the answer if there is no good one.
    pub(super) fn reject(&mut self, bytes: &[u8], why: Rejection, refusal: Refusal) -> Result<(), Refusal> {
        self.may_reject(refusal)?;
        self.push(bytes, None, Some(why))
    }

    /// Whether there is room for one more.
    pub(super) fn bound(&self) -> Result<(), Refusal> {
        if self.len() >= MAX_EVENTS { Err(Refusal::TooManyEvents) } else { Ok(()) }
    }

    /// Whether what was taken last was too much: several events at once.
    pub(super) fn bound_exceeded(&self) -> Result<(), Refusal> {
        if self.len() > MAX_EVENTS { Err(Refusal::TooManyEvents) } else { Ok(()) }
    }

    /// All of them, if one is good.
    pub(super) fn finish(self) -> Result<Found, Refusal> {
        match self {
            Self { found, .. } if found.events.is_empty() => Err(Refusal::EmptyBatch),
            Self { found, first_bad: Some(first), .. } if found.rejected.len() == found.events.len() => Err(first),
            Self { found, .. } => Ok(found),
        }
    }

    fn may_reject(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        if self.taking == Taking::Atomic {
            return Err(refusal);
        }
        self.first_bad.get_or_insert(refusal);
        Ok(())
    }

    fn push(&mut self, bytes: &[u8], time: Option<Micros>, rejected: Option<Rejection>) -> Result<(), Refusal> {
        self.found.raw.extend_from_slice(bytes);
        self.pay()?;
        self.note(bytes.len(), time, rejected);
        Ok(())
    }

    /// Pays for what a protocol made longer than it came: labels that stand once in it, and in each event here.
    fn pay(&mut self) -> Result<(), Refusal> {
        let length = self.found.raw.len();
        if length <= self.paid {
            return Ok(());
        }
        if length > MAX_BYTES {
            return Err(Refusal::DecompressedTooLarge);
        }
        // What the buffer has room for, since that may be written to.
        let room = self.found.raw.capacity().max(length);
        self.claim.grow(room - self.paid)?;
        self.paid = room;
        Ok(())
    }

    fn note(&mut self, length: usize, time: Option<Micros>, rejected: Option<Rejection>) {
        let time = time.filter(|time| stages::time::is_plausible(*time, self.now));
        if let Some(why) = rejected {
            self.found.rejected.push(Rejected { position: self.len(), why });
        }
        // A request is far below 4 GiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.found.events.push(EventHeader { length, time, rejected });
    }
}

/// What forbids to process an event.
pub(super) fn problem(facts: &Facts, length: usize) -> Option<Rejection> {
    if length > MAX_EVENT_BYTES { Some(Rejection::TooLarge) } else { facts.problem }
}

/// Why bytes that are no JSON object are a dead letter.
pub(super) fn unreadable(bytes: &[u8]) -> Rejection {
    if bytes.len() > MAX_EVENT_BYTES { Rejection::TooLarge } else { Rejection::InvalidJson }
}
