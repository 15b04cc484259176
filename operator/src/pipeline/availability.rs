//! What keeps a pipeline's pods available: how they are spread, how many may be evicted at once, and
//! how many ingest pods run.

use crds::pipeline::IngestAutoscaling;
use crds::{LogPipeline, PipelineName};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::role::{Role, metadata, selector};
use crate::settings::Settings;

/// How a role's pods are spread: as the installation says, each pipeline's pods among themselves.
pub(super) fn spread(settings: &Settings, name: &PipelineName, role: Role) -> Vec<TopologySpreadConstraint> {
    let given = settings.dataplane.topology_spread_constraints.iter().cloned();
    given.map(|one| TopologySpreadConstraint { label_selector: Some(pods(settings, name, role)), ..one }).collect()
}

/// The PodDisruptionBudget of a role's pods.
pub fn budget(settings: &Settings, pipeline: &LogPipeline, name: &PipelineName, role: Role) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(settings, pipeline, name, role, deployment(settings, name, role)),
        spec: Some(PodDisruptionBudgetSpec {
            // Of two or more one always stays, and a single one never holds up a node's drain, as
            // `minAvailable: 1` would.
            max_unavailable: Some(IntOrString::Int(1)),
            // Nor does one that is broken anyway.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            selector: Some(pods(settings, name, role)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// The HorizontalPodAutoscaler of a pipeline's own ingest.
pub fn autoscaler(
    settings: &Settings,
    pipeline: &LogPipeline,
    name: &PipelineName,
    autoscaling: &IngestAutoscaling,
) -> HorizontalPodAutoscaler {
    let ingest = deployment(settings, name, Role::Ingest);
    let cpu = ResourceMetricSource {
        name: "cpu".to_owned(),
        target: MetricTarget {
            type_: "Utilization".to_owned(),
            average_utilization: Some(autoscaling.target_cpu_utilization_percentage),
            ..MetricTarget::default()
        },
    };
    HorizontalPodAutoscaler {
        metadata: metadata(settings, pipeline, name, Role::Ingest, ingest.clone()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: ingest,
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(cpu),
                ..MetricSpec::default()
            }]),
            ..HorizontalPodAutoscalerSpec::default()
        }),
        ..HorizontalPodAutoscaler::default()
    }
}

fn deployment(settings: &Settings, name: &PipelineName, role: Role) -> String {
    match role {
        Role::Processor => name.processor_deployment(&settings.release),
        Role::Ingest => name.ingest_deployment(&settings.release),
        Role::Canary => name.canary_deployment(&settings.release),
    }
}

fn pods(settings: &Settings, name: &PipelineName, role: Role) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(settings, name, role)), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::build;
    use crate::settings::tests::settings;
    use serde_json::{Value, json};

    fn pipeline() -> (LogPipeline, PipelineName) {
        let pipeline = serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1",
            "kind": "LogPipeline",
            "metadata": {"name": "fast", "namespace": "logs", "uid": "1"},
            "spec": {"ingest": {"replicas": 3, "autoscaling": {"maxReplicas": 5}}},
        }));
        (pipeline.unwrap(), "fast".parse().unwrap())
    }

    #[test]
    fn a_budget_is_of_the_pods_of_one_role_and_pipeline() {
        let (pipeline, name) = pipeline();
        for (role, deployment) in [
            (Role::Processor, build::processor(&settings(), &pipeline, &name)),
            (Role::Ingest, build::ingest(&settings(), &pipeline, &name, pipeline.spec.ingest.as_ref().unwrap())),
        ] {
            let budget = budget(&settings(), &pipeline, &name, role);
            assert_eq!(budget.metadata.name, deployment.metadata.name);
            assert_eq!(budget.metadata.owner_references.unwrap()[0].kind, "LogPipeline");
            let spec = budget.spec.unwrap();
            assert_eq!(spec.selector.as_ref(), Some(&deployment.spec.unwrap().selector));
            assert_eq!((spec.max_unavailable, spec.min_available), (Some(IntOrString::Int(1)), None));
        }
    }

    #[test]
    fn an_autoscaled_ingest_says_nothing_about_replicas() {
        let (pipeline, name) = pipeline();
        let spec = pipeline.spec.ingest.clone().unwrap();
        let ingest = build::ingest(&settings(), &pipeline, &name, &spec);
        assert_eq!(ingest.spec.unwrap().replicas, None);
        let scaler = autoscaler(&settings(), &pipeline, &name, spec.autoscaling.as_ref().unwrap()).spec.unwrap();
        assert_eq!(Some(scaler.scale_target_ref.name), ingest.metadata.name);
        assert_eq!((scaler.min_replicas, scaler.max_replicas), (Some(2), 5));
        let metric = serde_json::to_value(scaler.metrics).unwrap();
        assert_eq!(metric[0]["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 70}));
    }

    #[test]
    fn pods_are_spread_as_the_installation_says_among_those_of_their_own() {
        let (pipeline, name) = pipeline();
        let deployment = serde_json::to_value(build::processor(&settings(), &pipeline, &name)).unwrap();
        let spread = &deployment["spec"]["template"]["spec"]["topologySpreadConstraints"];
        assert_eq!(spread.as_array().map(Vec::len), Some(1));
        assert_eq!((&spread[0]["topologyKey"], &spread[0]["maxSkew"]), (&json!("zone"), &json!(1)));
        assert_eq!(spread[0]["labelSelector"], deployment["spec"]["selector"]);
        assert_ne!(deployment["spec"]["selector"], Value::Null);
    }
}
