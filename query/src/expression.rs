//! A query as a tree: what it asks of which field, in a form that every store's compiler and [`crate::matches`] read.

/// A query as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// All of them hold.
    And(Vec<Query>),
    /// At least one holds.
    Or(Vec<Query>),
    /// It doesn't hold.
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
}

/// What a clause finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// A word or a phrase: these words in this order.
    Phrase(String),
    /// A word that begins so.
    Prefix(String),
}

impl Pattern {
    /// The pattern for the field `level`, as levels are stored.
    pub fn of_level(&self) -> Self {
        match self {
            Self::Phrase(text) => Self::Phrase(stages::normalize_level(text)),
            Self::Prefix(text) => Self::Prefix(text.to_uppercase()),
        }
    }

    /// Whether it is one word to the index, whatever stands beside it.
    pub fn is_one_word(&self) -> bool {
        let (Self::Phrase(text) | Self::Prefix(text)) = self;
        text.chars().all(char::is_alphanumeric)
    }
}

impl Query {
    /// Whether its prefixes of several words may be looked for anywhere in an event instead of side by side: there are
    /// some, and none is excluded, so that no event is left out for it.
    pub fn can_be_loosened(&self) -> bool {
        self.clauses().any(|(clause, _)| clause.is_prefix_of_several())
            && !self.clauses().any(|(clause, excluded)| clause.is_prefix_of_several() && excluded)
    }

    /// Whether it asks for anything that an event has only as a whole: more than its row, or its reduced document.
    pub fn asks_for_the_whole(&self) -> bool {
        let whole = |field: &Field| matches!(field, Field::Text | Field::Metadata(_) | Field::Attributes(_));
        self.clauses().any(|(clause, _)| whole(&clause.field))
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
    fn is_prefix_of_several(&self) -> bool {
        self.field == Field::Text && matches!(self.pattern, Pattern::Prefix(_)) && !self.pattern.is_one_word()
    }
}
