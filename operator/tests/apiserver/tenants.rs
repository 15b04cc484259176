//! A Tenant's life on a real API server.

use std::time::Duration;

use crds::apikey::ApiKey;
use crds::registry::TenantState;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::json;
use testkit::{eventually, unique};

use crate::operator_under_test::{Operator, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_becomes_ready_with_a_key_and_ends_without_a_trace() {
    let on = Operator::start().await;
    let name = unique("api");
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    let tenant = on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let status = tenant.status.unwrap();
    assert_eq!(status.backends.unwrap().index_alias, format!("lh-t-{name}"));
    let key = on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap();
    assert_eq!(ApiKey::parse(&key).unwrap().id(), status.api_keys[0].key_id);
    let entry = on.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.keys.len()), (TenantState::Active, 1));
    on.delete_tenant(&name).await;
    assert!(on.stores.registry.get(&name.parse().unwrap()).await.unwrap().is_none());
    let left = on.stores.postgres.keys(&name.parse().unwrap(), &[status.api_keys[0].key_id.clone()]).await.unwrap();
    assert!(left.is_empty());
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_is_a_new_key_and_a_removed_key_is_revoked() {
    let on = Operator::start().await;
    let name = unique("api");
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let before = on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    assert_eq!(on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap(), before);
    on.cluster.ours::<Secret>().delete(&name, &DeleteParams::default()).await.unwrap();
    on.cluster.reconcile_tenant(&name, SOON).await.unwrap();
    let after = on.cluster.secret_value(&on.class, &name, "apiKey").await.unwrap();
    assert_ne!(after, before);
    let entry = on.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.keys[0].id, ApiKey::parse(&after).unwrap().id());
    on.tenant(&name, json!({"deletionPolicy": "Delete", "apiKeys": []})).await;
    eventually("no key is left", SOON, || async {
        let entry = on.stores.registry.get(&name.parse().unwrap()).await?;
        anyhow::ensure!(entry.is_some_and(|entry| entry.keys.is_empty()), "there is one");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_lacks_stands_in_its_conditions() {
    let on = Operator::start().await;
    let (suspended, unplanned, laneless) = (unique("api"), unique("api"), unique("api"));
    on.tenant(&suspended, json!({"suspend": true, "deletionPolicy": "Delete"})).await;
    on.tenant(&unplanned, json!({"plan": "gold"})).await;
    on.tenant(&laneless, json!({"pipelineRef": {"name": "fast"}, "deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&suspended, SOON).await.unwrap();
    let entry = on.stores.registry.get(&suspended.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.state, TenantState::Suspended);
    let stalled = on.cluster.tenant_condition(&unplanned, "Stalled", "True", SOON).await.unwrap();
    assert_eq!(stalled.reason, "UnknownPlan");
    eventually("the missing pipeline is named", SOON, || async {
        let ready = on.cluster.tenant_condition(&laneless, "Ready", "False", SOON).await?;
        anyhow::ensure!(ready.reason == "PipelineNotFound", "{}: {}", ready.reason, ready.message);
        Ok(())
    })
    .await
    .unwrap();
    let entry = on.stores.registry.get(&laneless.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.pipeline.as_str(), "default");
    on.pipeline("fast", json!({})).await;
    on.cluster.tenant_ready(&laneless, SOON).await.unwrap();
    let entry = on.stores.registry.get(&laneless.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.pipeline.as_str(), "fast");
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_plan_reaches_its_tenants_without_touching_their_spec() {
    let on = Operator::start().await;
    let (follows, own) = (unique("api"), unique("api"));
    on.tenant(&follows, json!({"deletionPolicy": "Delete"})).await;
    on.tenant(&own, json!({"deletionPolicy": "Delete", "quotas": {"ingestEventsPerSecond": "2k"}})).await;
    let shown = async |name: &str, expected: (Option<i64>, Option<i64>)| {
        eventually("status and registry agree on the quotas", SOON, || async {
            let tenant = on.cluster.tenants().get(name).await?;
            let quotas = tenant.status.and_then(|status| status.effective_quotas).unwrap_or_default();
            let seen = (quotas.ingest_bytes_per_second, quotas.ingest_events_per_second);
            anyhow::ensure!(seen == expected, "status says {seen:?}");
            let entry = on.stores.registry.get(&name.parse().unwrap()).await?;
            let quotas = entry.map(|entry| entry.quotas).unwrap_or_default();
            let rate = |rate: Option<crds::registry::Rate>| rate.map(|rate| rate.per_second as i64);
            let told = (rate(quotas.bytes), rate(quotas.events));
            anyhow::ensure!(told == expected, "the registry says {told:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    on.cluster.tenant_ready(&follows, SOON).await.unwrap();
    on.cluster.tenant_ready(&own, SOON).await.unwrap();
    shown(&follows, (None, None)).await;
    shown(&own, (None, Some(2_000))).await;
    let plans = "standard: {quotas: {ingestBytesPerSecond: 1M, ingestEventsPerSecond: 100}}";
    on.plans.send(serde_saphyr::from_str(plans).unwrap()).unwrap();
    shown(&follows, (Some(1_000_000), Some(100))).await;
    shown(&own, (Some(1_000_000), Some(2_000))).await;
    on.plans.send(serde_saphyr::from_str("other: {}").unwrap()).unwrap();
    eventually("the plan that is gone is named", SOON, || async {
        let stalled = on.cluster.tenant_condition(&follows, "Stalled", "True", SOON).await?;
        anyhow::ensure!(stalled.reason == "UnknownPlan" && stalled.message.contains("use one of other"), "{stalled:?}");
        Ok(())
    })
    .await
    .unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_tenant_comes_back_and_what_is_queued_is_drained_first() {
    let on = Operator::start().await;
    let name = unique("api");
    // A lane that nobody reads: processors of `default` may run on these stores.
    let pipeline: crds::PipelineName = unique("lane").parse().unwrap();
    on.pipeline(pipeline.as_str(), json!({})).await;
    on.tenant(&name, json!({"pipelineRef": {"name": pipeline}})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let lane = pipeline.lane(&name.parse().unwrap());
    let mut redis = on.stores.registry.connection();
    let entry: String =
        redis::cmd("XADD").arg(lane.stream()).arg("*").arg("t").arg(&name).query_async(&mut redis).await.unwrap();
    on.cluster.tenants().delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("ingest refuses", SOON, || async {
        let found = on.stores.registry.get(&name.parse().unwrap()).await?;
        anyhow::ensure!(found.is_some_and(|entry| entry.state == TenantState::Deleting), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    testkit::holds("the Tenant waits for its queue", Duration::from_secs(8), || async {
        anyhow::ensure!(on.cluster.tenants().get_opt(&name).await?.is_some(), "it is gone");
        Ok(())
    })
    .await
    .unwrap();
    let () = redis::cmd("XDEL").arg(lane.stream()).arg(entry).query_async(&mut redis).await.unwrap();
    eventually("the Tenant is gone", Duration::from_secs(30), || async {
        anyhow::ensure!(on.cluster.tenants().get_opt(&name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
    .unwrap();
    on.tenant(&name, json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    on.stop().await;
}
