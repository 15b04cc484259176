//! What a query looks like, without anything that its author wrote: for a log of slow queries.

use std::fmt::Write;

use crate::expression::{Clause, Field, Pattern, Query};
use crate::filters::Page;
use crate::words::words;

/// Longest shape, in bytes: what is cut was long enough to be told apart.
const MAX: usize = 512;

/// The shape of a page that is asked for, such as `service level=2 from to | words(2) AND NOT field:range`.
pub fn shape(page: &Page) -> String {
    let filters = &page.filters;
    let mut shape = String::new();
    let mut part = |text: &str| {
        if !shape.is_empty() {
            shape.push(' ');
        }
        shape.push_str(text);
    };
    for (name, choices) in [("service", filters.services.len()), ("level", filters.levels.len())] {
        if choices > 0 {
            part(&format!("{name}={choices}"));
        }
    }
    for (name, said) in
        [("from", filters.from.is_some()), ("to", filters.to.is_some()), ("cursor", page.after.is_some())]
    {
        if said {
            part(name);
        }
    }
    if let Some(query) = &page.query {
        let mut text = String::new();
        write_query(&mut text, query);
        part("|");
        part(&text);
    }
    shape
}

fn write_query(into: &mut String, query: &Query) {
    if into.len() >= MAX {
        return;
    }
    match query {
        Query::And(parts) if parts.is_empty() => into.push_str("everything"),
        Query::And(parts) => write_joined(into, parts, " AND "),
        Query::Or(parts) => write_joined(into, parts, " OR "),
        Query::Not(inner) => {
            into.push_str("NOT ");
            write_query(into, inner);
        }
        Query::Clause(clause) => write_clause(into, clause),
    }
}

fn write_joined(into: &mut String, parts: &[Query], by: &str) {
    into.push('(');
    for (at, part) in parts.iter().enumerate() {
        if into.len() >= MAX {
            into.push('…');
            break;
        }
        if at > 0 {
            into.push_str(by);
        }
        write_query(into, part);
    }
    into.push(')');
}

fn write_clause(into: &mut String, clause: &Clause) {
    let field = match &clause.field {
        Field::Text | Field::Message => "",
        Field::Metadata(_) => "metadata:",
        Field::Attributes(_) => "attributes:",
        // The name is the author's own words.
        Field::Either(_) | Field::Named(_) => "field:",
        Field::Service => "service:",
        Field::Level => "level:",
        Field::Application => "application:",
        Field::Language => "language:",
    };
    into.push_str(field);
    // Writing to a String can't fail.
    _ = match &clause.pattern {
        Pattern::Phrase(text) if field.is_empty() => write!(into, "words({})", words(text).len()),
        Pattern::Phrase(_) => write!(into, "value"),
        Pattern::Prefix(text) => write!(into, "prefix({})", text.chars().count()),
        Pattern::Wildcard(text) => write!(into, "wildcard({})", text.matches('*').count()),
        Pattern::Exists => write!(into, "exists"),
        Pattern::Range(_) => write!(into, "range"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[test]
    fn a_shape_says_what_is_asked_and_nothing_of_what_was_written() {
        for (text, shape) in [
            ("timeout", "| words(1)"),
            ("\"secret token\" -level:error", "| (words(2) AND NOT level:value)"),
            ("metadata.password:hunter2 OR hunter2:xyz*", "| (metadata:value OR field:prefix(3))"),
            ("status:>=500 service:*pi*", "| (field:range AND service:wildcard(2))"),
        ] {
            let page = Page { query: Some(parse(text).unwrap()), ..Page::default() };
            assert_eq!(super::shape(&page), shape, "{text}");
            assert!(!super::shape(&page).contains("hunter2"));
        }
        assert_eq!(shape(&Page::default()), "");
    }

    #[test]
    fn a_shape_is_short() {
        let many = vec!["aa"; 30].join(" OR ");
        let page = Page { query: Some(parse(&many).unwrap()), ..Page::default() };
        assert!(shape(&page).len() < MAX + 64, "{}", shape(&page));
    }
}
