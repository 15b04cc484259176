//! Shares of something bounded, such as bytes in memory.

use std::collections::HashMap;

use crds::TenantName;

/// What tenants hold of it now.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    all: usize,
    tenants: HashMap<TenantName, usize>,
}

impl Shares {
    /// What all hold, those of no tenant included.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// What one tenant holds.
    pub(crate) fn of(&self, tenant: &TenantName) -> usize {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// Adds what is held, by a tenant or by nobody in particular.
    pub(crate) fn add(&mut self, tenant: Option<&TenantName>, amount: usize) {
        self.all += amount;
        match tenant.and_then(|tenant| self.tenants.get_mut(tenant)) {
            Some(own) => *own += amount,
            None => drop(tenant.map(|tenant| self.tenants.insert(tenant.clone(), amount))),
        }
    }

    /// Takes off what is no longer held. A tenant that holds nothing is forgotten.
    pub(crate) fn remove(&mut self, tenant: Option<&TenantName>, amount: usize) {
        self.all = self.all.saturating_sub(amount);
        let Some(tenant) = tenant else { return };
        let left = self.of(tenant).saturating_sub(amount);
        match self.tenants.get_mut(tenant) {
            Some(own) if left > 0 => *own = left,
            _ => drop(self.tenants.remove(tenant)),
        }
    }

    /// Whether no tenant holds anything.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }
}

/// Whether a tenant that holds `own` of a `total` of which `all` is held may hold `more`: at most half of what the
/// others leave, so that one with huge or slow requests always leaves room, and a second and a third such tenant too.
pub(crate) fn is_fair(total: usize, all: usize, own: usize, more: usize) -> bool {
    let free = total.saturating_sub(all);
    own + more <= (free + own) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_holds_at_most_half_of_what_the_others_leave() {
        for (all, own, more, expected) in [
            (0, 0, 50, true),
            (0, 0, 51, false),
            (40, 40, 10, true),
            (40, 40, 11, false),
            // Another one holds 50: 50 are left, half of them is 25.
            (50, 0, 25, true),
            (50, 0, 26, false),
            (75, 25, 1, false),
            (100, 0, 0, true),
            (100, 0, 1, false),
        ] {
            assert_eq!(is_fair(100, all, own, more), expected, "{all} {own} {more}");
        }
    }

    #[test]
    fn who_holds_nothing_is_forgotten() {
        let tenant: TenantName = "acme".parse().unwrap();
        let mut shares = Shares::default();
        shares.add(Some(&tenant), 3);
        shares.add(Some(&tenant), 4);
        shares.add(None, 5);
        assert_eq!((shares.all(), shares.of(&tenant)), (12, 7));
        shares.remove(Some(&tenant), 3);
        shares.remove(None, 5);
        assert_eq!((shares.all(), shares.of(&tenant)), (4, 4));
        shares.remove(Some(&tenant), 4);
        assert!(shares.all() == 0 && shares.is_empty());
    }
}
