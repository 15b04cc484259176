//! A LogPipeline's status as far as the controller writes it: a pure function of what was applied.
//! ScalingActive and the numbers of the backlog are the scaler's.

use crds::condition::{Finding, Reason, Status, set, types};
use crds::{LogPipeline, RECONCILE_REQUESTED_AT_ANNOTATION};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde::Serialize;

/// The part of the status that this controller owns.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// Generation that this speaks of.
    pub observed_generation: Option<i64>,
    /// Accepted, Ready, Reconciling, Stalled.
    pub conditions: Vec<Condition>,
    /// Processors that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Value of the annotation that was last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

/// Conditions that this controller owns.
const OWN: [&str; 4] = [types::ACCEPTED, types::READY, types::RECONCILING, types::STALLED];

/// The part of the status that this controller wrote last.
pub fn before(pipeline: &LogPipeline) -> Option<ControllerStatus> {
    let status = pipeline.status.as_ref()?;
    Some(ControllerStatus {
        observed_generation: status.observed_generation,
        conditions: status.conditions.iter().filter(|one| OWN.contains(&one.type_.as_str())).cloned().collect(),
        ready_replicas: status.ready_replicas,
        last_handled_reconcile_at: status.last_handled_reconcile_at.clone(),
    })
}

/// The status that says so, from the one before.
pub fn status(pipeline: &LogPipeline, findings: Vec<Finding>, ready: Option<i32>, now: Time) -> ControllerStatus {
    let mut conditions = before(pipeline).map(|before| before.conditions).unwrap_or_default();
    for finding in findings {
        set(&mut conditions, finding, pipeline.metadata.generation, now.clone());
    }
    ControllerStatus {
        observed_generation: pipeline.metadata.generation,
        conditions,
        ready_replicas: ready,
        last_handled_reconcile_at: pipeline.annotations().get(RECONCILE_REQUESTED_AT_ANNOTATION).cloned(),
    }
}

/// What is said of a pipeline that we do not run.
pub fn refused(reason: Reason, message: &str) -> Vec<Finding> {
    [
        (types::ACCEPTED, Status::False),
        (types::READY, Status::False),
        (types::RECONCILING, Status::False),
        (types::STALLED, Status::True),
    ]
    .map(|(type_, status)| Finding { type_, status, reason, message: message.to_owned() })
    .into()
}

/// What is said of a pipeline whose objects can't be applied or whose streams can't be handed over.
pub fn blocked(reason: Reason, message: &str) -> Vec<Finding> {
    [(types::READY, Status::False), (types::RECONCILING, Status::True), (types::STALLED, Status::False)]
        .map(|(type_, status)| Finding { type_, status, reason, message: message.to_owned() })
        .into()
}

/// What is said of a pipeline whose objects are applied.
pub fn findings(pipeline: &LogPipeline, processor: &Deployment, ingest: Option<&Deployment>) -> Vec<Finding> {
    let accepted = Finding {
        type_: types::ACCEPTED,
        status: Status::True,
        reason: Reason::Accepted,
        message: "the pipeline is one that is run".to_owned(),
    };
    // While processors are added the pipeline goes on with those that it has.
    let least = pipeline.spec.processor.scaling.min_replicas;
    let waits =
        waits_for("processors", processor, least).or_else(|| ingest.and_then(|ingest| waits_for("ingest", ingest, 1)));
    let (status, reason, message, reconciling) = match (pipeline.spec.suspend, waits) {
        (true, _) => {
            let message = "spec.suspend is set: events are accepted and wait".to_owned();
            (Status::False, Reason::Suspended, message, Status::False)
        }
        (false, Some(message)) => (Status::False, Reason::WaitingForPods, message, Status::True),
        (false, None) => (Status::True, Reason::Provisioned, "its pods are available".to_owned(), Status::False),
    };
    let say = |type_, status| Finding { type_, status, reason, message: message.clone() };
    vec![accepted, say(types::READY, status), say(types::RECONCILING, reconciling), say(types::STALLED, Status::False)]
}

/// What a Deployment is waited for, if it is.
fn waits_for(what: &str, deployment: &Deployment, least: i32) -> Option<String> {
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return Some(format!("{what}: the Deployment is not seen to yet"));
    }
    let desired = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if desired == 0 && least > 0 {
        return Some(format!("{what}: none is wanted, so events wait: scale its Deployment to 1 or more"));
    }
    let needed = desired.min(least);
    let available = status.available_replicas.unwrap_or(0);
    if available < needed {
        return Some(format!("{what}: {available} of {desired} pods are available"));
    }
    let updated = status.updated_replicas.unwrap_or(0);
    (updated < needed).then(|| format!("{what}: {updated} of {desired} pods are of the latest version"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pipeline(suspend: bool) -> LogPipeline {
        serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline",
            "metadata": {"name": "default", "generation": 2}, "spec": {"suspend": suspend},
        }))
        .unwrap()
    }

    fn deployment(replicas: i32, available: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"generation": 5},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": {"observedGeneration": 5, "availableReplicas": available, "updatedReplicas": available},
        }))
        .unwrap()
    }

    fn ready(suspend: bool, processor: &Deployment, ingest: Option<&Deployment>) -> (Status, Reason) {
        let findings = findings(&pipeline(suspend), processor, ingest);
        let ready = findings.iter().find(|finding| finding.type_ == types::READY).unwrap();
        (ready.status, ready.reason)
    }

    #[test]
    fn a_pipeline_is_ready_with_the_pods_that_it_needs_at_least() {
        let good = (Status::True, Reason::Provisioned);
        let waiting = (Status::False, Reason::WaitingForPods);
        assert_eq!(ready(false, &deployment(1, 1), None), good);
        assert_eq!(ready(false, &deployment(8, 1), None), good);
        assert_eq!(ready(false, &deployment(1, 0), None), waiting);
        assert_eq!(ready(false, &deployment(0, 0), None), waiting, "somebody has scaled it to none");
        assert_eq!(ready(false, &deployment(1, 1), Some(&deployment(0, 0))), waiting);
        let mut sleeps = pipeline(false);
        sleeps.spec.processor.scaling.min_replicas = 0;
        let findings = findings(&sleeps, &deployment(0, 0), None);
        assert!(findings.iter().any(|one| one.type_ == types::READY && one.status == Status::True));
        assert_eq!(ready(false, &deployment(1, 1), Some(&deployment(2, 0))), waiting);
        assert_eq!(ready(false, &Deployment { status: None, ..deployment(1, 1) }, None), waiting);
        assert_eq!(ready(true, &deployment(0, 0), None), (Status::False, Reason::Suspended));
    }

    #[test]
    fn the_scalers_condition_is_left_to_the_scaler() {
        let mut pipeline = pipeline(false);
        let now = crate::kubernetes::now();
        let mut conditions = Vec::new();
        let scaling = Finding {
            type_: types::SCALING_ACTIVE,
            status: Status::True,
            reason: Reason::Steady,
            message: String::new(),
        };
        set(&mut conditions, scaling, None, now.clone());
        pipeline.status = Some(crds::LogPipelineStatus { conditions, ..crds::LogPipelineStatus::default() });
        let written = status(&pipeline, refused(Reason::InvalidSpec, "no"), None, now);
        assert_eq!(written.conditions.len(), 4);
        assert!(written.conditions.iter().all(|condition| condition.type_ != types::SCALING_ACTIVE));
    }
}
