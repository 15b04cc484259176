//! The rights that the chart gives the operator are enough for what it does.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::DeleteParams;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use testkit::{eventually, helm};

use crate::operator_under_test::{Ground, Operator, SOON};

/// The chart's roles that the operator is bound to in the cluster, and in the release's namespace.
const CLUSTER_ROLES: [&str; 2] = ["r-operator", TENANT_SECRETS];
/// The one that is bound where tenants' keys go: by default in the release's namespace alone.
const TENANT_SECRETS: &str = "r-tenant-secrets";
const ROLE: &str = "r-operator";

/// A client that may do here what the chart says, and nothing else.
async fn with_the_charts_rights(ground: &Ground) -> Client {
    let rendered = helm::template(&["fullnameOverride=r"]).await.unwrap();
    let rendered = rendered.split("\n---\n").filter(|document| document.contains("Role\n"));
    let roles: Vec<Value> = rendered.map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let rules = |kind: &str, name: &str| {
        let role = roles.iter().find(|role| role["kind"] == kind && role["metadata"]["name"] == name);
        role.unwrap_or_else(|| panic!("the chart has no {kind} {name}"))["rules"].clone()
    };
    let client = &ground.cluster.client;
    let user = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": ground.class}]);
    let to = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    for role in CLUSTER_ROLES {
        let name = format!("{}-{role}", ground.class);
        let made = json!({"metadata": {"name": name}, "rules": rules("ClusterRole", role)});
        let made: ClusterRole = serde_json::from_value(made).unwrap();
        ground.cluster.apply(&Api::all(client.clone()), &made).await.unwrap();
        let bound = json!({"metadata": {"name": name}, "roleRef": to("ClusterRole", &name), "subjects": user});
        if role == TENANT_SECRETS {
            let bound: RoleBinding = serde_json::from_value(bound).unwrap();
            ground.cluster.apply(&ground.cluster.ours(), &bound).await.unwrap();
        } else {
            let bound: ClusterRoleBinding = serde_json::from_value(bound).unwrap();
            ground.cluster.apply(&Api::all(client.clone()), &bound).await.unwrap();
        }
    }
    let made: Role = serde_json::from_value(json!({"metadata": {"name": ROLE}, "rules": rules("Role", ROLE)})).unwrap();
    ground.cluster.apply(&ground.cluster.ours(), &made).await.unwrap();
    let bound = json!({"metadata": {"name": ROLE}, "roleRef": to("Role", ROLE), "subjects": user});
    let bound: RoleBinding = serde_json::from_value(bound).unwrap();
    ground.cluster.apply(&ground.cluster.ours(), &bound).await.unwrap();
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(ground.class.clone());
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_rights_are_enough_for_tenants_and_pipelines() {
    let ground = Ground::new().await;
    let client = with_the_charts_rights(&ground).await;
    let settings = ground.settings();
    let on = Operator::start_on(ground, &settings, client).await;
    let name = testkit::unique("right");
    let ingest = json!({"autoscaling": {}, "resources": {"requests": {"cpu": "100m"}}});
    on.pipeline(&name, json!({"ingest": ingest, "processor": {"scaling": {"minReplicas": 2}}})).await;
    on.tenant(&name, json!({"pipelineRef": {"name": name}, "deletionPolicy": "Delete"})).await;
    on.cluster.tenant_ready(&name, SOON).await.unwrap();
    let object = format!("r-{name}-ingest");
    eventually("the ingest's objects are there and the processors are scaled", SOON, || async {
        on.cluster.ours::<HorizontalPodAutoscaler>().get(&object).await?;
        on.cluster.ours::<PodDisruptionBudget>().get(&object).await?;
        let processor = on.cluster.ours::<Deployment>().get(&format!("r-{name}-processor")).await?;
        anyhow::ensure!(processor.spec.and_then(|spec| spec.replicas) == Some(2), "not scaled");
        Ok(())
    })
    .await
    .unwrap();
    on.pipeline(&name, json!({})).await;
    eventually("the ingest's objects are gone", SOON, || async {
        let autoscaler = on.cluster.ours::<HorizontalPodAutoscaler>().get_opt(&object).await?;
        let budget = on.cluster.ours::<PodDisruptionBudget>().get_opt(&object).await?;
        anyhow::ensure!(autoscaler.is_none() && budget.is_none(), "they are there");
        Ok(())
    })
    .await
    .unwrap();
    let (client, class) = (on.cluster.client.clone(), on.class.clone());
    on.stop().await;
    let (bindings, roles) = (Api::<ClusterRoleBinding>::all(client.clone()), Api::<ClusterRole>::all(client));
    for name in roles.list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any) {
        if name.starts_with(&format!("{class}-")) {
            roles.delete(&name, &DeleteParams::default()).await.unwrap();
            testkit::cluster::ignore_absent(bindings.delete(&name, &DeleteParams::default()).await).unwrap();
        }
    }
}
