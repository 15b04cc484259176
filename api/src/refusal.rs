//! The body of every refusal.

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
}

impl Refusal {
    /// With this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { error: Reason { code: code.as_str().to_owned(), message: message.into() } }
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
