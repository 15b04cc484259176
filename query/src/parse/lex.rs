//! A query's text as tokens.

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

use super::QueryError;
use crate::expression::{Clause, Field, Pattern};
use crate::words::words;

/// Fewest letters before a `*`: a shorter prefix names too many words of an index.
const MIN_PREFIX: usize = 2;

/// A piece of a query that means something by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Clause(Clause),
}

/// As the client wrote it, for an error.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::Open => "(",
            Token::Close => ")",
            Token::And => "AND",
            Token::Or => "OR",
            Token::Not => "NOT",
            Token::Clause(Clause { pattern: Pattern::Phrase(text) | Pattern::Prefix(text), .. }) => text,
        })
    }
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, QueryError> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(start, first)) = chars.peek() {
        let token = match first {
            c if c.is_whitespace() => {
                chars.next();
                continue;
            }
            '(' | ')' | '-' => {
                chars.next();
                match first {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Not,
                }
            }
            '"' => phrase(Field::Text, "", quoted(&mut chars)?)?,
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
                while chars.next_if(|&(_, c)| !ends(c)).is_some() {}
                let end = chars.peek().map_or(text.len(), |&(end, _)| end);
                word(&text[start..end], &mut chars)?
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn word(text: &str, rest: &mut Peekable<CharIndices<'_>>) -> Result<Token, QueryError> {
    match text {
        "AND" => return Ok(Token::And),
        "OR" => return Ok(Token::Or),
        "NOT" => return Ok(Token::Not),
        _ => {}
    }
    let (field, value) = match text.split_once(':') {
        Some((name, value)) if looks_like_a_field(name) => (field(name)?, value),
        _ => (Field::Text, text),
    };
    if value.is_empty() && rest.peek().is_some_and(|&(_, c)| c == '"') {
        return phrase(field, text, quoted(rest)?);
    }
    let Some((prefix, after)) = value.split_once('*') else {
        return phrase(field, text, value.to_owned());
    };
    if after.is_empty() && prefix.chars().filter(|c| c.is_alphanumeric()).count() >= MIN_PREFIX {
        Ok(Token::Clause(Clause { field, pattern: Pattern::Prefix(prefix.to_owned()) }))
    } else {
        Err(QueryError::Wildcard(text.to_owned()))
    }
}

/// `written` is what stands before the value, for an error about an empty one.
fn phrase(field: Field, written: &str, value: String) -> Result<Token, QueryError> {
    if value.chars().any(char::is_alphanumeric) || !words(&value).is_empty() {
        return Ok(Token::Clause(Clause { field, pattern: Pattern::Phrase(value) }));
    }
    Err(QueryError::NothingToFind(if written.is_empty() { value } else { written.to_owned() }))
}

/// The text between two quotation marks; `\"` and `\\` stand for themselves.
fn quoted(chars: &mut Peekable<CharIndices<'_>>) -> Result<String, QueryError> {
    chars.next();
    let mut text = String::new();
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return Ok(text),
            '\\' => match chars.next_if(|&(_, c)| matches!(c, '"' | '\\')) {
                Some((_, escaped)) => text.push(escaped),
                None => text.push('\\'),
            },
            c => text.push(c),
        }
    }
    Err(QueryError::OpenQuote)
}

/// Times and addresses hold colons too; a field's name begins with a letter.
fn looks_like_a_field(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn field(name: &str) -> Result<Field, QueryError> {
    let path = |root: &str| name.strip_prefix(root).filter(|path| !path.is_empty()).map(str::to_owned);
    match name {
        "service" => Ok(Field::Service),
        "level" => Ok(Field::Level),
        "application" => Ok(Field::Application),
        "language" => Ok(Field::Language),
        _ => (path("metadata.").map(Field::Metadata))
            .or_else(|| path("attributes.").map(Field::Attributes))
            .ok_or_else(|| QueryError::UnknownField(name.to_owned())),
    }
}
