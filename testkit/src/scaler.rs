//! What the operator's scaler makes of what the queue holds, without a cluster.

use std::time::{Duration, SystemTime};

use crds::PipelineName;
use crds::pipeline::Scaling;
use operator::provision::Registry;
use operator::scaler::backlog;
use operator::scaler::scale::{Decision, History, Observation, Policy, scale};

use crate::Stores;

/// Processors that it asks for where there are `replicas`, and there may be none as soon as nothing waits.
pub async fn wanted(stores: &Stores, pipeline: &PipelineName, replicas: i32) -> anyhow::Result<i32> {
    let registry = Registry::new(stores.queue()?.connection()?);
    let backlog = backlog::read(&registry, pipeline, SystemTime::now()).await?;
    let scaling = Scaling { min_replicas: 0, scale_down_stabilization_seconds: 0, ..Scaling::default() };
    let observation = Observation { replicas, backlog: Some(backlog), missing_store: None };
    Ok(match scale(&Policy::from(&scaling), &observation, Duration::ZERO, &History::default()) {
        Decision::To(wanted, _) => wanted,
        Decision::Hold(_) => replicas,
    })
}
