//! A line while stages work on it: its fields by name, whichever of its names each came under.
//!
//! It is a tree over the text that came. Each part keeps the bytes that it came as, spaces included, until a
//! stage changes that part: what no stage changes is stored as it was sent.

use std::borrow::Cow;

use crate::fields;
use crate::json::{Malformed, Map, Reader, Value};

/// The fields of a line, and the spaces around them.
#[derive(Debug, Default)]
pub(crate) struct Line<'a> {
    before: &'a str,
    pub(crate) fields: Object<'a>,
    after: &'a str,
}

/// A value.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// `true`, `false` or `null`.
    Word(&'static str),
    /// A number as it was written.
    Number(Cow<'a, str>),
    String(Text<'a>),
    Array(Array<'a>),
    Object(Object<'a>),
}

/// A string, or a field's name.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    text: Cow<'a, str>,
    /// As it came, quotes and escapes included.
    raw: Option<&'a str>,
}

/// A list.
#[derive(Debug, Default)]
pub(crate) struct Array<'a> {
    pub(crate) items: Vec<Item<'a>>,
    /// The spaces in one that came empty.
    within: &'a str,
}

/// An object. A name may be there twice, as it came; the last counts.
#[derive(Debug, Default)]
pub(crate) struct Object<'a> {
    pub(crate) members: Vec<Member<'a>>,
    /// The spaces in one that came empty.
    within: &'a str,
}

/// An item of a list, and the spaces around it.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    before: &'a str,
    pub(crate) value: Node<'a>,
    after: &'a str,
}

/// A field of an object, and what stands around its name and value.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    before: &'a str,
    pub(crate) name: Text<'a>,
    /// The colon, and the spaces around it.
    between: &'a str,
    pub(crate) value: Node<'a>,
    after: &'a str,
}

/// What becomes of a part that a stage looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Same,
    Changed,
    Removed,
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

/// What is left of a path inside the field of this name.
fn inside<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    path.strip_prefix(name)?.strip_prefix('.')
}

impl<'a> Line<'a> {
    /// Reads one JSON object.
    pub(crate) fn read(raw: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(raw)?;
        let before = reader.space();
        if reader.peek() != Some(b'{') {
            return Err(reader.malformed("expected an object"));
        }
        let fields = Object::read(&mut reader)?;
        Ok(Self { before, fields, after: reader.end()? })
    }

    /// A line of these fields.
    pub(crate) fn of(fields: Map) -> Self {
        Self { fields: Object::of(fields), ..Self::default() }
    }

    /// The line as it is to be stored.
    pub(crate) fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(self.before.as_bytes());
        self.fields.write(&mut out);
        out.extend_from_slice(self.after.as_bytes());
        out
    }

    /// A field that is there and not null. Dots lead into objects, and may be part of a name.
    pub(crate) fn get(&self, path: &Path) -> Option<&Node<'a>> {
        let there = |name: &str| self.fields.get(name).filter(|value| !value.is_null());
        there(&path.whole)
            .or_else(|| path.aliases.iter().find_map(|name| there(name)))
            .or_else(|| self.fields.find(&path.whole))
    }

    /// The same, looked for in the items of lists too.
    pub(crate) fn get_anywhere(&self, path: &Path) -> Option<&Node<'a>> {
        self.get(path).or_else(|| self.fields.find_anywhere(&path.whole))
    }

    /// A field's value as text: of a string, number or truth value.
    pub(crate) fn text(&self, path: &Path) -> Option<&str> {
        match self.get(path)? {
            Node::String(text) => Some(text.as_str()),
            Node::Number(number) => Some(number),
            Node::Word(word) => Some(word).copied().filter(|word| *word != "null"),
            Node::Array(_) | Node::Object(_) => None,
        }
    }

    /// Every value that this may mean: under each of its names, in objects, and in the items of lists. A name
    /// that is there twice has two.
    pub(crate) fn each_mut(&mut self, path: &Path, mut work: impl FnMut(&mut Member<'a>) -> Fate) -> bool {
        if path.aliases.is_empty() {
            return self.fields.each_mut(&path.whole, &mut work);
        }
        let mut changed = false;
        for alias in path.aliases {
            changed |= self.fields.each_mut(alias, &mut work);
        }
        changed
    }

    /// Sets a field under its first name, in place of whatever it was under any other.
    pub(crate) fn set(&mut self, path: &Path, value: Node<'a>) {
        if !path.aliases.is_empty() {
            let others = path.aliases.iter().filter(|name| **name != path.name());
            others.for_each(|name| self.fields.remove(name));
            return self.fields.insert(path.name(), value);
        }
        let Some(value) = self.fields.replace(&path.whole, value) else { return };
        if let Some((object, name)) = path.whole.rsplit_once('.')
            && let Some(object) = self.make_object(object)
        {
            return object.insert(name, value);
        }
        self.fields.insert(&path.whole, value);
    }

    /// Removes a field under all of these names.
    pub(crate) fn remove_names(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.fields.remove(name));
    }

    /// The object at this path, made where nothing is; `None` if something else is in the way.
    fn make_object(&mut self, path: &str) -> Option<&mut Object<'a>> {
        path.split('.').try_fold(&mut self.fields, |object, part| {
            if object.get(part).is_none_or(Node::is_null) {
                object.insert(part, Node::Object(Object::default()));
            }
            match &mut object.last_mut(part)?.value {
                Node::Object(object) => Some(object),
                _ => None,
            }
        })
    }
}

impl<'a> Node<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.peek() {
            Some(b'{') => Self::Object(Object::read(reader)?),
            Some(b'[') => {
                let mut items = Vec::new();
                let within = reader.items(b']', |reader, before| {
                    let value = Self::read(reader)?;
                    items.push(Item { before, value, after: reader.space() });
                    Ok(())
                })?;
                Self::Array(Array { items, within })
            }
            Some(b'"') => {
                let start = reader.at();
                let text = reader.string()?;
                Self::String(Text { text, raw: Some(reader.since(start)) })
            }
            Some(b't' | b'f' | b'n') => Self::Word(reader.word()?),
            _ => Self::Number(Cow::Borrowed(reader.number()?)),
        })
    }

    /// A string of ours.
    pub(crate) fn string(text: impl Into<Cow<'a, str>>) -> Self {
        Self::String(Text::new(text.into()))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Word("null"))
    }

    /// The text of a string; anything else as JSON without spaces, an object's fields in order.
    pub(crate) fn whole(&self) -> String {
        match self {
            Self::String(text) => text.as_str().to_owned(),
            Self::Number(number) => number.clone().into_owned(),
            Self::Word(word) => (*word).to_owned(),
            Self::Array(_) | Self::Object(_) => {
                let mut out = Vec::new();
                self.write(&mut out);
                let value = Reader::new(&out).and_then(|mut reader| Value::read(&mut reader));
                value.map_or_else(|_| String::new(), |value| value.to_string())
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Word(word) => out.extend_from_slice(word.as_bytes()),
            Self::Number(number) => out.extend_from_slice(number.as_bytes()),
            Self::String(text) => text.write(out),
            Self::Array(array) => array.write(out),
            Self::Object(object) => object.write(out),
        }
    }
}

impl From<Value> for Node<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Word("null"),
            Value::Bool(true) => Self::Word("true"),
            Value::Bool(false) => Self::Word("false"),
            Value::Number(number) => Self::Number(Cow::Owned(number.to_string())),
            Value::String(text) => Self::string(text),
            Value::Array(values) => {
                let item = |value| Item { before: "", value: Self::from(value), after: "" };
                Self::Array(Array { items: values.into_iter().map(item).collect(), within: "" })
            }
            Value::Object(fields) => Self::Object(Object::of(fields)),
        }
    }
}

impl<'a> Text<'a> {
    pub(crate) fn new(text: Cow<'a, str>) -> Self {
        Self { text, raw: None }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self.raw {
            Some(raw) => out.extend_from_slice(raw.as_bytes()),
            None => serde_json::to_writer(out, self.as_str()).expect("a text is written into memory"),
        }
    }
}

impl<'a> Array<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, Item { before, value, after }) in self.items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(before.as_bytes());
            value.write(out);
            out.extend_from_slice(after.as_bytes());
        }
        out.extend_from_slice(self.within.as_bytes());
        out.push(b']');
    }
}

impl<'a> Object<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut members = Vec::new();
        let within = reader.items(b'}', |reader, before| {
            let start = reader.at();
            let text = reader.name()?;
            let name = Text { text, raw: Some(reader.since(start)) };
            let between = reader.colon()?;
            let value = Node::read(reader)?;
            members.push(Member { before, name, between, value, after: reader.space() });
            Ok(())
        })?;
        Ok(Self { members, within })
    }

    fn of(fields: Map) -> Self {
        Self { members: fields.into_iter().map(|(name, value)| Member::of(name, value.into())).collect(), within: "" }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, Member { before, name, between, value, after }) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(before.as_bytes());
            name.write(out);
            out.extend_from_slice(between.as_bytes());
            value.write(out);
            out.extend_from_slice(after.as_bytes());
        }
        out.extend_from_slice(self.within.as_bytes());
        out.push(b'}');
    }

    /// The field of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Node<'a>> {
        self.members.iter().rfind(|member| member.name.text == name).map(|member| &member.value)
    }

    fn last_mut(&mut self, name: &str) -> Option<&mut Member<'a>> {
        self.members.iter_mut().rfind(|member| member.name.text == name)
    }

    /// What the path leads to, if it is not null.
    fn find(&self, path: &str) -> Option<&Node<'a>> {
        self.get(path).filter(|value| !value.is_null()).or_else(|| {
            self.members.iter().rev().find_map(|member| match (inside(path, &member.name.text), &member.value) {
                (Some(path), Node::Object(object)) => object.find(path),
                _ => None,
            })
        })
    }

    fn find_anywhere(&self, path: &str) -> Option<&Node<'a>> {
        fn below<'n, 'a>(node: &'n Node<'a>, path: &str) -> Option<&'n Node<'a>> {
            match node {
                Node::Object(object) => object.find_anywhere(path),
                Node::Array(array) => array.items.iter().find_map(|item| below(&item.value, path)),
                _ => None,
            }
        }
        self.get(path).filter(|value| !value.is_null()).or_else(|| {
            self.members.iter().rev().find_map(|member| below(&member.value, inside(path, &member.name.text)?))
        })
    }

    /// Does its work on every field that the path leads to, through objects and the items of lists, and says
    /// whether anything changed.
    fn each_mut(&mut self, path: &str, work: &mut impl FnMut(&mut Member<'a>) -> Fate) -> bool {
        fn below<'a>(node: &mut Node<'a>, path: &str, work: &mut impl FnMut(&mut Member<'a>) -> Fate) -> bool {
            match node {
                Node::Object(object) => object.each_mut(path, work),
                Node::Array(array) => {
                    let mut changed = false;
                    for item in &mut array.items {
                        changed |= below(&mut item.value, path, work);
                    }
                    changed
                }
                _ => false,
            }
        }
        let mut changed = false;
        self.members.retain_mut(|member| {
            let fate = if member.name.text == path {
                work(member)
            } else if let Some(path) = inside(path, &member.name.text)
                && below(&mut member.value, path, work)
            {
                Fate::Changed
            } else {
                Fate::Same
            };
            changed |= fate != Fate::Same;
            fate != Fate::Removed
        });
        changed
    }

    /// Sets a field, in its place if it is there.
    pub(crate) fn insert(&mut self, name: &str, value: Node<'a>) {
        let Some(at) = self.members.iter().rposition(|member| member.name.text == name) else {
            return self.members.push(Member::of(name.to_owned(), value));
        };
        self.members[at].value = value;
        let mut place = 0..;
        self.members.retain(|member| place.next() >= Some(at) || member.name.text != name);
    }

    /// Sets the field that the path leads to through objects; gives the value back if there is none.
    fn replace(&mut self, path: &str, mut value: Node<'a>) -> Option<Node<'a>> {
        if self.get(path).is_some() {
            self.insert(path, value);
            return None;
        }
        for member in self.members.iter_mut().rev() {
            if let (Some(path), Node::Object(object)) = (inside(path, &member.name.text), &mut member.value) {
                value = object.replace(path, value)?;
            }
        }
        Some(value)
    }

    fn remove(&mut self, name: &str) {
        self.members.retain(|member| member.name.text != name);
    }
}

impl<'a> Member<'a> {
    fn of(name: String, value: Node<'a>) -> Self {
        Self { before: "", name: Text::new(Cow::Owned(name)), between: ":", value, after: "" }
    }
}

#[cfg(test)]
impl Line<'_> {
    /// The line as tables have it.
    pub(crate) fn shown(&self) -> serde_json::Value {
        serde_json::from_slice(&self.written()).expect("a line is JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_that_nothing_changes_is_written_as_it_came() {
        for raw in [
            r#"{"a":1}"#,
            " {\t\"z\" : 1.10 , \"a\":[ 1e2,{ } , [ ] ],\r\n\"\\u0061\":\"\\u00e9\\/\",\"a\":null } \n",
            "{}",
            r#"{"n":12345678901234567890123,"t":true,"f":false}"#,
        ] {
            assert_eq!(String::from_utf8(Line::read(raw.as_bytes()).unwrap().written()).unwrap(), raw);
        }
        for raw in ["", "[1]", "{} {}", "\"x\"", "{\"a\":\"\\ud800\"}"] {
            assert!(Line::read(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_change_leaves_the_bytes_around_it_alone() {
        let raw = br#"{ "z" : 1.10, "b" : {"y": [ 1.0 ], "x":2 }, "a":null , "z":3 }"#;
        for (path, expected) in [
            ("b.x", r#"{ "z" : 1.10, "b" : {"y": [ 1.0 ], "x":"n" }, "a":null , "z":3 }"#),
            ("b.w", r#"{ "z" : 1.10, "b" : {"y": [ 1.0 ], "x":2 ,"w":"n"}, "a":null , "z":3 }"#),
            ("a", r#"{ "z" : 1.10, "b" : {"y": [ 1.0 ], "x":2 }, "a":"n" , "z":3 }"#),
            ("z", r#"{ "b" : {"y": [ 1.0 ], "x":2 }, "a":null , "z":"n" }"#),
            ("level", r#"{ "z" : 1.10, "b" : {"y": [ 1.0 ], "x":2 }, "a":null , "z":3 ,"level":"n"}"#),
        ] {
            let mut line = Line::read(raw).unwrap();
            line.set(&Path::new(path), Node::string("n"));
            assert_eq!(String::from_utf8(line.written()).unwrap(), expected, "{path}");
        }
        let mut line = Line::read(raw).unwrap();
        assert!(line.each_mut(&Path::new("z"), |_| Fate::Removed));
        assert!(!line.each_mut(&Path::new("z"), |_| Fate::Removed));
        let expected = r#"{ "b" : {"y": [ 1.0 ], "x":2 }, "a":null }"#;
        assert_eq!(String::from_utf8(line.written()).unwrap(), expected);
    }

    #[test]
    fn a_field_is_found_by_any_of_its_names_and_inside_objects() {
        let line =
            br#"{"msg":"m","severity":null,"lvl":30,"a.b":1,"a":{"b":2,"c":{"d":true},"e.f":{"g":3}},"l":[{"x":4}]}"#;
        let line = Line::read(line).unwrap();
        for (path, expected) in [
            ("message", Some("m")),
            ("log", Some("m")),
            ("level", Some("30")),
            ("a.b", Some("1")),
            ("a.c.d", Some("true")),
            ("a.e.f.g", Some("3")),
            ("a.c", None),
            ("a.b.c", None),
            ("service", None),
            ("l.x", None),
        ] {
            assert_eq!(line.text(&Path::new(path)), expected, "{path}");
        }
        assert!(line.get_anywhere(&Path::new("l.x")).is_some());
    }

    #[test]
    fn every_place_that_a_path_may_mean_is_found() {
        for (path, expected) in [
            (
                "a.b.c",
                json!({"a.b.c": 0, "a.b": {"c": 0}, "a": {"b.c": 0, "b": {"c": 0}, "x": 1}, "l": [{"p": 1}, [{"p": 1}]]}),
            ),
            (
                "l.p",
                json!({"a.b.c": 1, "a.b": {"c": 1}, "a": {"b.c": 1, "b": {"c": 1}, "x": 1}, "l": [{"p": 0}, [{"p": 0}]]}),
            ),
            ("a.b", json!({"a.b.c": 1, "a.b": 0, "a": {"b.c": 1, "b": 0, "x": 1}, "l": [{"p": 1}, [{"p": 1}]]})),
            (
                "b.c",
                json!({"a.b.c": 1, "a.b": {"c": 1}, "a": {"b.c": 1, "b": {"c": 1}, "x": 1}, "l": [{"p": 1}, [{"p": 1}]]}),
            ),
        ] {
            let raw = br#"{"a.b.c":1,"a.b":{"c":1},"a":{"b.c":1,"b":{"c":1},"x":1},"l":[{"p":1},[{"p":1}]]}"#;
            let mut line = Line::read(raw).unwrap();
            line.each_mut(&Path::new(path), |member| {
                member.value = Value::from(0).into();
                Fate::Changed
            });
            assert_eq!(line.shown(), expected, "{path}");
        }
    }

    #[test]
    fn a_field_is_set_in_place_of_its_other_names() {
        for (path, expected) in [
            ("level", json!({"a": {"b": 1}, "d.e": {"f": 2}, "level": "x"})),
            ("lvl", json!({"a": {"b": 1}, "d.e": {"f": 2}, "level": "x"})),
            ("a.c", json!({"a": {"b": 1, "c": "x"}, "d.e": {"f": 2}, "severity": "e"})),
            ("new.one", json!({"a": {"b": 1}, "d.e": {"f": 2}, "severity": "e", "new": {"one": "x"}})),
            ("a.b.c", json!({"a": {"b": 1}, "d.e": {"f": 2}, "severity": "e", "a.b.c": "x"})),
            ("d.e.f", json!({"a": {"b": 1}, "d.e": {"f": "x"}, "severity": "e"})),
        ] {
            let mut line = Line::read(br#"{"a":{"b":1},"d.e":{"f":2},"severity":"e"}"#).unwrap();
            line.set(&Path::new(path), Node::string("x"));
            assert_eq!(line.shown(), expected, "{path}");
        }
    }
}
