//! What `GET /queue/status` of ingest's admin port shows.

use crds::PipelineName;
use serde::{Deserialize, Serialize};

/// One lane of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Pipeline that the lane belongs to.
    pub name: PipelineName,
    /// Redis key of the stream.
    #[serde(default)]
    pub stream: String,
    /// Events in the stream, handed out or not: the backlog.
    pub events: u64,
    /// Payload bytes in the stream.
    #[serde(default)]
    pub bytes: u64,
    /// Entries in the stream.
    #[serde(default)]
    pub entries: u64,
    /// Entries handed out and not yet acknowledged.
    #[serde(default)]
    pub pending: u64,
    /// Consumer groups.
    #[serde(default)]
    pub groups: u64,
    /// Consumers of the processors' group.
    #[serde(default)]
    pub consumers: u64,
    /// Id of the last entry ever added.
    #[serde(default)]
    pub last_id: String,
    /// Age of the oldest entry; 0 if there is none.
    pub oldest_age_seconds: u64,
    /// Whether nobody reads it: its pipeline is not there, and the events wait for it.
    #[serde(default)]
    pub held: bool,
}
