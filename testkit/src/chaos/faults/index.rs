//! OpenSearch: away, refusing, or silent about what it did.

use std::time::Duration;

use anyhow::ensure;
use opensearch::indices::IndicesPutSettingsParts;
use serde_json::json;

use super::{STRIKE, Struck, break_by, broken};
use crate::chaos::house::House;
use crate::chaos::load::Load;
use crate::chaos::proxy::Mode;
use crate::eventually;
use crate::stores::control::{Outage, Store};

/// Longer than the 5 s for which processors wait for the index before they acknowledge without it.
pub(super) const AWAY: Duration = Duration::from_secs(14);

const REJECTED: &str = r#"{"error":{"type":"rejected_execution_exception","reason":"too many requests"},"status":429}"#;

pub(super) async fn stopped(load: &Load) -> anyhow::Result<Struck> {
    let outage = Outage::of(Store::OpenSearch).await?;
    let before = load.sender.answers.accepted();
    tokio::time::sleep(AWAY).await;
    let accepted = load.sender.answers.accepted() - before;
    outage.end().await?;
    let mut struck = Struck::default();
    struck.note(accepted > 0, format!("{accepted} requests accepted meanwhile"));
    Ok(struck)
}

pub(super) async fn answers(house: &House, status: u16) -> anyhow::Result<Struck> {
    house.proxies.opensearch.set(Mode::Answer(status, REJECTED));
    tokio::time::sleep(AWAY).await;
    let refused = broken(&house.proxies.opensearch, 3).await;
    house.proxies.opensearch.set(Mode::Pass);
    Ok(Struck { seen: vec![format!("{} requests answered {status}", refused?)], ..Struck::default() })
}

pub(super) async fn truncates(house: &House) -> anyhow::Result<Struck> {
    break_by(&house.proxies.opensearch, Mode::Truncate(150), 8, "answers truncated").await
}

pub(super) async fn loses_answers(house: &House) -> anyhow::Result<Struck> {
    break_by(&house.proxies.opensearch, Mode::LoseAnswer, 8, "answers lost").await
}

/// The block that OpenSearch sets itself when its disk is nearly full, on one tenant's own indices. Both tenants have
/// something to be indexed late meanwhile, of which only the other's can be.
pub(super) async fn read_only(house: &House) -> anyhow::Result<Struck> {
    let indices = format!("{}-*", house.tenants[0].desired.name().dedicated_series());
    house.proxies.opensearch.set(Mode::Answer(429, REJECTED));
    tokio::time::sleep(AWAY).await;
    block(house, &indices, json!(true)).await?;
    house.proxies.opensearch.set(Mode::Pass);
    tokio::time::sleep(AWAY).await;
    let mut struck = Struck::default();
    let others = eventually("the other tenant's batches are indexed", STRIKE, || async {
        let left = late(house, 1).await?;
        ensure!(left == 0, "{left} are not");
        Ok(())
    })
    .await;
    let blocked = late(house, 0).await?;
    struck.note(others.is_ok(), "the other tenant's batches were indexed meanwhile".to_owned());
    struck.note(blocked > 0, format!("{blocked} batches of {indices} waited"));
    block(house, &indices, json!(null)).await?;
    Ok(struck)
}

/// Batches that should have been indexed for some time.
async fn late(house: &House, tenant: usize) -> anyhow::Result<i64> {
    let pool = house.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let schema = house.tenants[tenant].desired.name().database_schema();
    let sql = format!(
        "SELECT count(*) FROM {schema}.batches WHERE indexed_at IS NULL AND stored_at < now() - interval '25 seconds'"
    );
    Ok(sqlx::query_scalar(&sql).fetch_one(&pool).await?)
}

async fn block(house: &House, indices: &str, blocked: serde_json::Value) -> anyhow::Result<()> {
    let client = house.stores.opensearch()?;
    let body = json!({"index.blocks.read_only_allow_delete": blocked});
    let answer = client.indices().put_settings(IndicesPutSettingsParts::Index(&[indices])).body(body).send().await?;
    ensure!(answer.status_code().is_success(), "block {indices}: {}", answer.status_code());
    Ok(())
}
