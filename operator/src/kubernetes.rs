//! Small ways of talking to the Kubernetes API: server-side apply, finalizers, Events, errors.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crds::PAUSED_ANNOTATION;
use crds::condition::{Finding, Reason, types};

use crate::settings::Settings;

/// Field manager of everything but replicas.
pub const FIELD_MANAGER: &str = "loggerhub-operator";
/// Field manager of replicas, on the scale subresource.
pub const SCALER_FIELD_MANAGER: &str = "loggerhub-scaler";
/// Field manager of the condition CanaryHealthy.
pub const CANARY_FIELD_MANAGER: &str = "loggerhub-canary";

/// What the audit log calls the operator. Who asked it stands in the API server's own audit log.
pub const ACTOR: &str = "operator";

/// Now, as Kubernetes writes it: without fractions of a second.
pub fn now() -> Time {
    let second = Timestamp::from_second(Timestamp::now().as_second());
    Time(second.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Applies an object as ours, also where somebody else has set our fields.
pub async fn apply<K>(api: &Api<K>, object: &K) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    api.patch(&object.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await
}

/// Applies an object as ours, or fails where somebody else has set one of our fields.
pub async fn apply_beside<K>(api: &Api<K>, object: &K) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    api.patch(&object.name_any(), &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(object)).await
}

/// The operator's own Deployment, for Events about what no Tenant or pipeline stands for.
pub fn operator_itself(settings: &Settings) -> ObjectReference {
    ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some("Deployment".to_owned()),
        name: Some(format!("{}-operator", settings.release)),
        namespace: Some(settings.namespace.clone()),
        ..ObjectReference::default()
    }
}

/// Sets a Deployment's replicas, as the scaler's field. Whoever else set them is overruled.
pub async fn set_replicas(deployments: &Api<Deployment>, name: &str, replicas: i32) -> kube::Result<()> {
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    });
    let params = PatchParams::apply(SCALER_FIELD_MANAGER).force();
    deployments.patch_scale(name, &params, &Patch::Apply(scale)).await?;
    Ok(())
}

/// Lets go of the replicas that we applied: they stay what they are until somebody scales. An apply
/// that just names them no more would make them one.
pub async fn release_replicas(deployments: &Api<Deployment>, name: &str) -> kube::Result<()> {
    match deployments.get_opt(name).await?.and_then(|found| applied_replicas(&found)) {
        Some(replicas) => set_replicas(deployments, name, replicas).await,
        None => Ok(()),
    }
}

/// A Deployment's replicas, if they are what [`apply`] made them.
fn applied_replicas(deployment: &Deployment) -> Option<i32> {
    let mut entries = deployment.metadata.managed_fields.iter().flatten();
    let ours = entries.any(|entry| {
        let replicas = entry.fields_v1.as_ref().and_then(|fields| fields.0.pointer("/f:spec/f:replicas"));
        entry.manager.as_deref() == Some(FIELD_MANAGER) && replicas.is_some()
    });
    deployment.spec.as_ref().filter(|_| ours)?.replicas
}

/// Applies a status under a field manager.
pub async fn apply_status<K, S>(api: &Api<K>, name: &str, manager: &str, status: &S) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize,
{
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    api.patch_status(name, &PatchParams::apply(manager).force(), &Patch::Apply(body)).await?;
    Ok(())
}

/// Sets the object's finalizers. The resource version guards against somebody else's change.
pub async fn set_finalizers<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Adds a finalizer. Never called for an object under deletion.
pub async fn add_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    set_finalizers(api, object, &finalizers).await
}

/// Removes a finalizer; fine if the object is gone.
pub async fn remove_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let others: Vec<String> = object.finalizers().iter().filter(|one| *one != finalizer).cloned().collect();
    match set_finalizers(api, object, &others).await {
        Err(error) if is_not_found(&error) => Ok(()),
        result => result.map(drop),
    }
}

/// Whether somebody wants this object left as it is for now.
pub fn is_paused(object: &impl ResourceExt) -> bool {
    object.annotations().get(PAUSED_ANNOTATION).is_some_and(|value| value == "true")
}

/// Whether the API says that something is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    code(error) == Some(404)
}

/// Whether the API says that we may not.
pub fn is_forbidden(error: &kube::Error) -> bool {
    code(error) == Some(403)
}

/// Whether the API says that somebody else was faster.
pub fn is_conflict(error: &kube::Error) -> bool {
    code(error) == Some(409)
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What the API said, or why it said nothing: short, for a condition.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => format!("Kubernetes API: {other}"),
    }
}

/// One Event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody should look.
    pub warning: bool,
    /// Why.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Publishes Events. One that can't be published is logged and lost: it only repeats the status.
pub async fn publish<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, notes: Vec<Note>) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            // A note holds 1 KiB.
            note: Some(note.message.chars().take(500).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(object.name = object.name_any(), "publish an Event: {}", explain(&error));
        }
    }
}

/// What is worth an Event: a condition whose status or reason is another than before.
pub fn transitions(before: &[Condition], findings: &[Finding]) -> Vec<Note> {
    let changed = |finding: &&Finding| {
        let was = before.iter().find(|condition| condition.type_ == finding.type_);
        match was {
            // That what was being put in place is there now, Ready says for all of it.
            Some(was) if was.reason == Reason::Provisioning.as_str() && finding.type_ != types::READY => {
                is_bad(finding)
            }
            Some(was) => was.status != finding.status.as_str() || was.reason != finding.reason.as_str(),
            // The first time, what is as it should be is not news.
            None => is_bad(finding),
        }
    };
    let note = |finding: &Finding| Note {
        warning: is_bad(finding),
        reason: finding.reason.as_str(),
        message: format!("{}: {}", finding.type_, finding.message),
    };
    findings.iter().filter(|finding| !is_progress(finding)).filter(changed).map(note).collect()
}

/// Reconciling and Stalled repeat what the other conditions say.
fn is_progress(finding: &Finding) -> bool {
    [types::RECONCILING, types::STALLED].contains(&finding.type_)
}

fn is_bad(finding: &Finding) -> bool {
    let expected = [
        Reason::Provisioning,
        Reason::Suspended,
        Reason::Draining,
        Reason::Retiring,
        Reason::WaitingForPods,
        Reason::External,
        Reason::Paused,
    ];
    finding.status != crds::condition::Status::True && !expected.contains(&finding.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::condition::{Status, set};

    fn finding(status: Status, reason: Reason) -> Finding {
        Finding { type_: types::DATABASE_READY, status, reason, message: "m".into() }
    }

    #[test]
    fn an_event_is_published_once_per_transition() {
        let good = finding(Status::True, Reason::Provisioned);
        let bad = finding(Status::False, Reason::BackendUnavailable);
        assert!(transitions(&[], std::slice::from_ref(&good)).is_empty());
        let mut conditions = Vec::new();
        set(&mut conditions, good.clone(), None, now());
        let notes = transitions(&conditions, std::slice::from_ref(&bad));
        assert_eq!((notes.len(), notes[0].warning, notes[0].reason), (1, true, "BackendUnavailable"));
        set(&mut conditions, bad.clone(), None, now());
        assert!(transitions(&conditions, std::slice::from_ref(&bad)).is_empty());
        let notes = transitions(&conditions, &[good]);
        assert_eq!((notes.len(), notes[0].warning), (1, false));
    }

    #[test]
    fn a_tenant_that_is_put_in_place_is_one_event() {
        let being_put = |type_| Finding { type_, ..finding(Status::Unknown, Reason::Provisioning) };
        let in_place = |type_| Finding { type_, ..finding(Status::True, Reason::Provisioned) };
        let all = [types::DATABASE_READY, types::SEARCH_READY, types::READY];
        let mut conditions = Vec::new();
        for type_ in all {
            set(&mut conditions, being_put(type_), None, now());
        }
        let notes = transitions(&conditions, &all.map(in_place));
        assert_eq!(notes.iter().map(|note| note.message.as_str()).collect::<Vec<_>>(), ["Ready: m"]);
        let down = Finding { type_: types::SEARCH_READY, ..finding(Status::False, Reason::BackendUnavailable) };
        assert!(transitions(&conditions, &[down])[0].warning);
    }
}
