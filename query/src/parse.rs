//! The query language, text in and tree out: `timeout "connection reset" -health (service:api OR level:>=warn)`.
//!
//! Words stand side by side for AND; `OR` binds weaker; `-`, `!` or `NOT` excludes; `"…"` is a phrase; `word*` matches
//! words that begin so; `field:value` asks one field. What people paste is found as text. Behind a `|` stages say what
//! is made of the events that are found. Nothing is guessed in silence: what can't be understood is refused, with its
//! place and a query that may be meant.

mod lex;
mod stages;
mod value;

use std::ops::Range;

use api::explain::TokenKind;

use crate::expression::Query;
use crate::stage::{MAX_BY, MAX_COLUMNS, MAX_REGEX_BYTES, MAX_STAGES, Question, Shape};

use lex::{Spanned, Token};

/// Longest query, in bytes: a few lines of text, far above what people type.
pub const MAX_BYTES: usize = 2048;
/// Most words, phrases and values of fields; each costs the stores a lookup.
pub const MAX_CLAUSES: usize = 64;
/// Deepest nesting of parentheses and exclusions: it bounds the parser's own recursion.
const MAX_DEPTH: usize = 16;
/// Most bytes of a query that an error repeats.
const SHOWN_BYTES: usize = 64;

/// Why a text is not a query. Said to the client as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct QueryError {
    /// What is wrong.
    pub problem: Problem,
    /// Where, in bytes of the query.
    pub at: Range<usize>,
    /// Whole queries that may be meant instead, the likeliest first.
    pub repairs: Vec<String>,
    /// What stands there, cut short.
    shown: String,
}

/// What can be wrong with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nothing to search for.
    Empty,
    /// More than [`MAX_BYTES`].
    TooLong,
    /// More than [`MAX_CLAUSES`].
    TooManyClauses,
    /// More than [`MAX_DEPTH`].
    TooDeep,
    /// A quotation mark without its partner.
    OpenQuote,
    /// A parenthesis without its partner.
    OpenParenthesis,
    /// Something that can't stand where it stands.
    Unexpected,
    /// A field or an operator, and nothing after it.
    Unfinished,
    /// A clause without a letter or digit.
    NothingToFind,
    /// A `*` at a place where the index has no words to look up.
    Wildcard,
    /// More than values and `OR` in the parentheses of a field.
    NestedValues,
    /// A `|` where only events are asked for.
    Pipe,
    /// A `|`, and nothing after it.
    NoStage,
    /// What stands behind a `|` is no stage.
    Stage,
    /// More than [`MAX_STAGES`].
    TooManyStages,
    /// A stage after one that it can't follow.
    StageOrder,
    /// A `grep` before a stage that counts.
    GrepBeforeCount,
    /// Something that has no place in its stage.
    NotInStage,
    /// Something else is expected.
    Expected(&'static str),
    /// A number from 1 to this is expected.
    Number(u32),
    /// More fields or functions than a stage may have: [`MAX_COLUMNS`].
    TooManyColumns,
    /// More fields than these to group by.
    TooManyGroups(usize),
    /// A field that events can't be grouped by, and why.
    NotGroupable(&'static str),
    /// A field that holds no numbers.
    NoNumbers,
    /// An expression that can't be run.
    Regex,
    /// A regular expression as a field's value.
    Expression,
    /// A comparison with what has no order.
    NotComparable,
    /// A comparison with a level that there is not.
    NoLevel,
    /// The tenant, which the key decides.
    Tenant,
    /// The time, which stands beside the query.
    Time,
}

impl QueryError {
    fn new(problem: Problem, text: &str, at: Range<usize>) -> Self {
        let mut shown = text.get(at.clone()).unwrap_or_default().to_owned();
        shown.truncate(shown.floor_char_boundary(SHOWN_BYTES));
        Self { problem, at, repairs: Vec::new(), shown }
    }

    /// The same with one more query that may be meant, if it is one.
    fn or_rather(mut self, repair: String) -> Self {
        self.repairs.push(repair);
        self
    }

    fn message(&self) -> String {
        let shown = &self.shown;
        match self.problem {
            Problem::Empty => "the query is empty".to_owned(),
            Problem::TooLong => format!("the query has {} bytes; at most {MAX_BYTES} are allowed", self.at.end),
            Problem::TooManyClauses => {
                format!("the query has more than {MAX_CLAUSES} words, phrases and values of fields")
            }
            Problem::TooDeep => format!("the query is nested more than {MAX_DEPTH} deep"),
            Problem::OpenQuote => "a quotation mark is not closed".to_owned(),
            Problem::OpenParenthesis => "a parenthesis is not closed".to_owned(),
            Problem::Unexpected => {
                format!("`{shown}` can't stand here; put text that holds it into quotation marks")
            }
            Problem::Unfinished => format!(
                "after `{shown}` something to search for must follow; put text that ends so into quotation marks"
            ),
            Problem::NothingToFind => format!("`{shown}` holds nothing to search for"),
            Problem::Wildcard => format!(
                "`{shown}`: in a text, a `*` may only end a word of at least two letters or digits; \
                 in a field up to eight may stand anywhere beside two"
            ),
            Problem::NestedValues => "the parentheses of a field hold values with OR between them, and nothing else; \
                 repeat the field for more than that"
                .to_owned(),
            Problem::Pipe => "what stands behind a `|` is for GET /api/query, which answers tables and charts too; put text \
                 that holds one into quotation marks"
                .to_owned(),
            Problem::NoStage => "after a `|` a stage must follow, such as `count by service`".to_owned(),
            Problem::Stage => format!(
                "`{shown}` is no stage: after a `|` stand count, top, rare, timechart, stats, grep, fields or limit; put text \
                 that holds a `|` into quotation marks"
            ),
            Problem::TooManyStages => format!("there are more than {MAX_STAGES} stages"),
            Problem::StageOrder => format!(
                "`{shown}` can't follow the stages before it: one may count or choose fields, after `grep` and before `limit`"
            ),
            Problem::GrepBeforeCount => format!(
                "`{shown}` counts in the index, and `grep` reads events one by one: say before the first `|` which events to count"
            ),
            Problem::NotInStage => format!("`{shown}` can't stand here: the stage ends before it, or a `,` or `|` is missing"),
            Problem::Expected(what) => format!("`{shown}`: {what} is expected here"),
            Problem::Number(most) => format!("`{shown}`: a number from 1 to {most} is expected here"),
            Problem::TooManyColumns => format!("a stage may have at most {MAX_COLUMNS} fields or functions"),
            Problem::TooManyGroups(most) => format!("here events are grouped by at most {most} of {MAX_BY} fields"),
            Problem::NotGroupable(why) => format!("`{shown}` is no field to group by: {why}"),
            Problem::NoNumbers => format!("`{shown}` holds no numbers to compute with"),
            Problem::Regex => format!(
                "`{shown}` is no text or regular expression of at most {MAX_REGEX_BYTES} bytes that can be run: /time.?out/i"
            ),
            Problem::Expression => format!(
                "`{shown}`: a regular expression goes behind a `|`: `| grep /time.?out/`; put text that looks so into quotation \
                 marks"
            ),
            Problem::NotComparable => format!(
                "`{shown}`: fields are compared with a number as it is logged, without a unit, or a time such as 2026-01-31T12:00:00Z; \
                 `level` with a level"
            ),
            Problem::NoLevel => {
                format!("`{shown}`: the levels are trace, debug, info, warn, error and fatal, and one must be left")
            }
            Problem::Tenant => "the API key decides the tenant; put text that holds this word into quotation marks".to_owned(),
            Problem::Time => {
                "the time range is not part of the query: it goes into `from` and `to`; put text that holds this word into \
                 quotation marks"
                    .to_owned()
            }
        }
    }
}

/// A whole query that may be meant instead of this one; whether it is one is not known.
fn repair(error: &QueryError, text: &str) -> Option<String> {
    let (before, part, after) = (&text[..error.at.start], text.get(error.at.clone())?, &text[error.at.end..]);
    let repaired = match error.problem {
        Problem::NoStage => format!("{}{after}", before.trim_end()),
        Problem::Tenant | Problem::Time => {
            let value = after.split(|c: char| c.is_whitespace() || c == ')').next().unwrap_or_default();
            format!("{before}{}{}", quoted(&format!("{part}{value}")), &after[value.len()..])
        }
        Problem::Unexpected | Problem::Unfinished => format!("{before}{}{after}", quoted(part)),
        Problem::Expression => {
            let (_, expression) = part.split_once(':')?;
            format!("{} | grep {expression}", format!("{before}{after}").trim())
        }
        // `>250ms`: the number as it may be logged.
        Problem::NotComparable => {
            let number = part.trim_end_matches(char::is_alphabetic);
            number.ends_with(|c: char| c.is_ascii_digit()).then(|| format!("{before}{number}{after}"))?
        }
        Problem::Wildcard => format!("{before}{}{after}", part.replace('*', " ").trim()),
        Problem::OpenQuote => format!("{text}\""),
        Problem::OpenParenthesis => format!("{text})"),
        _ => return None,
    };
    Some(repaired)
}

/// A text in quotation marks.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// Reads a query that asks for events alone. An error says what may be meant instead.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    let read = understand(text).and_then(|(question, pipe)| match pipe {
        None => Ok(question.query),
        Some(pipe) => Err(QueryError::new(Problem::Pipe, text, pipe..pipe + 1).or_rather(quoted(text.trim()))),
    });
    read.map_err(|error| repaired(error, text, |repair| matches!(understand(repair), Ok((_, None)))))
}

/// Reads a query and its stages. An error says what may be meant instead.
pub fn question(text: &str) -> Result<Question, QueryError> {
    let read = understand(text).map(|(question, _)| question);
    read.map_err(|error| repaired(error, text, |repair| understand(repair).is_ok()))
}

/// An error with all queries that may be meant instead, each of which is one.
fn repaired(error: QueryError, text: &str, is_one: impl Fn(&str) -> bool) -> QueryError {
    let mut repairs: Vec<String> = Vec::new();
    for offered in error.repairs.iter().cloned().chain(repair(&error, text)) {
        let offered = offered.trim().to_owned();
        if is_one(&offered) && !repairs.contains(&offered) {
            repairs.push(offered);
        }
    }
    QueryError { repairs, ..error }
}

/// Reads a query and its stages; and where the first `|` stands. What may be meant instead is not looked for: that
/// would be read in turn.
fn understand(text: &str) -> Result<(Question, Option<usize>), QueryError> {
    if text.len() > MAX_BYTES {
        return Err(QueryError::new(Problem::TooLong, text, 0..text.len()));
    }
    if let Some(at) = text.find('\0') {
        // No stored text holds one, and PostgreSQL takes none.
        return Err(QueryError::new(Problem::Unexpected, text, at..at + 1));
    }
    let (mut tokens, pipe) = lex::tokens(text)?;
    let signs = tokens.iter().find(|token| token.token == Token::Signs).map(|token| token.at.clone());
    // The index has no signs either: what stands around them is found.
    tokens.retain(|token| token.token != Token::Signs);
    let is_something = |token: &Spanned| matches!(token.token, Token::Find { .. } | Token::Everything);
    let query = match signs {
        Some(at) if !tokens.iter().any(is_something) => Err(QueryError::new(Problem::NothingToFind, text, at)),
        // Before a stage, nothing asks for every event.
        _ if tokens.is_empty() && pipe.is_some() => Ok(Query::everything()),
        _ => Parser::new(text, tokens).read(),
    }?;
    let (greps, shape) = match pipe {
        Some(pipe) => stages::read(text, pipe, &mut Vec::new())?,
        None => (Vec::new(), Shape::events()),
    };
    Ok((Question { query, greps, shape }, pipe))
}

/// A piece of a query, for an editor to colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands, in bytes of the query.
    pub at: Range<usize>,
}

/// The pieces of a query, in order; of what can't be read, those before it.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (tokens, pipe) = lex::tokens(text).unwrap_or_default();
    for Spanned { token, at } in tokens {
        let mut add = |kind, at| pieces.push(Piece { kind, at });
        match token {
            Token::Open | Token::Close => add(TokenKind::Parenthesis, at),
            Token::And | Token::Or | Token::Not => add(TokenKind::Operator, at),
            Token::Signs => add(TokenKind::Signs, at),
            Token::Everything | Token::Find { is_word: true, .. } => add(TokenKind::Word, at),
            Token::Find { is_word: false, .. } => match value::name_and_operator(&text[at.clone()]) {
                Some((name, operator)) => {
                    let value = at.start + name.len() + operator.len();
                    add(TokenKind::Field, at.start..value);
                    add(TokenKind::Value, value..at.end);
                }
                None => add(TokenKind::Phrase, at),
            },
        }
    }
    if let Some(pipe) = pipe {
        // What can't be read ends the pieces.
        drop(stages::read(text, pipe, &mut pieces));
    }
    pieces
}

/// The name and the operator that a text begins with, if it begins as a field does.
pub(crate) fn name_and_operator(text: &str) -> Option<(&str, &'static str)> {
    value::name_and_operator(text)
}

pub(crate) use stages::nearest;

/// Whether a stage may follow a `|` directly.
pub(crate) fn stages_begin(text: &str) -> bool {
    stages::begins(text)
}

/// Whether a text may be a field's name.
pub fn is_field_name(text: &str) -> bool {
    lex::is_name(text)
}

struct Parser<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Spanned>>,
    /// The last token that was taken.
    last: Range<usize>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, tokens: Vec<Spanned>) -> Self {
        Self { text, tokens: tokens.into_iter().peekable(), last: 0..0, depth: 0 }
    }

    fn read(mut self) -> Result<Query, QueryError> {
        if self.tokens.peek().is_none() {
            return Err(self.error(Problem::Empty, 0..0));
        }
        let query = self.either()?;
        if let Some(token) = self.tokens.next() {
            return Err(self.error(Problem::Unexpected, token.at));
        }
        match query.size() {
            size if size > MAX_CLAUSES => Err(self.error(Problem::TooManyClauses, 0..self.text.len())),
            _ => Ok(query),
        }
    }

    fn either(&mut self) -> Result<Query, QueryError> {
        let mut choices = vec![self.all()?];
        while self.take_if(&Token::Or) {
            choices.push(self.all()?);
        }
        Ok(one_or(choices, Query::Or))
    }

    fn all(&mut self) -> Result<Query, QueryError> {
        let mut parts = vec![self.part()?];
        loop {
            match self.tokens.peek().map(|token| &token.token) {
                None | Some(Token::Or | Token::Close) => break,
                Some(Token::And) => drop(self.take_if(&Token::And)),
                Some(_) => {}
            }
            parts.push(self.part()?);
        }
        // Everything and something is something.
        if parts.len() > 1 {
            parts.retain(|part| *part != Query::everything());
        }
        Ok(if parts.is_empty() { Query::everything() } else { one_or(parts, Query::And) })
    }

    fn part(&mut self) -> Result<Query, QueryError> {
        self.depth += 1;
        let Some(Spanned { token, at }) = self.tokens.next() else {
            return Err(self.error(Problem::Unfinished, self.last.clone()));
        };
        if self.depth > MAX_DEPTH {
            return Err(self.error(Problem::TooDeep, at));
        }
        self.last = at.clone();
        let part = match token {
            Token::Find { query, .. } => query,
            Token::Everything => Query::everything(),
            Token::Not => Query::Not(Box::new(self.part()?)),
            Token::Open => {
                let inner = self.either()?;
                if !self.take_if(&Token::Close) {
                    return Err(self.error(Problem::OpenParenthesis, at));
                }
                inner
            }
            _ => return Err(self.error(Problem::Unexpected, at)),
        };
        self.depth -= 1;
        Ok(part)
    }

    fn take_if(&mut self, token: &Token) -> bool {
        let taken = self.tokens.next_if(|next| next.token == *token);
        self.last = taken.as_ref().map_or(self.last.clone(), |taken| taken.at.clone());
        taken.is_some()
    }

    fn error(&self, problem: Problem, at: Range<usize>) -> QueryError {
        QueryError::new(problem, self.text, at)
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
            Query::And(parts) if parts.is_empty() => "all".to_owned(),
            Query::And(parts) => format!("({})", join(parts, " & ")),
            Query::Or(parts) => format!("({})", join(parts, " | ")),
            Query::Not(inner) => format!("!{}", show(inner)),
            Query::Clause(Clause { field, pattern }) => {
                let field = if *field == Field::Text { String::new() } else { format!("{field}=") };
                match pattern {
                    Pattern::Phrase(text) => format!("{field}[{text}]"),
                    Pattern::Prefix(text) => format!("{field}[{text}…]"),
                    Pattern::Wildcard(text) => format!("{field}~[{text}]"),
                    Pattern::Exists => format!("{field}any"),
                    Pattern::Range(range) => format!("{field}{range}"),
                }
            }
        }
    }

    fn reads(table: &[(&str, &str)]) {
        for (text, tree) in table {
            let read = parse(text).map_or_else(|error| format!("refused: {error}"), |query| show(&query));
            assert_eq!(read, *tree, "{text}");
        }
    }

    #[test]
    fn a_query_reads_as_its_tree() {
        reads(&[
            ("timeout", "[timeout]"),
            ("  a1   b2 ", "([a1] & [b2])"),
            ("a AND b", "([a] & [b])"),
            ("a && b || c", "(([a] & [b]) | [c])"),
            ("a b OR c", "(([a] & [b]) | [c])"),
            ("a (b OR c)", "([a] & ([b] | [c]))"),
            ("-a", "![a]"),
            ("!a", "![a]"),
            ("!timeout level:error", "(![timeout] & level=[error])"),
            ("a -b NOT c", "([a] & ![b] & ![c])"),
            ("-(a OR b)", "!([a] | [b])"),
            ("NOT(a OR b)", "!([a] | [b])"),
            ("a AND(b) or(c)", "(([a] & [b]) | [c])"),
            ("\"connection reset\" peer", "([connection reset] & [peer])"),
            (r#""a \"quoted\" \\ word""#, r#"[a "quoted" \ word]"#),
            ("timeou*", "[timeou…]"),
            ("*", "all"),
            ("* level:error", "level=[error]"),
            ("-*", "!all"),
            ("🚀", "[🚀]"),
            ("grüße 世界", "([grüße] & [世界])"),
        ]);
    }

    #[test]
    fn a_field_is_asked_for_values() {
        reads(&[
            ("service:api", "service=[api]"),
            ("service:\"my api\" level:error", "(service=[my api] & level=[error])"),
            ("application:shop language:java", "(application=[shop] & language=[java])"),
            (
                "svc:api app:shop severity:warn msg:hello",
                "(service=[api] & application=[shop] & level=[warn] & [hello])",
            ),
            ("level: error", "level=[error]"),
            ("metadata.user.id:42", "metadata.user.id=[42]"),
            ("attributes.trace_id:ab*", "attributes.trace_id=[ab…]"),
            ("-service:api", "!service=[api]"),
            ("status:500", "status=[500]"),
            ("@status:500", "@status=[500]"),
            ("@level:5", "@level=[5]"),
            ("status:!=500", "!status=[500]"),
            ("status!=500", "!status=[500]"),
            ("service!=api", "!service=[api]"),
            ("level:error,warn", "(level=[error] | level=[warn])"),
            ("level:(error OR warn)", "(level=[error] | level=[warn])"),
            ("level:(error or warn, \"x y\")", "(level=[error] | level=[warn] | level=[x y])"),
            ("status:(500)", "status=[500]"),
            ("level:>=warn", "(level=[WARN] | level=[ERROR] | level=[FATAL])"),
            ("level>=error", "(level=[ERROR] | level=[FATAL])"),
            ("level:<debug", "level=[TRACE]"),
            ("-level:>info", "!(level=[WARN] | level=[ERROR] | level=[FATAL])"),
            ("host:web*", "host=[web…]"),
            ("status:5* service:a*", "(status=[5…] & service=[a…])"),
            ("path:/var/log/", "path=[/var/log/]"),
            ("host:*web*", "host=~[*web*]"),
            ("host:w*b-1", "host=~[w*b-1]"),
            ("user.id:*", "user.id=any"),
            ("status:>=500", "status=>=500"),
            ("status>=500", "status=>=500"),
            ("status<500", "status=<500"),
            ("metadata.latency_ms:>1.5e3", "metadata.latency_ms=>1.5e3"),
            ("status:[500 TO 599]", "status=[500 TO 599]"),
            ("status:[500 TO *]", "status=>=500"),
            ("(status:500..599)", "status=[500 TO 599]"),
            ("status:..499", "status=<=499"),
            ("due:>2026-01-01", "due=>2026-01-01"),
            ("due:>=\"2026-01-01 10:00:00\"", "due=>=\"2026-01-01 10:00:00\""),
            ("-@status:<=0", "!@status=<=0"),
            ("file:a..b", "file=[a..b]"),
            ("tag:[x]", "tag=[[x]]"),
            ("-trace_id:*", "!trace_id=any"),
            ("path:\"/\"", "path=[/]"),
            ("-url:\"https://x/y\"", "!url=[https://x/y]"),
            ("metadata.url:https://x/y a", "(metadata.url=[https://x/y] & [a])"),
            ("service:!=http://x", "!service=[http://x]"),
            (
                "kubernetes.labels.app.kubernetes.io/name:checkout",
                "kubernetes.labels.app.kubernetes.io/name=[checkout]",
            ),
            ("metadata.at:12:30:45", "metadata.at=[12:30:45]"),
            ("message:a,b", "[a,b]"),
            ("status:(500,>=520)", "(status=[500] | status=>=520)"),
            ("status:404,500..599", "(status=[404] | status=[500 TO 599])"),
            ("level:(debug OR >=error)", "(level=[debug] | (level=[ERROR] | level=[FATAL]))"),
            ("tag:(\">=5\" OR b)", "(tag=[>=5] | tag=[b])"),
        ]);
    }

    #[test]
    fn small_operators_are_operators_beside_fields_and_words_in_a_text() {
        reads(&[
            ("level:error or level:warn", "(level=[error] | level=[warn])"),
            ("level:error and timeout", "(level=[error] & [timeout])"),
            ("timeout and level:error", "([timeout] & level=[error])"),
            ("\"a b\" or c", "([a b] | [c])"),
            ("not level:debug", "!level=[debug]"),
            ("timeout and not level:debug", "([timeout] & !level=[debug])"),
            ("level:error and not timeout", "(level=[error] & ![timeout])"),
            ("x and (y or z)", "([x] & ([y] | [z]))"),
            ("could not connect", "([could] & [not] & [connect])"),
            ("a or b", "([a] & [or] & [b])"),
            ("and or not", "([and] & [or] & [not])"),
            ("\"order:4711\" not found", "([order:4711] & [not] & [found])"),
            ("(could not connect)", "([could] & [not] & [connect])"),
            ("level:error or", "(level=[error] & [or])"),
        ]);
    }

    #[test]
    fn what_people_paste_is_a_text() {
        reads(&[
            ("https://shop.example.com/cart?id=7&ref=a%2Fb", "[https://shop.example.com/cart?id=7&ref=a%2Fb]"),
            ("jdbc:mysql://db:3306,b:1/x", "jdbc=[mysql://db:3306,b:1/x]"),
            ("12:30:45 01:02", "([12:30:45] & [01:02])"),
            ("2026-01-02T03:04:05Z", "[2026-01-02T03:04:05Z]"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("203.0.113.9:54321", "[203.0.113.9:54321]"),
            ("error: connection refused", "([error:] & [connection] & [refused])"),
            ("at com.example.Cart.add(Cart.java:42)", "([at] & [com.example.Cart.add(Cart.java:42)])"),
            ("foo::bar<T>()", "foo=[:bar<T>()]"),
            ("C:\\Windows\\x", "C=[\\Windows\\x]"),
            ("--dry-run=true", "[--dry-run=true]"),
            ("-Xmx512m -XX:+UseG1GC -Da.b=c", "([-Xmx512m] & [-XX:+UseG1GC] & [-Da.b=c])"),
            ("-Debug", "![Debug]"),
            ("started - ready -> go", "([started] & [ready] & [go])"),
            ("foo-bar a/b x=1", "([foo-bar] & [a/b] & [x=1])"),
            ("status=500", "[status=500]"),
            ("a->b x<y", "([a->b] & [x<y])"),
            ("5 > 3", "([5] & [3])"),
            ("{\"a\":1}", "([a] & [:1}])"),
            ("[pool-3-thread-1]", "[[pool-3-thread-1]]"),
            ("SELECT * FROM users", "([SELECT] & [FROM] & [users])"),
            ("100% of a_b_c", "([100%] & [of] & [a_b_c])"),
            ("key=\"a b\"", "([key=] & [a b])"),
        ]);
    }

    #[test]
    fn a_query_has_pieces() {
        let text = "-level:>=warn (\"a b\" or x) - *";
        let shown: Vec<_> = pieces(text).into_iter().map(|piece| (piece.kind, &text[piece.at])).collect();
        let expected = [
            (TokenKind::Operator, "-"),
            (TokenKind::Field, "level:>="),
            (TokenKind::Value, "warn"),
            (TokenKind::Parenthesis, "("),
            (TokenKind::Phrase, "\"a b\""),
            (TokenKind::Operator, "or"),
            (TokenKind::Word, "x"),
            (TokenKind::Parenthesis, ")"),
            (TokenKind::Signs, "-"),
            (TokenKind::Word, "*"),
        ];
        assert_eq!(shown, expected);
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
        for (text, expected) in [
            ("word", true),
            ("service:a -metadata.b:c", true),
            ("service:a -level:warn", false),
            ("x:1", true),
            ("*", false),
        ] {
            assert_eq!(parse(text).unwrap().asks_for_the_whole(), expected, "{text}");
        }
    }

    #[test]
    fn what_may_be_meant_is_read_once() {
        // Each of these words is a problem, and so is what would be left of the query without it.
        for word in ["*aa ", "OR ", "tenant:a "] {
            let text = word.repeat(MAX_BYTES / word.len());
            let error = parse(&text).expect_err(&text);
            assert_eq!((error.at.start, error.repairs), (0, Vec::new()), "{word}");
        }
    }

    #[test]
    fn what_is_not_a_query_says_what_where_and_what_may_be_meant() {
        let long = "x".repeat(MAX_BYTES + 1);
        let many = "ab ".repeat(MAX_CLAUSES + 1);
        let values = format!("a:{}b", "b,".repeat(MAX_CLAUSES));
        let deep = format!("{}a{}", "( ".repeat(40), ")".repeat(40));
        for (text, problem, at, repair) in [
            ("", Problem::Empty, "", None),
            (" \t\n", Problem::Empty, "", None),
            (&long, Problem::TooLong, &*long, None),
            (&many, Problem::TooManyClauses, &*many, None),
            (&values, Problem::TooManyClauses, &*values, None),
            (&deep, Problem::TooDeep, "(", None),
            ("a \"open", Problem::OpenQuote, "\"open", Some("a \"open\"")),
            ("(a", Problem::OpenParenthesis, "(", Some("(a)")),
            ("level:(a", Problem::OpenParenthesis, "level:(a", Some("level:(a)")),
            ("(", Problem::Unfinished, "(", None),
            ("a)", Problem::Unexpected, ")", None),
            ("x OR a AND", Problem::Unfinished, "AND", Some("x OR a \"AND\"")),
            ("OR a", Problem::Unexpected, "OR", Some("\"OR\" a")),
            ("a AND OR b", Problem::Unexpected, "OR", Some("a AND \"OR\" b")),
            ("()", Problem::Unexpected, ")", None),
            ("=>", Problem::NothingToFind, "=>", None),
            ("\"...\"", Problem::NothingToFind, "\"...\"", None),
            ("service:\"\"", Problem::NothingToFind, "service:\"\"", None),
            ("x service:", Problem::Unfinished, "service:", Some("x \"service:\"")),
            ("(level:) a", Problem::Unfinished, "level:", Some("(\"level:\") a")),
            ("*out", Problem::Wildcard, "*out", Some("out")),
            ("a ti*me", Problem::Wildcard, "ti*me", Some("a ti me")),
            ("t*", Problem::Wildcard, "t*", Some("t")),
            ("service:*a", Problem::Wildcard, "service:*a", Some("service: a")),
            ("x service:/api.*/", Problem::Expression, "service:/api.*/", Some("x | grep /api.*/")),
            ("message:/time.?out/i", Problem::Expression, "message:/time.?out/i", Some("| grep /time.?out/i")),
            ("a:*b*c*d*e*f*g*h*i*", Problem::Wildcard, "a:*b*c*d*e*f*g*h*i*", Some("a: b c d e f g h i")),
            ("service:(a,>5)", Problem::NotComparable, "service:(a,>5)", None),
            ("level:(a AND b)", Problem::NestedValues, "AND", None),
            ("level:(a (b))", Problem::NestedValues, "(", None),
            ("level:>=loud", Problem::NoLevel, "level:>=loud", None),
            ("level:>fatal", Problem::NoLevel, "level:>fatal", None),
            ("latency:>250ms", Problem::NotComparable, "latency:>250ms", Some("latency:>250")),
            ("service:>=5", Problem::NotComparable, "service:>=5", None),
            ("tenant:other", Problem::Tenant, "tenant:", Some("\"tenant:other\"")),
            ("a @timestamp:now", Problem::Time, "@timestamp:", Some("a \"@timestamp:now\"")),
            ("a | count", Problem::Pipe, "|", Some("\"a | count\"")),
            ("a | b", Problem::Stage, "b", Some("\"a | b\"")),
            ("a\0b", Problem::Unexpected, "\0", None),
        ] {
            let error = question(text).and_then(|_| parse(text).map(drop)).expect_err(text);
            let shown = &text[error.at.clone()];
            assert_eq!((error.problem, shown), (problem, at), "{text}: {error}");
            assert_eq!(error.repairs.first().map(String::as_str), repair, "{text}");
            for repair in &error.repairs {
                assert!(question(repair).is_ok(), "{text}: {repair} is no query");
            }
            assert!(error.to_string().len() < 300, "{text}");
        }
    }
}
