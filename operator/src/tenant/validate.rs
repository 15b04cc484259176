//! Turns a Tenant into what it asks of the stores, or says why it can't be had.

use std::collections::HashSet;

use crds::condition::Reason;
use crds::registry::TenantState;
use crds::tenant::{ApiKeySpec, KeySource, OnMissing, Rotation};
use crds::{ADOPT_ANNOTATION, PipelineName, ROTATE_KEYS_ANNOTATION, Tenant, TenantName};
use kube::ResourceExt;

use super::rotation::Request;
use crate::plans::{NoQuotas, Plans};
use crate::provision::{DesiredTenant, Owner};
use crate::settings::Settings;

/// A Tenant that can be provisioned.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidTenant {
    /// What it is to have in the stores.
    pub desired: DesiredTenant,
    /// Keys to issue.
    pub keys: Vec<ApiKeySpec>,
    /// What can't be done about the annotation that asks for new keys.
    pub misunderstood: Option<String>,
    /// The pipeline that it names and that is not there: its events wait for it, or go through `default`.
    pub missing_pipeline: Option<PipelineName>,
}

impl ValidTenant {
    /// Whether its events wait for a pipeline that is not there.
    pub fn is_held(&self) -> bool {
        self.missing_pipeline.as_ref() == Some(&self.desired.pipeline)
    }
}

/// Why a Tenant can't be provisioned until somebody changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// What to change.
    pub message: String,
}

/// Validates a Tenant. The API server has checked the schema; a rule that was tightened later is
/// checked here again, because what was stored before it stays. `pipeline_exists` answers for the
/// pipeline that the Tenant names.
pub fn validate(
    tenant: &Tenant,
    settings: &Settings,
    plans: &Plans,
    pipeline_exists: bool,
) -> Result<ValidTenant, Problem> {
    let invalid = |message: String| Problem { reason: Reason::InvalidSpec, message };
    let name: TenantName = tenant.name_any().parse().map_err(|error| invalid(format!("metadata.name: {error}")))?;
    let spec = &tenant.spec;
    let quotas = plans.quotas(&spec.plan, spec.quotas.as_ref()).map_err(|error| match error {
        NoQuotas::UnknownPlan { .. } => Problem { reason: Reason::UnknownPlan, message: error.to_string() },
        NoQuotas::Invalid(_) => invalid(error.to_string()),
    })?;
    if spec.retention.hot_days > spec.retention.total_days {
        return Err(invalid("spec.retention.hotDays must not exceed totalDays".to_owned()));
    }
    let mut secrets = HashSet::new();
    for key in &spec.api_keys {
        let at = format!("spec.apiKeys `{}`", key.name);
        let secret = &key.secret_ref;
        if !spec.namespaces.contains(&secret.namespace) {
            return Err(invalid(format!("{at}: namespace `{}` is not listed in spec.namespaces", secret.namespace)));
        }
        check_rotation(key).map_err(|wrong| invalid(format!("{at}: {wrong}")))?;
        if !secrets.insert(secret) {
            return Err(invalid(format!("{at}: Secret `{}` is another key's, too", secret.name)));
        }
    }
    let named: PipelineName =
        spec.pipeline_ref.name.parse().map_err(|error| invalid(format!("spec.pipelineRef: {error}")))?;
    // Another pipeline has other stages: what was to be redacted goes through it only where that was asked for.
    let pipeline = match spec.pipeline_ref.on_missing {
        OnMissing::Default if !pipeline_exists => PipelineName::default_pipeline(),
        OnMissing::Default | OnMissing::Hold => named.clone(),
    };
    let owner = Owner {
        installation: settings.installation.clone(),
        tenant: name.clone(),
        uid: tenant.uid().unwrap_or_default(),
    };
    let desired = DesiredTenant {
        owner,
        adopt: tenant.annotations().get(ADOPT_ANNOTATION).is_some_and(|value| value == "true"),
        display_name: spec.display_name.clone(),
        plan: spec.plan.clone(),
        quotas,
        state: if spec.suspend { TenantState::Suspended } else { TenantState::Active },
        pipeline,
        isolation: spec.isolation,
        retention: spec.retention,
        archive: name.archive(settings.archive.layout, &settings.archive.bucket_prefix),
    };
    let missing_pipeline = (!pipeline_exists).then_some(named);
    let misunderstood = misunderstood(tenant);
    Ok(ValidTenant { desired, keys: spec.api_keys.clone(), misunderstood, missing_pipeline })
}

/// An annotation is a wish beside the spec: a wrong one is answered, and stops nothing.
fn misunderstood(tenant: &Tenant) -> Option<String> {
    let value = tenant.annotations().get(ROTATE_KEYS_ANNOTATION)?;
    let Some(request) = Request::parse(value) else {
        return Some(format!(
            "the annotation {ROTATE_KEYS_ANNOTATION} is not understood: use <key names or *>@<nonce>"
        ));
    };
    let name: String = request.unknown(&tenant.spec.api_keys)?.chars().take(40).collect();
    Some(format!("the annotation {ROTATE_KEYS_ANNOTATION} names `{name}`, which is no key that is generated"))
}

fn check_rotation(key: &ApiKeySpec) -> Result<(), &'static str> {
    let Some(Rotation { interval_days: Some(days), overlap_hours }) = key.rotation else { return Ok(()) };
    match key.source {
        KeySource::Existing => Err("rotation.intervalDays is for source Generate"),
        KeySource::Generate if overlap_hours >= days.saturating_mul(24) => {
            Err("overlapHours must be less than intervalDays")
        }
        KeySource::Generate => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use crate::tenant::testing::acme;

    fn reason(tenant: &Tenant) -> Reason {
        validate(tenant, &settings(), &settings().plans, true).unwrap_err().reason
    }

    #[test]
    fn a_tenant_asks_for_what_its_spec_says() {
        let valid = validate(&acme(), &settings(), &settings().plans, true).unwrap();
        assert_eq!(valid.desired.owner.installation, "prod");
        assert_eq!(valid.desired.archive.bucket, "lh-acme");
        assert_eq!((valid.keys.len(), valid.missing_pipeline), (1, None));
        let mut suspended = acme();
        suspended.spec.suspend = true;
        assert_eq!(
            validate(&suspended, &settings(), &settings().plans, true).unwrap().desired.state,
            TenantState::Suspended
        );
    }

    #[test]
    fn quotas_come_from_the_plan_and_the_tenants_own_replace_them() {
        let mut tenant = acme();
        assert!(validate(&tenant, &settings(), &settings().plans, true).unwrap().desired.quotas.is_unlimited());
        tenant.spec.plan = "small".into();
        let events = |tenant: &Tenant| {
            let valid = validate(tenant, &settings(), &settings().plans, true).unwrap();
            valid.desired.quotas.events.map(|rate| rate.per_second)
        };
        assert_eq!(events(&tenant), Some(100));
        let own = crds::quota::Quotas { ingest_events_per_second: "2k".parse().ok(), ..Default::default() };
        tenant.spec.quotas = Some(own);
        assert_eq!(events(&tenant), Some(2000));
    }

    #[test]
    fn a_missing_pipeline_is_waited_for_unless_the_default_one_is_asked_for() {
        let mut tenant = acme();
        tenant.spec.pipeline_ref.name = "fast".into();
        for (on_missing, lane, held) in [(OnMissing::Hold, "fast", true), (OnMissing::Default, "default", false)] {
            tenant.spec.pipeline_ref.on_missing = on_missing;
            let valid = validate(&tenant, &settings(), &settings().plans, false).unwrap();
            assert_eq!(valid.missing_pipeline.as_ref().map(PipelineName::as_str), Some("fast"));
            assert_eq!((valid.desired.pipeline.as_str(), valid.is_held()), (lane, held));
            let there = validate(&tenant, &settings(), &settings().plans, true).unwrap();
            assert_eq!((there.desired.pipeline.as_str(), there.is_held()), ("fast", false));
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let mut tenant = acme();
        tenant.spec.plan = "gold".into();
        assert_eq!(reason(&tenant), Reason::UnknownPlan);
        let changes: [fn(&mut Tenant); 8] = [
            |tenant| {
                let lone = crds::quota::Quotas { ingest_burst_events: "1k".parse().ok(), ..Default::default() };
                tenant.spec.quotas = Some(lone);
            },
            |tenant| tenant.metadata.name = Some("a.b".into()),
            |tenant| tenant.spec.retention.hot_days = 31,
            |tenant| tenant.spec.api_keys[0].secret_ref.namespace = "elsewhere".into(),
            |tenant| tenant.spec.pipeline_ref.name = "A".into(),
            |tenant| {
                let rotation = Rotation { interval_days: Some(1), overlap_hours: 24 };
                tenant.spec.api_keys[0].rotation = Some(rotation);
            },
            |tenant| {
                tenant.spec.api_keys[0].source = KeySource::Existing;
                tenant.spec.api_keys[0].rotation = Some(Rotation { interval_days: Some(9), overlap_hours: 24 });
            },
            |tenant| {
                let again = ApiKeySpec { name: "second".into(), ..tenant.spec.api_keys[0].clone() };
                tenant.spec.api_keys.push(again);
            },
        ];
        for change in changes {
            let mut tenant = acme();
            change(&mut tenant);
            assert_eq!(reason(&tenant), Reason::InvalidSpec);
        }
    }
}
