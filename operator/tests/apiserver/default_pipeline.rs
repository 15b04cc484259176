//! The pipeline `default` while an installation comes, runs and goes.

use std::time::Duration;

use crds::LogPipeline;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::{eventually, holds, unique};

use crate::operator_under_test::{Ground, Operator, SOON};

async fn has_workers(on: &Operator, workers: i32) -> LogPipeline {
    eventually(&format!("default has {workers} workers"), SOON, || async {
        let found = on.cluster.pipelines().get("default").await?;
        anyhow::ensure!(found.spec.processor.workers == workers, "{}", found.spec.processor.workers);
        Ok(found)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn default_is_kept_while_it_is_needed_and_does_not_come_back_into_an_uninstallation() {
    let ground = Ground::new().await;
    let settings = ground.settings_with(1) + "defaultPipeline: {processor: {workers: 3}}\n";
    let client = ground.cluster.client.clone();
    let on = Operator::start_on(ground, &settings, client).await;
    let pipelines = on.cluster.pipelines();
    has_workers(&on, 3).await;
    let other = Patch::Merge(json!({"spec": {"processor": {"workers": 5}}}));
    pipelines.patch("default", &PatchParams::default(), &other).await.unwrap();
    has_workers(&on, 3).await;

    // Somebody deletes it by mistake.
    let name = unique("kept");
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let before = pipelines.get("default").await.unwrap();
    assert!(before.finalizers().is_empty(), "an operator that is gone could not let it go: {:?}", before.finalizers());
    pipelines.delete("default", &DeleteParams::default()).await.unwrap();
    assert_ne!(has_workers(&on, 3).await.uid(), before.uid());

    // Tenants first, then pipelines, then the release.
    on.delete_tenant(&name).await;
    pipelines.delete("default", &DeleteParams::default()).await.unwrap();
    holds("default stays away", Duration::from_secs(5), || async {
        anyhow::ensure!(pipelines.get_opt("default").await?.is_none(), "it is there");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}
