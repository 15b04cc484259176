//! A line while stages work on it: its fields by name, whichever of its names each came under.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::fields;

/// The fields of a line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Line {
    pub(crate) fields: Map<String, Value>,
}

/// Where a field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// As it was written.
    whole: String,
    /// Names of the same thing, the first one that is there counting; of one that means nothing to
    /// us, none.
    aliases: &'static [&'static str],
}

impl Path {
    pub(crate) fn new(name: &str) -> Self {
        Self { whole: name.to_owned(), aliases: aliases(name) }
    }

    /// The event's message.
    pub(crate) fn message() -> Self {
        Self::new("message")
    }

    /// Whether it is the event's message.
    pub(crate) fn is_message(&self) -> bool {
        self.aliases.contains(&"message")
    }

    /// The name that it is written under.
    fn name(&self) -> &str {
        self.aliases.first().copied().unwrap_or(&self.whole)
    }
}

/// All names of the thing that this is a name of; none if it means nothing to us.
pub(crate) fn aliases(name: &str) -> &'static [&'static str] {
    fields::GROUPS.iter().map(fields::Names::all).find(|names| names.contains(&name)).unwrap_or_default()
}

impl Line {
    /// Reads one JSON object. Of a name that is there twice, the last counts.
    pub(crate) fn read(raw: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self { fields: serde_json::from_slice(raw)? })
    }

    /// A field that is there and not null.
    pub(crate) fn get(&self, path: &Path) -> Option<&Value> {
        let value = match self.present(path) {
            Some(name) => self.fields.get(name)?,
            None => {
                let mut parts = path.whole.split('.');
                let first = self.fields.get(parts.next()?)?;
                parts.try_fold(first, |value, part| value.as_object()?.get(part))?
            }
        };
        Some(value).filter(|value| !value.is_null())
    }

    /// A field's value as text: of a string, number or truth value.
    pub(crate) fn text(&self, path: &Path) -> Option<Cow<'_, str>> {
        match self.get(path)? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(truth) => Some(Cow::Owned(truth.to_string())),
            _ => None,
        }
    }

    /// Every value that this may mean: under each of its names, and inside objects.
    pub(crate) fn each_mut(&mut self, path: &Path, mut work: impl FnMut(&mut Map<String, Value>, &str)) {
        for alias in path.aliases {
            work(&mut self.fields, alias);
        }
        if path.aliases.is_empty() {
            work(&mut self.fields, &path.whole);
            if let Some((object, name)) = path.whole.rsplit_once('.')
                && let Some(object) = self.object_mut(object)
            {
                work(object, name);
            }
        }
    }

    /// Sets a field under its first name, in place of whatever it was under any other.
    pub(crate) fn set(&mut self, path: &Path, value: Value) {
        self.remove_names(path.aliases);
        if path.aliases.is_empty()
            && !self.fields.contains_key(&path.whole)
            && let Some((object, name)) = path.whole.rsplit_once('.')
            && let Some(object) = self.make_object(object)
        {
            object.insert(name.to_owned(), value);
            return;
        }
        self.fields.insert(path.name().to_owned(), value);
    }

    /// Removes a field under all of these names.
    pub(crate) fn remove_names(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    /// The name under which it stands at the top, if it does: as written, else its first other name.
    fn present<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let there = |name: &&str| self.fields.get(*name).is_some_and(|value| !value.is_null());
        Some(path.whole.as_str()).filter(there).or_else(|| path.aliases.iter().copied().find(there))
    }

    fn object_mut(&mut self, path: &str) -> Option<&mut Map<String, Value>> {
        path.split('.').try_fold(&mut self.fields, |object, part| object.get_mut(part)?.as_object_mut())
    }

    /// The object at this path, made where nothing is; `None` if something else is in the way.
    fn make_object(&mut self, path: &str) -> Option<&mut Map<String, Value>> {
        path.split('.').try_fold(&mut self.fields, |object, part| {
            let value = object.entry(part).or_insert(Value::Null);
            if value.is_null() {
                *value = Value::Object(Map::new());
            }
            value.as_object_mut()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(value: Value) -> Line {
        Line::read(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_field_is_found_by_any_of_its_names_and_inside_objects() {
        let line = line(json!({"msg": "m", "severity": null, "lvl": 30, "a.b": 1, "a": {"b": 2, "c": {"d": true}}}));
        for (path, expected) in [
            ("message", Some("m")),
            ("log", Some("m")),
            ("level", Some("30")),
            ("a.b", Some("1")),
            ("a.c.d", Some("true")),
            ("a.c", None),
            ("a.b.c", None),
            ("service", None),
        ] {
            assert_eq!(line.text(&Path::new(path)).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_field_is_set_in_place_of_its_other_names() {
        for (path, expected) in [
            ("level", json!({"a": {"b": 1}, "level": "x"})),
            ("lvl", json!({"a": {"b": 1}, "level": "x"})),
            ("a.c", json!({"a": {"b": 1, "c": "x"}, "severity": "e"})),
            ("new.one", json!({"a": {"b": 1}, "severity": "e", "new": {"one": "x"}})),
            ("a.b.c", json!({"a": {"b": 1}, "severity": "e", "a.b.c": "x"})),
        ] {
            let mut line = line(json!({"a": {"b": 1}, "severity": "e"}));
            line.set(&Path::new(path), json!("x"));
            assert_eq!(Value::Object(line.fields), expected, "{path}");
        }
    }
}
