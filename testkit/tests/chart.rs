//! The chart: it lints, it refuses values that can't work and says why, what it renders is
//! accepted by a real API server, and its pods are as restricted as they claim.

use crds::pipeline::LogPipelineSpec;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;
use testkit::{Cluster, helm, unique};

#[tokio::test]
async fn the_chart_lints() {
    helm::lint().await.unwrap();
}

#[tokio::test]
async fn values_that_cannot_work_are_refused_with_a_reason() {
    for (set, reason) in [
        ("gateway.replica=3", "additional properties 'replica' not allowed"),
        ("stores.s3.layout=Weird", "one of 'PerTenant', 'Shared'"),
        ("stores.postgres.port=no", "/stores/postgres/port"),
        ("stores.postgres.sslMode=maybe", "/stores/postgres/sslMode"),
        ("stores.redis.queue.url=http://x", "/stores/redis/queue/url"),
        ("stores.s3.bucketPrefix=UPPER", "/stores/s3/bucketPrefix"),
        ("stores.opensearch.replicas=-1", "/stores/opensearch/replicas"),
        ("stores.caBundle.existingSecret=ca", "a ConfigMap or a Secret, not both"),
        ("plans=null", "missing property 'plans'"),
        ("plans.standard.quotas.ingestBytesPerSecond=fast", "/plans/standard/quotas/ingestBytesPerSecond"),
        ("plans.standard.quotas.bytes=1", "additional properties 'bytes' not allowed"),
        ("spool.maxBytes=some", "/spool/maxBytes"),
        ("queue.waitTimeoutMilliseconds=5000", "/queue/waitTimeoutMilliseconds"),
        ("gateway.service.nodePort=30100", "/gateway/service/type"),
        ("defaultPipeline.ingest.service.nodePort=5", "/defaultPipeline/ingest/service/nodePort"),
        ("defaultPipeline.ingest.resources.requests.cpu=1", "got number, want string"),
        ("defaultPipeline.processors=1", "additional properties 'processors' not allowed"),
        ("rbac.tenantNamespaces={A_b}", "/rbac/tenantNamespaces/0"),
        ("fullnameOverride=a-name-of-more-than-twenty", "/fullnameOverride"),
        ("stores.postgres.host=", "stores.postgres.host is required"),
        ("stores.s3.existingSecret=", "stores.s3.existingSecret is required"),
    ] {
        let error = helm::template(&[set]).await.map(|_| "accepted").map_err(|error| error.to_string());
        assert!(error.as_ref().is_err_and(|said| said.contains(reason)), "{set}: {error:?}");
    }
}

#[tokio::test]
async fn without_values_the_first_missing_one_is_named() {
    let error = helm::template_without_values().await.unwrap_err().to_string();
    assert!(error.contains("stores.postgres.host is required: where PostgreSQL is"), "{error}");
}

#[tokio::test]
async fn the_default_pipeline_is_one_that_the_operator_reads() {
    let objects = rendered(&["defaultPipeline.processor.scaling.maxReplicas=4"]).await;
    let config = find(&objects, "ConfigMap", "loggerhub-operator")["data"]["config.yaml"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(config).unwrap();
    let spec = LogPipelineSpec::deserialize(&config["defaultPipeline"]).unwrap();
    assert_eq!(spec.processor.scaling.max_replicas, 4);
    assert!(spec.ingest.is_some());
}

#[tokio::test]
async fn every_pod_is_restricted_and_only_the_operator_has_a_token() {
    for deployment in rendered(&[]).await.iter().filter(|object| object["kind"] == "Deployment") {
        let name = &deployment["metadata"]["name"];
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(pod["automountServiceAccountToken"], name == "loggerhub-operator", "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!(container["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(container["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(container["capabilities"]["drop"][0], "ALL", "{name}");
    }
}

#[tokio::test]
async fn the_administrators_credentials_are_mounted_in_the_operator_only() {
    for deployment in rendered(&[]).await.iter().filter(|object| object["kind"] == "Deployment") {
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        let secrets: Vec<_> = volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str()).collect();
        let operator = deployment["metadata"]["name"] == "loggerhub-operator";
        for admin in ["loggerhub-postgres", "loggerhub-s3"] {
            assert_eq!(secrets.contains(&admin), operator, "{}: {secrets:?}", deployment["metadata"]["name"]);
        }
    }
}

#[tokio::test]
async fn listed_tenant_namespaces_replace_the_cluster_wide_binding() {
    let everywhere = rendered(&[]).await;
    assert!(names(&everywhere, "ClusterRoleBinding").contains(&"loggerhub-tenant-secrets"));
    let listed = rendered(&["rbac.tenantNamespaces={acme,globex}"]).await;
    assert!(!names(&listed, "ClusterRoleBinding").contains(&"loggerhub-tenant-secrets"));
    let bound = listed.iter().filter(|object| object["kind"] == "RoleBinding");
    let mut namespaces: Vec<_> = bound.filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["acme", "globex", "loggerhub"]);
}

#[tokio::test]
async fn what_can_be_switched_off_is_gone() {
    let objects = rendered(&["networkPolicy.enabled=false", "podDisruptionBudget.enabled=false", "crds.enabled=false"]);
    let objects = objects.await;
    for kind in ["NetworkPolicy", "PodDisruptionBudget", "CustomResourceDefinition"] {
        assert!(names(&objects, kind).is_empty(), "{kind}");
    }
}

/// Server-side dry-run: defaults, validation and Pod Security's warnings are the API server's own.
#[tokio::test]
async fn a_real_api_server_accepts_everything_that_is_rendered() {
    let cluster = Cluster::connect().await.unwrap();
    let namespace = unique("chart");
    cluster.ensure_namespace(&namespace).await.unwrap();
    let mut failures = Vec::new();
    for object in rendered(&["rbac.tenantNamespaces={loggerhub}"]).await {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        if let Err(error) = dry_run(&cluster.client, &namespace, object).await {
            failures.push(format!("{what}: {error}"));
        }
    }
    cluster.delete_namespace(&namespace).await.unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

async fn dry_run(client: &Client, namespace: &str, object: Value) -> anyhow::Result<()> {
    let mut object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().unwrap_or_default();
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &GroupVersionKind::try_from(&types)?).await?;
    let api: Api<DynamicObject> = match namespaced(&capabilities) {
        true => {
            object.metadata.namespace = Some(namespace.to_owned());
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        false => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams { dry_run: true, ..PatchParams::apply("loggerhub-chart-test").force() };
    let params = params.validation_strict();
    api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await?;
    Ok(())
}

fn namespaced(capabilities: &ApiCapabilities) -> bool {
    capabilities.scope == Scope::Namespaced
}

/// The chart's objects with the example's values and `sets`.
async fn rendered(sets: &[&str]) -> Vec<Value> {
    let yaml = helm::template(sets).await.expect("the chart renders");
    let documents = yaml.split("\n---\n").filter(|document| document.contains("kind:"));
    documents.map(|document| serde_saphyr::from_str(document).expect("YAML")).collect()
}

fn names<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a str> {
    objects.iter().filter(|o| o["kind"] == kind).filter_map(|o| o["metadata"]["name"].as_str()).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).expect(name)
}
