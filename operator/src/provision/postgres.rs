//! PostgreSQL: the three databases with their roles, the registry of tenants and keys, and each
//! tenant's schema.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use runtime::stores::postgres_pool;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool};

use crds::names::{CORE_DATABASE, POOL_TENANTS, PROCESSOR_DATABASE};

use crate::provision::Error;
use crate::provision::error::PostgresContext;

mod bootstrap;
mod installations;
mod scram;
mod lock;
mod schema;
mod series;
mod tenants;
mod usage;
mod keys;

pub use bootstrap::RolePasswords;
pub use installations::{Claim, Missing};
pub use keys::IssuedKeyRow;
pub use lock::HeldTenant;
pub use tenants::{RowState, TenantRow};

/// Connections to each database. Ten reconciliations at once use one at a time, and hold another while
/// they ask OpenSearch; PostgreSQL's default limit is 100 for everybody.
const CONNECTIONS: u32 = 20;
/// Silence within a transaction after which PostgreSQL ends it, with its locks: an operator that stands
/// still, or whose machine is gone. Below the 15 s after which another one leads.
const SILENCE: (&str, &str) = ("idle_in_transaction_session_timeout", "10s");

/// All databases, as their administrator.
#[derive(Clone)]
pub struct Postgres {
    /// How to reach the server; the database is replaced.
    options: PgConnectOptions,
    /// One connection for [`Self::ping`], so that busy pools do not look like a server that is down; to a
    /// database that is always there.
    pings: PgPool,
    /// `loggerhub_core_db`.
    core: PgPool,
    /// `loggerhub_processor_db`.
    processor: PgPool,
    /// `loggerhub_core_db` again, for the tenants' locks: they wait for nothing that the others hold.
    locks: PgPool,
    /// Most tenants that share the indices of one pool.
    pool_tenants: u32,
    /// Installation and cluster that it is bound to, once that is known.
    bound: Arc<OnceLock<(String, String)>>,
    /// Cluster that has taken it over, as PostgreSQL said last.
    taken_by: Arc<Mutex<Option<String>>>,
}

impl Postgres {
    /// Lazy pools: nothing connects yet. `options` names an administrator: one who may create
    /// databases and roles. Its database does not matter.
    pub fn new(options: PgConnectOptions) -> Self {
        // A lock that somebody holds must not hang a reconciliation: the next one tries again.
        let options = options.options([("lock_timeout", "10s"), ("statement_timeout", "60s"), SILENCE]);
        let pool = |database: &str, connections: u32| {
            postgres_pool(connections)
                .idle_timeout(Duration::from_secs(600))
                .connect_lazy_with(options.clone().database(database))
        };
        let (core, processor) = (pool(CORE_DATABASE, CONNECTIONS), pool(PROCESSOR_DATABASE, CONNECTIONS));
        let (locks, pings) = (pool(CORE_DATABASE, CONNECTIONS), pool("postgres", 1));
        Self {
            options,
            pings,
            core,
            processor,
            locks,
            pool_tenants: POOL_TENANTS,
            bound: Arc::default(),
            taken_by: Arc::default(),
        }
    }

    /// The same, but new tenants share the indices of a pool with fewer than so many others.
    pub fn with_pools_of(mut self, tenants: u32) -> Self {
        self.pool_tenants = tenants;
        self
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.pings.acquire().await.doing("connect")?;
        connection.ping().await.doing("ask a connection for a sign of life")
    }

    /// The pool of `loggerhub_core_db`.
    pub fn core(&self) -> &PgPool {
        &self.core
    }

    /// The pool of `loggerhub_processor_db`.
    pub fn processor(&self) -> &PgPool {
        &self.processor
    }
}
