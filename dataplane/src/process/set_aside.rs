//! Entries that wait for their tenant's room: the spool's, or this process's memory. Only their place in
//! the queue is kept here. They are still ours, so nobody claims them, and nobody waits behind them.

use std::collections::{HashMap, VecDeque};

use crds::TenantName;

use super::measures::Measures;
use crate::queue::EntryRef;

/// Entries set aside at once: some 30 MB. What is more is left pending, and claimed again later.
const MOST: usize = 100_000;
/// Entries of one tenant that are taken up again at once.
const ENTRIES_AT_ONCE: usize = 256;
/// Compressed bytes of one tenant that are taken up again at once: some 10 MiB of raw lines.
const BYTES_AT_ONCE: u64 = 2 * 1024 * 1024;

/// An entry and how often it was handed out.
pub(super) type Aside = (EntryRef, u64);

/// What is set aside, each tenant's in its order.
pub(super) struct SetAside {
    tenants: HashMap<TenantName, VecDeque<Aside>>,
    entries: usize,
    measures: Measures,
}

impl SetAside {
    pub(super) fn new(measures: Measures) -> Self {
        Self { tenants: HashMap::new(), entries: 0, measures }
    }

    /// Whether something of this tenant waits: what comes later waits behind it.
    pub(super) fn holds(&self, tenant: &TenantName) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// Tenants of which something waits, and the bytes of the first entry.
    pub(super) fn tenants(&self) -> Vec<(TenantName, u64)> {
        let first =
            |(tenant, waiting): (&TenantName, &VecDeque<Aside>)| Some((tenant.clone(), waiting.front()?.0.share));
        self.tenants.iter().filter_map(first).collect()
    }

    /// Adds an entry at the end, or at the front if it was there before. Gives it back if there are too
    /// many.
    pub(super) fn push(&mut self, tenant: &TenantName, aside: Aside, front: bool) -> Result<(), EntryRef> {
        if self.entries >= MOST {
            return Err(aside.0);
        }
        let waiting = self.tenants.entry(tenant.clone()).or_default();
        if front {
            waiting.push_front(aside)
        } else {
            waiting.push_back(aside)
        }
        self.entries += 1;
        self.show();
        Ok(())
    }

    /// Takes the first entries of a tenant, as many as are worked on at once and as there is room for: one
    /// at least.
    pub(super) fn take(&mut self, tenant: &TenantName, room: u64) -> Vec<Aside> {
        let Some(waiting) = self.tenants.get_mut(tenant) else { return Vec::new() };
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < ENTRIES_AT_ONCE
            && let Some((entry, _)) = waiting.front()
            && (taken.is_empty() || bytes + entry.share <= BYTES_AT_ONCE.min(room))
        {
            bytes += entry.share;
            taken.extend(waiting.pop_front());
        }
        if waiting.is_empty() {
            self.tenants.remove(tenant);
        }
        self.entries -= taken.len();
        self.show();
        taken
    }

    fn show(&self) {
        self.measures.set_aside.set(i64::try_from(self.entries).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn entry(tenant: &TenantName, id: usize, bytes: u64) -> Aside {
        let lane = Arc::new(crds::PipelineName::default_pipeline().lane(tenant));
        (EntryRef { lane, id: format!("{id}-0"), events: 1, bytes, tenant: tenant.to_string(), share: bytes }, 1)
    }

    #[test]
    fn entries_come_back_in_order_and_in_portions() {
        let mut aside = SetAside::new(Measures::register(&runtime::metrics::Metrics::default()));
        let tenant: TenantName = "acme".parse().unwrap();
        for id in 0..3 {
            aside.push(&tenant, entry(&tenant, id, BYTES_AT_ONCE / 2), false).unwrap();
        }
        let ids = |taken: &[Aside]| taken.iter().map(|(entry, _)| entry.id.clone()).collect::<Vec<_>>();
        let mut taken = aside.take(&tenant, u64::MAX);
        assert_eq!(ids(&taken), ["0-0", "1-0"]);
        // They found no room after all.
        while let Some(back) = taken.pop() {
            aside.push(&tenant, back, true).unwrap();
        }
        assert_eq!(ids(&aside.take(&tenant, u64::MAX)), ["0-0", "1-0"]);
        assert!(aside.holds(&tenant));
        assert_eq!(ids(&aside.take(&tenant, u64::MAX)), ["2-0"]);
        assert!(!aside.holds(&tenant) && aside.take(&tenant, u64::MAX).is_empty());
        assert_eq!(aside.entries, 0);
    }
}
