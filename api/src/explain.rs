//! What was understood of a query.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was understood of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// In a sentence.
    pub text: String,
    /// A query that means the same and leaves nothing to guess.
    pub normal: String,
    /// Its pieces, in order, for an editor to colour.
    pub tokens: Vec<Token>,
    /// What else may have been meant.
    pub hints: Vec<Hint>,
}

/// A piece of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it begins, in bytes of the query.
    pub position: usize,
    /// How many bytes it has.
    pub length: usize,
}

/// What a piece of a query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// `AND`, `OR`, `NOT`, `-`.
    Operator,
    /// `(` or `)`.
    Parenthesis,
    /// A field's name with its colon or comparison.
    Field,
    /// A field's value.
    Value,
    /// A word of the text.
    Word,
    /// A phrase in quotation marks.
    Phrase,
    /// Signs, which are skipped.
    Signs,
    /// A `|`, and the words of a stage behind it.
    Stage,
}

/// Another query that may have been meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hint {
    /// Why.
    pub text: String,
    /// The whole query.
    pub query: String,
}
