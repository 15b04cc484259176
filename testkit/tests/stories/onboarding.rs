//! From `kubectl apply` of a Tenant to its first log found.

use std::time::Duration;

use api::batch::BatchState;
use api::event::Source;
use serde_json::json;
use testkit::eventually;

use crate::stage::{SOON, Stage};

#[tokio::test]
async fn an_applied_tenant_sends_finds_reads_and_watches_its_logs() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let acme = stage.tenant("onboard").await?;
    assert_eq!(acme.backends.database_schema, format!("tenant_{}", acme.name.replace('-', "_")));
    assert!(acme.backends.bucket.ends_with(&acme.name) || acme.backends.prefix.contains(&acme.name));

    let mut tail = acme.door.watch().await?;
    let sent = json!({
        "service": "checkout",
        "level": "error",
        "timestamp": "2026-01-02T03:04:05.678901Z",
        "message": "payment refused by bank zanzibar",
        "full_log": "payment refused by bank zanzibar\n  at pay(checkout.rs:7)",
        "metadata": {"order": 4711},
        "region": "eu-1",
    });
    let accepted = acme.door.send_json(&sent).await?;
    assert_eq!((accepted.accepted, accepted.rejected), (1, 0));

    let live = tail.event("the event just sent", SOON, |event| event.service == "checkout").await?;
    let found = eventually("the search finds it", SOON, || async {
        let page = acme.door.search("q=zanzibar").await?;
        anyhow::ensure!(page.items.len() == 1, "{} found, source {}", page.items.len(), page.source);
        Ok(page)
    })
    .await?;
    assert_eq!((found.source, found.complete), (Source::Index, true));
    assert_eq!(found.items[0].id, live.id);

    let listed = acme.door.list("service=checkout&level=ERROR").await?;
    assert_eq!(listed.messages(), ["payment refused by bank zanzibar"]);
    assert_eq!(listed.items[0].timestamp, "2026-01-02T03:04:05.678901Z");
    assert!(acme.door.list("service=other").await?.items.is_empty());

    let detail = acme.door.detail(live.id).await?;
    assert_eq!(detail.full_log.as_deref(), sent["full_log"].as_str());
    assert_eq!(json!(detail.metadata), sent["metadata"]);
    assert_eq!(json!(detail.attributes)["region"], "eu-1", "unknown fields are kept");
    assert_eq!(detail.item.tenant, acme.name);

    // From the archive too, once the raw line is there.
    eventually("its batch is archived", Duration::from_secs(60), || async {
        let batch = acme.door.batch(accepted.batch_id).await?;
        anyhow::ensure!(batch.state == BatchState::Archived, "{batch:?}");
        Ok(())
    })
    .await?;
    let archived = acme.door.detail(live.id).await?;
    assert_eq!(archived.full_log.as_deref(), sent["full_log"].as_str());
    assert!(archived.item.raw_path.as_deref().is_some_and(|path| path.starts_with("s3://")), "{archived:?}");
    stage.clear(&acme).await
}
