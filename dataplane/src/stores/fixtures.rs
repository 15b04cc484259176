//! A tenant for tables of tests.

use std::sync::Arc;

use crds::names::BucketLayout;
use crds::registry::{REGISTRY_VERSION, RegistryTenant, TenantState};
use crds::{PipelineName, TenantName};

use crate::tenancy::{Peppers, Registry, Tenant};

pub(crate) fn tenant(name: &str) -> Arc<Tenant> {
    let tenant: TenantName = name.parse().unwrap();
    let registered = RegistryTenant {
        version: REGISTRY_VERSION,
        uid: String::new(),
        state: TenantState::Active,
        pipeline: PipelineName::default_pipeline(),
        plan: "standard".into(),
        archive: tenant.archive(BucketLayout::PerTenant, "lh-"),
        index_series: "lh-hot7-p1".into(),
        hot_days: 7,
        total_days: 30,
        quotas: Default::default(),
        keys: Vec::new(),
        tenant: tenant.clone(),
    };
    Registry::fixed([registered], Peppers::none()).tenant(&tenant).unwrap()
}
