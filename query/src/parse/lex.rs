//! A query's text as tokens.
//!
//! People type `level:error -health`, and they paste what they see: addresses, stack frames, `error: refused`. A sign
//! is an operator only where nobody would write it in a text.

use std::ops::Range;

use super::{Problem, QueryError};
use super::{stages, value};
use crate::expression::{Clause, Field, Pattern, Query};
use crate::words::words;

/// Fewest letters or digits beside a `*`: a shorter beginning names too many words of an index.
const MIN_PREFIX: usize = 2;

/// A token, and where it stands in the query, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) at: Range<usize>,
}

/// A piece of a query that means something by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    /// What is to be found. Whether it is a plain word, which may be part of a sentence.
    Find {
        query: Query,
        is_word: bool,
    },
    /// Signs that are no words: what they stand between is found without them.
    Signs,
    /// A `*` alone.
    Everything,
}

/// The tokens of a query, and where the `|` of its first stage stands.
pub(super) fn tokens(text: &str) -> Result<(Vec<Spanned>, Option<usize>), QueryError> {
    let mut scanner = Scanner { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next()? {
        tokens.push(token);
    }
    resolve(&mut tokens, text);
    Ok((tokens, (scanner.at < text.len()).then_some(scanner.at)))
}

/// Reads a text from its beginning to its end.
pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Scanner<'_> {
    pub(super) fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let eaten = self.rest().starts_with(text);
        self.at += if eaten { text.len() } else { 0 };
        eaten
    }

    /// The next token; none at the end, and at the `|` of a stage.
    fn next(&mut self) -> Result<Option<Spanned>, QueryError> {
        self.skip_spaces();
        let start = self.at;
        let Some(first) = self.peek() else { return Ok(None) };
        let token = match first {
            '(' => self.sign(Token::Open),
            ')' => self.sign(Token::Close),
            '"' => {
                let text = self.quoted()?;
                self.text_token(Pattern::Phrase(text), false, start)?
            }
            '-' | '!' if self.excludes() => self.sign(Token::Not),
            '|' if !self.rest().starts_with("||") => return Ok(None),
            _ => self.word()?,
        };
        Ok(Some(Spanned { token, at: start..self.at }))
    }

    fn sign(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    /// Whether a `-` or `!` excludes what follows. It does not in `a - b`, `--dry-run`, `->` and `-Xmx512m`.
    fn excludes(&self) -> bool {
        let after = &self.rest()[1..];
        let is_java_option = after.starts_with("XX:")
            || after.strip_prefix('X').is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
            || after
                .strip_prefix('D')
                .is_some_and(|name| name.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name)));
        let begins = after.starts_with(|c: char| !c.is_whitespace() && !matches!(c, '-' | '!' | '=' | '>' | '|' | ')'));
        begins && !(self.rest().starts_with('-') && is_java_option)
    }

    /// A word, an operator, or a field and its value.
    fn word(&mut self) -> Result<Token, QueryError> {
        let start = self.at;
        if let Some(token) = self.field()? {
            return Ok(token);
        }
        let text = self.bare().to_owned();
        Ok(match text.as_str() {
            "AND" | "&&" => Token::And,
            "OR" | "||" => Token::Or,
            "NOT" => Token::Not,
            "*" => Token::Everything,
            _ => {
                let pattern = value::text_pattern(&text).map_err(|problem| self.error(problem, start..self.at))?;
                return self.text_token(pattern, true, start);
            }
        })
    }

    /// Text up to the next space, quotation mark, stage, or parenthesis that is not part of it: `foo(bar)` is one.
    pub(super) fn bare(&mut self) -> &str {
        let start = self.at;
        let mut open = 0_usize;
        let mut end = self.text.len();
        for (at, c) in self.text[start..].char_indices() {
            let closes = match c {
                '"' => true,
                '(' if is_operator(&self.text[start..start + at]) => true,
                '(' if at > 0 && closes_in_word(&self.text[start + at..]) => {
                    open += 1;
                    false
                }
                '(' => at > 0,
                ')' if open > 0 => {
                    open -= 1;
                    false
                }
                ')' => true,
                '|' => {
                    let is_or = self.text[..start + at].ends_with('|');
                    at > 0 && !is_or && stages::begins(&self.text[start + at + 1..])
                }
                c => c.is_whitespace(),
            };
            if closes {
                end = start + at;
                break;
            }
        }
        // What can't begin a word is one sign.
        self.at = if end > start { end } else { start + self.peek().map_or(0, char::len_utf8) };
        &self.text[start..self.at]
    }

    /// The text between two quotation marks; `\"` and `\\` stand for themselves.
    pub(super) fn quoted(&mut self) -> Result<String, QueryError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text[start + 1..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next_if(|&(_, c)| matches!(c, '"' | '\\')) {
                    Some((_, escaped)) => text.push(escaped),
                    None => text.push('\\'),
                },
                c => text.push(c),
            }
        }
        Err(self.error(Problem::OpenQuote, start..self.text.len()))
    }

    fn text_token(&self, pattern: Pattern, is_word: bool, start: usize) -> Result<Token, QueryError> {
        match &pattern {
            Pattern::Phrase(text) | Pattern::Prefix(text) if !words(text).is_empty() => {
                Ok(Token::Find { query: Query::Clause(Clause { field: Field::Text, pattern }), is_word })
            }
            _ if is_word => Ok(Token::Signs),
            _ => Err(self.error(Problem::NothingToFind, start..self.at)),
        }
    }

    /// `name:value` and its kind, if that is what stands here.
    fn field(&mut self) -> Result<Option<Token>, QueryError> {
        let start = self.at;
        let Some((name, operator)) = value::name_and_operator(self.rest()) else { return Ok(None) };
        let field = Field::of(name);
        self.at += name.len() + operator.len();
        match value::read(self, field, operator, start)? {
            Some(query) => Ok(Some(Token::Find { query, is_word: false })),
            None => {
                self.at = start;
                Ok(None)
            }
        }
    }

    pub(super) fn error(&self, problem: Problem, at: Range<usize>) -> QueryError {
        QueryError::new(problem, self.text, at)
    }
}

/// Whether a parenthesis behind it is not part of a word: `NOT(a OR b)`.
fn is_operator(word: &str) -> bool {
    ["AND", "OR", "NOT"].iter().any(|operator| word.eq_ignore_ascii_case(operator))
}

/// Whether the parenthesis that this begins with is closed before the next space.
fn closes_in_word(text: &str) -> bool {
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth <= 1 => return true,
            ')' => depth -= 1,
            '"' => return false,
            c if c.is_whitespace() => return false,
            _ => {}
        }
    }
    false
}

/// Whether it may be a field's name.
pub(super) fn is_name(name: &str) -> bool {
    let name = name.strip_prefix('@').unwrap_or(name);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'))
}

/// Whether so much is left of a word that a `*` may stand beside it.
pub(super) fn is_long_enough(text: &str) -> bool {
    text.chars().filter(|c| c.is_alphanumeric()).count() >= MIN_PREFIX
}

/// Decides which lower-case `and`, `or` and `not` are operators: those beside a field, a phrase or a parenthesis, and
/// not those of a sentence such as `could not connect`.
fn resolve(tokens: &mut [Spanned], text: &str) {
    let said = |token: &Spanned| match &text[token.at.clone()] {
        "and" | "And" => Some(Token::And),
        "or" | "Or" => Some(Token::Or),
        "not" | "Not" => Some(Token::Not),
        _ => None,
    };
    let is_field_or_phrase = |token: &Spanned| matches!(token.token, Token::Find { is_word: false, .. });
    let is_operand = |token: &Spanned| !matches!(token.token, Token::Close | Token::And | Token::Or);
    for at in 0..tokens.len() {
        let begins_part = |token: &Spanned| is_field_or_phrase(token) || token.token == Token::Open;
        if said(&tokens[at]) == Some(Token::Not) && tokens.get(at + 1).is_some_and(begins_part) {
            tokens[at].token = Token::Not;
        }
    }
    let mut depth = 0_usize;
    for at in 0..tokens.len() {
        match tokens[at].token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        let Some(operator @ (Token::And | Token::Or)) = said(&tokens[at]) else { continue };
        let (Some(before), Some(after)) = (at.checked_sub(1).map(|before| &tokens[before]), tokens.get(at + 1)) else {
            continue;
        };
        let beside = is_field_or_phrase(before)
            || before.token == Token::Close
            || is_field_or_phrase(after)
            || matches!(after.token, Token::Open | Token::Not);
        let joins = matches!(before.token, Token::Close | Token::Find { .. }) && is_operand(after);
        if joins && (beside || depth > 0) {
            tokens[at].token = operator;
        }
    }
    for at in 1..tokens.len() {
        let follows = matches!(tokens[at - 1].token, Token::And | Token::Or);
        if follows && said(&tokens[at]) == Some(Token::Not) && tokens.get(at + 1).is_some_and(is_operand) {
            tokens[at].token = Token::Not;
        }
    }
}
