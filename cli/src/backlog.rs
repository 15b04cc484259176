//! `backlog`: what waits in each pipeline, and how it scales.

use crds::LogPipeline;
use crds::condition::types::SCALING_ACTIVE;
use kube::ResourceExt;
use serde::Serialize;

use crate::args::Global;
use crate::kubernetes::{Kubernetes, condition};
use crate::output::{self, Row};

#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct PipelineRow {
    name: String,
    backlog_events: Option<i64>,
    oldest_age_seconds: Option<i64>,
    drained_in_seconds: Option<i64>,
    ready_replicas: Option<i32>,
    desired_replicas: Option<i32>,
    scaling_active: String,
    reason: String,
    message: String,
}

/// Prints them.
pub async fn list(global: &Global) -> anyhow::Result<()> {
    let pipelines = Kubernetes::connect(global).await?.pipelines().await?;
    output::list(global.output, &pipelines.iter().map(row).collect::<Vec<_>>())
}

fn row(pipeline: &LogPipeline) -> PipelineRow {
    let status = pipeline.status.clone().unwrap_or_default();
    let (scaling_active, reason, message) = condition(&status.conditions, SCALING_ACTIVE);
    PipelineRow {
        name: pipeline.name_any(),
        backlog_events: status.backlog_events,
        oldest_age_seconds: status.oldest_age_seconds,
        drained_in_seconds: status.drained_in_seconds,
        ready_replicas: status.ready_replicas,
        desired_replicas: status.desired_replicas,
        scaling_active,
        reason,
        message,
    }
}

impl Row for PipelineRow {
    const HEADER: &'static [&'static str] =
        &["PIPELINE", "BACKLOG", "OLDEST", "DRAINED IN", "READY", "DESIRED", "SCALING", "REASON", "MESSAGE"];
    const NONE: &'static str =
        "no LogPipelines: the operator makes `default` in its own namespace, which --namespace names";

    fn cells(&self, _: i64) -> Vec<String> {
        let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
        vec![
            self.name.clone(),
            number(self.backlog_events),
            self.oldest_age_seconds.map(output::age).unwrap_or_default(),
            self.drained_in_seconds.map(output::age).unwrap_or_default(),
            number(self.ready_replicas.map(i64::from)),
            number(self.desired_replicas.map(i64::from)),
            self.scaling_active.clone(),
            self.reason.clone(),
            self.message.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_what_waits_and_what_is_done_about_it() {
        let pipeline: LogPipeline = serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline", "metadata": {"name": "default"}, "spec": {},
            "status": {"backlogEvents": 41000, "oldestAgeSeconds": 130, "drainedInSeconds": 240, "readyReplicas": 1, "desiredReplicas": 3,
                "conditions": [{"type": "ScalingActive", "status": "True", "reason": "ScalingUp", "message": "3 of 1",
                    "lastTransitionTime": "2026-01-01T00:00:01Z"}]},
        }))
        .unwrap();
        assert_eq!(row(&pipeline).cells(0).join("|"), "default|41000|2m|4m|1|3|True|ScalingUp|3 of 1");
        let new = LogPipeline::new("new", Default::default());
        assert_eq!(row(&new).cells(0).join("|"), "new||||||Unknown||");
    }
}
