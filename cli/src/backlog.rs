//! `backlog`: what waits in each pipeline, and how it scales; and what waits for pipelines that are not there.

use std::collections::BTreeMap;

use api::queue::LaneStatus;
use crds::condition::Reason;
use crds::condition::types::SCALING_ACTIVE;
use crds::{LogPipeline, PipelineName};
use kube::ResourceExt;
use serde::Serialize;

use crate::args::Global;
use crate::door;
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
    let kubernetes = Kubernetes::connect(global).await?;
    let mut rows: Vec<_> = kubernetes.pipelines().await?.iter().map(row).collect();
    match door::queue_status(&kubernetes).await {
        Ok(lanes) => rows.extend(held(&lanes)),
        Err(error) => eprintln!("what waits for pipelines that are not there is not shown: {error:#}"),
    }
    output::list(global.output, &rows)
}

/// A row for each pipeline that events wait for though it is not there.
fn held(lanes: &[LaneStatus]) -> Vec<PipelineRow> {
    let mut pipelines = BTreeMap::<&PipelineName, (u64, u64)>::new();
    for lane in lanes.iter().filter(|lane| lane.held && lane.events > 0) {
        let (events, oldest) = pipelines.entry(&lane.name).or_default();
        *events += lane.events;
        *oldest = (*oldest).max(lane.oldest_age_seconds);
    }
    let row = |(name, (events, oldest)): (&PipelineName, (u64, u64))| PipelineRow {
        name: name.to_string(),
        backlog_events: i64::try_from(events).ok(),
        oldest_age_seconds: i64::try_from(oldest).ok(),
        drained_in_seconds: None,
        ready_replicas: None,
        desired_replicas: None,
        scaling_active: "False".to_owned(),
        reason: Reason::PipelineNotFound.as_str().to_owned(),
        message: format!(
            "there is no LogPipeline `{name}`, and events wait for it: apply it, or have every Tenant that names it say \
             spec.pipelineRef.onMissing: Default"
        ),
    };
    pipelines.into_iter().map(row).collect()
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

    #[test]
    fn what_waits_for_a_pipeline_that_is_not_there_has_a_row_that_says_so() {
        let lane = |name: &str, events: i64, age: i64, held: bool| json!({"name": name, "stream": "lh:{x}:queue", "events": events, "oldest_age_seconds": age, "held": held});
        let lanes = [
            lane("default", 5, 1, false),
            lane("gone", 2, 200, true),
            lane("gone", 3, 130, true),
            lane("gone", 0, 0, true),
            lane("empty", 0, 0, true),
            // As an earlier version answers.
            json!({"name": "old", "events": 1, "oldest_age_seconds": 0}),
        ];
        let lanes: Vec<LaneStatus> = serde_json::from_value(json!(lanes)).unwrap();
        let [row] = &held(&lanes)[..] else { panic!("one row") };
        let said = row.cells(0).join("|");
        assert!(said.starts_with("gone|5|3m||||False|PipelineNotFound|there is no LogPipeline `gone`"), "{said}");
    }
}
