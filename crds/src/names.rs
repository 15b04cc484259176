//! The only place that builds a name: schema, role, bucket, prefix, alias, index, stream, Deployment.
//!
//! A tenant's name is its id in every store. It is checked once, here, and every derived name is
//! then valid by construction: no caller quotes, trims or truncates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest tenant or pipeline name. Derived names stay below PostgreSQL's 63 bytes, a bucket's 63
/// and a Service's 63: the longest fixed parts are `lh_tenant_` (10) and a release prefix (≤ 20).
pub const MAX_NAME_LENGTH: usize = 40;

/// Streams per pipeline. Eight keep one tenant's entries in one stream while eight workers share a
/// pipeline; the number is part of the key format and never changes for a running installation.
pub const SHARDS: u8 = 8;

/// Consumer group that the processors of a pipeline form on each of its streams.
pub const CONSUMER_GROUP: &str = "processors";

/// Pipeline that tenants use unless they name another one.
pub const DEFAULT_PIPELINE: &str = "default";

/// Database of the tenant registry, plans, API keys and usage roll-up.
pub const CORE_DATABASE: &str = "loggerhub_core_db";
/// Database that holds one schema per tenant: rows, ledger, spool.
pub const PROCESSOR_DATABASE: &str = "loggerhub_processor_db";
/// Database of saved searches and search cache metadata.
pub const SEARCH_DATABASE: &str = "loggerhub_search_db";

/// Role that reads and writes rows as a tenant's role; no DDL, `NOINHERIT`.
pub const DATA_ROLE: &str = "lh_data";
/// Role of `maintain`: like [`DATA_ROLE`], and may call the partition functions.
pub const MAINTAIN_ROLE: &str = "lh_maintain";
/// Role that reads rows as a tenant's reader; no DDL, `NOINHERIT`.
pub const SEARCH_ROLE: &str = "lh_search";

/// Redis string: a number that grows with every change of the tenant registry.
pub const REGISTRY_EPOCH: &str = "lh:registry:epoch";
/// Redis hash: tenant name → JSON of [`crate::registry::RegistryTenant`].
pub const REGISTRY_TENANTS: &str = "lh:registry:tenants";
/// Redis hash: tenant name → [`crate::signature::Signature`] of its entry in [`REGISTRY_TENANTS`].
pub const REGISTRY_SIGNATURES: &str = "lh:registry:signatures";
/// Redis stream of onboarding events; fields `tenant`, `kind` (`upserted` or `removed`), `epoch`. It begins with one of
/// kind `begun`, of no tenant.
pub const REGISTRY_CHANGES: &str = "lh:registry:changes";
/// Redis sorted set: replicas of ingest by when each was last heard of, in milliseconds.
pub const INGEST_REPLICAS: &str = "lh:ingest:replicas";
/// Redis set of pipelines that are gone: the processors of `default` drain their streams.
pub const ORPHANED_PIPELINES: &str = "lh:pipelines:orphaned";
/// Redis set of pipelines that are not there, and whose streams wait for them: nobody reads these.
pub const HELD_PIPELINES: &str = "lh:pipelines:held";

/// Redis string that lives for as long as processors of `default` may still read a pipeline's streams
/// that were taken from them.
pub fn taken_back(pipeline: &PipelineName) -> String {
    format!("lh:pipelines:taken-back:{pipeline}")
}

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a name: use 1 to {MAX_NAME_LENGTH} of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)]
pub struct InvalidName {
    /// The string that was refused.
    pub name: String,
}

fn check(name: &str) -> Result<(), InvalidName> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| *c != b'-');
    let bytes = name.as_bytes();
    let valid =
        bytes.len() <= MAX_NAME_LENGTH && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last());
    if valid { Ok(()) } else { Err(InvalidName { name: name.chars().take(80).collect() }) }
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                check(name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                check(&name)?;
                Ok(Self(name))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name! {
    /// A tenant's name: the `metadata.name` of its Tenant, and its id in every store.
    TenantName
}

checked_name! {
    /// A pipeline's name: the `metadata.name` of its LogPipeline, and its lane in the queue.
    PipelineName
}

/// How buckets are divided among tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketLayout {
    /// A bucket for each tenant.
    PerTenant,
    /// One bucket, a prefix for each tenant.
    Shared,
}

/// Where a tenant's archive is: every object key begins with `prefix` (empty, or ending in `/`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLocation {
    /// Bucket name.
    pub bucket: String,
    /// Key prefix inside the bucket.
    pub prefix: String,
}

impl TenantName {
    /// PostgreSQL schema in [`PROCESSOR_DATABASE`]. Names hold no `_`, so `-` → `_` stays unique.
    pub fn database_schema(&self) -> String {
        format!("tenant_{}", self.0.replace('-', "_"))
    }

    /// PostgreSQL role that alone may write to [`Self::database_schema`].
    pub fn database_role(&self) -> String {
        format!("lh_tenant_{}", self.0.replace('-', "_"))
    }

    /// PostgreSQL role that reads [`Self::database_schema`], and marks dead letters.
    pub fn database_reader(&self) -> String {
        format!("lh_read_{}", self.0.replace('-', "_"))
    }

    /// Advisory lock of [`PROCESSOR_DATABASE`], hashed by `hashtextextended(…, 0)`: `maintain` archives, expires and
    /// counts under it, and the operator keeps it out while it removes the tenant.
    pub fn maintain_lock(&self) -> String {
        format!("maintain:{}", self.0)
    }

    /// The same for late indexing.
    pub fn late_index_lock(&self) -> String {
        format!("late-index:{}", self.0)
    }

    /// Bucket and prefix of the archive. `bucket_prefix` begins a tenant's own bucket's name under
    /// [`BucketLayout::PerTenant`] and is the shared bucket's whole name (less a final `-`) under
    /// [`BucketLayout::Shared`].
    pub fn archive(&self, layout: BucketLayout, bucket_prefix: &str) -> ArchiveLocation {
        match layout {
            BucketLayout::PerTenant => {
                ArchiveLocation { bucket: format!("{bucket_prefix}{}", self.0), prefix: String::new() }
            }
            BucketLayout::Shared => ArchiveLocation {
                bucket: bucket_prefix.trim_end_matches('-').to_owned(),
                prefix: format!("tenants/{}/", self.0),
            },
        }
    }

    /// OpenSearch alias, filtered and routed to this tenant, that every query goes through.
    pub fn index_alias(&self) -> String {
        format!("lh-t-{}", self.0)
    }

    /// Series of a tenant that has indices of its own (`isolation: Dedicated`).
    pub fn dedicated_series(&self) -> String {
        format!("lh-own-{}", self.0)
    }

    /// Shard of a pipeline that takes this tenant's entries, below [`SHARDS`]. Stable for ever:
    /// the first byte of SHA-256 of the name.
    pub fn shard(&self) -> u8 {
        Sha256::digest(self.0.as_bytes())[0] % SHARDS
    }

    /// Redis hash: what is left of the tenant's ingest quotas.
    pub fn quota_bucket(&self) -> String {
        format!("lh:quota:{{{}}}", self.0)
    }

    /// Redis hash: id of each of the tenant's keys → hour of its last use.
    pub fn key_uses(&self) -> String {
        format!("lh:keys:used:{{{}}}", self.0)
    }

    /// Redis stream (cache instance) of the tenant's live tail.
    pub fn tail_stream(&self) -> String {
        format!("lh:tail:{{{}}}:events", self.0)
    }

    /// Redis string (cache instance) that exists while somebody watches the tenant's live tail.
    pub fn tail_lease(&self) -> String {
        format!("lh:tail:{{{}}}:lease", self.0)
    }

    /// Redis string (cache instance) that exists while somebody waits for a batch of the tenant's to
    /// be stored.
    pub fn fate_lease(&self) -> String {
        format!("lh:fate:{{{}}}:lease", self.0)
    }

    /// Redis string (cache instance) that says what became of one request's batch.
    pub fn fate_note(&self, batch_id: &dyn fmt::Display, accepted_at: i64) -> String {
        format!("lh:fate:{{{}}}:{batch_id}:{accepted_at}", self.0)
    }
}

/// Redis string (cache instance) with the hash of the body that was kept under the
/// `Idempotency-Key` of this batch, which a tenant with this UID sent.
pub fn idempotency_memory(tenant_uid: &str, batch_id: &dyn fmt::Display) -> String {
    format!("lh:idem:{tenant_uid}:{batch_id}")
}

/// How long events stay in the index, rounded up to a class so that tenants can share indices.
pub const HOT_CLASSES: [i32; 6] = [1, 3, 7, 14, 30, 90];

/// Most tenants that share the indices of one pool, unless the installation says otherwise: each adds one alias to every
/// index of it.
pub const POOL_TENANTS: u32 = 200;

/// The smallest of [`HOT_CLASSES`] that keeps `hot_days`.
pub fn hot_class(hot_days: i32) -> i32 {
    HOT_CLASSES.into_iter().find(|class| *class >= hot_days).unwrap_or(HOT_CLASSES[HOT_CLASSES.len() - 1])
}

/// Series that the `pool`th group of shared tenants of one hot class writes to.
pub fn pool_series(hot_class: i32, pool: i64) -> String {
    format!("lh-hot{hot_class}-p{pool}")
}

/// The `number`th index of a series; the first is 1.
pub fn index_name(series: &str, number: i64) -> String {
    format!("{series}-{number:06}")
}

/// Index patterns of every index that holds events: what the one index template applies to.
pub const INDEX_PATTERNS: [&str; 2] = ["lh-hot*", "lh-own-*"];
/// The one index template.
pub const INDEX_TEMPLATE: &str = "loggerhub-logs";

/// What every [`Lane::quarantine`] looks like, as Redis's SCAN takes it.
pub const QUARANTINES: &str = "lh:{*:*}:quarantine";

/// One stream of the queue: a pipeline's shard. The braces are a Redis Cluster hash tag, so that a
/// lane's stream and its counters can change in one MULTI.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Pipeline that the lane belongs to.
    pub pipeline: PipelineName,
    /// Shard number, below [`SHARDS`].
    pub shard: u8,
}

impl Lane {
    /// Redis stream of entries.
    pub fn stream(&self) -> String {
        format!("lh:{{{}:{}}}:queue", self.pipeline, self.shard)
    }

    /// Redis counter of events in [`Self::stream`], delivered or not.
    pub fn events_counter(&self) -> String {
        format!("lh:{{{}:{}}}:events", self.pipeline, self.shard)
    }

    /// Redis counter of payload bytes in [`Self::stream`], delivered or not.
    pub fn bytes_counter(&self) -> String {
        format!("lh:{{{}:{}}}:bytes", self.pipeline, self.shard)
    }

    /// Redis hash: tenant name → bytes that its entries take in [`Self::stream`], delivered or not.
    pub fn tenant_bytes(&self) -> String {
        format!("lh:{{{}:{}}}:tenants", self.pipeline, self.shard)
    }

    /// Redis stream of entries that no tenant can be made out for: kept for the platform team.
    pub fn quarantine(&self) -> String {
        format!("lh:{{{}:{}}}:quarantine", self.pipeline, self.shard)
    }

    /// The lane whose [`Self::quarantine`] this is.
    pub fn of_quarantine(key: &str) -> Option<Self> {
        let (pipeline, shard) = key.strip_prefix("lh:{")?.strip_suffix("}:quarantine")?.split_once(':')?;
        let lane = Self { pipeline: pipeline.parse().ok()?, shard: shard.parse().ok()? };
        (lane.shard < SHARDS && lane.quarantine() == key).then_some(lane)
    }

    /// Redis set of the entries that a processor works on alone right now, because others may have
    /// died over them. One that is still in it afterwards has killed its processor.
    pub fn suspects(&self) -> String {
        format!("lh:{{{}:{}}}:suspects", self.pipeline, self.shard)
    }
}

impl PipelineName {
    /// The `default` pipeline's name.
    pub fn default_pipeline() -> Self {
        Self(DEFAULT_PIPELINE.to_owned())
    }

    /// All lanes of the pipeline.
    pub fn lanes(&self) -> impl Iterator<Item = Lane> + '_ {
        (0..SHARDS).map(|shard| Lane { pipeline: self.clone(), shard })
    }

    /// The lane that takes a tenant's entries.
    pub fn lane(&self, tenant: &TenantName) -> Lane {
        Lane { pipeline: self.clone(), shard: tenant.shard() }
    }

    /// Deployment of the pipeline's processors; `release` is the Helm release's full name.
    pub fn processor_deployment(&self, release: &str) -> String {
        format!("{release}-{}-processor", self.0)
    }

    /// Deployment and Service of the pipeline's ingest.
    pub fn ingest_deployment(&self, release: &str) -> String {
        format!("{release}-{}-ingest", self.0)
    }

    /// Deployment and Service of the pipeline's canary.
    pub fn canary_deployment(&self, release: &str) -> String {
        format!("{release}-{}-canary", self.0)
    }
}

/// Service of the gateway, which the chart makes; `release` is the Helm release's full name.
pub fn gateway_service(release: &str) -> String {
    format!("{release}-gateway")
}

/// Secret of the private keys that the operator signs the registry with; `release` is the Helm release's full name.
pub fn registry_signing_secret(release: &str) -> String {
    format!("{release}-registry-signing")
}

/// ConfigMap of the public keys that the registry's entries are verified with.
pub fn registry_keys_config_map(release: &str) -> String {
    format!("{release}-registry-keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_is_lower_case_and_short() {
        for good in ["a", "acme", "a-b", "0", "x".repeat(40).as_str()] {
            assert!(good.parse::<TenantName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "*", "_all", "a,b", "é", "x".repeat(41).as_str()] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_names_fit_their_stores() {
        let longest = tenant(&"x".repeat(MAX_NAME_LENGTH));
        assert!(longest.database_role().len() <= 63);
        assert!(longest.database_reader().len() <= 63);
        assert!(longest.database_schema().len() <= 63);
        assert!(longest.archive(BucketLayout::PerTenant, "lh-").bucket.len() <= 63);
    }

    #[test]
    fn no_two_tenants_share_a_schema() {
        assert_eq!(tenant("a-b").database_schema(), "tenant_a_b");
        assert!("a_b".parse::<TenantName>().is_err());
    }

    #[test]
    fn a_shared_layout_gives_each_tenant_a_prefix() {
        let at = tenant("acme").archive(BucketLayout::Shared, "logs-");
        assert_eq!((at.bucket.as_str(), at.prefix.as_str()), ("logs", "tenants/acme/"));
    }

    #[test]
    fn hot_days_round_up_to_a_class() {
        for (days, class) in [(1, 1), (2, 3), (7, 7), (8, 14), (31, 90), (90, 90)] {
            assert_eq!(hot_class(days), class, "{days}");
        }
    }

    #[test]
    fn a_quarantine_leads_back_to_its_lane() {
        for lane in "a-b".parse::<PipelineName>().unwrap().lanes() {
            assert_eq!(Lane::of_quarantine(&lane.quarantine()), Some(lane));
        }
        for other in [
            "lh:{a:0}:queue",
            "lh:{a:99}:quarantine",
            "lh:{a:00}:quarantine",
            "lh:{A:0}:quarantine",
            "lh:{a}:quarantine",
            "",
        ] {
            assert_eq!(Lane::of_quarantine(other), None, "{other}");
        }
    }

    #[test]
    fn a_shard_is_stable_and_in_range() {
        assert_eq!(tenant("acme").shard(), tenant("acme").shard());
        assert!((0..200).map(|n| tenant(&format!("t{n}")).shard()).all(|shard| shard < SHARDS));
    }
}
