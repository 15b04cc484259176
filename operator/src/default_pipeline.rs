//! The LogPipeline `default`: part of the installation, so the operator keeps it.
//!
//! Helm resolves every kind of a release before it creates anything, so a chart can't install a CRD
//! and a resource of it at once. The chart puts the wanted spec into the operator's settings instead.

use std::time::Duration;

use crds::names::DEFAULT_PIPELINE;
use crds::{LogPipeline, LogPipelineSpec};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, jittered};
use crate::kubernetes::explain;
use crate::settings::Settings;

/// Field manager of what the installation says; another one than the controllers', so that neither
/// takes the other's fields away.
const MANAGER: &str = "loggerhub-installation";

/// Keeps the pipeline `default` as the settings say until `shutdown`; nothing if they say nothing.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) {
    let Some(spec) = &settings.default_pipeline else { return };
    let backoff = Backoff::default();
    loop {
        let wait = match ensure(&client, &settings.namespace, spec).await {
            Ok(_) => {
                backoff.succeeded(DEFAULT_PIPELINE);
                jittered(Duration::from_secs(settings.resync_seconds))
            }
            Err(error) => {
                tracing::warn!("apply the pipeline `{DEFAULT_PIPELINE}`: {}", explain(&error));
                backoff.failed(DEFAULT_PIPELINE)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Whether a spec is one of a LogPipeline; says where not.
pub fn check(spec: &Value) -> Result<(), serde_json::Error> {
    serde_json::from_value::<LogPipelineSpec>(spec.clone()).map(drop)
}

/// Applies the pipeline. A field that somebody else added stays; one that the installation sets is set.
async fn ensure(client: &Client, namespace: &str, spec: &Value) -> kube::Result<LogPipeline> {
    let api: Api<LogPipeline> = Api::namespaced(client.clone(), namespace);
    let pipeline = json!({
        "apiVersion": LogPipeline::api_version(&()),
        "kind": LogPipeline::kind(&()),
        "metadata": {"name": DEFAULT_PIPELINE, "labels": {"app.kubernetes.io/managed-by": "loggerhub-operator"}},
        "spec": spec,
    });
    api.patch(DEFAULT_PIPELINE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&pipeline)).await
}
