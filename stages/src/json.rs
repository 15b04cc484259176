//! JSON whose numbers stay as they were written.
//!
//! A number may have more digits than 64 bits hold: an identifier of another system, an amount to the last
//! digit. It is kept as its text. What is read here is what `serde_json` reads: ingest asks it whether a line
//! is a JSON object, and one that it accepts can be read later.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{self, Serialize, Serializer};
use serde_json::value::RawValue;

/// Deepest nesting that is read, as `serde_json` has it: reading recurses that deep.
const MAX_DEPTH: usize = 127;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written.
    Number(Number),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Object(Map),
}

/// The fields of an object. Of a name that was sent twice, the last counts.
pub type Map = BTreeMap<String, Value>;

/// A number as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(String);

/// Why a text is no JSON. It says nothing of what the text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    what: &'static str,
    /// Bytes before the place.
    at: usize,
}

/// Reads JSON from its beginning on.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Whether an object had a name twice: then a [`Map`] of it says less than the text.
    pub(crate) repeated: bool,
}

impl Number {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if it is an integer of few digits; `-0` is none, which has no sign as an integer.
    fn small(&self) -> Option<i64> {
        (self.0.len() <= 18 && self.0 != "-0").then(|| self.0.parse().ok()).flatten()
    }
}

impl Value {
    /// Reads one value.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.peek() {
            Some(b'{') => {
                let mut fields = Map::new();
                reader.items(b'}', |reader, _| {
                    let name = reader.name()?.into_owned();
                    reader.colon()?;
                    let value = Self::read(reader)?;
                    reader.repeated |= fields.insert(name, value).is_some();
                    Ok(())
                })?;
                Self::Object(fields)
            }
            Some(b'[') => {
                let mut values = Vec::new();
                reader.items(b']', |reader, _| {
                    values.push(Self::read(reader)?);
                    Ok(())
                })?;
                Self::Array(values)
            }
            Some(b'"') => Self::String(reader.string()?.into_owned()),
            Some(b't' | b'f' | b'n') => match reader.word()? {
                "true" => Self::Bool(true),
                "false" => Self::Bool(false),
                _ => Self::Null,
            },
            _ => Self::Number(Number(reader.number()?.to_owned())),
        })
    }

    /// Its fields, if it is an object.
    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Self::Object(fields) => Some(fields),
            _ => None,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As JSON, without spaces.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at + 1)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(Number(number.to_string()))
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(truth),
            serde_json::Value::Number(number) => Self::Number(Number(number.to_string())),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(values) => Self::Array(values.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(fields) => {
                Self::Object(fields.into_iter().map(|(name, value)| (name, Self::from(value))).collect())
            }
        }
    }
}

/// Exact when it is written as JSON by `serde_json`, which is the only way that it is written.
impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.small() {
            Some(number) => serializer.serialize_i64(number),
            None => RawValue::from_string(self.0.clone()).map_err(ser::Error::custom)?.serialize(serializer),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Object(fields) => serializer.collect_map(fields),
        }
    }
}

/// From JSON that `serde_json` reads.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let mut reader = Reader::new(raw.get().as_bytes()).map_err(de::Error::custom)?;
        Self::read(&mut reader).map_err(de::Error::custom)
    }
}

impl<'a> Reader<'a> {
    /// Over bytes that must be UTF-8.
    pub(crate) fn new(raw: &'a [u8]) -> Result<Self, Malformed> {
        let no_text = |error: std::str::Utf8Error| Malformed { what: "it is not UTF-8", at: error.valid_up_to() };
        Ok(Self { text: std::str::from_utf8(raw).map_err(no_text)?, at: 0, depth: 0, repeated: false })
    }

    /// What was read since this place.
    pub(crate) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// The place reached.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Reads spaces.
    pub(crate) fn space(&mut self) -> &'a str {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.since(start)
    }

    /// Nothing but spaces may follow.
    pub(crate) fn end(&mut self) -> Result<&'a str, Malformed> {
        let space = self.space();
        if self.peek().is_some() { Err(self.malformed("more follows")) } else { Ok(space) }
    }

    /// Reads what stands in brackets, from the opening one on: `item` reads one item behind the spaces that it is
    /// given, and is called for each. Gives back the spaces inside brackets that hold nothing.
    pub(crate) fn items(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self, &'a str) -> Result<(), Malformed>,
    ) -> Result<&'a str, Malformed> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.malformed("nested too deep"));
        }
        let mut before = self.space();
        if !self.eat(close) {
            loop {
                item(self, before)?;
                self.space();
                if self.eat(close) {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.malformed("expected a comma or the end of a list or object"));
                }
                before = self.space();
            }
            before = "";
        }
        self.depth -= 1;
        Ok(before)
    }

    /// Reads a field's name.
    pub(crate) fn name(&mut self) -> Result<Cow<'a, str>, Malformed> {
        match self.peek() {
            Some(b'"') => self.string(),
            _ => Err(self.malformed("expected a field's name")),
        }
    }

    /// Reads the colon behind a name, and the spaces around it.
    pub(crate) fn colon(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        self.space();
        if !self.eat(b':') {
            return Err(self.malformed("expected a colon"));
        }
        self.space();
        Ok(self.since(start))
    }

    /// Reads `true`, `false` or `null`.
    pub(crate) fn word(&mut self) -> Result<&'static str, Malformed> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word));
        let word = word.ok_or_else(|| self.malformed("expected a value"))?;
        self.at += word.len();
        Ok(word)
    }

    /// Reads a number.
    pub(crate) fn number(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        self.eat(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.malformed("expected a value")),
        }
        let mut exponent = false;
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            exponent = true;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let number = self.since(start);
        // The largest number of 64 bits has 309 digits.
        let may_be_huge = exponent || number.len() > 300;
        if may_be_huge && !number.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(Malformed { what: "a number out of range", at: start });
        }
        Ok(number)
    }

    /// Reads a string, from its opening quote on.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.at += 1;
        let start = self.at;
        let mut unescaped: Option<String> = None;
        loop {
            let from = self.at;
            self.at += plain(&self.text.as_bytes()[from..]);
            let part = self.since(from);
            match (self.peek(), &mut unescaped) {
                (Some(b'"'), None) => {
                    let whole = self.since(start);
                    self.at += 1;
                    return Ok(Cow::Borrowed(whole));
                }
                (Some(b'"'), Some(text)) => {
                    text.push_str(part);
                    self.at += 1;
                    return Ok(Cow::Owned(unescaped.unwrap_or_default()));
                }
                (Some(b'\\'), _) => {
                    let c = self.escape()?;
                    let text = unescaped.get_or_insert_default();
                    text.push_str(part);
                    text.push(c);
                }
                (Some(_), _) => return Err(self.malformed("a control character in a string")),
                (None, _) => return Err(self.malformed("a string without an end")),
            }
        }
    }

    /// Reads what a backslash and what follows it stand for.
    fn escape(&mut self) -> Result<char, Malformed> {
        let bad = self.malformed("an invalid escape");
        self.at += 1;
        let c = self.peek().ok_or(bad)?;
        self.at += 1;
        Ok(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex().ok_or(bad)?;
                let code = match first {
                    0xd800..=0xdbff => {
                        let second = (self.eat(b'\\') && self.eat(b'u')).then(|| self.hex()).flatten();
                        let second = second.filter(|second| (0xdc00..=0xdfff).contains(second)).ok_or(bad)?;
                        0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    _ => first,
                };
                char::from_u32(code).ok_or(bad)?
            }
            _ => return Err(bad),
        })
    }

    /// Reads four hexadecimal digits.
    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.malformed("expected a digit")) } else { Ok(()) }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub(crate) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }
}

/// How many bytes of a string there are until a quote, a backslash or a control character. Eight are looked at at
/// once: most of a line is inside strings.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let any_below = |eight: u64, limit: u8| eight.wrapping_sub(ONES * u64::from(limit)) & !eight & HIGH;
    let any_is = |eight: u64, byte: u8| any_below(eight ^ (ONES * u64::from(byte)), 1);
    let (eights, _) = bytes.as_chunks::<8>();
    let is_plain = |eight: &&[u8; 8]| {
        let eight = u64::from_le_bytes(**eight);
        any_below(eight, 0x20) | any_is(eight, b'"') | any_is(eight, b'\\') == 0
    };
    let start = 8 * eights.iter().take_while(is_plain).count();
    start + bytes[start..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_where_it_ends_wherever_that_is() {
        for byte in 0..=255_u8 {
            for before in 0..20 {
                for behind in [0, 3, 9] {
                    let bytes = [&vec![0xc3; before][..], &[byte], &vec![b'"'; behind]].concat();
                    let ends = matches!(byte, b'"' | b'\\' | 0..=0x1f);
                    assert_eq!(plain(&bytes), before + usize::from(!ends), "{byte} after {before}");
                }
            }
        }
    }

    fn read(text: &[u8]) -> Result<Value, Malformed> {
        let mut reader = Reader::new(text)?;
        reader.space();
        let value = Value::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn every_number_stays_as_it_was_written() {
        for number in [
            "0",
            "-0",
            "1.10",
            "1e2",
            "1.0E+2",
            "9007199254740993",
            "18446744073709551615",
            "-9223372036854775808",
            "12345678901234567890123",
            "3.14159265358979323846",
            "12345678901234567.89",
            "1e-999",
            "5e-324",
        ] {
            let value = read(number.as_bytes()).unwrap();
            assert_eq!((value.to_string().as_str(), &value), (number, &Value::Number(Number(number.to_owned()))));
            let told: Value = serde_json::from_str(number).unwrap();
            assert_eq!(told, value);
        }
    }

    #[test]
    fn it_reads_what_serde_json_reads_and_nothing_else() {
        let seeds: [&[u8]; 14] = [
            br#"{"a":1,"b":[true,false,null,"x"],"c":{"d":-1.5e+3,"":""}}"#,
            br#" { "a" : [ ] , "b" : { } } "#,
            "\"\\u00e9\\ud83d\\ude00 \\\" \\\\ \\/ \\b\\f\\n\\r\\t é\"".as_bytes(),
            br#""\ud800""#,
            br#""\udc00\ud800""#,
            br#""\ud800\u0041""#,
            b"\"line\nbreak\"",
            b"\"\xff\"",
            b"[1e999]",
            b"[-1E400,0e999,1e-400]",
            b"[01,1.,.5,+1,-,1e,0x1,NaN]",
            b"[1,2,]",
            br#"{"a":1,"a":2,}"#,
            b"",
        ];
        let parts: [&[u8]; 12] = [b"\"", b"\\", b"u", b"0", b"9", b"e", b"-", b",", b"]", b"}", b"\xc3", br#""a":"#];
        let mut tried = 0;
        let mut same = |text: &[u8]| {
            let theirs = serde_json::from_slice::<serde_json::Value>(text).map(Value::from);
            let ours = read(text);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {ours:?} {theirs:?}", String::from_utf8_lossy(text));
            tried += 1;
        };
        for seed in seeds {
            same(seed);
            for at in 0..seed.len() {
                same(&seed[..at]);
                same(&[&seed[..at], &seed[at + 1..]].concat());
                for part in parts {
                    same(&[&seed[..at], part, &seed[at..]].concat());
                    same(&[&seed[..at], part, &seed[at + 1..]].concat());
                }
            }
        }
        for depth in [1, 126, 127, 128, 100_000] {
            same(&[vec![b'['; depth], vec![b']'; depth]].concat());
        }
        assert!(tried > 5_000, "{tried}");
        let text = br#"{"b":"\u00e9\ud83d\ude00\n","a":[1,{"x":null}],"b":"last"}"#;
        let theirs: serde_json::Value = serde_json::from_slice(text).unwrap();
        assert_eq!(read(text).unwrap(), Value::from(theirs));
    }

    #[test]
    fn an_error_says_where_and_nothing_of_what_was_sent() {
        assert_eq!(read(br#"{"secret":x}"#).unwrap_err().to_string(), "expected a value at byte 11");
    }

    #[test]
    fn a_name_that_is_there_twice_is_noticed() {
        for (text, repeated) in [(r#"{"a":1,"b":{"a":1}}"#, false), (r#"{"b":[{"a":1,"a":1}]}"#, true)] {
            let mut reader = Reader::new(text.as_bytes()).unwrap();
            Value::read(&mut reader).unwrap();
            assert_eq!(reader.repeated, repeated, "{text}");
        }
    }
}
