//! What became of a batch, told by processors to whoever answers `POST /data/`.
//!
//! ```text
//!  ingest:    lease of the tenant ─► queue the batch ─► look for its note, up to 10 s
//!  processor: stored in the catalog ─► is there a lease? ─► a note for each batch
//! ```
//! Neither needs the other: without the cache nothing is told, and the client learns the same from
//! `GET /api/batches/{id}`.

use std::time::Duration;

use redis::pipe;
use tokio::time::Instant;
use uuid::Uuid;

use super::Cache;
use crate::event::Micros;
use crate::tenancy::Tenant;

/// How long a lease holds, in seconds: the wait itself, and the queue's answer before it.
const LEASE_SECONDS: u64 = 30;
/// How long a note stays, in seconds: longer than anybody waits.
const NOTE_SECONDS: u64 = 30;
/// Time between two looks for a note; with it a batch is usually told of within a tenth of a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the catalog.
    Stored,
    /// The same body was stored before under its `Idempotency-Key`.
    Duplicate,
    /// Another body was stored before under its `Idempotency-Key`: it is dead letters.
    OtherBody,
}

impl Fate {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::OtherBody => "other_body",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Stored, Self::Duplicate, Self::OtherBody].into_iter().find(|fate| fate.as_str() == text)
    }
}

impl Cache {
    /// Asks processors to tell of this tenant's batches for a while. `false` if they can't be asked.
    pub async fn lease_fates(&self, tenant: &Tenant) -> bool {
        let mut lease = pipe();
        lease.cmd("SET").arg(tenant.name().fate_lease()).arg(1).arg("EX").arg(LEASE_SECONDS).ignore();
        self.ask::<()>(&lease).await.is_some()
    }

    /// Waits until this batch is told of; `None` if it is not `within` that time.
    pub async fn await_fate(
        &self,
        tenant: &Tenant,
        batch_id: Uuid,
        accepted_at: Micros,
        within: Duration,
    ) -> Option<Fate> {
        let deadline = Instant::now() + within;
        let name = tenant.name().fate_note(&batch_id, accepted_at);
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some((Some(note),)) = self.ask::<(Option<String>,)>(pipe().get(&name)).await {
                return Fate::parse(&note);
            }
        }
        None
    }

    /// Tells of batches, each by the id that its client was told and when it was accepted, if
    /// somebody wants to know.
    pub async fn tell_fates(&self, tenant: &Tenant, fates: &[(Uuid, Micros, Fate)]) {
        if fates.is_empty() {
            return;
        }
        let wanted: Option<(bool,)> = self.ask(pipe().exists(tenant.name().fate_lease())).await;
        if wanted != Some((true,)) {
            return;
        }
        let mut notes = pipe();
        for (batch_id, accepted_at, fate) in fates {
            let name = tenant.name().fate_note(batch_id, *accepted_at);
            notes.cmd("SET").arg(name).arg(fate.as_str()).arg("EX").arg(NOTE_SECONDS).ignore();
        }
        let _: Option<()> = self.ask(&notes).await;
    }
}
