//! The chart's admission policy on a real API server: data is not deleted by a slip of the hand.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::time::Duration;

use crds::{PAUSED_ANNOTATION, Tenant};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{CustomResourceExt, ResourceExt};
use serde_json::{Value, json};
use testkit::{Cluster, eventually, helm, unique};

const SOON: Duration = Duration::from_secs(60);
/// The policy under test looks at Tenants with this label only, so that no other test meets it.
const LABEL: &str = "loggerhub.io/operator-class";

#[tokio::test]
async fn a_tenant_whose_data_would_go_is_deleted_only_once_that_is_confirmed() {
    let cluster = Cluster::connect().await.unwrap();
    install_crd(&cluster).await;
    let class = unique("admission");
    let policy = install_policy(&cluster, &class).await;

    let careful = create(&cluster, &class, json!({"namespaces": ["acme"], "deletionPolicy": "Delete"})).await;
    let tenants = cluster.tenants();
    // The API server compiles a new policy in a second or two.
    let said = eventually("the deletion is refused", SOON, || async {
        let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
        let refused = tenants.delete(&careful, &dry_run).await.err();
        refused.map(|error| error.to_string()).ok_or_else(|| anyhow::anyhow!("it is allowed"))
    })
    .await
    .unwrap();
    let command = format!("kubectl annotate tenant {careful} loggerhub.io/confirm-delete={careful}");
    assert!(said.contains(&command), "{said}");
    assert!(tenants.delete(&careful, &DeleteParams::default()).await.is_err());
    cluster.annotate_tenant(&careful, &[(crds::CONFIRM_DELETE_ANNOTATION, "another")]).await.unwrap();
    assert!(tenants.delete(&careful, &DeleteParams::default()).await.is_err(), "another name confirms nothing");
    let unhurt = tenants.get(&careful).await.unwrap();
    assert!(unhurt.metadata.deletion_timestamp.is_none());
    cluster.delete_tenant(&careful, SOON).await.unwrap();

    for keeps in [json!({"namespaces": ["acme"]}), json!({"namespaces": ["acme"], "deletionPolicy": "Retain"})] {
        let kept = create(&cluster, &class, keeps).await;
        tenants.delete(&kept, &DeleteParams::default()).await.unwrap();
    }
    for object in policy {
        let api = api(&cluster, &object).await;
        api.delete(&object.name_any(), &DeleteParams::default()).await.unwrap();
    }
}

/// A Tenant without a finalizer, which no operator looks at.
async fn create(cluster: &Cluster, class: &str, spec: Value) -> String {
    let mut tenant = Tenant::new(&unique("guarded"), serde_json::from_value(spec).unwrap());
    tenant.labels_mut().insert(LABEL.to_owned(), class.to_owned());
    tenant.annotations_mut().insert(PAUSED_ANNOTATION.to_owned(), "true".to_owned());
    cluster.tenants().create(&PostParams::default(), &tenant).await.unwrap().name_any()
}

/// The chart's policy and its binding, under a name of the test's own and for its Tenants only.
async fn install_policy(cluster: &Cluster, class: &str) -> Vec<DynamicObject> {
    let rendered = helm::template(&[]).await.unwrap();
    let documents = rendered.split("\n---\n").filter(|document| document.contains("kind: ValidatingAdmissionPolicy"));
    let mut installed = Vec::new();
    for document in documents {
        let mut object: Value = serde_saphyr::from_str(document).unwrap();
        object["metadata"]["name"] = json!(class);
        if object["kind"] == "ValidatingAdmissionPolicy" {
            let expressions = &mut object["spec"]["matchConstraints"]["objectSelector"]["matchExpressions"];
            assert_eq!(expressions[0]["key"], LABEL);
            *expressions = json!([{"key": LABEL, "operator": "In", "values": [class]}]);
        } else {
            object["spec"]["policyName"] = json!(class);
        }
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let params = PatchParams::apply("loggerhub-test").force();
        api(cluster, &object).await.patch(class, &params, &Patch::Apply(&object)).await.unwrap();
        installed.push(object);
    }
    assert_eq!(installed.len(), 2);
    installed
}

async fn api(cluster: &Cluster, object: &DynamicObject) -> Api<DynamicObject> {
    let kind = GroupVersionKind::try_from(object.types.clone().unwrap()).unwrap();
    let (resource, _) = kube::discovery::pinned_kind(&cluster.client, &kind).await.unwrap();
    Api::all_with(cluster.client.clone(), &resource)
}

async fn install_crd(cluster: &Cluster) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let api = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let crd = Tenant::crd();
    if api.get_opt(&crd.name_any()).await.unwrap().is_none() {
        cluster.apply(&api, &crd).await.unwrap();
    }
    eventually("the CRD is served", SOON, || async {
        cluster.tenants().list(&Default::default()).await?;
        Ok(())
    })
    .await
    .unwrap();
}
