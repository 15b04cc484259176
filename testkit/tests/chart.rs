//! The chart: it lints, it refuses values that can't work and says why, what it renders is
//! accepted by a real API server, and its pods are as restricted as they claim.

#![allow(clippy::unwrap_used, reason = "a test fails where what it stands on does")]

#[path = "chart/monitoring.rs"]
mod monitoring;
#[path = "chart/evaluation.rs"]
mod evaluation;

use crds::pipeline::LogPipelineSpec;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope};
use kube::{Client, CustomResourceExt, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Cluster, helm, unique};

#[tokio::test]
async fn the_chart_lints() {
    for values in [helm::EXAMPLE, helm::EVERYTHING] {
        helm::lint(values).await.unwrap();
    }
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
        ("defaultPipeline.ingest.autoscaling.enabled=true", "additional properties 'enabled' not allowed"),
        ("defaultPipeline.canary.intervalSeconds=60", "missing property 'keySecret'"),
        ("tracing.endpoint=collector:4318", "/tracing/endpoint"),
        ("tracing.samplerArg=2", "/tracing/samplerArg"),
        ("defaultPipeline.processors=1", "additional properties 'processors' not allowed"),
        ("rbac.tenantNamespaces={A_b}", "/rbac/tenantNamespaces/0"),
        (
            "gateway.autoscaling.minReplicas=11,gateway.autoscaling.enabled=true",
            "minReplicas is greater than maxReplicas",
        ),
        ("search.autoscaling.enabled=true,search.resources.requests=null", "needs search.resources.requests.cpu"),
        ("gateway.ingress.enabled=true", "gateway.ingress.hosts: name at least one host"),
        ("ingest.httpRoute.enabled=true", "ingest.httpRoute.parentRefs: name at least one Gateway"),
        ("gateway.ingress.hosts={Logs_Example}", "/gateway/ingress/hosts/0"),
        ("tolerations[0].keys=a", "additional properties 'keys' not allowed"),
        ("networkPolicy.metricsFrom[0].namespaces=a", "additional properties 'namespaces' not allowed"),
        ("tests.timeoutSeconds=0", "/tests/timeoutSeconds"),
        ("metrics.rules.runbookUrl=here", "/metrics/rules/runbookUrl"),
        ("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval"),
        ("fullnameOverride=a-name-of-more-than-twenty", "/fullnameOverride"),
        ("stores.postgres.host=", "stores.postgres.host is required"),
        ("stores.s3.existingSecret=", "stores.s3.existingSecret is required"),
    ] {
        let error = helm::template(&[set]).await.map(|_| "accepted").map_err(|error| error.to_string());
        assert!(error.as_ref().is_err_and(|said| said.contains(reason)), "{set}: {error:?}");
    }
}

/// An object that is closed can't be misspelt. Only maps of names that users choose, and what the API
/// server knows better, are open.
#[test]
fn every_object_of_the_schema_is_closed_and_asked_for() {
    let schema = std::fs::read_to_string(testkit::helm::root().join("charts/loggerhub/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut open = Vec::new();
    open_objects(&schema, "", &mut open);
    open.sort_unstable();
    let affinity = "/properties/affinity/properties";
    let expected = ["nodeAffinity", "podAffinity", "podAntiAffinity"].map(|name| format!("{affinity}/{name}"));
    assert_eq!(open, [&expected[..], &["/properties/global".to_owned()]].concat());
}

fn open_objects(schema: &Value, path: &str, open: &mut Vec<String>) {
    let Some(members) = schema.as_object() else { return };
    if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
        open.push(path.to_owned());
    }
    for (name, member) in members.iter().filter(|(name, _)| name.as_str() != "required") {
        open_objects(member, &format!("{path}/{name}"), open);
    }
}

#[tokio::test]
async fn without_values_the_first_missing_one_is_named() {
    let error = helm::template_without_values().await.unwrap_err().to_string();
    assert!(error.contains("stores.postgres.host is required: where PostgreSQL is"), "{error}");
}

#[tokio::test]
async fn the_default_pipeline_is_one_that_the_operator_reads() {
    let sets = ["defaultPipeline.processor.scaling.maxReplicas=4", "defaultPipeline.canary.keySecret=canary-key"];
    let objects = rendered(&sets).await;
    let config = find(&objects, "ConfigMap", "loggerhub-operator")["data"]["config.yaml"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(config).unwrap();
    let spec = LogPipelineSpec::deserialize(&config["defaultPipeline"]).unwrap();
    assert_eq!(spec.processor.scaling.max_replicas, 4);
    assert_eq!(spec.canary.unwrap().key_secret, "canary-key");
    assert!(spec.ingest.is_some());
    // As `helm upgrade --reuse-values` switches it off again.
    let objects = rendered(&[sets[1], "defaultPipeline.canary=null"]).await;
    let config = find(&objects, "ConfigMap", "loggerhub-operator")["data"]["config.yaml"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(config).unwrap();
    assert!(LogPipelineSpec::deserialize(&config["defaultPipeline"]).unwrap().canary.is_none());
}

/// A pod that two budgets select can't be evicted at all.
#[tokio::test]
async fn budgets_of_ingest_and_processors_are_left_to_the_operator() {
    let objects = rendered(&[]).await;
    let budgets = names(&objects, "PodDisruptionBudget");
    assert_eq!(budgets, ["loggerhub-operator", "loggerhub-gateway", "loggerhub-search"]);
    let config = find(&objects, "ConfigMap", "loggerhub-operator")["data"]["config.yaml"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(config).unwrap();
    let dataplane = &config["dataplane"];
    assert_eq!(dataplane["podDisruptionBudget"], true);
    let keys = dataplane["topologySpreadConstraints"].as_array().unwrap().iter().map(|one| &one["topologyKey"]);
    assert_eq!(keys.collect::<Vec<_>>(), ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
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
async fn an_autoscaled_deployment_says_nothing_about_replicas() {
    let objects = rendered(&["gateway.autoscaling.enabled=true"]).await;
    let replicas = |name| &find(&objects, "Deployment", name)["spec"]["replicas"];
    assert_eq!((replicas("loggerhub-gateway"), replicas("loggerhub-search")), (&Value::Null, &Value::from(1)));
    assert_eq!(names(&objects, "HorizontalPodAutoscaler"), ["loggerhub-gateway"]);
}

#[tokio::test]
async fn a_data_source_of_grafana_names_the_variable_of_its_key() {
    let tenant = "metrics.dataSources.tenants[0]";
    let values = format!("metrics.dataSources.enabled=true,{tenant}.name=acme,{tenant}.keyVariable=KEY_ACME");
    let objects = rendered(&[&values]).await;
    let data = &find(&objects, "ConfigMap", "loggerhub-data-sources")["data"]["loggerhub.yaml"];
    let data = data.as_str().unwrap();
    assert!(data.contains(r#"secureJsonData: {basicAuthPassword: "$KEY_ACME"}"#), "{data}");
    assert!(data.contains("url: http://loggerhub-gateway.") && data.contains(r#"name: "acme""#), "{data}");
}

#[tokio::test]
async fn routes_lead_tenants_in_and_keep_what_is_ours_inside() {
    let objects = rendered(&[
        "gateway.ingress.enabled=true,gateway.ingress.hosts={logs.example.com}",
        "gateway.httpRoute.enabled=true,gateway.httpRoute.parentRefs[0].name=public",
        "ingest.ingress.enabled=true,ingest.ingress.hosts={in.example.com}",
        "ingest.httpRoute.enabled=true,ingest.httpRoute.parentRefs[0].name=public",
    ])
    .await;
    let expected = [
        (
            "loggerhub-gateway",
            vec!["Prefix /logs", "Prefix /data", "Prefix /api", "Prefix /loki", "Prefix /ws", "Exact /"],
        ),
        ("loggerhub-default-ingest", vec!["Prefix /logs", "Prefix /data"]),
    ];
    for (service, paths) in expected {
        let ingress = &find(&objects, "Ingress", service)["spec"]["rules"][0]["http"]["paths"];
        let leads = |path: &Value| {
            assert_eq!(path["backend"]["service"]["name"], service);
            format!("{} {}", path["pathType"].as_str().unwrap(), path["path"].as_str().unwrap())
        };
        assert_eq!(ingress.as_array().unwrap().iter().map(leads).collect::<Vec<_>>(), paths, "Ingress {service}");
        let rule = &find(&objects, "HTTPRoute", service)["spec"]["rules"][0];
        assert_eq!(rule["backendRefs"][0]["name"], service);
        let leads = |matched: &Value| {
            let kind = matched["path"]["type"].as_str().unwrap().trim_start_matches("Path");
            format!("{kind} {}", matched["path"]["value"].as_str().unwrap())
        };
        let matches = rule["matches"].as_array().unwrap().iter().map(leads);
        assert_eq!(matches.collect::<Vec<_>>(), paths, "HTTPRoute {service}");
    }
}

#[tokio::test]
async fn the_test_is_a_restricted_pod_with_the_named_key() {
    assert!(names(&rendered(&[]).await, "Pod").is_empty());
    let objects = rendered(&["tests.keySecret=the-key"]).await;
    let pod = find(&objects, "Pod", "loggerhub-round-trip");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let spec = &pod["spec"];
    assert_eq!(spec["volumes"][0]["secret"]["secretName"], "the-key");
    assert_eq!((&spec["automountServiceAccountToken"], &spec["restartPolicy"]), (&false.into(), &"Never".into()));
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
}

/// What Artifact Hub shows is of this version, and its examples are ones that the API server takes.
#[test]
fn the_annotations_speak_of_this_chart() {
    let text = std::fs::read_to_string(testkit::helm::root().join("charts/loggerhub/Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    let annotation = |name: &str| -> Value {
        serde_saphyr::from_str(chart["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap()).unwrap()
    };
    for image in annotation("images").as_array().unwrap() {
        let version = chart["appVersion"].as_str().unwrap();
        assert_eq!(image["image"], format!("{}:{version}", image["name"].as_str().unwrap()));
    }
    let crds = [crds::Tenant::crd(), crds::LogPipeline::crd()].map(|crd| crd.name_any());
    assert_eq!(
        annotation("crds").as_array().unwrap().iter().map(|crd| &crd["name"]).collect::<Vec<_>>(),
        crds.each_ref()
    );
    let examples = annotation("crdsExamples");
    crds::Tenant::deserialize(&examples[0]).unwrap();
    crds::LogPipeline::deserialize(&examples[1]).unwrap();
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
async fn secrets_are_open_where_that_is_listed_and_in_the_releases_namespace() {
    let bindings = async |settings: &[&str]| {
        let objects = rendered(settings).await;
        assert!(!names(&objects, "ClusterRoleBinding").contains(&"loggerhub-tenant-secrets"));
        let role = |object: &&Value| object["roleRef"]["name"] == "loggerhub-tenant-secrets";
        let bound = objects.iter().filter(|object| object["kind"] == "RoleBinding").filter(role);
        bound.filter_map(|object| object["metadata"]["namespace"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(bindings(&[]).await, ["loggerhub"]);
    assert_eq!(bindings(&["rbac.tenantNamespaces={acme,loggerhub,globex}"]).await, ["loggerhub", "acme", "globex"]);
    let everywhere = rendered(&["rbac.tenantNamespaces={*}"]).await;
    assert!(names(&everywhere, "ClusterRoleBinding").contains(&"loggerhub-tenant-secrets"));
}

#[tokio::test]
async fn egress_is_open_to_the_stores_ports_and_no_others() {
    let sets = [
        "networkPolicy.egress.furtherPorts={9300}",
        "stores.redis.cache.url=redis://cache",
        "stores.s3.endpoint=http://s3",
    ];
    let objects = rendered(&sets).await;
    let policy = find(&objects, "NetworkPolicy", "loggerhub-egress");
    let ports =
        |rule: &Value| -> Vec<_> { rule["ports"].as_array().unwrap().iter().map(|one| one["port"].clone()).collect() };
    let rules = policy["spec"]["egress"].as_array().unwrap();
    assert_eq!(
        (ports(&rules[0]), ports(&rules[2])),
        (vec![53.into(), 53.into()], [5432, 6379, 80, 9200, 9300].map(Value::from).into())
    );
    let api = find(&objects, "NetworkPolicy", "loggerhub-egress-operator");
    assert_eq!(api["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], "operator");
    assert_eq!(api["spec"]["egress"], json!([{}]), "its port is not known");
    let told = rendered(&["networkPolicy.egress.apiServerPorts={6443}"]).await;
    let api = find(&told, "NetworkPolicy", "loggerhub-egress-operator");
    assert_eq!(api["spec"]["egress"], json!([{"ports": [{"port": 6443}]}]));
    let off = rendered(&["networkPolicy.egress.enabled=false"]).await;
    assert!(!names(&off, "NetworkPolicy").contains(&"loggerhub-egress"));
}

#[tokio::test]
async fn a_collector_is_named_to_every_pod_and_its_port_is_open() {
    let traced = rendered(&["tracing.endpoint=http://collector:4318"]).await;
    let variable = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let config = find(&traced, "ConfigMap", "loggerhub-operator")["data"]["config.yaml"].to_string();
    assert!(config.contains(variable), "for ingest and processors");
    for deployment in traced.iter().filter(|object| object["kind"] == "Deployment") {
        let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let named = env.iter().find(|one| one["name"] == variable).map(|one| &one["value"]);
        assert_eq!(named, Some(&Value::from("http://collector:4318")), "{}", deployment["metadata"]["name"]);
    }
    let egress = find(&traced, "NetworkPolicy", "loggerhub-egress")["spec"]["egress"].to_string();
    assert!(egress.contains("4318"), "{egress}");
    assert!(!serde_json::to_string(&rendered(&[]).await).unwrap().contains("OTEL_"), "off unless asked for");
}

#[tokio::test]
async fn canaries_are_reached_by_the_operator_alone() {
    let objects = rendered(&[]).await;
    let policy = &find(&objects, "NetworkPolicy", "loggerhub-canary")["spec"];
    let component = "app.kubernetes.io/component";
    assert_eq!(policy["podSelector"]["matchLabels"][component], "canary");
    assert_eq!(policy["ingress"].as_array().unwrap().len(), 1);
    assert_eq!(policy["ingress"][0]["ports"], json!([{"port": "admin"}]));
    assert_eq!(policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"][component], "operator");
}

#[tokio::test]
async fn no_service_or_policy_shows_tenants_what_the_roles_say_of_themselves() {
    let objects = rendered(&["networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus"]).await;
    for object in &objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let spec = &object["spec"];
        match object["kind"].as_str() {
            Some("Service") => {
                let ports = spec["ports"].as_array().unwrap();
                assert!(ports.iter().all(|port| port["targetPort"] == "http"), "{name}");
            }
            Some("Deployment") => {
                let container = &spec["template"]["spec"]["containers"][0];
                for probe in ["livenessProbe", "readinessProbe"] {
                    assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name}");
                }
            }
            Some("NetworkPolicy") if spec["policyTypes"] == json!(["Ingress"]) => {
                let shows = spec["ingress"].to_string().contains("admin");
                assert_eq!(shows, ["loggerhub-canary", "loggerhub-metrics"].contains(&name), "{name}");
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_can_be_switched_off_is_gone() {
    let objects = rendered(&[
        "networkPolicy.enabled=false",
        "podDisruptionBudget.enabled=false",
        "admissionPolicies.enabled=false",
        "crds.enabled=false",
    ]);
    let objects = objects.await;
    let policies = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    for kind in ["NetworkPolicy", "PodDisruptionBudget", "CustomResourceDefinition"].into_iter().chain(policies) {
        assert!(names(&objects, kind).is_empty(), "{kind}");
    }
}

/// Server-side dry-run: defaults, validation and Pod Security's warnings are the API server's own.
#[tokio::test]
async fn a_real_api_server_accepts_everything_that_can_be_rendered() {
    let cluster = Cluster::connect().await.unwrap();
    let namespace = unique("chart");
    cluster.ensure_namespace(&namespace).await.unwrap();
    ensure_service_account(&cluster, &namespace, "loggerhub-dataplane").await;
    let mut failures = Vec::new();
    // Of these kinds the server knows nothing; they belong to projects that have CRDs of their own.
    let foreign = ["PodMonitor", "PrometheusRule", "HTTPRoute"];
    let objects = documents(&helm::template_with(helm::EVERYTHING, &[]).await.unwrap());
    for object in objects.into_iter().filter(|object| !foreign.iter().any(|kind| object["kind"] == **kind)) {
        let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
        if let Err(error) = dry_run(&cluster.client, &namespace, object).await {
            failures.push(format!("{what}: {error}"));
        }
    }
    cluster.delete_namespace(&namespace).await.unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A pod is admitted only where its service account is.
async fn ensure_service_account(cluster: &Cluster, namespace: &str, name: &str) {
    let api = Api::<ServiceAccount>::namespaced(cluster.client.clone(), namespace);
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    cluster.apply(&api, &ServiceAccount { metadata, ..ServiceAccount::default() }).await.unwrap();
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
    documents(&helm::template(sets).await.expect("the chart renders"))
}

fn documents(yaml: &str) -> Vec<Value> {
    let documents = yaml.split("\n---\n").filter(|document| document.contains("kind:"));
    documents.map(|document| serde_saphyr::from_str(document).expect("YAML")).collect()
}

fn names<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a str> {
    objects.iter().filter(|o| o["kind"] == kind).filter_map(|o| o["metadata"]["name"].as_str()).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).expect(name)
}
