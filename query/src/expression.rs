//! A query as a tree: what it asks of which field, in a form that every store's compiler and [`crate::matches`] read.

use std::fmt;

use crate::scalar::Range;
use crate::words::words;

/// A query as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// All of them hold. Without any: every event.
    And(Vec<Query>),
    /// At least one holds.
    Or(Vec<Query>),
    /// It doesn't hold. An event without the field that it asks for is found too.
    Not(Box<Query>),
    /// A field has a value.
    Clause(Clause),
}

/// One field and what it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Where to look.
    pub field: Field,
    /// What to find there.
    pub pattern: Pattern,
}

/// Where a clause looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `message` and `full_log`: a word without a field.
    Text,
    /// The message as a list shows it, of which any part may be asked for. Not a field of the query language.
    Message,
    /// The service, exactly.
    Service,
    /// The level; its case doesn't matter.
    Level,
    /// The application, exactly.
    Application,
    /// The language, exactly.
    Language,
    /// A path inside `metadata`, exactly.
    Metadata(String),
    /// A path inside the fields that LoggerHub has no name for, exactly.
    Attributes(String),
    /// A path inside either of the two: `@name`.
    Either(String),
    /// The same, or the text `name:value`: a name as people type or paste it.
    Named(String),
}

/// What a clause finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// A word or a phrase: these words in this order.
    Phrase(String),
    /// A word that begins so.
    Prefix(String),
    /// A value with a `*` for anything, in the field's own letters. Not of a text.
    Wildcard(String),
    /// Any value at all. Not of a text.
    Exists,
    /// A number or a time in this range. Of leaves only.
    Range(Range),
}

/// The fields with names of their own, and the other names that people have for them.
const RESERVED: [(Field, &str, &[&str]); 5] = [
    (Field::Service, "service", &["svc"]),
    (Field::Level, "level", &["severity"]),
    (Field::Application, "application", &["app"]),
    (Field::Language, "language", &[]),
    (Field::Text, "message", &["msg", "text"]),
];

impl Field {
    /// The field that a name stands for: a reserved one, a path, or any other.
    pub fn of(name: &str) -> Self {
        let reserved = RESERVED.into_iter().find(|(_, own, others)| *own == name || others.contains(&name));
        let path = |root: &str| name.strip_prefix(root).filter(|path| !path.is_empty()).map(str::to_owned);
        (reserved.map(|(field, _, _)| field))
            .or_else(|| path("metadata.").map(Self::Metadata))
            .or_else(|| path("attributes.").map(Self::Attributes))
            .or_else(|| path("@").map(Self::Either))
            .unwrap_or_else(|| Self::Named(name.to_owned()))
    }

    /// Whether it is one that LoggerHub has a name for.
    pub fn is_reserved(&self) -> bool {
        !matches!(self, Self::Metadata(_) | Self::Attributes(_) | Self::Either(_) | Self::Named(_))
    }

    /// Whether an event has it only as a whole: it is in neither its row nor its reduced document.
    pub fn is_of_the_whole(&self) -> bool {
        *self == Self::Text || !self.is_reserved()
    }

    /// The paths of the leaves that it looks at.
    pub fn paths(&self) -> Vec<String> {
        match self {
            Self::Metadata(path) => vec![format!("metadata.{path}")],
            Self::Attributes(path) => vec![format!("attributes.{path}")],
            Self::Either(path) | Self::Named(path) => vec![format!("metadata.{path}"), format!("attributes.{path}")],
            _ => Vec::new(),
        }
    }
}

/// As it is written in a query.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text | Self::Message => f.write_str("message"),
            Self::Service => f.write_str("service"),
            Self::Level => f.write_str("level"),
            Self::Application => f.write_str("application"),
            Self::Language => f.write_str("language"),
            Self::Metadata(path) => write!(f, "metadata.{path}"),
            Self::Attributes(path) => write!(f, "attributes.{path}"),
            Self::Either(path) => write!(f, "@{path}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl Pattern {
    /// The pattern for the field `level`, as levels are stored.
    pub fn of_level(&self) -> Self {
        match self {
            Self::Phrase(text) => Self::Phrase(stages::normalize_level(text)),
            Self::Prefix(text) => Self::Prefix(text.to_uppercase()),
            Self::Wildcard(text) => Self::Wildcard(text.to_uppercase()),
            Self::Exists => Self::Exists,
            Self::Range(range) => Self::Range(range.clone()),
        }
    }

    /// Whether it is one word to the index, whatever stands beside it.
    pub fn is_one_word(&self) -> bool {
        match self {
            // Each ideograph is a word.
            Self::Phrase(text) | Self::Prefix(text) => {
                text.chars().all(char::is_alphanumeric) && words(text).len() == 1
            }
            Self::Wildcard(_) | Self::Exists | Self::Range(_) => false,
        }
    }
}

impl Query {
    /// The query that finds every event.
    pub fn everything() -> Self {
        Self::And(Vec::new())
    }

    /// Whether its prefixes of several words may be looked for anywhere in an event instead of side by side: there are
    /// some, and none is excluded, so that no event is left out for it.
    pub fn can_be_loosened(&self) -> bool {
        self.clauses().any(|(clause, _)| clause.is_prefix_of_several())
            && !self.clauses().any(|(clause, excluded)| clause.is_prefix_of_several() && excluded)
    }

    /// Whether it asks for anything that an event has only as a whole: more than its row, or its reduced document.
    pub fn asks_for_the_whole(&self) -> bool {
        self.clauses().any(|(clause, _)| clause.field.is_of_the_whole())
    }

    /// Whether it asks for anything that an event's row has.
    pub fn asks_for_the_row(&self) -> bool {
        self.clauses().any(|(clause, _)| clause.field.is_reserved() && clause.field != Field::Text)
    }

    /// Whether it asks for a part of the message as a list shows it.
    pub fn asks_for_a_shown_message(&self) -> bool {
        self.clauses().any(|(clause, _)| clause.field == Field::Message)
    }

    /// Whether it compares numbers or times.
    pub fn compares(&self) -> bool {
        self.clauses().any(|(clause, _)| matches!(clause.pattern, Pattern::Range(_)))
    }

    /// How many clauses it has.
    pub fn size(&self) -> usize {
        self.clauses().count()
    }

    /// Its clauses, and whether each stands inside of an exclusion. There are at most [`MAX_CLAUSES`](crate::parse::MAX_CLAUSES).
    fn clauses(&self) -> impl Iterator<Item = (&Clause, bool)> {
        fn collect<'a>(query: &'a Query, excluded: bool, into: &mut Vec<(&'a Clause, bool)>) {
            match query {
                Query::And(parts) | Query::Or(parts) => parts.iter().for_each(|part| collect(part, excluded, into)),
                Query::Not(inner) => collect(inner, true, into),
                Query::Clause(clause) => into.push((clause, excluded)),
            }
        }
        let mut clauses = Vec::new();
        collect(self, false, &mut clauses);
        clauses.into_iter()
    }
}

impl Clause {
    /// The text of a name and a value as people write them, where the field may be a text too. Of a value without words
    /// nothing but the name would be left.
    pub fn as_text(&self) -> Option<Pattern> {
        match (&self.field, &self.pattern) {
            (Field::Named(name), Pattern::Phrase(value)) if !words(value).is_empty() => {
                Some(Pattern::Phrase(format!("{name}:{value}")))
            }
            _ => None,
        }
    }

    fn is_prefix_of_several(&self) -> bool {
        self.field == Field::Text && matches!(self.pattern, Pattern::Prefix(_)) && !self.pattern.is_one_word()
    }
}
