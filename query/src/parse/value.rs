//! A field's value: `500`, `>=warn`, `a,b`, `(a OR b)`, `web*`, `*`, `"in quotes"`.

use std::ops::{Bound, Range};

use super::lex::{Scanner, is_long_enough, is_name};
use super::{Problem, QueryError};
use crate::expression::{Clause, Field, Pattern, Query};
use crate::scalar::{self, Limit, Scalar};

/// The six levels, in their order.
const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
/// Names that only LoggerHub itself may choose by.
const TENANT: [&str; 2] = ["tenant", "tenant_id"];
/// Names of the time, which stands beside the query.
const TIME: [&str; 4] = ["timestamp", "@timestamp", "time", "@time"];

/// Most `*` in one value: each lets the index try every place of a word.
const MAX_STARS: usize = 8;
/// Longest name: each of a query's values is asked for with it.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// What may stand between a name and its value; of two that begin alike the longer comes first.
const OPERATORS: [&str; 10] = [":>=", ":<=", ":!=", ":>", ":<", ":", ">=", "<=", "!=", ">"];

/// The name and the operator that a text begins with, if it begins so.
pub(super) fn name_and_operator(text: &str) -> Option<(&str, &'static str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '/')))?;
    let name = Some(&text[..end]).filter(|name| name.len() <= MAX_NAME_BYTES)?;
    let operator = OPERATORS.into_iter().chain(["<"]).find(|operator| text[end..].starts_with(operator))?;
    // `a->b` and `x<y` are texts: without a colon, only a number or a level can be compared.
    let rest = &text[end + operator.len()..];
    let compares = operator.starts_with(':') || (operator == "!=" || is_scalar(rest)) && !name.ends_with('-');
    (is_name(name) && compares).then_some((name, operator))
}

/// Whether a number or a level follows.
fn is_scalar(text: &str) -> bool {
    let word = text.split([' ', '\t', '\n', ')', '(', '|']).next().unwrap_or_default();
    Scalar::of(word).is_some() || level(word).is_some()
}

/// The place of a level among the six.
fn level(text: &str) -> Option<usize> {
    let normal = stages::normalize_level(text);
    LEVELS.iter().position(|level| *level == normal).filter(|_| !text.is_empty())
}

/// The pattern of a word of a text.
pub(super) fn text_pattern(text: &str) -> Result<Pattern, Problem> {
    match text.split_once('*') {
        None => Ok(Pattern::Phrase(text.to_owned())),
        Some((prefix, "")) if is_long_enough(prefix) => Ok(Pattern::Prefix(prefix.to_owned())),
        // Nothing but signs.
        Some(_) if !text.contains(char::is_alphanumeric) => Ok(Pattern::Phrase(text.to_owned())),
        Some(_) => Err(Problem::Wildcard),
    }
}

/// What a field is asked for. `None`: it is a text that only looks like a field.
pub(super) fn read(
    scanner: &mut Scanner<'_>,
    field: Field,
    operator: &str,
    start: usize,
) -> Result<Option<Query>, QueryError> {
    let name = &scanner.text[start..scanner.at - operator.len()];
    if operator.starts_with(':') {
        let ends = |c: char| c.is_whitespace() || c == ')';
        let word = scanner.rest().split(ends).next().unwrap_or_default();
        // `http://host`
        if word.starts_with("//") {
            return Ok(None);
        }
        if word.is_empty() && operator == ":" {
            // `error: connection refused` is a text; `level: error` is not.
            match scanner.rest().trim_start() {
                "" => return Err(scanner.error(Problem::Unfinished, start..scanner.at)),
                _ if !field.is_reserved() => return Ok(None),
                rest if rest.starts_with(')') => return Err(scanner.error(Problem::Unfinished, start..scanner.at)),
                _ => scanner.skip_spaces(),
            }
        }
    }
    if TENANT.contains(&name) {
        return Err(scanner.error(Problem::Tenant, start..scanner.at));
    }
    if TIME.contains(&name) {
        return Err(scanner.error(Problem::Time, start..scanner.at));
    }
    match operator.trim_start_matches(':') {
        "" => one_or_several(scanner, &field, start).map(Some),
        "!=" => Ok(Some(Query::Not(Box::new(one_or_several(scanner, &field, start)?)))),
        compared => comparison(scanner, &field, compared, start).map(Some),
    }
}

fn one_or_several(scanner: &mut Scanner<'_>, field: &Field, start: usize) -> Result<Query, QueryError> {
    if scanner.eat("(") {
        return several(scanner, field, start);
    }
    if !field.is_reserved()
        && let Some((range, bytes)) = range(scanner.rest())
    {
        scanner.at += bytes;
        return Ok(Query::Clause(Clause { field: field.clone(), pattern: Pattern::Range(range) }));
    }
    let values = match scanner.peek() {
        Some('"') => vec![(scanner.quoted()?, true)],
        _ => match scanner.bare().to_owned() {
            // A text and an address may have commas.
            value if *field == Field::Text || value.contains("://") => vec![(value, false)],
            values => values.split(',').map(|value| (value.to_owned(), false)).collect(),
        },
    };
    any_of(scanner, field, values, start..scanner.at)
}

/// `(a OR b)`, after its parenthesis.
fn several(scanner: &mut Scanner<'_>, field: &Field, start: usize) -> Result<Query, QueryError> {
    let mut values = Vec::new();
    loop {
        scanner.skip_spaces();
        match scanner.peek() {
            None => return Err(scanner.error(Problem::OpenParenthesis, start..scanner.at)),
            Some(')') => {
                scanner.eat(")");
                return any_of(scanner, field, values, start..scanner.at);
            }
            Some(',') => drop(scanner.eat(",")),
            Some('"') => values.push((scanner.quoted()?, true)),
            Some('(') => return Err(scanner.error(Problem::NestedValues, scanner.at..scanner.at + 1)),
            Some(_) => {
                let from = scanner.at;
                match scanner.bare().to_owned().as_str() {
                    "OR" | "or" | "||" if !values.is_empty() => {}
                    "AND" | "and" | "&&" | "NOT" | "not" => {
                        return Err(scanner.error(Problem::NestedValues, from..scanner.at));
                    }
                    word => values.extend(word.split(',').filter(|v| !v.is_empty()).map(|v| (v.to_owned(), false))),
                }
            }
        }
    }
}

fn any_of(
    scanner: &Scanner<'_>,
    field: &Field,
    values: Vec<(String, bool)>,
    at: Range<usize>,
) -> Result<Query, QueryError> {
    let mut choices = Vec::new();
    for (value, is_quoted) in values {
        if !is_quoted && let Some(compared) = compared(field, &value) {
            choices.push(compared.map_err(|problem| scanner.error(problem, at.clone()))?);
            continue;
        }
        let pattern = pattern(field, value, is_quoted).map_err(|problem| scanner.error(problem, at.clone()))?;
        choices.push(Query::Clause(Clause { field: field.clone(), pattern }));
    }
    match choices.len() {
        0 => Err(scanner.error(Problem::NothingToFind, at)),
        1 => Ok(choices.swap_remove(0)),
        _ => Ok(Query::Or(choices)),
    }
}

/// A comparison or a range among other values: `>=520`, `500..599`.
fn compared(field: &Field, value: &str) -> Option<Result<Query, Problem>> {
    let operator = [">=", "<=", ">", "<"].into_iter().find(|operator| value.starts_with(operator));
    match operator {
        Some(operator) => Some(compare(field, operator, value[operator.len()..].to_owned())),
        None if field.is_reserved() => None,
        None => {
            let (range, bytes) = range(value)?;
            let clause = Clause { field: field.clone(), pattern: Pattern::Range(range) };
            (bytes == value.len()).then_some(Ok(Query::Clause(clause)))
        }
    }
}

fn pattern(field: &Field, value: String, is_quoted: bool) -> Result<Pattern, Problem> {
    if value.is_empty() {
        return Err(Problem::NothingToFind);
    }
    if !is_quoted && is_expression(&value) {
        return Err(Problem::Expression);
    }
    if *field == Field::Text {
        let pattern = if is_quoted { Pattern::Phrase(value) } else { text_pattern(&value)? };
        return match &pattern {
            Pattern::Phrase(text) | Pattern::Prefix(text) if !crate::words::words(text).is_empty() => Ok(pattern),
            _ => Err(Problem::NothingToFind),
        };
    }
    match value.split_once('*') {
        _ if is_quoted => Ok(Pattern::Phrase(value)),
        None => Ok(Pattern::Phrase(value)),
        Some(("", "")) => Ok(Pattern::Exists),
        // Of a field's values one letter is few enough: `status:5*`.
        Some((prefix, "")) if prefix.contains(char::is_alphanumeric) => Ok(Pattern::Prefix(prefix.to_owned())),
        Some(_) if is_long_enough(&value) && value.matches('*').count() <= MAX_STARS => Ok(Pattern::Wildcard(value)),
        Some(_) => Err(Problem::Wildcard),
    }
}

/// Whether a value is a regular expression between two slashes, and no path: `/time.?out/`, `/^a|b$/i`.
fn is_expression(value: &str) -> bool {
    const ONLY_IN_EXPRESSIONS: [&str; 10] = [".*", ".+", ".?", "\\", "[", "(", "|", "^", "$", "{"];
    let inside = value.strip_prefix('/').and_then(|rest| rest.strip_suffix('/').or_else(|| rest.strip_suffix("/i")));
    inside.is_some_and(|inside| ONLY_IN_EXPRESSIONS.iter().any(|sign| inside.contains(sign)))
}

/// `[500 TO 599]` or `500..599` at the beginning of a text, and how many bytes it has.
fn range(text: &str) -> Option<(scalar::Range, usize)> {
    let limit = |text: &str| -> Option<Bound<Limit>> {
        match text {
            "*" | "" => Some(Bound::Unbounded),
            text => Some(Bound::Included(Limit { text: text.to_owned(), value: Scalar::of(text)? })),
        }
    };
    if let Some((inside, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let (low, high) = inside.split_once(" TO ")?;
        return Some((scalar::Range::new(limit(low.trim())?, limit(high.trim())?)?, inside.len() + 2));
    }
    let word = text.split(|c: char| c.is_whitespace() || matches!(c, ')' | '|')).next()?;
    let (low, high) = word.split_once("..")?;
    Some((scalar::Range::new(limit(low)?, limit(high)?)?, word.len()))
}

/// `>=warn`: every level from there on. `>=500`: a number in a range, or a time.
fn comparison(scanner: &mut Scanner<'_>, field: &Field, operator: &str, start: usize) -> Result<Query, QueryError> {
    let value = match scanner.peek() {
        Some('"') => scanner.quoted()?,
        _ => scanner.bare().to_owned(),
    };
    let at = start..scanner.at;
    compare(field, operator, value).map_err(|problem| scanner.error(problem, at))
}

/// The query for a comparison.
fn compare(field: &Field, operator: &str, value: String) -> Result<Query, Problem> {
    if *field != Field::Level {
        let limit = Scalar::of(&value).map(|scalar| Limit { text: value, value: scalar });
        let limit = limit.filter(|_| !field.is_reserved()).ok_or(Problem::NotComparable)?;
        let range = match operator {
            ">=" => scalar::Range::new(Bound::Included(limit), Bound::Unbounded),
            ">" => scalar::Range::new(Bound::Excluded(limit), Bound::Unbounded),
            "<=" => scalar::Range::new(Bound::Unbounded, Bound::Included(limit)),
            _ => scalar::Range::new(Bound::Unbounded, Bound::Excluded(limit)),
        };
        let pattern = range.map(Pattern::Range).ok_or(Problem::NotComparable)?;
        return Ok(Query::Clause(Clause { field: field.clone(), pattern }));
    }
    let place = level(&value).ok_or(Problem::NoLevel)?;
    let levels = match operator {
        ">=" => &LEVELS[place..],
        ">" => &LEVELS[place + 1..],
        "<=" => &LEVELS[..=place],
        _ => &LEVELS[..place],
    };
    let clause =
        |level: &&str| Query::Clause(Clause { field: Field::Level, pattern: Pattern::Phrase((*level).to_owned()) });
    match levels {
        [] => Err(Problem::NoLevel),
        [one] => Ok(clause(one)),
        several => Ok(Query::Or(several.iter().map(clause).collect())),
    }
}
