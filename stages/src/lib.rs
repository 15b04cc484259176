//! What a pipeline does to one raw line: pure, with no clock and no I/O.
//!
//! A pipeline's stages make the line that is stored of the line as sent: once, in the processor. The event
//! is then read from the stored line, by the processor to store it and by whoever shows, indexes or
//! rebuilds it later: the same bytes give the same event each time.

mod pipeline;
mod matching;
mod parse;
mod redact;
mod sample;
mod check;
mod line;
mod patterns;
mod fields;
mod json;
mod level;
mod text;
pub mod time;

use std::borrow::Cow;

use fields::{Fields, Names};

pub use check::{Failure, as_line, run_tests, shown};
pub use crds::stage::{PipelineTest, Stage};
pub use json::{Map, Number, Value};
pub use level::normalize as normalize_level;
pub use pipeline::{CompileError, MAX_GROWTH, MAX_PATTERNS, MAX_SPEC_BYTES, MAX_STAGES, Outcome, Pipeline, Rewritten};

/// Characters of a message that the list shows.
pub const MESSAGE_CHARS: usize = 500;
/// Characters kept of a service, application or language: the index takes no longer keyword.
pub const NAME_CHARS: usize = 256;

/// The service of an event that names none.
pub const UNKNOWN_SERVICE: &str = "unknown";

/// What a line begins with that says no more than how long the line was that came.
pub(crate) const WITHHELD: &str = "withheld: ";

/// Why a line can't become an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one JSON object.
    #[error("the line is not a JSON object: {reason}")]
    InvalidJson {
        /// What the parser found, and where.
        reason: String,
    },
    /// The stages could not redact it, so that it was not stored.
    #[error("the line was withheld: the pipeline's stages redact, and could not redact it")]
    Withheld,
}

impl Error {
    /// The stable code that a dead letter carries.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } => "invalid_json",
            Self::Withheld => "withheld",
        }
    }
}

/// One event. Text holds no NUL character, which PostgreSQL could not store.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The time sent, in microseconds since 1970; `None` if it was absent or unusable.
    pub time: Option<i64>,
    /// TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or what was sent, in upper case.
    pub level: String,
    /// What sent it.
    pub service: String,
    /// The application that the service belongs to.
    pub application: Option<String>,
    /// At most [`MESSAGE_CHARS`] characters.
    pub message: String,
    /// The whole text, where the message is only its beginning.
    pub full_log: Option<String>,
    /// Programming or human language, as sent.
    pub language: Option<String>,
    /// `metadata`, if it is an object.
    pub metadata: Option<Map>,
    /// Every field that has no place of its own above.
    pub attributes: Option<Map>,
}

/// The event in a raw line that was accepted at `accepted_at`, in microseconds since 1970.
pub fn event(raw: &[u8], accepted_at: i64) -> Result<Event, Error> {
    let mut fields = Fields::read(raw).map_err(|error| match raw.starts_with(WITHHELD.as_bytes()) {
        true => Error::Withheld,
        false => Error::InvalidJson { reason: error.to_string() },
    })?;

    let time = take_time(&mut fields, accepted_at);
    let level = take_scalar(&mut fields, &fields::LEVEL)
        .map_or_else(|| level::DEFAULT.to_owned(), |sent| level::normalize(&sent));
    let service = take_name(&mut fields, &fields::SERVICE).unwrap_or_else(|| UNKNOWN_SERVICE.to_owned());
    let application = take_name(&mut fields, &fields::APPLICATION);
    let language = take_name(&mut fields, &fields::LANGUAGE);
    let metadata = match fields.take(&fields::METADATA) {
        Some((_, Value::Object(metadata))) => Some(metadata).filter(|metadata| !metadata.is_empty()),
        Some((name, other)) => {
            fields.put_back(name, other);
            None
        }
        None => None,
    };
    let mut full_log = fields.take(&fields::FULL_LOG).map(|(_, value)| text::of(value));
    let sent = fields.take(&fields::MESSAGE);
    let (name, whole) = match (sent, &full_log) {
        (Some((name, value)), _) => (name, text::of(value)),
        (None, Some(full_log)) => (fields::FIRST_MESSAGE, full_log.lines().next().unwrap_or_default().to_owned()),
        (None, None) => (fields::FIRST_MESSAGE, text::without_nul(String::from_utf8_lossy(raw).trim().to_owned())),
    };
    let shown = text::cut(&whole, MESSAGE_CHARS).len();
    let message = if shown == whole.len() {
        whole
    } else {
        let message = whole[..shown].to_owned();
        match &full_log {
            None => full_log = Some(whole),
            // The beginning of the text given in full needs no second copy.
            Some(full_log) if full_log.starts_with(&whole) => {}
            Some(_) => fields.put_back(name, Value::String(whole)),
        }
        message
    };
    let attributes = Some(fields.rest()).filter(|rest| !rest.is_empty());
    Ok(Event { time, level, service, application, message, full_log, language, metadata, attributes })
}

/// Takes the time sent. One that can't be used stays where it was, among the attributes.
fn take_time(fields: &mut Fields, accepted_at: i64) -> Option<i64> {
    let (name, value) = fields.take(&fields::TIMESTAMP)?;
    let time = time::parse(&value).filter(|time| time::is_plausible(*time, accepted_at));
    if time.is_none() {
        fields.put_back(name, value);
    }
    time
}

/// Takes a short name. A longer one is cut, and stays whole among the attributes.
fn take_name(fields: &mut Fields, names: &Names) -> Option<String> {
    let (name, value) = fields.take(names)?;
    let whole = match scalar(&value) {
        Some(whole) if !whole.is_empty() => whole,
        _ => {
            fields.put_back(name, value);
            return None;
        }
    };
    let kept = text::cut(&whole, NAME_CHARS).len();
    if kept == whole.len() {
        return Some(whole.into_owned());
    }
    let cut = whole[..kept].to_owned();
    fields.put_back(name, value);
    Some(cut)
}

/// Takes a string, number or truth value as text; anything else stays where it was.
fn take_scalar(fields: &mut Fields, names: &Names) -> Option<String> {
    let (name, value) = fields.take(names)?;
    let scalar = scalar(&value).map(Cow::into_owned);
    if scalar.is_none() {
        fields.put_back(name, value);
    }
    scalar
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text.trim())),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Owned(truth.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
