//! The cluster that the kubeconfig names, and errors that say which permission is missing.

use anyhow::{Context, anyhow};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};

use crate::args::Global;

/// Field manager of what is changed here.
pub const MANAGER: &str = "kubectl-loggerhub";

/// A client, and where LoggerHub is installed.
pub struct Kubernetes {
    /// The client.
    pub client: Client,
    /// Namespace of the release.
    pub namespace: String,
}

impl Kubernetes {
    /// Reads the kubeconfig as kubectl does; inside a pod without one, the pod's account.
    pub async fn connect(global: &Global) -> anyhow::Result<Self> {
        let options = KubeConfigOptions { context: global.context.clone(), ..Default::default() };
        let config = match &global.kubeconfig {
            Some(path) => {
                let read =
                    Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(read, &options).await?
            }
            None if global.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.context("no kubeconfig was found: set KUBECONFIG or use --kubeconfig")?,
        };
        Ok(Self { client: Client::try_from(config)?, namespace: global.namespace.clone() })
    }

    /// All Tenants.
    pub fn tenants(&self) -> Api<crds::Tenant> {
        Api::all(self.client.clone())
    }

    /// Objects of the release's namespace.
    pub fn ours<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pipelines of the release's namespace.
    pub async fn pipelines(&self) -> anyhow::Result<Vec<crds::LogPipeline>> {
        let pipelines = self.ours::<crds::LogPipeline>().list(&ListParams::default()).await;
        Ok(pipelines.doing("list", "logpipelines.loggerhub.io", &self.namespace)?.items)
    }

    /// One Tenant.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<crds::Tenant> {
        let found = self.tenants().get_opt(name).await.doing("get", "tenants.loggerhub.io", name)?;
        found.with_context(|| format!("there is no Tenant {name}: see `kubectl loggerhub tenants`"))
    }
}

/// Says of a request to Kubernetes what it was for.
pub trait Doing<T> {
    /// Names the verb, the resource, and the object or namespace, as a rule of RBAC does.
    fn doing(self, verb: &str, resource: &str, place: &str) -> anyhow::Result<T>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, verb: &str, resource: &str, place: &str) -> anyhow::Result<T> {
        self.map_err(|error| explain(error, verb, resource, place))
    }
}

fn explain(error: kube::Error, verb: &str, resource: &str, place: &str) -> anyhow::Error {
    let at = if place.is_empty() { String::new() } else { format!(" ({place})") };
    let lacking = |said: &str| anyhow!("you lack the permission to {verb} {resource}{at}; Kubernetes says: {said}");
    match error {
        kube::Error::Api(status) if status.code == 403 && status.message.contains("is forbidden: User") => {
            lacking(&status.message)
        }
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) if status.as_u16() == 403 => {
            lacking("403 Forbidden")
        }
        kube::Error::Api(status) => anyhow!("{verb} {resource}{at}: {}", status.message),
        other => anyhow::Error::new(other).context(format!("{verb} {resource}{at}")),
    }
}

/// Status, reason and message of one condition; `Unknown` where it is not there yet.
pub fn condition(conditions: &[Condition], type_: &str) -> (String, String, String) {
    match conditions.iter().find(|condition| condition.type_ == type_) {
        Some(found) => (found.status.clone(), found.reason.clone(), found.message.clone()),
        None => ("Unknown".to_owned(), String::new(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16, message: &str) -> String {
        let error = kube::Error::Api(Box::new(Status { code, message: message.to_owned(), ..Default::default() }));
        explain(error, "get", "secrets", "acme/loggerhub-key").to_string()
    }

    #[test]
    fn a_refusal_names_the_permission() {
        let said = "secrets \"loggerhub-key\" is forbidden: User \"jo\" cannot get resource \"secrets\"";
        let expected = "you lack the permission to get secrets (acme/loggerhub-key); Kubernetes says: ";
        assert_eq!(refused(403, said), format!("{expected}{said}"));
        // Quotas and policies refuse with 403 too: no permission would help.
        let policy = "jobs \"x\" is forbidden: exceeded quota: small";
        assert_eq!(refused(403, policy), format!("get secrets (acme/loggerhub-key): {policy}"));
        assert_eq!(refused(404, "not found"), "get secrets (acme/loggerhub-key): not found");
    }
}
