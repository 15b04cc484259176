//! A Tenant's status: a pure function of what was found out, and of the status before.

use crds::condition::{Finding, Reason, Status, set, types};
use crds::tenant::{Backends, EffectiveQuotas};
use crds::{
    CONFIRM_RETENTION_ANNOTATION, PipelineName, RECONCILE_REQUESTED_AT_ANNOTATION, ROTATE_KEYS_ANNOTATION, Tenant,
    TenantStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

mod keys;

use super::apply::Applied;
use super::keys::events;
use super::keys::rotation::Request;
use super::problem::{Problem, StoreResult};
use super::validate::ValidTenant;
use crate::kubernetes::Note;
use crate::metrics::Store;
use crate::provision::Outcome;

/// What is said of keys that are as they should be.
const KEYS_IN_PLACE: &str = "keys are issued, in their Secrets, and known to ingest";

/// What is said while nothing has been tried yet.
pub fn first_findings() -> Vec<Finding> {
    let provisioning =
        |type_| finding(type_, Status::Unknown, Reason::Provisioning, "the tenant is being put in place".to_owned());
    let stores = [types::DATABASE_READY, types::OBJECT_STORE_READY, types::SEARCH_READY, types::CREDENTIALS_READY];
    let mut findings: Vec<Finding> = stores.into_iter().map(provisioning).collect();
    findings.push(finding(types::READY, Status::False, Reason::Provisioning, "being put in place".to_owned()));
    findings.extend(progress(Progress::Reconciling, Reason::Provisioning, "being put in place"));
    findings
}

/// What is said of a Tenant that can't be provisioned.
pub fn findings_of_problem(problem: &Problem) -> Vec<Finding> {
    let mut findings = vec![finding(types::READY, Status::False, problem.reason, problem.message.clone())];
    findings.extend(progress(Progress::Stalled, problem.reason, &problem.message));
    findings
}

/// What is said of a Tenant that is paused. Ready stays as it was.
pub fn findings_of_pause() -> Vec<Finding> {
    let message = "reconciliation is paused by the annotation loggerhub.io/paused".to_owned();
    vec![finding(types::RECONCILING, Status::False, Reason::Paused, message)]
}

/// What is said of a Tenant under deletion. `gone` are the conditions whose things are removed.
pub fn findings_of_deletion(reason: Reason, message: &str, gone: &[&'static str]) -> Vec<Finding> {
    let mut findings = vec![finding(types::READY, Status::False, reason, message.to_owned())];
    let removed = |type_: &&'static str| finding(type_, Status::False, Reason::Retiring, "removed".to_owned());
    findings.extend(gone.iter().map(removed));
    findings.extend(progress(Progress::Reconciling, reason, message));
    findings
}

/// What is said of a Tenant that was applied to the stores.
pub fn findings(valid: &ValidTenant, applied: &Applied) -> Vec<Finding> {
    let keys = match &valid.misunderstood {
        Some(rotation) => format!("{KEYS_IN_PLACE}; {rotation}"),
        None => KEYS_IN_PLACE.to_owned(),
    };
    let stores = [
        (types::DATABASE_READY, "registry row, schema, role and tables are in place", &applied.database),
        (types::OBJECT_STORE_READY, "archive, lifecycle and owner marker are in place", &applied.object_store),
        (types::SEARCH_READY, "template, index and alias are in place", &applied.search),
        (types::CREDENTIALS_READY, keys.as_str(), &applied.credentials),
    ];
    let mut findings: Vec<Finding> =
        stores.iter().map(|(type_, in_place, result)| of_store(type_, in_place, result)).collect();
    // What nobody can say now stays as it was said.
    if let Some(unsettled) = &applied.unsettled {
        findings.push(of_pipeline(valid, &unsettled.left_behind));
        findings.push(of_retention(valid, unsettled.kept_days));
    }
    let failed: Vec<&Finding> = findings.iter().filter(|finding| finding.status != Status::True).collect();
    let ready = match (failed.first(), &valid.problem) {
        (_, Some(Problem { reason, message })) => {
            let message = format!(
                "{message}. Until that is fixed, the last valid settings stay in force; spec.suspend, and keys that are \
                 removed or to be rotated, take effect all the same"
            );
            (Status::False, *reason, message)
        }
        (Some(first), None) => {
            // A reason that needs a person goes before one that heals by itself.
            let reason = failed.iter().map(|finding| finding.reason).find(|reason| stalls(*reason));
            let messages: Vec<String> =
                failed.iter().map(|finding| format!("{}: {}", finding.type_, finding.message)).collect();
            (Status::False, reason.unwrap_or(first.reason), messages.join("; "))
        }
        (None, None) if valid.desired.state == crds::registry::TenantState::Suspended => {
            (Status::True, Reason::Suspended, "in place; ingest refuses events because spec.suspend is set".to_owned())
        }
        (None, None) => (Status::True, Reason::Provisioned, "the tenant is in place in every store".to_owned()),
    };
    let (status, reason, message) = ready;
    let going_on = match status {
        Status::True => Progress::Settled,
        _ if stalls(reason) => Progress::Stalled,
        _ => Progress::Reconciling,
    };
    findings.extend(progress(going_on, reason, &message));
    findings.push(finding(types::READY, status, reason, message));
    findings
}

fn of_store(type_: &'static str, in_place: &str, result: &StoreResult) -> Finding {
    match result {
        Ok(_) => finding(type_, Status::True, Reason::Provisioned, in_place.to_owned()),
        Err(problem) => finding(type_, Status::False, problem.reason, problem.message.clone()),
    }
}

/// What is said of the pipeline: that it is there, or who processes the tenant's events without it.
fn of_pipeline(valid: &ValidTenant, left_behind: &[PipelineName]) -> Finding {
    let pipeline = &valid.desired.pipeline;
    let (status, reason, message) = match (&valid.missing_pipeline, left_behind.first()) {
        (Some(missing), _) if valid.is_held() => {
            let message = format!(
                "LogPipeline `{missing}` does not exist: events are accepted, up to the tenant's share of the queue, \
                 and wait for it. Apply it; or have what waits and what comes go through `default`, without its \
                 stages: set spec.pipelineRef.onMissing to Default"
            );
            (Status::False, Reason::PipelineNotFound, message)
        }
        (Some(missing), _) => {
            let message = format!(
                "LogPipeline `{missing}` does not exist: events go through `default` until it does, because \
                 spec.pipelineRef.onMissing is Default"
            );
            (Status::False, Reason::PipelineNotFound, message)
        }
        (None, Some(left)) => {
            let message = format!(
                "events of the tenant still wait for LogPipeline `{left}`, which does not exist and which the tenant no \
                 longer names: apply it until they are processed; or name it again with spec.pipelineRef.onMissing: \
                 Default, and they go through `default`"
            );
            (Status::False, Reason::EventsHeld, message)
        }
        (None, None) => (Status::True, Reason::Provisioned, format!("events go through LogPipeline `{pipeline}`")),
    };
    finding(types::PIPELINE_READY, status, reason, message)
}

/// What is said of the retention: that it is the spec's, or what has to be confirmed first.
fn of_retention(valid: &ValidTenant, kept_days: Option<i32>) -> Finding {
    let wanted = valid.desired.retention.total_days;
    let (status, reason, message) = match kept_days {
        None => (Status::True, Reason::Provisioned, format!("events are kept for {wanted} days")),
        Some(days) => {
            let name = valid.desired.name();
            let message = format!(
                "events are kept for {days} days, and spec.retention.totalDays says {wanted}: that would permanently \
                 remove older events from the list and the archive, so it must be confirmed: kubectl annotate \
                 tenant {name} --overwrite {CONFIRM_RETENTION_ANNOTATION}={wanted}"
            );
            (Status::False, Reason::RetentionUnconfirmed, message)
        }
    };
    finding(types::RETENTION_APPLIED, status, reason, message)
}

/// Whether nothing will happen until somebody changes something.
fn stalls(reason: Reason) -> bool {
    [
        Reason::OwnershipConflict,
        Reason::InvalidSpec,
        Reason::UnknownPlan,
        Reason::KeyRejected,
        Reason::RetentionUnconfirmed,
    ]
    .contains(&reason)
}

/// What goes on.
enum Progress {
    Settled,
    Reconciling,
    Stalled,
}

/// Reconciling and Stalled: true only while they are abnormal, as kstatus expects.
fn progress(progress: Progress, reason: Reason, message: &str) -> [Finding; 2] {
    let (reconciling, stalled) = match progress {
        Progress::Settled => (Status::False, Status::False),
        Progress::Reconciling => (Status::True, Status::False),
        Progress::Stalled => (Status::False, Status::True),
    };
    [
        finding(types::RECONCILING, reconciling, reason, message.to_owned()),
        finding(types::STALLED, stalled, reason, message.to_owned()),
    ]
}

fn finding(type_: &'static str, status: Status, reason: Reason, message: String) -> Finding {
    Finding { type_, status, reason, message }
}

/// Whether somebody asks, by the annotation, for a look that was not yet taken.
pub fn is_asked_for(tenant: &Tenant) -> bool {
    let handled = tenant.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref());
    let asked = tenant.annotations().get(RECONCILE_REQUESTED_AT_ANNOTATION);
    asked.is_some() && asked != handled
}

/// The status that says so, from the one before.
pub fn status(
    tenant: &Tenant,
    findings: Vec<Finding>,
    applied: Option<(&ValidTenant, &Applied)>,
    now: Time,
) -> TenantStatus {
    let mut status = tenant.status.clone().unwrap_or_default();
    status.observed_generation = tenant.metadata.generation;
    for finding in findings {
        set(&mut status.conditions, finding, tenant.metadata.generation, now.clone());
    }
    status.last_handled_reconcile_at = tenant.annotations().get(RECONCILE_REQUESTED_AT_ANNOTATION).cloned();
    // Another installation's things are not this Tenant's.
    let conflict =
        |applied: &Applied| matches!(&applied.database, Err(problem) if problem.reason == Reason::OwnershipConflict);
    if let Some((valid, applied)) = applied.filter(|(_, applied)| !conflict(applied)) {
        status.backends = Some(Backends {
            database_schema: valid.desired.name().database_schema(),
            bucket: applied.archive.bucket.clone(),
            prefix: applied.archive.prefix.clone(),
            index_alias: valid.desired.name().index_alias(),
        });
        // What ingest was told: only then does it hold.
        if applied.credentials.is_ok() {
            status.effective_quotas = EffectiveQuotas::of(&valid.desired.quotas);
        }
        if let Some(keys) = &applied.keys {
            status.api_keys = keys::statuses(&tenant.spec.api_keys, keys, &status.api_keys);
            let asked = tenant.annotations().get(ROTATE_KEYS_ANNOTATION);
            let handled = |value: &&String| {
                Request::parse(value).is_some_and(|request| request.is_handled(&valid.keys, &keys.live))
            };
            if let Some(handled) = asked.filter(handled).filter(|_| applied.credentials.is_ok()) {
                status.last_handled_key_rotation = Some(handled.clone());
            }
        }
    }
    status
}

/// What was put back that had been in place: the Tenant was Ready at this generation, and a store
/// differed all the same.
pub fn drift(tenant: &Tenant, applied: &Applied) -> Vec<(Store, &'static str)> {
    let conditions = tenant.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let settled = |condition: &&Condition| {
        condition.type_ == types::READY
            && condition.status == "True"
            && condition.observed_generation == tenant.metadata.generation
    };
    if !conditions.iter().any(|condition| settled(&condition)) {
        return Vec::new();
    }
    let stores = [
        (Store::postgres, "PostgreSQL", &applied.database),
        (Store::s3, "object store", &applied.object_store),
        (Store::opensearch, "OpenSearch", &applied.search),
        (Store::redis, "keys or ingest's registry", &applied.credentials),
    ];
    // A key that was replaced on purpose is no repair.
    let meant = applied.keys.as_ref().is_some_and(|keys| !keys.changes.is_empty());
    let changed = stores.into_iter().filter(|(store, _, result)| {
        matches!(result, Ok(outcome) if *outcome != Outcome::Unchanged) && !(meant && *store == Store::redis)
    });
    changed.map(|(store, name, _)| (store, name)).collect()
}

/// What is news besides conditions that changed: what was put back, keys that nobody issued, keys that became others.
pub fn notes(drift: &[(Store, &'static str)], applied: &Applied) -> Vec<Note> {
    let stores: Vec<&str> = drift.iter().map(|(_, name)| *name).collect();
    let mut notes: Vec<Note> = drift_note(&stores).into_iter().chain(forged_note(&applied.forged)).collect();
    notes.extend(applied.keys.iter().flat_map(|keys| events::notes(&keys.changes)));
    notes
}

/// One Event for all that was put back: Events of one reason are counted together, and only the
/// first one's note would be read.
fn drift_note(stores: &[&str]) -> Option<Note> {
    if stores.is_empty() {
        return None;
    }
    let message = format!("something of the tenant was missing or changed and was put back: {}", stores.join(", "));
    Some(Note { warning: true, reason: "DriftCorrected", message })
}

/// The Event of keys that nobody issued.
fn forged_note(forged: &[String]) -> Option<Note> {
    if forged.is_empty() {
        return None;
    }
    let message = format!(
        "the registry held keys that LoggerHub did not issue: {}. They worked until they were removed just now. Somebody \
         else can write to the queue's Redis: change its passwords",
        forged.join(", ")
    );
    Some(Note { warning: true, reason: "KeyForged", message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use crate::tenant::apply::Unsettled;
    use crate::tenant::keys::events::KeyChange;
    use crate::tenant::keys::register::AppliedKeys;
    use crate::tenant::testing::{acme, at, key_row};
    use crate::tenant::validate::validate;

    fn valid() -> ValidTenant {
        validate(&acme(), &settings(), &settings().plans, true).unwrap()
    }

    fn applied() -> Applied {
        Applied {
            database: Ok(Outcome::Unchanged),
            object_store: Ok(Outcome::Unchanged),
            search: Ok(Outcome::Unchanged),
            credentials: Ok(Outcome::Unchanged),
            keys: None,
            forged: Vec::new(),
            unsettled: Some(Unsettled::default()),
            archive: valid().desired.archive,
        }
    }

    fn down() -> StoreResult {
        Err(Problem { reason: Reason::BackendUnavailable, message: "connection refused".into() })
    }

    fn of(findings: &[Finding], type_: &str) -> (Status, Reason) {
        let found = findings.iter().find(|finding| finding.type_ == type_).unwrap();
        (found.status, found.reason)
    }

    #[test]
    fn all_stores_in_place_is_ready_and_nothing_goes_on() {
        let findings = findings(&valid(), &applied());
        assert_eq!(of(&findings, types::READY), (Status::True, Reason::Provisioned));
        assert_eq!(of(&findings, types::RECONCILING).0, Status::False);
        assert_eq!(of(&findings, types::STALLED).0, Status::False);
    }

    #[test]
    fn a_store_that_is_down_is_its_own_condition_and_the_reason_of_ready() {
        let unknown = findings(&valid(), &Applied { database: down(), unsettled: None, ..applied() });
        assert!(!unknown.iter().any(|one| [types::PIPELINE_READY, types::RETENTION_APPLIED].contains(&one.type_)));
        let findings = findings(&valid(), &Applied { search: down(), ..applied() });
        assert_eq!(of(&findings, types::SEARCH_READY), (Status::False, Reason::BackendUnavailable));
        assert_eq!(of(&findings, types::DATABASE_READY).0, Status::True);
        assert_eq!(of(&findings, types::READY), (Status::False, Reason::BackendUnavailable));
        assert_eq!(of(&findings, types::RECONCILING).0, Status::True);
        let ready = findings.iter().find(|finding| finding.type_ == types::READY).unwrap();
        assert!(ready.message.contains("SearchReady: connection refused"), "{}", ready.message);
    }

    #[test]
    fn a_conflict_stalls_and_goes_before_what_heals_by_itself() {
        let conflict = Err(Problem { reason: Reason::OwnershipConflict, message: "bucket".into() });
        let findings = findings(&valid(), &Applied { database: down(), object_store: conflict, ..applied() });
        assert_eq!(of(&findings, types::READY).1, Reason::OwnershipConflict);
        assert_eq!(of(&findings, types::STALLED).0, Status::True);
        assert_eq!(of(&findings, types::RECONCILING).0, Status::False);
    }

    #[test]
    fn a_missing_pipeline_and_a_suspension_show_in_ready() {
        let fast: PipelineName = "fast".parse().unwrap();
        let default = ValidTenant { missing_pipeline: Some(fast.clone()), ..valid() };
        let mut held = default.clone();
        held.desired.pipeline = fast.clone();
        for (missing, said) in [(&held, "wait for it"), (&default, "go through `default` until it does")] {
            let findings = findings(missing, &applied());
            assert_eq!(of(&findings, types::READY), (Status::False, Reason::PipelineNotFound));
            let pipeline = findings.iter().find(|finding| finding.type_ == types::PIPELINE_READY).unwrap();
            assert!(pipeline.status == Status::False && pipeline.message.contains(said), "{}", pipeline.message);
        }
        let unsettled = |unsettled| Applied { unsettled: Some(unsettled), ..applied() };
        let shrunk = unsettled(Unsettled { kept_days: Some(90), ..Unsettled::default() });
        let shrunk = findings(&valid(), &shrunk);
        assert_eq!(of(&shrunk, types::READY), (Status::False, Reason::RetentionUnconfirmed));
        assert_eq!(of(&shrunk, types::STALLED).0, Status::True);
        let said = shrunk.iter().find(|finding| finding.type_ == types::RETENTION_APPLIED).unwrap();
        assert!(said.message.contains("loggerhub.io/confirm-retention=30"), "{}", said.message);
        let left = unsettled(Unsettled { left_behind: vec![fast], ..Unsettled::default() });
        let left = findings(&valid(), &left);
        assert_eq!(of(&left, types::READY), (Status::False, Reason::EventsHeld));
        let mut suspended = valid();
        suspended.desired.state = crds::registry::TenantState::Suspended;
        assert_eq!(of(&findings(&suspended, &applied()), types::READY), (Status::True, Reason::Suspended));
    }

    #[test]
    fn a_deletion_says_what_is_removed_and_what_it_waits_for() {
        let findings = findings_of_deletion(Reason::DeletionBlocked, "S3 is away", &[types::SEARCH_READY]);
        assert_eq!(of(&findings, types::READY), (Status::False, Reason::DeletionBlocked));
        assert_eq!(of(&findings, types::SEARCH_READY), (Status::False, Reason::Retiring));
        assert!(!findings.iter().any(|finding| finding.type_ == types::OBJECT_STORE_READY), "as it was");
    }

    #[test]
    fn the_same_findings_give_the_same_status() {
        let mut tenant = acme();
        let now = crate::kubernetes::now();
        let (valid, applied) = (valid(), applied());
        let first = status(&tenant, findings(&valid, &applied), Some((&valid, &applied)), now);
        tenant.status = Some(first.clone());
        let later = serde_json::from_value("2030-01-01T00:00:00Z".into()).unwrap();
        assert_eq!(status(&tenant, findings(&valid, &applied), Some((&valid, &applied)), later), first);
        assert_eq!(first.backends.unwrap().index_alias, "lh-t-acme");
        assert!(first.conditions.iter().all(|condition| condition.observed_generation == Some(1)));
    }

    #[test]
    fn effective_quotas_are_those_that_ingest_was_told() {
        let mut valid = valid();
        let events = crds::registry::Rate { per_second: 100, burst: 1000 };
        valid.desired.quotas.events = Some(events);
        let now = crate::kubernetes::now();
        let shown = |applied: &Applied| {
            let status = status(&acme(), findings(&valid, applied), Some((&valid, applied)), now.clone());
            status.effective_quotas.map(|quotas| (quotas.ingest_events_per_second, quotas.ingest_bytes_per_second))
        };
        assert_eq!(shown(&applied()), Some((Some(100), None)));
        assert_eq!(shown(&Applied { credentials: down(), ..applied() }), None);
    }

    #[test]
    fn a_rotation_is_echoed_once_it_is_carried_out_and_a_wrong_one_is_answered() {
        let mut tenant = acme();
        let mut row = key_row("a", at(0), None);
        let asked = |tenant: &mut Tenant, value: &str| {
            tenant.annotations_mut().insert(ROTATE_KEYS_ANNOTATION.to_owned(), value.to_owned());
            validate(tenant, &settings(), &settings().plans, true).unwrap()
        };
        let echoed = |tenant: &Tenant, valid: &ValidTenant, row: &crate::provision::IssuedKeyRow| {
            let keys = AppliedKeys { live: vec![row.clone()], ..AppliedKeys::default() };
            let applied = Applied { keys: Some(keys), ..applied() };
            let now = crate::kubernetes::now();
            status(tenant, findings(valid, &applied), Some((valid, &applied)), now).last_handled_key_rotation
        };
        let valid = asked(&mut tenant, "main@1");
        assert_eq!(echoed(&tenant, &valid, &row), None);
        row.key.request = Some("1".into());
        assert_eq!(echoed(&tenant, &valid, &row).as_deref(), Some("main@1"));
        for (wrong, said) in [("main", "is not understood"), ("other@1", "`other`")] {
            let valid = asked(&mut tenant, wrong);
            assert_eq!(echoed(&tenant, &valid, &row), None, "{wrong}");
            let findings = findings(&valid, &applied());
            let keys = findings.iter().find(|finding| finding.type_ == types::CREDENTIALS_READY).unwrap();
            assert_eq!(keys.status, Status::True);
            assert!(keys.message.contains(said), "{}", keys.message);
        }
    }

    #[test]
    fn drift_is_a_change_of_what_was_ready_at_this_generation() {
        let mut tenant = acme();
        let repaired = Applied { search: Ok(Outcome::Created), ..applied() };
        assert!(drift(&tenant, &repaired).is_empty());
        let now = crate::kubernetes::now();
        tenant.status = Some(status(&tenant, findings(&valid(), &applied()), None, now));
        let found: Vec<Store> = drift(&tenant, &repaired).into_iter().map(|(store, _)| store).collect();
        assert_eq!(found, [Store::opensearch]);
        assert!(drift(&tenant, &applied()).is_empty());
        let rewritten = Applied { credentials: Ok(Outcome::Created), ..applied() };
        assert_eq!(drift(&tenant, &rewritten).len(), 1, "a lost key");
        let ended = KeyChange::Ended { name: "main".into(), id: "a".into() };
        let keys = AppliedKeys { changes: vec![ended], ..AppliedKeys::default() };
        assert!(drift(&tenant, &Applied { keys: Some(keys), ..rewritten }).is_empty(), "a key's end is none");
        tenant.metadata.generation = Some(2);
        assert!(drift(&tenant, &repaired).is_empty());
    }
}
