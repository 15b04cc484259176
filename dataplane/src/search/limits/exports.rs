//! How many exports run at once: each takes some 50 MB for as long as its client reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::TenantName;

use super::TooMany;

/// Exports of one tenant.
const OF_TENANT: usize = 2;
/// Exports of this process.
const OF_PROCESS: usize = 8;
/// When to try again, in seconds.
const RETRY_AFTER: u64 = 5;

/// Those that run. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Exports(Arc<Mutex<HashMap<TenantName, usize>>>);

/// One that runs, until it is dropped.
#[derive(Debug)]
pub struct Exporting {
    exports: Exports,
    tenant: TenantName,
}

impl Exports {
    pub(super) fn begin(&self, tenant: &TenantName) -> Result<Exporting, TooMany> {
        let mut running = self.lock();
        let own = running.get(tenant).copied().unwrap_or_default();
        if own >= OF_TENANT || running.values().sum::<usize>() >= OF_PROCESS {
            return Err(TooMany { retry_after: RETRY_AFTER });
        }
        running.insert(tenant.clone(), own + 1);
        Ok(Exporting { exports: self.clone(), tenant: tenant.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        let mut running = self.exports.lock();
        match running.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(running.remove(&self.tenant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_share_and_the_process_its_bound() {
        let exports = Exports::default();
        let tenant = |n: usize| format!("t{n}").parse::<TenantName>().unwrap();
        let mut running: Vec<_> = (0..OF_TENANT).map(|_| exports.begin(&tenant(0)).unwrap()).collect();
        assert!(exports.begin(&tenant(0)).is_err());
        running.pop();
        running.push(exports.begin(&tenant(0)).unwrap());
        running.extend((OF_TENANT..OF_PROCESS).map(|n| exports.begin(&tenant(n)).unwrap()));
        assert!(exports.begin(&tenant(99)).is_err());
        drop(running);
        assert!(exports.lock().is_empty());
    }
}
