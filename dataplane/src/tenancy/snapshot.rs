//! The registry at one moment, and how a newly read one takes the place of the one we hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crds::TenantName;
use crds::registry::{RegistryKey, RegistryTenant};

use super::Tenant;

/// Every tenant and every key at one epoch.
#[derive(Debug, Default, Clone)]
pub(super) struct Snapshot {
    pub(super) epoch: u64,
    pub(super) tenants: HashMap<TenantName, Arc<Tenant>>,
    pub(super) keys: HashMap<String, KnownKey>,
}

/// A key and whose it is.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    pub(super) tenant: Arc<Tenant>,
    pub(super) key: RegistryKey,
    /// The hour in which its use was noted last; see [`super::uses`].
    pub(super) noted: Arc<AtomicU64>,
}

/// What a full load is to do with what we hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Redis holds no registry: it was never projected, or it was lost. What we know stays.
    Keep,
    /// The registry as read is the truth.
    Replace,
    /// Redis lost the registry and the operator projects it anew, tenant by tenant: what is not
    /// there yet stays until that has had its time.
    Merge,
}

/// Decides by the epoch found, by whether Redis `lost` what we had seen there, or is being filled anew after that, and by
/// whether the operator has announced anything that is still there. An empty registry with an epoch is one without
/// tenants; without an epoch it is none, and so is one that was lost and that nobody has begun to fill.
pub(super) fn load(found: Option<u64>, lost: bool, rebuilding: bool, announced: bool) -> Load {
    match (found, lost, rebuilding) {
        (None, ..) => Load::Keep,
        (Some(_), true, _) if !announced => Load::Keep,
        (Some(_), true, _) | (Some(_), _, true) => Load::Merge,
        (Some(_), false, false) => Load::Replace,
    }
}

impl Snapshot {
    pub(super) fn new(epoch: u64, tenants: impl IntoIterator<Item = RegistryTenant>) -> Self {
        let mut snapshot = Self { epoch, ..Self::default() };
        for tenant in tenants {
            snapshot.put(tenant);
        }
        snapshot
    }

    /// Adds a tenant, or takes its new state in place of the old.
    pub(super) fn put(&mut self, registered: RegistryTenant) {
        self.remove(&registered.tenant.clone());
        let tenant = Arc::new(Tenant { registered });
        for key in &tenant.registered.keys {
            let (tenant, noted) = (Arc::clone(&tenant), Arc::default());
            self.keys.insert(key.id.clone(), KnownKey { tenant, key: key.clone(), noted });
        }
        self.tenants.insert(tenant.name().clone(), tenant);
    }

    /// Forgets a tenant and its keys.
    pub(super) fn remove(&mut self, name: &TenantName) {
        let Some(tenant) = self.tenants.remove(name) else { return };
        for key in &tenant.registered.keys {
            if self.keys.get(&key.id).is_some_and(|known| known.tenant.name() == name) {
                self.keys.remove(&key.id);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crds::apikey::{ApiKey, Pepper};
    use crds::names::BucketLayout;
    use crds::registry::{REGISTRY_VERSION, TenantState};
    use crds::tenant::Scope;

    pub(in crate::tenancy) fn pepper() -> Pepper {
        Pepper { id: "p1".into(), bytes: vec![7; 32] }
    }

    pub(in crate::tenancy) fn tenant(name: &str, keys: &[(&ApiKey, &[Scope])]) -> RegistryTenant {
        let tenant: TenantName = name.parse().unwrap();
        RegistryTenant {
            version: REGISTRY_VERSION,
            uid: String::new(),
            state: TenantState::Active,
            pipeline: crds::PipelineName::default_pipeline(),
            plan: "standard".into(),
            archive: tenant.archive(BucketLayout::PerTenant, "lh-"),
            index_series: crds::names::pool_series(7, 0),
            hot_days: 7,
            total_days: 30,
            quotas: Default::default(),
            keys: keys
                .iter()
                .map(|(key, scopes)| RegistryKey {
                    id: key.id().to_owned(),
                    name: "main".into(),
                    scopes: scopes.to_vec(),
                    digest: key.digest(&pepper()),
                    pepper_id: "p1".into(),
                    expires_at: None,
                })
                .collect(),
            tenant,
        }
    }

    #[test]
    fn a_lost_registry_is_not_an_empty_one() {
        for (found, lost, rebuilding, announced, expected) in [
            (None, false, false, false, Load::Keep),
            (None, true, false, false, Load::Keep),
            (None, true, true, true, Load::Keep),
            (Some(1), false, false, true, Load::Replace),
            (Some(1), false, false, false, Load::Replace),
            (Some(1), true, false, true, Load::Merge),
            (Some(1), true, false, false, Load::Keep),
            (Some(1), false, true, true, Load::Merge),
        ] {
            let decided = load(found, lost, rebuilding, announced);
            assert_eq!(decided, expected, "{found:?} {lost} {rebuilding} {announced}");
        }
    }

    #[test]
    fn a_tenants_new_state_replaces_its_keys() {
        let (old, new) = (ApiKey::generate(), ApiKey::generate());
        let mut snapshot = Snapshot::new(1, [tenant("acme", &[(&old, &[])]), tenant("globex", &[])]);
        snapshot.put(tenant("acme", &[(&new, &[])]));
        assert!(!snapshot.keys.contains_key(old.id()));
        assert_eq!(snapshot.keys[new.id()].tenant.name().as_str(), "acme");
        snapshot.remove(&"acme".parse().unwrap());
        assert!(snapshot.keys.is_empty());
        assert_eq!(snapshot.tenants.len(), 1);
    }
}
