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
    let id = event.id;

    ours.door.send_lines("{\"message\":\"good\"}\nour broken line\n").await?;
    let dead = eventually("we find our dead letter", SOON, || async {
        let page = ours.door.dead_letters("").await?;
        page.items.first().map(|letter| letter.id).ok_or_else(|| anyhow::anyhow!("none yet"))
    })
    .await?;
    let dead_letters = theirs.door.dead_letters("limit=500").await?;
    assert!(dead_letters.items.is_empty(), "{dead_letters:?}");

    assert!(theirs.door.search("q=xylophone").await?.items.is_empty());
    assert!(theirs.door.list("limit=500").await?.items.is_empty());
    for path in
        [format!("/api/logs/{id}"), format!("/api/batches/{}", accepted.batch_id), format!("/api/dead-letters/{dead}")]
    {
        let (status, code) = Door::refusal(theirs.door.request(Method::GET, &path)).await?;
        assert_eq!((status, code.as_str()), (404, "not_found"), "{path}");
    }
    // Neither key may manage: not even its own tenant's dead letters.
    for (method, path) in [
        (Method::POST, format!("/api/dead-letters/{dead}/redrive")),
        (Method::POST, "/api/dead-letters/redrive".to_owned()),
        (Method::DELETE, format!("/api/dead-letters/{dead}")),
        (Method::DELETE, "/api/dead-letters?all=true".to_owned()),
    ] {
        for door in [&ours.door, &theirs.door] {
            let refusal = Door::refusal(door.request(method.clone(), &path)).await?;
            assert_eq!(refusal, (403, "scope_missing".to_owned()), "{method} {path}");
        }
    }
    let path = format!("/api/batches/{}?receipt={}", accepted.batch_id, accepted.receipt);
    let refusal = Door::refusal(theirs.door.request(Method::GET, &path)).await?;
    assert_eq!(refusal, (400, "invalid_receipt".to_owned()), "another tenant's receipt opens nothing");
    assert_eq!(their_tail.events_during(Duration::from_secs(2)).await, []);

    for header in ["X-Scope-OrgID", "X-Tenant"] {
        let listing = theirs.door.request(Method::GET, "/api/logs").header(header, &ours.name);
        assert_eq!(Door::refusal(listing).await?, (403, "tenant_mismatch".to_owned()), "{header}");
        let sending = theirs.door.send().header(header, &ours.name).json(&json!({"message": "forged"}));
        assert_eq!(Door::refusal(sending).await?, (403, "tenant_mismatch".to_owned()), "{header}");
    }

    // The stores themselves hold nothing of the one in the other's places.
    let held = stage.holdings(&theirs)?;
    assert!(held.catalog().await?.is_empty() && held.index().await?.is_empty());
    stage.clear(&ours).await?;
    stage.clear(&theirs).await
}
