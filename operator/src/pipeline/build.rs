//! The objects that a LogPipeline yields: plain values from plain values, nothing that can fail.

use std::collections::BTreeMap;

use crds::names::gateway_service;
use crds::pipeline::{Canary, Ingest, Resources, ServiceType};
use crds::{LogPipeline, PipelineName};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::last_accepted;
use super::pod::{Mount, mount, pod, stages, variable};
use super::role::{Role, labels, metadata, selector};
use crate::settings::Settings;

/// The Deployment of a pipeline's processors. It says nothing about replicas: those are the
/// scaler's, on the scale subresource.
pub fn processor(settings: &Settings, pipeline: &LogPipeline, name: &PipelineName) -> Deployment {
    let processor = &pipeline.spec.processor;
    let mut own = vec![
        variable("LOGGERHUB_BATCH_MAX_EVENTS", processor.batch.max_events.to_string()),
        variable("LOGGERHUB_BATCH_MAX_BYTES", processor.batch.max_bytes.to_string()),
        variable("LOGGERHUB_MAX_RETRIES", processor.max_retries.to_string()),
        variable("LOGGERHUB_WORKERS", processor.workers.to_string()),
        // Milliseconds until memory that is free goes back to the kernel: a flush needs what the last one held, and
        // after mimalloc's own 10 ms the kernel would have to clear all of it again.
        variable("MIMALLOC_PURGE_DELAY", "1000".to_owned()),
    ];
    own.extend(stages(&pipeline.spec));
    let secrets = &settings.dataplane.secrets;
    let mounts = [
        mount("redis-queue", "LOGGERHUB_REDIS_QUEUE_CREDENTIALS", secrets.redis_queue.clone()),
        mount("redis-cache", "LOGGERHUB_REDIS_CACHE_CREDENTIALS", secrets.redis_cache.clone()),
        mount("postgres", "LOGGERHUB_POSTGRES_CREDENTIALS", Some(settings.secrets.postgres_data.clone())),
        mount("opensearch", "LOGGERHUB_OPENSEARCH_CREDENTIALS", secrets.opensearch.clone()),
    ];
    let deployment = name.processor_deployment(&settings.release);
    let mut deployment =
        workload(settings, pipeline, name, Role::Processor, deployment, None, &processor.resources, own, mounts.into());
    deployment.metadata.annotations =
        last_accepted::annotation(pipeline).map(|annotation| BTreeMap::from([annotation]));
    deployment
}

/// The Deployment of a pipeline's own ingest. Where there is autoscaling it says nothing about replicas.
pub fn ingest(settings: &Settings, pipeline: &LogPipeline, name: &PipelineName, ingest: &Ingest) -> Deployment {
    let mounts = [
        mount(
            "redis-queue",
            "LOGGERHUB_REDIS_QUEUE_CREDENTIALS",
            settings.dataplane.secrets.redis_queue_ingest.clone(),
        ),
        mount("redis-cache", "LOGGERHUB_REDIS_CACHE_CREDENTIALS", settings.dataplane.secrets.redis_cache.clone()),
        mount("peppers", "LOGGERHUB_PEPPERS", Some(settings.secrets.peppers.name.clone())),
    ];
    let deployment = name.ingest_deployment(&settings.release);
    let replicas = ingest.autoscaling.is_none().then_some(ingest.replicas);
    workload(settings, pipeline, name, Role::Ingest, deployment, replicas, &ingest.resources, vec![], mounts.into())
}

/// The Service of a pipeline's own ingest.
pub fn ingest_service(settings: &Settings, pipeline: &LogPipeline, name: &PipelineName, ingest: &Ingest) -> Service {
    let type_ = match ingest.service.type_ {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let node_port = ingest.service.node_port;
    service(settings, pipeline, name, Role::Ingest, name.ingest_deployment(&settings.release), type_, node_port)
}

/// The Deployment of a pipeline's canary: it holds the API key of a tenant, and no store's credentials.
pub fn canary(settings: &Settings, pipeline: &LogPipeline, name: &PipelineName, canary: &Canary) -> Deployment {
    let release = &settings.release;
    let default = PipelineName::default_pipeline();
    let ingest = if pipeline.spec.ingest.is_some() { name } else { &default };
    let own = vec![
        variable("LOGGERHUB_INGEST_URL", format!("http://{}", ingest.ingest_deployment(release))),
        variable("LOGGERHUB_GATEWAY_URL", format!("http://{}", gateway_service(release))),
        variable("LOGGERHUB_CANARY_INTERVAL_SECONDS", canary.interval_seconds.to_string()),
        variable("LOGGERHUB_CANARY_TIMEOUT_SECONDS", canary.timeout_seconds.to_string()),
    ];
    let mounts = [mount("key", "LOGGERHUB_CANARY_CREDENTIALS", Some(canary.key_secret.clone()))];
    // An event a minute needs hardly anything.
    let quantity = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let resources = Resources {
        requests: [quantity("cpu", "10m"), quantity("memory", "16Mi")].into(),
        limits: [quantity("memory", "64Mi")].into(),
    };
    let replicas = Some(i32::from(!pipeline.spec.suspend));
    let deployment = name.canary_deployment(release);
    workload(settings, pipeline, name, Role::Canary, deployment, replicas, &resources, own, mounts.into())
}

/// The Service by which the operator asks a pipeline's canary.
pub fn canary_service(settings: &Settings, pipeline: &LogPipeline, name: &PipelineName) -> Service {
    service(settings, pipeline, name, Role::Canary, name.canary_deployment(&settings.release), "ClusterIP", None)
}

fn service(
    settings: &Settings,
    pipeline: &LogPipeline,
    name: &PipelineName,
    role: Role,
    object: String,
    type_: &str,
    node_port: Option<i32>,
) -> Service {
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: 80,
        protocol: Some("TCP".to_owned()),
        // What a canary tells is for the operator; it has no other port.
        target_port: Some(IntOrString::String(if role == Role::Canary { "admin" } else { "http" }.to_owned())),
        node_port,
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(settings, pipeline, name, role, object),
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            selector: Some(selector(settings, name, role)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[expect(clippy::too_many_arguments, reason = "three callers in this file, each naming its differences")]
fn workload(
    settings: &Settings,
    pipeline: &LogPipeline,
    name: &PipelineName,
    role: Role,
    deployment: String,
    replicas: Option<i32>,
    resources: &Resources,
    own: Vec<EnvVar>,
    mounts: Vec<Option<Mount>>,
) -> Deployment {
    let mounts: Vec<Mount> = mounts.into_iter().flatten().collect();
    let mut pod_labels = settings.dataplane.pod_labels.clone();
    pod_labels.extend(labels(settings, name, role));
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(pod_labels), ..ObjectMeta::default() }),
        spec: Some(pod(settings, pipeline, name, role, resources, own, &mounts)),
    };
    Deployment {
        metadata: metadata(settings, pipeline, name, role, deployment),
        spec: Some(DeploymentSpec {
            replicas,
            selector: LabelSelector { match_labels: Some(selector(settings, name, role)), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // No fewer than asked for while a new version comes.
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use serde_json::{Value, json};

    fn pipeline() -> (LogPipeline, PipelineName) {
        let pipeline = serde_json::from_value(json!({
            "apiVersion": "loggerhub.io/v1alpha1",
            "kind": "LogPipeline",
            "metadata": {"name": "fast", "namespace": "logs", "uid": "1", "generation": 3},
            "spec": {"ingest": {"replicas": 2}, "processor": {"resources": {"requests": {"cpu": "100m"}}}},
        }));
        (pipeline.unwrap(), "fast".parse().unwrap())
    }

    fn built() -> Value {
        let (pipeline, name) = pipeline();
        serde_json::to_value(processor(&settings(), &pipeline, &name)).unwrap()
    }

    #[test]
    fn the_processors_deployment_says_nothing_about_replicas() {
        let deployment = built();
        assert_eq!(deployment["metadata"]["name"], "loggerhub-fast-processor");
        assert_eq!(deployment["metadata"]["ownerReferences"][0]["kind"], "LogPipeline");
        assert!(deployment["spec"].get("replicas").is_none());
    }

    #[test]
    fn a_pod_is_restricted_and_holds_no_token() {
        let deployment = built();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    }

    #[test]
    fn our_variables_win_over_given_ones_and_credentials_are_folders() {
        let deployment = built();
        let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let value = |name: &str| {
            let all: Vec<&Value> = env.iter().filter(|one| one["name"] == name).collect();
            assert_eq!(all.len(), 1, "{name}");
            all[0]["value"].clone()
        };
        assert_eq!(value("LOGGERHUB_PIPELINE"), "fast");
        assert_eq!(value("LOGGERHUB_PIPELINE_GENERATION"), "3");
        assert_eq!(value("LOGGERHUB_LOG"), "info");
        assert_eq!(value("LOGGERHUB_POSTGRES_CREDENTIALS"), "/etc/loggerhub/secrets/postgres");
        assert_eq!(value("LOGGERHUB_REGISTRY_KEYS"), "/etc/loggerhub/registry-keys");
        assert!(env.iter().all(|one| one["name"] != "LOGGERHUB_OPENSEARCH_CREDENTIALS"));
    }

    #[test]
    fn ingest_has_its_replicas_a_service_and_no_postgres() {
        let (pipeline, name) = pipeline();
        let spec = pipeline.spec.ingest.clone().unwrap();
        let deployment = serde_json::to_value(ingest(&settings(), &pipeline, &name, &spec)).unwrap();
        assert_eq!(deployment["spec"]["replicas"], 2);
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        let names: Vec<&str> = volumes.iter().filter_map(|volume| volume["name"].as_str()).collect();
        assert_eq!(names, ["redis-queue", "redis-cache", "peppers", "registry-keys", "ca"]);
        let keys = &volumes[3]["configMap"];
        assert_eq!((&keys["name"], &keys["optional"]), (&json!("loggerhub-registry-keys"), &json!(true)));
        let service = serde_json::to_value(ingest_service(&settings(), &pipeline, &name, &spec)).unwrap();
        assert_eq!(service["spec"]["selector"]["app.kubernetes.io/component"], "ingest");
        assert_eq!(service["spec"]["ports"][0]["port"], 80);
        assert_eq!(service["spec"]["ports"][0]["targetPort"], "http", "and not what it says of itself");
    }

    #[test]
    fn a_canary_holds_a_tenants_key_and_nothing_else() {
        let (mut pipeline, name) = pipeline();
        let spec: Canary = serde_json::from_value(json!({"keySecret": "canary-key"})).unwrap();
        let built = |pipeline: &LogPipeline| {
            let deployment = serde_json::to_value(canary(&settings(), pipeline, &name, &spec)).unwrap();
            let pod = deployment["spec"]["template"]["spec"].clone();
            let env = pod["containers"][0]["env"].as_array().unwrap().clone();
            let ingest = env.iter().find(|one| one["name"] == "LOGGERHUB_INGEST_URL").unwrap()["value"].clone();
            (deployment["spec"]["replicas"].clone(), ingest, pod)
        };
        let (replicas, ingest, pod) = built(&pipeline);
        assert_eq!((replicas, ingest), (json!(1), json!("http://loggerhub-fast-ingest")));
        let secrets: Vec<_> =
            pod["volumes"].as_array().unwrap().iter().filter_map(|v| v["secret"]["secretName"].as_str()).collect();
        assert_eq!(secrets, ["canary-key"]);
        assert_eq!(pod["containers"][0]["command"], json!(["loggerhub", "canary"]));
        (pipeline.spec.ingest, pipeline.spec.suspend) = (None, true);
        let (replicas, ingest, _) = built(&pipeline);
        assert_eq!((replicas, ingest), (json!(0), json!("http://loggerhub-default-ingest")));
    }
}
