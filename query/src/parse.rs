//! The query language, text in and tree out: `timeout "connection reset" -health (service:api OR level:error)`.
//!
//! Words stand side by side for AND; `OR` binds weaker; `-` or `NOT` excludes; `"…"` is a phrase;
//! `word*` matches words that begin so; `field:value` asks one field. Nothing else is special, and
//! nothing of a client's text reaches a store unread.

mod lex;

use crate::expression::Query;

use lex::Token;

/// Longest query: a few lines of text, far above what people type.
pub const MAX_BYTES: usize = 1024;
/// Most words, phrases and field clauses; each costs the stores a lookup.
pub const MAX_CLAUSES: usize = 32;
/// Deepest nesting of parentheses and exclusions: it bounds the parser's own recursion.
const MAX_DEPTH: usize = 16;

/// Why a text is not a query. Said to the client as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Nothing to search for.
    #[error("the query is empty")]
    Empty,
    /// More than [`MAX_BYTES`].
    #[error("the query has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// More than [`MAX_CLAUSES`].
    #[error("the query has more than {MAX_CLAUSES} words, phrases and fields")]
    TooManyClauses,
    /// More than [`MAX_DEPTH`].
    #[error("the query is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A quotation mark without its partner.
    #[error("a quotation mark is not closed")]
    OpenQuote,
    /// A parenthesis without its partner.
    #[error("a parenthesis is not closed")]
    OpenParenthesis,
    /// Something that can't stand where it stands.
    #[error("`{0}` can't stand here; put text that holds it into quotation marks")]
    Unexpected(String),
    /// An operator or parenthesis, and nothing after it.
    #[error(
        "the query ends where something to search for must follow; put an operator or parenthesis that is meant as text into quotation marks"
    )]
    Unfinished,
    /// A clause without a letter, digit or picture.
    #[error("`{0}` holds no letter or digit to search for; put text that holds it into quotation marks")]
    NothingToFind(String),
    /// A `*` that doesn't end a word, or ends one of a single letter.
    #[error("`{0}`: a `*` may only follow at least two letters, at the end of a word")]
    Wildcard(String),
    /// `name:` of a field that can't be asked.
    #[error(
        "there is no field `{0}`; use service, level, application, language, metadata.… or attributes.…, or put text with a colon into quotation marks"
    )]
    UnknownField(String),
}

/// Reads a query.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    if text.len() > MAX_BYTES {
        return Err(QueryError::TooLong(text.len()));
    }
    if text.contains('\0') {
        // No stored text holds one, and PostgreSQL takes none.
        return Err(QueryError::Unexpected("\\0".to_owned()));
    }
    let tokens = lex::tokens(text)?;
    if tokens.is_empty() {
        return Err(QueryError::Empty);
    }
    if tokens.iter().filter(|token| matches!(token, Token::Clause(_))).count() > MAX_CLAUSES {
        return Err(QueryError::TooManyClauses);
    }
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), depth: 0 };
    let query = parser.either()?;
    match parser.tokens.next() {
        None => Ok(query),
        Some(token) => Err(QueryError::Unexpected(token.to_string())),
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

impl Parser {
    fn either(&mut self) -> Result<Query, QueryError> {
        let mut choices = vec![self.all()?];
        while self.tokens.next_if_eq(&Token::Or).is_some() {
            choices.push(self.all()?);
        }
        Ok(one_or(choices, Query::Or))
    }

    fn all(&mut self) -> Result<Query, QueryError> {
        let mut parts = vec![self.part()?];
        loop {
            match self.tokens.peek() {
                None | Some(Token::Or | Token::Close) => return Ok(one_or(parts, Query::And)),
                Some(Token::And) => {
                    self.tokens.next();
                }
                Some(_) => {}
            }
            parts.push(self.part()?);
        }
    }

    fn part(&mut self) -> Result<Query, QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(QueryError::TooDeep);
        }
        let part = match self.tokens.next() {
            Some(Token::Clause(clause)) => Query::Clause(clause),
            Some(Token::Not) => Query::Not(Box::new(self.part()?)),
            Some(Token::Open) => {
                let inner = self.either()?;
                self.tokens.next_if_eq(&Token::Close).ok_or(QueryError::OpenParenthesis)?;
                inner
            }
            Some(token) => return Err(QueryError::Unexpected(token.to_string())),
            None => return Err(QueryError::Unfinished),
        };
        self.depth -= 1;
        Ok(part)
    }
}

fn one_or(mut parts: Vec<Query>, many: fn(Vec<Query>) -> Query) -> Query {
    if parts.len() == 1 { parts.swap_remove(0) } else { many(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{Clause, Field, Pattern};

    /// A tree in one line, so that a table can show it.
    fn show(query: &Query) -> String {
        let join = |parts: &[Query], by: &str| parts.iter().map(show).collect::<Vec<_>>().join(by);
        match query {
            Query::And(parts) => format!("({})", join(parts, " & ")),
            Query::Or(parts) => format!("({})", join(parts, " | ")),
            Query::Not(inner) => format!("!{}", show(inner)),
            Query::Clause(Clause { field, pattern }) => {
                let field = match field {
                    Field::Text => String::new(),
                    Field::Metadata(path) => format!("metadata.{path}="),
                    Field::Attributes(path) => format!("attributes.{path}="),
                    field => format!("{field:?}=").to_lowercase(),
                };
                match pattern {
                    Pattern::Phrase(text) => format!("{field}[{text}]"),
                    Pattern::Prefix(text) => format!("{field}[{text}…]"),
                }
            }
        }
    }

    #[test]
    fn a_query_reads_as_its_tree() {
        for (text, tree) in [
            ("timeout", "[timeout]"),
            ("  a1   b2 ", "([a1] & [b2])"),
            ("a AND b", "([a] & [b])"),
            ("a b OR c", "(([a] & [b]) | [c])"),
            ("a (b OR c)", "([a] & ([b] | [c]))"),
            ("-a", "![a]"),
            ("a -b NOT c", "([a] & ![b] & ![c])"),
            ("-(a OR b)", "!([a] | [b])"),
            ("\"connection reset\" peer", "([connection reset] & [peer])"),
            (r#""a \"quoted\" \\ word""#, r#"[a "quoted" \ word]"#),
            ("timeou*", "[timeou…]"),
            ("foo-bar a/b x=1", "([foo-bar] & [a/b] & [x=1])"),
            ("service:api", "service=[api]"),
            ("service:\"my api\" level:error", "(service=[my api] & level=[error])"),
            ("application:shop language:java", "(application=[shop] & language=[java])"),
            ("metadata.user.id:42", "metadata.user.id=[42]"),
            ("attributes.trace_id:ab*", "attributes.trace_id=[ab…]"),
            ("-service:api", "!service=[api]"),
            ("12:30:45 01:02", "([12:30:45] & [01:02])"),
            ("and or not", "([and] & [or] & [not])"),
            ("grüße 世界", "([grüße] & [世界])"),
            ("🔥 \"👨‍👩‍👧 ©\" -🇩🇪", "([🔥] & [👨‍👩‍👧 ©] & ![🇩🇪])"),
        ] {
            assert_eq!(parse(text).map(|query| show(&query)).unwrap(), tree, "{text}");
        }
    }

    #[test]
    fn only_a_query_that_loses_nothing_by_it_is_loosened() {
        for (text, expected) in [
            ("a-u*", true),
            ("x OR (y foo.ba*)", true),
            ("timeou*", false),
            ("service:a-u*", false),
            ("-a-u*", false),
            ("a-u* -(x b-v*)", false),
            ("a-u* -x", true),
        ] {
            assert_eq!(parse(text).unwrap().can_be_loosened(), expected, "{text}");
        }
        for (text, expected) in [("word", true), ("service:a -metadata.b:c", true), ("service:a -level:warn", false)] {
            assert_eq!(parse(text).unwrap().asks_for_the_whole(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_query_says_why() {
        let long = "x".repeat(MAX_BYTES + 1);
        let many = "ab ".repeat(MAX_CLAUSES + 1);
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        for (text, error) in [
            ("", QueryError::Empty),
            (" \t\n", QueryError::Empty),
            (&long, QueryError::TooLong(MAX_BYTES + 1)),
            (&many, QueryError::TooManyClauses),
            (&deep, QueryError::TooDeep),
            ("\"open", QueryError::OpenQuote),
            ("(a", QueryError::OpenParenthesis),
            ("(", QueryError::Unfinished),
            ("a)", QueryError::Unexpected(")".into())),
            ("()", QueryError::Unexpected(")".into())),
            ("OR a", QueryError::Unexpected("OR".into())),
            ("a OR", QueryError::Unfinished),
            ("a AND OR b", QueryError::Unexpected("OR".into())),
            ("a -", QueryError::Unfinished),
            ("=>", QueryError::NothingToFind("=>".into())),
            ("\"...\"", QueryError::NothingToFind("...".into())),
            ("service:\"\"", QueryError::NothingToFind("service:".into())),
            ("*out", QueryError::Wildcard("*out".into())),
            ("ti*me", QueryError::Wildcard("ti*me".into())),
            ("t*", QueryError::Wildcard("t*".into())),
            ("*", QueryError::Wildcard("*".into())),
            ("service:*", QueryError::Wildcard("service:*".into())),
            ("status:500", QueryError::UnknownField("status".into())),
            ("http://x", QueryError::UnknownField("http".into())),
            ("metadata.:x", QueryError::UnknownField("metadata.".into())),
            ("tenant:other", QueryError::UnknownField("tenant".into())),
            ("a\0b", QueryError::Unexpected("\\0".into())),
            ("_id:1", QueryError::UnknownField("_id".into())),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
