//! The tests of a pipeline: the same for the operator, which accepts only what passes them, and on a
//! laptop.

use std::borrow::Cow;
use std::fmt;

use crds::stage::PipelineTest;
use serde_json::json;

use crate::json::{Map, Value};
use crate::line::{Line, Path};
use crate::{Event, Outcome, Pipeline, time};

/// Characters of a value that a failure quotes.
const QUOTED_CHARS: usize = 120;

/// What a test found to be otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The test's name.
    pub test: String,
    /// What was expected, and what there is.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "test `{}`: {}", self.test, self.what)
    }
}

/// Runs the tests as if their lines were accepted at `accepted_at`. Gives back the first failure of each
/// that fails.
pub fn run_tests(pipeline: &Pipeline, tests: &[PipelineTest], accepted_at: i64) -> Vec<Failure> {
    tests
        .iter()
        .filter_map(|test| {
            let what = run(pipeline, test, accepted_at)?;
            Some(Failure { test: test.name.clone(), what })
        })
        .collect()
}

/// A line as a test or a person gives it: a text that is no JSON object is the message of one.
pub fn as_line(text: &str) -> Cow<'_, str> {
    if text.trim_start().starts_with('{') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(json!({"message": text}).to_string())
    }
}

/// An event as JSON, under the names that the API shows it by.
pub fn shown(event: &Event) -> Map {
    let Event { time, level, service, application, message, full_log, language, metadata, attributes } = event;
    let text = |text: &Option<String>| text.clone().map(Value::String);
    let object = |object: &Option<Map>| object.clone().map(Value::Object);
    [
        ("timestamp", time.map(|time| time::rfc3339(time).into())),
        ("level", Some(level.as_str().into())),
        ("service", Some(service.as_str().into())),
        ("application", text(application)),
        ("message", Some(message.as_str().into())),
        ("full_log", text(full_log)),
        ("language", text(language)),
        ("metadata", object(metadata)),
        ("attributes", object(attributes)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// What is otherwise than expected, if anything is.
fn run(pipeline: &Pipeline, test: &PipelineTest, accepted_at: i64) -> Option<String> {
    let expect = &test.expect;
    let line = as_line(&test.input);
    let event = match pipeline.apply(line.as_bytes(), accepted_at, 0) {
        Err(error) => return Some(format!("the input can't be an event: {error}")),
        Ok(Outcome::Dropped { .. }) if expect.dropped => return None,
        Ok(Outcome::Dropped { stage }) => return Some(format!("expected an event, and stage `{stage}` dropped it")),
        Ok(Outcome::Event(_)) if expect.dropped => {
            return Some("expected it to be dropped, and it is an event".to_owned());
        }
        Ok(Outcome::Event(event)) => event,
    };
    let shown = shown(&event);
    let stored = Value::Object(shown.clone()).to_string();
    let fields = Fields { attributes: Line::of(event.attributes.unwrap_or_default()), shown: Line::of(shown) };
    for (name, expected) in &expect.fields {
        let found = fields.get(name);
        if !found.as_deref().is_some_and(|found| is_same(name, found, &expected.0)) {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| quoted(&found));
            return Some(format!("field `{name}`: expected {}, got {found}", quoted(&expected.0)));
        }
    }
    for name in &expect.absent {
        if let Some(found) = fields.get_anywhere(name) {
            return Some(format!("field `{name}`: expected none, got {}", quoted(&found)));
        }
    }
    // As JSON has it: with quotes and backslashes escaped.
    let escaped = |text: &str| Value::from(text).to_string().trim_matches('"').to_owned();
    let kept = expect.lacks.iter().position(|text| stored.contains(&escaped(text)))?;
    Some(format!("lacks[{kept}]: the event still holds this text"))
}

struct Fields {
    shown: Line<'static>,
    attributes: Line<'static>,
}

impl Fields {
    /// A field of the event, or one of those without a place of their own.
    fn get(&self, name: &str) -> Option<String> {
        let path = Path::new(name);
        Some(self.shown.get(&path).or_else(|| self.attributes.get(&path))?.whole())
    }

    /// The same, in the items of lists too: what must not be there must be nowhere.
    fn get_anywhere(&self, name: &str) -> Option<String> {
        let path = Path::new(name);
        Some(self.shown.get_anywhere(&path).or_else(|| self.attributes.get_anywhere(&path))?.whole())
    }
}

/// Whether a value is the expected one: times may be written in any way.
fn is_same(name: &str, found: &str, expected: &str) -> bool {
    found == expected || (name == "timestamp" && time::parse_text(found) == time::parse_text(expected))
}

fn quoted(text: &str) -> String {
    let cut = crate::text::cut(text, QUOTED_CHARS);
    if cut.len() == text.len() { format!("`{text}`") } else { format!("`{cut}…`") }
}

#[cfg(test)]
mod tests;
