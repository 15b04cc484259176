//! An expression over one event in memory: the definition of what a query means.

use std::borrow::Cow;
use std::sync::OnceLock;

use stages::Event;
use stages::time::Micros;

use crate::expression::{Clause, Field, Pattern, Query};
use crate::filters::Filters;
use crate::leaves::{Leaves, word};
use crate::scalar::MAX_PATH_BYTES;
use crate::words::{lower_case, words};

/// An event, prepared to be asked.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    event: Cow<'a, Event>,
    time: Micros,
    /// The words of its texts and of its leaves, once they are asked for.
    message: OnceLock<Vec<String>>,
    full_log: OnceLock<Vec<String>>,
    leaves: OnceLock<Vec<String>>,
}

impl<'a> Subject<'a> {
    /// An event that happened at `time`.
    pub fn new(event: &'a Event, time: Micros) -> Self {
        Self::of(Cow::Borrowed(event), time)
    }

    /// The same, to be asked again and again.
    pub fn owned(event: Event, time: Micros) -> Subject<'static> {
        Subject::of(Cow::Owned(event), time)
    }

    fn of(event: Cow<'a, Event>, time: Micros) -> Self {
        let (message, full_log, leaves) = Default::default();
        Self { event, time, message, full_log, leaves }
    }

    /// Whether filters let it through.
    pub fn passes(&self, filters: &Filters) -> bool {
        let any = |choices: &[String], value: &String| choices.is_empty() || choices.contains(value);
        any(&filters.services, &self.event.service)
            && any(&filters.levels, &self.event.level)
            && filters.from.is_none_or(|from| self.time >= from)
            && filters.to.is_none_or(|to| self.time < to)
    }

    /// Whether a query finds it.
    pub fn matches(&self, query: &Query) -> bool {
        match query {
            Query::And(parts) => parts.iter().all(|part| self.matches(part)),
            Query::Or(parts) => parts.iter().any(|part| self.matches(part)),
            Query::Not(inner) => !self.matches(inner),
            Query::Clause(clause) => self.holds(clause),
        }
    }

    fn holds(&self, clause: &Clause) -> bool {
        let (event, pattern) = (&self.event, &clause.pattern);
        match &clause.field {
            Field::Text => self.says(pattern),
            Field::Message => match pattern {
                Pattern::Phrase(text) | Pattern::Prefix(text) => {
                    event.message.to_lowercase().contains(&text.to_lowercase())
                }
                Pattern::Wildcard(_) | Pattern::Exists | Pattern::Range(_) => false,
            },
            Field::Service => is(Some(&event.service), pattern),
            Field::Level => is(Some(&event.level), &pattern.of_level()),
            Field::Application => is(event.application.as_deref(), pattern),
            Field::Language => is(event.language.as_deref(), pattern),
            field @ (Field::Metadata(_) | Field::Attributes(_) | Field::Either(_) | Field::Named(_)) => {
                field.paths().iter().any(|path| self.has_leaf(path, pattern))
                    || clause.as_text().is_some_and(|text| self.says(&text))
            }
        }
    }

    fn says(&self, pattern: &Pattern) -> bool {
        let message = self.message.get_or_init(|| words(&self.event.message));
        let full_log = || self.full_log.get_or_init(|| self.event.full_log.as_deref().map(words).unwrap_or_default());
        in_text(message, pattern) || in_text(full_log(), pattern)
    }

    fn has_leaf(&self, path: &str, pattern: &Pattern) -> bool {
        let leaves = self.leaves.get_or_init(|| leaves_of(&self.event));
        let any = |holds: &dyn Fn(&str) -> bool| leaves.iter().any(|leaf| holds(leaf));
        match pattern {
            Pattern::Phrase(text) => leaves.contains(&word(path, text)),
            Pattern::Prefix(text) => any(&|leaf| leaf.starts_with(&word(path, text))),
            Pattern::Wildcard(text) => any(&|leaf| value_at(leaf, path).is_some_and(|value| is_like(value, text))),
            Pattern::Range(range) => {
                path.len() <= MAX_PATH_BYTES
                    && any(&|leaf| value_at(leaf, path).is_some_and(|value| range.holds(value)))
            }
            // Of an object, what is inside of it.
            Pattern::Exists => {
                any(&|leaf| leaf.strip_prefix(path).is_some_and(|rest| rest.starts_with('=') || rest.starts_with('.')))
            }
        }
    }
}

fn leaves_of(event: &Event) -> Vec<String> {
    let mut leaves = Vec::new();
    let Ok(()) = Leaves::of(event).each(|word| {
        leaves.push(word.to_owned());
        Ok::<(), std::convert::Infallible>(())
    });
    leaves
}

/// The value of a leaf's word, if it is at this path.
fn value_at<'a>(leaf: &'a str, path: &str) -> Option<&'a str> {
    leaf.strip_prefix(path)?.strip_prefix('=')
}

/// Whether a value is these letters, with anything in the place of each `*`.
fn is_like(value: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = value.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn is(value: Option<&str>, pattern: &Pattern) -> bool {
    value.is_some_and(|value| match pattern {
        Pattern::Phrase(text) => value == text,
        Pattern::Prefix(text) => value.starts_with(text.as_str()),
        Pattern::Wildcard(text) => is_like(value, text),
        Pattern::Exists => true,
        Pattern::Range(_) => false,
    })
}

/// Whether the pattern's words stand side by side; of a prefix, the last may go on.
fn in_text(text: &[String], pattern: &Pattern) -> bool {
    let (asked, goes_on) = match pattern {
        // One word stays one, whatever its script, and is looked up as it is.
        Pattern::Prefix(prefix) if pattern.is_one_word() => (vec![lower_case(prefix)], true),
        Pattern::Prefix(prefix) => (words(prefix), true),
        Pattern::Phrase(phrase) => (words(phrase), false),
        Pattern::Wildcard(_) | Pattern::Exists | Pattern::Range(_) => return false,
    };
    let Some((last, before)) = asked.split_last() else { return false };
    text.windows(asked.len()).any(|found| {
        let (end, begin) = (&found[found.len() - 1], &found[..found.len() - 1]);
        begin == before && if goes_on { end.starts_with(last.as_str()) } else { end == last }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    const LINE: &str = r#"{"message": "Connection reset by peer: user_id=42", "service": "api", "level": "warning",
        "application": "shop", "full_log": "Connection reset by peer\n at Foo.bar(Foo.java:7)",
        "metadata": {"user": {"id": 42}, "tags": ["a", "b"]}, "trace_id": "abc"}"#;

    #[test]
    fn a_query_means_this() {
        let event = stages::event(LINE.as_bytes(), 0).unwrap();
        let subject = Subject::new(&event, 5);
        for (query, expected) in [
            ("connection", true),
            ("CONNECTION", true),
            ("connect", false),
            ("connect*", true),
            ("\"reset by\"", true),
            ("\"by reset\"", false),
            ("user_id", true),
            ("user_i*", true),
            ("foo.java", true),
            ("-foo", false),
            ("peer -gone", true),
            ("gone OR peer", true),
            ("(gone OR peer) level:warn", true),
            ("level:WARNING", true),
            ("level:wa*", true),
            ("level:error", false),
            ("service:api application:shop", true),
            ("service:Api", false),
            ("service:a", false),
            ("language:java", false),
            ("-language:java", true),
            ("metadata.user.id:42", true),
            ("metadata.user.id:4", false),
            ("metadata.tags:b", true),
            ("attributes.trace_id:ab*", true),
            ("trace", false),
            ("trace_id:abc", true),
            ("user.id:42", true),
            ("user_id:42", true),
            ("@user_id:42", false),
            ("connection:/", false),
            ("-connection:/", true),
            ("@trace_id:ab*", true),
            ("@trace_id:*bc*", true),
            ("@trace_id:*xy*", false),
            ("@trace_id:*ab", false),
            ("@trace_id:*", true),
            ("user:*", true),
            ("use:*", false),
            ("user.id:>41", true),
            ("user.id:>42", false),
            ("user.id:[1 TO 42]", true),
            ("user.id:..9", false),
            ("-user.id:>=100", true),
            ("trace_id:>=0", false),
            ("-missing:*", true),
            ("tags:(x OR b)", true),
            ("tags:x,y", false),
            ("status:!=500", true),
            ("level:>=info", true),
            ("level:>warn", false),
            ("level:<=warn", true),
            ("*", true),
            ("-*", false),
            ("message:reset", true),
            ("service:*pi*", true),
        ] {
            assert_eq!(subject.matches(&parse(query).unwrap()), expected, "{query}");
        }
    }

    #[test]
    fn filters_choose_by_service_level_and_time() {
        let event = stages::event(LINE.as_bytes(), 0).unwrap();
        let subject = Subject::new(&event, 5);
        let with = |change: fn(&mut Filters)| {
            let mut filters = Filters::default();
            change(&mut filters);
            subject.passes(&filters)
        };
        assert!(with(|_| {}));
        assert!(with(|filters| filters.services = vec!["web".into(), "api".into()]));
        assert!(!with(|filters| filters.services = vec!["web".into()]));
        assert!(!with(|filters| filters.levels = vec!["ERROR".into()]));
        assert!(with(|filters| filters.from = Some(5)) && with(|filters| filters.to = Some(6)));
        assert!(!with(|filters| filters.from = Some(6)) && !with(|filters| filters.to = Some(5)));
    }
}
