//! Each tenant's share of reading: how many of its requests work at once, and how much time they may take from the
//! stores. Whoever wants more waits a moment and is then refused, so that no key takes the catalog from the others.

mod exports;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) use exports::Exporting;
use exports::Exports;

/// Longest wait for one's turn: a page takes some milliseconds, so this is a long queue already.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests of a tenant that wait for their turn: a dashboard opens some ten panels at once.
const WAITING: usize = 32;
/// Time of the stores that a tenant has at once: ten of the slowest queries there may be.
const BURST: Duration = Duration::from_secs(30);
/// Time that it earns each second: two slow queries at once, for ever.
const EARNED_PER_SECOND: f64 = 2.0;
/// Tenants remembered. Of those that are at rest nothing need be known, so they make room first.
const REMEMBERED: usize = 4096;

/// Why a request has to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many queries of this tenant at once, or too dear ones; send fewer at a time, or narrow them, and try again"
)]
pub struct TooMany {
    /// When to try again, in seconds.
    pub retry_after: u64,
}

/// The shares of all tenants. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    at_once: usize,
    tenants: Arc<Mutex<HashMap<TenantName, Share>>>,
    exports: Exports,
}

#[derive(Debug)]
struct Share {
    turns: Arc<Semaphore>,
    waiting: usize,
    credit: Credit,
}

/// Time that a tenant may still take from the stores, as it was at some moment. Below zero once a query took more
/// than was left: that is paid off before the next.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Credit {
    seconds: f64,
    at: Instant,
}

/// What one request takes of our own CPUs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Adds time of one CPU.
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn total(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// One request's turn. What it takes is counted when it is dropped: the time until then, or that of the CPUs where it
/// is more.
#[derive(Debug)]
pub struct Turn {
    /// What it takes of the CPUs.
    pub meter: Meter,
    limits: Limits,
    tenant: TenantName,
    begun: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Credit {
    fn whole(now: Instant) -> Self {
        Self { seconds: BURST.as_secs_f64(), at: now }
    }

    /// As it is `now`.
    fn at(self, now: Instant) -> Self {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * EARNED_PER_SECOND;
        Self { seconds: (self.seconds + earned).min(BURST.as_secs_f64()), at: now }
    }

    fn less(self, spent: Duration, now: Instant) -> Self {
        let credit = self.at(now);
        Self { seconds: credit.seconds - spent.as_secs_f64(), ..credit }
    }

    /// Fine, or how many seconds to wait.
    fn suffices(self) -> Result<(), u64> {
        if self.seconds > 0.0 { Ok(()) } else { Err((-self.seconds / EARNED_PER_SECOND).ceil().max(1.0) as u64) }
    }

    fn is_whole(self) -> bool {
        self.seconds >= BURST.as_secs_f64()
    }
}

impl Limits {
    /// For a catalog of so many connections: one tenant has half of them at most.
    pub fn new(connections: u32) -> Self {
        let at_once = usize::try_from(connections / 2).unwrap_or(1).max(1);
        Self { at_once, tenants: Arc::default(), exports: Exports::default() }
    }

    /// A turn of this tenant's, after a short wait for one.
    pub async fn turn(&self, tenant: &TenantName) -> Result<Turn, TooMany> {
        let waits = self.wait(tenant, Instant::now())?;
        let turns = Arc::clone(&waits.turns);
        let permit = tokio::time::timeout(PATIENCE, turns.acquire_owned()).await;
        drop(waits);
        match permit {
            Ok(Ok(permit)) => {
                let (limits, tenant, begun) = (self.clone(), tenant.clone(), Instant::now());
                Ok(Turn { meter: Meter::default(), limits, tenant, begun, _permit: permit })
            }
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(TooMany { retry_after: 1 }),
        }
    }

    /// A place for an export of this tenant's, until it is dropped.
    pub fn export(&self, tenant: &TenantName) -> Result<Exporting, TooMany> {
        self.exports.begin(tenant)
    }

    fn wait(&self, tenant: &TenantName, now: Instant) -> Result<Waits<'_>, TooMany> {
        let mut tenants = self.lock();
        if tenants.len() >= REMEMBERED && !tenants.contains_key(tenant) {
            tenants.retain(|_, share| !share.is_at_rest(self.at_once, now));
        }
        let share = tenants.entry(tenant.clone()).or_insert_with(|| Share {
            turns: Arc::new(Semaphore::new(self.at_once)),
            waiting: 0,
            credit: Credit::whole(now),
        });
        share.credit.at(now).suffices().map_err(|retry_after| TooMany { retry_after })?;
        if share.waiting >= WAITING {
            return Err(TooMany { retry_after: 1 });
        }
        share.waiting += 1;
        Ok(Waits { limits: self, tenant: tenant.clone(), turns: Arc::clone(&share.turns) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, Share>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    fn is_at_rest(&self, at_once: usize, now: Instant) -> bool {
        self.waiting == 0 && self.turns.available_permits() == at_once && self.credit.at(now).is_whole()
    }
}

/// A request that waits for its turn.
struct Waits<'a> {
    limits: &'a Limits,
    tenant: TenantName,
    turns: Arc<Semaphore>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(share) = self.limits.lock().get_mut(&self.tenant) {
            share.waiting -= 1;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(share) = self.limits.lock().get_mut(&self.tenant) {
            let spent = now.saturating_duration_since(self.begun).max(self.meter.total());
            share.credit = share.credit.less(spent, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[test]
    fn time_taken_is_paid_off_before_more_is_taken() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let whole = Credit::whole(start);
        assert_eq!((whole.suffices(), whole.is_whole()), (Ok(()), true));
        let spent = whole.less(BURST, at(0));
        assert_eq!(spent.suffices(), Err(1));
        assert_eq!(spent.at(at(1)).suffices(), Ok(()));
        let owing = whole.less(BURST * 2, at(0));
        assert_eq!(owing.suffices(), Err(15), "30 s owed, two earned a second");
        assert_eq!((owing.at(at(15)).suffices(), owing.at(at(16)).suffices()), (Err(1), Ok(())));
        assert!(!owing.at(at(29)).is_whole() && owing.at(at(30)).is_whole());
        assert!(owing.at(at(1000)).is_whole(), "no more than that is saved up");
    }

    #[tokio::test]
    async fn what_a_request_takes_of_several_cpus_is_counted() {
        let (limits, a) = (Limits::new(8), tenant("a"));
        let turn = limits.turn(&a).await.unwrap();
        turn.meter.clone().add(BURST);
        turn.meter.add(BURST);
        drop(turn);
        assert!(limits.turn(&a).await.is_err_and(|error| error.retry_after >= 14));
    }

    #[tokio::test]
    async fn a_tenant_has_half_of_the_connections_and_waits_for_no_other() {
        let limits = Limits::new(8);
        let (a, b) = (tenant("a"), tenant("b"));
        let mut turns = Vec::new();
        for _ in 0..4 {
            turns.push(limits.turn(&a).await.unwrap());
        }
        assert_eq!(limits.turn(&a).await.unwrap_err(), TooMany { retry_after: 1 });
        assert!(limits.turn(&b).await.is_ok(), "another tenant");
        let next = tokio::join!(limits.turn(&a), async { drop(turns.pop()) }).0;
        assert!(next.is_ok(), "whoever waits is next");
        assert_eq!(limits.lock()[&a].waiting, 0);
    }

    #[tokio::test]
    async fn more_than_a_queue_is_refused_at_once() {
        let limits = Limits::new(2);
        let a = tenant("a");
        let _turn = limits.turn(&a).await.unwrap();
        let crowd = futures::future::join_all((0..WAITING + 5).map(|_| limits.turn(&a)));
        let refused = crowd.await.into_iter().filter(Result::is_err).count();
        assert_eq!(refused, WAITING + 5);
        assert_eq!(limits.lock()[&a].waiting, 0);
    }

    #[test]
    fn tenants_at_rest_make_room_for_others() {
        let (limits, start) = (Limits::new(8), Instant::now());
        for n in 0..REMEMBERED {
            drop(limits.wait(&tenant(&format!("t{n}")), start).unwrap());
        }
        limits.lock().get_mut(&tenant("t7")).unwrap().credit.seconds = -1.0;
        drop(limits.wait(&tenant("another"), start).unwrap());
        let kept: Vec<String> = limits.lock().keys().map(ToString::to_string).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept.contains(&"t7".to_owned()), "what one owes is not forgotten");
    }
}
