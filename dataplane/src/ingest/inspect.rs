//! One look at one event: is it a JSON object within bounds, and when did it happen?
//!
//! One pass of serde_json over borrowed bytes, building nothing: strings are checked (UTF-8,
//! surrogates) and dropped. What is too deep is skipped without recursion.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::error::Category;

use super::limits::{MAX_DEPTH, MAX_FIELDS};
use crate::event::Micros;
use crate::queue::entry::Rejection;

/// Longest text that is a time.
const MAX_NOTED: usize = 64;

/// Names of the time, the first one present counting, as the stages have it.
const TIME_FIELDS: [&str; 4] = ["timestamp", "@timestamp", "time", "ts"];

/// What one event is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The time sent, if it can be read.
    pub(super) time: Option<Micros>,
    /// What forbids to process it.
    pub(super) problem: Option<Rejection>,
}

/// Why bytes are no JSON object. The text never repeats what was sent, and is short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAnObject(String);

impl From<serde_json::Error> for NotAnObject {
    /// What serde_json says of syntax and of an early end names what it expected and where. What it says of a
    /// value of another type has that value in it, of whatever length.
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Syntax | Category::Eof => Self(error.to_string()),
            Category::Data | Category::Io => {
                Self(format!("expected a JSON object at line {} column {}", error.line(), error.column()))
            }
        }
    }
}

/// Looks at the JSON object that `bytes` begin with; gives back its length too.
pub(super) fn inspect(bytes: &[u8]) -> Result<(Facts, usize), NotAnObject> {
    // Of a string where an object should be, serde_json's error holds the string itself, escaped: of 20 MB that would be
    // 120 MB more, and a second of work.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'"') {
        return Err(NotAnObject("expected a JSON object at line 1 column 1".to_owned()));
    }
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Sighting>();
    let sighting = match stream.next() {
        Some(sighting) => sighting?,
        None => return Err(NotAnObject("expected a JSON object".to_owned())),
    };
    let facts = Facts {
        time: sighting.times.iter().find(|sent| !sent.is_absent()).and_then(Leaf::micros),
        problem: sighting.counts.problem(),
    };
    Ok((facts, stream.byte_offset()))
}

/// What is taken note of on the way through.
#[derive(Default)]
struct Sighting {
    times: [Leaf; TIME_FIELDS.len()],
    counts: Counts,
}

/// The value of a field that matters.
#[derive(Default)]
enum Leaf {
    /// No such field, or null.
    #[default]
    Absent,
    /// A text; empty if it is longer than anything that matters.
    Text(String),
    /// A number.
    Number(Number),
    /// Anything else.
    Other,
}

impl Leaf {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    fn micros(&self) -> Option<Micros> {
        match self {
            Self::Text(text) => stages::time::parse_text(text),
            Self::Number(number) => stages::time::parse_number(&number.to_string()),
            Self::Absent | Self::Other => None,
        }
    }
}

#[derive(Default)]
struct Counts {
    fields: usize,
    too_deep: bool,
}

impl Counts {
    fn problem(&self) -> Option<Rejection> {
        match self {
            Self { too_deep: true, .. } => Some(Rejection::TooDeep),
            Self { fields, .. } if *fields > MAX_FIELDS => Some(Rejection::TooManyFields),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Sighting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Sighting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Sighting, A::Error> {
        let mut sighting = Sighting::default();
        let mut unimportant = Leaf::Absent;
        while let Some(key) = fields.next_key_seed(KeySeed)? {
            sighting.counts.fields += 1;
            let leaf = match key {
                Key::Time(at) => &mut sighting.times[at],
                Key::Other => &mut unimportant,
            };
            let leaf = (!matches!(key, Key::Other)).then_some(leaf);
            fields.next_value_seed(Node { counts: &mut sighting.counts, depth: 2, leaf })?;
        }
        Ok(sighting)
    }
}

/// A field's name.
enum Key {
    Time(usize),
    Other,
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
        let place = |names: &[&str]| names.iter().position(|known| *known == name);
        Ok(place(&TIME_FIELDS).map_or(Key::Other, Key::Time))
    }
}

/// Any value: counted, noted if its field matters, and dropped.
struct Node<'a> {
    counts: &'a mut Counts,
    /// Depth of a container found here; the event itself is 1.
    depth: usize,
    leaf: Option<&'a mut Leaf>,
}

impl Node<'_> {
    fn note(self, leaf: impl FnOnce() -> Leaf) {
        if let Some(noted) = self.leaf {
            *noted = leaf();
        }
    }

    /// Notes a container, and says whether to look inside. What is not looked at goes unchecked,
    /// but then the event is refused anyway.
    fn enter(&mut self) -> bool {
        if let Some(noted) = self.leaf.take() {
            *noted = Leaf::Other;
        }
        self.counts.too_deep |= self.depth > MAX_DEPTH;
        self.counts.problem().is_none()
    }

    fn child(&mut self) -> Node<'_> {
        Node { counts: &mut *self.counts, depth: self.depth + 1, leaf: None }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.note(|| Leaf::Other);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.note(|| Leaf::Number(number.into()));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.note(|| Leaf::Number(number.into()));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.note(|| Number::from_f64(number).map_or(Leaf::Other, Leaf::Number));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.note(|| Leaf::Text(if text.len() <= MAX_NOTED { text.to_owned() } else { String::new() }));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if !self.enter() {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while items.next_element_seed(self.child())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        if !self.enter() {
            while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while fields.next_key_seed(KeySeed)?.is_some() {
            self.counts.fields += 1;
            fields.next_value_seed(self.child())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(event: &str) -> Facts {
        inspect(event.as_bytes()).unwrap().0
    }

    #[test]
    fn the_time_is_the_first_name_that_is_present() {
        let at = Some(1_767_323_045_000_000);
        for (event, expected) in [
            (r#"{"timestamp": "2026-01-02T03:04:05Z"}"#, at),
            (r#"{"ts": 1767323045}"#, at),
            (r#"{"time": 1767323045000}"#, at),
            (r#"{"@timestamp": 1767323045000000}"#, at),
            (r#"{"ts": 1767323045000000000}"#, at),
            (r#"{"ts": 1767323045.0}"#, at),
            (r#"{"ts": 5, "timestamp": "2026-01-02T03:04:05Z"}"#, at),
            (r#"{"timestamp": null, "time": "2026-01-02T03:04:05Z"}"#, at),
            (r#"{"timestamp": "soon", "time": "2026-01-02T03:04:05Z"}"#, None),
            (r#"{"timestamp": {"$date": 1767323045}}"#, None),
            (r#"{"timestamp": true}"#, None),
            (r#"{"nested": {"timestamp": "2026-01-02T03:04:05Z"}}"#, None),
            (r#"{"message": "x"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(facts(event).time, expected, "{event}");
        }
    }

    #[test]
    fn what_is_said_of_a_wrong_value_is_short_and_does_not_repeat_it() {
        let secret = format!(r#""my-password{}""#, "\u{7f}".repeat(100_000));
        for body in [secret.as_str(), r#"["my-password"]"#, "12345.678", "true", "null", r#"{"my-password" 1}"#] {
            let said = inspect(body.as_bytes()).unwrap_err().to_string();
            assert!(said.len() < 80 && !said.contains("my-password") && !said.contains("12345"), "{said}");
        }
    }

    #[test]
    fn depth_and_fields_are_bounded() {
        let nested = |depth: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let wide = |fields: usize| {
            let fields: Vec<_> = (0..fields).map(|n| format!(r#""f{n}":{n}"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        for (event, expected) in [
            (nested(32), None),
            (objects(32), None),
            (nested(33), Some(Rejection::TooDeep)),
            (objects(33), Some(Rejection::TooDeep)),
            (nested(128), Some(Rejection::TooDeep)),
            (nested(100_000), Some(Rejection::TooDeep)),
            (objects(100_000), Some(Rejection::TooDeep)),
            (wide(1_000), None),
            (wide(1_001), Some(Rejection::TooManyFields)),
            (wide(10_000), Some(Rejection::TooManyFields)),
            (format!(r#"{{"a":[{}]}}"#, vec![wide(100); 10].join(",")), Some(Rejection::TooManyFields)),
        ] {
            assert_eq!(facts(&event).problem, expected, "{}", &event[..event.len().min(40)]);
        }
    }

    #[test]
    fn what_is_no_json_object_is_an_error() {
        for bad in [
            "",
            " ",
            "[]",
            "1",
            "null",
            "\"x\"",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{'a':1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":Infinity}"#,
            r#"{"a":1e999}"#,
            r#"{"a":01}"#,
            r#"{"a":"\ud800"}"#,
            "{\"a\":\"line\nbreak\"}",
            "{\"a\":\"\0\"}",
        ] {
            assert!(inspect(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(inspect(b"{\"a\":\"\xff\"}").is_err(), "invalid UTF-8");
        assert!(inspect(b"{\"\xff\":1}").is_err(), "invalid UTF-8 in a name");
    }

    #[test]
    fn odd_but_valid_objects_pass() {
        for good in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"":1}"#,
            r#"{"_id":1,"_source":2,"a.b":1,"a":2,"__proto__":3,"-":4}"#,
            "{\"a\":\"\u{2028}\"}",
        ] {
            assert_eq!(inspect(good.as_bytes()).unwrap(), (Facts::default(), good.len()), "{good}");
        }
    }
}
