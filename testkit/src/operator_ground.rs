//! What an operator that a test runs by itself needs in the cluster: the CRDs, a namespace, and the
//! passwords that the stores' other users know.

use std::time::Duration;

use anyhow::Context;
use crds::names::registry_signing_secret;
use crds::{LogPipeline, Tenant};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, CustomResourceExt, ResourceExt};
use operator::settings::OPERATOR_CLASS_LABEL;
use secrecy::ExposeSecret;

use crate::Cluster;
use crate::wait::eventually;

/// What Helm notes on everything that it installs.
const HELM_RELEASE: &str = "meta.helm.sh/release-name";
/// Longest wait for the CRDs to be served.
const SERVED: Duration = Duration::from_secs(20);

/// Readies the cluster's namespace for an operator of release `r`.
pub async fn prepare(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.ensure_namespace(&cluster.namespace).await?;
    install_crds(cluster).await?;
    keep_passwords(cluster).await?;
    keep_signing_keys(cluster).await
}

/// Settings of an operator of release `r` there, which looks at the objects of `class` only.
pub fn settings(cluster: &Cluster, class: &str, resync_seconds: u64) -> String {
    let namespace = &cluster.namespace;
    format!(
        "installation: {namespace}\nrelease: r\nnamespace: {namespace}\nplans: {{standard: {{}}}}\n\
         archive: {{layout: PerTenant, bucketPrefix: lh-test-}}\n\
         secrets:\n  peppers: {{name: r-peppers, create: true}}\n  postgresData: r-postgres-data\n  \
         postgresMaintain: r-postgres-maintain\n  postgresSearch: r-postgres-search\n\
         dataplane: {{image: loggerhub, serviceAccountName: default, podDisruptionBudget: true}}\n\
         watch: {{selector: {OPERATOR_CLASS_LABEL}={class}}}\nresyncSeconds: {resync_seconds}\nmissingGraceSeconds: 0\n"
    )
}

async fn install_crds(cluster: &Cluster) -> anyhow::Result<()> {
    let api = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    for crd in [Tenant::crd(), LogPipeline::crd()] {
        // An installed LoggerHub has brought them already. Others are of an earlier test.
        let there = api.get_opt(&crd.name_any()).await?;
        if there.is_none_or(|there| !there.annotations().contains_key(HELM_RELEASE)) {
            cluster.apply(&api, &crd).await?;
        }
    }
    eventually("the CRDs are served", SERVED, || async {
        cluster.tenants().list(&Default::default()).await?;
        Api::<LogPipeline>::all(cluster.client.clone()).list(&Default::default()).await?;
        Ok(())
    })
    .await
}

/// The operator sets the roles' passwords from these Secrets.
async fn keep_passwords(cluster: &Cluster) -> anyhow::Result<()> {
    let passwords = crate::tenant::role_passwords().await?;
    for (name, username, password) in [
        ("r-postgres-data", "lh_data", &passwords.data),
        ("r-postgres-maintain", "lh_maintain", &passwords.maintain),
        ("r-postgres-search", "lh_search", &passwords.search),
    ] {
        let data = [("username", username), ("password", password.expose_secret())];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        cluster.apply(&cluster.ours::<Secret>(), &secret).await.context("keep the roles' passwords")?;
    }
    Ok(())
}

/// The operator signs as the installed one does, whose data plane reads the same registry.
async fn keep_signing_keys(cluster: &Cluster) -> anyhow::Result<()> {
    let keys = crate::tenant::signing_keys().await?;
    if keys.is_empty() {
        return Ok(());
    }
    let mut secret = Secret { data: Some(keys), ..Secret::default() };
    secret.metadata.name = Some(registry_signing_secret("r"));
    cluster.apply(&cluster.ours::<Secret>(), &secret).await.context("keep the keys of the registry")?;
    Ok(())
}
