//! The body of every refusal.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Code;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What was wrong.
    pub error: Reason,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Stable, for programs.
    pub code: String,
    /// What was wrong, where, and what to do, for people.
    pub message: String,
    /// Of a query: where it can't be understood, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Of a query: how many bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// Of a query: whole queries that may be meant instead, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<String>,
}

impl Refusal {
    /// With this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (code, message) = (code.as_str().to_owned(), message.into());
        Self { error: Reason { code, message, position: None, length: None, repairs: Vec::new() } }
    }

    /// The same with its place in a query, and what may be meant there.
    pub fn at(self, place: Range<usize>, repairs: Vec<String>) -> Self {
        Self { error: Reason { position: Some(place.start), length: Some(place.len()), repairs, ..self.error } }
    }

    /// The refusal in a body, if it is one of ours.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Its code; `None` for one that this version does not know.
    pub fn code(&self) -> Option<Code> {
        Code::parse(&self.error.code)
    }
}
