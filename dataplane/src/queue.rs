//! The queue: one Redis stream per pipeline and shard, group-committed, counted in events.
//!
//! ```text
//!  ingest ─► Producer ─ group commit ─► XADD + counters, one MULTI a lane ─► on disk ─► 202
//!  process ◄─ Consumer ─ own pending, left behind by the dead, new ◄─┘
//!          └► Lanes::acknowledge ─► XACK + XDEL + counters, one script
//! ```
//! The backlog is known in events: counters change in the step that adds or deletes an entry.

pub mod entry;
mod again;
mod backlog;
mod budget;
mod grouping;
mod health;
mod producer;
mod quarantine;
mod consumer;
mod lanes;
mod oldest;
mod suspects;

pub use budget::{Budget, Claim, Overloaded};
pub use consumer::{Consumer, ConsumerSettings, Delivery, EntryRef};
#[cfg(test)]
pub(crate) use grouping::{Weighed, group};
pub use health::{Durability, Health};
pub use lanes::Lanes;
pub(crate) use oldest::{A_MOMENT, handed_out, has_bytes, held_pipelines, waits_for};
pub use oldest::{Oldest, Waiting};
pub use producer::{Batch, Commit, Producer, ProducerSettings, SendError};
pub use quarantine::Quarantined;
pub(crate) use suspects::Suspects;

/// What can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A client can't be made.
    #[error("connect to the queue")]
    Store(#[from] runtime::stores::Error),
    /// Nothing to compress with.
    #[error("set up compression")]
    Compression(#[from] std::io::Error),
    /// No more entries are kept there.
    #[error("`{stream}` is full: look at what is in it, and delete it")]
    QuarantineFull {
        /// The quarantine's stream.
        stream: String,
    },
    /// Redis doesn't answer as it should.
    #[error("{doing}")]
    Redis {
        /// What we were doing.
        doing: &'static str,
        /// The cause.
        source: redis::RedisError,
    },
}

/// Names what was being done when Redis failed.
fn redis_error(doing: &'static str) -> impl FnOnce(redis::RedisError) -> Error {
    move |source| Error::Redis { doing, source }
}
