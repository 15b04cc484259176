//! `Tenant`: one isolated customer of the platform, cluster-scoped.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::DEFAULT_PIPELINE;
use crate::quota::Quotas;
use crate::registry::IngestQuotas;

mod keys;

pub use keys::{ApiKeySpec, ApiKeyStatus, KeySource, PreviousKey, Rotation, Scope, SecretRef};

/// Desired state of a tenant.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "loggerhub.io",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    status = "TenantStatus",
    shortname = "lht",
    category = "loggerhub",
    doc = "One isolated customer of LoggerHub. Its name is its id in every store: a schema in PostgreSQL, a bucket or prefix in the object store, an alias in OpenSearch.",
    selectable = ".spec.plan",
    selectable = ".spec.isolation",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')").message("metadata.name is the tenant's id: use 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipelineRef.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Isolation", type_ = "string", json_path = ".spec.isolation", priority = 1),
    printcolumn(name = "Deletion", type_ = "string", json_path = ".spec.deletionPolicy", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.apiKeys) || self.apiKeys.all(k, k.secretRef.__namespace__ in self.namespaces)").message("every apiKeys[].secretRef.namespace must be listed in spec.namespaces")
)]
pub struct TenantSpec {
    /// Name for people.
    #[schemars(length(max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// One of the installation's plans, which sets the limits of a tenant.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default = "standard_plan")]
    pub plan: String,
    /// How much the tenant may send. Bytes or events set here replace those of the plan; `status.effectiveQuotas` shows the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
    /// Namespaces that may hold this tenant's key Secrets.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// Shared: events are in indices shared with other tenants, behind a filter. Dedicated: the tenant has its own indices. Can't be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("isolation can't be changed: create another tenant and move"))]
    pub isolation: Isolation,
    /// How long events are kept, counted from acceptance.
    #[serde(default)]
    pub retention: Retention,
    /// API keys. The text of each key is in a Secret; LoggerHub keeps only a digest.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub api_keys: Vec<ApiKeySpec>,
    /// The pipeline that processes this tenant's events.
    #[serde(default)]
    pub pipeline_ref: PipelineRef,
    /// What happens to the data when the Tenant is deleted. Delete must be confirmed by the annotation loggerhub.io/confirm-delete.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Refuse new events with 403 tenant_suspended. Reading still works.
    #[serde(default)]
    pub suspend: bool,
}

fn standard_plan() -> String {
    "standard".to_owned()
}

/// Whose indices a tenant's events are in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Indices shared with other tenants, behind a filtered, routed alias.
    #[default]
    Shared,
    /// Indices of its own.
    Dedicated,
}

/// What happens to a tenant's data when its Tenant is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The data stays; applying the Tenant again brings it back.
    #[default]
    Retain,
    /// The data is removed from every store.
    Delete,
}

/// How long events are kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.hotDays <= self.totalDays").message("hotDays must not exceed totalDays"))]
pub struct Retention {
    /// Days in the index, where search is fast. Older events are found in their raw lines, more slowly.
    #[schemars(range(min = 1, max = 90))]
    #[serde(default = "seven")]
    pub hot_days: i32,
    /// Days in the list and in the archive. Lowering this removes older data, so it must be confirmed by the annotation loggerhub.io/confirm-retention; until then the previous value applies.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(default = "thirty")]
    pub total_days: i32,
}

fn seven() -> i32 {
    7
}

fn thirty() -> i32 {
    30
}

impl Default for Retention {
    fn default() -> Self {
        Self { hot_days: seven(), total_days: thirty() }
    }
}

/// A LogPipeline in the release's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRef {
    /// The pipeline's name.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default = "default_pipeline")]
    pub name: String,
    /// What happens to events while the pipeline doesn't exist. Hold: they are accepted and wait for it, unprocessed, up to the tenant's share of the queue. Default: they go through `default`, without the pipeline's stages.
    #[serde(default)]
    pub on_missing: OnMissing,
}

/// What happens to events whose pipeline doesn't exist.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// They wait for it.
    #[default]
    Hold,
    /// They go through `default`.
    Default,
}

fn default_pipeline() -> String {
    DEFAULT_PIPELINE.to_owned()
}

impl Default for PipelineRef {
    fn default() -> Self {
        Self { name: default_pipeline(), on_missing: OnMissing::default() }
    }
}

/// Observed state of a tenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, and one for each part.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Names of what was provisioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Backends>,
    /// The limits in force, from the plan and the Tenant's own quotas. What is not set is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_quotas: Option<EffectiveQuotas>,
    /// The issued keys; never the key or its digest.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub api_keys: Vec<ApiKeyStatus>,
    /// Last value of the annotation loggerhub.io/reconcile-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Last value of the annotation loggerhub.io/rotate-keys that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_key_rotation: Option<String>,
}

/// The limits in force, as plain numbers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveQuotas {
    /// Bytes of events, decompressed, accepted per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_bytes_per_second: Option<i64>,
    /// Bytes that may come at once after a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_burst_bytes: Option<i64>,
    /// Events accepted per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_events_per_second: Option<i64>,
    /// Events that may come at once after a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest_burst_events: Option<i64>,
}

impl EffectiveQuotas {
    /// These limits as status shows them; `None` where there is none.
    pub fn of(quotas: &IngestQuotas) -> Option<Self> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let shown = Self {
            ingest_bytes_per_second: quotas.bytes.map(|rate| number(rate.per_second)),
            ingest_burst_bytes: quotas.bytes.map(|rate| number(rate.burst)),
            ingest_events_per_second: quotas.events.map(|rate| number(rate.per_second)),
            ingest_burst_events: quotas.events.map(|rate| number(rate.burst)),
        };
        (!quotas.is_unlimited()).then_some(shown)
    }
}

/// Names of a tenant's things in the stores.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Backends {
    /// Schema in loggerhub_processor_db.
    pub database_schema: String,
    /// Bucket of the archive.
    pub bucket: String,
    /// Key prefix inside the bucket; empty if the tenant has its own bucket.
    pub prefix: String,
    /// Alias in OpenSearch.
    pub index_alias: String,
}
