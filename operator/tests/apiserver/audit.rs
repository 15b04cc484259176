//! What the operator does to a Tenant and its keys stands in its audit log, and no key does.

use crds::registry::TenantState;
use crds::{ROTATE_KEYS_ANNOTATION, TenantName};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{OperatorProcess, eventually, unique};

use crate::operator_under_test::{Ground, SOON};
use crate::program::{start, start_with};

/// The acts on this tenant, each with what it was done to.
fn acts(operator: &OperatorProcess, tenant: &str) -> Vec<(String, String)> {
    let logged = operator.logged().unwrap();
    let lines = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_tenant = lines.filter(|line| line["target"] == "audit" && line["tenant.name"] == tenant);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_tenant.map(|line| (text(&line["action"]), text(&line["object"]))).collect()
}

async fn told(operator: &OperatorProcess, tenant: &str, expected: &[&str]) -> Vec<(String, String)> {
    eventually(&format!("{expected:?} are told"), SOON, async || {
        let acts = acts(operator, tenant);
        let actions: Vec<_> = acts.iter().map(|(action, _)| action.as_str()).collect();
        anyhow::ensure!(actions == expected, "{actions:?}");
        Ok(acts)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_tenant_is_told_once_and_keys_are_not() {
    let ground = Ground::new().await;
    // Also where nothing but errors is wanted.
    let operator = start_with(&ground, &[("LOGGERHUB_LOG", "error")]);
    let name = unique("audited");
    ground.tenant(&name, json!({})).await;
    ground.cluster.tenant_ready(&name, SOON).await.unwrap();
    let first = ground.cluster.secret_value(&ground.class, &name, "apiKey").await.unwrap();
    let mut expected = vec!["tenant_created", "key_issued"];
    let acts = told(&operator, &name, &expected).await;
    assert!(first.contains(&acts[1].1), "the key's id is told: {acts:?}");

    let rotate = json!({"metadata": {"annotations": {ROTATE_KEYS_ANNOTATION: "*@1"}}});
    let patch = |value: Value| {
        let tenants = ground.cluster.tenants();
        let name = name.clone();
        async move { tenants.patch(&name, &PatchParams::default(), &Patch::Merge(value)).await.unwrap() }
    };
    patch(rotate).await;
    expected.push("key_rotated");
    told(&operator, &name, &expected).await;
    let second = ground.cluster.secret_value(&ground.class, &name, "apiKey").await.unwrap();

    patch(json!({"spec": {"suspend": true}})).await;
    expected.push("tenant_suspended");
    told(&operator, &name, &expected).await;
    patch(json!({"spec": {"suspend": false}})).await;
    expected.push("tenant_resumed");
    told(&operator, &name, &expected).await;
    ground.delete_tenant(&name).await;
    expected.push("tenant_deleted");
    told(&operator, &name, &expected).await;

    let logged = operator.logged().unwrap();
    assert!(first != second && !logged.contains(&first) && !logged.contains(&second));
    ground.clear().await;
    operator.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_went_without_the_operator_has_its_line_when_that_is_noticed() {
    let ground = Ground::new().await;
    let name: TenantName = unique("swept").parse().unwrap();
    let operator = start(&ground, None);
    ground.tenant(name.as_str(), json!({})).await;
    let ready = ground.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    let stays = unique("stays");
    ground.tenant(&stays, json!({"deletionPolicy": "Delete"})).await;
    ground.cluster.tenant_ready(&stays, SOON).await.unwrap();
    let key = ready.status.unwrap().api_keys[0].key_id.clone();
    operator.stop().await.unwrap();
    let tenants = ground.cluster.tenants();
    let unfinalized = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    tenants.patch(name.as_str(), &PatchParams::default(), &unfinalized).await.unwrap();
    tenants.delete(name.as_str(), &DeleteParams::default()).await.unwrap();

    let operator = start(&ground, None);
    let acts = told(&operator, name.as_str(), &["tenant_deleted"]).await;
    assert_eq!(acts[0].1, name.as_str());
    assert!(operator.logged().unwrap().contains(r#""outcome":"there is no such Tenant; its data stays""#));
    // What it may have queued is processed before its entry goes.
    let entry = ground.stores.registry.get(&name).await.unwrap();
    let refused = entry.is_none_or(|entry| entry.state == TenantState::Deleting && entry.keys.is_empty());
    assert!(refused, "ingest refuses it");
    let rows = ground.stores.postgres.keys(&name, &[key]).await.unwrap();
    assert!(rows.iter().all(|row| row.revoked) && rows.len() == 1, "{rows:?}");

    // Its data is still there, for a Tenant of its name to have, and to take along.
    ground.tenant(name.as_str(), json!({"deletionPolicy": "Delete"})).await;
    ground.cluster.tenant_ready(name.as_str(), SOON).await.unwrap();
    ground.clear().await;
    operator.stop().await.unwrap();
}
