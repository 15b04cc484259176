//! Bytes that a process may hold for requests not yet answered, and each tenant's share of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::TenantName;

use crate::fair::share::{Shares, is_fair};

/// The process's budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<Mutex<Shares>>,
    total: usize,
}

/// The budget, or the tenant's share of it, is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes are in flight")]
pub struct Overloaded;

/// One request's part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    budget: Budget,
    tenant: Option<TenantName>,
    held: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        Self { held: Arc::default(), total }
    }

    /// Bytes claimed right now.
    pub fn in_flight(&self) -> usize {
        self.lock().all()
    }

    /// A claim of nothing yet, of no tenant's: for tools.
    pub fn claim(&self) -> Claim {
        Claim { budget: self.clone(), tenant: None, held: 0 }
    }

    /// A claim of nothing yet, on the tenant's share.
    pub fn claim_for(&self, tenant: &TenantName) -> Claim {
        Claim { budget: self.clone(), tenant: Some(tenant.clone()), held: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Takes `bytes` more, or nothing if there are not that many. Never waits: whoever can't be
    /// served now is told so while it still holds its data.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let mut held = self.budget.lock();
        let (total, all) = (self.budget.total, held.all());
        let is_fair = |tenant| is_fair(total, all, held.of(tenant), bytes);
        if bytes > total.saturating_sub(all) || !self.tenant.as_ref().is_none_or(is_fair) {
            return Err(Overloaded);
        }
        held.add(self.tenant.as_ref(), bytes);
        drop(held);
        self.held += bytes;
        Ok(())
    }

    /// All of it, to be held elsewhere; nothing is left here.
    pub fn take(&mut self) -> Self {
        let emptied = Self { budget: self.budget.clone(), tenant: self.tenant.clone(), held: 0 };
        std::mem::replace(self, emptied)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.budget.lock().remove(self.tenant.as_ref(), self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_bounded_and_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.claim();
        first.grow(60).unwrap();
        first.grow(20).unwrap();
        let mut second = budget.claim();
        assert_eq!(second.grow(21), Err(Overloaded));
        second.grow(20).unwrap();
        assert_eq!(budget.in_flight(), 100);
        drop(first);
        assert_eq!(budget.in_flight(), 20);
    }

    #[test]
    fn a_greedy_tenant_leaves_room_for_the_next_and_forgets_what_it_gave_back() {
        let budget = Budget::new(1000);
        let [greedy, other]: [TenantName; 2] = ["greedy", "other"].map(|name| name.parse().unwrap());
        let greedy: Vec<Claim> = (0..20)
            .filter_map(|_| {
                let mut claim = budget.claim_for(&greedy);
                claim.grow(100).is_ok().then_some(claim)
            })
            .collect();
        assert_eq!(greedy.len(), 5);
        budget.claim_for(&other).grow(250).unwrap();
        drop(greedy);
        assert_eq!(budget.in_flight(), 0);
        assert!(budget.lock().is_empty());
    }
}
