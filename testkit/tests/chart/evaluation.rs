//! The stores for an evaluation: a real API server takes them where `restricted` is enforced, and the
//! chart's values for them name what is there.

use std::fs;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testkit::{Cluster, helm, unique};

use super::{documents, dry_run, ensure_service_account, find};

const FOLDER: &str = "manifests/evaluation";

#[tokio::test]
async fn the_values_name_services_and_secrets_that_are_there() {
    let yaml = helm::template_with(&format!("{FOLDER}/values.yaml"), &[]).await.unwrap();
    let config = documents(&yaml);
    let config = find(&config, "ConfigMap", "loggerhub-operator")["data"]["config.yaml"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(config).unwrap();
    let stores = stores();
    let services: Vec<_> = stores.iter().filter(|object| object["kind"] == "Service").collect();
    for service in &services {
        let (name, port) = (service["metadata"]["name"].as_str().unwrap(), &service["spec"]["ports"][0]["port"]);
        let named = config["dataplane"]["env"].as_array().unwrap().iter().any(|variable| {
            let value = variable["value"].as_str().unwrap();
            value == name || value.ends_with(&format!("//{name}:{port}"))
        });
        assert!(named, "the values don't name {name}");
    }
    assert_eq!(services.len(), 5);

    let script = fs::read_to_string(helm::root().join(FOLDER).join("secrets.sh")).unwrap();
    let operator = documents(&yaml);
    let volumes = &find(&operator, "Deployment", "loggerhub-operator")["spec"]["template"]["spec"]["volumes"];
    let secrets: Vec<_> =
        volumes.as_array().unwrap().iter().filter_map(|volume| volume["secret"]["secretName"].as_str()).collect();
    assert_eq!(secrets, ["loggerhub-postgres", "loggerhub-redis-queue", "loggerhub-s3"]);
    for secret in secrets {
        assert!(script.contains(&format!("| secret {secret}\n")), "secrets.sh makes no {secret}");
    }
}

#[tokio::test]
async fn a_namespace_that_enforces_restricted_takes_the_stores() {
    let cluster = Cluster::connect().await.unwrap();
    let name = unique("evaluation");
    let namespace = json!({"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespace: Namespace = serde_json::from_value(namespace).unwrap();
    cluster.apply(&Api::all(cluster.client.clone()), &namespace).await.unwrap();

    ensure_service_account(&cluster, &name, "default").await;

    // A workload is taken whatever its pods are: these are tried themselves.
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), &name);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut failures = Vec::new();
    for object in stores() {
        let what = object["metadata"]["name"].clone();
        if object["spec"]["template"].is_object() {
            let mut pod = object["spec"]["template"].clone();
            pod["metadata"]["name"] = json!("pod");
            if let Some(claims) = object["spec"]["volumeClaimTemplates"].as_array() {
                let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
                let claimed = claims.iter().map(|claim| json!({"name": claim["metadata"]["name"], "emptyDir": {}}));
                pod["spec"]["volumes"] = volumes.into_iter().chain(claimed).collect();
            }
            if let Err(error) = pods.create(&dry, &serde_json::from_value(pod).unwrap()).await {
                failures.push(format!("a pod of {what}: {error}"));
            }
        }
        if let Err(error) = dry_run(&cluster.client, &name, object).await {
            failures.push(format!("{what}: {error}"));
        }
    }
    cluster.delete_namespace(&name).await.unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}

fn stores() -> Vec<Value> {
    let files = fs::read_dir(helm::root().join(FOLDER).join("stores")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    texts.flat_map(|text| documents(&text)).collect()
}
