//! What a query may go on with at the cursor: a field's name, one of its values, a stage, a function.

use std::ops::Range;

use crate::expression::Field;
use crate::parse::{is_field_name, name_and_operator, quoted, stages_begin};
use crate::stage::VERBS;

/// What stands at the cursor, and what it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A word of the query, or a field's name.
    Word(String),
    /// A field's value.
    Value(Field, String),
    /// A stage.
    Verb(String),
    /// A function of `stats` or `timechart`.
    Function(String),
    /// A field's name in a stage.
    Field(String),
    /// `by`.
    By(String),
    /// Nothing that could be offered.
    Nothing,
}

/// Most values that are offered.
pub const MAX_OFFERED: usize = 20;

/// What stands at the cursor, and which bytes of the text a completion replaces. `at` is in bytes; one inside of a
/// character, or after the end, is the next that is not.
pub fn place(text: &str, at: usize) -> (Place, Range<usize>) {
    let at = text.ceil_char_boundary(at.min(text.len()));
    let before = &text[..at];
    let is_end = |c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '|' | '"' | ':');
    let end = at + text[at..].find(is_end).unwrap_or(text.len() - at);
    if let Some(quote) = open_quote(before) {
        return in_quotes(text, quote, at);
    }
    let (place, start) = match last_stage(before) {
        Some(from) => in_stage(before, from),
        None => in_search(before),
    };
    (place, start..end.max(at))
}

/// Where a quotation mark stands that is not closed.
fn open_quote(text: &str) -> Option<usize> {
    let mut open = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if open.is_some() && !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => open = if open.is_some() { None } else { Some(at) },
            _ => {}
        }
        escaped = false;
    }
    open
}

/// A value in quotation marks: it is replaced with them.
fn in_quotes(text: &str, quote: usize, at: usize) -> (Place, Range<usize>) {
    let end = text[at..].find('"').map_or(at, |closing| at + closing + 1);
    match field_before(&text[..quote]) {
        Some(field) => (Place::Value(field, text[quote + 1..at].to_owned()), quote..end),
        None => (Place::Nothing, at..at),
    }
}

/// Where the last stage begins, behind its `|`.
fn last_stage(before: &str) -> Option<usize> {
    let mut quoted = false;
    let mut last = None;
    let bytes = before.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'|' if !quoted => {
                let is_or = bytes.get(at + 1) == Some(&b'|') || at > 0 && bytes[at - 1] == b'|';
                let begins_word = at == 0 || bytes[at - 1].is_ascii_whitespace() || stages_begin(&before[at + 1..]);
                if !is_or && begins_word {
                    last = Some(at + 1);
                }
            }
            _ => {}
        }
    }
    last
}

fn in_stage(before: &str, from: usize) -> (Place, usize) {
    let stage = &before[from..];
    let start = before.len() - last_word(stage).len();
    let prefix = before[start..].to_owned();
    let mut words =
        stage.split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')')).filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or_default();
    let is_verb = VERBS.iter().any(|(known, _)| *known == verb);
    if !is_verb || stage.trim_start() == verb {
        let place = if stage.trim_start().len() == prefix.len() { Place::Verb(prefix) } else { Place::Nothing };
        return (place, start);
    }
    let follows_by = words.any(|word| word == "by") && stage[..stage.len() - prefix.len()].contains(" by");
    let in_parentheses = stage.rfind('(') > stage.rfind(')');
    let is_number = prefix.starts_with(|c: char| c.is_ascii_digit());
    let place = match verb {
        _ if is_number => Place::Nothing,
        "top" | "rare" | "fields" => Place::Field(prefix),
        "count" | "stats" | "timechart" if follows_by || in_parentheses => Place::Field(prefix),
        "count" => Place::By(prefix),
        "stats" | "timechart" => {
            let so_far = stage[..stage.len() - prefix.len()].trim_end();
            // After a function, only `by` or another one behind a comma.
            if so_far.ends_with(')') || so_far.ends_with(" count") {
                Place::By(prefix)
            } else {
                Place::Function(prefix)
            }
        }
        _ => Place::Nothing,
    };
    (place, start)
}

fn in_search(before: &str) -> (Place, usize) {
    // `level:(error OR wa`
    if let Some(open) = open_parenthesis(before)
        && let Some(field) = field_before(&before[..open])
    {
        let prefix = last_word(before).to_owned();
        let start = before.len() - prefix.len();
        return (Place::Value(field, prefix), start);
    }
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let word = word.trim_start_matches(['-', '!']);
    let start = before.len() - word.len();
    match name_and_operator(word) {
        Some((name, operator)) if operator.starts_with(':') => {
            let values = &word[name.len() + operator.len()..];
            // An address.
            if values.starts_with("//") {
                return (Place::Nothing, before.len());
            }
            let value = values.rsplit(',').next().unwrap_or_default();
            (Place::Value(Field::of(name), value.to_owned()), before.len() - value.len())
        }
        _ if word.is_empty() || is_field_name(word) => (Place::Word(word.to_owned()), start),
        _ => (Place::Nothing, before.len()),
    }
}

fn last_word(text: &str) -> &str {
    text.rsplit(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')' | '|')).next().unwrap_or_default()
}

/// Where a parenthesis stands that is not closed.
fn open_parenthesis(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '(' => open.push(at),
            ')' => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

/// The field whose name and colon a text ends with.
fn field_before(text: &str) -> Option<Field> {
    let word = text.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let (name, operator) = name_and_operator(word.trim_start_matches(['-', '!']))?;
    let is_whole = operator.starts_with(':') && word.ends_with(operator);
    is_whole.then(|| Field::of(name))
}

/// A value as it is written behind a field's colon.
pub fn written(value: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if !value.is_empty() && value.chars().all(is_plain) { value.to_owned() } else { quoted(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stands_at_something() {
        let value = |name: &str, prefix: &str| Place::Value(Field::of(name), prefix.to_owned());
        let word = |prefix: &str| Place::Word(prefix.to_owned());
        let field = |prefix: &str| Place::Field(prefix.to_owned());
        for (text, place, replaced) in [
            ("^", word(""), ""),
            ("ser^", word("ser"), "ser"),
            ("a -ser^vice b", word("ser"), "service"),
            ("a (x OR st^", word("st"), "st"),
            ("level:^", value("level", ""), ""),
            ("level:er^ror x", value("level", "er"), "error"),
            ("level:error,wa^", value("level", "wa"), "wa"),
            ("level:(error OR wa^", value("level", "wa"), "wa"),
            ("level:>=wa^", value("level", "wa"), "wa"),
            ("x service:\"my a^", value("service", "my a"), "\"my a"),
            ("x service:\"my a^pi\" y", value("service", "my a"), "\"my api\""),
            ("\"some te^", Place::Nothing, ""),
            ("http://x/^", Place::Nothing, ""),
            ("x | ^", Place::Verb(String::new()), ""),
            ("x | co^", Place::Verb("co".into()), "co"),
            ("x | count^", Place::Verb("count".into()), "count"),
            ("x | count b^", Place::By("b".into()), "b"),
            ("x | count by ^", field(""), ""),
            ("x | count by service, le^", field("le"), "le"),
            ("x | top 1^", Place::Nothing, "1"),
            ("x | top 10 sta^", field("sta"), "sta"),
            ("x | stats p9^", Place::Function("p9".into()), "p9"),
            ("x | stats p95(la^", field("la"), "la"),
            ("x | stats p95(x) ^", Place::By(String::new()), ""),
            ("x | stats p95(x), a^", Place::Function("a".into()), "a"),
            ("x | timechart 5m count by l^", field("l"), "l"),
            ("x | limit 5 | co^", Place::Verb("co".into()), "co"),
            ("a || b^", word("b"), "b"),
        ] {
            let at = text.find('^').unwrap();
            let text = text.replace('^', "");
            let (found, range) = super::place(&text, at);
            assert_eq!((found, &text[range]), (place, replaced), "{text} at {at}");
        }
        assert_eq!(super::place("ä", 1).1, 2..2);
        assert_eq!(super::place("a", 99).1, 0..1);
    }

    #[test]
    fn a_value_is_written_so_that_it_means_itself() {
        for (value, text) in
            [("api", "api"), ("web-1.x", "web-1.x"), ("my api", "\"my api\""), ("a\"b", "\"a\\\"b\""), ("", "\"\"")]
        {
            assert_eq!(written(value), text);
        }
    }
}
