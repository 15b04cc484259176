//! Bounds what is held of raw lines, in all and of one tenant.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::TenantName;
use tokio::sync::Notify;

use crate::fair::share::{Shares, is_fair};

/// The memory of one process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Memory {
    total: usize,
    held: Arc<Mutex<Shares>>,
    released: Arc<Notify>,
}

/// What a flush holds; given back when dropped.
pub(super) struct Hold {
    memory: Memory,
    tenant: TenantName,
    bytes: usize,
}

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// There is.
    Now,
    /// Not before somebody gives something back.
    Later,
    /// Not before this tenant gives something back: others shall find room.
    OverShare,
}

/// Whether a tenant that holds `own` may hold `bytes` more: its fair share; but one that holds nothing
/// may hold whatever is free, or a large entry would wait for ever.
fn fit(total: usize, all: usize, own: usize, bytes: usize) -> Fit {
    let free = total.saturating_sub(all);
    let bytes = bytes.min(total);
    match own {
        0 if bytes <= free => Fit::Now,
        0 => Fit::Later,
        _ if is_fair(total, all, own, bytes) => Fit::Now,
        _ => Fit::OverShare,
    }
}

impl Memory {
    pub(super) fn new(total: usize) -> Self {
        Self { total, held: Arc::default(), released: Arc::default() }
    }

    /// Takes room, or says what there is to wait for.
    pub(super) fn take(&self, tenant: &TenantName, bytes: usize) -> Result<Hold, Fit> {
        let mut held = self.lock();
        match fit(self.total, held.all(), held.of(tenant), bytes) {
            Fit::Now => {}
            other => return Err(other),
        }
        held.add(Some(tenant), bytes);
        Ok(Hold { memory: self.clone(), tenant: tenant.clone(), bytes })
    }

    /// Whether a tenant holds nothing, so that it can surely begin something.
    pub(super) fn is_idle(&self, tenant: &TenantName) -> bool {
        self.lock().of(tenant) == 0
    }

    /// Waits until something is given back. One that was given back since the last call counts.
    pub(super) async fn released(&self) {
        self.released.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.lock().remove(Some(&self.tenant), self.bytes);
        self.memory.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_leaves_room_for_others_and_a_large_entry_is_not_starved() {
        for (all, own, bytes, expected) in [
            (0, 0, 100, Fit::Now),
            (0, 0, 1000, Fit::Now),
            (30, 0, 80, Fit::Later),
            (30, 0, 70, Fit::Now),
            (30, 30, 20, Fit::Now),
            (30, 30, 21, Fit::OverShare),
            (100, 50, 1, Fit::OverShare),
            (50, 50, 1, Fit::OverShare),
            (100, 0, 1, Fit::Later),
        ] {
            assert_eq!(fit(100, all, own, bytes), expected, "{all} {own} {bytes}");
        }
    }

    #[tokio::test]
    async fn what_is_given_back_is_noticed_and_forgotten() {
        let memory = Memory::new(100);
        let tenant: TenantName = "acme".parse().unwrap();
        let hold = memory.take(&tenant, 40).ok().unwrap();
        assert_eq!(memory.take(&tenant, 20).err(), Some(Fit::OverShare));
        drop(hold);
        memory.released().await;
        assert!(memory.is_idle(&tenant));
    }
}
