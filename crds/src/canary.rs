//! What a canary says of its last round trip: the answer to its `GET /canary`, which the operator reads.

use serde::{Deserialize, Serialize};

/// A stage of an event's way, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Ingest answers 202.
    Accept,
    /// The catalog lists the event.
    Catalog,
    /// The index finds it.
    Search,
    /// The live tail shows it.
    Live,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Catalog, Self::Search, Self::Live];

    /// As it stands in a label and in a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Catalog => "catalog",
            Self::Search => "search",
            Self::Live => "live",
        }
    }
}

/// How one stage went. One that the event never came to is told by no one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// The stage.
    pub stage: Stage,
    /// Milliseconds from when the event was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
    /// Why it did not come there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a round trip went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Seconds since it ended, by the canary's clock.
    pub age_seconds: u64,
    /// Its stages.
    pub stages: Vec<StageReport>,
}

/// The answer to `GET /canary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The last round trip; absent until the first one has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<RoundTrip>,
}

/// The stage that failed first, and why.
pub fn failure(stages: &[StageReport]) -> Option<(Stage, &str)> {
    stages.iter().find_map(|one| Some((one.stage, one.error.as_deref()?)))
}
