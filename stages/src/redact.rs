//! Makes parts of an event unreadable: what is found in its texts, or whole fields.
//!
//! Keys are looked at too, and numbers that are written like a card's. A whole field is redacted under each
//! of its names: `message` means `msg` and `log` as well.

mod card;
mod detect;

use std::borrow::Cow;
use std::ops::Range;

use crds::stage::{Redact, RedactAction};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::line::{Line, Path};
use crate::patterns::{Problem, compile};
use detect::Finder;

/// Hexadecimal digits of a hash: 64 bits, enough to tell a tenant's values apart.
const HASH_DIGITS: usize = 16;

/// A compiled [`Redact`].
#[derive(Debug)]
pub(crate) struct Redactor {
    /// Empty: everywhere.
    fields: Vec<Path>,
    /// Empty: whole values.
    finders: Vec<Finder>,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Replace(Option<String>),
    Hash(Vec<u8>),
    Remove,
}

/// What becomes of a text.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Changed(String),
    Removed,
}

impl Redactor {
    pub(crate) fn compile(spec: &Redact) -> Result<Self, Problem> {
        let mut finders: Vec<Finder> = spec.detectors.iter().map(|detector| Finder::of(*detector)).collect();
        for (at, pattern) in spec.patterns.iter().enumerate() {
            finders
                .push(Finder::custom(&pattern.name, compile(&format!("redact.patterns[{at}].regex"), &pattern.regex)?));
        }
        if finders.is_empty() && spec.fields.is_empty() {
            let message = "redact: say what to redact: detectors, patterns or fields".to_owned();
            return Err(Problem { code: "nothing_to_redact", message });
        }
        let action = match (spec.action, &spec.salt) {
            (RedactAction::Replace, _) => Action::Replace(spec.replacement.clone()),
            (RedactAction::Remove, _) => Action::Remove,
            (RedactAction::Hash, Some(salt)) => Action::Hash(salt.clone().into_bytes()),
            (RedactAction::Hash, None) => {
                let message = "redact.salt: action Hash needs a salt of at least 16 characters".to_owned();
                return Err(Problem { code: "salt_missing", message });
            }
        };
        Ok(Self { fields: spec.fields.iter().map(|name| Path::new(name)).collect(), finders, action })
    }

    pub(crate) fn apply(&self, line: &mut Line) {
        if self.fields.is_empty() {
            return self.object(&mut line.fields);
        }
        for path in &self.fields {
            line.each_mut(path, |object, name| {
                if object.get_mut(name).is_some_and(|value| self.value(value)) {
                    object.remove(name);
                }
            });
        }
    }

    /// A line that is no JSON object, as one text; `None` if whole fields are to be redacted, which
    /// can't be found in it.
    pub(crate) fn conceal(&self, text: &str) -> Option<String> {
        (!self.finders.is_empty()).then(|| self.replaced(text).unwrap_or_else(|| text.to_owned()))
    }

    fn object(&self, object: &mut Map<String, Value>) {
        if object.keys().any(|key| self.replaced(key).is_some()) {
            let fields = std::mem::take(object);
            *object = fields.into_iter().map(|(key, value)| (self.replaced(&key).unwrap_or(key), value)).collect();
        }
        object.retain(|_, value| !self.value(value));
    }

    /// Redacts a value; `true` if it is to be removed.
    fn value(&self, value: &mut Value) -> bool {
        if self.finders.is_empty() {
            if value.is_null() {
                return false;
            }
            let whole = crate::text::of(value.take());
            *value = Value::String(self.stand_in("redacted", &whole));
            return matches!(self.action, Action::Remove);
        }
        let text = match value {
            Value::Array(values) => {
                values.retain_mut(|value| !self.value(value));
                return false;
            }
            Value::Object(object) => {
                self.object(object);
                return false;
            }
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Number(number) => Cow::Owned(number.to_string()),
            Value::Null | Value::Bool(_) => return false,
        };
        match self.text(&text) {
            Verdict::Same => false,
            Verdict::Removed => true,
            Verdict::Changed(text) => {
                *value = Value::String(text);
                false
            }
        }
    }

    fn text(&self, text: &str) -> Verdict {
        match self.replaced(text) {
            None => Verdict::Same,
            Some(_) if matches!(self.action, Action::Remove) => Verdict::Removed,
            Some(changed) => Verdict::Changed(changed),
        }
    }

    /// The text with something else in place of what was found; `None` if nothing was.
    fn replaced(&self, text: &str) -> Option<String> {
        let mut changed: Option<String> = None;
        for finder in &self.finders {
            let text = changed.as_deref().unwrap_or(text);
            let found = finder.find(text);
            if !found.is_empty() {
                changed = Some(self.without(text, &finder.label, &found));
            }
        }
        changed
    }

    /// `found` is in order and does not overlap.
    fn without(&self, text: &str, label: &str, found: &[Range<usize>]) -> String {
        let mut kept = String::with_capacity(text.len());
        let mut at = 0;
        for range in found {
            kept.push_str(&text[at..range.start]);
            kept.push_str(&self.stand_in(label, &text[range.clone()]));
            at = range.end;
        }
        kept.push_str(&text[at..]);
        kept
    }

    fn stand_in(&self, label: &str, found: &str) -> String {
        match &self.action {
            Action::Replace(Some(replacement)) => replacement.clone(),
            Action::Replace(None) | Action::Remove => format!("[{label}]"),
            Action::Hash(salt) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes a key of any length");
                mac.update(found.as_bytes());
                let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("[{label}:{}]", &hex[..HASH_DIGITS])
            }
        }
    }
}

#[cfg(test)]
mod tests;
