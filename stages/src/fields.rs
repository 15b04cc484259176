//! The fields of one line: those that we have a place for, and the rest.
//!
//! A key that we know costs neither a copy of its name nor a place in a map; most lines have no
//! other.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::text;

/// Names that mean something. Names of the same thing stand together; of those, the first one
/// present counts, and the others are unknown fields.
const NAMES: [&str; 17] = [
    "service",
    "source",
    "application",
    "app",
    "level",
    "severity",
    "lvl",
    "timestamp",
    "@timestamp",
    "time",
    "ts",
    "message",
    "msg",
    "log",
    "language",
    "metadata",
    "full_log",
];
pub(crate) const SERVICE: Names = Names(0..2);
pub(crate) const APPLICATION: Names = Names(2..4);
pub(crate) const LEVEL: Names = Names(4..7);
pub(crate) const TIMESTAMP: Names = Names(7..11);
pub(crate) const MESSAGE: Names = Names(11..14);
pub(crate) const LANGUAGE: Names = Names(14..15);
pub(crate) const METADATA: Names = Names(15..16);
pub(crate) const FULL_LOG: Names = Names(16..17);

/// The names of each thing.
pub(crate) const GROUPS: [Names; 8] = [SERVICE, APPLICATION, LEVEL, TIMESTAMP, MESSAGE, LANGUAGE, METADATA, FULL_LOG];

/// The names of one thing.
pub(crate) struct Names(Range<usize>);

impl Names {
    /// All of them, the first one that is there counting.
    pub(crate) fn all(&self) -> &'static [&'static str] {
        const ALL: &[&str] = &NAMES;
        &ALL[self.0.start..self.0.end]
    }
}

/// Which of the names a value came under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name(usize);

/// The fields of one line.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    known: [Option<Value>; NAMES.len()],
    unknown: Map<String, Value>,
}

impl Fields {
    /// Reads a line. No text of it holds a NUL character afterwards.
    pub(crate) fn read(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let mut fields: Self = serde_json::from_slice(raw)?;
        fields.known.iter_mut().flatten().for_each(text::replace_nul_in);
        text::replace_nul(&mut fields.unknown);
        Ok(fields)
    }

    /// Takes the first of these names that is there and not null, and drops those before it that
    /// are null.
    pub(crate) fn take(&mut self, names: &Names) -> Option<(Name, Value)> {
        names.0.clone().find_map(|at| match self.known[at].take() {
            None | Some(Value::Null) => None,
            Some(value) => Some((Name(at), value)),
        })
    }

    /// Puts a value back that can't be used: it becomes one of the rest.
    pub(crate) fn put_back(&mut self, name: Name, value: Value) {
        self.known[name.0] = Some(value);
    }

    /// What nobody took.
    pub(crate) fn rest(mut self) -> Map<String, Value> {
        for (name, value) in NAMES.iter().zip(self.known) {
            if let Some(value) = value {
                self.unknown.insert((*name).to_owned(), value);
            }
        }
        self.unknown
    }
}

/// The first of the names for a message.
pub(crate) const FIRST_MESSAGE: Name = Name(11);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut sent: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = sent.next_key_seed(KeySeed)? {
            // Of a name that is there twice, the last counts.
            match key {
                Key::Known(at) => fields.known[at] = Some(sent.next_value()?),
                Key::Unknown(name) => {
                    fields.unknown.insert(name, sent.next_value()?);
                }
            }
        }
        Ok(fields)
    }
}

enum Key {
    Known(usize),
    Unknown(String),
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        let known = NAMES.iter().position(|known| *known == name);
        Ok(known.map_or_else(|| Key::Unknown(name.to_owned()), Key::Known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_of_names_is_what_it_says() {
        for (names, expected) in [
            (SERVICE, &["service", "source"][..]),
            (APPLICATION, &["application", "app"]),
            (LEVEL, &["level", "severity", "lvl"]),
            (TIMESTAMP, &["timestamp", "@timestamp", "time", "ts"]),
            (MESSAGE, &["message", "msg", "log"]),
            (LANGUAGE, &["language"]),
            (METADATA, &["metadata"]),
            (FULL_LOG, &["full_log"]),
        ] {
            assert_eq!(&NAMES[names.0], expected);
        }
        assert_eq!(NAMES[FIRST_MESSAGE.0], "message");
    }
}
