//! Whether accepted events of a tenant wait in the queue for longer than usual: no store has these yet, so nothing that
//! is read from one is complete.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::PipelineName;
use crds::names::Lane;
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};

use crate::event::Micros;
use crate::queue::{A_MOMENT, handed_out, has_bytes, held_pipelines, waits_for};
use crate::tenancy::Tenant;

/// Time that an entry may take from the queue to the catalog before an answer says that it is missing; normally it
/// takes less than one second.
const GRACE: Micros = 5_000_000;
/// Longest wait for the queue's Redis: an answer must not wait for it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the age of a lane's oldest entry is remembered, and which pipelines are held.
const HOLDS: Duration = Duration::from_secs(2);
/// Lanes remembered: of some hundred pipelines.
const REMEMBERED: usize = 4096;

/// Looks into the queue. Cheap to clone.
#[derive(Clone)]
pub struct Waiting {
    connection: Connection,
    /// When the oldest entry of a lane was added, if there is one, as it was a moment ago.
    oldest: Arc<Mutex<HashMap<Lane, Look>>>,
    /// Pipelines that are not there and that events wait for, as they were a moment ago.
    held: Arc<Mutex<Option<HeldLook>>>,
}

/// When a lane was looked at, and when its oldest entry was added then.
type Look = (Instant, Micros);
/// When it was looked which pipelines are held, and which were.
type HeldLook = (Instant, BTreeSet<PipelineName>);

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing, or not for long.
    Nothing,
    /// Something, for longer than usual.
    Something,
    /// The queue does not say.
    Unknown,
}

impl Waiting {
    /// In the queue's Redis.
    pub fn new(queue: &Redis) -> Result<Self, runtime::stores::Error> {
        Ok(Self { connection: queue.connection()?, oldest: Arc::default(), held: Arc::default() })
    }

    /// What waits of a tenant's. Its bytes are counted; its own oldest entry is not known without reading entries, so
    /// the oldest of its lane stands for it.
    pub(super) async fn of(&self, tenant: &Tenant, now: Micros) -> Waits {
        match tokio::time::timeout(PATIENCE, self.look(tenant)).await {
            Ok(Ok(added)) if added.is_some_and(|added| added < now - GRACE) => Waits::Something,
            Ok(Ok(_)) => Waits::Nothing,
            Ok(Err(error)) => {
                tracing::debug!(tenant.name = %tenant.name(), error = %chain(&error), "the queue does not say what waits");
                Waits::Unknown
            }
            Err(_) => Waits::Unknown,
        }
    }

    /// When the oldest was added that may be the tenant's.
    async fn look(&self, tenant: &Tenant) -> redis::RedisResult<Option<Micros>> {
        let (lane, mut connection) = (tenant.lane(), self.connection.clone());
        if waits_for(&self.held().await?, tenant, &mut connection).await? {
            return Ok(Some(0));
        }
        if !has_bytes(&lane, tenant, &mut connection).await? {
            return Ok(None);
        }
        if let Some(known) = self.known(&lane) {
            return Ok(Some(known));
        }
        let Some(oldest) = handed_out(&lane, &mut connection).await? else {
            // A processor takes what comes within milliseconds. What nobody takes meanwhile waits, nobody knows how long.
            tokio::time::sleep(A_MOMENT).await;
            let still = has_bytes(&lane, tenant, &mut connection).await?;
            return Ok(match handed_out(&lane, &mut connection).await? {
                None if still => Some(0),
                known => known,
            });
        };
        let mut known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(lane, (Instant::now(), oldest));
        Ok(Some(oldest))
    }

    async fn held(&self) -> redis::RedisResult<BTreeSet<PipelineName>> {
        let known = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, held)) = known
            && at.elapsed() < HOLDS
        {
            return Ok(held);
        }
        let held = held_pipelines(&self.connection).await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), held.clone()));
        Ok(held)
    }

    fn known(&self, lane: &Lane) -> Option<Micros> {
        let known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(lane).filter(|(at, _)| at.elapsed() < HOLDS).map(|(_, oldest)| *oldest)
    }
}
