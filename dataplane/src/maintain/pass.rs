//! Which step is taken when: passes over all tenants, a few at a time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use futures::StreamExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use runtime::logging::chain;
use runtime::metrics::Metrics;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::due::{Due, Steps, due, look};
use super::lock::{TenantLock, Work};
use super::redrive::{SETTLED, redrive};
use super::{Archived, Error, Rooms, SeriesLimits, Turn, archive, expire, maintain_all_series, partitions, roll_up};
use crate::event::{Micros, micros};
use crate::tenancy::{Registry, Tenant};

/// Least time from one pass to the next: what the archive's age is counted in.
const PASS_EVERY: Duration = Duration::from_secs(5);
/// What one tenant adds to that, if there are many. A look costs PostgreSQL about half a millisecond of CPU: so all
/// looks together cost some twentieth of a core, however many tenants there are.
const PASS_PER_TENANT: Duration = Duration::from_millis(20);
/// Tenants worked on at once: each takes two connections and one object's memory.
const TENANTS_AT_ONCE: usize = 3;
/// Longest time that one step for one tenant may take: an object of 32 MiB on a slow link, or 50 batches of dead
/// letters, take a fraction of it. What a step waits for has bounds of its own; this one is for a server that is gone
/// without a word, which must not be the end of the passes.
pub(super) const STEP: Duration = Duration::from_secs(600);
/// Most that our clock and PostgreSQL's may differ by where something is deleted: NTP keeps them within milliseconds, and
/// a question and its answer take less than a second.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// Time between two roll-ups of usage.
const USAGE_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks for what is expired or due. Partitions are made three widths ahead.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(300);

/// What runs the passes.
pub(super) struct Passes {
    pub(super) rooms: Rooms,
    pub(super) registry: Registry,
    pub(super) measures: Measures,
    pub(super) archive_max_age: Duration,
    pub(super) series: SeriesLimits,
    /// How far each tenant's ledger was counted by us since the last housekeeping.
    pub(super) rolled_up: Mutex<HashMap<TenantName, i64>>,
}

/// What `maintain` counts.
#[derive(Clone)]
pub(super) struct Measures {
    passes: Counter,
    failures: Counter,
    archived: Counter,
    late_indexed: Counter,
    redriven: Counter,
    late_events: Counter,
    clock_difference: Gauge<f64, AtomicU64>,
}

impl Measures {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let measures = Self {
            passes: Counter::default(),
            failures: Counter::default(),
            archived: Counter::default(),
            late_indexed: Counter::default(),
            redriven: Counter::default(),
            late_events: Counter::default(),
            clock_difference: Gauge::default(),
        };
        let mut registry = metrics.registry();
        for (name, help, counter) in [
            ("passes", "Passes over all tenants", &measures.passes),
            ("failures", "Steps that failed; the next pass takes them again", &measures.failures),
            ("archived_objects", "Objects put into the archive", &measures.archived),
            ("redriven_events", "Dead letters that became events when they were tried again", &measures.redriven),
            ("late_indexed_batches", "Batches indexed after they were acknowledged", &measures.late_indexed),
            ("late_indexed_events", "Events of these batches", &measures.late_events),
        ] {
            registry.register(format!("loggerhub_maintain_{name}"), help, counter.clone());
        }
        registry.register(
            "loggerhub_maintain_clock_difference_seconds",
            "Our clock less PostgreSQL's; beyond a minute nothing is deleted",
            measures.clock_difference.clone(),
        );
        drop(registry);
        measures
    }

    /// Counts a turn of late indexing.
    pub(super) fn count(&self, turn: &Turn) {
        self.late_indexed.inc_by(turn.batches);
        self.late_events.inc_by(turn.events);
    }

    /// Logs a step that failed; the next pass takes it again.
    pub(super) fn note<T>(&self, step: &str, outcome: Result<T, Error>) -> Option<T> {
        outcome
            .inspect_err(|error| {
                self.failures.inc();
                tracing::warn!(error = chain(error), "can't {step}");
            })
            .ok()
    }
}

impl Passes {
    /// Passes over all tenants until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.registry.loaded() => {}
            () = stop.cancelled() => return,
        }
        let (mut usage, mut housekeeping) = (Every::new(USAGE_EVERY), Every::new(HOUSEKEEPING_EVERY));
        loop {
            let begun = Instant::now();
            let steps = Steps { usage: usage.is_due(begun), housekeeping: housekeeping.is_due(begun) };
            let tenants = self.registry.tenants();
            let next = begun + look_every(tenants.len());
            futures::stream::iter(self.due(tenants, steps).await)
                .take_until(stop.cancelled())
                .for_each_concurrent(TENANTS_AT_ONCE, async |share| self.tenant(share, &stop).await)
                .await;
            if steps.housekeeping
                && !stop.is_cancelled()
                && let Some(moment) = self.moment().await
            {
                self.note("look after the indices", maintain_all_series(&self.rooms, self.series, moment).await);
            }
            self.measures.passes.inc();
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Who has a share in this pass, and of what.
    async fn due(&self, tenants: Vec<Arc<Tenant>>, steps: Steps) -> Vec<Share> {
        let looked = look(&self.rooms.catalog, &tenants).await.map_err(Error::from);
        // Without the catalog there is nothing to be done for anybody.
        let Some(looks) = self.note("look at the tenants", looked) else { return Vec::new() };
        let mut rolled_up = self.rolled_up.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.housekeeping {
            // Tenants come and go, and a ledger that was made anew counts from one again.
            rolled_up.clear();
        }
        let shares = tenants.into_iter().map(|tenant| {
            let look = looks.get(&tenant.name().database_schema());
            let due = due(look, steps, rolled_up.get(tenant.name()).copied(), self.archive_max_age, now());
            Share { tenant, due, last_usage: look.and_then(|look| look.last_usage) }
        });
        shares.filter(|share| !share.due.is_nothing()).collect()
    }

    /// One tenant's share of a pass, unless another `maintain` is at it.
    async fn tenant(&self, share: Share, stop: &CancellationToken) {
        let Share { tenant, due, last_usage } = share;
        let tenant = tenant.as_ref();
        let lock = match TenantLock::try_take(&self.rooms.catalog, tenant, Work::Passes).await {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                self.note::<()>("lock a tenant", Err(error.into()));
                return;
            }
        };
        if due.housekeeping
            && let Some(moment) = self.note("ask for the time", self.rooms.catalog.now().await.map_err(Error::from))
        {
            // Whatever our clock says: what is accepted now is to be stored.
            self.step("make partitions", partitions(&self.rooms, tenant, moment)).await;
        }
        if due.redrive
            && let Some((events, _)) = self.step("redrive", redrive(&self.rooms, tenant, SETTLED, now())).await
        {
            self.measures.redriven.inc_by(events);
        }
        while due.archive
            && !stop.is_cancelled()
            && let Some(Archived::Object { .. }) =
                self.step("archive", archive(&self.rooms, tenant, self.archive_max_age, now())).await
        {
            self.measures.archived.inc();
        }
        if due.usage
            && !stop.is_cancelled()
            && self.step("roll up usage", roll_up(&self.rooms, tenant)).await.is_some()
            && let Some(last_usage) = last_usage
        {
            let mut rolled_up = self.rolled_up.lock().unwrap_or_else(PoisonError::into_inner);
            rolled_up.insert(tenant.name().clone(), last_usage);
        }
        if due.housekeeping
            && !stop.is_cancelled()
            && let Some(moment) = self.moment().await
        {
            self.step("remove what is expired", expire(&self.rooms, tenant, moment)).await;
        }
        lock.release().await;
    }

    /// The moment by which something may be deleted for good: the earlier one of our clock's and PostgreSQL's. `None` if
    /// they differ by more than a minute: one of them is wrong then, and nobody knows which.
    async fn moment(&self) -> Option<Micros> {
        let theirs = self.note("ask for the time", self.rooms.catalog.now().await.map_err(Error::from))?;
        let ours = now();
        let difference = ours.saturating_sub(theirs);
        self.measures.clock_difference.set(difference as f64 / 1e6);
        let agreed = agreed(ours, theirs);
        if agreed.is_none() {
            self.measures.failures.inc();
            let seconds = difference / 1_000_000;
            tracing::error!(
                seconds,
                "our clock and PostgreSQL's differ by {seconds} s: nothing is deleted until they agree"
            );
        }
        agreed
    }

    /// Takes a step, within its bound.
    async fn step<T>(&self, step: &'static str, work: impl Future<Output = Result<T, Error>>) -> Option<T> {
        self.note(step, self.rooms.catalog.within(STEP, step, work).await)
    }

    fn note<T>(&self, step: &str, outcome: Result<T, Error>) -> Option<T> {
        self.measures.note(step, outcome)
    }
}

/// The moment up to which both clocks have come, unless they differ too much.
fn agreed(ours: Micros, theirs: Micros) -> Option<Micros> {
    let differ = u128::from(ours.abs_diff(theirs)) > CLOCKS_DIFFER.as_micros();
    (!differ).then_some(ours.min(theirs))
}

/// One tenant's share of a pass.
struct Share {
    tenant: Arc<Tenant>,
    due: Due,
    /// The newest number of its ledger when it was looked at.
    last_usage: Option<i64>,
}

/// What is due at once, and again so long after it was.
struct Every {
    time: Duration,
    next: Option<Instant>,
}

impl Every {
    fn new(time: Duration) -> Self {
        Self { time, next: None }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_none_or(|next| now >= next);
        if due {
            self.next = Some(now + self.time);
        }
        due
    }
}

/// Time from one look at so many tenants to the next.
pub(super) fn look_every(tenants: usize) -> Duration {
    PASS_EVERY.max(PASS_PER_TENANT.saturating_mul(u32::try_from(tenants).unwrap_or(u32::MAX)))
}

pub(super) fn now() -> Micros {
    micros(OffsetDateTime::now_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tenants_are_looked_at_less_often() {
        let seconds = [0, 3, 166, 1000, 10_000].map(|tenants| look_every(tenants).as_secs());
        assert_eq!(seconds, [5, 5, 5, 20, 200]);
    }

    #[test]
    fn nothing_is_deleted_by_clocks_that_differ() {
        const NOW: Micros = 1_767_323_045_000_000;
        const MINUTE: Micros = 60_000_000;
        for (ours, theirs, expected) in [
            (NOW, NOW, Some(NOW)),
            (NOW + MINUTE, NOW, Some(NOW)),
            (NOW, NOW + MINUTE, Some(NOW)),
            (NOW + MINUTE + 1, NOW, None),
            (NOW, NOW + 40 * 24 * 60 * MINUTE, None),
            (Micros::MIN, Micros::MAX, None),
        ] {
            assert_eq!(agreed(ours, theirs), expected, "{ours} beside {theirs}");
        }
    }

    #[test]
    fn what_is_due_is_due_once_in_its_time() {
        let start = Instant::now();
        let mut every = Every::new(USAGE_EVERY);
        let due = [0, 5, 59, 60, 61, 200, 201].map(|seconds| every.is_due(start + Duration::from_secs(seconds)));
        assert_eq!(due, [true, false, false, true, false, true, false]);
    }
}
