//! The operator's program, as tests start it beside themselves.

use std::path::PathBuf;

use crds::names::REGISTRY_CHANGES;
use redis::streams::StreamRangeReply;
use serde_json::Value;
use testkit::{OperatorProcess, OperatorProgram};

use crate::operator_under_test::{Ground, SOON};

/// Starts one, which dies or stands still where `order` says.
pub(crate) fn start(ground: &Ground, order: Option<&str>) -> OperatorProcess {
    let more: Vec<_> = order.map(|order| ("LOGGERHUB_FAIL_POINT", order)).into_iter().collect();
    start_with(ground, &more)
}

/// Starts one with more in its environment.
pub(crate) fn start_with(ground: &Ground, more: &[(&str, &str)]) -> OperatorProcess {
    let program = OperatorProgram {
        program: PathBuf::from(env!("CARGO_BIN_EXE_loggerhub-operator")),
        stores: testkit::Stores::from_environment().unwrap(),
        // Of the build: what a failed test says to look at stays, and /tmp does not fill with it.
        logs: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    program.start(&ground.settings(), more).unwrap()
}

/// How often ingest was told of a tenant.
pub(crate) async fn announcements(ground: &Ground, tenant: &str) -> usize {
    let changes: StreamRangeReply = redis::cmd("XREVRANGE")
        .arg(REGISTRY_CHANGES)
        .arg("+")
        .arg("-")
        .query_async(&mut ground.stores.registry.connection())
        .await
        .unwrap();
    changes.ids.iter().filter(|change| change.get::<String>("tenant").as_deref() == Some(tenant)).count()
}

/// Asserts that a Tenant that is Ready has one key, and that all say it is the same.
pub(crate) async fn has_one_key(ground: &Ground, name: &str) {
    let tenant = ground.cluster.tenant_ready(name, SOON).await.unwrap();
    let text = ground.cluster.secret_value(&ground.class, name, "apiKey").await.unwrap();
    let id = crds::apikey::ApiKey::parse(&text).unwrap().id().to_owned();
    let shown: Vec<_> = tenant.status.unwrap().api_keys.into_iter().map(|key| key.key_id).collect();
    assert_eq!(shown, [id.as_str()]);
    let entry = ground.stores.registry.get(&name.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(entry.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    // Also none that was issued and revoked.
    let issued: Vec<String> = sqlx::query_scalar("SELECT key_id FROM public.api_keys WHERE tenant = $1")
        .bind(name)
        .fetch_all(ground.stores.postgres.core())
        .await
        .unwrap();
    assert_eq!(issued, [id]);
}

/// Asserts that a look at a Tenant finds nothing to be put right.
pub(crate) async fn is_complete(ground: &Ground, operator: &OperatorProcess, name: &str) {
    ground.cluster.reconcile_tenant(name, SOON).await.unwrap();
    let metrics = operator.get("/metrics").await.unwrap();
    let repairs: Vec<&str> = metrics.lines().filter(|line| line.contains("drift_corrections_total{")).collect();
    assert!(repairs.is_empty(), "{name}: {repairs:?}");
}

/// What makes a document of one field.
pub(crate) fn document(tenant: &str) -> Value {
    serde_json::json!({"tenant": tenant, "@timestamp": "2026-01-01T00:00:00Z", "message": "kept"})
}
