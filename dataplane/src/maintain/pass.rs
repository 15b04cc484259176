//! Which step is taken when: passes over all tenants, a few at a time.
//!
//! ```text
//!  a pass:     what PostgreSQL alone does, and by a time: partitions ahead · usage · rows that are kept no longer
//!              then what the archive takes part in:       dead letters again · spool ─► archive · objects
//!  beside it:  the indices of each series
//! ```
//! Each half ends in time, whatever a store does meanwhile; who had no turn is the first of the next.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use super::expire::{expire_objects, expire_rows};
use super::redrive::{SETTLED, redrive};
use super::{Archived, Error, Rooms, SeriesLimits, Turn, archive, maintain_all_series, partitions, roll_up};
use crate::event::{Micros, micros};
use crate::stores::catalog::{TenantLock, Work};
use crate::tenancy::{Registry, Tenant};

/// Least time from one pass to the next: what the archive's age is counted in.
const PASS_EVERY: Duration = Duration::from_secs(5);
/// What one tenant adds to that, if there are many. A look costs PostgreSQL about half a millisecond of CPU: so all
/// looks together cost some twentieth of a core, however many tenants there are.
const PASS_PER_TENANT: Duration = Duration::from_millis(20);
/// Tenants worked on at once: each takes two connections and one object's memory.
const TENANTS_AT_ONCE: usize = 3;
/// Time in which one half of a pass begins with tenants: as long as the other half waits at most, and as long as the
/// longest step that is under way.
const HALF: Duration = Duration::from_secs(60);
/// Objects of one tenant in one pass: 8 MiB each where it sends much, so 128 MiB before the others have their turn.
const OBJECTS_A_PASS: usize = 16;
/// Longest time that one step for one tenant may take: an object of 32 MiB on a slow link, or 50 batches of dead
/// letters, take a fraction of it. What a step waits for has bounds of its own; this one is for a server that is gone
/// without a word, which must not be the end of the passes.
pub(super) const STEP: Duration = Duration::from_secs(180);
/// Most that our clock and PostgreSQL's may differ by where something is deleted: NTP keeps them within milliseconds, and
/// a question and its answer take less than a second.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// Time between two roll-ups of usage.
const USAGE_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks for what is expired or due. Partitions are made three widths ahead.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(300);

/// What runs the passes.
pub(super) struct Passes {
    rooms: Rooms,
    registry: Registry,
    measures: Measures,
    archive_max_age: Duration,
    series: SeriesLimits,
    waiting: Mutex<Waiting>,
    unreadable: Mutex<Unreadable>,
    /// Where each half of a pass goes on.
    turns: [Mutex<Option<TenantName>>; 2],
}

/// What is still to be done from one pass to the next.
#[derive(Default)]
struct Waiting {
    /// Tenants whose housekeeping is due and not done.
    housekeeping: HashSet<TenantName>,
    /// Tenants whose objects are to be looked at since their rows are gone.
    sweep: HashSet<TenantName>,
    /// How far each tenant's ledger was counted by us since the last housekeeping.
    rolled_up: HashMap<TenantName, i64>,
}

/// Spool rows of each tenant that are set aside because they can't be read.
type Unreadable = HashMap<TenantName, i64>;

/// What time it is in a pass.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// By PostgreSQL's clock.
    theirs: Micros,
    /// The moment by which something may be deleted for good; `None` while our clock differs from PostgreSQL's.
    agreed: Option<Micros>,
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
    unreadable: Gauge,
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
            unreadable: Gauge::default(),
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
        registry.register(
            "loggerhub_maintain_unreadable_spool_rows",
            "Spool rows that can't be read and are set aside, of all tenants",
            measures.unreadable.clone(),
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
    pub(super) fn new(
        rooms: Rooms,
        registry: Registry,
        measures: Measures,
        archive_max_age: Duration,
        series: SeriesLimits,
    ) -> Self {
        let (waiting, unreadable) = (Mutex::default(), Mutex::default());
        let turns = [Mutex::default(), Mutex::default()];
        Self { rooms, registry, measures, archive_max_age, series, waiting, unreadable, turns }
    }

    /// Passes over all tenants, and looks after the indices beside them, until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.registry.loaded() => {}
            () = stop.cancelled() => return,
        }
        // OpenSearch may take long to say nothing, which is no reason to wait with anything else.
        tokio::join!(self.pass_over_tenants(&stop), self.look_after_indices(&stop));
    }

    /// Passes over all tenants until `stop`.
    pub(super) async fn pass_over_tenants(&self, stop: &CancellationToken) {
        let (mut usage, mut housekeeping) = (Every::new(USAGE_EVERY), Every::new(HOUSEKEEPING_EVERY));
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let tenants = self.registry.tenants();
            let next = begun + look_every(tenants.len());
            let keep_house = housekeeping.is_due(begun);
            if keep_house {
                // Tenants come and go, and a ledger that was made anew counts from one again.
                *self.waiting() = Waiting {
                    housekeeping: tenants.iter().map(|tenant| tenant.name().clone()).collect(),
                    ..Waiting::default()
                };
                self.count_unreadable(|unreadable| {
                    unreadable.retain(|name, _| tenants.iter().any(|tenant| tenant.name() == name));
                });
            }
            // Without it there is nothing to be done for anybody.
            if let Some(clock) = self.clock(keep_house).await {
                let shares = self.due(tenants, usage.is_due(begun)).await;
                let part = |of: fn(Due) -> bool| shares.iter().filter(move |share| of(share.due)).cloned();
                let catalog = part(Due::in_catalog).collect();
                self.half(&self.turns[0], catalog, stop, |share| self.in_catalog(share, clock, stop)).await;
                // What was just done may have left objects behind, which have time until the next pass.
                let archive = part(Due::in_archive).collect();
                self.half(&self.turns[1], archive, stop, |share| self.in_archive(share, clock, stop)).await;
            }
            self.measures.passes.inc();
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look_after_indices(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let next = Instant::now() + HOUSEKEEPING_EVERY;
            if let Some(Clock { agreed: Some(moment), .. }) = self.clock(false).await {
                self.note("look after the indices", maintain_all_series(&self.rooms, self.series, moment).await);
            }
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Who has a share in this pass, and of what.
    async fn due(&self, tenants: Vec<Arc<Tenant>>, usage: bool) -> Vec<Share> {
        let looked = look(&self.rooms.catalog, &tenants).await.map_err(Error::from);
        // Without the catalog there is nothing to be done for anybody.
        let Some(looks) = self.note("look at the tenants", looked) else { return Vec::new() };
        let waiting = self.waiting();
        let share = |tenant: Arc<Tenant>| {
            let (look, name) = (looks.get(&tenant.name().database_schema()), tenant.name());
            let (housekeeping, sweep) = (waiting.housekeeping.contains(name), waiting.sweep.contains(name));
            let steps = Steps { usage, housekeeping, sweep };
            let due = due(look, steps, waiting.rolled_up.get(name).copied(), self.archive_max_age, now());
            Share { due, last_usage: look.and_then(|look| look.last_usage), tenant }
        };
        tenants.into_iter().map(share).collect()
    }

    /// One half of a pass: a few of these tenants at a time, as many as begin in its time.
    async fn half<W: Future<Output = ()>>(
        &self,
        turn: &Mutex<Option<TenantName>>,
        shares: Vec<Share>,
        stop: &CancellationToken,
        work: impl Fn(Share) -> W,
    ) {
        let turn = || turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shares = in_turn(shares, turn().as_ref());
        let over = async {
            tokio::select! {
                () = tokio::time::sleep(HALF) => {}
                () = stop.cancelled() => {}
            }
        };
        futures::stream::iter(shares)
            .take_until(over)
            .for_each_concurrent(TENANTS_AT_ONCE, |share| {
                *turn() = Some(share.tenant.name().clone());
                work(share)
            })
            .await;
    }

    /// One tenant's share of what PostgreSQL alone does, unless another `maintain` is at it.
    async fn in_catalog(&self, share: Share, clock: Clock, stop: &CancellationToken) {
        let Share { tenant, due, last_usage } = share;
        let tenant = tenant.as_ref();
        let Some(lock) = self.lock(tenant).await else { return };
        if due.housekeeping {
            // Whatever our clock says: what is accepted now is to be stored.
            self.step("make partitions", partitions(&self.rooms, tenant, clock.theirs)).await;
        }
        if due.usage
            && !stop.is_cancelled()
            && self.step("roll up usage", roll_up(&self.rooms, tenant)).await.is_some()
            && let Some(last_usage) = last_usage
        {
            self.waiting().rolled_up.insert(tenant.name().clone(), last_usage);
        }
        if due.housekeeping && !stop.is_cancelled() {
            let mut more = false;
            if let Some(moment) = clock.agreed {
                let expired = self.step("remove what is expired", expire_rows(&self.rooms, tenant, moment)).await;
                more = expired.is_some_and(|expired| expired.more);
                self.waiting().sweep.insert(tenant.name().clone());
            }
            let counting = async { Ok(self.rooms.catalog.unreadable_spool_rows(tenant).await?) };
            if let Some(rows) = self.step("count unreadable spool rows", counting).await {
                self.count_unreadable(|unreadable| {
                    unreadable.insert(tenant.name().clone(), rows);
                });
            }
            if !more {
                self.waiting().housekeeping.remove(tenant.name());
            }
        }
        lock.release().await;
    }

    /// One tenant's share of what the archive takes part in, unless another `maintain` is at it.
    async fn in_archive(&self, share: Share, clock: Clock, stop: &CancellationToken) {
        let Share { tenant, due, .. } = share;
        let tenant = tenant.as_ref();
        let Some(lock) = self.lock(tenant).await else { return };
        if due.redrive
            && let Some((events, _)) =
                self.step("redrive", redrive(&self.rooms, tenant, SETTLED, now().min(clock.theirs))).await
        {
            self.measures.redriven.inc_by(events);
        }
        let begun = Instant::now();
        for _ in 0..OBJECTS_A_PASS {
            if !due.archive || stop.is_cancelled() || begun.elapsed() >= HALF {
                break;
            }
            match self.step("archive", archive(&self.rooms, tenant, self.archive_max_age, now())).await {
                Some(Archived::Object { .. }) => {
                    self.measures.archived.inc();
                }
                Some(Archived::SetAside { rows }) => self.count_unreadable(|unreadable| {
                    *unreadable.entry(tenant.name().clone()).or_default() += rows as i64;
                }),
                Some(Archived::Nothing | Archived::Leftovers) | None => break,
            };
        }
        if due.sweep
            && !stop.is_cancelled()
            && let Some(moment) = clock.agreed
        {
            let swept = self.step("remove expired objects", expire_objects(&self.rooms, tenant, moment)).await;
            if !swept.is_some_and(|expired| expired.more) {
                self.waiting().sweep.remove(tenant.name());
            }
        }
        lock.release().await;
    }

    /// The tenant's lock, unless another `maintain` holds it.
    async fn lock(&self, tenant: &Tenant) -> Option<TenantLock> {
        let taken = TenantLock::try_take(&self.rooms.catalog, tenant, Work::Passes).await;
        self.note("lock a tenant", taken.map_err(Error::from)).flatten()
    }

    /// What time it is. Where our clock and PostgreSQL's differ by more than a minute, one of them is wrong, and nobody
    /// knows which: nothing may be deleted then, and `say` says so.
    async fn clock(&self, say: bool) -> Option<Clock> {
        let theirs = self.note("ask for the time", self.rooms.catalog.now().await.map_err(Error::from))?;
        let ours = now();
        let difference = ours.saturating_sub(theirs);
        self.measures.clock_difference.set(difference as f64 / 1e6);
        let agreed = agreed(ours, theirs);
        if say && agreed.is_none() {
            self.measures.failures.inc();
            let seconds = difference / 1_000_000;
            tracing::error!(
                seconds,
                "our clock and PostgreSQL's differ by {seconds} s: nothing is deleted until they agree"
            );
        }
        Some(Clock { theirs, agreed })
    }

    /// Takes in a number of unreadable rows, and shows their sum.
    fn count_unreadable(&self, change: impl FnOnce(&mut Unreadable)) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut unreadable);
        self.measures.unreadable.set(unreadable.values().sum());
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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

/// These in their order, beginning behind the one that had its turn last.
fn in_turn(mut shares: Vec<Share>, last: Option<&TenantName>) -> Vec<Share> {
    let behind = shares.partition_point(|share| last.is_some_and(|last| share.tenant.name() <= last));
    shares.rotate_left(behind);
    shares
}

/// One tenant's share of a pass.
#[derive(Clone)]
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
    use crate::stores::catalog::Look;
    use crate::stores::fixtures::tenant;

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
    fn who_had_no_turn_is_the_first_of_the_next() {
        let shares = ["a", "b", "c", "d"].map(|name| Share {
            tenant: tenant(name),
            due: due(Some(&Look::default()), Steps::default(), None, Duration::ZERO, 0),
            last_usage: None,
        });
        for (last, expected) in [(None, "abcd"), (Some("b"), "cdab"), (Some("bb"), "cdab"), (Some("d"), "abcd")] {
            let last = last.map(|name| tenant(name).name().clone());
            let shares = in_turn(shares.to_vec(), last.as_ref());
            let names: Vec<_> = shares.iter().map(|share| share.tenant.name().as_str()).collect();
            assert_eq!(names.concat(), expected, "{last:?}");
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
