//! `canary`: how the last round trip of each pipeline's canary went.

use crds::LogPipeline;
use crds::condition::types::CANARY_HEALTHY;
use kube::ResourceExt;
use serde::Serialize;

use crate::args::Global;
use crate::kubernetes::{Kubernetes, condition};
use crate::output::{self, Row};

#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct CanaryRow {
    pipeline: String,
    healthy: String,
    reason: String,
    /// The milliseconds to each stage, or what is wrong.
    message: String,
}

/// Prints those of the pipelines that have one.
pub async fn list(global: &Global) -> anyhow::Result<()> {
    let pipelines = Kubernetes::connect(global).await?.pipelines().await?;
    output::list(global.output, &pipelines.iter().filter_map(row).collect::<Vec<_>>())
}

fn row(pipeline: &LogPipeline) -> Option<CanaryRow> {
    pipeline.spec.canary.as_ref()?;
    let conditions = pipeline.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (healthy, reason, message) = condition(conditions, CANARY_HEALTHY);
    Some(CanaryRow { pipeline: pipeline.name_any(), healthy, reason, message })
}

impl Row for CanaryRow {
    const HEADER: &'static [&'static str] = &["PIPELINE", "HEALTHY", "REASON", "MESSAGE"];
    const NONE: &'static str = "no pipeline has a canary: it gets one by spec.canary of its LogPipeline";

    fn cells(&self, _: i64) -> Vec<String> {
        [&self.pipeline, &self.healthy, &self.reason, &self.message].map(Clone::clone).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_row_says_how_the_round_trip_went_and_is_there_while_a_canary_is() {
        let cells = |canary: Value, conditions: Value| {
            let pipeline = json!({
                "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline", "metadata": {"name": "default"},
                "spec": {"canary": canary}, "status": {"conditions": conditions},
            });
            row(&serde_json::from_value(pipeline).unwrap()).map(|row| row.cells(0).join("|"))
        };
        let canary = json!({"keySecret": "canary-key"});
        let said = json!([{"type": "CanaryHealthy", "status": "True", "reason": "RoundTripSucceeded",
            "message": "accept 4 ms, live 31 ms", "lastTransitionTime": "2026-01-01T00:00:01Z"}]);
        let row = "default|True|RoundTripSucceeded|accept 4 ms, live 31 ms";
        assert_eq!(cells(canary.clone(), said.clone()).as_deref(), Some(row));
        assert_eq!(cells(canary, json!([])).as_deref(), Some("default|Unknown||"));
        assert_eq!(cells(Value::Null, said), None);
    }
}
