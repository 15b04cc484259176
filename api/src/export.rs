//! An export: one event a line, and a last line that says whether that is all.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stages::Map;

use crate::event::Item;

/// The header that says how many events match, where that was known before the first of them was sent: a number, with
/// a `+` behind it if there are more.
pub const EVENTS_HEADER: &str = "loggerhub-events";

/// One whole event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// What its row holds.
    #[serde(flatten)]
    pub item: Item,
    /// The whole text, where it is more than the message.
    pub full_log: Option<String>,
    /// What the client sent as `metadata`.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub metadata: Option<Map>,
    /// Fields that LoggerHub has no name for.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub attributes: Option<Map>,
    /// False, and else left out: the raw line could not be read, and this is the event's row alone.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub complete: bool,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastLine {
    /// What was exported.
    pub export: Summary,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How many events.
    pub events: u64,
    /// Whether these, and those before the cursor that was sent, are all that match.
    pub complete: bool,
    /// What to send as `cursor` to go on; null if there is no more.
    pub next_cursor: Option<String>,
    /// Why it is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Cow<'static, str>>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_true(flag: &bool) -> bool {
    *flag
}
