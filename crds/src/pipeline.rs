//! `LogPipeline`: one processing lane, namespaced, its pods in the release namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::stage::{PipelineTest, Stage};

/// Desired state of a pipeline.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "loggerhub.io",
    version = "v1alpha1",
    kind = "LogPipeline",
    plural = "logpipelines",
    namespaced,
    status = "LogPipelineStatus",
    shortname = "lhp",
    category = "loggerhub",
    doc = "One processing lane. Many small tenants share the pipeline named default; a big one may have its own. Its pods run in the release's namespace, where the LogPipeline must be too.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')").message("metadata.name names streams and Deployments: use 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Processors", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlogEvents"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Drained In", type_ = "integer", json_path = ".status.drainedInSeconds", priority = 1),
    printcolumn(name = "Canary", type_ = "string", json_path = ".status.conditions[?(@.type==\"CanaryHealthy\")].status", priority = 1),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".status.conditions[?(@.type==\"ScalingActive\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct LogPipelineSpec {
    /// The pipeline's own ingest Deployment and Service. If not set, the default pipeline's ingest accepts its tenants' events too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Ingest>,
    /// What is done to each line before it is stored. The stages run in the order in which they are listed.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub stages: Vec<Stage>,
    /// Lines, and what the stages must turn them into. The pipeline is accepted only if all tests pass.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub tests: Vec<PipelineTest>,
    /// The pods that store and index events.
    #[serde(default)]
    pub processor: Processor,
    /// A pod that regularly sends an event as a tenant would, finds it again, and measures how long that takes. If not set, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Stop processing. Events are still accepted and wait in the queue.
    #[serde(default)]
    pub suspend: bool,
}

/// The ingest Deployment and its Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || has(self.resources) && has(self.resources.requests) && 'cpu' in self.resources.requests").message("autoscaling needs resources.requests.cpu: utilization is a part of it"))]
pub struct Ingest {
    /// Number of pods, without autoscaling.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "one")]
    pub replicas: i32,
    /// Scale by CPU with a HorizontalPodAutoscaler, instead of `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<IngestAutoscaling>,
    /// Resources of each pod.
    #[serde(default)]
    pub resources: Resources,
    /// How the Service is reached.
    #[serde(default)]
    pub service: IngestService,
}

/// How many ingest pods run, depending on their CPU use.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not exceed maxReplicas"))]
pub struct IngestAutoscaling {
    /// Minimum number of pods.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "two")]
    pub min_replicas: i32,
    /// Maximum number of pods.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "ten")]
    pub max_replicas: i32,
    /// Target for the average CPU use, as a percentage of `resources.requests.cpu`.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "seventy", rename = "targetCPUUtilizationPercentage")]
    pub target_cpu_utilization_percentage: i32,
}

/// How the ingest Service is reached.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodePort) || self.type == 'NodePort'").message("nodePort is only for type NodePort"))]
pub struct IngestService {
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// A fixed port on every node, for type NodePort.
    #[schemars(range(min = 1024, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
}

/// Kind of a Service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Inside the cluster only.
    #[default]
    ClusterIP,
    /// A port on every node.
    NodePort,
    /// The cloud's load balancer.
    LoadBalancer,
}

/// The pods that store and index events.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Processor {
    /// How many run.
    #[serde(default)]
    pub scaling: Scaling,
    /// How much one flush holds.
    #[serde(default)]
    pub batch: Batch,
    /// Resources of each pod.
    #[serde(default)]
    pub resources: Resources,
    /// How many processors may die while working on one entry before it becomes dead letters.
    #[schemars(range(min = 1, max = 20))]
    #[serde(default = "three")]
    pub max_retries: i32,
    /// Number of flushes that one pod works on at once.
    #[schemars(range(min = 1, max = 64))]
    #[serde(default = "two")]
    pub workers: i32,
}

impl Default for Processor {
    fn default() -> Self {
        Self {
            scaling: Scaling::default(),
            batch: Batch::default(),
            resources: Resources::default(),
            max_retries: three(),
            workers: two(),
        }
    }
}

/// The pod that measures an event's whole way, again and again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Secret in the pipeline's namespace whose `apiKey` has the scopes Ingest and Query, as the operator writes for a Tenant of this pipeline.
    #[schemars(length(min = 1, max = 253))]
    pub key_secret: String,
    /// Seconds between two round trips.
    #[schemars(range(min = 5, max = 3600))]
    #[serde(default = "sixty")]
    pub interval_seconds: i32,
    /// Seconds after which a round trip has failed.
    #[schemars(range(min = 1, max = 300))]
    #[serde(default = "thirty")]
    pub timeout_seconds: i32,
}

/// How many processors run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not exceed maxReplicas"))]
pub struct Scaling {
    /// Operator: the operator scales by the backlog. External: something else scales, such as an HPA.
    #[serde(default)]
    pub mode: ScalingMode,
    /// Minimum number of processors.
    #[schemars(range(min = 0, max = 500))]
    #[serde(default = "one")]
    pub min_replicas: i32,
    /// Maximum number of processors.
    #[schemars(range(min = 1, max = 500))]
    #[serde(default = "ten")]
    pub max_replicas: i32,
    /// Number of waiting events for each processor.
    #[schemars(range(min = 1))]
    #[serde(default = "target_backlog")]
    pub target_backlog_events_per_replica: i64,
    /// Age of the oldest waiting entry, in seconds, above which a processor is added.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(default = "thirty")]
    pub max_oldest_age_seconds: i32,
    /// Seconds for which fewer processors must have been enough before some are removed.
    #[schemars(range(min = 0, max = 3600))]
    #[serde(default = "three_hundred")]
    pub scale_down_stabilization_seconds: i32,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Operator,
            min_replicas: one(),
            max_replicas: ten(),
            target_backlog_events_per_replica: target_backlog(),
            max_oldest_age_seconds: thirty(),
            scale_down_stabilization_seconds: three_hundred(),
        }
    }
}

/// Who sets the number of processors.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScalingMode {
    /// The operator, from the backlog.
    #[default]
    Operator,
    /// Something else: the operator does not set replicas.
    External,
}

/// How much one flush holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Maximum number of events in a flush.
    #[schemars(range(min = 1, max = 100000))]
    #[serde(default = "batch_events")]
    pub max_events: i32,
    /// Maximum number of raw bytes in a flush.
    #[schemars(range(min = 1024, max = 67108864))]
    #[serde(default = "batch_bytes")]
    pub max_bytes: i64,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_events: batch_events(), max_bytes: batch_bytes() }
    }
}

/// Resources of a pod, as in a container's `resources`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Reserved, such as `cpu: 100m`.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// Upper limits, such as `memory: 1Gi`.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

fn one() -> i32 {
    1
}
fn two() -> i32 {
    2
}
fn three() -> i32 {
    3
}
fn ten() -> i32 {
    10
}
fn thirty() -> i32 {
    30
}
fn seventy() -> i32 {
    70
}

fn sixty() -> i32 {
    60
}

fn three_hundred() -> i32 {
    300
}
fn target_backlog() -> i64 {
    20_000
}
fn batch_events() -> i32 {
    5_000
}
fn batch_bytes() -> i64 {
    8 * 1024 * 1024
}

/// Observed state of a pipeline.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LogPipelineStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Accepted, ScalingActive, CanaryHealthy.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Number of processors that the backlog needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Number of processors that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Events that wait or are being processed; refreshed at most every 30 s unless replicas change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_events: Option<i64>,
    /// Age of the oldest of these events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_age_seconds: Option<i64>,
    /// Time until nothing waits, at the rate of the last minute. Not set while the backlog does not shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_in_seconds: Option<i64>,
    /// When the number of processors was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Last value of the annotation loggerhub.io/reconcile-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}
