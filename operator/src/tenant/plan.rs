//! Decides what is done to a Tenant in every store, from what it asks for and what there is of it.

use std::time::SystemTime;

use crds::condition::Reason;
use crds::names::ArchiveLocation;
use crds::registry::{RegistryKey, RegistryTenant, TenantState};
use crds::{PipelineName, Tenant};

use super::keys;
use super::keys::plan::KeysPlan;
use super::look::Found;
use super::problem::Problem;
use super::validate::ValidTenant;
use crate::provision::{DesiredTenant, Outcome, SeenEntry, TenantRow};

/// What is done to a Tenant.
pub enum Plan {
    /// Everything that it asks for.
    Provision(Box<Provision>),
    /// What is known from before is kept in order: PostgreSQL can't say what the tenant is assigned.
    Keep(Box<Keep>),
    /// Nothing: it is another installation's.
    Nothing(Problem, ArchiveLocation),
}

/// What is put in place.
pub struct Provision {
    /// What it is to have, for as many days as its events are kept.
    pub desired: DesiredTenant,
    /// Where.
    pub row: TenantRow,
    /// What came of its row.
    pub registered: Outcome,
    /// What becomes of its keys, or why nothing can be done about them.
    pub keys: Result<KeysPlan, Problem>,
    /// Days that events are kept instead of those that the spec says, until these are confirmed.
    pub kept_days: Option<i32>,
    /// How ingest's entry gets to it.
    pub lane: Lane,
}

/// What is done about the lane of the pipeline that takes the tenant's events, before ingest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Nothing: it is that of `default`, or the one that it had.
    AsItIs,
    /// Nobody else reads it: its pipeline does.
    Adopt,
    /// Nobody reads it: its pipeline is not there.
    Hold,
}

/// What is kept in order.
pub struct Keep {
    /// Why no more is done.
    pub why: Problem,
    /// Where the archive is.
    pub archive: ArchiveLocation,
    /// The series that its alias is on, if ingest was told of one.
    pub series: Option<String>,
    /// What the spec takes away, in the entry that ingest has: it as it was read, and as it is to be.
    pub narrower: Option<(SeenEntry, RegistryTenant)>,
}

/// Decides.
pub fn plan(tenant: &Tenant, valid: &ValidTenant, found: Found, now: SystemTime) -> Plan {
    match found {
        Found::Placed { row, registered, keys } => Plan::Provision(Box::new(Provision {
            desired: valid.desired.kept_for(row.total_days),
            registered,
            keys: keys.map(|keys| keys::plan::plan(tenant, valid, keys, now)),
            kept_days: (row.total_days > valid.desired.retention.total_days).then_some(row.total_days),
            row,
            lane: lane(valid),
        })),
        Found::Unplaced { why, entry } => Plan::Keep(Box::new(Keep {
            why,
            archive: known_archive(tenant, valid),
            series: entry.as_ref().map(|seen| seen.entry.index_series.clone()),
            narrower: narrower(tenant, valid, entry),
        })),
        Found::Foreign(problem) => Plan::Nothing(problem, known_archive(tenant, valid)),
    }
}

fn lane(valid: &ValidTenant) -> Lane {
    if valid.is_held() {
        Lane::Hold
    } else if valid.desired.pipeline == PipelineName::default_pipeline() {
        Lane::AsItIs
    } else if valid.problem.is_none() {
        Lane::Adopt
    } else {
        // It stays in the lane where it was.
        Lane::AsItIs
    }
}

/// What the spec takes away is taken away: in the entry of a tenant that was ours when PostgreSQL said so last.
fn narrower(tenant: &Tenant, valid: &ValidTenant, entry: Option<SeenEntry>) -> Option<(SeenEntry, RegistryTenant)> {
    let is_ours = tenant.status.as_ref().is_some_and(|status| status.backends.is_some());
    let seen = entry.filter(|_| is_ours)?;
    let named = |key: &RegistryKey| tenant.spec.api_keys.iter().any(|wanted| wanted.name == key.name);
    let narrowed = narrowed(&seen.entry, valid.desired.state, named)?;
    Some((seen, narrowed))
}

/// The entry with nothing but less in it, or `None` if it is so already.
pub fn narrowed(
    entry: &RegistryTenant,
    state: TenantState,
    lives: impl Fn(&RegistryKey) -> bool,
) -> Option<RegistryTenant> {
    let state = match (entry.state, state) {
        (TenantState::Active, TenantState::Suspended) => TenantState::Suspended,
        (as_it_is, _) => as_it_is,
    };
    let keys = entry.keys.iter().filter(|key| lives(key)).cloned().collect();
    let narrowed = RegistryTenant { state, keys, ..entry.clone() };
    (narrowed != *entry).then_some(narrowed)
}

/// Where the archive was put before, or where a new tenant's goes.
fn known_archive(tenant: &Tenant, valid: &ValidTenant) -> ArchiveLocation {
    let backends = tenant.status.as_ref().and_then(|status| status.backends.as_ref());
    backends.map_or_else(
        || valid.desired.archive.clone(),
        |known| ArchiveLocation { bucket: known.bucket.clone(), prefix: known.prefix.clone() },
    )
}

impl Keep {
    /// What is said of the keys.
    pub fn of_keys(&self) -> Problem {
        let message = format!("keys are kept in PostgreSQL: {}", self.why.message);
        Problem { reason: self.why.reason, message }
    }

    /// What is said of the index where nobody knows which it is.
    pub fn of_index() -> Problem {
        let message = "waits for PostgreSQL, which assigns the tenant its indices".to_owned();
        Problem { reason: Reason::Provisioning, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::registry_entry;
    use crate::settings::tests::settings;
    use crate::tenant::testing::{acme, at};
    use crate::tenant::validate::{salvage, validate};
    use crds::TenantStatus;
    use crds::tenant::Backends;

    fn valid(tenant: &Tenant, pipeline_exists: bool) -> ValidTenant {
        validate(tenant, &settings(), &settings().plans, pipeline_exists).unwrap()
    }

    fn row(total_days: i32) -> TenantRow {
        let archive = ArchiveLocation { bucket: "there".into(), prefix: String::new() };
        TenantRow { index_series: "s".into(), archive, total_days, beside_retained: false, neighbours_days: 0 }
    }

    fn problem() -> Problem {
        Problem { reason: Reason::BackendUnavailable, message: "m".into() }
    }

    #[test]
    fn a_tenant_in_its_place_has_all_that_it_asks_for_and_keeps_its_days() {
        let keys = || Err(problem());
        for (days, kept) in [(30, None), (90, Some(90))] {
            let found = Found::Placed { row: row(days), registered: Outcome::Unchanged, keys: keys() };
            let Plan::Provision(plan) = plan(&acme(), &valid(&acme(), true), found, at(0)) else { panic!("{days}") };
            assert_eq!((plan.desired.retention.total_days, plan.kept_days), (days, kept));
            assert_eq!(plan.keys.err(), Some(problem()));
        }
    }

    #[test]
    fn a_lane_is_taken_only_for_the_pipeline_that_is_named_and_held_where_it_is_not_there() {
        let mut fast = acme();
        fast.spec.pipeline_ref.name = "fast".into();
        assert_eq!(lane(&valid(&acme(), true)), Lane::AsItIs);
        assert_eq!(lane(&valid(&acme(), false)), Lane::Hold);
        assert_eq!(lane(&valid(&fast, true)), Lane::Adopt);
        assert_eq!(lane(&valid(&fast, false)), Lane::Hold);
        let last = registry_entry(&valid(&fast, true).desired, &row(30), &[]);
        let salvaged = salvage(&fast, &settings(), &settings().plans, true, &last, problem()).unwrap();
        assert_eq!(lane(&salvaged), Lane::AsItIs, "it stays where it was");
    }

    #[test]
    fn without_postgresql_what_is_known_is_kept_where_it_was() {
        let mut known = acme();
        let backends = Backends {
            database_schema: "tenant_acme".into(),
            bucket: "before".into(),
            prefix: "p/".into(),
            index_alias: "lh-t-acme".into(),
        };
        known.status = Some(TenantStatus { backends: Some(backends), ..TenantStatus::default() });
        for (tenant, bucket) in [(acme(), "lh-acme"), (known, "before")] {
            let found = Found::Unplaced { why: problem(), entry: None };
            let valid = valid(&tenant, true);
            assert_eq!(valid.desired.state, TenantState::Active);
            let Plan::Keep(plan) = plan(&tenant, &valid, found, at(0)) else { panic!("{bucket}") };
            assert_eq!((plan.archive.bucket.as_str(), plan.series), (bucket, None));
            assert!(plan.narrower.is_none());
        }
    }

    #[test]
    fn nothing_is_done_to_another_installations_tenant() {
        let found = Found::Foreign(problem());
        let plan = plan(&acme(), &valid(&acme(), true), found, at(0));
        assert!(matches!(plan, Plan::Nothing(why, _) if why == problem()));
    }

    #[test]
    fn an_entry_is_only_ever_narrowed() {
        use TenantState::{Active, Deleting, Suspended};
        let key = |id: &str| RegistryKey {
            id: id.into(),
            name: "main".into(),
            scopes: Vec::new(),
            digest: [0; 32],
            pepper_id: "p1".into(),
            expires_at: None,
        };
        let desired = valid(&acme(), true).desired;
        let row = row(30);
        let entry = |state, keys: &[&str]| {
            let keys = keys.iter().map(|id| key(id)).collect();
            RegistryTenant { state, keys, ..registry_entry(&desired, &row, &[]) }
        };
        let both = |state| entry(state, &["a", "b"]);
        let a = |key: &RegistryKey| key.id == "a";
        assert_eq!(narrowed(&both(Active), Active, a), Some(entry(Active, &["a"])));
        assert_eq!(narrowed(&both(Active), Suspended, |_| true), Some(both(Suspended)));
        assert_eq!(narrowed(&both(Suspended), Active, |_| true), None, "a tenant is not resumed by that");
        assert_eq!(narrowed(&both(Deleting), Suspended, |_| true), None);
    }
}
