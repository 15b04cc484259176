//! A tenant of a test's own: provisioned in the real stores without Kubernetes, retired on demand.
//!
//! ```text
//! let tenant = Tenant::named("search").dedicated().provision(&stores).await?;
//! // … `tenant.key` sends and reads; `tenant.registered` is what ingest knows …
//! tenant.retire().await
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use crds::apikey::{ApiKey, Pepper, age_of};
use crds::names::{BucketLayout, PipelineName, registry_signing_secret};
use crds::registry::{IngestQuotas, Rate, RegistryTenant, TenantState};
use crds::signature::SigningKey;
use crds::tenant::{Isolation, Retention, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use operator::provision::{
    self, DesiredTenant, IssuedKey, ObjectStore, Owner, Postgres, Registry, Retired, RolePasswords, Search, Shape,
    Signing,
};
use runtime::settings::PostgresSettings;
use secrecy::ExposeSecret;
use tokio::sync::{OnceCell, watch};

use crate::cluster::Cluster;
use crate::stores::Stores;
use crate::unique;

/// Owner of everything that tests provision; never the id of an installed LoggerHub.
const INSTALLATION: &str = "testkit";
/// Pepper that tests' keys are digested under.
const PEPPER: (&str, &str) = ("p1", "a pepper of the tests, at least 32 bytes long");
/// Asks for the retirement of a large tenant before giving up: each removes thousands of things.
const RETIRE_ROUNDS: usize = 100;
/// Rounds that may fail: one for each connection that a test broke.
const RETIRE_FAILURES: usize = 3;

/// What a test asks for; ends with [`TenantBuilder::provision`].
#[derive(Debug, Clone)]
pub struct TenantBuilder {
    prefix: String,
    state: TenantState,
    pipeline: PipelineName,
    isolation: Isolation,
    retention: Retention,
    quotas: IngestQuotas,
    scopes: Vec<Scope>,
}

/// A provisioned tenant.
pub struct Tenant {
    /// What it was given.
    pub desired: DesiredTenant,
    /// What the data plane knows of it.
    pub registered: RegistryTenant,
    /// Its key, in the clear.
    pub key: String,
    scopes: Vec<Scope>,
    stores: provision::Stores,
}

impl Tenant {
    /// Begins a tenant named `prefix` and something random: active, shared, on the default pipeline.
    pub fn named(prefix: &str) -> TenantBuilder {
        TenantBuilder {
            prefix: prefix.to_owned(),
            state: TenantState::Active,
            pipeline: PipelineName::default_pipeline(),
            isolation: Isolation::Shared,
            retention: Retention::default(),
            quotas: IngestQuotas::default(),
            scopes: vec![Scope::Ingest, Scope::Query],
        }
    }

    /// Provisions it again, as the operator does when something of it is gone. Its key goes on.
    pub async fn provision_again(&self) -> anyhow::Result<()> {
        let key = ApiKey::parse(&self.key).context("read its key")?;
        let issued = IssuedKey::of(&key, &pepper(), "main", &self.scopes);
        provision::provision_tenant(&self.stores, &self.desired, &[issued]).await?;
        Ok(())
    }

    /// Removes it from every store, with its data.
    pub async fn retire(self) -> anyhow::Result<()> {
        let mut failures = 0;
        for _ in 0..RETIRE_ROUNDS {
            let Self { stores, desired, .. } = &self;
            match provision::delete_tenant(stores, &desired.owner, &desired.archive, |_| {}).await {
                Ok(Retired::Done) => return Ok(()),
                Ok(_) => {}
                // A connection that broke while the test ran is noticed only now, and made anew.
                Err(_) if failures < RETIRE_FAILURES => failures += 1,
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("tenant {} is still not retired after {RETIRE_ROUNDS} rounds", self.desired.name())
    }
}

impl TenantBuilder {
    /// It may read but not send.
    pub fn suspended(mut self) -> Self {
        self.state = TenantState::Suspended;
        self
    }

    /// Its events live in indices of its own.
    pub fn dedicated(mut self) -> Self {
        self.isolation = Isolation::Dedicated;
        self
    }

    /// Its entries go to the lanes of `pipeline`.
    pub fn on_pipeline(mut self, pipeline: &PipelineName) -> Self {
        self.pipeline = pipeline.clone();
        self
    }

    /// Its events are kept `hot_days` in the index and `total_days` elsewhere.
    pub fn kept(mut self, hot_days: i32, total_days: i32) -> Self {
        self.retention = Retention { hot_days, total_days };
        self
    }

    /// It may send so many events a second, and as many at once.
    pub fn limited(mut self, events_per_second: u64) -> Self {
        self.quotas.events = Some(Rate { per_second: events_per_second, burst: events_per_second });
        self
    }

    /// Its key may do only this.
    pub fn allowed(mut self, scopes: &[Scope]) -> Self {
        self.scopes = scopes.to_vec();
        self
    }

    /// Gives the tenant its place in every store, and a key.
    pub async fn provision(self, stores: &Stores) -> anyhow::Result<Tenant> {
        self.provision_by(&platform(stores).await?).await
    }

    /// Like [`provision`](Self::provision), with the clients of `platform`: for many tenants at once.
    pub async fn provision_by(self, platform: &provision::Stores) -> anyhow::Result<Tenant> {
        let tenant = unique(&self.prefix).parse()?;
        let owner = Owner { installation: INSTALLATION.to_owned(), tenant, uid: unique("uid") };
        let desired = DesiredTenant {
            archive: owner.tenant.archive(BucketLayout::PerTenant, "lh-test-"),
            owner,
            adopt: false,
            display_name: None,
            plan: "standard".to_owned(),
            quotas: self.quotas,
            state: self.state,
            pipeline: self.pipeline,
            isolation: self.isolation,
            retention: self.retention,
            confirmed_days: None,
        };
        let key = ApiKey::generate();
        let issued = IssuedKey::of(&key, &pepper(), "main", &self.scopes);
        provision::provision_tenant(platform, &desired, &[issued]).await?;
        let registered = platform.registry.get(desired.name()).await?.context("the registry has the tenant")?;
        Ok(Tenant { desired, registered, key: key.to_string(), scopes: self.scopes, stores: platform.clone() })
    }
}

/// The pepper of every key that [`TenantBuilder::provision`] issues.
pub fn pepper() -> Pepper {
    Pepper { id: PEPPER.0.to_owned(), bytes: PEPPER.1.as_bytes().to_vec() }
}

impl Stores {
    /// A folder with the tests' pepper, as LOGGERHUB_PEPPERS expects it.
    pub fn peppers(&self) -> anyhow::Result<PathBuf> {
        self.credentials("peppers", &[PEPPER])
    }

    /// PostgreSQL as the data plane sees it; makes databases and roles if they are not there.
    pub async fn as_data_role(&self) -> anyhow::Result<PostgresSettings> {
        platform(self).await?;
        self.postgres_as(crds::names::DATA_ROLE, role_passwords().await?.data.expose_secret())
    }

    /// PostgreSQL as `maintain` sees it; makes databases and roles if they are not there.
    pub async fn as_maintain_role(&self) -> anyhow::Result<PostgresSettings> {
        platform(self).await?;
        self.postgres_as(crds::names::MAINTAIN_ROLE, role_passwords().await?.maintain.expose_secret())
    }

    /// PostgreSQL as search sees it; makes databases and roles if they are not there.
    pub async fn as_search_role(&self) -> anyhow::Result<PostgresSettings> {
        platform(self).await?;
        self.postgres_as(crds::names::SEARCH_ROLE, role_passwords().await?.search.expose_secret())
    }
}

/// Provisioning's clients on `stores`, with databases and roles in place.
pub async fn platform(stores: &Stores) -> anyhow::Result<provision::Stores> {
    let options = runtime::stores::postgres_options(&stores.postgres, &stores.tls, "postgres", "loggerhub-test")?;
    let provisioning = provision::Stores {
        postgres: Postgres::new(options),
        object_store: ObjectStore::new(stores.s3()?),
        search: Search::new(stores.opensearch()?, INSTALLATION, Shape::default()),
        registry: signed(Registry::new(stores.queue()?.connection()?)).await?,
    };
    static BOOTSTRAPPED: OnceCell<()> = OnceCell::const_new();
    BOOTSTRAPPED
        .get_or_try_init(|| async {
            let passwords = role_passwords().await?;
            let bootstrap = || provisioning.postgres.bootstrap(&passwords);
            // Test programs that begin together wait for each other, for a bounded time.
            let made = match bootstrap().await {
                Err(_) => bootstrap().await,
                made => made,
            };
            made.context("make databases and roles")
        })
        .await?;
    Ok(provisioning)
}

/// The data plane's passwords. Where LoggerHub is installed on these stores they are the operator's,
/// because setting others would lock the installed data plane out.
pub async fn role_passwords() -> anyhow::Result<RolePasswords> {
    let installed = async |secret, fixed: &str| {
        let Ok(cluster) = Cluster::connect().await else { return Ok(fixed.into()) };
        match cluster.secret_value(&cluster.namespace, secret, "password").await {
            Ok(password) => Ok(password.into()),
            Err(error) if is_not_installed(&error) => Ok(fixed.into()),
            Err(error) => Err(error),
        }
    };
    Ok(RolePasswords {
        data: installed("loggerhub-postgres-data", "testdata").await?,
        maintain: installed("loggerhub-postgres-maintain", "testmaintain").await?,
        search: installed("loggerhub-postgres-search", "testsearch").await?,
    })
}

/// The keys that the installed operator signs the registry with, by id; none where LoggerHub is not installed.
pub async fn signing_keys() -> anyhow::Result<BTreeMap<String, ByteString>> {
    let Ok(cluster) = Cluster::connect().await else { return Ok(BTreeMap::new()) };
    let secret = registry_signing_secret("loggerhub");
    match cluster.ours::<Secret>().get(&secret).await {
        Ok(found) => Ok(found.data.unwrap_or_default()),
        Err(kube::Error::Api(status)) if !status.is_not_found() => Err(kube::Error::Api(status).into()),
        Err(_) => Ok(BTreeMap::new()),
    }
}

/// The registry, signed as the installed operator signs it: the installed data plane passes over other entries.
async fn signed(registry: Registry) -> anyhow::Result<Registry> {
    let keys = signing_keys().await?;
    let Some((id, key)) = keys.iter().max_by(|a, b| age_of(a.0).cmp(&age_of(b.0))) else { return Ok(registry) };
    let signer = SigningKey::from_pkcs8(id, &key.0)?;
    let accepted = [signer.public()].into_iter().collect();
    let signing = Signing { signer, accepted, in_force: false };
    // The sender is dropped: a receiver keeps the last value.
    Ok(registry.signed_by(watch::channel(Some(Arc::new(signing))).1))
}

/// No cluster answers, or it has no such Secret.
fn is_not_installed(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => status.is_not_found(),
        Some(_) => true,
        None => false,
    }
}
