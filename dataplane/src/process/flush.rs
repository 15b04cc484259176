//! One flush from its lines to its acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::logging::chain;
use runtime::traces;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use super::marks::Marks;
use super::measures::Measures;
use super::plan::{Flush, Readable};
use super::redelivered::leave_out_dead_letters;
use super::staged::staged;
use super::tail::Tail;
use crate::cache::{Cache, Fate};
use crate::event::Micros;
use crate::fail_points::{Point, reach};
use crate::fair::workers::Workers;
use crate::queue::Suspects;
use crate::queue::entry::{Entry, Undecodable};
use crate::queue::{EntryRef, Lanes};
use crate::stores::batch::{Batch, Frame, Treatment, map};
use crate::stores::catalog::{Catalog, Error, Kind, Provenance, Reason, Stored};
use crate::stores::index::{self, Ask, Index, IndexHealth, UnusableIndices};
use crate::tenancy::Tenant;

/// How long an outage of the index holds up acknowledging. What comes in meanwhile stays in Redis:
/// 100,000 events a second for this long are some 33 MiB there. What is stored without being indexed
/// costs disk only.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// First pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause: a store that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a probe, which costs an idle server a millisecond.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts at something that is wrong with one tenant only, before its entries go back for later
/// so that they hold up nobody else: about six seconds.
const ATTEMPTS_FOR_ONE: u32 = 5;

/// Everything that a flush needs; one for the process.
pub(super) struct Flusher {
    pub(super) catalog: Catalog,
    pub(super) index: Index,
    pub(super) index_health: IndexHealth,
    pub(super) unusable: UnusableIndices,
    pub(super) marks: Marks,
    pub(super) tail: Tail,
    pub(super) cache: Cache,
    pub(super) suspects: Suspects,
    pub(super) lanes: Lanes,
    pub(super) from: Provenance,
    /// The pipeline's stages, if it has any.
    pub(super) stages: Option<Arc<stages::Pipeline>>,
    /// Steps of flushes that run at once. A flush that pauses gives its place to others.
    pub(super) workers: Workers,
    /// Cancelled when the time to finish is over: what is not stored stays in the queue.
    pub(super) abandon: CancellationToken,
    pub(super) measures: Measures,
}

/// The entry goes back: it is claimed again later, by this processor or another.
struct PutBack;

impl Flusher {
    /// Waits until neither steps nor documents wait for their turn. What is read only then comes in larger
    /// flushes.
    pub(super) async fn caught_up(&self) {
        self.workers.caught_up().await;
        self.index.caught_up().await;
    }

    /// Stores, shows, indexes and acknowledges. Entries that were not acknowledged stay pending.
    pub(super) async fn run(self: Arc<Self>, flush: Flush) {
        let started = Instant::now();
        let span = tracing::info_span!(
            target: traces::TARGET,
            "flush",
            otel.kind = "consumer",
            otel.status_code = tracing::field::Empty,
            tenant.name = flush.tenant.name().as_str(),
            pipeline.name = self.from.pipeline.as_str(),
            entries = flush.entries.len(),
        );
        if self.try_run(flush).instrument(span.clone()).await.is_ok() {
            self.measures.flush_seconds.observe(started.elapsed().as_secs_f64());
        } else {
            span.record("otel.status_code", "ERROR");
        }
    }

    async fn try_run(&self, flush: Flush) -> Result<(), PutBack> {
        let Flush { tenant, entries, suspect, .. } = flush;
        let refs: Vec<EntryRef> = entries.iter().map(|readable| readable.entry.clone()).collect();
        reach(Point::ProcessRead);
        let mut frames = if suspect {
            self.map_alone(&tenant, entries).await?
        } else {
            self.map(&tenant, entries, Treatment::Process).await?
        };
        reach(Point::ProcessMapped);
        let stored = self.store(&tenant, &mut frames, suspect).await?;
        reach(Point::ProcessStored);
        self.count(&frames, &stored);
        let new: Vec<&Batch> =
            batches(&frames).filter(|b| stored.batches.get(&b.batch_id).is_some_and(|s| s.new)).collect();
        self.tail.publish(&tenant, &new).await;
        self.cache.tell_fates(&tenant, &fates(&frames, &stored)).await;
        self.index(&tenant, &mut frames, &stored).await;
        reach(Point::ProcessMarked);
        self.acknowledge(&refs).await?;
        reach(Point::ProcessAcknowledged);
        if suspect {
            self.unmark(&refs).await;
        }
        Ok(())
    }

    /// Maps the lines, off the threads that serve everything else.
    async fn map(&self, tenant: &Tenant, entries: Vec<Readable>, treatment: Treatment) -> Result<Vec<Frame>, PutBack> {
        let _place = self.workers.place(tenant.name()).await;
        let stages = self.stages.clone().filter(|_| treatment == Treatment::Process);
        let mapped = tokio::task::spawn_blocking(move || {
            let frame = |readable: Readable| {
                let content = match &stages {
                    Some(pipeline) => staged(pipeline, readable.content)?,
                    None => readable.content,
                };
                Ok::<_, anyhow::Error>(frame(content, treatment)?)
            };
            entries.into_iter().map(frame).collect::<Result<Vec<_>, _>>()
        });
        match mapped.await {
            Ok(Ok(frames)) => Ok(frames),
            Ok(Err(error)) => {
                tracing::error!(error = chain(&*error), "encode an entry");
                Err(PutBack)
            }
            Err(error) => {
                tracing::error!(%error, "map the lines of an entry");
                Err(PutBack)
            }
        }
    }

    /// Maps an entry that was delivered too often, alone and under a mark. If the mark was there
    /// already, it killed its processor: its lines become dead letters and none is looked at. Where the
    /// stages redact, what they did not look at may not be stored: it goes to the queue's quarantine.
    async fn map_alone(&self, tenant: &Tenant, entries: Vec<Readable>) -> Result<Vec<Frame>, PutBack> {
        let _alone = self.suspects.alone().await;
        let refs: Vec<EntryRef> = entries.iter().map(|readable| readable.entry.clone()).collect();
        let mut treatment = Treatment::Process;
        for (entry, deliveries) in refs.iter().zip(entries.iter().map(|readable| readable.deliveries)) {
            let unmarked = self.suspects.mark(entry).await.map_err(|error| {
                tracing::warn!(error = chain(&error), "mark an entry that was delivered too often");
                PutBack
            })?;
            if !unmarked {
                tracing::error!(entry.id, deliveries, "entry {} killed its processor: dead-lettered", entry.id);
                treatment = Treatment::DeadLetter;
            }
        }
        if treatment == Treatment::DeadLetter && self.redacts() {
            for Readable { entry, content, .. } in entries {
                let content = content.into_undecodable("processors died while they worked on it");
                self.quarantine(entry, content).await?;
            }
            self.unmark(&refs).await;
            return Ok(Vec::new());
        }
        let frames = self.map(tenant, entries, treatment).await?;
        if treatment == Treatment::Process {
            self.unmark(&refs).await;
        }
        Ok(frames)
    }

    /// Whether nothing may be stored that the stages did not see.
    fn redacts(&self) -> bool {
        self.stages.as_ref().is_some_and(|stages| stages.redacts())
    }

    async fn quarantine(&self, entry: EntryRef, content: Undecodable) -> Result<(), PutBack> {
        let kept = self.lanes.quarantine(&entry, &content).await;
        kept.map(|_| ()).map_err(|error| {
            tracing::warn!(error = chain(&error), "quarantine entry {}", entry.id);
            PutBack
        })
    }

    async fn unmark(&self, entries: &[EntryRef]) {
        for entry in entries {
            if let Err(error) = self.suspects.unmark(entry).await {
                tracing::warn!(error = chain(&error), "unmark entry {}", entry.id);
            }
        }
    }

    /// Stores the frames, and keeps the lines of those that can never be stored, which it takes off. `alone`: there is
    /// one, and it came back too often.
    async fn store(&self, tenant: &Tenant, frames: &mut Vec<Frame>, alone: bool) -> Result<Stored, PutBack> {
        let mut attempt = 0;
        loop {
            let stored = {
                let _place = self.workers.place(tenant.name()).await;
                tokio::select! {
                    stored = self.catalog.store(tenant, frames, &self.from) => stored,
                    // It is read again, and whether this was stored is decided then.
                    () = self.abandon.cancelled() => return Err(PutBack),
                }
            };
            let error = match stored {
                Ok(stored) => return Ok(stored),
                Err(error) => error,
            };
            match self.keep_unstorable(tenant, frames, &error, alone && attempt + 1 >= ATTEMPTS_FOR_ONE).await {
                Ok(true) if frames.is_empty() => return Ok(Stored::default()),
                Ok(true) => {}
                Ok(false) => self.after_failure(tenant, &error, attempt).await?,
                Err(error) => self.after_failure(tenant, &error, attempt).await?,
            }
            attempt += 1;
        }
    }

    /// Keeps the lines of frames that can never be stored as dead letters and takes these frames off; whether there were
    /// any. Such are those that were accepted at a time of which the tenant keeps nothing, and, at the `last` attempt, one
    /// that PostgreSQL refuses for another reason than a row of its events.
    async fn keep_unstorable(
        &self,
        tenant: &Tenant,
        frames: &mut Vec<Frame>,
        error: &Error,
        last: bool,
    ) -> Result<bool, Error> {
        let (unstorable, reason): (Vec<Frame>, Reason) = if error.is_without_partition() {
            let moments: Vec<Micros> = batches(frames).map(|batch| batch.accepted_at).collect();
            let out_of_time = self.catalog.out_of_time(tenant, &moments).await?;
            let is_out = |frame: &mut Frame| frame.batches.iter().any(|batch| out_of_time.contains(&batch.accepted_at));
            let days = tenant.registered().total_days;
            let error = format!("accepted more than {days} days ago, or more than a day ahead, by PostgreSQL's clock");
            (frames.extract_if(.., is_out).collect(), Reason { code: "out_of_time", error })
        } else if last && error.kind() == Kind::Refused {
            (std::mem::take(frames), Reason { code: "refused", error: chain(error) })
        } else {
            return Ok(false);
        };
        if unstorable.is_empty() {
            return Ok(false);
        }
        match self.catalog.keep_lines(tenant, &unstorable, &reason, &self.from).await {
            Ok(lines) => {
                let name = tenant.name();
                self.measures.dead_letters.inc_by(lines);
                tracing::error!(tenant.name = %name, code = reason.code, lines, "dead-lettered entries of {name}: {}", reason.error);
                Ok(true)
            }
            Err(error) => {
                frames.extend(unstorable);
                Err(error)
            }
        }
    }

    /// Waits until the catalog is worth another attempt, or gives the entries back.
    async fn after_failure(&self, tenant: &Tenant, error: &Error, attempt: u32) -> Result<(), PutBack> {
        self.measures.retries.inc();
        if attempt.is_multiple_of(10) {
            tracing::warn!(tenant.name = %tenant.name(), error = chain(error), attempt, "can't store events of {}", tenant.name());
        }
        match error.kind() {
            Kind::Locked => match self.catalog.end_stalled_sessions().await {
                Ok(0) => {}
                Ok(ended) => tracing::warn!(ended, "ended sessions of processors that no longer talk"),
                Err(error) => tracing::warn!(error = chain(&error), "look for sessions that hold rows"),
            },
            Kind::Refused | Kind::NotProvisioned if attempt + 1 >= ATTEMPTS_FOR_ONE => {
                tracing::error!(tenant.name = %tenant.name(), error = chain(error), "put back entries of {}", tenant.name());
                return Err(PutBack);
            }
            Kind::Refused | Kind::NotProvisioned | Kind::Unavailable => {}
        }
        self.pause(attempt).await
    }

    async fn pause(&self, attempt: u32) -> Result<(), PutBack> {
        tokio::select! {
            () = tokio::time::sleep(pause(attempt)) => Ok(()),
            () = self.abandon.cancelled() => Err(PutBack),
        }
    }

    /// Indexes what is in the catalog and not in the index; if OpenSearch stays away, `maintain`
    /// does it later.
    async fn index(&self, tenant: &Arc<Tenant>, frames: &mut [Frame], stored: &Stored) {
        if let Err(error) = leave_out_dead_letters(&self.catalog, tenant, frames, stored).await {
            // `maintain` asks for them too.
            tracing::warn!(error = chain(&error), "can't look up dead letters of {}", tenant.name());
            self.measures.left_to_maintain.inc_by(batches(frames).count() as u64);
            return;
        }
        let wanted: Vec<(&Batch, &str)> = batches(frames)
            .filter_map(|batch| {
                let stored = stored.batches.get(&batch.batch_id)?;
                // A client's resend has other event ids than what it resends, and another generation's stages
                // may have stored other lines: maintain indexes those that are stored.
                let same = stored.accepted_at == batch.accepted_at && stored.same_stages;
                let same = same && !stored.indexed && !batch.events.is_empty();
                same.then_some((batch, stored.index_name.as_str()))
            })
            .collect();
        let now = Instant::now();
        let (left, wanted): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|(_, index)| self.unusable.contains(index, now));
        self.measures.left_to_maintain.inc_by(left.len() as u64);
        self.measures.unusable_indices.set(self.unusable.count(now));
        if wanted.is_empty() {
            return;
        }
        if !self.index_patiently(tenant, &wanted).await {
            self.measures.left_to_maintain.inc_by(wanted.len() as u64);
            return;
        }
        reach(Point::ProcessIndexed);
        let ids: Vec<Uuid> = wanted.iter().map(|(batch, _)| batch.batch_id).collect();
        self.marks.mark(tenant, ids).await;
    }

    /// Whether the index has these batches now.
    async fn index_patiently(&self, tenant: &Tenant, wanted: &[(&Batch, &str)]) -> bool {
        let begun = Instant::now();
        for attempt in 0.. {
            let sent = Instant::now();
            match self.index_health.ask(sent) {
                Ask::Now => {}
                Ask::Probe if self.index_answers().await => {}
                Ask::Probe => {
                    self.index_health.failed(sent, Instant::now());
                    return false;
                }
                Ask::Leave => return false,
            }
            let error = match self.index.create(tenant, wanted).await {
                Ok(done) => {
                    self.measures.indexed.inc_by((done.created + done.existing) as u64);
                    self.measures.index_away.set(0);
                    if self.index_health.answered() {
                        tracing::info!("the index answers again");
                    }
                    return true;
                }
                Err(error) => error,
            };
            self.measures.retries.inc();
            if error.concerns_one_index() {
                // No reason for those of other indices to wait, and none to try again.
                if let index::Error::Unusable { index, .. } = &error {
                    self.unusable.insert(index, Instant::now());
                }
                tracing::warn!(error = chain(&error), "leave events of {} to maintain", tenant.name());
                return false;
            }
            let patient = self.index_health.failed(sent, Instant::now()) && begun.elapsed() < PATIENCE;
            if attempt == 0 {
                tracing::warn!(error = chain(&error), "can't index events of {}", tenant.name());
            }
            if !patient {
                self.measures.index_away.set(1);
            }
            if !patient || self.pause(attempt).await.is_err() {
                return false;
            }
        }
        false
    }

    /// Whether the index answers at all. It is asked without a worker's place, so that a server that
    /// accepts and never answers holds up no other flush.
    async fn index_answers(&self) -> bool {
        matches!(tokio::time::timeout(PROBE_TIMEOUT, self.index.ping()).await, Ok(Ok(())))
    }

    async fn acknowledge(&self, entries: &[EntryRef]) -> Result<(), PutBack> {
        for attempt in 0.. {
            match self.lanes.acknowledge(entries).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = chain(&error), attempt, "can't acknowledge {} entries", entries.len());
                    self.pause(attempt).await?;
                }
            }
        }
        Ok(())
    }

    /// Keeps an entry that can't be read where its tenant sees it, or in quarantine. What can't be kept after some
    /// attempts stays pending, and is claimed again later.
    pub(super) async fn keep(self: Arc<Self>, entry: EntryRef, content: Undecodable, tenant: Option<Arc<Tenant>>) {
        tracing::error!(
            entry.id,
            reason = content.reason,
            "entry {} of {} can't be read",
            entry.id,
            entry.lane.stream()
        );
        self.measures.dead_letters.inc();
        // Undecodable bytes can't be redacted.
        let tenant = tenant.filter(|_| !self.redacts());
        for attempt in 0..ATTEMPTS_FOR_ONE {
            let kept = match &tenant {
                Some(tenant) => match self.catalog.keep_undecodable(tenant, &entry.id, &content, &self.from).await {
                    Ok(()) => self.acknowledge(std::slice::from_ref(&entry)).await.map_err(|_| None),
                    Err(error) => Err(Some(chain(&error))),
                },
                None => self.lanes.quarantine(&entry, &content).await.map(|_| ()).map_err(|error| Some(chain(&error))),
            };
            match kept {
                Ok(()) | Err(None) => return,
                Err(Some(error)) => tracing::warn!(error, attempt, "can't keep entry {}", entry.id),
            }
            if self.pause(attempt).await.is_err() {
                return;
            }
        }
    }

    fn count(&self, frames: &[Frame], stored: &Stored) {
        for batch in batches(frames) {
            if stored.batches.get(&batch.batch_id).is_some_and(|stored| stored.new) {
                self.measures.stored.inc_by(batch.events.len() as u64);
                self.measures.dead_letters.inc_by(batch.dead_letters.len() as u64);
                self.measures.dropped.inc_by(batch.dropped.len() as u64);
            } else {
                self.measures.repeated_batches.inc();
            }
        }
    }
}

fn batches(frames: &[Frame]) -> impl Iterator<Item = &Batch> {
    frames.iter().flat_map(|frame| &frame.batches)
}

/// What became of each batch, by the id that its client was told.
fn fates(frames: &[Frame], stored: &Stored) -> Vec<(Uuid, Micros, Fate)> {
    let fate = |batch: &Batch| {
        let in_catalog = stored.batches.get(&batch.batch_id)?;
        let fate = match batch.is_other_body() {
            true => Fate::OtherBody,
            // What is in the catalog may be an earlier request's.
            false if in_catalog.accepted_at == batch.accepted_at => Fate::Stored,
            false => Fate::Duplicate,
        };
        Some((batch.told_id(), batch.accepted_at, fate))
    };
    batches(frames).filter_map(fate).collect()
}

fn frame(entry: Entry, treatment: Treatment) -> Result<Frame, postcard::Error> {
    Ok(Frame {
        header: postcard::to_stdvec(&entry.header)?,
        raw_bytes: entry.raw.len() as u64,
        batches: map(&entry.header, &entry.raw, treatment),
        payload: entry.frame,
    })
}

fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let millis: Vec<_> = [0, 1, 2, 4, 5, 40].map(|attempt| pause(attempt).as_millis()).into();
        assert_eq!(millis, [200, 400, 800, 3200, 5000, 5000]);
    }
}
