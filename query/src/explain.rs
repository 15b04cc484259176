//! What was understood of a query: in a sentence, in its normal form, and piece by piece for an editor to colour.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use api::explain::{Explanation, Hint, Token, TokenKind};
use regex::Regex;

use crate::expression::{Clause, Field, Pattern, Query};
use crate::parse::{Piece, QueryError, is_field_name, nearest, pieces, question, quoted};
use crate::scalar::Scalar;
use crate::stage::Question;
use crate::words::words;

/// Explains a query.
pub fn explain(text: &str) -> Result<Explanation, QueryError> {
    let asked = question(text)?;
    let pieces = pieces(text);
    let hints = hints(text, &asked, &pieces);
    let token = |Piece { kind, at }: Piece| Token { kind, position: at.start, length: at.len() };
    let (sentence, normal) = (asked.sentence(), asked.to_string());
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

/// A name, a comparison and a value, with spaces or without.
static COMPARISON: LazyLock<Regex> =
    LazyLock::new(|| expression(r#"(@?[A-Za-z_][\w.\-]*)\s*(>=|<=|!=|==|=|>|<)\s*("[^"]*"|[^\s()"|,=<>]+)"#));

#[expect(clippy::expect_used, reason = "the expression is ours, and the tests use it")]
fn expression(text: &str) -> Regex {
    Regex::new(text).expect("a valid expression")
}

/// What else may have been meant: `a or b` of plain words, `status=500`, `status >= 500`, `level:erro`.
fn hints(text: &str, asked: &Question, pieces: &[Piece]) -> Vec<Hint> {
    let of_words = |piece: &&Piece| piece.kind == TokenKind::Word;
    let words: BTreeSet<&str> = pieces.iter().filter(of_words).map(|piece| &text[piece.at.clone()]).collect();
    let operators = words.into_iter().filter_map(operator);
    let operators = operators.map(|(word, why, meant)| {
        let all = text.split(' ').map(|other| if other == word { meant } else { other });
        (why, all.collect::<Vec<_>>().join(" "))
    });
    let offered = operators.chain(comparisons(text, pieces)).chain(levels(text, pieces)).chain(other_quotes(text));
    let mut hints: Vec<Hint> = Vec::new();
    for (why, query) in offered {
        let is_another = question(&query).is_ok_and(|other| other != *asked);
        if is_another && hints.iter().all(|hint| hint.query != query) {
            hints.push(Hint { text: why.to_owned(), query });
        }
    }
    hints
}

/// The operator that a plain word may have meant.
fn operator(word: &str) -> Option<(&str, &'static str, &'static str)> {
    let (why, meant) = match word {
        "and" => ("`and` is a word here; words side by side are all looked for without it", "AND"),
        "or" => ("`or` is a word here; OR in capital letters finds either", "OR"),
        "not" => ("`not` is a word here; NOT in capital letters excludes what follows", "NOT"),
        _ => return None,
    };
    Some((word, why, meant))
}

/// `status=500` and `status >= 500`, which are texts: the whole query with a field in the place of each.
fn comparisons(text: &str, pieces: &[Piece]) -> Option<(&'static str, String)> {
    const WHY: &str = "this is text here; a field is asked with `:` and no space before it";
    let is_word_at = |at: usize| pieces.iter().any(|piece| piece.kind == TokenKind::Word && piece.at.start == at);
    let mut meant = String::new();
    let mut end = 0;
    for found in COMPARISON.captures_iter(text) {
        let (whole, name, operator, value) = (found.get(0)?, &found[1], &found[2], &found[3]);
        let compares = !matches!(operator, "<" | ">" | "<=" | ">=") || is_comparable(value);
        if is_field_name(name) && is_word_at(whole.start()) && compares {
            meant.push_str(&text[end..whole.start()]);
            let operator = if matches!(operator, "=" | "==") { "" } else { operator };
            meant.push_str(&format!("{name}:{operator}{value}"));
            end = whole.end();
        }
    }
    meant.push_str(&text[end..]);
    (end > 0).then_some((WHY, meant))
}

/// The usual level that is nearest to one that is none.
fn levels(text: &str, pieces: &[Piece]) -> Option<(&'static str, String)> {
    const USUAL: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];
    let of_level = |two: &&[Piece]| {
        two[0].kind == TokenKind::Field
            && Field::of(text[two[0].at.clone()].trim_end_matches(|c: char| !c.is_alphanumeric())) == Field::Level
    };
    let value = pieces.windows(2).find(of_level)?[1].at.clone();
    let said = text[value.clone()].to_lowercase();
    let is_usual = USUAL.contains(&stages::normalize_level(&said).to_lowercase().as_str());
    let near = nearest(&said, USUAL).filter(|_| !is_usual)?;
    Some(("it is no usual level", format!("{}{near}{}", &text[..value.start], &text[value.end..])))
}

/// Quotation marks of other kinds, which are signs here.
fn other_quotes(text: &str) -> Option<(&'static str, String)> {
    const OTHERS: [char; 5] = ['“', '”', '„', '«', '»'];
    text.contains(OTHERS)
        .then(|| ("a phrase stands in `\"`; other quotation marks are skipped", text.replace(OTHERS, "\"")))
}

fn is_comparable(value: &str) -> bool {
    Scalar::of(value.trim_matches('"')).is_some()
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
    use crate::parse::parse;

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
            (
                "level:error | grep x | fields service",
                "level is ERROR, and the text has the letters \"x\"; of these shown are `service`",
            ),
            ("| count by service", "every event; of these the number of events for each `service`"),
            ("a | top 5 status", "the text has \"a\"; of these the 5 values of `status` that most of them have"),
            (
                "a | timechart 5m p95(ms) by level",
                "the text has \"a\"; of these the 95 % percentile of `ms` every 5m for each of the 10 largest `level`",
            ),
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
            ("status==500", &["status:500"]),
            ("x status >= 500", &["x status:>=500"]),
            ("status >=500 | count", &["status:>=500 | count"]),
            ("service = \"my api\"", &["service:\"my api\""]),
            ("status != 500 ms<20", &["status:!=500 ms<20"]),
            ("5 > 3", &[]),
            ("a->b List<String> x<y", &[]),
            ("level:erro x", &["level:error x"]),
            ("level:audit", &[]),
            ("level:err", &[]),
            ("“a b”", &["\"a b\""]),
            ("level:error or level:warn", &[]),
            ("a b", &[]),
            ("\"a or b\"", &[]),
        ] {
            let hints = explain(text).unwrap().hints;
            assert_eq!(hints.iter().map(|hint| hint.query.as_str()).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
