//! A processor dies without warning, in the middle of its work.

use std::time::Duration;

use testkit::cluster::process::kill_9;
use testkit::eventually;

use crate::stage::{LATER, SOON, Stage};

/// Requests sent while processors die, and events in each: enough that each death meets work.
const REQUESTS: u64 = 60;
const EVENTS: u64 = 500;

#[tokio::test]
async fn a_processor_killed_mid_batch_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let stage = Stage::enter().await;
    let mut tenant = stage.tenant("crash").await?;
    for request in 0..REQUESTS {
        tenant.send_numbered(request * EVENTS, EVENTS).await?;
        // The second death meets what the first left behind.
        if request == REQUESTS / 4 || request == REQUESTS / 2 {
            kill_a_processor(&stage).await?;
        }
    }
    assert_eq!(tenant.ledger.events(), REQUESTS * EVENTS);
    stage.everything_once(&tenant, LATER).await?;
    stage.clear(&tenant).await
}

async fn kill_a_processor(stage: &Stage) -> anyhow::Result<()> {
    eventually("a processor runs and is killed", SOON, || async {
        let pods = stage.cluster.pods("processor", Some("default")).await?;
        let pod = pods.first().ok_or_else(|| anyhow::anyhow!("no processor runs"))?;
        kill_9(pod, "loggerhub").await
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}
