//! `helm test` of the installed release: a pod of the chart's sends an event and finds it again.

use serde_json::json;
use testkit::helm;

use crate::stage::{SOON, Stage};

#[tokio::test]
async fn helm_test_sends_an_event_and_finds_it() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let cluster = &stage.cluster;
    let release = &cluster.namespace;
    // The pod can mount no Secret but those of its own namespace.
    let name = testkit::unique("trip");
    let secret = name.as_str();
    let key =
        json!({"name": "main", "scopes": ["Ingest", "Query"], "secretRef": {"name": secret, "namespace": release}});
    stage.apply(&name, json!({"namespaces": [release], "apiKeys": [key]})).await?;
    cluster.tenant_ready(&name, SOON).await?;

    helm::upgrade_reusing_values(release, &format!("tests.keySecret={secret}")).await?;
    let said = helm::test(release).await;
    helm::upgrade_reusing_values(release, "tests.keySecret=").await?;
    let said = said?;
    assert!(said.contains("accepted after ") && said.contains(" found after "), "{said}");

    cluster.delete_tenant(&name, SOON).await?;
    cluster.delete_namespace(&name).await
}
