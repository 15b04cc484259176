//! The CRDs on a real API server: what their schemas and rules take, default and refuse.

use std::time::Duration;

use crds::{LogPipeline, Tenant};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{CustomResourceExt, Resource};
use serde_json::{Value, json};
use testkit::{Cluster, eventually, unique};

/// A cluster that has the CRDs: those of the installed chart, or else those of this checkout.
async fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::connect().await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for crd in [Tenant::crd(), LogPipeline::crd()] {
        let name = crd.metadata.name.clone().unwrap_or_default();
        if definitions.get_opt(&name).await?.is_none() {
            cluster.apply(&definitions, &crd).await?;
        }
        eventually(&format!("{name} is established"), Duration::from_secs(10), || async {
            let conditions = definitions.get(&name).await?.status.and_then(|status| status.conditions);
            let conditions = conditions.unwrap_or_default();
            anyhow::ensure!(conditions.iter().any(|c| c.type_ == "Established" && c.status == "True"), "not yet");
            Ok(())
        })
        .await?;
    }
    Ok(cluster)
}

/// The answer to a creation that is not carried out: the object with its defaults, or the refusal.
async fn try_create<K>(api: &Api<K>, spec: Value, name: &str) -> Result<Value, String>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec,
    });
    let object: kube::core::DynamicObject = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let resource = kube::discovery::ApiResource::erase::<K>(&());
    let api: Api<kube::core::DynamicObject> = match api.namespace() {
        Some(namespace) => Api::namespaced_with(api.clone().into_client(), namespace, &resource),
        None => Api::all_with(api.clone().into_client(), &resource),
    };
    let created = api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await;
    created.map(|object| object.data).map_err(|error| error.to_string())
}

fn key(name: &str, namespace: &str) -> Value {
    json!({"name": name, "scopes": ["Ingest"], "secretRef": {"name": "key", "namespace": namespace}})
}

#[tokio::test]
async fn the_smallest_tenant_gets_every_default() -> anyhow::Result<()> {
    let tenants = cluster().await?.tenants();
    let tenant =
        try_create(&tenants, json!({"namespaces": ["acme"]}), "acme-smallest").await.map_err(anyhow::Error::msg)?;
    assert_eq!(
        tenant["spec"],
        json!({
            "namespaces": ["acme"],
            "plan": "standard",
            "isolation": "Shared",
            "retention": {"hotDays": 7, "totalDays": 30},
            "pipelineRef": {"name": "default", "onMissing": "Hold"},
            "deletionPolicy": "Retain",
            "suspend": false,
        })
    );
    Ok(())
}

#[tokio::test]
async fn a_tenant_that_cannot_be_is_refused_with_the_reason() -> anyhow::Result<()> {
    let tenants = cluster().await?.tenants();
    let good = json!({"namespaces": ["acme"], "apiKeys": [key("main", "acme")]});
    try_create(&tenants, good.clone(), "acme-good").await.map_err(anyhow::Error::msg)?;
    for (field, value, reason) in [
        ("namespaces", json!([]), "spec.namespaces"),
        ("namespaces", json!(["acme", "acme"]), "Duplicate value"),
        ("namespaces", json!(["elsewhere"]), "must be listed in spec.namespaces"),
        ("retention", json!({"hotDays": 60, "totalDays": 30}), "hotDays must not exceed totalDays"),
        ("retention", json!({"hotDays": 0}), "spec.retention.hotDays"),
        ("retention", json!({"totalDays": 99999}), "spec.retention.totalDays"),
        ("isolation", json!("Secret"), "spec.isolation"),
        ("deletionPolicy", json!("Perhaps"), "spec.deletionPolicy"),
        ("apiKeys", json!([key("main", "acme"), key("main", "acme")]), "Duplicate value"),
        ("apiKeys", json!([key("UPPER", "acme")]), "spec.apiKeys[0].name"),
        (
            "apiKeys",
            json!([{"name": "k", "scopes": ["Everything"], "secretRef": {"name": "s", "namespace": "acme"}}]),
            "scopes",
        ),
        ("apiKeys", json!([{"name": "k", "scopes": [], "secretRef": {"name": "s", "namespace": "acme"}}]), "scopes"),
        ("displayName", json!("x".repeat(257)), "spec.displayName"),
        ("quotas", json!({"ingestBytesPerSecond": "fast"}), "spec.quotas.ingestBytesPerSecond"),
        ("quotas", json!({"ingestBytesPerSecond": "1.5Mi"}), "spec.quotas.ingestBytesPerSecond"),
        (
            "quotas",
            json!({"ingestBytesPerSecond": 0}),
            "ingestBytesPerSecond in body should be greater than or equal to 1",
        ),
        ("quotas", json!({"ingestEventsPerSecond": -1}), "should be greater than or equal to 1"),
        ("quotas", json!({"ingestEventsPerSecond": 1_000_000_000_000_001_i64}), "should be less than or equal to"),
        ("quotas", json!({"ingestEventsPerSecond": "0"}), "spec.quotas.ingestEventsPerSecond"),
        ("quotas", json!({"ingestBurstBytes": "1Mi"}), "ingestBurstBytes needs ingestBytesPerSecond"),
        ("quotas", json!({"ingestBurstEvents": 10}), "ingestBurstEvents needs ingestEventsPerSecond"),
    ] {
        let mut spec = good.clone();
        spec[field] = value;
        let refused = try_create(&tenants, spec.clone(), "acme-bad").await;
        assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{spec}: {refused:?}");
    }
    let quotas = json!({"ingestBytesPerSecond": "10Mi", "ingestBurstBytes": 104857600, "ingestEventsPerSecond": "5k"});
    let mut limited = good.clone();
    limited["quotas"] = quotas.clone();
    let taken = try_create(&tenants, limited, "acme-limited").await.map_err(anyhow::Error::msg)?;
    assert_eq!(taken["spec"]["quotas"], quotas);
    for name in ["a.b", &"x".repeat(41)] {
        let refused = try_create(&tenants, good.clone(), name).await;
        assert!(refused.as_ref().is_err_and(|said| said.contains("1 to 40 of a-z")), "{name}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_keys_rotation_is_one_that_can_be() -> anyhow::Result<()> {
    let tenants = cluster().await?.tenants();
    let with = |source: Option<&str>, rotation: Value| {
        let mut key = key("main", "acme");
        key["rotation"] = rotation;
        key.as_object_mut().unwrap().extend(source.map(|source| ("source".to_owned(), json!(source))));
        json!({"namespaces": ["acme"], "apiKeys": [key]})
    };
    for (source, rotation, taken) in [
        (None, json!({}), json!({"overlapHours": 24})),
        (None, json!({"intervalDays": 30}), json!({"intervalDays": 30, "overlapHours": 24})),
        (None, json!({"intervalDays": 1, "overlapHours": 23}), json!({"intervalDays": 1, "overlapHours": 23})),
        (Some("Existing"), json!({"overlapHours": 0}), json!({"overlapHours": 0})),
    ] {
        let created = try_create(&tenants, with(source, rotation), "acme-rotates").await.map_err(anyhow::Error::msg)?;
        let key = &created["spec"]["apiKeys"][0];
        assert_eq!((&key["rotation"], &key["source"]), (&taken, &json!(source.unwrap_or("Generate"))));
    }
    for (source, rotation, reason) in [
        (None, json!({"intervalDays": 1}), "overlapHours must be less than intervalDays"),
        (None, json!({"intervalDays": 0, "overlapHours": 0}), "rotation.intervalDays"),
        (None, json!({"overlapHours": -1}), "rotation.overlapHours"),
        (Some("Existing"), json!({"intervalDays": 30}), "rotation.intervalDays is for source Generate"),
        (Some("Borrowed"), json!({}), "source"),
    ] {
        let refused = try_create(&tenants, with(source, rotation.clone()), "acme-bad").await;
        assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{source:?} {rotation}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tenants_isolation_is_for_ever() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let tenants = cluster.tenants();
    let name = unique("rules");
    // Paused, so that no installed operator provisions what only the API server is asked about.
    let mut tenant = Tenant::new(&name, serde_json::from_value(json!({"namespaces": ["acme"]}))?);
    tenant.metadata.annotations = Some([(crds::PAUSED_ANNOTATION.to_owned(), "true".to_owned())].into());
    tenants.create(&PostParams::default(), &tenant).await?;
    let patch = json!({"spec": {"isolation": "Dedicated"}});
    let refused = tenants.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let finalizers = json!({"metadata": {"finalizers": null}});
    tenants.patch(&name, &PatchParams::default(), &Patch::Merge(finalizers)).await?;
    tenants.delete(&name, &DeleteParams::default()).await?;
    let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("isolation can't be changed"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_pipeline_that_cannot_be_is_refused_with_the_reason() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let pipelines = in_default_namespace(&cluster);
    let smallest = try_create(&pipelines, json!({}), "smallest").await.map_err(anyhow::Error::msg)?;
    let spec = &smallest["spec"]["processor"];
    assert_eq!((&spec["workers"], &spec["maxRetries"]), (&json!(2), &json!(3)));
    assert_eq!(spec["scaling"]["targetBacklogEventsPerReplica"], 20_000);
    for (spec, reason) in [
        (json!({"processor": {"scaling": {"minReplicas": 5, "maxReplicas": 2}}}), "minReplicas must not exceed"),
        (json!({"processor": {"workers": 0}}), "spec.processor.workers"),
        (json!({"processor": {"batch": {"maxEvents": 0}}}), "spec.processor.batch.maxEvents"),
        (json!({"ingest": {"service": {"nodePort": 30100}}}), "nodePort is only for type NodePort"),
        (json!({"ingest": {"replicas": 0}}), "spec.ingest.replicas"),
        (json!({"ingest": {"autoscaling": {}}}), "autoscaling needs resources.requests.cpu"),
        (json!({"ingest": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}}), "minReplicas must not exceed"),
    ] {
        let refused = try_create(&pipelines, spec.clone(), "bad").await;
        assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{spec}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_samples_are_accepted() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let mut files = Vec::new();
    for folder in ["manifests/samples", "manifests/samples-extra"] {
        for entry in std::fs::read_dir(testkit::helm::root().join(folder))? {
            files.push(std::fs::read_to_string(entry?.path())?);
        }
    }
    let documents = files.iter().flat_map(|file| file.split("\n---\n"));
    for document in documents {
        let object: Value = serde_saphyr::from_str(document)?;
        let (spec, name) =
            (object["spec"].clone(), format!("sample-{}", object["metadata"]["name"].as_str().unwrap_or("")));
        let accepted = match object["kind"].as_str() {
            Some("Tenant") => try_create(&cluster.tenants(), spec, &name).await,
            Some("LogPipeline") => try_create(&in_default_namespace(&cluster), spec, &name).await,
            _ => Ok(object),
        };
        accepted.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    }
    Ok(())
}

/// LogPipelines of the namespace that every cluster has.
fn in_default_namespace(cluster: &Cluster) -> Api<LogPipeline> {
    Api::namespaced(cluster.client.clone(), "default")
}

#[tokio::test]
async fn stages_that_cannot_be_are_refused_with_the_reason() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let pipelines = in_default_namespace(&cluster);
    let spec = |stage: Value, test: Value| json!({"stages": [stage], "tests": [test]});
    let stage = json!({"name": "cards", "redact": {"detectors": ["CardNumber"]}});
    let test = json!({"name": "a card", "input": "x", "expect": {"lacks": ["4111"]}});
    for good in [
        json!({"name": "a", "drop": {}, "match": {"services": ["edge"], "levels": ["debug"]}}),
        json!({"name": "a", "parse": {"format": "Regex", "pattern": "^(?<a>.)"}}),
        json!({"name": "a", "redact": {"fields": ["pin"], "action": "Hash", "salt": "sixteen letters."}}),
        json!({"name": "a", "sample": {"keepOneIn": 10, "by": "trace"}}),
        json!({"name": "a", "enrich": {"set": {"region": "eu-1"}}}),
    ] {
        let taken = try_create(&pipelines, spec(good.clone(), test.clone()), "good").await;
        assert!(taken.is_ok(), "{good}: {taken:?}");
    }
    let field = |condition: Value| json!({"name": "a", "drop": {}, "match": {"fields": [condition]}});
    for (bad, reason) in [
        (json!({"name": "a"}), "a stage does one thing: give exactly one of"),
        (json!({"name": "a", "drop": {}, "sample": {"keepOneIn": 2}}), "a stage does one thing: give exactly one of"),
        (json!({"name": "A", "drop": {}}), "spec.stages[0].name"),
        (json!({"name": "a", "drop": {}, "match": {}}), "leave match out to concern every event"),
        (field(json!({"name": "x"})), "exactly one of equals, matches, exists"),
        (field(json!({"name": "x", "equals": "a", "exists": true})), "exactly one of equals, matches, exists"),
        (json!({"name": "a", "parse": {"format": "Regex"}}), "format Regex needs a pattern"),
        (
            json!({"name": "a", "parse": {"format": "Json", "pattern": "x"}}),
            "only the formats Regex and Auto take a pattern",
        ),
        (json!({"name": "a", "parse": {"format": "Xml"}}), "spec.stages[0].parse.format"),
        (json!({"name": "a", "redact": {}}), "say what to redact"),
        (json!({"name": "a", "redact": {"fields": ["b"], "action": "Hash"}}), "action Hash needs a salt"),
        (json!({"name": "a", "redact": {"fields": ["b"], "salt": "sixteen letters."}}), "no other action takes one"),
        (
            json!({"name": "a", "redact": {"fields": ["b"], "action": "Remove", "replacement": "x"}}),
            "only action Replace takes a replacement",
        ),
        (json!({"name": "a", "sample": {"keepOneIn": 0}}), "spec.stages[0].sample.keepOneIn"),
        (json!({"name": "a", "enrich": {"set": {}}}), "spec.stages[0].enrich.set"),
        (json!({"name": "a", "enrich": {"set": {"b": "x".repeat(1025)}}}), "spec.stages[0].enrich.set"),
    ] {
        let refused = try_create(&pipelines, spec(bad.clone(), test.clone()), "bad").await;
        assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{bad}: {refused:?}");
    }
    for (expect, reason) in [
        (json!({}), "say what to expect"),
        (json!({"dropped": false}), "say what to expect"),
        (json!({"dropped": true, "absent": ["a"]}), "an event that is dropped has no fields to expect"),
    ] {
        let bad = json!({"name": "t", "input": "x", "expect": expect});
        let refused = try_create(&pipelines, spec(stage.clone(), bad), "bad").await;
        assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{expect}: {refused:?}");
    }
    let many: Vec<Value> = (0..33).map(|n| json!({"name": format!("s{n}"), "drop": {}})).collect();
    for (stages, reason) in [(json!(many), "spec.stages"), (json!([stage, stage]), "Duplicate value")] {
        let refused = try_create(&pipelines, json!({"stages": stages}), "bad").await;
        assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{reason}: {refused:?}");
    }
    Ok(())
}
