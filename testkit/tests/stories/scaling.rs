//! The number of processors follows the backlog, up and down.

use std::time::{Duration, Instant};

use dataplane::queue::Lanes;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;
use testkit::{eventually, unique};

use crate::stage::{LATER, SOON, Stage};

const EVENTS: u64 = 200_000;
/// Events in one request; ingest takes up to 10,000.
const REQUEST: u64 = 5_000;
const MOST: i32 = 3;

#[tokio::test]
async fn processors_rise_with_the_backlog_and_fall_when_it_is_worked_off() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let name = unique("scale");
    apply_pipeline(&stage, &name, true, 1, MOST).await?;
    wanted(&stage, &name, 0, SOON).await?;

    let mut tenant = stage.tenant_with("scaled", json!({"pipelineRef": {"name": name.as_str()}})).await?;
    for first in (0..EVENTS).step_by(usize::try_from(REQUEST)?) {
        tenant.send_numbered(first, REQUEST).await?;
    }
    let backlog = queued(&stage, &name).await?;
    assert_eq!(backlog, EVENTS, "the backlog is counted in events");

    apply_pipeline(&stage, &name, false, 1, MOST).await?;
    wanted(&stage, &name, MOST, SOON).await?;
    let held = stage.holdings(&tenant)?;
    eventually("all events are stored", LATER, || async {
        tenant.ledger.matches("the catalog", &held.catalog().await?)
    })
    .await?;
    // What is stored waits to be indexed, and up to 20,000 such events want one processor too.
    wanted(&stage, &name, 1, LATER).await?;
    eventually("all entries are acknowledged", LATER, || async {
        let left = queued(&stage, &name).await?;
        anyhow::ensure!(left == 0, "{left} events are queued");
        Ok(())
    })
    .await?;
    eventually("the pipeline says that nothing waits", SOON, || async {
        let status = stage.cluster.pipelines().get(&name).await?.status.unwrap_or_default();
        let said = (status.backlog_events, status.drained_in_seconds);
        anyhow::ensure!(said == (Some(0), Some(0)), "{said:?}");
        Ok(())
    })
    .await?;

    stage.clear(&tenant).await?;
    remove(&stage, &name).await
}

#[tokio::test]
async fn a_pipeline_of_none_stores_what_comes_and_sleeps_again() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let name = unique("none");
    apply_pipeline(&stage, &name, false, 0, 1).await?;
    asleep(&stage, &name).await?;
    let mut tenant = stage.tenant_with("sleepy", json!({"pipelineRef": {"name": name.as_str()}})).await?;
    let held = stage.holdings(&tenant)?;
    let sent = Instant::now();
    tenant.send_numbered(0, 10).await?;
    wanted(&stage, &name, 1, SOON).await?;
    let woken = sent.elapsed();
    eventually("all events are stored", LATER, || async {
        tenant.ledger.matches("the catalog", &held.catalog().await?)
    })
    .await?;
    println!("a processor was asked for {woken:.1?} after the request, stored after {:.1?}", sent.elapsed());
    asleep(&stage, &name).await?;
    stage.clear(&tenant).await?;
    remove(&stage, &name).await
}

/// Waits until the scaler asks for so many processors.
async fn wanted(stage: &Stage, pipeline: &str, replicas: i32, within: Duration) -> anyhow::Result<()> {
    let deployment = format!("loggerhub-{pipeline}-processor");
    eventually(&format!("{replicas} processors are wanted"), within, || async {
        let wanted = stage.cluster.wanted_replicas(&deployment).await?;
        anyhow::ensure!(wanted == replicas, "{wanted} are wanted");
        Ok(())
    })
    .await
}

/// Waits until the pipeline has no processor left: one that ends stores what comes in its last moment.
async fn asleep(stage: &Stage, pipeline: &str) -> anyhow::Result<()> {
    wanted(stage, pipeline, 0, LATER).await?;
    eventually("no processor is left", SOON, || async {
        let of_pipeline = ListParams::default().labels(&format!("{}={pipeline}", crds::PIPELINE_LABEL));
        let pods = stage.cluster.ours::<Pod>().list(&of_pipeline).await?.items.len();
        anyhow::ensure!(pods == 0, "{pods} are");
        Ok(())
    })
    .await
}

async fn remove(stage: &Stage, pipeline: &str) -> anyhow::Result<()> {
    stage.cluster.pipelines().delete(pipeline, &Default::default()).await?;
    eventually("the pipeline is gone", LATER, || async {
        let left = stage.cluster.pipelines().get_opt(pipeline).await?;
        anyhow::ensure!(left.is_none(), "still there");
        Ok(())
    })
    .await
}

async fn apply_pipeline(stage: &Stage, name: &str, suspend: bool, fewest: i32, most: i32) -> anyhow::Result<()> {
    let spec = json!({
        "suspend": suspend,
        "processor": {
            "scaling": {
                "minReplicas": fewest,
                "maxReplicas": most,
                "targetBacklogEventsPerReplica": 20_000,
                "scaleDownStabilizationSeconds": 10,
            },
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        },
    });
    let pipeline = crds::LogPipeline::new(name, serde_json::from_value(spec)?);
    stage.cluster.apply(&stage.cluster.pipelines(), &pipeline).await?;
    Ok(())
}

/// Events in the pipeline's lanes.
async fn queued(stage: &Stage, pipeline: &str) -> anyhow::Result<u64> {
    let lanes = Lanes::new(&stage.stores.queue()?)?;
    eventually("the queue is told", Duration::from_secs(10), || async {
        Ok(lanes.status(&[pipeline.parse()?], 0).await?.iter().map(|lane| lane.events).sum())
    })
    .await
}
