//! API keys as a Tenant asks for them, and as its status shows them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One API key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.source != 'Existing' || !has(self.rotation) || !has(self.rotation.intervalDays)").message("rotation.intervalDays is for source Generate: whoever writes an Existing key's Secret replaces its key")
)]
pub struct ApiKeySpec {
    /// Name, unique among the tenant's keys.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What the key may do.
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<Scope>,
    /// Generate: the operator makes the key and writes the Secret. Existing: the Secret is yours; what it holds is the key.
    #[serde(default)]
    pub source: KeySource,
    /// Secret that holds the key under `apiKey`. Generate: made, and deleted with the key. Existing: read, and never changed.
    pub secret_ref: SecretRef,
    /// When a key is replaced, and how long the one before still works. Without it: on demand only, and 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// Where a key's text comes from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// The operator makes it.
    #[default]
    Generate,
    /// It is in a Secret that somebody else keeps.
    Existing,
}

/// How a key is replaced by the next one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.intervalDays) || self.overlapHours < self.intervalDays * 24").message("overlapHours must be less than intervalDays: two keys of a name work at once, never three")
)]
pub struct Rotation {
    /// Days after which a key is replaced. Absent: only when the annotation loggerhub.io/rotate-keys asks for it.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_days: Option<i32>,
    /// Hours that the key before still works. A smaller number also ends an overlap that goes on: 0 ends it now.
    #[schemars(range(min = 0, max = 2160))]
    #[serde(default = "one_day")]
    pub overlap_hours: i32,
}

fn one_day() -> i32 {
    24
}

impl Default for Rotation {
    fn default() -> Self {
        Self { interval_days: None, overlap_hours: one_day() }
    }
}

/// What a key may do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Send events.
    Ingest,
    /// List, search, read and watch events.
    Query,
    /// Manage what belongs to the tenant.
    Admin,
}

/// A Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; one of `spec.namespaces`.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

/// One key that works.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyStatus {
    /// Name in `spec.apiKeys`.
    pub name: String,
    /// Public part of the key.
    pub key_id: String,
    /// When it was issued.
    pub issued_at: Time,
    /// When it stops working if it is replaced by schedule: `intervalDays` after its issue, and `overlapHours` more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When it was last used, rounded down to the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// The key before it, while both work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousKey>,
}

/// A key that was replaced and still works.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PreviousKey {
    /// Public part of the key.
    pub key_id: String,
    /// When it stops working.
    pub expires_at: Time,
    /// When it was last used, rounded down to the hour: somebody has not changed to the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}
