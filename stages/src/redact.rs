//! Makes parts of an event unreadable: what is found in its texts, or whole fields.
//!
//! Keys are looked at too, and numbers that are written like a card's. A whole field is redacted under each
//! of its names: `message` means `msg` and `log` as well. What is not redacted stays as it was sent.

mod card;
mod detect;
mod email;
mod plain;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crds::stage::{Redact, RedactAction};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::line::{Array, Fate, Line, Node, Object, Path, Text};
use crate::patterns::{Problem, compile};
use detect::{Finder, Secret};

/// Names of the fields of an object that is a header or a variable: of its name, and of its value.
const NAME_FIELDS: [&str; 5] = ["name", "key", "header", "k", "n"];
const VALUE_FIELDS: [&str; 4] = ["value", "values", "val", "v"];

/// Hexadecimal digits of a hash: 64 bits, enough to tell a tenant's values apart.
const HASH_DIGITS: usize = 16;

/// A compiled [`Redact`].
#[derive(Debug)]
pub(crate) struct Redactor {
    /// Empty: everywhere.
    fields: Vec<Path>,
    /// Empty: whole values.
    finders: Vec<Finder>,
    /// Whether names say what the values under them are.
    goes_by_names: bool,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Replace(Option<String>),
    Hash(Vec<u8>),
    Remove,
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
        let goes_by_names = finders.iter().any(Finder::goes_by_names);
        Ok(Self { fields: spec.fields.iter().map(|name| Path::new(name)).collect(), finders, goes_by_names, action })
    }

    /// Redacts the line, and says whether it changed.
    pub(crate) fn apply(&self, line: &mut Line<'_>) -> bool {
        if self.fields.is_empty() {
            return self.object(&mut line.fields);
        }
        let mut changed = false;
        for path in &self.fields {
            changed |= line.each_mut(path, |member| {
                let secret = self.secret_under(member.name.as_str());
                self.value(&mut member.value, secret)
            });
        }
        changed
    }

    /// A line that is no JSON object, as one text; `None` if whole fields are to be redacted, which
    /// can't be found in it.
    pub(crate) fn conceal(&self, text: &str) -> Option<String> {
        (!self.finders.is_empty()).then(|| self.replaced(text, None).unwrap_or_else(|| text.to_owned()))
    }

    fn secret_under(&self, name: &str) -> Option<Secret> {
        if self.goes_by_names { Secret::under(name) } else { None }
    }

    fn object(&self, object: &mut Object<'_>) -> bool {
        let names = self.names(object);
        // Of a header: `{"name": "authorization", "value": "…"}`.
        let is_named = |name: &str| NAME_FIELDS.iter().any(|known| name.eq_ignore_ascii_case(known));
        let is_value = |name: &str| VALUE_FIELDS.iter().any(|known| name.eq_ignore_ascii_case(known));
        let header = object.members.iter().filter(|_| self.goes_by_names).find_map(|member| match &member.value {
            Node::String(text) if is_named(member.name.as_str()) => self.secret_under(text.as_str()),
            _ => None,
        });
        let mut changed = false;
        object.members.retain_mut(|member| {
            let name = member.name.as_str();
            let secret = self.secret_under(name).or_else(|| header.filter(|_| is_value(name)));
            let fate = self.value(&mut member.value, secret);
            changed |= fate != Fate::Same;
            fate != Fate::Removed
        });
        names || changed
    }

    /// Redacts the names of fields, and says whether any changed. Names that become the same are told apart by
    /// numbers: no field takes another's place.
    fn names(&self, object: &mut Object<'_>) -> bool {
        let new: Vec<_> = object.members.iter().map(|member| self.replaced(member.name.as_str(), None)).collect();
        if new.iter().all(Option::is_none) {
            return false;
        }
        let kept = object.members.iter().zip(&new).filter(|(_, new)| new.is_none());
        let mut taken: HashSet<String> = kept.map(|(member, _)| member.name.as_str().to_owned()).collect();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (member, new) in object.members.iter_mut().zip(new) {
            let Some(new) = new else { continue };
            let count = counts.entry(new.clone()).or_default();
            let free = |count: &usize| if *count == 1 { new.clone() } else { format!("{new}#{count}") };
            let name = loop {
                *count += 1;
                let name = free(count);
                if taken.insert(name.clone()) {
                    break name;
                }
            };
            member.name = Text::new(name.into());
        }
        true
    }

    fn array(&self, array: &mut Array<'_>, secret: Option<Secret>) -> bool {
        let mut changed = false;
        // Of a header: `["authorization", "…"]`.
        let mut next = None;
        array.items.retain_mut(|item| {
            let before = next.take();
            next = match &item.value {
                Node::String(text) => self.secret_under(text.as_str()),
                _ => None,
            };
            // A list may be one of names.
            next = next.map(|secret| if secret == Secret::Authorization { Secret::AfterAuthorization } else { secret });
            let fate = self.value(&mut item.value, secret.or(before));
            changed |= fate != Fate::Same;
            fate != Fate::Removed
        });
        changed
    }

    /// Redacts a value; `secret` is what it is by the name that it stands under.
    fn value(&self, value: &mut Node<'_>, secret: Option<Secret>) -> Fate {
        if self.finders.is_empty() {
            if value.is_null() {
                return Fate::Same;
            }
            if matches!(self.action, Action::Remove) {
                return Fate::Removed;
            }
            *value = Node::string(self.stand_in("redacted", &value.whole()));
            return Fate::Changed;
        }
        let replaced = match value {
            Node::Array(array) => return if self.array(array, secret) { Fate::Changed } else { Fate::Same },
            Node::Object(object) => return if self.object(object) { Fate::Changed } else { Fate::Same },
            Node::String(text) => self.replaced(text.as_str(), secret),
            Node::Number(number) => self.replaced(number, None),
            Node::Word(_) => None,
        };
        match replaced {
            None => Fate::Same,
            Some(_) if matches!(self.action, Action::Remove) => Fate::Removed,
            Some(text) => {
                *value = Node::string(text);
                Fate::Changed
            }
        }
    }

    /// The text with something else in place of what was found; `None` if nothing was. `secret` is what the whole
    /// text is.
    fn replaced(&self, text: &str, secret: Option<Secret>) -> Option<String> {
        let mut changed: Option<String> = None;
        for finder in &self.finders {
            let text = changed.as_deref().unwrap_or(text);
            let found = finder.find(text, secret);
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
                // The same value has the same hash, however it was escaped.
                mac.update(plain::of(found).as_bytes());
                let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("[{label}:{}]", &hex[..HASH_DIGITS])
            }
        }
    }
}

#[cfg(test)]
mod tests;
