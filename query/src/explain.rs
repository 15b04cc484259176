//! What was understood of a query: in a sentence, in its normal form, and piece by piece for an editor to colour.

use std::collections::BTreeSet;
use std::fmt;

use api::explain::{Explanation, Hint, Token, TokenKind};

use crate::expression::{Clause, Field, Pattern, Query};
use crate::parse::{Piece, QueryError, is_field_name, parse, pieces, quoted};
use crate::words::words;

/// Explains a query.
pub fn explain(text: &str) -> Result<Explanation, QueryError> {
    let query = parse(text)?;
    let pieces = pieces(text);
    let hints = hints(text, &query, &pieces);
    let token = |Piece { kind, at }: Piece| Token { kind, position: at.start, length: at.len() };
    let (sentence, normal) = (sentence(&query), query.to_string());
    Ok(Explanation { text: sentence, normal, tokens: pieces.into_iter().map(token).collect(), hints })
}

/// A query in words.
pub fn sentence(query: &Query) -> String {
    match query {
        Query::And(parts) if parts.is_empty() => "every event".to_owned(),
        Query::And(parts) => parts.iter().map(grouped).collect::<Vec<_>>().join(", and "),
        Query::Or(parts) => match values_of_one_field(parts) {
            Some((field, values)) => format!("{field} is {}", values.join(" or ")),
            None => parts.iter().map(grouped).collect::<Vec<_>>().join(", or "),
        },
        Query::Not(inner) => match &**inner {
            Query::Clause(Clause { field, pattern: Pattern::Exists }) => format!("there is no {}", name(field)),
            Query::Clause(Clause { field, pattern: Pattern::Phrase(value) })
                if *field != Field::Text && !named(field) =>
            {
                format!("{} is not {} or is missing", name(field), shown(field, value))
            }
            other => format!("it is not so that {}", grouped(other)),
        },
        Query::Clause(clause) => of_clause(clause),
    }
}

fn named(field: &Field) -> bool {
    matches!(field, Field::Named(_))
}

/// A part of a sentence, in parentheses where it would run together with its neighbours.
fn grouped(query: &Query) -> String {
    match query {
        Query::Or(parts) if values_of_one_field(parts).is_some() => sentence(query),
        Query::And(parts) | Query::Or(parts) if parts.len() > 1 => format!("({})", sentence(query)),
        _ => sentence(query),
    }
}

fn of_clause(clause: &Clause) -> String {
    let Clause { field, pattern } = clause;
    match (field, pattern) {
        (Field::Text | Field::Message, Pattern::Phrase(text)) => text_has(text),
        (Field::Text | Field::Message, Pattern::Prefix(text)) => match words(text).as_slice() {
            [] | [_] => format!("the text has a word that begins with {}", quoted(text)),
            several => {
                format!("the text has the words {} next to each other, the last as a beginning", several.join(", "))
            }
        },
        (Field::Named(name), Pattern::Phrase(value)) if let Some(Pattern::Phrase(text)) = clause.as_text() => {
            format!("a field `{name}` is {}, or {}", quoted(value), text_has(&text))
        }
        (field, Pattern::Phrase(value)) => format!("{} is {}", name(field), shown(field, value)),
        (field, Pattern::Prefix(value)) => format!("{} begins with {}", name(field), shown(field, value)),
        (field, Pattern::Wildcard(value)) => format!("{} is like {}", name(field), quoted(value)),
        (field, Pattern::Exists) => format!("there is a {}", name(field)),
        (field, Pattern::Range(range)) => format!("{} {}", name(field), range.sentence()),
    }
}

fn text_has(text: &str) -> String {
    match words(text).as_slice() {
        [word] => format!("the text has {}", quoted(word)),
        several => format!("the text has the words {} next to each other", several.join(", ")),
    }
}

/// A field's name in a sentence.
fn name(field: &Field) -> String {
    match field {
        Field::Either(name) | Field::Named(name) => format!("field `{name}`"),
        field => field.to_string(),
    }
}

fn shown(field: &Field, value: &str) -> String {
    match field {
        Field::Level => stages::normalize_level(value),
        _ => quoted(value),
    }
}

/// The field and the values of choices that are all values of one field.
fn values_of_one_field(parts: &[Query]) -> Option<(String, Vec<String>)> {
    let mut of = None;
    let mut values = Vec::new();
    for part in parts {
        match part {
            Query::Clause(Clause { field, pattern: Pattern::Phrase(value) })
                if *field != Field::Text && !named(field) && of.is_none_or(|of| of == field) =>
            {
                of = Some(field);
                values.push(shown(field, value));
            }
            _ => return None,
        }
    }
    Some((name(of?), values))
}

/// What else may have been meant: `a or b` of plain words, `status=500`.
fn hints(text: &str, query: &Query, pieces: &[Piece]) -> Vec<Hint> {
    let words: BTreeSet<&str> =
        (pieces.iter()).filter(|piece| piece.kind == TokenKind::Word).map(|piece| &text[piece.at.clone()]).collect();
    words.into_iter().filter_map(|word| hint(text, query, word)).collect()
}

/// What a plain word of a query may have meant.
fn hint(text: &str, query: &Query, word: &str) -> Option<Hint> {
    let (why, meant) = match (word, word.split_once('=')) {
        ("and", _) => ("`and` is a word here; words side by side are all looked for without it", "AND".to_owned()),
        ("or", _) => ("`or` is a word here; OR in capital letters finds either", "OR".to_owned()),
        ("not", _) => ("`not` is a word here; NOT in capital letters excludes what follows", "NOT".to_owned()),
        (_, Some((name, value))) if is_field_name(name) && !value.is_empty() => {
            ("`=` is part of the text here; `:` asks for a field", format!("{name}:{value}"))
        }
        _ => return None,
    };
    let all = text.split(' ').map(|other| if other == word { &meant } else { other });
    let other = all.collect::<Vec<_>>().join(" ");
    let is_another = parse(&other).is_ok_and(|other| other != *query);
    is_another.then(|| Hint { text: why.to_owned(), query: other })
}

/// The normal form of a query: read again, it is the same.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) if parts.is_empty() => f.write_str("*"),
            Self::And(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    f.write_str(if at > 0 { " " } else { "" })?;
                    inside(part, f)?;
                }
                Ok(())
            }
            Self::Or(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    f.write_str(if at > 0 { " OR " } else { "" })?;
                    inside(part, f)?;
                }
                Ok(())
            }
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                inside(inner, f)
            }
            Self::Clause(clause) => fmt::Display::fmt(clause, f),
        }
    }
}

fn inside(query: &Query, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match query {
        Query::And(parts) | Query::Or(parts) if !parts.is_empty() => write!(f, "({query})"),
        _ => fmt::Display::fmt(query, f),
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field != Field::Text {
            write!(f, "{}:", self.field)?;
        }
        match &self.pattern {
            Pattern::Phrase(text) if is_plain(text) => f.write_str(text),
            Pattern::Phrase(text) => f.write_str(&quoted(text)),
            Pattern::Prefix(text) => write!(f, "{text}*"),
            Pattern::Wildcard(text) => f.write_str(text),
            Pattern::Exists => f.write_str("*"),
            Pattern::Range(range) => range.fmt(f),
        }
    }
}

/// Whether a text means itself without quotation marks, wherever it stands.
fn is_plain(text: &str) -> bool {
    const OPERATORS: [&str; 3] = ["and", "or", "not"];
    text.chars().all(char::is_alphanumeric) && !OPERATORS.contains(&text.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_explained_in_a_sentence() {
        for (query, sentence) in [
            ("timeout", r#"the text has "timeout""#),
            ("conn-reset", "the text has the words conn, reset next to each other"),
            ("timeou*", r#"the text has a word that begins with "timeou""#),
            (
                "service:api level:>=warn \"conn reset\"",
                "service is \"api\", and level is WARN or ERROR or FATAL, and the text has the words conn, reset next to each other",
            ),
            ("a b OR c", r#"(the text has "a", and the text has "b"), or the text has "c""#),
            ("-health", r#"it is not so that the text has "health""#),
            ("-service:api", "service is not \"api\" or is missing"),
            ("status:500", r#"a field `status` is "500", or the text has the words status, 500 next to each other"#),
            ("@status:500 host:*web*", r#"field `status` is "500", and field `host` is like "*web*""#),
            ("status:>=500 -x:..9", "field `status` is 500 or more, and it is not so that field `x` is 9 or less"),
            ("user.id:* -x:*", "there is a field `user.id`, and there is no field `x`"),
            ("*", "every event"),
        ] {
            assert_eq!(explain(query).unwrap().text, sentence, "{query}");
        }
    }

    #[test]
    fn the_normal_form_means_the_same() {
        for text in [
            "timeout",
            "a b OR c",
            "(a OR b) (c d)",
            "-a",
            "NOT NOT a",
            "-(a OR b)",
            "\"or\" x",
            "\"a \\\"b\\\" c\"",
            "timeou* foo-ba*",
            "service:\"my api\"",
            "level:error,warn x",
            "level:>=warn",
            "host:*web* @a.b:c user:*",
            "*",
            "-*",
            "https://x/y?z -Xmx512m",
            "status:>=500 a:[1 TO 2] b:..3 c:>2026-01-01 @d<5",
            "due:>\"2026-01-01 10:00:00\" x",
            "a/b:c",
            "x:\"a*b\"",
            "not level:debug",
            "\"-x\" -\"-y\"",
            "- a",
        ] {
            let query = parse(text).unwrap();
            let normal = query.to_string();
            assert_eq!(parse(&normal).as_ref(), Ok(&query), "{text} → {normal}");
        }
    }

    #[test]
    fn what_else_may_be_meant_is_said() {
        for (text, expected) in [
            ("a or b", &["a OR b"][..]),
            ("could not connect", &["could NOT connect"]),
            ("status=500 x", &["status:500 x"]),
            ("level:error or level:warn", &[]),
            ("a b", &[]),
            ("\"a or b\"", &[]),
        ] {
            let hints = explain(text).unwrap().hints;
            assert_eq!(hints.iter().map(|hint| hint.query.as_str()).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
