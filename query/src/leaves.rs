//! What is inside `metadata` and `attributes`, as words of the index: `metadata.user.id=42`. A number or a time has
//! a second word by which it is compared.
//!
//! One keyword field holds them for all tenants, so no event can make a mapping grow. OpenSearch's
//! own `flat_object` does the same with two terms a leaf and doc values for both, which nobody asks
//! for here: a quarter of what a document costs. Whoever searches makes the same word, by [`word`].

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use stages::{Map, Value};

use crate::scalar::{MAX_PATH_BYTES, Scalar};

/// Longest word in bytes; of a longer one this is what is found. A term of Lucene's has 32,766.
const WORD_BYTES: usize = 1024;
/// Bytes of all words of one event. What is beyond can be read, and is not searched: a long name
/// above many small leaves would be repeated for each of them.
const TOTAL_BYTES: usize = 256 * 1024;

/// The word of a leaf: its path, dots between the names, and its value as text.
pub fn word(path: &str, value: &str) -> String {
    let mut word = format!("{path}={value}");
    word.truncate(word.floor_char_boundary(WORD_BYTES));
    word
}

/// The words of an event's leaves, in order.
#[derive(Debug, Clone, Copy)]
pub struct Leaves<'a> {
    /// `metadata`.
    pub metadata: Option<&'a Map>,
    /// The fields that have no place of their own.
    pub attributes: Option<&'a Map>,
}

impl<'a> Leaves<'a> {
    /// Those of an event.
    pub fn of(event: &'a stages::Event) -> Self {
        Self { metadata: event.metadata.as_ref(), attributes: event.attributes.as_ref() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        [self.metadata, self.attributes].into_iter().flatten().all(Map::is_empty)
    }

    /// Gives each word to `take`, until it fails.
    pub fn each<E>(&self, take: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut walk = Walk { take, path: String::new(), left: TOTAL_BYTES };
        for (name, map) in [("metadata", self.metadata), ("attributes", self.attributes)] {
            walk.path.push_str(name);
            walk.all(map.into_iter().flatten())?;
            walk.path.clear();
        }
        Ok(())
    }
}

impl Serialize for Leaves<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut words = serializer.serialize_seq(None)?;
        self.each(|word| words.serialize_element(word))?;
        words.end()
    }
}

/// Where a walk over leaves is.
struct Walk<T> {
    take: T,
    path: String,
    /// Bytes that the words to come may have.
    left: usize,
}

impl<E, T: FnMut(&str) -> Result<(), E>> Walk<T> {
    fn all<'a>(&mut self, fields: impl Iterator<Item = (&'a String, &'a Value)>) -> Result<(), E> {
        let above = self.path.len();
        for (name, value) in fields {
            self.path.push('.');
            self.path.push_str(name);
            self.of(value)?;
            self.path.truncate(above);
        }
        Ok(())
    }

    fn of(&mut self, value: &Value) -> Result<(), E> {
        match value {
            Value::Null => Ok(()),
            Value::Bool(flag) => self.leaf(if *flag { "true" } else { "false" }),
            Value::Number(number) => self.compared(number.as_str()),
            Value::String(text) => self.compared(text),
            Value::Array(values) => values.iter().try_for_each(|value| self.of(value)),
            Value::Object(fields) => self.all(fields.iter()),
        }
    }

    /// A leaf that may be a number or a time: the word of that comes with it, or neither does.
    fn compared(&mut self, value: &str) -> Result<(), E> {
        let Some(scalar) = Scalar::of(value).filter(|_| self.path.len() <= MAX_PATH_BYTES) else {
            return self.leaf(value);
        };
        let words = [word(&self.path, value), scalar.word(&self.path)];
        if words.iter().map(String::len).sum::<usize>() > self.left {
            self.left = 0;
        }
        words.into_iter().try_for_each(|word| self.push(word))
    }

    fn leaf(&mut self, value: &str) -> Result<(), E> {
        // Making a word copies its path, which may be nearly as long as the line.
        if self.left == 0 {
            return Ok(());
        }
        self.push(word(&self.path, value))
    }

    fn push(&mut self, word: String) -> Result<(), E> {
        // Nothing after the first that has no room.
        match self.left.checked_sub(word.len()) {
            None => {
                self.left = 0;
                Ok(())
            }
            Some(left) => {
                self.left = left;
                (self.take)(&word)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(metadata: &serde_json::Value, attributes: &serde_json::Value) -> Vec<String> {
        let read = |value: &serde_json::Value| serde_json::from_str::<Map>(&value.to_string()).unwrap();
        let (of_metadata, of_attributes) = (read(metadata), read(attributes));
        let leaves = Leaves { metadata: Some(&of_metadata), attributes: Some(&of_attributes) };
        assert_eq!(leaves.is_empty(), metadata == &json!({}) && attributes == &json!({}));
        serde_json::from_value(serde_json::to_value(leaves).unwrap()).unwrap()
    }

    #[test]
    fn each_leaf_is_a_word_of_its_path_and_value() {
        let metadata = json!({"user": {"id": 42, "name": "Ada"}, "a.b": true, "none": null});
        let attributes = json!({"host": "web-1", "tags": ["x", {"y": 1.5}, []]});
        assert_eq!(
            words(&metadata, &attributes),
            [
                "metadata.a.b=true",
                "metadata.user.id=42",
                "metadata.user.id\u{1}c045000000000000",
                "metadata.user.name=Ada",
                "attributes.host=web-1",
                "attributes.tags=x",
                "attributes.tags.y=1.5",
                "attributes.tags.y\u{1}bff8000000000000",
            ]
        );
        assert!(words(&json!({}), &json!({})).is_empty());
    }

    #[test]
    fn a_number_is_a_word_of_its_own_digits() {
        let metadata = r#"{"wei":12345678901234567890123,"u64":18446744073709551615,"price":1.10,"zip":"00742"}"#;
        let leaves = Leaves { metadata: Some(&serde_json::from_str(metadata).unwrap()), attributes: None };
        let found: Vec<String> = serde_json::from_str(&serde_json::to_string(&leaves).unwrap()).unwrap();
        let found: Vec<String> = found.into_iter().filter(|word| word.contains('=')).collect();
        let expected = ["price=1.10", "u64=18446744073709551615", "wei=12345678901234567890123", "zip=00742"];
        assert_eq!(found, expected.map(|leaf| format!("metadata.{leaf}")));
    }

    #[test]
    fn long_words_are_cut_as_whoever_searches_cuts_them_and_all_of_them_are_bounded() {
        let long = format!("x{}", "é".repeat(WORD_BYTES));
        let metadata = json!({"a": long});
        let found = words(&metadata, &json!({}));
        assert_eq!(found, [word("metadata.a", &long)]);
        assert_eq!(found[0].len(), WORD_BYTES);

        let many: Vec<_> = (0..100_000).collect();
        let deep = json!({"n".repeat(WORD_BYTES): many, "z": 1});
        let found = words(&deep, &json!({}));
        assert_eq!(found.len(), TOTAL_BYTES / WORD_BYTES, "and nothing after the first that has no room");
    }
}
