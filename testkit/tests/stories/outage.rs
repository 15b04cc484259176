//! A store is down: what still works says so, and what was missed is made up for.

use api::event::Source;
use serde_json::json;
use testkit::eventually;
use testkit::stores::control::{Outage, Store};

use crate::stage::{LATER, SOON, Stage};

#[tokio::test]
async fn without_opensearch_logs_are_accepted_listed_and_read_and_indexed_afterwards() -> anyhow::Result<()> {
    let stage = Stage::enter_alone().await;
    let mut tenant = stage.tenant("outage").await?;
    let outage = Outage::of(Store::OpenSearch).await?;

    tenant.send_numbered(0, 100).await?;
    let sent = json!({"service": "dark", "message": "sent in the dark", "full_log": "sent in the dark\nwith a torch"});
    let accepted = tenant.door.send_json(&sent).await?;
    tenant.ledger.record(&accepted);
    let listed = eventually("it is listed from the catalog", SOON, || async {
        let page = tenant.door.list("service=dark").await?;
        page.items.first().cloned().ok_or_else(|| anyhow::anyhow!("nothing listed from {}", page.source))
    })
    .await?;
    assert!(!listed.indexed);
    let detail = tenant.door.detail(listed.id).await?;
    assert_eq!(detail.full_log.as_deref(), sent["full_log"].as_str(), "read from the spool or the archive");
    for query in ["q=dark", "q=torch"] {
        let searched = tenant.door.search(query).await?;
        assert_eq!((searched.source, searched.items.len()), (Source::Scan, 1), "{query} is found in the raw lines");
    }

    outage.end().await?;
    eventually("the search finds it in the index", LATER, || async {
        let page = tenant.door.search("q=torch").await?;
        anyhow::ensure!(
            page.source == Source::Index && page.items.len() == 1,
            "{} from {}",
            page.items.len(),
            page.source
        );
        Ok(())
    })
    .await?;
    stage.everything_once(&tenant, LATER).await?;
    stage.clear(&tenant).await
}

#[tokio::test]
async fn a_tenant_applied_while_a_store_is_down_says_which_and_becomes_ready_by_itself() -> anyhow::Result<()> {
    let stage = Stage::enter_alone().await;
    let outage = Outage::of(Store::Minio).await?;
    let name = stage.apply(&testkit::unique("early"), json!({})).await?;
    let condition = stage.cluster.tenant_condition(&name, "ObjectStoreReady", "False", SOON).await?;
    assert_eq!(condition.reason, "BackendUnavailable", "{}", condition.message);
    stage.cluster.tenant_condition(&name, "DatabaseReady", "True", SOON).await?;
    stage.cluster.tenant_condition(&name, "Ready", "False", SOON).await?;
    outage.end().await?;

    stage.cluster.tenant_ready(&name, LATER).await?;
    let mut tenant = stage.actor(&name).await?;
    tenant.send_numbered(0, 1).await?;
    stage.clear(&tenant).await
}
