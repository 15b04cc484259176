//! The protocols that logs come by: each reads from its peer, says how events are found in what it read, gives it to
//! [`Intake`](super::accept::Intake), and answers in its own words.

mod holding;
pub(super) mod http;
pub(super) mod native;
