//! Takes turns: of what waits, the next is another tenant's, however much each has waiting.

use std::collections::{HashMap, VecDeque};

use crds::TenantName;

/// What waits, in the order in which its tenants have their turns.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    waiting: HashMap<TenantName, VecDeque<T>>,
    /// Every tenant that has something waiting, once; the next one first.
    turns: VecDeque<TenantName>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<T> Turns<T> {
    /// Adds behind what the tenant has waiting already.
    pub(crate) fn push(&mut self, tenant: &TenantName, item: T) {
        self.queue(tenant).push_back(item);
    }

    /// Adds before what the tenant has waiting already; its turn stays.
    pub(crate) fn push_front(&mut self, tenant: &TenantName, item: T) {
        self.queue(tenant).push_front(item);
    }

    /// The first of the tenant whose turn it is, which then waits for all others.
    pub(crate) fn next(&mut self) -> Option<(TenantName, T)> {
        let tenant = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&tenant)?;
        let item = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.turns.push_back(tenant.clone());
        }
        Some((tenant, item))
    }

    /// What [`next`](Self::next) would give.
    pub(crate) fn peek(&self) -> Option<&T> {
        self.waiting.get(self.turns.front()?)?.front()
    }

    /// Tenants that have something waiting.
    pub(crate) fn tenants(&self) -> usize {
        self.turns.len()
    }

    /// How much waits.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn queue(&mut self, tenant: &TenantName) -> &mut VecDeque<T> {
        if !self.waiting.contains_key(tenant) {
            self.turns.push_back(tenant.clone());
        }
        self.waiting.entry(tenant.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[test]
    fn each_tenant_has_its_turn_and_its_own_order() {
        for (waiting, expected) in [
            ("", ""),
            ("a1 a2 a3", "a1 a2 a3"),
            ("a1 a2 a3 b1", "a1 b1 a2 a3"),
            ("a1 a2 a3 a4 b1 b2 c1", "a1 b1 c1 a2 b2 a3 a4"),
            ("b1 a1 b2 a2", "b1 a1 b2 a2"),
        ] {
            let mut queue = Turns::default();
            for item in waiting.split_whitespace() {
                queue.push(&name(&item[..1]), item);
            }
            let turns: Vec<&str> = std::iter::from_fn(|| queue.next()).map(|(_, item)| item).collect();
            assert_eq!(turns.join(" "), expected, "{waiting}");
            assert_eq!(queue.tenants(), 0);
        }
    }

    #[test]
    fn who_comes_late_does_not_wait_for_all_of_another() {
        let mut queue = Turns::default();
        (0..100).for_each(|n| queue.push(&name("a"), n));
        assert_eq!(queue.next(), Some((name("a"), 0)));
        queue.push(&name("b"), 1000);
        assert_eq!(queue.next(), Some((name("a"), 1)));
        assert_eq!(queue.next(), Some((name("b"), 1000)));
        queue.push_front(&name("a"), 1);
        assert_eq!(queue.next(), Some((name("a"), 1)));
    }
}
