//! An expression over one event in memory: the definition of what a query means.

use stages::Event;
use stages::time::Micros;

use crate::expression::{Clause, Field, Pattern, Query};
use crate::filters::Filters;
use crate::leaves::{Leaves, word};
use crate::words::{lower_case, words};

/// An event, prepared to be asked.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    event: &'a Event,
    time: Micros,
    message: Vec<String>,
    full_log: Vec<String>,
    leaves: Vec<String>,
}

impl<'a> Subject<'a> {
    /// An event that happened at `time`.
    pub fn new(event: &'a Event, time: Micros) -> Self {
        let mut leaves = Vec::new();
        let Ok(()) = Leaves::of(event).each(|word| {
            leaves.push(word.to_owned());
            Ok::<(), std::convert::Infallible>(())
        });
        let full_log = event.full_log.as_deref().map(words).unwrap_or_default();
        Self { event, time, message: words(&event.message), full_log, leaves }
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

    fn holds(&self, Clause { field, pattern }: &Clause) -> bool {
        let event = self.event;
        match field {
            Field::Text => in_text(&self.message, pattern) || in_text(&self.full_log, pattern),
            Field::Message => {
                let (Pattern::Phrase(text) | Pattern::Prefix(text)) = pattern;
                event.message.to_lowercase().contains(&text.to_lowercase())
            }
            Field::Service => is(Some(&event.service), pattern),
            Field::Level => is(Some(&event.level), &pattern.of_level()),
            Field::Application => is(event.application.as_deref(), pattern),
            Field::Language => is(event.language.as_deref(), pattern),
            Field::Metadata(path) => self.has_leaf(&format!("metadata.{path}"), pattern),
            Field::Attributes(path) => self.has_leaf(&format!("attributes.{path}"), pattern),
        }
    }

    fn has_leaf(&self, path: &str, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Phrase(text) => self.leaves.contains(&word(path, text)),
            Pattern::Prefix(text) => {
                let begin = word(path, text);
                self.leaves.iter().any(|leaf| leaf.starts_with(&begin))
            }
        }
    }
}

fn is(value: Option<&str>, pattern: &Pattern) -> bool {
    value.is_some_and(|value| match pattern {
        Pattern::Phrase(text) => value == text,
        Pattern::Prefix(text) => value.starts_with(text.as_str()),
    })
}

/// Whether the pattern's words stand side by side; of a prefix, the last may go on.
fn in_text(text: &[String], pattern: &Pattern) -> bool {
    let (asked, goes_on) = match pattern {
        // One word stays one, whatever its script, and is looked up as it is.
        Pattern::Prefix(prefix) if pattern.is_one_word() => (vec![lower_case(prefix)], true),
        Pattern::Prefix(prefix) => (words(prefix), true),
        Pattern::Phrase(phrase) => (words(phrase), false),
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
