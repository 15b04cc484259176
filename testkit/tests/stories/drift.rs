//! Somebody removes things behind our back; the next reconciliation puts them right.

use anyhow::ensure;
use crds::names::{PROCESSOR_DATABASE, REGISTRY_TENANTS};
use opensearch::indices::{IndicesDeleteAliasParts, IndicesExistsAliasParts};
use redis::AsyncCommands;
use testkit::eventually;

use crate::stage::{LATER, SOON, Stage};

#[tokio::test]
async fn what_is_dropped_in_each_store_is_repaired_on_request() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let mut tenant = stage.tenant("drift").await?;
    let schema = &tenant.backends.database_schema;
    let (bucket, alias) = (tenant.backends.bucket.clone(), tenant.backends.index_alias.clone());
    let catalog = stage.stores.postgres(PROCESSOR_DATABASE)?;
    let (s3, search) = (stage.stores.s3()?, stage.stores.opensearch()?);
    let mut queue = stage.stores.queue()?.connection()?;

    sqlx::query(&format!("DROP TABLE \"{schema}\".idempotency")).execute(&catalog).await?;
    s3.delete_bucket().bucket(&bucket).send().await?;
    let removed = IndicesDeleteAliasParts::IndexName(&["_all"], &[alias.as_str()]);
    search.indices().delete_alias(removed).send().await?.error_for_status_code()?;
    let gone: i64 = queue.hdel(REGISTRY_TENANTS, &tenant.name).await?;
    assert_eq!(gone, 1, "the tenant was in the registry");

    stage.cluster.reconcile_tenant(&tenant.name, SOON).await?;
    stage.cluster.tenant_ready(&tenant.name, SOON).await?;
    let table: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
        .bind(format!("\"{schema}\".idempotency"))
        .fetch_one(&catalog)
        .await?;
    assert!(table.is_some(), "the table is back");
    s3.head_bucket().bucket(&bucket).send().await?;
    let exists = search.indices().exists_alias(IndicesExistsAliasParts::Name(&[alias.as_str()])).send().await?;
    assert!(exists.status_code().is_success(), "the alias is back");
    eventually("the registry has it again", SOON, || async {
        let mut queue = queue.clone();
        let there: bool = queue.hexists(REGISTRY_TENANTS, &tenant.name).await?;
        ensure!(there, "not yet");
        Ok(())
    })
    .await?;

    // And it works: the same key, through every store.
    eventually("the same key sends", SOON, || async {
        tenant.door.send_json(&serde_json::json!({"message": "probe"})).await
    })
    .await
    .map(|accepted| tenant.ledger.record(&accepted))?;
    tenant.send_numbered(0, 10).await?;
    stage.everything_once(&tenant, LATER).await?;
    stage.clear(&tenant).await
}
