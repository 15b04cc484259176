//! The live tails of this process: one reader of Redis for each tenant that somebody watches, and
//! its sockets behind it.
//!
//! The reader holds a lease, for which alone the processors publish. What it reads goes to every
//! socket through a short ring: a socket that falls behind loses entries and is told how many
//! events, and never holds up the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::TenantName;
use runtime::stores::Redis;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use uuid::Uuid;

use super::frames::TailEvent;
use super::recent::Recent;
use super::tail_reader::TailReader;

/// Sockets of one tenant: a team's screens. Each costs a copy of every event that it shows.
const SOCKETS_PER_TENANT: usize = 100;
/// Sockets of this process: at some 50 KB each, 100 MB.
const SOCKETS: usize = 2_000;
/// Ids remembered of each tail: several flushes, 400 KB.
const REMEMBERED: usize = 8_192;
/// Entries that a slow socket may be behind. An entry is one flush of a processor, at most a few
/// megabytes, and is shared by all sockets.
const RING: usize = 16;

/// The events of one flush.
#[derive(Debug, Clone)]
pub struct TailEntry {
    /// How many events came before it: a gap is what a socket has lost.
    pub first: u64,
    /// The events.
    pub events: Arc<[TailEvent]>,
    /// How many more the flush had than the processor publishes of one, and those before it that could
    /// not be published.
    pub left_out: u64,
}

/// Whether events can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// Redis has not answered yet.
    Starting,
    /// The lease is held and the stream is read.
    Live,
    /// Redis doesn't answer: events are passing unseen.
    Interrupted,
}

/// Why a socket can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The tenant has its share.
    #[error("the tenant watches with {SOCKETS_PER_TENANT} sockets already; close one first")]
    OfTenant,
    /// The process is full.
    #[error("this gateway serves {SOCKETS} sockets already; try again")]
    OfProcess,
}

/// Every watched tenant. Cheap to clone.
#[derive(Clone)]
pub struct Tails {
    redis: Redis,
    watched: Arc<Mutex<HashMap<TenantName, Watched>>>,
}

struct Watched {
    entries: broadcast::Sender<TailEntry>,
    source: watch::Receiver<SourceState>,
    recent: Arc<Mutex<Recent>>,
    sockets: usize,
    /// Ends the reader with the last socket.
    _reader: DropGuard,
}

/// One socket's view of its tenant's tail. Dropped with the socket.
pub struct Subscription {
    /// What is published.
    pub entries: broadcast::Receiver<TailEntry>,
    /// Whether it can be.
    pub source: watch::Receiver<SourceState>,
    recent: Arc<Mutex<Recent>>,
    tenant: TenantName,
    tails: Tails,
}

impl Tails {
    /// Over the cache's Redis. Nothing is read until somebody watches.
    pub fn new(redis: Redis) -> Self {
        Self { redis, watched: Arc::default() }
    }

    /// One more socket for a tenant; the first one starts the reader.
    pub fn watch(&self, tenant: &TenantName) -> Result<Subscription, TooMany> {
        let mut all = self.lock();
        if all.values().map(|watched| watched.sockets).sum::<usize>() >= SOCKETS {
            return Err(TooMany::OfProcess);
        }
        let watched = match all.entry(tenant.clone()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(self.start(tenant)),
        };
        if watched.sockets >= SOCKETS_PER_TENANT {
            return Err(TooMany::OfTenant);
        }
        watched.sockets += 1;
        Ok(Subscription {
            entries: watched.entries.subscribe(),
            source: watched.source.clone(),
            recent: Arc::clone(&watched.recent),
            tenant: tenant.clone(),
            tails: self.clone(),
        })
    }

    fn start(&self, tenant: &TenantName) -> Watched {
        let entries = broadcast::Sender::new(RING);
        let (state, source) = watch::channel(SourceState::Starting);
        let stop = CancellationToken::new();
        let recent = Arc::new(Mutex::new(Recent::of(REMEMBERED)));
        let reader = TailReader::new(tenant.clone(), entries.clone(), state, Arc::clone(&recent));
        let redis = self.redis.clone();
        let stopped = stop.clone();
        // Reading is cut off wherever it stands: a tail keeps nothing that could be half done.
        tokio::spawn(async move { stopped.run_until_cancelled(reader.run(&redis)).await });
        Watched { entries, source, recent, sockets: 0, _reader: stop.drop_guard() }
    }

    fn leave(&self, tenant: &TenantName) {
        let mut all = self.lock();
        if let Slot::Occupied(mut slot) = all.entry(tenant.clone()) {
            slot.get_mut().sockets -= 1;
            if slot.get().sockets == 0 {
                slot.remove();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// What was shown up to this event, and it, in order; `None` if that is not known any more.
    pub(super) fn shown_until(&self, id: Uuid) -> Option<Vec<Uuid>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).until(id)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.tails.leave(&self.tenant);
    }
}
