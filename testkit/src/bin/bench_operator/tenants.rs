//! The Tenants that are measured, and all other objects that the operator keeps.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use operator::settings::OPERATOR_CLASS_LABEL;
use serde::de::DeserializeOwned;
use serde_json::json;
use testkit::{Cluster, operator_ground};

/// Requests under way at once, as of a GitOps controller.
const AT_ONCE: usize = 16;

pub(crate) struct Tenants {
    pub(crate) cluster: Cluster,
    class: String,
}

impl Tenants {
    pub(crate) fn new(cluster: Cluster, class: String) -> Self {
        Self { cluster, class }
    }

    pub(crate) fn selector(&self) -> String {
        format!("{OPERATOR_CLASS_LABEL}={}", self.class)
    }

    pub(crate) fn operator_settings(&self, resync_seconds: u64) -> String {
        operator_ground::settings(&self.cluster, &self.class, resync_seconds)
    }

    /// Applies the pipeline that all of them use.
    pub(crate) async fn pipeline(&self) -> anyhow::Result<()> {
        let pipeline = json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline",
            "metadata": {"name": "default", "labels": {OPERATOR_CLASS_LABEL: self.class}},
            "spec": {},
        });
        let params = PatchParams::apply("bench").force();
        self.cluster.pipelines().patch("default", &params, &Patch::Apply(pipeline)).await?;
        Ok(())
    }

    /// Applies one: a pool's tenant with one key, as most are. Gives back its whole name.
    pub(crate) async fn apply(&self, name: &str) -> anyhow::Result<String> {
        let name = format!("{}-{name}", self.class);
        let secret = json!({"name": name, "namespace": self.class});
        let tenant = json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "labels": {OPERATOR_CLASS_LABEL: self.class}},
            "spec": {
                "namespaces": [self.class],
                "apiKeys": [{"name": "main", "scopes": ["Ingest", "Query"], "secretRef": secret}],
            },
        });
        let params = PatchParams::apply("bench").force();
        self.cluster.tenants().patch(&name, &params, &Patch::Apply(tenant)).await?;
        Ok(name)
    }

    /// Applies so many as fast as it goes.
    pub(crate) async fn apply_all(&self, count: u32) -> anyhow::Result<Vec<String>> {
        let names = futures::stream::iter((0..count).map(|number| format!("{number}")));
        names.map(async |name| self.apply(&name).await).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The version of every object that the operator writes, by what and whose it is.
    pub(crate) async fn versions(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        collect(&self.cluster.tenants(), &self.selector(), &mut versions).await?;
        collect(&self.cluster.pipelines(), "", &mut versions).await?;
        collect(&self.cluster.ours::<Secret>(), "", &mut versions).await?;
        collect(&self.cluster.ours::<Deployment>(), "", &mut versions).await?;
        collect(&self.cluster.ours::<Service>(), "", &mut versions).await?;
        Ok(versions)
    }
}

async fn collect<K>(api: &Api<K>, selector: &str, versions: &mut BTreeMap<String, String>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    for object in api.list_metadata(&ListParams::default().labels(selector)).await? {
        let name = format!("{} {}", K::kind(&()), object.name_any());
        versions.insert(name, object.resource_version().unwrap_or_default());
    }
    Ok(())
}
