//! Operators that look at a test's own objects: in the test's process, or beside it.

use std::ops::Deref;
use std::time::Duration;

use crds::{LogPipeline, Tenant};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use operator::provision::{ObjectStore, Postgres, Registry, Search, Shape, Stores};
use operator::run::Ended;
use operator::settings::{OPERATOR_CLASS_LABEL, Settings};
use serde_json::{Value, json};
use testkit::{Cluster, eventually, operator_ground, unique};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for what takes the operator a second or two, on a machine that runs other tests too.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Where a test's own operators run: a namespace and a class of objects that no other looks at.
pub(crate) struct Ground {
    /// The cluster; its namespace is the operators'.
    pub(crate) cluster: Cluster,
    /// The stores, to break and look.
    pub(crate) stores: Stores,
    /// Selects the objects that are these operators'; also their namespace and installation.
    pub(crate) class: String,
}

/// An operator that runs in this process.
pub(crate) struct Operator {
    ground: Ground,
    /// The installation's plans, to change.
    pub(crate) plans: tokio::sync::watch::Sender<operator::plans::Plans>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Ended>>,
}

impl Deref for Operator {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Operator {
    /// Pauses a Tenant, and waits until that is taken note of.
    pub(crate) async fn pause(&self, tenant: &str) {
        self.cluster.annotate_tenant(tenant, &[(crds::PAUSED_ANNOTATION, "true")]).await.unwrap();
        testkit::eventually("the Tenant is paused", SOON, || async {
            let conditions = self.cluster.tenants().get(tenant).await?.status.unwrap_or_default().conditions;
            anyhow::ensure!(conditions.iter().any(|condition| condition.reason == "Paused"), "{conditions:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Starts one on a ground of its own.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts one with more lines in its settings.
    pub(crate) async fn start_with(more: &str) -> Self {
        let ground = Ground::new().await;
        let (settings, client) = (ground.settings() + more, ground.cluster.client.clone());
        Self::start_on(ground, &settings, client).await
    }

    /// Starts one with these settings, which reaches the API server by this client.
    pub(crate) async fn start_on(ground: Ground, settings: &str, client: Client) -> Self {
        let settings = Settings::parse(settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = CancellationToken::new();
        let (plans, current) = tokio::sync::watch::channel(settings.plans.clone());
        let (given, stop) = (ground.stores.clone(), shutdown.clone());
        let running = tokio::spawn(operator::run::operate(settings, current, given, client, listener, stop));
        Self { ground, plans, shutdown, running }
    }

    /// Ends the operator and leaves everything as it is.
    pub(crate) async fn leave(self) -> Ground {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        self.ground
    }

    /// Removes what the test made in the cluster and ends the operator.
    pub(crate) async fn stop(self) {
        self.ground.clear().await;
        self.shutdown.cancel();
    }
}

impl Ground {
    /// One with the pipeline `default` on it.
    pub(crate) async fn new() -> Self {
        let mut cluster = Cluster::connect().await.unwrap();
        let class = unique("op");
        cluster.namespace = class.clone();
        operator_ground::prepare(&cluster).await.unwrap();
        let ground = Self { cluster, stores: stores(&class), class };
        ground.pipeline("default", json!({})).await;
        ground
    }

    /// Settings of an operator here.
    pub(crate) fn settings(&self) -> String {
        self.settings_with(3600)
    }

    /// Those of one that looks again after so many seconds.
    pub(crate) fn settings_with(&self, resync_seconds: u64) -> String {
        operator_ground::settings(&self.cluster, &self.class, resync_seconds)
    }

    /// The lease by which its operators choose their leader.
    pub(crate) fn lease(&self) -> (Api<Lease>, &'static str) {
        (self.cluster.ours(), "r-operator")
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

    /// Removes what the test made in the cluster. An operator must run.
    pub(crate) async fn clear(&self) {
        for tenant in self.cluster.tenants().list(&Default::default()).await.unwrap() {
            if tenant.labels().get(OPERATOR_CLASS_LABEL) == Some(&self.class) {
                self.delete_tenant(&tenant.name_any()).await;
            }
        }
        let pipelines = self.cluster.pipelines();
        pipelines.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        eventually("the pipelines are gone", SOON, || async {
            anyhow::ensure!(pipelines.list(&Default::default()).await?.items.is_empty(), "some are left");
            Ok(())
        })
        .await
        .unwrap();
        self.cluster.delete_namespace(&self.cluster.namespace).await.unwrap();
    }
}

fn stores(installation: &str) -> Stores {
    let servers = testkit::Stores::from_environment().unwrap();
    let postgres = runtime::stores::postgres_options(&servers.postgres, &servers.tls, "postgres", "test").unwrap();
    Stores {
        postgres: Postgres::new(postgres),
        object_store: ObjectStore::new(servers.s3().unwrap()),
        search: Search::new(servers.opensearch().unwrap(), installation, Shape::default()),
        registry: Registry::new(servers.queue().unwrap().connection().unwrap()),
    }
}
