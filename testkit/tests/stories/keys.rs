//! Keys: what they may do, and how soon one that is taken away stops working.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use testkit::eventually;
use testkit::http::Door;

use crate::stage::{SOON, Stage};

#[tokio::test]
async fn a_removed_key_is_refused_within_five_seconds() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let key = |name: &str, scopes: &[&str], secret: &str, namespace: &str| json!({"name": name, "scopes": scopes, "secretRef": {"name": secret, "namespace": namespace}});
    let name = testkit::unique("keys");
    let main = key("main", &["Ingest", "Query"], "loggerhub-key", &name);
    let shipper = key("shipper", &["Ingest"], "shipper-key", &name);
    stage.apply(&name, json!({"apiKeys": [main, shipper]})).await?;
    let tenant = stage.actor(&name).await?;
    let shipper = stage.door.with_key(&stage.cluster.secret_value(&name, "shipper-key", "apiKey").await?);

    let event = json!({"message": "hello"});
    eventually("the second key sends", SOON, || async { shipper.send_json(&event).await }).await?;
    let reading = Door::refusal(shipper.request(Method::GET, "/api/logs")).await?;
    assert_eq!(reading, (403, "scope_missing".to_owned()));
    assert_eq!(Door::refusal(stage.door.send().json(&event)).await?, (401, "missing_api_key".to_owned()));

    stage.apply(&name, json!({"apiKeys": [main]})).await?;
    eventually("the removed key is refused", Duration::from_secs(5), || async {
        let refused = Door::refusal(shipper.send().json(&event)).await?;
        anyhow::ensure!(refused == (401, "invalid_api_key".to_owned()), "{refused:?}");
        Ok(())
    })
    .await?;
    tenant.door.send_json(&event).await?;
    stage.clear(&tenant).await
}

#[tokio::test]
async fn a_rotated_key_sends_beside_the_one_before_until_the_overlap_is_ended() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let name = testkit::unique("rotated");
    let key = |overlap: u32| {
        json!({"apiKeys": [{"name": "main", "scopes": ["Ingest", "Query"], "rotation": {"overlapHours": overlap},
               "secretRef": {"name": "loggerhub-key", "namespace": name}}]})
    };
    stage.apply(&name, key(24)).await?;
    let before = stage.actor(&name).await?;
    let event = json!({"message": "hello"});
    before.door.send_json(&event).await?;
    stage.cluster.annotate_tenant(&name, &[(crds::ROTATE_KEYS_ANNOTATION, "main@1")]).await?;
    eventually("the rotation is echoed", SOON, || async {
        let status = stage.cluster.tenants().get(&name).await?.status.unwrap_or_default();
        anyhow::ensure!(status.last_handled_key_rotation.as_deref() == Some("main@1"), "{:?}", status.api_keys);
        Ok(())
    })
    .await?;
    let after = stage.actor(&name).await?;
    eventually("the new key sends", Duration::from_secs(5), || async { after.door.send_json(&event).await }).await?;
    before.door.send_json(&event).await?;
    stage.apply(&name, key(0)).await?;
    eventually("the old key is refused", Duration::from_secs(5), || async {
        let refused = Door::refusal(before.door.send().json(&event)).await?;
        anyhow::ensure!(refused == (401, "invalid_api_key".to_owned()), "{refused:?}");
        Ok(())
    })
    .await?;
    after.door.send_json(&event).await?;
    stage.clear(&after).await
}

#[tokio::test]
async fn a_suspended_tenant_reads_and_does_not_send() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let tenant = stage.tenant("suspended").await?;
    tenant.door.send_json(&json!({"message": "before"})).await?;
    stage.apply(&tenant.name, json!({"suspend": true})).await?;
    eventually("sending is refused", SOON, || async {
        let refused = Door::refusal(tenant.door.send().json(&json!({"message": "after"}))).await?;
        anyhow::ensure!(refused == (403, "tenant_suspended".to_owned()), "{refused:?}");
        Ok(())
    })
    .await?;
    eventually("what was sent before is listed", SOON, || async {
        let page = tenant.door.list("limit=500").await?;
        anyhow::ensure!(page.messages().contains(&"before"), "{:?}", page.messages());
        Ok(())
    })
    .await?;
    stage.clear(&tenant).await
}
