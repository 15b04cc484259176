//! What the operator's metrics say of Tenants and pipelines that need somebody.

use serde_json::json;
use testkit::{OperatorProcess, eventually, unique};

use crate::operator_under_test::{Ground, SOON};
use crate::program::start;

async fn shows(operator: &OperatorProcess, line: &str) {
    eventually(line, SOON, || async {
        let metrics = operator.get("/metrics").await?;
        anyhow::ensure!(metrics.lines().any(|one| one == line), "it is not there");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_are_not_ready_and_pipelines_at_their_most_are_counted() {
    let ground = Ground::new().await;
    let operator = start(&ground, None);
    operator.leads().await.unwrap();
    let (unplanned, also) = (unique("count"), unique("count"));
    ground.tenant(&unplanned, json!({"plan": "gold"})).await;
    ground.tenant(&also, json!({"plan": "silver"})).await;
    shows(&operator, "loggerhub_tenants_not_ready{reason=\"UnknownPlan\"} 2").await;
    ground.tenant(&also, json!({"deletionPolicy": "Delete"})).await;
    shows(&operator, "loggerhub_tenants_not_ready{reason=\"UnknownPlan\"} 1").await;
    ground.tenant(&unplanned, json!({"deletionPolicy": "Delete"})).await;
    shows(&operator, "loggerhub_tenants_not_ready{reason=\"UnknownPlan\"} 0").await;

    let lane: crds::PipelineName = unique("lane").parse().unwrap();
    ground.pipeline(lane.as_str(), json!({"processor": {"scaling": {"maxReplicas": 1}}})).await;
    let at_most = |value: u8| format!("loggerhub_pipeline_at_max_replicas{{pipeline=\"{lane}\"}} {value}");
    let drained_in = |value: &str| format!("loggerhub_pipeline_drained_in_seconds{{pipeline=\"{lane}\"}} {value}");
    shows(&operator, &at_most(0)).await;
    let counter = lane.lanes().next().unwrap().events_counter();
    let mut redis = ground.stores.registry.connection();
    let () = redis::cmd("SET").arg(&counter).arg(1_000_000).query_async(&mut redis).await.unwrap();
    shows(&operator, &at_most(1)).await;
    shows(&operator, &drained_in("inf")).await;
    let () = redis::cmd("DEL").arg(&counter).query_async(&mut redis).await.unwrap();
    shows(&operator, &at_most(0)).await;
    shows(&operator, &drained_in("0.0")).await;
    ground.clear().await;
    operator.stop().await.unwrap();
}
