//! A Tenant is deleted: its key stops working, and its data stays or goes, as its policy says.

use serde_json::json;
use testkit::http::Door;
use testkit::stores::control::{Outage, Store};
use testkit::{eventually, unique};

use crate::stage::{Actor, LATER, SOON, Stage};

#[tokio::test]
async fn a_retained_tenant_keeps_its_data_and_takes_it_back() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let name = unique("retain");
    stage.apply(&name, json!({"deletionPolicy": "Retain"})).await?;
    let mut tenant = stage.actor(&name).await?;
    tenant.send_numbered(0, 50).await?;
    stage.everything_once(&tenant, LATER).await?;

    stage.cluster.delete_tenant(&name, LATER).await?;
    key_is_refused(&tenant).await?;
    let held = stage.holdings(&tenant)?;
    tenant.ledger.matches("the catalog", &held.catalog().await?)?;
    assert!(!held.objects().await?.is_empty(), "the archive stays");

    stage.apply(&name, json!({"deletionPolicy": "Delete"})).await?;
    let again = stage.actor(&name).await?;
    eventually("its events are listed again", SOON, || async {
        let page = again.door.list("limit=500").await?;
        anyhow::ensure!(page.items.len() == 50, "{} listed", page.items.len());
        Ok(())
    })
    .await?;
    tenant.ledger.matches("the index", &held.index().await?)?;
    stage.clear(&again).await
}

#[tokio::test]
async fn a_tenant_with_policy_delete_leaves_nothing_also_if_a_store_was_down() -> anyhow::Result<()> {
    let stage = Stage::enter_alone().await;
    let mut tenant = stage.tenant("delete").await?;
    tenant.send_numbered(0, 50).await?;
    stage.everything_once(&tenant, LATER).await?;

    let tenants = stage.cluster.tenants();
    let refused = tenants.delete(&tenant.name, &Default::default()).await.err().map(|error| error.to_string());
    let refused = refused.unwrap_or_else(|| "it was deleted".to_owned());
    assert!(refused.contains(&format!("loggerhub.io/confirm-delete={}", tenant.name)), "{refused}");
    tenant.send_numbered(50, 10).await?;
    stage.everything_once(&tenant, LATER).await?;

    let outage = Outage::of(Store::Minio).await?;
    stage.cluster.confirm_delete(&tenant.name).await?;
    tenants.delete(&tenant.name, &Default::default()).await?;
    key_is_refused(&tenant).await?;
    assert!(tenants.get_opt(&tenant.name).await?.is_some(), "held until its data is gone everywhere");
    outage.end().await?;
    stage.cluster.delete_tenant(&tenant.name, LATER).await?;

    let held = stage.holdings(&tenant)?;
    assert!(held.catalog().await.is_err(), "the schema is gone");
    assert!(held.objects().await.map_or(true, |keys| keys.is_empty()), "the archive is gone");
    assert!(held.index().await.is_err(), "the alias is gone");

    stage.apply(&tenant.name, json!({})).await?;
    let fresh = stage.actor(&tenant.name).await?;
    assert!(fresh.door.list("limit=5").await?.items.is_empty(), "a tenant of the same name begins empty");
    stage.clear(&fresh).await
}

async fn key_is_refused(tenant: &Actor) -> anyhow::Result<()> {
    eventually("the key is refused", SOON, || async {
        let (status, code) = Door::refusal(tenant.door.send().json(&json!({"message": "late"}))).await?;
        anyhow::ensure!(status == 401 || status == 403, "{status} {code}");
        Ok(())
    })
    .await
}
