//! A Tenant's end on a real API server: what has to be confirmed, and how it is let go by force.

use std::time::Duration;

use crds::registry::TenantState;
use crds::{CONFIRM_DELETE_ANNOTATION, FORCE_FINALIZE_ANNOTATION, PipelineName, TenantName};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::{eventually, unique};

use crate::operator_under_test::{Ground, Operator, SOON};

async fn is_gone(on: &Operator, name: &str) {
    eventually("the Tenant is gone", Duration::from_secs(30), || async {
        anyhow::ensure!(on.cluster.tenants().get_opt(name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
    .unwrap();
}

/// Schemas that the tenant has: one, or none.
async fn schemas(on: &Operator, name: &TenantName) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = $1").bind(name.database_schema());
    count.fetch_one(on.stores.postgres.processor()).await.unwrap()
}

/// Deletes a Tenant with policy Delete without a word, and waits until the operator says what it waits for.
async fn delete_unconfirmed(on: &Operator, name: &TenantName) {
    on.tenant(name.as_str(), json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    on.cluster.tenants().delete(name.as_str(), &DeleteParams::default()).await.unwrap();
    let ready = on.cluster.tenant_condition(name.as_str(), "Ready", "False", SOON).await.unwrap();
    assert_eq!(ready.reason, "DeletionBlocked");
    let command = format!("kubectl annotate tenant {name} {CONFIRM_DELETE_ANNOTATION}={name}");
    assert!(ready.message.contains(&command), "{}", ready.message);
    let entry = on.stores.registry.get(name).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.keys.len()), (TenantState::Active, 1), "its keys work");
    assert_eq!(schemas(on, name).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_once_that_is_confirmed_and_stays_if_the_policy_is_changed() {
    let on = Operator::start().await;
    let (gone, kept): (TenantName, TenantName) = (unique("gone").parse().unwrap(), unique("kept").parse().unwrap());
    delete_unconfirmed(&on, &gone).await;
    on.cluster.annotate_tenant(gone.as_str(), &[(CONFIRM_DELETE_ANNOTATION, "yes")]).await.unwrap();
    testkit::holds("a wrong name confirms nothing", Duration::from_secs(3), || async {
        anyhow::ensure!(schemas(&on, &gone).await == 1, "its data is gone");
        Ok(())
    })
    .await
    .unwrap();
    on.cluster.confirm_delete(gone.as_str()).await.unwrap();
    is_gone(&on, gone.as_str()).await;
    assert_eq!(schemas(&on, &gone).await, 0);

    delete_unconfirmed(&on, &kept).await;
    let retain = json!({"spec": {"deletionPolicy": "Retain"}});
    on.cluster.tenants().patch(kept.as_str(), &PatchParams::default(), &Patch::Merge(retain)).await.unwrap();
    is_gone(&on, kept.as_str()).await;
    assert_eq!(schemas(&on, &kept).await, 1);
    assert!(on.stores.registry.get(&kept).await.unwrap().is_none(), "its keys are revoked");
    on.tenant(kept.as_str(), json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(kept.as_str(), SOON).await.unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_hangs_is_let_go_by_force_without_its_keys_and_with_its_data() {
    let on = sweeping("").await;
    let name: TenantName = unique("forced").parse().unwrap();
    // A lane that nobody reads, with an entry that is never drained.
    let pipeline: PipelineName = unique("lane").parse().unwrap();
    on.pipeline(pipeline.as_str(), json!({})).await;
    on.tenant(name.as_str(), json!({"pipelineRef": {"name": pipeline}})).await;
    let key = on.cluster.tenant_ready(name.as_str(), SOON).await.unwrap().status.unwrap().api_keys[0].key_id.clone();
    wait_in(&on, &pipeline, &name).await;
    on.cluster.tenants().delete(name.as_str(), &DeleteParams::default()).await.unwrap();
    let ready = on.cluster.tenant_condition(name.as_str(), "Ready", "False", SOON).await.unwrap();
    assert_eq!(ready.reason, "Draining");
    on.cluster.annotate_tenant(name.as_str(), &[(FORCE_FINALIZE_ANNOTATION, "true")]).await.unwrap();
    is_gone(&on, name.as_str()).await;
    is_drained_before_it_is_forgotten(&on, &pipeline, &name).await;
    let rows = on.stores.postgres.keys(&name, &[key]).await.unwrap();
    assert!(rows.iter().all(|row| row.revoked) && rows.len() == 1, "{rows:?}");
    assert_eq!(schemas(&on, &name).await, 1);
    on.tenant(name.as_str(), json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    on.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_its_tenant_is_drained_before_it_is_forgotten_and_billed() {
    let name: TenantName = unique("vanished").parse().unwrap();
    let on = sweeping(&format!("confirmGone: [{name}]\n")).await;
    let pipeline: PipelineName = unique("lane").parse().unwrap();
    on.pipeline(pipeline.as_str(), json!({})).await;
    on.tenant(name.as_str(), json!({"pipelineRef": {"name": pipeline}})).await;
    on.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    wait_in(&on, &pipeline, &name).await;
    // Somebody takes the finalizer off while its deletion waits for the queue.
    on.cluster.tenants().delete(name.as_str(), &DeleteParams::default()).await.unwrap();
    let ready = on.cluster.tenant_condition(name.as_str(), "Ready", "False", SOON).await.unwrap();
    assert_eq!(ready.reason, "Draining");
    let off = json!({"metadata": {"finalizers": null}});
    on.cluster.tenants().patch(name.as_str(), &PatchParams::default(), &Patch::Merge(off)).await.unwrap();
    is_gone(&on, name.as_str()).await;
    let used = format!(
        "INSERT INTO {}.usage_ledger (batch_id, accepted_at, key_id, events, bytes) \
         VALUES (gen_random_uuid(), now(), 'k', 7, 700)",
        name.database_schema()
    );
    sqlx::raw_sql(&used).execute(on.stores.postgres.processor()).await.unwrap();
    is_drained_before_it_is_forgotten(&on, &pipeline, &name).await;
    let billed: Option<i64> =
        sqlx::query_scalar("SELECT sum(events)::bigint FROM public.usage_hourly WHERE tenant = $1")
            .bind(name.as_str())
            .fetch_one(on.stores.postgres.core())
            .await
            .unwrap();
    assert_eq!(billed, Some(7));
    assert_eq!(schemas(&on, &name).await, 1);
    on.tenant(name.as_str(), json!({"deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    on.stop().await;
}

/// An operator that looks for Tenants that are gone every few seconds.
async fn sweeping(more: &str) -> Operator {
    let ground = Ground::new().await;
    let (settings, client) = (ground.settings_with(5) + more, ground.cluster.client.clone());
    Operator::start_on(ground, &settings, client).await
}

/// Has an entry of the tenant wait in the lane of a pipeline that nobody reads.
async fn wait_in(on: &Operator, pipeline: &PipelineName, name: &TenantName) {
    let mut add = redis::cmd("XADD");
    add.arg(pipeline.lane(name).stream()).arg("*").arg("t").arg(name.as_str());
    let () = add.query_async(&mut on.stores.registry.connection()).await.unwrap();
}

/// Processors find the tenant as long as something of it waits; nobody finds a key.
async fn is_drained_before_it_is_forgotten(on: &Operator, pipeline: &PipelineName, name: &TenantName) {
    let state = async || {
        let entry = on.stores.registry.get(name).await.unwrap();
        entry.map(|entry| (entry.state, entry.keys.len()))
    };
    let departed = Some((TenantState::Deleting, 0));
    eventually("its keys are gone", SOON, || async {
        let state = state().await;
        anyhow::ensure!(state == departed, "{state:?}");
        Ok(())
    })
    .await
    .unwrap();
    // Two looks of the sweep.
    testkit::holds("processors know it", Duration::from_secs(15), || async {
        let state = state().await;
        anyhow::ensure!(state == departed, "{state:?}");
        Ok(())
    })
    .await
    .unwrap();
    let mut drain = redis::cmd("DEL");
    drain.arg(pipeline.lane(name).stream());
    let () = drain.query_async(&mut on.stores.registry.connection()).await.unwrap();
    eventually("it is forgotten", SOON, || async {
        let state = state().await;
        anyhow::ensure!(state.is_none(), "{state:?}");
        Ok(())
    })
    .await
    .unwrap();
}
