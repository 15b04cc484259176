//! The data plane: the path of a log line from an HTTP request to where it is found again.
//!
//! `ingest` → `queue` → `process` → `stores` (catalog, then index) → acknowledged; `maintain`
//! archives behind; `search` and `gateway` read.

pub mod event;
pub mod tenancy;
mod fair;
mod loki;
pub mod queue;
pub mod cache;
pub mod status;
pub mod ingest;
pub mod stores;
pub mod process;
pub mod maintain;
pub mod search;
pub mod gateway;
mod asking;
pub mod smoke;
pub mod requeue;
pub mod canary;
pub mod try_out;
pub mod fail_points;
#[cfg(test)]
mod arrows;
#[cfg(test)]
mod simulation;
#[cfg(fuzzing)]
pub mod fuzzing;
