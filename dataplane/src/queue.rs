//! The queue: one Redis stream per pipeline and shard, group-committed, counted in events.

pub mod entry;
