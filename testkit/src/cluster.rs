//! The cluster that tests run against: Tenants, LogPipelines and the pods that LoggerHub runs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use crds::{LogPipeline, RECONCILE_REQUESTED_AT_ANNOTATION};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::environment::{optional_variable, variable};
use crate::wait::eventually;

pub mod process;

/// Field manager of what tests apply.
const MANAGER: &str = "loggerhub-test";

/// A client of the cluster that KUBECONFIG names, and where LoggerHub is installed in it.
#[derive(Clone)]
pub struct Cluster {
    /// The client, for what has no helper here.
    pub client: Client,
    /// Namespace that LoggerHub is installed in; LOGGERHUB_NAMESPACE, or `loggerhub`.
    pub namespace: String,
}

impl Cluster {
    /// Reads KUBECONFIG.
    pub async fn connect() -> anyhow::Result<Self> {
        let namespace = optional_variable("LOGGERHUB_NAMESPACE").unwrap_or_else(|| "loggerhub".to_owned());
        Self::of(Path::new(&variable("KUBECONFIG")?), &namespace).await
    }

    /// The cluster that a kubeconfig names, with LoggerHub in this namespace.
    pub async fn of(kubeconfig: &Path, namespace: &str) -> anyhow::Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig);
        let kubeconfig = read.with_context(|| format!("read kubeconfig {}", kubeconfig.display()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // The cluster is on this machine: a proxy for the outside is not for it.
        config.proxy_url = None;
        config.connect_timeout = Some(Duration::from_secs(3));
        Ok(Self { client: Client::try_from(config)?, namespace: namespace.to_owned() })
    }

    /// All Tenants.
    pub fn tenants(&self) -> Api<crds::Tenant> {
        Api::all(self.client.clone())
    }

    /// The LogPipelines of the release namespace.
    pub fn pipelines(&self) -> Api<LogPipeline> {
        self.ours()
    }

    /// Objects of the release namespace.
    pub fn ours<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies `object` as `kubectl apply --server-side` would.
    pub async fn apply<K>(&self, api: &Api<K>, object: &K) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let name = object.name_any();
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(object)).await.with_context(|| format!("apply {} {name}", K::kind(&())))
    }

    /// Makes the namespace if it is not there.
    pub async fn ensure_namespace(&self, name: &str) -> anyhow::Result<()> {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        self.apply(&Api::all(self.client.clone()), &namespace).await?;
        Ok(())
    }

    /// Deletes a namespace without waiting for its end.
    pub async fn delete_namespace(&self, name: &str) -> anyhow::Result<()> {
        ignore_absent(Api::<Namespace>::all(self.client.clone()).delete(name, &DeleteParams::background()).await)
    }

    /// One entry of a Secret.
    pub async fn secret_value(&self, namespace: &str, name: &str, key: &str) -> anyhow::Result<String> {
        let secret = Api::<Secret>::namespaced(self.client.clone(), namespace).get(name).await?;
        let data: BTreeMap<_, _> = secret.data.unwrap_or_default();
        let value = data.get(key).with_context(|| format!("Secret {namespace}/{name} has no {key}"))?;
        Ok(String::from_utf8(value.0.clone())?)
    }

    /// Waits until the Tenant is Ready for its current generation, and returns it.
    pub async fn tenant_ready(&self, name: &str, within: Duration) -> anyhow::Result<crds::Tenant> {
        eventually(&format!("Tenant {name} is Ready"), within, || async move {
            let tenant = self.tenants().get(name).await?;
            let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let ready = find(conditions, "Ready")?;
            ensure!(ready.status == "True", "{}", summary(conditions));
            ensure!(ready.observed_generation == tenant.metadata.generation, "Ready speaks of an older generation");
            Ok(tenant)
        })
        .await
    }

    /// Waits until the Tenant's condition `type_` holds `expected`, and returns the condition.
    pub async fn tenant_condition(
        &self,
        name: &str,
        type_: &str,
        expected: &str,
        within: Duration,
    ) -> anyhow::Result<Condition> {
        eventually(&format!("Tenant {name} has {type_}={expected}"), within, || async move {
            let tenant = self.tenants().get(name).await?;
            let conditions = tenant.status.map(|status| status.conditions).unwrap_or_default();
            let condition = find(&conditions, type_)?;
            ensure!(condition.status == expected, "{}", summary(&conditions));
            Ok(condition.clone())
        })
        .await
    }

    /// Waits until the LogPipeline is Ready, and returns it.
    pub async fn pipeline_ready(&self, name: &str, within: Duration) -> anyhow::Result<LogPipeline> {
        eventually(&format!("LogPipeline {name} is Ready"), within, || async move {
            let pipeline = self.pipelines().get(name).await?;
            let conditions = pipeline.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let ready = find(conditions, "Ready")?;
            ensure!(ready.status == "True", "{}", summary(conditions));
            ensure!(ready.observed_generation == pipeline.metadata.generation, "Ready speaks of an older generation");
            Ok(pipeline)
        })
        .await
    }

    /// Asks for a reconciliation of the Tenant now, and waits until it was done.
    pub async fn reconcile_tenant(&self, name: &str, within: Duration) -> anyhow::Result<()> {
        let now = crate::unique("asked");
        self.annotate_tenant(name, &[(RECONCILE_REQUESTED_AT_ANNOTATION, &now)]).await?;
        eventually(&format!("Tenant {name} was reconciled on request"), within, || async {
            let handled = self.tenants().get(name).await?.status.and_then(|status| status.last_handled_reconcile_at);
            ensure!(handled.as_deref() == Some(now.as_str()), "last handled: {handled:?}");
            Ok(())
        })
        .await
    }

    /// Sets annotations of the Tenant.
    pub async fn annotate_tenant(&self, name: &str, annotations: &[(&str, &str)]) -> anyhow::Result<()> {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let patch = json!({"metadata": {"annotations": annotations}});
        self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Says that deleting the Tenant is to remove its data, where its policy is so.
    pub async fn confirm_delete(&self, name: &str) -> anyhow::Result<()> {
        match self.tenants().get_opt(name).await? {
            Some(_) => self.annotate_tenant(name, &[(crds::CONFIRM_DELETE_ANNOTATION, name)]).await,
            None => Ok(()),
        }
    }

    /// Deletes the Tenant, with its data where its policy is so, and waits until it is gone.
    pub async fn delete_tenant(&self, name: &str, within: Duration) -> anyhow::Result<()> {
        self.confirm_delete(name).await?;
        ignore_absent(self.tenants().delete(name, &DeleteParams::default()).await)?;
        eventually(&format!("Tenant {name} is gone"), within, || async move {
            match self.tenants().get_opt(name).await? {
                None => Ok(()),
                Some(tenant) => {
                    anyhow::bail!("{}", summary(&tenant.status.map(|status| status.conditions).unwrap_or_default()))
                }
            }
        })
        .await
    }

    /// Running pods of a component of the release, less those that are ending; `pipeline` narrows.
    pub async fn pods(&self, component: &str, pipeline: Option<&str>) -> anyhow::Result<Vec<Pod>> {
        let mut labels = format!("app.kubernetes.io/component={component}");
        if let Some(pipeline) = pipeline {
            labels.push_str(&format!(",{}={pipeline}", crds::PIPELINE_LABEL));
        }
        let mut pods = self.ours::<Pod>().list(&ListParams::default().labels(&labels)).await?.items;
        pods.retain(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        });
        Ok(pods)
    }

    /// Ready replicas of a Deployment in the release namespace.
    pub async fn ready_replicas(&self, deployment: &str) -> anyhow::Result<i32> {
        let status = self.ours::<Deployment>().get(deployment).await?.status.unwrap_or_default();
        Ok(status.ready_replicas.unwrap_or(0))
    }

    /// Gives a Deployment in the release namespace so many replicas.
    pub async fn scale(&self, deployment: &str, replicas: i32) -> anyhow::Result<()> {
        let patch = Patch::Merge(serde_json::json!({"spec": {"replicas": replicas}}));
        self.ours::<Deployment>().patch_scale(deployment, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Replicas that a Deployment in the release namespace is to have.
    pub async fn wanted_replicas(&self, deployment: &str) -> anyhow::Result<i32> {
        let spec = self.ours::<Deployment>().get(deployment).await?.spec.unwrap_or_default();
        Ok(spec.replicas.unwrap_or(1))
    }
}

/// An absent object is deleted already.
pub fn ignore_absent<T>(deleted: kube::Result<T>) -> anyhow::Result<()> {
    match deleted {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> anyhow::Result<&'a Condition> {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.with_context(|| format!("no condition {type_}; {}", summary(conditions)))
}

/// All conditions in one line.
pub fn summary(conditions: &[Condition]) -> String {
    let one = |c: &Condition| format!("{}={} {} ({})", c.type_, c.status, c.reason, c.message);
    if conditions.is_empty() {
        return "no conditions yet".to_owned();
    }
    conditions.iter().map(one).collect::<Vec<_>>().join("; ")
}
