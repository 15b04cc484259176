//! The tenant registry as the operator projects it into Redis and the data plane reads it.
//!
//! One hash holds a JSON document per tenant, another the operator's [signature](crate::signature)
//! of it; an epoch grows with every change; a stream announces each change. A reader follows the
//! stream and compares the epoch each second: a lost announcement costs a second, never a stale key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::apikey::Digest;
use crate::names::{ArchiveLocation, PipelineName, TenantName};
use crate::tenant::Scope;

/// Version of [`RegistryTenant`]'s form; a reader skips and reports a newer one.
pub const REGISTRY_VERSION: u32 = 1;

/// Everything the data plane needs to know of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryTenant {
    /// [`REGISTRY_VERSION`].
    pub version: u32,
    /// The tenant.
    pub tenant: TenantName,
    /// UID of its Tenant: one that comes later under the same name is another. Absent, as from an operator of before,
    /// is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Whether it may send and read.
    pub state: TenantState,
    /// Pipeline whose lanes take its entries.
    pub pipeline: PipelineName,
    /// Plan, for metrics and billing.
    pub plan: String,
    /// Where its archive is.
    pub archive: ArchiveLocation,
    /// Series of indices that its events are written to.
    pub index_series: String,
    /// Days that its events stay in the index.
    pub hot_days: i32,
    /// Days that its rows and raw lines are kept.
    pub total_days: i32,
    /// What it may send. Absent, as from an operator of before, is without limit.
    #[serde(default, skip_serializing_if = "IngestQuotas::is_unlimited")]
    pub quotas: IngestQuotas,
    /// Its keys; at most 16, and one before each.
    pub keys: Vec<RegistryKey>,
}

/// What a tenant may send, over all replicas of ingest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngestQuotas {
    /// Bytes of events, decompressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Rate>,
    /// Events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Rate>,
}

/// A limit as a token bucket has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// What is earned each second.
    pub per_second: u64,
    /// Most that is saved up.
    pub burst: u64,
}

impl IngestQuotas {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a tenant may send and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantState {
    /// Sends and reads.
    Active,
    /// `spec.suspend`: reads; ingest answers 403 `tenant_suspended`.
    Suspended,
    /// Its Tenant is being deleted: neither; what is queued is drained.
    Deleting,
}

/// One API key of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryKey {
    /// Public part of the key.
    pub id: String,
    /// Name in `spec.apiKeys`.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Digest of the secret, as hexadecimal text.
    #[serde(with = "hex")]
    pub digest: Digest,
    /// Pepper that the digest was made under.
    pub pepper_id: String,
    /// Second since 1970 from which it is refused, whoever is away by then. Absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl RegistryKey {
    /// Whether the key's time is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|at| UNIX_EPOCH + Duration::from_secs(at) <= now)
    }
}

/// How long Redis remembers when a tenant's keys were last used; the operator reads it every few minutes.
pub const KEY_USES_SECONDS: i64 = 7 * 24 * 3600;

/// The hour of a moment, as the second since 1970 that it begins with: as precise as uses are noted.
pub fn hour_of(moment: SystemTime) -> u64 {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    seconds - seconds % 3600
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(D::Error::custom("a digest is 64 hexadecimal digits"));
        }
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(D::Error::custom)?;
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_entry_reads_back() {
        let key = RegistryKey {
            id: "abc".into(),
            name: "main".into(),
            scopes: vec![Scope::Ingest],
            digest: [7; 32],
            pepper_id: "p1".into(),
            expires_at: None,
        };
        let json = serde_json::to_string(&key).unwrap();
        assert!(json.contains(&"07".repeat(32)), "{json}");
        assert_eq!(serde_json::from_str::<RegistryKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<RegistryKey>(&json.replace("0707", "07zz")).is_err());
    }

    #[test]
    fn a_key_ends_with_its_second_and_says_so_only_then() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let json =
            r#"{"id":"a","name":"main","scopes":[],"digest":"00","pepperId":"p1"}"#.replace("00", &"00".repeat(32));
        let mut key: RegistryKey = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&key).unwrap(), json, "what a reader of before has seen");
        for (expires_at, now, expired) in
            [(None, 5000, false), (Some(5000), 4999, false), (Some(5000), 5000, true), (Some(5000), 9000, true)]
        {
            key.expires_at = expires_at;
            assert_eq!(key.is_expired(at(now)), expired, "{expires_at:?} at {now}");
        }
        assert_eq!((hour_of(at(7199)), hour_of(at(7200))), (3600, 7200));
    }

    #[test]
    fn an_entry_without_quotas_and_one_with_unknown_fields_read_as_before() {
        let name: TenantName = "acme".parse().unwrap();
        let tenant = RegistryTenant {
            version: REGISTRY_VERSION,
            uid: String::new(),
            state: TenantState::Active,
            pipeline: PipelineName::default_pipeline(),
            plan: "standard".into(),
            archive: name.archive(crate::names::BucketLayout::PerTenant, "lh-"),
            index_series: "s".into(),
            hot_days: 7,
            total_days: 30,
            quotas: IngestQuotas::default(),
            keys: Vec::new(),
            tenant: name,
        };
        let json = serde_json::to_string(&tenant).unwrap();
        assert!(!json.contains("quotas") && !json.contains("uid"), "what a reader of before has seen: {json}");
        assert_eq!(serde_json::from_str::<RegistryTenant>(&json).unwrap(), tenant);
        let limit = IngestQuotas { bytes: Some(Rate { per_second: 1, burst: 2 }), events: None };
        let limited = serde_json::to_string(&RegistryTenant { quotas: limit, ..tenant }).unwrap();
        let later = limited.replace("\"burst\":2", "\"burst\":2,\"daily\":3");
        assert_eq!(serde_json::from_str::<RegistryTenant>(&later).unwrap().quotas, limit);
    }
}
