//! Turns a Tenant into what it asks of the stores, or says why it can't be had.

use std::collections::HashSet;

use crds::condition::Reason;
use crds::registry::{IngestQuotas, RegistryTenant, TenantState};
use crds::tenant::{ApiKeySpec, KeySource, OnMissing, Retention, Rotation};
use crds::{ADOPT_ANNOTATION, CONFIRM_RETENTION_ANNOTATION, PipelineName, ROTATE_KEYS_ANNOTATION, Tenant, TenantName};
use kube::ResourceExt;

use super::keys::rotation::Request;
use super::problem::Problem;
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
    /// Keys that can't be had as the spec says: what is issued of them works on.
    pub unusable_keys: Vec<ApiKeySpec>,
    /// What can't be done about the annotation that asks for new keys.
    pub misunderstood: Option<String>,
    /// The pipeline that it names and that is not there: its events wait for it, or go through `default`.
    pub missing_pipeline: Option<PipelineName>,
    /// What is wrong with the spec: in its place, what held before goes on to hold.
    pub problem: Option<Problem>,
}

impl ValidTenant {
    /// Whether its events wait for a pipeline that is not there.
    pub fn is_held(&self) -> bool {
        self.missing_pipeline.as_ref() == Some(&self.desired.pipeline)
    }
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
    let spec = &tenant.spec;
    let name = name(tenant)?;
    let quotas = quotas(tenant, plans)?;
    check_retention(spec.retention)?;
    let Keys { keys, unusable: _, problem } = keys(tenant);
    problem.map_or(Ok(()), Err)?;
    let named = pipeline(tenant)?;
    // Another pipeline has other stages: what was to be redacted goes through it only where that was asked for.
    let pipeline = match spec.pipeline_ref.on_missing {
        OnMissing::Default if !pipeline_exists => PipelineName::default_pipeline(),
        OnMissing::Default | OnMissing::Hold => named.clone(),
    };
    let held = Held { plan: spec.plan.clone(), quotas, retention: spec.retention, pipeline };
    Ok(ValidTenant {
        desired: desired(tenant, settings, name, held),
        keys,
        unusable_keys: Vec::new(),
        misunderstood: misunderstood(tenant),
        missing_pipeline: (!pipeline_exists).then_some(named),
        problem: None,
    })
}

/// What goes on of a Tenant whose spec can't be had as a whole, because of `problem`: what ingest was told `last`
/// goes on to hold where the spec is wrong, and the rest is as the spec says. Keys that it takes away are taken away,
/// and a tenant that it suspends is suspended, whatever else it says.
pub fn salvage(
    tenant: &Tenant,
    settings: &Settings,
    plans: &Plans,
    pipeline_exists: bool,
    last: &RegistryTenant,
    problem: Problem,
) -> Option<ValidTenant> {
    let spec = &tenant.spec;
    let (plan, quotas) = match quotas(tenant, plans) {
        Ok(quotas) => (spec.plan.clone(), quotas),
        Err(_) => (last.plan.clone(), last.quotas),
    };
    let retention = match check_retention(spec.retention) {
        Ok(()) => spec.retention,
        Err(_) => Retention { hot_days: last.hot_days, total_days: last.total_days },
    };
    // One that is not there is no reason to move to it now.
    let named = pipeline(tenant).ok();
    let pipeline = named.clone().filter(|_| pipeline_exists).unwrap_or_else(|| last.pipeline.clone());
    let missing_pipeline = named.filter(|named| !pipeline_exists && *named == last.pipeline);
    let Keys { keys, unusable, .. } = keys(tenant);
    let held = Held { plan, quotas, retention, pipeline };
    Some(ValidTenant {
        desired: desired(tenant, settings, name(tenant).ok()?, held),
        keys,
        unusable_keys: unusable,
        misunderstood: misunderstood(tenant),
        missing_pipeline,
        problem: Some(problem),
    })
}

/// What the spec says, or what held before it.
struct Held {
    plan: String,
    quotas: IngestQuotas,
    retention: Retention,
    pipeline: PipelineName,
}

fn desired(tenant: &Tenant, settings: &Settings, name: TenantName, held: Held) -> DesiredTenant {
    let spec = &tenant.spec;
    let owner = Owner {
        installation: settings.installation.clone(),
        tenant: name.clone(),
        uid: tenant.uid().unwrap_or_default(),
    };
    DesiredTenant {
        owner,
        adopt: tenant.annotations().get(ADOPT_ANNOTATION).is_some_and(|value| value == "true"),
        display_name: spec.display_name.clone(),
        plan: held.plan,
        quotas: held.quotas,
        state: if spec.suspend { TenantState::Suspended } else { TenantState::Active },
        pipeline: held.pipeline,
        isolation: spec.isolation,
        retention: held.retention,
        confirmed_days: tenant
            .annotations()
            .get(CONFIRM_RETENTION_ANNOTATION)
            .and_then(|days| days.trim().parse().ok()),
        archive: name.archive(settings.archive.layout, &settings.archive.bucket_prefix),
    }
}

fn invalid(message: String) -> Problem {
    Problem { reason: Reason::InvalidSpec, message }
}

fn name(tenant: &Tenant) -> Result<TenantName, Problem> {
    tenant.name_any().parse().map_err(|error| invalid(format!("metadata.name: {error}")))
}

fn quotas(tenant: &Tenant, plans: &Plans) -> Result<IngestQuotas, Problem> {
    plans.quotas(&tenant.spec.plan, tenant.spec.quotas.as_ref()).map_err(|error| match error {
        NoQuotas::UnknownPlan { .. } => Problem { reason: Reason::UnknownPlan, message: error.to_string() },
        NoQuotas::Invalid(_) => invalid(error.to_string()),
    })
}

fn check_retention(retention: Retention) -> Result<(), Problem> {
    if retention.hot_days > retention.total_days {
        return Err(invalid("spec.retention.hotDays must not exceed totalDays".to_owned()));
    }
    Ok(())
}

fn pipeline(tenant: &Tenant) -> Result<PipelineName, Problem> {
    tenant.spec.pipeline_ref.name.parse().map_err(|error| invalid(format!("spec.pipelineRef: {error}")))
}

/// The keys of a spec.
struct Keys {
    /// Those that can be had; one whose schedule is wrong, without it.
    keys: Vec<ApiKeySpec>,
    /// Those that can't.
    unusable: Vec<ApiKeySpec>,
    /// The first thing that is wrong.
    problem: Option<Problem>,
}

fn keys(tenant: &Tenant) -> Keys {
    let spec = &tenant.spec;
    let mut secrets = HashSet::new();
    let mut found = Keys { keys: Vec::new(), unusable: Vec::new(), problem: None };
    for key in &spec.api_keys {
        let at = format!("spec.apiKeys `{}`", key.name);
        let secret = &key.secret_ref;
        let unusable = if !spec.namespaces.contains(&secret.namespace) {
            Some(invalid(format!("{at}: namespace `{}` is not listed in spec.namespaces", secret.namespace)))
        } else if !secrets.insert(secret) {
            Some(invalid(format!("{at}: Secret `{}` is another key's, too", secret.name)))
        } else {
            None
        };
        match (unusable, check_rotation(key)) {
            (Some(problem), _) => {
                found.unusable.push(key.clone());
                found.problem.get_or_insert(problem);
            }
            (None, Err(wrong)) => {
                found.keys.push(ApiKeySpec { rotation: None, ..key.clone() });
                found.problem.get_or_insert(invalid(format!("{at}: {wrong}")));
            }
            (None, Ok(())) => found.keys.push(key.clone()),
        }
    }
    found
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
    fn what_is_wrong_with_a_spec_keeps_no_key_alive_and_no_tenant_sending() {
        let last = crate::provision::registry_entry(
            &validate(&acme(), &settings(), &settings().plans, true).unwrap().desired,
            &crate::provision::TenantRow {
                index_series: "s".into(),
                archive: settings_archive(),
                total_days: 30,
                beside_retained: false,
                neighbours_days: 0,
            },
            &[],
        );
        let mut tenant = acme();
        let second = ApiKeySpec { name: "second".into(), ..tenant.spec.api_keys[0].clone() };
        tenant.spec.api_keys.push(second);
        tenant.spec.api_keys[0].rotation = Some(Rotation { interval_days: Some(1), overlap_hours: 24 });
        (tenant.spec.plan, tenant.spec.suspend) = ("gold".into(), true);
        tenant.spec.retention.hot_days = 31;
        tenant.spec.pipeline_ref.name = "A".into();
        let plans = &settings().plans;
        let problem = validate(&tenant, &settings(), plans, true).unwrap_err();
        let salvaged = salvage(&tenant, &settings(), plans, false, &last, problem.clone()).unwrap();
        assert_eq!(salvaged.problem, Some(problem.clone()));
        let desired = &salvaged.desired;
        assert_eq!((desired.state, desired.plan.as_str()), (TenantState::Suspended, "standard"));
        assert_eq!(desired.retention.hot_days, last.hot_days);
        assert_eq!(desired.pipeline, last.pipeline);
        let names = |keys: &[ApiKeySpec]| keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&salvaged.keys), names(&salvaged.unusable_keys)),
            (vec!["main".into()], vec!["second".into()])
        );
        assert_eq!(salvaged.keys[0].rotation, None, "a wrong schedule");
        tenant.metadata.name = Some("a.b".into());
        assert_eq!(salvage(&tenant, &settings(), plans, false, &last, problem), None);
    }

    fn settings_archive() -> crds::names::ArchiveLocation {
        let settings = settings();
        let acme: TenantName = "acme".parse().unwrap();
        acme.archive(settings.archive.layout, &settings.archive.bucket_prefix)
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
