//! Whether a pipeline is run: where it is, what it says of replicas, and its stages and their tests, by the same code as
//! in the processor.

use crds::condition::Reason;
use crds::{LogPipeline, LogPipelineSpec, PipelineName};
use kube::ResourceExt;
use stages::{Pipeline, run_tests};

/// Failures that a message tells in full; a condition has room for 1 KiB.
const TOLD: usize = 3;

/// The name of a pipeline that is where we run any.
pub(super) fn place(pipeline: &LogPipeline, release_namespace: &str) -> Result<PipelineName, (Reason, String)> {
    let namespace = pipeline.namespace().unwrap_or_default();
    if namespace != release_namespace {
        let message = format!(
            "pipelines run in namespace `{release_namespace}` only, because their pods hold the platform's \
             credentials: move it there"
        );
        return Err((Reason::NamespaceNotAllowed, message));
    }
    pipeline.name_any().parse().map_err(|error| (Reason::InvalidSpec, format!("metadata.name: {error}")))
}

/// Whether a spec is one that is run. Its tests are run as if their lines came `now`, in microseconds
/// since 1970.
pub(super) fn accept(spec: &LogPipelineSpec, now: i64) -> Result<(), (Reason, String)> {
    check_replicas(spec).map_err(|message| (Reason::InvalidSpec, message))?;
    check(spec, now)
}

/// What the API server's rules say, too; objects that were stored before a rule was made can break it.
fn check_replicas(spec: &LogPipelineSpec) -> Result<(), String> {
    let scaling = &spec.processor.scaling;
    if scaling.min_replicas > scaling.max_replicas {
        return Err("spec.processor.scaling: minReplicas must not exceed maxReplicas".to_owned());
    }
    let ingest = spec.ingest.as_ref();
    let Some((ingest, autoscaling)) = ingest.and_then(|ingest| Some((ingest, ingest.autoscaling.as_ref()?))) else {
        return Ok(());
    };
    if autoscaling.min_replicas > autoscaling.max_replicas {
        return Err("spec.ingest.autoscaling: minReplicas must not exceed maxReplicas".to_owned());
    }
    if !ingest.resources.requests.contains_key("cpu") {
        return Err("spec.ingest.autoscaling needs spec.ingest.resources.requests.cpu".to_owned());
    }
    Ok(())
}

/// Whether the stages can be run and do what the tests say, for lines accepted at `now`.
fn check(spec: &LogPipelineSpec, now: i64) -> Result<(), (Reason, String)> {
    let pipeline = Pipeline::compile(&spec.stages)
        .map_err(|error| (Reason::InvalidStages, format!("{error} (code {})", error.code)))?;
    let failures = run_tests(&pipeline, &spec.tests, now);
    if failures.is_empty() {
        return Ok(());
    }
    let mut message: Vec<String> = failures.iter().take(TOLD).map(ToString::to_string).collect();
    if failures.len() > TOLD {
        message.push(format!("and {} more", failures.len() - TOLD));
    }
    Err((Reason::TestsFailed, message.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(stages: Value, tests: Value) -> LogPipelineSpec {
        serde_json::from_value(json!({"stages": stages, "tests": tests})).unwrap()
    }

    #[test]
    fn a_pipeline_is_accepted_only_if_its_tests_hold() {
        let stages = json!([{"name": "cards", "redact": {"detectors": ["CardNumber"]}}]);
        let test = |name: &str, message: &str| json!({"name": name, "input": "paid with 4111 1111 1111 1111", "expect": {"fields": {"message": message}}});
        assert_eq!(check(&spec(stages.clone(), json!([test("a", "paid with [card]")])), 0), Ok(()));
        let failing: Vec<Value> = ["a", "b", "c", "d", "e"].map(|name| test(name, "x")).into();
        let (reason, message) = check(&spec(stages, json!(failing)), 0).unwrap_err();
        assert_eq!(reason, Reason::TestsFailed);
        assert!(
            message.starts_with("test `a`: field `message`: expected `x`, got `paid with [card]`; test `b`"),
            "{message}"
        );
        assert!(message.ends_with("; and 2 more"), "{message}");
    }

    #[test]
    fn stages_that_cannot_be_run_are_not_accepted() {
        let stages = json!([{"name": "broken", "parse": {"format": "Regex", "pattern": "(?<a>x"}}]);
        let (reason, message) = check(&spec(stages, json!([])), 0).unwrap_err();
        assert_eq!(reason, Reason::InvalidStages);
        let expected = "spec.stages[0] `broken`: parse.pattern: at character 1: unclosed group (code invalid_regex)";
        assert_eq!(message, expected);
    }

    fn pipeline(namespace: &str) -> LogPipeline {
        serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline",
            "metadata": {"name": "fast", "namespace": namespace}, "spec": {},
        }))
        .unwrap()
    }

    #[test]
    fn a_pipeline_runs_in_the_release_namespace_only() {
        assert_eq!(place(&pipeline("logs"), "logs").unwrap().as_str(), "fast");
        assert_eq!(place(&pipeline("acme"), "logs").unwrap_err().0, Reason::NamespaceNotAllowed);
    }

    #[test]
    fn a_spec_that_contradicts_itself_is_refused() {
        let cpu = serde_json::json!({"requests": {"cpu": "100m"}});
        for (spec, said) in [
            (serde_json::json!({}), None),
            (serde_json::json!({"processor": {"scaling": {"minReplicas": 11}}}), Some("scaling: minReplicas must not")),
            (serde_json::json!({"ingest": {"autoscaling": {}, "resources": cpu}}), None),
            (serde_json::json!({"ingest": {"autoscaling": {}}}), Some("needs spec.ingest.resources.requests.cpu")),
            (
                serde_json::json!({"ingest": {"autoscaling": {"minReplicas": 11}, "resources": cpu}}),
                Some("autoscaling: minReplicas must not"),
            ),
        ] {
            let refused = accept(&serde_json::from_value(spec.clone()).unwrap(), 0).err();
            let refused = refused.map(|(reason, message)| (reason == Reason::InvalidSpec, message));
            let as_expected = match (&refused, said) {
                (Some((true, message)), Some(said)) => message.contains(said),
                (refused, said) => refused.is_none() && said.is_none(),
            };
            assert!(as_expected, "{spec}: {refused:?}");
        }
    }
}
