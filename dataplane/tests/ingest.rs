//! The way in: HTTP to the queue, the registry that says who may, and the queue's way out.
//!
//! Each test has a Redis of its own, since it stops, fills, wipes or freezes it.

#![allow(clippy::unwrap_used, reason = "a test fails where what it stands on does")]

#[path = "ingest/redis_server.rs"]
mod redis_server;
#[path = "ingest/door.rs"]
mod door;
#[path = "ingest/accepting.rs"]
mod accepting;
#[path = "ingest/way_in.rs"]
mod way_in;
#[path = "ingest/keys.rs"]
mod keys;
#[path = "ingest/waiting.rs"]
mod waiting;
#[path = "ingest/refusing.rs"]
mod refusing;
#[path = "ingest/front.rs"]
mod front;
#[path = "ingest/framing.rs"]
mod framing;
#[path = "ingest/odd_keys.rs"]
mod odd_keys;
#[path = "ingest/quotas.rs"]
mod quotas;
#[path = "ingest/bounds.rs"]
mod bounds;
#[path = "ingest/registry.rs"]
mod registry;
#[path = "ingest/signed.rs"]
mod signed;
#[path = "ingest/privileges.rs"]
mod privileges;
#[path = "ingest/outage.rs"]
mod outage;
#[path = "ingest/lost.rs"]
mod lost;
#[path = "ingest/consuming.rs"]
mod consuming;
