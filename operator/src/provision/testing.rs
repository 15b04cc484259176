//! Fixtures of this room's tables.

use crds::names::{BucketLayout, PipelineName};
use crds::registry::TenantState;
use crds::tenant::{Isolation, Retention};

use super::{DesiredTenant, Owner};

/// A tenant as a small customer has it.
pub(crate) fn acme() -> DesiredTenant {
    let owner = Owner { installation: "prod".into(), tenant: "acme".parse().unwrap(), uid: "1".into() };
    DesiredTenant {
        archive: owner.tenant.archive(BucketLayout::PerTenant, "lh-"),
        owner,
        adopt: false,
        display_name: None,
        plan: "standard".into(),
        quotas: Default::default(),
        state: TenantState::Active,
        pipeline: PipelineName::default_pipeline(),
        isolation: Isolation::Shared,
        retention: Retention::default(),
        confirmed_days: None,
    }
}
