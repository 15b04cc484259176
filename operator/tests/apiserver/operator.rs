//! An operator that runs in the test's own process and looks at the test's own objects.

use std::time::Duration;

use crds::{LogPipeline, Tenant};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, CustomResourceExt, ResourceExt};
use operator::provision::{ObjectStore, Postgres, Registry, Search, Stores};
use operator::settings::{OPERATOR_CLASS_LABEL, Settings};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::{Cluster, eventually, unique};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longest wait for what takes the operator a second or two.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A running operator.
pub(crate) struct Operator {
    /// The cluster; its namespace is the operator's.
    pub(crate) cluster: Cluster,
    /// The stores, to break and look.
    pub(crate) stores: Stores,
    /// Selects the objects that are this operator's.
    pub(crate) class: String,
    /// The installation's plans, to change.
    pub(crate) plans: tokio::sync::watch::Sender<operator::plans::Plans>,
    shutdown: CancellationToken,
}

impl Operator {
    /// Starts one, with a namespace of its own and the pipeline `default` in it.
    pub(crate) async fn start() -> Self {
        let mut cluster = Cluster::connect().await.unwrap();
        let class = unique("op");
        cluster.namespace = class.clone();
        cluster.ensure_namespace(&class).await.unwrap();
        install_crds(&cluster).await;
        keep_passwords(&cluster).await;
        let settings = Settings::parse(&format!(
            "installation: {class}\nrelease: r\nnamespace: {class}\nplans: {{standard: {{}}}}\n\
             archive: {{layout: PerTenant, bucketPrefix: lh-test-}}\n\
             secrets:\n  peppers: {{name: r-peppers, create: true}}\n  postgresData: r-postgres-data\n  \
             postgresMaintain: r-postgres-maintain\n\
             dataplane: {{image: loggerhub, serviceAccountName: default}}\n\
             watch: {{selector: {OPERATOR_CLASS_LABEL}={class}}}\nresyncSeconds: 3600\n"
        ))
        .unwrap();
        let stores = stores(&class);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = CancellationToken::new();
        let (plans, current) = tokio::sync::watch::channel(settings.plans.clone());
        let (client, given, stop) = (cluster.client.clone(), stores.clone(), shutdown.clone());
        tokio::spawn(async move { operator::run::operate(settings, current, given, client, listener, stop).await });
        let operator = Self { cluster, stores, class, plans, shutdown };
        operator.pipeline("default", json!({})).await;
        operator
    }

    /// Applies a pipeline in the operator's namespace.
    pub(crate) async fn pipeline(&self, name: &str, spec: Value) -> LogPipeline {
        self.pipeline_in(&self.cluster.namespace, name, spec).await
    }

    /// Applies a pipeline in some namespace.
    pub(crate) async fn pipeline_in(&self, namespace: &str, name: &str, spec: Value) -> LogPipeline {
        let pipeline = json!({
            "apiVersion": "loggerhub.io/v1alpha1",
            "kind": "LogPipeline",
            "metadata": {"name": name, "namespace": namespace, "labels": {OPERATOR_CLASS_LABEL: self.class}},
            "spec": spec,
        });
        let api = Api::<LogPipeline>::namespaced(self.cluster.client.clone(), namespace);
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(pipeline)).await.unwrap()
    }

    /// Applies a Tenant with a key in the operator's namespace, and other fields of the spec.
    pub(crate) async fn tenant(&self, name: &str, more: Value) -> Tenant {
        let mut spec = json!({
            "namespaces": [self.class],
            "apiKeys": [{"name": "main", "scopes": ["Ingest"], "secretRef": {"name": name, "namespace": self.class}}],
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let tenant = json!({
            "apiVersion": "loggerhub.io/v1alpha1",
            "kind": "Tenant",
            "metadata": {"name": name, "labels": {OPERATOR_CLASS_LABEL: self.class}},
            "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        self.cluster.tenants().patch(name, &params, &Patch::Apply(tenant)).await.unwrap()
    }

    /// Deletes a Tenant and waits for its end.
    pub(crate) async fn delete_tenant(&self, name: &str) {
        self.cluster.delete_tenant(name, Duration::from_secs(60)).await.unwrap();
    }

    /// Ends the operator and removes what the test made in the cluster.
    pub(crate) async fn stop(self) {
        for tenant in self.cluster.tenants().list(&Default::default()).await.unwrap() {
            if tenant.labels().get(OPERATOR_CLASS_LABEL) == Some(&self.class) {
                self.delete_tenant(&tenant.name_any()).await;
            }
        }
        let pipelines = self.cluster.pipelines();
        for pipeline in pipelines.list(&Default::default()).await.unwrap() {
            pipelines.delete(&pipeline.name_any(), &DeleteParams::default()).await.unwrap();
        }
        eventually("the pipelines are gone", SOON, || async {
            anyhow::ensure!(pipelines.list(&Default::default()).await?.items.is_empty(), "some are left");
            Ok(())
        })
        .await
        .unwrap();
        self.shutdown.cancel();
        self.cluster.delete_namespace(&self.cluster.namespace).await.unwrap();
    }
}

fn stores(installation: &str) -> Stores {
    let servers = testkit::Stores::from_environment().unwrap();
    let postgres = runtime::stores::postgres_options(&servers.postgres, &servers.tls, "postgres", "test").unwrap();
    Stores {
        postgres: Postgres::new(postgres),
        object_store: ObjectStore::new(servers.s3().unwrap()),
        search: Search::new(servers.opensearch().unwrap(), installation, 0),
        registry: Registry::new(servers.queue().unwrap().connection().unwrap()),
    }
}

async fn install_crds(cluster: &Cluster) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let api = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    for crd in [Tenant::crd(), LogPipeline::crd()] {
        // An installed LoggerHub has brought them already.
        if api.get_opt(&crd.name_any()).await.unwrap().is_none() {
            cluster.apply(&api, &crd).await.unwrap();
        }
    }
    eventually("the CRDs are served", SOON, || async {
        cluster.tenants().list(&Default::default()).await?;
        Api::<LogPipeline>::all(cluster.client.clone()).list(&Default::default()).await?;
        Ok(())
    })
    .await
    .unwrap();
}

/// The operator sets the roles' passwords from these Secrets: they are what the stores' other users know.
async fn keep_passwords(cluster: &Cluster) {
    let passwords = testkit::tenant::role_passwords().await.unwrap();
    for (name, username, password) in
        [("r-postgres-data", "lh_data", &passwords.data), ("r-postgres-maintain", "lh_maintain", &passwords.maintain)]
    {
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        }))
        .unwrap();
        let data = [("username", username), ("password", password.expose_secret())];
        let data = data.map(|(key, value)| (key.to_owned(), k8s_openapi::ByteString(value.as_bytes().to_vec())));
        let secret = Secret { data: Some(data.into()), ..secret };
        cluster.apply(&cluster.ours::<Secret>(), &secret).await.unwrap();
    }
}
