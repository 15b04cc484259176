//! Reads the queue and hands flushes out, within bounds of memory, until it is to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::logging::chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::DRAIN_TIME;
use super::flush::Flusher;
use super::plan::{Limits, Readable, flushes};
use crate::queue::entry::{Entry, Undecodable, VERSION};
use crate::queue::{Consumer, ConsumerSettings, Delivery, EntryRef, Lanes};
use crate::tenancy::Registry;

/// What one permit of memory stands for: a semaphore counts no further than some billions.
pub(super) const MEMORY_UNIT: usize = 1024;
/// Pause after a read that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Deliveries after which a tenant that the registry does not know is taken for gone. They lie
/// apart by the time after which entries are claimed, so this outlasts a registry that is behind.
const UNKNOWN_TENANT_DELIVERIES: u64 = 3;

/// Reads a pipeline's lanes.
pub(super) struct Reader {
    pub(super) consumer: Consumer,
    pub(super) lanes: Lanes,
    pub(super) registry: Registry,
    pub(super) flusher: Arc<Flusher>,
    pub(super) settings: ConsumerSettings,
    pub(super) limits: Limits,
    /// Bounds what is held of raw lines.
    pub(super) memory: Arc<Semaphore>,
}

/// The entries that are in work, by lane and id.
#[derive(Clone, Default)]
struct InWork {
    entries: Arc<Mutex<HashMap<(String, String), EntryRef>>>,
}

impl Reader {
    /// Reads until `stop`, then waits for what is in work, and leaves the group.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.registry.loaded() => {}
            () = stop.cancelled() => return,
        }
        let in_work = InWork::default();
        let tasks = TaskTracker::new();
        let holding = CancellationToken::new();
        let holder = tokio::spawn(hold(self.lanes.clone(), self.settings.clone(), in_work.clone(), holding.clone()));
        while !stop.is_cancelled() {
            // A read is never dropped half way: it ends by itself within about a second.
            match self.consumer.read().await {
                Ok(read) => self.hand_out(read, &in_work, &tasks, &stop).await,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "can't read the queue");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        tasks.close();
        if tokio::time::timeout(DRAIN_TIME, tasks.wait()).await.is_err() {
            tracing::warn!(flushes = tasks.len(), "leave flushes to other processors");
            self.flusher.abandon.cancel();
            tasks.wait().await;
        }
        holding.cancel();
        if let Err(error) = holder.await {
            tracing::error!(%error, "hold entries");
        }
        if let Err(error) = self.consumer.leave().await {
            tracing::warn!(error = chain(&error), "leave the group of processors");
        }
    }

    async fn hand_out(&self, read: Vec<Delivery>, in_work: &InWork, tasks: &TaskTracker, stop: &CancellationToken) {
        let mut readable = Vec::new();
        for delivery in read {
            // After a time without Redis we may claim what we still work on ourselves.
            if !in_work.begin(&delivery.entry) {
                continue;
            }
            match delivery.content {
                Ok(content) => match self.registry.tenant(&content.tenant) {
                    Some(tenant) => readable.push(Readable {
                        entry: delivery.entry,
                        deliveries: delivery.deliveries,
                        tenant,
                        content,
                    }),
                    None if delivery.deliveries < UNKNOWN_TENANT_DELIVERIES => {
                        tracing::warn!(tenant.name = %content.tenant, "no tenant {}: its entry waits", content.tenant);
                        in_work.end(&[delivery.entry]);
                    }
                    None => self.keep(delivery.entry, unknown_tenant(content), in_work, tasks),
                },
                Err(undecodable) => self.keep(delivery.entry, undecodable, in_work, tasks),
            }
        }
        for flush in flushes(readable, self.limits) {
            let entries: Vec<EntryRef> = flush.entries.iter().map(|readable| readable.entry.clone()).collect();
            let Some(memory) = self.memory_for(flush.raw_bytes, stop).await else {
                // Not begun: another processor takes it at once when our name leaves the group.
                in_work.end(&entries);
                continue;
            };
            let (flusher, in_work) = (Arc::clone(&self.flusher), in_work.clone());
            tasks.spawn(async move {
                flusher.run(flush).await;
                in_work.end(&entries);
                drop(memory);
            });
        }
    }

    fn keep(&self, entry: EntryRef, content: Undecodable, in_work: &InWork, tasks: &TaskTracker) {
        let tenant = content.tenant.as_ref().and_then(|name| self.registry.tenant(name));
        let (flusher, in_work) = (Arc::clone(&self.flusher), in_work.clone());
        tasks.spawn(async move {
            flusher.keep(entry.clone(), content, tenant).await;
            in_work.end(&[entry]);
        });
    }

    /// Waits for room; `None` if it is to stop meanwhile.
    async fn memory_for(&self, raw_bytes: usize, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(raw_bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
        // One entry is smaller than the whole, so a flush of one always fits; more are cut before.
        let units = units.min(u32::try_from(super::MEMORY_BYTES / MEMORY_UNIT).unwrap_or(u32::MAX));
        tokio::select! {
            permit = Arc::clone(&self.memory).acquire_many_owned(units) => permit.ok(),
            () = stop.cancelled() => None,
        }
    }
}

impl InWork {
    /// Notes the entry; `false` if it is in work already.
    fn begin(&self, entry: &EntryRef) -> bool {
        self.lock().insert((entry.lane.stream(), entry.id.clone()), entry.clone()).is_none()
    }

    fn end(&self, entries: &[EntryRef]) {
        let mut in_work = self.lock();
        for entry in entries {
            in_work.remove(&(entry.lane.stream(), entry.id.clone()));
        }
    }

    fn all(&self) -> Vec<EntryRef> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), EntryRef>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says again and again that what is in work is not left behind.
async fn hold(lanes: Lanes, settings: ConsumerSettings, in_work: InWork, stop: CancellationToken) {
    // Two signs of life may be lost before somebody claims.
    let every = settings.claim_idle / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return,
        }
        let entries = in_work.all();
        match lanes.hold(&settings.consumer, &entries).await {
            Ok(held) if held < entries.len() as u64 => {
                tracing::debug!(held, entries = entries.len(), "some entries were done or claimed meanwhile");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = chain(&error), "can't hold {} entries", entries.len()),
        }
    }
}

/// An entry of nobody, in the form in which it lay in the queue.
fn unknown_tenant(content: Entry) -> Undecodable {
    let header = postcard::to_stdvec(&content.header).unwrap_or_default();
    let fields = [
        ("v", VERSION.to_string().into_bytes()),
        ("t", content.tenant.to_string().into_bytes()),
        ("h", header),
        ("p", content.frame),
    ];
    let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value)).to_vec();
    Undecodable { reason: "no such tenant", tenant: None, fields }
}
