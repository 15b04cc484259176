//! The scaler: every few seconds it reads each pipeline's backlog and sets the number of its
//! processors, by server-side apply on the scale subresource.
//!
//! It never gives replicas back by applying an empty scale: that would set them to zero.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crds::condition::{Finding, Reason, Status, set, types};
use crds::pipeline::ScalingMode;
use crds::{LogPipeline, PipelineName};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store as Reader;
use kube::{Api, ResourceExt};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub mod backlog;
pub mod forecast;
pub mod scale;

use crate::context::Context;
use crate::kubernetes::{
    SCALER_FIELD_MANAGER, apply_status, explain, is_not_found, is_paused, now, publish, set_replicas, transitions,
};
use forecast::Trend;
use scale::{Backlog, Decision, History, Observation, Policy, rounded};

/// Time between two looks: with reading and applying, replicas follow a backlog within 15 s.
const INTERVAL: Duration = Duration::from_secs(5);
/// Pipelines that are looked at at once.
const AT_ONCE: usize = 8;
/// Shortest time between two writes of a status in which only numbers of the backlog differ.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// The pipelines that the controller sees, handed over when it begins to watch.
#[derive(Clone, Default)]
pub struct Pipelines {
    reader: Arc<Mutex<Option<Reader<DeserializeGuard<LogPipeline>>>>>,
}

impl Pipelines {
    /// The controller's view.
    pub fn watch(&self, reader: Reader<DeserializeGuard<LogPipeline>>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// The pipelines of the release's namespace that can be read.
    pub fn of(&self, namespace: &str) -> Vec<LogPipeline> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = reader.map(|reader| reader.state()).unwrap_or_default();
        let pipelines = state.iter().filter_map(|guard| guard.0.as_ref().ok());
        pipelines.filter(|pipeline| pipeline.namespace().as_deref() == Some(namespace)).cloned().collect()
    }
}

/// What the scaler remembers of a pipeline.
#[derive(Default)]
struct Memory {
    history: History,
    trend: Trend,
    written_at: Option<Instant>,
}

/// The part of the status that the scaler owns.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScalerStatus {
    conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog_events: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_age_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drained_in_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scale_time: Option<Time>,
}

/// What came of one look.
struct Outcome {
    finding: Finding,
    desired: Option<i32>,
    scaled: bool,
    backlog: Option<Backlog>,
}

/// Scales until `shutdown`.
pub async fn run(ctx: Arc<Context>, pipelines: Pipelines, shutdown: CancellationToken) {
    let begun = Instant::now();
    let mut memories: HashMap<PipelineName, Memory> = HashMap::new();
    loop {
        let present = pipelines.of(&ctx.settings.namespace);
        let looks: Vec<_> = present
            .iter()
            .filter_map(|pipeline| Some((pipeline, pipeline.name_any().parse::<PipelineName>().ok()?)))
            .map(|(pipeline, name)| {
                let mut memory = memories.remove(&name).unwrap_or_default();
                let (ctx, now) = (&ctx, begun.elapsed());
                async move {
                    if let Err(error) = look(ctx, pipeline, &name, &mut memory, now).await {
                        tracing::warn!(pipeline.name = %name, "scale pipeline {name}: {}", explain(&error));
                    }
                    (name, memory)
                }
            })
            .collect();
        for gone in memories.keys() {
            ctx.metrics.forget_pipeline(gone.as_str());
        }
        // One that an answer is long in coming for holds up no other.
        memories = futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn look(
    ctx: &Context,
    pipeline: &LogPipeline,
    name: &PipelineName,
    memory: &mut Memory,
    now: scale::Moment,
) -> kube::Result<()> {
    // One that is to be deleted is needed for as long as it is there.
    if is_paused(pipeline) {
        return Ok(());
    }
    let deployments = Api::<Deployment>::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let deployment = name.processor_deployment(&ctx.settings.release);
    let scale = match deployments.get_scale(&deployment).await {
        Ok(scale) => scale,
        // The controller has not made it yet.
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    let backlog = match backlog::read(&ctx.stores.registry, name, SystemTime::now()).await {
        Ok(backlog) => Some(backlog),
        Err(error) => {
            tracing::debug!(pipeline.name = %name, "{}", runtime::logging::chain(&error));
            None
        }
    };
    memory.trend.record(backlog.map(|backlog| backlog.events), now);
    if let Some(backlog) = backlog {
        ctx.metrics.backlog(name.as_str(), backlog.events, backlog.oldest_age, memory.trend.drained_in());
    }
    let missing_store = ctx.health.borrow().missing_for_processors();
    let observation = Observation { replicas, backlog, missing_store };
    let outcome = decide(pipeline, &observation, memory, now);
    if let (true, Some(to)) = (outcome.scaled, outcome.desired) {
        set_replicas(&deployments, &deployment, to).await?;
        tracing::info!(pipeline.name = %name, from = replicas, to, "scaled pipeline {name}: {}", outcome.finding.message);
    }
    ctx.metrics.at_max_replicas(name.as_str(), outcome.finding.reason == Reason::AtMaxReplicas);
    if let Some(desired) = outcome.desired {
        ctx.metrics.desired_replicas(name.as_str(), desired);
    }
    report(ctx, pipeline, outcome, memory).await
}

fn decide(pipeline: &LogPipeline, observation: &Observation, memory: &mut Memory, now: scale::Moment) -> Outcome {
    let scaling = &pipeline.spec.processor.scaling;
    let (backlog, current) = (observation.backlog, observation.replicas);
    let say = |status, reason, message: String| Finding { type_: types::SCALING_ACTIVE, status, reason, message };
    if pipeline.spec.suspend {
        memory.history = History::default();
        let message = "spec.suspend is set: no processors run".to_owned();
        let finding = say(Status::False, Reason::Suspended, message);
        return Outcome { finding, desired: Some(0), scaled: current != 0, backlog };
    }
    if scaling.mode == ScalingMode::External {
        memory.history = History::default();
        // What we have left at none, nobody wakes: an HPA does nothing at zero.
        if current == 0 && !is_left_alone(pipeline) {
            let to = scaling.min_replicas.max(1);
            let message =
                format!("the operator had left it without processors: {to} to begin with, then mode External");
            return Outcome {
                finding: say(Status::False, Reason::External, message),
                desired: Some(to),
                scaled: true,
                backlog,
            };
        }
        let message = "spec.processor.scaling.mode is External: the operator writes no replicas".to_owned();
        return Outcome {
            finding: say(Status::False, Reason::External, message),
            desired: None,
            scaled: false,
            backlog,
        };
    }
    let policy = Policy::from(scaling);
    let decision = scale::scale(&policy, observation, now, &memory.history);
    memory.history.record(&policy, observation, decision, now);
    let message = scale::explain(&policy, observation, decision);
    let (to, reason) = match decision {
        Decision::To(to, reason) => (to, reason),
        Decision::Hold(reason) => (current, reason),
    };
    let status = match reason {
        Reason::BacklogUnavailable | Reason::BackendUnavailable => Status::Unknown,
        _ => Status::True,
    };
    Outcome { finding: say(status, reason, message), desired: Some(to), scaled: to != current, backlog }
}

/// Whether somebody else scales the pipeline already, as far as was said before.
fn is_left_alone(pipeline: &LogPipeline) -> bool {
    before(pipeline).conditions.iter().any(|one| one.reason == Reason::External.as_str())
}

async fn report(ctx: &Context, pipeline: &LogPipeline, outcome: Outcome, memory: &mut Memory) -> kube::Result<()> {
    let before = before(pipeline);
    let finding = outcome.finding;
    let notes = transitions(&before.conditions, std::slice::from_ref(&finding))
        .into_iter()
        // Steady and Stabilizing follow each other all day: only what changes replicas is news.
        .filter(|note| note.warning || outcome.scaled);
    let notes = notes.collect();
    let mut conditions = before.conditions.clone();
    set(&mut conditions, finding, pipeline.metadata.generation, now());
    let status = ScalerStatus {
        conditions,
        desired_replicas: outcome.desired,
        backlog_events: outcome.backlog.map(|backlog| rounded(backlog.events)),
        oldest_age_seconds: outcome.backlog.and_then(|backlog| i64::try_from(backlog.oldest_age.as_secs()).ok()),
        drained_in_seconds: memory.trend.drained_in().and_then(|time| i64::try_from(time.as_secs()).ok()).map(rounded),
        last_scale_time: if outcome.scaled { Some(now()) } else { before.last_scale_time.clone() },
    };
    let due = memory.written_at.is_none_or(|at| at.elapsed() >= STATUS_INTERVAL);
    let news = outcome.scaled
        || status.desired_replicas != before.desired_replicas
        || reasons(&status.conditions) != reasons(&before.conditions);
    if status == before || !(due || news) {
        return Ok(());
    }
    memory.written_at = Some(Instant::now());
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    match apply_status(&api, &pipeline.name_any(), SCALER_FIELD_MANAGER, &status).await {
        Err(error) if is_not_found(&error) => return Ok(()),
        result => result?,
    }
    publish(&ctx.recorder, pipeline, notes).await;
    Ok(())
}

fn reasons(conditions: &[Condition]) -> Vec<(&str, &str, Option<i64>)> {
    conditions.iter().map(|one| (one.status.as_str(), one.reason.as_str(), one.observed_generation)).collect()
}

/// What the scaler wrote last.
fn before(pipeline: &LogPipeline) -> ScalerStatus {
    let status = pipeline.status.clone().unwrap_or_default();
    ScalerStatus {
        conditions: status.conditions.into_iter().filter(|one| one.type_ == types::SCALING_ACTIVE).collect(),
        desired_replicas: status.desired_replicas,
        backlog_events: status.backlog_events,
        oldest_age_seconds: status.oldest_age_seconds,
        drained_in_seconds: status.drained_in_seconds,
        last_scale_time: status.last_scale_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pipeline(spec: serde_json::Value) -> LogPipeline {
        serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline",
            "metadata": {"name": "default", "generation": 1}, "spec": spec,
        }))
        .unwrap()
    }

    fn outcome(spec: serde_json::Value, replicas: i32, events: i64) -> (i32, bool, Reason) {
        let backlog = Backlog { events, oldest_age: Duration::ZERO };
        let observation = Observation { replicas, backlog: Some(backlog), missing_store: None };
        let outcome = decide(&pipeline(spec), &observation, &mut Memory::default(), Duration::ZERO);
        (outcome.desired.unwrap_or(-1), outcome.scaled, outcome.finding.reason)
    }

    #[test]
    fn a_suspended_pipeline_has_none_and_an_external_one_is_left_alone() {
        assert_eq!(outcome(json!({"suspend": true}), 3, 100), (0, true, Reason::Suspended));
        assert_eq!(outcome(json!({"suspend": true}), 0, 100), (0, false, Reason::Suspended));
        let external = json!({"processor": {"scaling": {"mode": "External"}}});
        assert_eq!(outcome(external.clone(), 3, 900_000), (-1, false, Reason::External));
        let few = json!({"processor": {"scaling": {"mode": "External", "minReplicas": 2}}});
        assert_eq!(outcome(few, 0, 0), (2, true, Reason::External), "as after a suspension");
        let none = json!({"processor": {"scaling": {"mode": "External", "minReplicas": 0}}});
        assert_eq!(outcome(none, 0, 0), (1, true, Reason::External));
        let mut left_alone = pipeline(external);
        let said = Finding {
            type_: types::SCALING_ACTIVE,
            status: Status::False,
            reason: Reason::External,
            message: String::new(),
        };
        let mut status = crds::LogPipelineStatus::default();
        set(&mut status.conditions, said, None, now());
        left_alone.status = Some(status);
        let observation = Observation { replicas: 0, backlog: None, missing_store: None };
        let outcome_of = decide(&left_alone, &observation, &mut Memory::default(), Duration::ZERO);
        assert!(!outcome_of.scaled, "whoever scales it wants none");
        assert_eq!(outcome(json!({}), 1, 60_000), (3, true, Reason::ScalingUp));
        assert_eq!(outcome(json!({}), 1, 0), (1, false, Reason::Steady));
    }
}
