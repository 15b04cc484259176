//! Quotas: whether a tenant may send this much now. A token bucket for bytes and one for events, both
//! in the queue's Redis, shared by all replicas of ingest.
//!
//! ```text
//!  request ─► share (in memory) ─ enough? ──────────────────────────────► taken
//!                │ no                                                       ▲
//!                ├─ Redis can't have enough either, as last seen ─► 429     │
//!                └─ lease: one script for what is missing and some more ────┘
//! ```
//! A replica leases half a second of the rate at a time, so most requests cost no round-trip, and an
//! idle replica keeps at most that much from the others. A body that is larger than the whole burst
//! passes when the bucket is full and is paid back afterwards: nothing is refused for ever, and the
//! average holds. While the script fails, each replica goes on alone at its part of the rate.

mod lease;
mod share;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crds::TenantName;
use crds::registry::IngestQuotas;
use runtime::stores::{self, Redis};
use tokio_util::sync::CancellationToken;

use crate::tenancy::Tenant;
use lease::Leases;
pub(super) use share::Cost;
pub use share::{Dimension, Exceeded, Fields};
use share::{Share, Taken};

/// Tenants whose shares are kept in memory; more begin anew, which costs a lease each.
const SHARES: usize = 20_000;

/// The quotas of all tenants. Cheap to clone.
#[derive(Clone)]
pub(super) struct Quotas {
    leases: Leases,
    shares: Arc<Mutex<HashMap<TenantName, Arc<Account>>>>,
}

/// One tenant's share, and who is at it.
struct Account {
    share: Mutex<Share>,
    /// One lease at a time: whoever waits meanwhile finds more afterwards.
    leasing: tokio::sync::Mutex<()>,
}

impl Quotas {
    /// Quotas in this Redis; counts the replicas until `stop`.
    pub(super) fn new(redis: &Redis, stop: CancellationToken) -> Result<Self, stores::Error> {
        Ok(Self { leases: Leases::new(redis, stop)?, shares: Arc::default() })
    }

    /// Refuses before anything is read if not even `least` can be had, as far as is known here.
    pub(super) fn foresee(&self, tenant: &Tenant, least: Cost) -> Result<(), Exceeded> {
        match self.account(tenant) {
            Some(account) => account.lock().foresee(least, Instant::now()),
            None => Ok(()),
        }
    }

    /// Refuses a packed body before it is unpacked, if one like it was unpacked in vain a moment ago.
    pub(super) fn foresee_packed(&self, tenant: &Tenant, length: usize) -> Result<(), Exceeded> {
        match self.account(tenant) {
            Some(account) => account.lock().foresee_packed(length as u64, Instant::now()),
            None => Ok(()),
        }
    }

    /// Notes that a packed body was unpacked, and then refused for its quota.
    pub(super) fn unpacked_in_vain(&self, tenant: &Tenant, length: usize, exceeded: &Exceeded) {
        if let Some(account) = self.account(tenant) {
            account.lock().unpacked_in_vain(length as u64, exceeded, Instant::now());
        }
    }

    /// Takes the cost of a request, or says when it can be had.
    pub(super) async fn take(&self, tenant: &Tenant, cost: Cost) -> Result<(), Exceeded> {
        let Some(account) = self.account(tenant) else { return Ok(()) };
        if let Some(done) = account.try_take(cost) {
            return done;
        }
        let _one_at_a_time = account.leasing.lock().await;
        if let Some(done) = account.try_take(cost) {
            return done;
        }
        let ask = account.lock().ask(cost);
        match self.leases.lease(tenant.name(), &ask).await {
            Some(answer) => account.lock().answered(cost, answer, Instant::now()),
            None => account.lock().alone(cost, self.leases.replicas(), Instant::now()),
        }
    }

    /// Counts what was done for a tenant already: what it may send next waits until that is made up for.
    pub(super) fn charge(&self, tenant: &Tenant, cost: Cost) {
        if let Some(account) = self.account(tenant) {
            account.lock().charge(cost);
        }
    }

    /// Gives back what was taken for a request that was then refused for another reason.
    pub(super) fn give_back(&self, tenant: &Tenant, cost: Cost) {
        if let Some(account) = self.account(tenant) {
            account.lock().give_back(cost);
        }
    }

    /// What the tenant may still send; `None` if nothing is limited.
    pub(super) fn fields(&self, tenant: &Tenant) -> Option<Fields> {
        Some(self.account(tenant)?.lock().fields(Instant::now()))
    }

    /// The tenant's account; `None` if nothing is limited.
    fn account(&self, tenant: &Tenant) -> Option<Arc<Account>> {
        let quotas = tenant.registered().quotas;
        if quotas.is_unlimited() {
            return None;
        }
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = shares.get(tenant.name())
            && account.lock().quotas() == quotas
        {
            return Some(Arc::clone(account));
        }
        if shares.len() >= SHARES {
            shares.clear();
        }
        let account = Arc::new(Account::new(quotas));
        shares.insert(tenant.name().clone(), Arc::clone(&account));
        Some(account)
    }
}

impl Account {
    fn new(quotas: IngestQuotas) -> Self {
        Self { share: Mutex::new(Share::new(quotas)), leasing: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Share> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, if it is known without Redis.
    fn try_take(&self, cost: Cost) -> Option<Result<(), Exceeded>> {
        match self.lock().take(cost, Instant::now()) {
            Taken::Enough => Some(Ok(())),
            Taken::Refused(exceeded) => Some(Err(exceeded)),
            Taken::LeaseNeeded => None,
        }
    }
}
