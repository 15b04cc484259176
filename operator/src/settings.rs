//! The operator's settings file: what an installation is, and how data-plane pods are made.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::plans::Plans;
use crate::provision::Shape;
use crds::LogPipelineSpec;
use crds::names::{BucketLayout, POOL_TENANTS};
use k8s_openapi::api::core::v1::{Toleration, TopologySpreadConstraint};

/// An installation of LoggerHub.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Owner marker in every store: which installation a thing belongs to. Never changes.
    pub installation: String,
    /// The Helm release's full name: begins the name of every object that we make.
    pub release: String,
    /// The release's namespace: where pipelines, their pods and the platform's Secrets are.
    pub namespace: String,
    /// Version that the objects are labelled with.
    #[serde(default)]
    pub version: String,
    /// Plans that a Tenant may name, and what each allows.
    pub plans: Plans,
    /// How archives are divided among buckets.
    pub archive: ArchiveSettings,
    /// How indices are made.
    #[serde(default)]
    pub opensearch: IndexSettings,
    /// URL that tenants send to; written into their Secrets.
    #[serde(default)]
    pub ingest_url: Option<String>,
    /// The platform's Secrets in the release's namespace.
    pub secrets: PlatformSecrets,
    /// How data-plane pods are made.
    pub dataplane: DataPlane,
    /// Spec of the LogPipeline `default`, which the operator then keeps so; absent: it is somebody
    /// else's to apply.
    #[serde(default)]
    pub default_pipeline: Option<serde_json::Value>,
    /// URL of a pipeline's canary, `{service}` standing for its Service; absent: `http://{service}.<namespace>`. For
    /// an operator that runs outside its cluster.
    #[serde(default)]
    pub canary_url: Option<String>,
    /// What this operator looks at.
    #[serde(default)]
    pub watch: Watch,
    /// What this installation takes the place of, as somebody has confirmed: the UID of the cluster that it ran in
    /// before, or the name of another installation on the same stores.
    #[serde(default)]
    pub take_over: Option<String>,
    /// Tenants that are gone without a deletion, as somebody has confirmed: their keys are revoked at once.
    #[serde(default)]
    pub confirm_gone: Vec<String>,
    /// Seconds for which a Tenant may be absent before its keys are revoked.
    #[serde(default = "one_day")]
    pub missing_grace_seconds: u64,
    /// Seconds between two looks at a Tenant that nothing happened to.
    #[serde(default = "five_minutes")]
    pub resync_seconds: u64,
}

fn five_minutes() -> u64 {
    300
}

/// Long enough for somebody to see the Event, and to apply again what was lost.
fn one_day() -> u64 {
    24 * 3600
}

/// How archives are divided among buckets.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArchiveSettings {
    /// A bucket or a prefix for each tenant.
    pub layout: BucketLayout,
    /// What buckets' names begin with, or the shared bucket's name.
    pub bucket_prefix: String,
}

/// How indices are made.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IndexSettings {
    /// Copies of each shard besides the first.
    pub replicas: u32,
    /// Shards of an index.
    pub shards: u32,
    /// How many of them hold one tenant's events.
    pub shards_per_tenant: u32,
    /// Most tenants that share the indices of one pool.
    pub pool_tenants: u32,
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self { replicas: 0, shards: 1, shards_per_tenant: 1, pool_tenants: POOL_TENANTS }
    }
}

impl IndexSettings {
    /// The shape of the indices.
    pub fn shape(&self) -> Shape {
        Shape { shards: self.shards, shards_per_tenant: self.shards_per_tenant, replicas: self.replicas }
    }
}

/// The platform's Secrets.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformSecrets {
    /// Peppers of the API keys.
    pub peppers: PepperSecret,
    /// Credentials of `lh_data`; made by us.
    pub postgres_data: String,
    /// Credentials of `lh_maintain`; made by us.
    pub postgres_maintain: String,
    /// Credentials of `lh_search`; made by us.
    pub postgres_search: String,
}

/// The Secret of peppers.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PepperSecret {
    /// Its name.
    pub name: String,
    /// Whether we make it if it is absent.
    pub create: bool,
}

/// How data-plane pods are made.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataPlane {
    /// Image of every role.
    pub image: String,
    /// When the image is pulled.
    #[serde(default)]
    pub image_pull_policy: Option<String>,
    /// Secrets to pull it with.
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// Service account of the pods; they mount no token.
    pub service_account_name: String,
    /// Addresses of the stores and log settings.
    #[serde(default)]
    pub env: Vec<EnvironmentVariable>,
    /// Secrets of the stores' credentials.
    #[serde(default)]
    pub secrets: DataPlaneSecrets,
    /// Where the stores' CAs are.
    #[serde(default)]
    pub ca_bundle: Option<CaBundle>,
    /// More labels on pods.
    #[serde(default)]
    pub pod_labels: BTreeMap<String, String>,
    /// Nodes that may run them.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they stand.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
    /// How they are spread; the pods that are counted are those of the same pipeline and role.
    #[serde(default)]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Whether evictions take one pod of a pipeline's role at a time.
    #[serde(default)]
    pub pod_disruption_budget: bool,
}

/// One environment variable.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentVariable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// Secrets of the stores' credentials; an absent one is a store without credentials.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataPlaneSecrets {
    /// Of the queue's Redis, for processors.
    #[serde(default)]
    pub redis_queue: Option<String>,
    /// Of the queue's Redis, for ingest.
    #[serde(default)]
    pub redis_queue_ingest: Option<String>,
    /// Of the Redis of cache and live tail.
    #[serde(default)]
    pub redis_cache: Option<String>,
    /// Of OpenSearch.
    #[serde(default)]
    pub opensearch: Option<String>,
}

/// Where `ca.crt` is.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum CaBundle {
    /// In a ConfigMap.
    ConfigMap(String),
    /// In a Secret.
    Secret(String),
}

/// What this operator looks at.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Watch {
    /// Label selector of Tenants and LogPipelines; empty is all that name no operator of their own.
    #[serde(default)]
    pub selector: String,
}

/// Label: this object is left to the operator whose selector asks for this value.
pub const OPERATOR_CLASS_LABEL: &str = "loggerhub.io/operator-class";

impl Watch {
    /// The class of the objects that we make for ourselves, so that we look at them, too.
    pub fn class(&self) -> Option<&str> {
        self.selector.strip_prefix(OPERATOR_CLASS_LABEL)?.strip_prefix('=').map(|class| class.trim_start_matches('='))
    }

    /// The selector that watches use.
    pub fn effective(&self) -> String {
        if self.selector.is_empty() { format!("!{OPERATOR_CLASS_LABEL}") } else { self.selector.clone() }
    }
}

impl Settings {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read settings `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("settings `{}`", path.display()))
    }

    /// Reads and checks the file's text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let settings: Self = serde_saphyr::from_str(text)?;
        ensure!((1..=128).contains(&settings.installation.len()), "installation: use 1 to 128 characters");
        // With a pipeline's 40 and `-processor` a Deployment's name stays within 63 + the pods' suffix.
        ensure!((1..=20).contains(&settings.release.len()), "release: use 1 to 20 characters");
        ensure!(
            settings.opensearch.shape().is_possible(),
            "opensearch.shardsPerTenant: use 1, or fewer than opensearch.shards"
        );
        ensure!(settings.opensearch.pool_tenants >= 1, "opensearch.poolTenants: use 1 or more");
        settings.plans.check()?;
        if let Some(spec) = &settings.default_pipeline {
            serde_json::from_value::<LogPipelineSpec>(spec.clone()).context("defaultPipeline")?;
        }
        Ok(settings)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SETTINGS: &str = "installation: prod\nrelease: loggerhub\nnamespace: logs\nversion: 0.1.0\nplans: {standard: {}, small: {quotas: {ingestEventsPerSecond: 100}}}\n\
             archive: {layout: PerTenant, bucketPrefix: lh-}\nopensearch: {replicas: 1}\n\
             secrets:\n  peppers: {name: loggerhub-peppers, create: true}\n  postgresData: loggerhub-postgres-data\n  postgresMaintain: loggerhub-postgres-maintain\n  postgresSearch: loggerhub-postgres-search\n\
             dataplane:\n  image: loggerhub:1\n  serviceAccountName: loggerhub-dataplane\n  env:\n  - {name: LOGGERHUB_LOG, value: info}\n  - {name: LOGGERHUB_PIPELINE, value: wrong}\n  secrets: {redisQueue: queue-secret, redisQueueIngest: ingest-secret, redisCache: cache-secret}\n  caBundle: {configMap: ca}\n  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]\n";

    pub(crate) fn settings() -> Settings {
        Settings::parse(SETTINGS).unwrap()
    }

    #[test]
    fn the_file_is_read_and_an_unknown_field_is_refused() {
        assert_eq!((settings().resync_seconds, settings().missing_grace_seconds), (300, 86_400));
        assert!(matches!(settings().dataplane.ca_bundle, Some(CaBundle::ConfigMap(name)) if name == "ca"));
        assert!(Settings::parse("installation: a\nwrong: 1\n").is_err());
    }

    #[test]
    fn a_tenant_is_on_some_of_the_shards() {
        let with = |index: &str| Settings::parse(&SETTINGS.replace("{replicas: 1}", index));
        assert_eq!(with("{}").unwrap().opensearch.pool_tenants, 200);
        assert!(with("{shards: 6, shardsPerTenant: 2, poolTenants: 20}").is_ok());
        for impossible in ["{shards: 2, shardsPerTenant: 2}", "{shards: 0}", "{poolTenants: 0}"] {
            assert!(with(impossible).is_err(), "{impossible}");
        }
    }

    #[test]
    fn a_default_pipeline_that_is_none_is_refused() {
        let with = |pipeline: &str| Settings::parse(&format!("{SETTINGS}defaultPipeline: {pipeline}\n"));
        assert!(with("{processor: {scaling: {minReplicas: 2}}}").unwrap().default_pipeline.is_some());
        assert!(with("{processor: {scaling: {minReplicas: many}}}").is_err());
    }
}
