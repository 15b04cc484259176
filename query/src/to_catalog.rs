//! A page as a WHERE clause over the catalog: for the plain list, and for a search while the index
//! is away. Every value of a client's is bound, none is written into the SQL.
//!
//! The catalog holds the first 500 characters of a message and neither `full_log`, `metadata` nor
//! `attributes`. A clause about what it does not hold is `NULL`: neither it nor its opposite finds
//! anything. So a word that stands in a message is found, and one that does not may stand in the rest:
//! nothing is found because of that. What is shown always matches.

use api::parameters::Order;
use stages::time::Micros;
use uuid::Uuid;

use crate::expression::{Clause, Field, Pattern, Query};
use crate::filters::{Filters, Page};

/// A piece of a statement, in order: SQL of ours, or a value to bind where it stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// SQL; holds nothing of a client's.
    Sql(String),
    /// A text to bind.
    Text(String),
    /// An array of texts to bind.
    Texts(Vec<String>),
    /// A time to bind.
    Time(Micros),
    /// An event's id to bind.
    Id(Uuid),
}

/// What the events of a list are sorted by: one order is the exact opposite of the other.
pub const fn order_by(order: Order) -> &'static str {
    match order {
        Order::Newest => " ORDER BY event_time DESC, event_id DESC",
        Order::Oldest => " ORDER BY event_time, event_id",
    }
}

/// The conditions of a page, to follow `WHERE true`.
pub fn conditions(page: &Page) -> Vec<Part> {
    let mut sql = Statement::default();
    if let Some(after) = page.after {
        let beyond = match page.order {
            Order::Newest => " AND (event_time, event_id) < (",
            Order::Oldest => " AND (event_time, event_id) > (",
        };
        sql.push(beyond).bind(Part::Time(after.time));
        sql.push(", ").bind(Part::Id(after.event_id)).push(")");
    }
    push_filters(&mut sql, &page.filters);
    if let Some(query) = &page.query {
        sql.push(" AND ");
        push_query(&mut sql, query);
    }
    sql.parts
}

/// What the catalog knows of a query for certain, as an expression: true, false, or NULL where only the raw line tells.
/// It looks into no message, which may go on in the raw line.
pub fn known(query: &Query) -> Vec<Part> {
    let mut sql = Statement { reads_no_text: true, ..Statement::default() };
    push_query(&mut sql, query);
    sql.parts
}

/// A statement that grows at its end.
#[derive(Default)]
struct Statement {
    parts: Vec<Part>,
    /// Whether what a text says is taken for unknown.
    reads_no_text: bool,
}

impl Statement {
    fn push(&mut self, sql: &str) -> &mut Self {
        match self.parts.last_mut() {
            Some(Part::Sql(text)) => text.push_str(sql),
            _ => self.parts.push(Part::Sql(sql.to_owned())),
        }
        self
    }

    fn bind(&mut self, value: Part) -> &mut Self {
        self.parts.push(value);
        self
    }
}

fn push_filters(sql: &mut Statement, filters: &Filters) {
    if !filters.services.is_empty() {
        sql.push(" AND service = ANY(").bind(Part::Texts(filters.services.clone())).push(")");
    }
    if !filters.levels.is_empty() {
        sql.push(" AND level = ANY(").bind(Part::Texts(filters.levels.clone())).push(")");
    }
    if let Some(from) = filters.from {
        sql.push(" AND event_time >= ").bind(Part::Time(from));
    }
    if let Some(to) = filters.to {
        sql.push(" AND event_time < ").bind(Part::Time(to));
    }
}

fn push_query(sql: &mut Statement, query: &Query) {
    match query {
        Query::And(parts) if parts.is_empty() => drop(sql.push("true")),
        Query::And(parts) => push_joined(sql, parts, " AND "),
        Query::Or(parts) => push_joined(sql, parts, " OR "),
        Query::Not(inner) => {
            sql.push("NOT ");
            push_query(sql, inner);
        }
        Query::Clause(clause) => push_clause(sql, clause),
    }
}

fn push_clause(sql: &mut Statement, clause: &Clause) {
    let pattern = &clause.pattern;
    match &clause.field {
        Field::Text => push_text(sql, pattern),
        Field::Message => match pattern {
            Pattern::Phrase(text) | Pattern::Prefix(text) => {
                sql.push("(message ILIKE ").bind(Part::Text(format!("%{}%", escaped(text)))).push(")");
            }
            Pattern::Wildcard(_) | Pattern::Exists | Pattern::Range(_) => drop(sql.push("(NULL::boolean)")),
        },
        Field::Service => push_exact(sql, "service", pattern),
        Field::Level => push_exact(sql, "level", &pattern.of_level()),
        Field::Application => push_exact(sql, "application", pattern),
        Field::Language => push_exact(sql, "language", pattern),
        Field::Metadata(_) | Field::Attributes(_) | Field::Either(_) | Field::Named(_) => match clause.as_text() {
            // Where the text does not say so, a field may.
            Some(text) => push_text(sql, &text),
            None => drop(sql.push("(NULL::boolean)")),
        },
    }
}

fn push_text(sql: &mut Statement, pattern: &Pattern) {
    match pattern {
        Pattern::Phrase(text) | Pattern::Prefix(text)
            if !sql.reads_no_text && !crate::words::words(text).is_empty() =>
        {
            sql.push("(nullif(message ~* ").bind(Part::Text(words(text, pattern))).push(", false))");
        }
        _ => drop(sql.push("(NULL::boolean)")),
    }
}

fn push_joined(sql: &mut Statement, parts: &[Query], by: &str) {
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            sql.push(by);
        }
        push_query(sql, part);
    }
    sql.push(")");
}

/// An absent value is not the one asked for: its opposite is true, not NULL.
fn push_exact(sql: &mut Statement, column: &'static str, pattern: &Pattern) {
    match pattern {
        Pattern::Phrase(text) => {
            sql.push(&format!("({column} IS NOT DISTINCT FROM ")).bind(Part::Text(text.clone())).push(")");
        }
        Pattern::Prefix(text) => {
            let like = format!("{}%", escaped(text));
            sql.push(&format!("(coalesce({column}, '') LIKE ")).bind(Part::Text(like)).push(")");
        }
        Pattern::Wildcard(text) => {
            let like = escaped(text).replace('*', "%");
            sql.push(&format!("(coalesce({column}, '') LIKE ")).bind(Part::Text(like)).push(")");
        }
        Pattern::Exists => drop(sql.push(&format!("({column} IS NOT NULL)"))),
        Pattern::Range(_) => drop(sql.push("(false)")),
    }
}

/// What stands between two words to the index, as far as ASCII goes: it tells letters of other scripts apart in its own
/// way, so a word beside one of these is not found here.
const BETWEEN: &str = r"\u0001-\u002B\u002D-\u002F\u003A\u003C-\u0040\u005B-\u0060\u007B-\u007F[:space:]";
/// These do so only where they don't stand between two digits.
const BETWEEN_UNLESS_DIGITS: &str = r"\u002C\u003B";

/// The words of a pattern, one after the other, as a regular expression. It holds nothing but letters and digits of
/// the client's.
fn words(text: &str, pattern: &Pattern) -> String {
    let edge = |beside: Option<char>| match beside {
        Some(c) if c.is_ascii_digit() => format!("[{BETWEEN}]"),
        _ => format!("[{BETWEEN}{BETWEEN_UNLESS_DIGITS}]"),
    };
    let parts: Vec<&str> =
        text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let mut expression = format!("(^|{})", edge(parts.first().and_then(|part| part.chars().next())));
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            expression.push_str(&edge(part.chars().next()));
            expression.push('+');
        }
        expression.push_str(part);
    }
    // A `*` after a sign is one after the word before it.
    if matches!(pattern, Pattern::Phrase(_)) {
        let end = edge(parts.last().and_then(|part| part.chars().next_back()));
        expression.push_str(&format!("({end}|$)"));
    }
    expression
}

/// Text that LIKE takes for itself.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;
    use crate::parse::parse;

    /// The conditions with a `?` for every value.
    fn sql(page: &Page) -> String {
        let part = |part: &Part| if let Part::Sql(sql) = part { sql.clone() } else { "?".to_owned() };
        conditions(page).iter().map(part).collect()
    }

    #[test]
    fn a_query_becomes_conditions_with_every_value_bound() {
        for (text, expected) in [
            ("timeout", "(nullif(message ~* ?, false))"),
            ("timeou*", "(nullif(message ~* ?, false))"),
            ("aa -bb", "((nullif(message ~* ?, false)) AND NOT (nullif(message ~* ?, false)))"),
            (
                "aa OR (bb level:warn)",
                "((nullif(message ~* ?, false)) OR ((nullif(message ~* ?, false)) AND (level IS NOT DISTINCT FROM ?)))",
            ),
            ("service:api", "(service IS NOT DISTINCT FROM ?)"),
            ("-application:ap*", "NOT (coalesce(application, '') LIKE ?)"),
            ("level:error language:java", "((level IS NOT DISTINCT FROM ?) AND (language IS NOT DISTINCT FROM ?))"),
            ("status:500", "(nullif(message ~* ?, false))"),
            ("@status:500 status:>5", "((NULL::boolean) AND (NULL::boolean))"),
            ("service:*pi* -application:*", "((coalesce(service, '') LIKE ?) AND NOT (application IS NOT NULL))"),
            ("*", "true"),
            ("-*", "NOT true"),
            ("-metadata.a:b attributes.c:d", "(NOT (NULL::boolean) AND (NULL::boolean))"),
        ] {
            let page = Page { query: Some(parse(text).unwrap()), ..Page::default() };
            assert_eq!(sql(&page), format!(" AND {expected}"), "{text}");
        }
    }

    #[test]
    fn what_the_catalog_knows_for_certain_has_no_text_in_it() {
        let part = |part: &Part| if let Part::Sql(sql) = part { sql.clone() } else { "?".to_owned() };
        for (text, expected) in [
            ("timeout", "(NULL::boolean)"),
            ("-status:500", "NOT (NULL::boolean)"),
            ("service:api timeout", "((service IS NOT DISTINCT FROM ?) AND (NULL::boolean))"),
            ("level:warn", "(level IS NOT DISTINCT FROM ?)"),
            ("*", "true"),
        ] {
            let sql: String = known(&parse(text).unwrap()).iter().map(part).collect();
            assert_eq!(sql, expected, "{text}");
        }
    }

    #[test]
    fn filters_and_cursor_become_conditions() {
        let filters = Filters { services: vec!["api".into()], levels: vec!["WARN".into()], from: Some(1), to: Some(2) };
        let after = Some(Cursor { time: 5, event_id: uuid::Uuid::nil() });
        assert_eq!(
            sql(&Page { filters, after, ..Page::default() }),
            " AND (event_time, event_id) < (?, ?) AND service = ANY(?) AND level = ANY(?) \
             AND event_time >= ? AND event_time < ?"
        );
        assert_eq!(sql(&Page::default()), "");
    }

    #[test]
    fn the_words_of_a_pattern_are_an_expression_without_a_sign_of_the_clients() {
        let short = |pattern: Pattern| {
            let all = format!("[{BETWEEN}{BETWEEN_UNLESS_DIGITS}]");
            let (Pattern::Phrase(text) | Pattern::Prefix(text)) = &pattern else { panic!("no text: {pattern:?}") };
            words(text, &pattern).replace(&all, "_").replace(&format!("[{BETWEEN}]"), "#")
        };
        for (text, phrase, prefix) in [
            ("timeout", "(^|_)timeout(_|$)", "(^|_)timeout"),
            ("connection reset", "(^|_)connection_+reset(_|$)", "(^|_)connection_+reset"),
            ("foo.*(ba", "(^|_)foo_+ba(_|$)", "(^|_)foo_+ba"),
            ("100%", "(^|#)100(#|$)", "(^|#)100"),
            ("x1,000", "(^|_)x1#+000(#|$)", "(^|_)x1#+000"),
            (r"größe\d", r"(^|_)größe_+d(_|$)", r"(^|_)größe_+d"),
        ] {
            assert_eq!(short(Pattern::Phrase(text.into())), phrase);
            assert_eq!(short(Pattern::Prefix(text.into())), prefix);
        }
    }

    #[test]
    fn a_text_is_any_part_of_a_message() {
        let clause = Clause { field: Field::Message, pattern: Pattern::Phrase("a b".into()) };
        let page = Page { query: Some(Query::Clause(clause)), ..Page::default() };
        assert_eq!(sql(&page), " AND (message ILIKE ?)");
    }

    #[test]
    fn what_like_takes_for_a_pattern_is_escaped() {
        assert_eq!(escaped(r"100%_\"), r"100\%\_\\");
    }
}
