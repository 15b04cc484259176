//! The LogPipeline `default`: part of the installation, so the operator keeps it.
//!
//! Helm resolves every kind of a release before it creates anything, so a chart can't install a CRD
//! and a resource of it at once. The chart puts the wanted spec into the operator's settings instead.

use std::time::Duration;

use crds::names::DEFAULT_PIPELINE;
use crds::{LogPipeline, Tenant};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, jittered};
use crate::kubernetes::explain;
use crate::settings::{OPERATOR_CLASS_LABEL, Settings};

/// Field manager of what the installation says; another one than the controllers', so that neither
/// takes the other's fields away.
const MANAGER: &str = "loggerhub-installation";

/// Makes the pipeline `default` and keeps it as the settings say until `shutdown`; nothing if they say
/// nothing.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) {
    let Some(spec) = &settings.default_pipeline else { return };
    let backoff = Backoff::default();
    let mut begins = true;
    loop {
        let wait = match keep(&client, &settings, spec, begins).await {
            Ok(()) => {
                begins = false;
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

/// Applies the pipeline. A field that somebody else added stays; one that the installation sets is set.
///
/// One that is absent is made when the operator begins, and later for as long as there is a Tenant. Who
/// deletes it after the last Tenant takes the installation down, and it must not come back meanwhile.
async fn keep(client: &Client, settings: &Settings, spec: &Value, begins: bool) -> kube::Result<()> {
    let pipelines: Api<LogPipeline> = Api::namespaced(client.clone(), &settings.namespace);
    let found = pipelines.get_metadata_opt(DEFAULT_PIPELINE).await?;
    if found.is_none() && !begins && !any_tenant(client, settings).await? {
        return Ok(());
    }
    let mut pipeline = json!({
        "apiVersion": LogPipeline::api_version(&()),
        "kind": LogPipeline::kind(&()),
        "metadata": {"name": DEFAULT_PIPELINE, "labels": {"app.kubernetes.io/managed-by": "loggerhub-operator"}},
        "spec": spec,
    });
    if let Some(class) = settings.watch.class() {
        pipeline["metadata"]["labels"][OPERATOR_CLASS_LABEL] = json!(class);
    }
    if let Some(found) = found {
        // With its uid the API server does not make it again where it is deleted between the look and now.
        pipeline["metadata"]["uid"] = json!(found.metadata.uid);
    }
    pipelines.patch(DEFAULT_PIPELINE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&pipeline)).await?;
    Ok(())
}

async fn any_tenant(client: &Client, settings: &Settings) -> kube::Result<bool> {
    let one = ListParams::default().labels(&settings.watch.effective()).limit(1);
    Ok(!Api::<Tenant>::all(client.clone()).list_metadata(&one).await?.items.is_empty())
}
