//! The spec of a pipeline that was accepted last. It stands on the processors' Deployment, so that a
//! pipeline that is refused goes on with it when the release is upgraded or an object was changed.

use crds::{ACCEPTED_SPEC_ANNOTATION, LogPipeline, LogPipelineSpec};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Accepted {
    generation: Option<i64>,
    spec: LogPipelineSpec,
}

/// The annotation that keeps this spec, as a name and a value.
pub(super) fn annotation(pipeline: &LogPipeline) -> Option<(String, String)> {
    // The tests have been passed; they may be the most of it.
    let spec = LogPipelineSpec { tests: Vec::new(), ..pipeline.spec.clone() };
    let accepted = Accepted { generation: pipeline.metadata.generation, spec };
    serde_json::to_string(&accepted).ok().map(|json| (ACCEPTED_SPEC_ANNOTATION.to_owned(), json))
}

/// The pipeline as it was when it was accepted last, if these processors say.
pub(super) fn last(pipeline: &LogPipeline, processors: &Deployment) -> Option<LogPipeline> {
    let json = processors.annotations().get(ACCEPTED_SPEC_ANNOTATION)?;
    let Accepted { generation, spec } = serde_json::from_str(json).ok()?;
    let mut last = LogPipeline { spec, ..pipeline.clone() };
    last.metadata.generation = generation;
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::build;
    use crate::settings::tests::settings;
    use serde_json::json;

    fn pipeline(generation: i64, detector: &str) -> LogPipeline {
        serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1",
            "kind": "LogPipeline",
            "metadata": {"name": "fast", "namespace": "logs", "uid": "1", "generation": generation},
            "spec": {
                "ingest": {"replicas": 2},
                "stages": [{"name": "cards", "redact": {"detectors": [detector]}}],
                "tests": [{"name": "t", "input": "a", "expect": {"dropped": true}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn processors_are_built_again_as_they_were_and_of_the_new_image() {
        let name = "fast".parse().unwrap();
        let before = build::processor(&settings(), &pipeline(3, "CardNumber"), &name);
        let last = last(&pipeline(4, "Email"), &before).unwrap();
        assert_eq!(build::processor(&settings(), &last, &name), before);
        assert_eq!(last.spec.ingest, pipeline(3, "CardNumber").spec.ingest);
        let mut upgraded = settings();
        upgraded.dataplane.image = "loggerhub:2".into();
        let after = build::processor(&upgraded, &last, &name);
        let pod = after.spec.clone().unwrap().template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some("loggerhub:2"));
        assert_eq!(after.annotations(), before.annotations());
    }

    #[test]
    fn what_is_not_there_or_can_not_be_read_says_nothing() {
        let mut processors = Deployment::default();
        assert!(last(&pipeline(4, "Email"), &processors).is_none());
        processors.annotations_mut().insert(ACCEPTED_SPEC_ANNOTATION.into(), "{".into());
        assert!(last(&pipeline(4, "Email"), &processors).is_none());
    }
}
