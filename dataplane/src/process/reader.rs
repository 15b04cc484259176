//! Reads the queue and hands flushes out, within bounds of memory, until it is to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime::logging::chain;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::DRAIN_TIME;
use super::flush::Flusher;
use super::liveness::{Life, Liveness};
use super::memory::{Fit, Hold, Memory};
use super::plan::{Flush, Limits, Readable, flushes};
use super::set_aside::SetAside;
use super::spool::Spool;
use crate::fair::turns::Turns;
use crate::queue::entry::{Entry, UNKNOWN_TENANT, Undecodable};
use crate::queue::{Consumer, ConsumerSettings, Delivery, EntryRef, Lanes};
use crate::tenancy::Registry;

/// Longest wait for workers that have more than enough to do: what the dead left behind is looked for
/// all the same.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Least time between two reads while something is in work: what comes meanwhile shares a flush, and with it
/// most of what a flush costs.
const GATHER: Duration = Duration::from_millis(25);
/// Pause after a read that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long others wait for a tenant that holds its share of memory, before what it has more is set
/// aside: a flush takes some tenths of a second, so one that goes on is not interrupted.
const PATIENCE: Duration = Duration::from_secs(1);
/// Deliveries after which a tenant that the registry does not know is taken for gone. They lie
/// apart by the time after which entries are claimed, so this outlasts a registry that is behind.
const UNKNOWN_TENANT_DELIVERIES: u64 = 3;

/// Entries that can't be read and are kept at once. Each is in memory as a whole, beside what the bound of memory counts.
pub(super) const KEPT_AT_ONCE: usize = 16;

/// Reads a pipeline's lanes.
pub(super) struct Reader {
    pub(super) consumer: Consumer,
    pub(super) lanes: Lanes,
    pub(super) registry: Registry,
    pub(super) flusher: Arc<Flusher>,
    pub(super) settings: ConsumerSettings,
    pub(super) limits: Limits,
    /// Bounds what is held of raw lines.
    pub(super) memory: Memory,
    /// Bounds what waits for the archive.
    pub(super) spool: Arc<Spool>,
    /// What waits for room of its tenant's.
    pub(super) set_aside: SetAside,
    /// Whether what is in work gets on.
    pub(super) liveness: Liveness,
    /// Places of entries that can't be read, on their way to where they are kept: see [`KEPT_AT_ONCE`].
    pub(super) keeping: Arc<Semaphore>,
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
        let holder = tokio::spawn(hold(
            self.lanes.clone(),
            self.settings.clone(),
            in_work.clone(),
            self.liveness.clone(),
            holding.clone(),
        ));
        let mut gathered = Instant::now();
        while !stop.is_cancelled() {
            if self.spool.is_shut() {
                // What would be read could not be stored, of whomever it is.
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let again = self.take_up(&in_work).await;
            let busy = !again.is_empty();
            self.hand_out(flushes(again, self.limits), true, &in_work, &tasks, &stop).await;
            tokio::time::timeout(CATCH_UP, self.flusher.caught_up()).await.ok();
            if !in_work.is_empty() {
                tokio::time::sleep_until(gathered.into()).await;
            }
            // A read is never dropped half way: it ends by itself within about a second.
            let read = if busy { self.consumer.read_at_hand().await } else { self.consumer.read().await };
            match read {
                Ok(read) => {
                    gathered = Instant::now() + GATHER;
                    let read = self.readable(read, &in_work, &tasks);
                    self.hand_out(flushes(read, self.limits), false, &in_work, &tasks, &stop).await;
                }
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

    /// What of these deliveries can be worked on; what can't is dealt with.
    fn readable(&self, read: Vec<Delivery>, in_work: &InWork, tasks: &TaskTracker) -> Vec<Readable> {
        let mut readable = Vec::new();
        for delivery in read {
            // After a time without Redis we may claim what we still work on ourselves.
            if in_work.begin(&delivery.entry) {
                readable.extend(self.sort_out(delivery, in_work, tasks));
            }
        }
        readable
    }

    fn sort_out(&self, delivery: Delivery, in_work: &InWork, tasks: &TaskTracker) -> Option<Readable> {
        let Delivery { entry, deliveries, content } = delivery;
        match content {
            Ok(content) => match self.registry.tenant(&content.tenant) {
                Some(tenant) => return Some(Readable { entry, deliveries, tenant, content }),
                None if deliveries < UNKNOWN_TENANT_DELIVERIES => {
                    tracing::warn!(tenant.name = %content.tenant, "no tenant {}: its entry waits", content.tenant);
                    in_work.end(&[entry]);
                }
                None => self.keep(entry, unknown_tenant(content), in_work, tasks),
            },
            Err(undecodable) => self.keep(entry, undecodable, in_work, tasks),
        }
        None
    }

    /// Reads again what was set aside and has room now.
    async fn take_up(&mut self, in_work: &InWork) -> Vec<Readable> {
        let mut readable = Vec::new();
        for (tenant, bytes) in self.set_aside.tenants() {
            let room = self.spool.left(&tenant);
            if !self.memory.is_idle(&tenant) || (room < bytes && !self.spool.takes_any(&tenant)) {
                continue;
            }
            let taken = self.set_aside.take(&tenant, room);
            let entries: Vec<EntryRef> = taken.iter().map(|(entry, _)| entry.clone()).collect();
            match self.lanes.read_again(taken).await {
                Ok((found, gone)) => {
                    in_work.end(&gone);
                    for Delivery { entry, deliveries, content } in found {
                        let tenant = self.registry.tenant(&tenant);
                        match (content, tenant) {
                            (Ok(content), Some(tenant)) => {
                                readable.push(Readable { entry, deliveries, tenant, content });
                            }
                            // Its tenant is gone: it is claimed again, and dealt with then.
                            _ => in_work.end(&[entry]),
                        }
                    }
                }
                Err(error) => {
                    // They are claimed again later.
                    tracing::warn!(error = chain(&error), "can't read {} entries again", entries.len());
                    in_work.end(&entries);
                }
            }
        }
        readable
    }

    /// Hands flushes out, in turns, as there is room. What its tenant has no room for is set aside; `again`
    /// if it was before.
    async fn hand_out(
        &mut self,
        mut waiting: Turns<Flush>,
        again: bool,
        in_work: &InWork,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let mut deadline = Instant::now() + PATIENCE;
        let mut aside: Vec<(Readable, bool)> = Vec::new();
        // Tenants in a row that hold their share.
        let mut over_share = 0;
        while let Some((tenant, flush)) = waiting.next() {
            if stop.is_cancelled() {
                // Not begun: another processor claims it once we have left.
                in_work.end(&entries(&flush));
                continue;
            }
            if !again && self.set_aside.holds(&tenant) {
                aside.extend(places(flush));
                continue;
            }
            match self.memory.take(&tenant, flush.raw_bytes) {
                Ok(hold) => {
                    // It goes on: whoever waits, waits for something that ends.
                    (over_share, deadline) = (0, Instant::now() + PATIENCE);
                    let mut flush = flush;
                    let admitted = self.spool.admit(&tenant, &flush.spool_sizes());
                    let suspect = flush.suspect;
                    aside.extend(flush.split_off(admitted).into_iter().map(|readable| (readable, suspect)));
                    if !flush.entries.is_empty() {
                        self.begin(flush, hold, in_work, tasks);
                    }
                }
                Err(fit) => {
                    over_share = if fit == Fit::OverShare { over_share + 1 } else { 0 };
                    if over_share > 0 && Instant::now() >= deadline {
                        aside.extend(places(flush));
                        continue;
                    }
                    // Before the tenant's other flushes; and the others have their turn first.
                    waiting.push_front(&tenant, flush);
                    if fit == Fit::Later || over_share >= waiting.tenants() {
                        tokio::select! {
                            () = self.memory.released() => {}
                            () = tokio::time::sleep_until(deadline.into()), if over_share > 0 => {}
                            () = stop.cancelled() => {}
                        }
                        over_share = 0;
                    }
                }
            }
        }
        self.set_aside(aside, again, in_work).await;
    }

    fn begin(&self, flush: Flush, hold: Hold, in_work: &InWork, tasks: &TaskTracker) {
        let entries = entries(&flush);
        let (flusher, in_work) = (Arc::clone(&self.flusher), in_work.clone());
        tasks.spawn(async move {
            flusher.run(flush).await;
            in_work.end(&entries);
            drop(hold);
        });
    }

    /// Keeps the places of these entries and forgets their bytes.
    async fn set_aside(&mut self, entries: Vec<(Readable, bool)>, again: bool, in_work: &InWork) {
        let mut forgiven = Vec::new();
        let mut set = Vec::new();
        for (Readable { entry, deliveries, tenant, .. }, suspect) in entries {
            // A suspect stays one, however long it waits.
            let deliveries = if suspect { deliveries } else { 1 };
            if !suspect && !again {
                forgiven.push(entry.clone());
            }
            set.push((tenant, (entry, deliveries)));
        }
        if again {
            set.reverse();
        }
        let mut too_many = Vec::new();
        for (tenant, aside) in set {
            too_many.extend(self.set_aside.push(tenant.name(), aside, again).err());
        }
        in_work.end(&too_many);
        if let Err(error) = self.lanes.forgive(&self.settings.consumer, &forgiven).await {
            tracing::debug!(error = chain(&error), "set {} entries aside", forgiven.len());
        }
    }

    fn keep(&self, entry: EntryRef, content: Undecodable, in_work: &InWork, tasks: &TaskTracker) {
        let Ok(place) = Arc::clone(&self.keeping).try_acquire_owned() else {
            // It stays pending, and is claimed again later.
            in_work.end(&[entry]);
            return;
        };
        let tenant = content.tenant.as_ref().and_then(|name| self.registry.tenant(name));
        let (flusher, in_work) = (Arc::clone(&self.flusher), in_work.clone());
        tasks.spawn(async move {
            flusher.keep(entry.clone(), content, tenant).await;
            in_work.end(&[entry]);
            drop(place);
        });
    }
}

/// The entries of a flush that is not begun, and whether they are suspects.
fn places(flush: Flush) -> impl Iterator<Item = (Readable, bool)> {
    let suspect = flush.suspect;
    flush.entries.into_iter().map(move |readable| (readable, suspect))
}

fn entries(flush: &Flush) -> Vec<EntryRef> {
    flush.entries.iter().map(|readable| readable.entry.clone()).collect()
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

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn all(&self) -> Vec<EntryRef> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), EntryRef>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says again and again that what is in work is not left behind.
async fn hold(lanes: Lanes, settings: ConsumerSettings, in_work: InWork, liveness: Liveness, stop: CancellationToken) {
    // Two signs of life may be lost before somebody claims.
    let every = settings.claim_idle / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return,
        }
        if let Life::Stuck(longest) = liveness.at(Instant::now()) {
            // Nobody else may claim what is held, and here it may never be stored.
            tracing::error!(seconds = longest.as_secs(), "a step does not end: others may claim what is in work here");
            continue;
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

/// An entry of nobody.
fn unknown_tenant(content: Entry) -> Undecodable {
    Undecodable { tenant: None, ..content.into_undecodable(UNKNOWN_TENANT) }
}
