//! What happened around one event.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Item, Source};

/// One event between its neighbours. Read from the top, time goes forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// What came directly before it, the oldest first.
    pub before: Vec<Item>,
    /// The event.
    pub event: Item,
    /// What came directly after it, the oldest first.
    pub after: Vec<Item>,
    /// What the neighbours have in common with it; null if nothing.
    pub same: Option<Same>,
    /// What to send as `cursor` for what came before `before`; null if there is nothing.
    pub earlier_cursor: Option<String>,
    /// What to send as `cursor` for what came after `after`; null if there is nothing yet.
    pub later_cursor: Option<String>,
    /// Where the neighbours come from.
    pub source: Source,
    /// Whether no neighbour is missing.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

/// A field and its values, one of which each neighbour has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Same {
    /// The field.
    pub field: String,
    /// Its values in the event: one, unless the field is a list.
    pub values: Vec<String>,
}
