//! Reads fields out of a text: one file a format.
//!
//! Nothing is lost: a text stays where it was, unless fields say all that it says.

mod apache;
mod json;
mod pattern;
mod syslog;

use crds::stage::{Format, OnFailure, Parse};
use regex::Regex;

use crate::json::{Map, Value};
use crate::line::{Line, Path, aliases};
use crate::patterns::Problem;

/// A compiled [`Parse`].
#[derive(Debug)]
pub(crate) struct Parser {
    format: Format,
    field: Path,
    pattern: Option<Regex>,
    into: Option<Path>,
    pub(crate) on_failure: OnFailure,
}

/// What a text says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    /// Fields that take the place of those of the same meaning beside the text.
    fields: Map,
    /// Fields that are wanted only where there are none.
    defaults: Vec<(&'static str, Value)>,
    /// The message inside the text.
    message: Option<String>,
    /// Whether fields and message say everything that the text says.
    complete: bool,
}

impl Parser {
    pub(crate) fn compile(spec: &Parse) -> Result<Self, Problem> {
        let pattern = spec.pattern.as_deref().map(|pattern| pattern::compiled("parse.pattern", pattern)).transpose()?;
        let fits = match spec.format {
            Format::Regex => pattern.is_some(),
            Format::Auto => true,
            _ => pattern.is_none(),
        };
        if !fits {
            let message = "parse.pattern: format Regex needs one, Auto may have one, and no other takes one".to_owned();
            return Err(Problem { code: "invalid_parse", message });
        }
        Ok(Self {
            format: spec.format,
            field: spec.field.as_deref().map_or_else(Path::message, Path::new),
            pattern,
            into: spec.into.as_deref().map(Path::new),
            on_failure: spec.on_failure,
        })
    }

    /// Puts what the text says into the line; `false` if there is no text of this format.
    pub(crate) fn apply(&self, line: &mut Line, accepted_at: i64) -> bool {
        let Some(text) = line.text(&self.field).map(str::to_owned) else { return false };
        let Some(parsed) = self.read(&text, accepted_at) else { return false };
        match &self.into {
            Some(into) => line.set(into, Value::Object(parsed.into_object()).into()),
            None => parsed.merge(line, &self.field, text),
        }
        true
    }

    fn read(&self, text: &str, accepted_at: i64) -> Option<Parsed> {
        let custom = || pattern::read(self.pattern.as_ref()?, text);
        match self.format {
            Format::Json => json::read(text),
            Format::Ndjson => json::read_lines(text),
            Format::Apache => apache::read(text),
            Format::Syslog => syslog::read(text, accepted_at),
            Format::Regex => custom(),
            Format::Auto => json::read(text)
                .or_else(|| syslog::read(text, accepted_at))
                .or_else(|| apache::read(text))
                .or_else(custom),
        }
    }
}

impl Parsed {
    /// The fields as an object of their own.
    fn into_object(mut self) -> Map {
        for (name, value) in self.defaults {
            self.fields.entry(name.to_owned()).or_insert(value);
        }
        if let Some(message) = self.message {
            self.fields.insert("message".to_owned(), Value::String(message));
        }
        self.fields
    }

    /// Makes the fields those of the line. What the text says of its time, level and so on counts
    /// more than what whoever shipped it wrote beside it.
    fn merge(self, line: &mut Line, field: &Path, text: String) {
        let message = self.message.is_some().then_some("message");
        for name in self.fields.keys().map(String::as_str).chain(message) {
            line.remove_names(aliases(name));
        }
        for (name, value) in self.fields {
            line.fields.insert(&name, value.into());
        }
        for (name, value) in self.defaults {
            let path = Path::new(name);
            if line.get(&path).is_none() {
                line.set(&path, value.into());
            }
        }
        let Some(message) = self.message else { return };
        line.fields.insert("message", Value::String(message).into());
        let full_log = Path::new("full_log");
        if field.is_message() && !self.complete && line.get(&full_log).is_none() {
            line.set(&full_log, Value::String(text).into());
        }
    }
}

#[cfg(test)]
mod tests;
