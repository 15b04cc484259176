//! The fields of one line: those that we have a place for, and the rest.
//!
//! A key that we know costs neither a copy of its name nor a place in a map; most lines have no
//! other.

use std::ops::Range;

use crate::json::{Malformed, Map, Reader, Value};
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
    unknown: Map,
}

impl Fields {
    /// Reads a line. No text of it holds a NUL character afterwards.
    pub(crate) fn read(raw: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut reader = Reader::new(raw)?;
        reader.space();
        if reader.peek() != Some(b'{') {
            return Err(reader.malformed("expected an object"));
        }
        // Of a name that is there twice, the last counts.
        reader.items(b'}', |reader, _| {
            let name = reader.name()?;
            reader.colon()?;
            let value = Value::read(reader)?;
            match NAMES.iter().position(|known| *known == name) {
                Some(at) => fields.known[at] = Some(value),
                None => {
                    fields.unknown.insert(name.into_owned(), value);
                }
            }
            Ok(())
        })?;
        reader.end()?;
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
    pub(crate) fn rest(mut self) -> Map {
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
