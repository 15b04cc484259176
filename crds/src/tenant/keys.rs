//! API keys as a Tenant asks for them, and as its status shows them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One API key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.source != 'Existing' || !has(self.rotation) || !has(self.rotation.intervalDays)").message("rotation.intervalDays is for source Generate: the owner of an Existing key's Secret replaces its key")
)]
pub struct ApiKeySpec {
    /// Name, unique among the tenant's keys.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What the key may do.
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<Scope>,
    /// Generate: the operator generates the key and writes the Secret. Existing: you write the Secret; the operator uses the key in it.
    #[serde(default)]
    pub source: KeySource,
    /// Secret with the key in its entry `apiKey`. Generate: the operator creates it, and deletes it with the key. Existing: the operator reads it and never changes it.
    pub secret_ref: SecretRef,
    /// When the key is replaced, and how long the previous one still works. If not set: on demand only, and 24 hours.
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
    /// Days after which the key is replaced. If not set, only when the annotation loggerhub.io/rotate-keys asks for it.
    #[schemars(range(min = 1, max = 3650))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_days: Option<i32>,
    /// Hours for which the previous key still works. Lowering this also shortens a current overlap: 0 ends it now.
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
    /// Retry and purge dead letters.
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
    /// When the key stops working if it is replaced on schedule: `intervalDays` plus `overlapHours` after it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When it was last used, rounded down to the hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// The previous key, while both work.
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
    /// When it was last used, rounded down to the hour. A recent time means that somebody still uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}
