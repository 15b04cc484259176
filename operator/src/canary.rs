//! What becomes of the canaries' round trips: the condition CanaryHealthy of their pipelines.
//!
//! A canary measures from where a tenant stands and knows nothing of Kubernetes; the operator asks it over
//! HTTP and writes what it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::canary::{Report, RoundTrip, failure};
use crds::condition::{Finding, Reason, Status, set, types};
use crds::pipeline::Canary;
use crds::{LogPipeline, PipelineName};
use futures::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::kubernetes::{
    CANARY_FIELD_MANAGER, apply_status, explain, is_not_found, is_paused, now, publish, transitions,
};
use crate::scaler::Pipelines;
use crate::settings::Settings;

/// Time between two questions to each canary.
const INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Canaries that are asked at once.
const AT_ONCE: usize = 8;
/// Longest answer that is read: some hundred bytes, else.
const MAX_ANSWER: usize = 64 * 1024;
/// Shortest time between two writes in which only the times of a success differ.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);

type Asker = Client<HttpConnector, Empty<Bytes>>;

/// Asks until `shutdown`.
pub async fn run(ctx: Arc<Context>, pipelines: Pipelines, shutdown: CancellationToken) {
    let asker: Asker = Client::builder(TokioExecutor::new()).build_http();
    let mut written: HashMap<String, Instant> = HashMap::new();
    loop {
        let present = pipelines.of(&ctx.settings.namespace);
        written.retain(|name, _| present.iter().any(|pipeline| pipeline.name_any() == *name));
        let looks: Vec<_> = present.iter().map(|pipeline| look(&ctx, &asker, pipeline, &written)).collect();
        let looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
        // Canaries that don't answer hold up no other leader.
        let Some(looks) = shutdown.run_until_cancelled(looks).await else { return };
        written.extend(looks.into_iter().flatten().map(|name| (name, Instant::now())));
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Asks one pipeline's canary. Gives the pipeline's name if its status was written.
async fn look(
    ctx: &Context,
    asker: &Asker,
    pipeline: &LogPipeline,
    written: &HashMap<String, Instant>,
) -> Option<String> {
    let name: PipelineName = pipeline.name_any().parse().ok()?;
    if pipeline.metadata.deletion_timestamp.is_some() || is_paused(pipeline) {
        return None;
    }
    let finding = match &pipeline.spec.canary {
        None => None,
        Some(_) if pipeline.spec.suspend => Some(suspended()),
        Some(canary) => {
            let answer = ask(asker, &url(&ctx.settings, &name)).await;
            Some(finding(canary, has_answered(&before(pipeline)), answer))
        }
    };
    let due = written.get(name.as_str()).is_none_or(|at| at.elapsed() >= STATUS_INTERVAL);
    match report(ctx, pipeline, finding, due).await {
        Ok(written) => written.then(|| name.to_string()),
        Err(error) => {
            tracing::warn!(pipeline.name = %name, "write what the canary of {name} says: {}", explain(&error));
            None
        }
    }
}

fn url(settings: &Settings, name: &PipelineName) -> String {
    let service = name.canary_deployment(&settings.release);
    match &settings.canary_url {
        Some(url) => url.replace("{service}", &service),
        None => format!("http://{service}.{}", settings.namespace),
    }
}

/// The canary's report, or why there is none.
async fn ask(asker: &Asker, url: &str) -> Result<Report, String> {
    let uri = format!("{url}/canary").parse::<hyper::Uri>().map_err(|error| format!("`{url}` is no URL: {error}"))?;
    let answer = async {
        let response = asker.get(uri).await.map_err(|error| runtime::logging::chain(&error))?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("its answer broke off: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("its answer can't be read: {error}"))
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

fn suspended() -> Finding {
    let message = "spec.suspend is set: no events are sent".to_owned();
    Finding { type_: types::CANARY_HEALTHY, status: Status::Unknown, reason: Reason::Suspended, message }
}

/// Whether its pod has been there before.
fn has_answered(before: &[Condition]) -> bool {
    let beginnings = [Reason::WaitingForPods.as_str(), Reason::Suspended.as_str()];
    before.iter().any(|condition| !beginnings.contains(&condition.reason.as_str()))
}

/// What a canary's answer means. One that has never answered is waited for.
fn finding(canary: &Canary, has_answered: bool, answer: Result<Report, String>) -> Finding {
    let say = |status, reason, message| Finding { type_: types::CANARY_HEALTHY, status, reason, message };
    let last = match answer {
        Err(why) => {
            let message = format!("the canary can't be asked: {why}. Its pod needs the Secret `{}`", canary.key_secret);
            let reason = if has_answered { Reason::CanaryUnavailable } else { Reason::WaitingForPods };
            return say(Status::Unknown, reason, message);
        }
        Ok(Report { last: None }) => {
            let message = "the first round trip has not ended".to_owned();
            return say(Status::Unknown, Reason::WaitingForPods, message);
        }
        Ok(Report { last: Some(last) }) => last,
    };
    if last.age_seconds > patience(canary) {
        let message = format!("the canary has ended no round trip for {} s", last.age_seconds);
        return say(Status::Unknown, Reason::CanaryUnavailable, message);
    }
    match failure(&last.stages) {
        None => say(Status::True, Reason::RoundTripSucceeded, times(&last)),
        Some((stage, why)) => {
            // The times at the end: they may be cut off.
            let message = format!("{}: {why}; {}", stage.as_str(), times(&last));
            say(Status::False, Reason::RoundTripFailed, message.trim_end_matches("; ").to_owned())
        }
    }
}

/// Seconds after which a canary that goes on would have ended another round trip: its pause, its time, and
/// as much again for the live tail and for a busy machine.
fn patience(canary: &Canary) -> u64 {
    u64::try_from(canary.interval_seconds + 2 * canary.timeout_seconds + 30).unwrap_or(0)
}

fn times(last: &RoundTrip) -> String {
    let came = |milliseconds| format!("{milliseconds} ms");
    let times = last.stages.iter().filter_map(|one| Some((one.stage.as_str(), came(one.milliseconds?))));
    times.map(|(stage, took)| format!("{stage} {took}")).collect::<Vec<_>>().join(", ")
}

/// Writes the condition, or takes it away. Tells whether it wrote; a success that only took another time is
/// written if it is `due`.
async fn report(ctx: &Context, pipeline: &LogPipeline, finding: Option<Finding>, due: bool) -> kube::Result<bool> {
    let before = before(pipeline);
    let mut conditions = if finding.is_some() { before.clone() } else { Vec::new() };
    let notes = finding.as_ref().map(|finding| transitions(&before, std::slice::from_ref(finding)));
    if let Some(finding) = finding {
        set(&mut conditions, finding, pipeline.metadata.generation, now());
    }
    if conditions == before || (said(&conditions) == said(&before) && !due) {
        return Ok(false);
    }
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let status = json!({"conditions": conditions});
    match apply_status(&api, &pipeline.name_any(), CANARY_FIELD_MANAGER, &status).await {
        Err(error) if is_not_found(&error) => return Ok(false),
        result => result?,
    }
    publish(&ctx.recorder, pipeline, notes.unwrap_or_default()).await;
    Ok(true)
}

/// What was written last.
fn before(pipeline: &LogPipeline) -> Vec<Condition> {
    let conditions = pipeline.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|one| one.type_ == types::CANARY_HEALTHY).cloned().collect()
}

fn said(conditions: &[Condition]) -> Vec<(&str, &str, Option<i64>)> {
    conditions.iter().map(|one| (one.status.as_str(), one.reason.as_str(), one.observed_generation)).collect()
}

#[cfg(test)]
mod tests {
    use crds::canary::{Stage, StageReport};

    use super::*;

    fn canary() -> Canary {
        serde_json::from_value(json!({"keySecret": "canary-key"})).unwrap()
    }

    fn last(age_seconds: u64, live: Result<u64, &str>) -> Result<Report, String> {
        let accept = StageReport { stage: Stage::Accept, milliseconds: Some(4), error: None };
        let live = StageReport { stage: Stage::Live, milliseconds: live.ok(), error: live.err().map(str::to_owned) };
        Ok(Report { last: Some(RoundTrip { age_seconds, stages: vec![accept, live] }) })
    }

    #[test]
    fn the_condition_says_how_the_last_round_trip_went() {
        let refused = || Err("connection refused".to_owned());
        let why = "the canary can't be asked: connection refused. Its pod needs the Secret `canary-key`";
        let never = finding(&canary(), false, refused());
        assert_eq!((never.reason, never.message.as_str()), (Reason::WaitingForPods, why), "its pod is on its way");
        for (answer, status, reason, message) in [
            (last(59, Ok(31)), Status::True, Reason::RoundTripSucceeded, "accept 4 ms, live 31 ms"),
            (
                last(59, Err("not shown in time")),
                Status::False,
                Reason::RoundTripFailed,
                "live: not shown in time; accept 4 ms",
            ),
            (
                last(151, Ok(31)),
                Status::Unknown,
                Reason::CanaryUnavailable,
                "the canary has ended no round trip for 151 s",
            ),
            (Ok(Report::default()), Status::Unknown, Reason::WaitingForPods, "the first round trip has not ended"),
            (refused(), Status::Unknown, Reason::CanaryUnavailable, why),
        ] {
            let found = finding(&canary(), true, answer);
            assert_eq!((found.status, found.reason, found.message.as_str()), (status, reason, message));
        }
    }

    #[test]
    fn an_event_that_was_not_accepted_has_no_times() {
        let refused = StageReport { stage: Stage::Accept, milliseconds: None, error: Some("401".to_owned()) };
        let report = Report { last: Some(RoundTrip { age_seconds: 0, stages: vec![refused] }) };
        assert_eq!(finding(&canary(), true, Ok(report)).message, "accept: 401");
    }
}
