//! The Job that compares a tenant's stores, and what its pod says of itself.

use crds::TENANT_LABEL;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::args::{Output, VerifyArgs};
use crate::kubernetes::MANAGER;

/// Exit code: whether the stores agree could not be found out.
pub(super) const UNKNOWN: u8 = 2;
/// Seconds that a Job is kept if this program could not remove it.
pub(super) const KEPT: i32 = 600;

/// The Job: a pod like those of `maintain`, with other arguments, once.
pub(super) fn job(maintain: &Deployment, args: &VerifyArgs, form: Output) -> Option<Job> {
    let mut template = maintain.spec.as_ref()?.template.clone();
    let pod = template.spec.as_mut()?;
    pod.restart_policy = Some("Never".to_owned());
    pod.containers.truncate(1);
    let container = pod.containers.first_mut()?;
    container.args = Some(arguments(args, form));
    container.liveness_probe = None;
    container.readiness_probe = None;
    container.startup_probe = None;
    container.lifecycle = None;
    let env = container.env.get_or_insert_default();
    env.retain(|variable| variable.name != "LOGGERHUB_LOG_FORMAT");
    let json = Some("json".to_owned());
    env.push(EnvVar { name: "LOGGERHUB_LOG_FORMAT".to_owned(), value: json, value_from: None });
    let labels = [(TENANT_LABEL, args.tenant.as_str()), ("app.kubernetes.io/managed-by", MANAGER)];
    Some(Job {
        metadata: ObjectMeta {
            generate_name: Some("loggerhub-verify-".to_owned()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            active_deadline_seconds: i64::try_from(args.timeout.as_secs()).ok(),
            ttl_seconds_after_finished: Some(KEPT),
            template,
            ..JobSpec::default()
        }),
        status: None,
    })
}

fn arguments(args: &VerifyArgs, form: Output) -> Vec<String> {
    let mut list = vec!["verify".to_owned(), "--tenant".to_owned(), args.tenant.to_string()];
    for (name, value) in [("--from", &args.from), ("--to", &args.to)] {
        list.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
    }
    list.extend(args.repair.then(|| "--repair".to_owned()));
    list.extend((form == Output::Json).then(|| "--output=json".to_owned()));
    list
}

/// The pod's phase; a new pod's is Pending.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Why the pod does not run, as Kubernetes says it.
pub(super) fn waits_for(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "it is new".to_owned() };
    let waiting = status.container_statuses.iter().flatten().find_map(|one| one.state.as_ref()?.waiting.as_ref());
    let unmet = status.conditions.iter().flatten().find(|condition| condition.status == "False");
    let said = match (waiting, unmet) {
        (Some(waiting), _) => [waiting.reason.clone(), waiting.message.clone()],
        (None, Some(unmet)) => [unmet.reason.clone(), unmet.message.clone()],
        (None, None) => [status.reason.clone(), status.message.clone()],
    };
    format!("pod {} is {}: {}", pod.name_any(), phase(pod), said.into_iter().flatten().collect::<Vec<_>>().join(": "))
}

/// The exit code of the pod's program once it has ended.
pub(super) fn exit_code(pod: &Pod) -> Option<u8> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let code = containers.first()?.state.as_ref()?.terminated.as_ref()?.exit_code;
    // What ended by a signal or by its deadline has found nothing out.
    Some(u8::try_from(code).ok().filter(|code| *code <= UNKNOWN).unwrap_or(UNKNOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn args() -> VerifyArgs {
        let timeout = Duration::from_secs(90);
        VerifyArgs { tenant: "acme".parse().unwrap(), from: None, to: None, repair: false, timeout }
    }

    #[test]
    fn the_job_is_a_pod_of_maintain_that_runs_once() {
        let maintain: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "loggerhub-maintain"},
            "spec": {"selector": {}, "template": {
                "metadata": {"labels": {"app.kubernetes.io/component": "maintain"}},
                "spec": {"serviceAccountName": "loggerhub-dataplane", "containers": [{
                    "name": "maintain", "image": "loggerhub:1", "args": ["maintain"],
                    "env": [{"name": "LOGGERHUB_LOG_FORMAT", "value": "text"}, {"name": "A", "value": "b"}],
                    "livenessProbe": {}, "readinessProbe": {}, "lifecycle": {},
                    "volumeMounts": [{"name": "s3", "mountPath": "/s3"}],
                }], "volumes": [{"name": "s3"}]},
            }},
        }))
        .unwrap();
        let job = serde_json::to_value(job(&maintain, &args(), Output::Table).unwrap()).unwrap();
        assert_eq!(
            job["metadata"]["labels"],
            json!({"loggerhub.io/tenant": "acme",
            "app.kubernetes.io/managed-by": "kubectl-loggerhub"})
        );
        assert_eq!(job["spec"]["backoffLimit"], 0);
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 90);
        let pod = &job["spec"]["template"];
        // Network policies go by this label.
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/component"], "maintain");
        assert_eq!(
            pod["spec"],
            json!({"serviceAccountName": "loggerhub-dataplane", "restartPolicy": "Never", "containers": [{
                "name": "maintain", "image": "loggerhub:1", "args": ["verify", "--tenant", "acme"],
                "env": [{"name": "A", "value": "b"}, {"name": "LOGGERHUB_LOG_FORMAT", "value": "json"}],
                "volumeMounts": [{"name": "s3", "mountPath": "/s3"}],
            }], "volumes": [{"name": "s3"}]})
        );
        assert!(super::job(&Deployment::default(), &args(), Output::Table).is_none());
    }

    #[test]
    fn what_was_asked_for_is_passed_on() {
        let asked = VerifyArgs { from: Some("2026-01-01T00:00:00Z".to_owned()), repair: true, ..args() };
        assert_eq!(
            arguments(&asked, Output::Json).join(" "),
            "verify --tenant acme --from 2026-01-01T00:00:00Z --repair --output=json"
        );
    }

    #[test]
    fn the_exit_code_is_the_programs_and_what_did_not_end_has_none() {
        for (state, expected) in [
            (json!({"terminated": {"exitCode": 0}}), Some(0)),
            (json!({"terminated": {"exitCode": 1}}), Some(1)),
            (json!({"terminated": {"exitCode": 137}}), Some(2)),
            (json!({"running": {}}), None),
        ] {
            let status = json!({"containerStatuses": [{"name": "m", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": state}]});
            let pod: Pod = serde_json::from_value(json!({"status": status})).unwrap();
            assert_eq!(exit_code(&pod), expected);
        }
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let pod = |status: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
        };
        let unmet = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]});
        assert_eq!(waits_for(&pod(unmet)), "pod p is Pending: Unschedulable: 0/1 nodes");
        let pulling = json!({"phase": "Pending", "containerStatuses": [{"name": "m", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        assert_eq!(waits_for(&pod(pulling)), "pod p is Pending: ImagePullBackOff");
    }
}
