//! Two tenants never see each other, whatever they ask.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use testkit::eventually;
use testkit::http::Door;

use crate::stage::{SOON, Stage};

#[tokio::test]
async fn two_tenants_never_see_each_other_on_any_route() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let (ours, theirs) = (stage.tenant("ours").await?, stage.tenant("theirs").await?);
    let mut their_tail = theirs.door.watch().await?;
    let accepted = ours.door.send_json(&json!({"service": "vault", "message": "our secret xylophone"})).await?;
    let event = eventually("we find our own", SOON, || async {
        let page = ours.door.search("q=xylophone").await?;
        page.items.first().cloned().ok_or_else(|| anyhow::anyhow!("nothing yet"))
    })
    .await?;
    let id = event["id"].as_str().unwrap_or_default();

    assert!(theirs.door.search("q=xylophone").await?.items.is_empty());
    assert!(theirs.door.list("limit=500").await?.items.is_empty());
    for path in [format!("/api/logs/{id}"), format!("/api/batches/{}", accepted.batch_id)] {
        let (status, code) = Door::refusal(theirs.door.request(Method::GET, &path)).await?;
        assert_eq!((status, code.as_str()), (404, "not_found"), "{path}");
    }
    if let Some(receipt) = &accepted.receipt {
        let path = format!("/api/batches/{}?receipt={receipt}", accepted.batch_id);
        let (status, _) = Door::refusal(theirs.door.request(Method::GET, &path)).await?;
        assert_eq!(status, 404, "another tenant's receipt opens nothing");
    }
    assert_eq!(their_tail.events_during(Duration::from_secs(2)).await, Vec::<serde_json::Value>::new());

    for header in ["X-Scope-OrgID", "X-Tenant"] {
        let listing = theirs.door.request(Method::GET, "/api/logs").header(header, &ours.name);
        assert_eq!(Door::refusal(listing).await?, (403, "tenant_mismatch".to_owned()), "{header}");
        let sending = theirs.door.send().header(header, &ours.name).json(&json!({"message": "forged"}));
        assert_eq!(Door::refusal(sending).await?, (403, "tenant_mismatch".to_owned()), "{header}");
    }
    let forged = theirs.door.send().json(&json!({"message": "forged", "tenant_id": ours.name}));
    assert_eq!(Door::refusal(forged).await?, (403, "tenant_mismatch".to_owned()));

    // The stores themselves hold nothing of the one in the other's places.
    let held = stage.holdings(&theirs)?;
    assert!(held.catalog().await?.is_empty() && held.index().await?.is_empty());
    stage.clear(&ours).await?;
    stage.clear(&theirs).await
}
