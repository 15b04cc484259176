//! A tenant's place in every store: made, repaired and removed, each as often as one likes.
//!
//! Every `ensure` looks first, changes only what differs, and says what happened. Nothing without
//! our owner marker (installation and tenant) is changed or removed. The rooms know no Kubernetes,
//! so tests provision tenants with [`provision_tenant`] alone.

use std::time::{SystemTime, UNIX_EPOCH};

use crds::TenantName;
use crds::apikey::{ApiKey, Digest, Pepper};
use crds::names::{ArchiveLocation, PipelineName, hot_class};
use crds::registry::{IngestQuotas, REGISTRY_VERSION, RegistryKey, RegistryTenant, TenantState};
use crds::tenant::{Isolation, Retention, Scope, SecretRef};

pub mod error;
pub mod marker;
pub mod postgres;
pub mod s3;
pub mod opensearch;
pub mod redis;
pub mod signing;
#[cfg(test)]
mod testing;

pub use error::{Error, Failure};
pub use marker::Owner;
pub use opensearch::{Search, Shape};
pub use postgres::{Claim, HeldTenant, IssuedKeyRow, Missing, Postgres, RolePasswords, RowState, TenantRow};
pub use redis::{Registry, SeenEntry};
pub use s3::{Backstop, ObjectStore};
pub use signing::Signing;

/// What an `ensure` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything was there already.
    Unchanged,
    /// Something that differed or was missing was put right.
    Updated,
    /// It was not there at all.
    Created,
}

impl Outcome {
    /// The greater change of the two.
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

/// How far a `retire` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// Nothing is left.
    Done,
    /// Much was removed and more is left: ask again.
    More,
}

/// The clients of every store, as the operator holds them.
#[derive(Clone)]
pub struct Stores {
    /// All databases, as their administrator.
    pub postgres: Postgres,
    /// The object store, as one who may make buckets.
    pub object_store: ObjectStore,
    /// OpenSearch.
    pub search: Search,
    /// The registry in the queue's Redis.
    pub registry: Registry,
}

/// What a tenant is to have in the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredTenant {
    /// Whose it is.
    pub owner: Owner,
    /// Whether what carries a foreign marker is taken over.
    pub adopt: bool,
    /// Name for people.
    pub display_name: Option<String>,
    /// Plan, one of the installation's.
    pub plan: String,
    /// What it may send.
    pub quotas: IngestQuotas,
    /// Whether it may send.
    pub state: TenantState,
    /// Pipeline whose lanes take its events.
    pub pipeline: PipelineName,
    /// Whose indices its events live in.
    pub isolation: Isolation,
    /// How long events are kept.
    pub retention: Retention,
    /// Days that events may be kept for although it were more before: who says so gives up what is older.
    pub confirmed_days: Option<i32>,
    /// Where its archive is.
    pub archive: ArchiveLocation,
}

impl DesiredTenant {
    /// The tenant's name.
    pub fn name(&self) -> &TenantName {
        &self.owner.tenant
    }

    /// Days that events are kept if it were `before` until now: fewer only once that is confirmed.
    pub fn kept_days(&self, before: i32) -> i32 {
        let wanted = self.retention.total_days;
        if self.confirmed_days == Some(wanted) { wanted } else { wanted.max(before) }
    }

    /// The same tenant, whose events are kept for so many days.
    pub fn kept_for(&self, total_days: i32) -> Self {
        Self { retention: Retention { total_days, ..self.retention }, ..self.clone() }
    }
}

/// A key as the stores know it: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedKey {
    /// Name in `spec.apiKeys`.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Public part.
    pub id: String,
    /// Digest of the secret.
    pub digest: Digest,
    /// Pepper that the digest was made under.
    pub pepper_id: String,
    /// When it ends, because another key took its place; `None` is the current key of its name.
    pub expires_at: Option<SystemTime>,
    /// Nonce of the last rotation that was asked for and carried out.
    pub request: Option<String>,
    /// The Secret that we wrote its text to.
    pub secret: Option<SecretRef>,
}

impl IssuedKey {
    /// What is stored of `key`, which is current and was asked for by nobody.
    pub fn of(key: &ApiKey, pepper: &Pepper, name: &str, scopes: &[Scope]) -> Self {
        Self {
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            id: key.id().to_owned(),
            digest: key.digest(pepper),
            pepper_id: pepper.id.clone(),
            expires_at: None,
            request: None,
            secret: None,
        }
    }
}

/// What [`provision_tenant`] did in each store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provisioned {
    /// Registry row, schema, role, tables, partitions and keys.
    pub database: Outcome,
    /// Bucket or prefix, lifecycle, marker.
    pub object_store: Outcome,
    /// Template, index, alias.
    pub search: Outcome,
    /// The registry that ingest reads.
    pub registry: Outcome,
}

/// Provisions a tenant in every store with exactly these live keys, without Kubernetes. The
/// databases must be there: [`Postgres::bootstrap`].
pub async fn provision_tenant(
    stores: &Stores,
    desired: &DesiredTenant,
    keys: &[IssuedKey],
) -> Result<Provisioned, Error> {
    let (row, registered) = stores.postgres.ensure_tenant(desired).await?;
    let desired = &desired.kept_for(row.total_days);
    let schema = stores.postgres.ensure_schema(desired, SystemTime::now()).await?;
    let (_, issued) = stores.postgres.ensure_keys(desired.name(), keys).await?;
    let object_store = stores.object_store.ensure(desired, &row.archive, row.backstop()).await?;
    let series_days = series_hot_days(desired);
    stores.postgres.ensure_series(&row.index_series, series_days).await?;
    let held = stores.postgres.hold_series(&row.index_series).await?;
    let search = stores.search.ensure(desired, &row.index_series, Some(held.write_number)).await;
    held.release().await;
    let search = search?;
    let entry = registry_entry(desired, &row, keys);
    let registry = stores.registry.upsert(&entry).await?;
    Ok(Provisioned { database: registered.and(schema).and(issued), object_store, search, registry })
}

/// Days that the indices of a tenant's series are kept: the pool's class, or its own.
pub fn series_hot_days(desired: &DesiredTenant) -> i32 {
    match desired.isolation {
        Isolation::Shared => hot_class(desired.retention.hot_days),
        Isolation::Dedicated => desired.retention.hot_days,
    }
}

/// A tenant as ingest and the other roles are to know it.
pub fn registry_entry(desired: &DesiredTenant, row: &TenantRow, keys: &[IssuedKey]) -> RegistryTenant {
    let mut keys: Vec<RegistryKey> = keys
        .iter()
        .map(|key| RegistryKey {
            id: key.id.clone(),
            name: key.name.clone(),
            scopes: key.scopes.clone(),
            digest: key.digest,
            pepper_id: key.pepper_id.clone(),
            expires_at: key.expires_at.map(|at| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
        })
        .collect();
    // The order of the spec means nothing: a registry entry is compared as text.
    keys.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    RegistryTenant {
        version: REGISTRY_VERSION,
        tenant: desired.name().clone(),
        uid: desired.owner.uid.clone(),
        state: desired.state,
        pipeline: desired.pipeline.clone(),
        plan: desired.plan.clone(),
        archive: row.archive.clone(),
        index_series: row.index_series.clone(),
        hot_days: desired.retention.hot_days,
        total_days: desired.retention.total_days,
        quotas: desired.quotas,
        keys,
    }
}

/// A part of a tenant that a removal is through with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its documents, indices and alias in OpenSearch.
    Search,
    /// Its archive.
    Archive,
}

/// Removes a tenant from every store: its data too, and only what carries our marker. Tells `gone`
/// of each part that is no more.
pub async fn delete_tenant(
    stores: &Stores,
    owner: &Owner,
    archive: &ArchiveLocation,
    gone: impl FnMut(Part),
) -> Result<Retired, Error> {
    stores.registry.remove(&owner.tenant).await?;
    // `maintain` may not have heard yet. What it still put in place behind a removal, nobody would remove.
    let held = stores.postgres.hold_maintain(&owner.tenant).await?;
    held.during(remove_data(stores, owner, archive, gone)).await?
}

async fn remove_data(
    stores: &Stores,
    owner: &Owner,
    archive: &ArchiveLocation,
    mut gone: impl FnMut(Part),
) -> Result<Retired, Error> {
    if stores.search.retire(owner).await? == Retired::More {
        return Ok(Retired::More);
    }
    gone(Part::Search);
    if stores.object_store.retire(owner, archive).await? == Retired::More {
        return Ok(Retired::More);
    }
    gone(Part::Archive);
    // Last: until then the row says where the archive is.
    stores.postgres.delete(owner).await?;
    Ok(Retired::Done)
}
