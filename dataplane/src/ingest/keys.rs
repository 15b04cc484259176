//! Which body came lately under which `Idempotency-Key`, as far as the cache remembers.
//!
//! It tells most clients at once what the catalog decides for all: that a key is another body's, or
//! that a batch was kept before. A key is written down once its batch is kept and not before, so
//! that whoever was refused may send something else under it.
//!
//! The memory is the Tenant object's, and not the name's: one that comes after another of the same name has sent nothing
//! yet.

use redis::pipe;
use uuid::Uuid;

use crate::cache::Cache;
use crate::tenancy::Tenant;

/// How long a key is remembered, in seconds: the documented window of 72 hours.
const WINDOW_SECONDS: u64 = 72 * 3600;

/// The memory. Without a cache it remembers nothing.
#[derive(Clone)]
pub(super) struct Keys {
    cache: Option<Cache>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Unknown,
    /// This very body was kept under it.
    Same,
    /// Another body was kept under it.
    Other,
}

impl Keys {
    pub(super) fn new(cache: Option<Cache>) -> Self {
        Self { cache }
    }

    /// What is known of the key of this batch of the tenant's.
    pub(super) async fn look_up(&self, tenant: &Tenant, batch_id: Uuid, body_hash: &[u8; 32]) -> Seen {
        let Some(cache) = &self.cache else { return Seen::Unknown };
        let found: Option<(Option<Vec<u8>>,)> = cache.ask(pipe().get(name(tenant, batch_id))).await;
        match found {
            Some((Some(kept),)) if kept == body_hash => Seen::Same,
            Some((Some(_),)) => Seen::Other,
            Some((None,)) | None => Seen::Unknown,
        }
    }

    /// Writes down that this body is kept. Of two at once the first stays.
    pub(super) async fn remember(&self, tenant: &Tenant, batch_id: Uuid, body_hash: &[u8; 32]) {
        let Some(cache) = &self.cache else { return };
        let mut set = pipe();
        set.cmd("SET")
            .arg(name(tenant, batch_id))
            .arg(body_hash.as_slice())
            .arg("NX")
            .arg("EX")
            .arg(WINDOW_SECONDS)
            .ignore();
        let _: Option<()> = cache.ask(&set).await;
    }
}

fn name(tenant: &Tenant, batch_id: Uuid) -> String {
    crds::names::idempotency_memory(&tenant.registered().uid, &batch_id)
}
