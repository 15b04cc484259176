//! The role `maintain`: what is done behind the processors' backs, for every tenant, again and again.
//!
//! ```text
//!  each pass, where a look at all tenants finds any: dead letters again · spool ─► archive
//!  now and then, before:   partitions ahead · usage roll-up · what is expired
//!  beside it, in turns:    late index · indices of each series
//! ```
//! Every step may die anywhere and is then done again: it loses and doubles nothing.

mod archive;
mod catch_up;
mod due;
mod expire;
mod late_index;
mod lock;
mod pass;
mod rebuild;
mod redrive;
mod series;
mod usage;
pub mod tool;
mod verify;

#[cfg(test)]
pub(crate) use archive::choose;
pub use archive::{Archived, archive};
pub use expire::{Expired, expire, partitions};
pub use late_index::{LateIndexer, Turn, late_index};
pub use rebuild::{Rebuilt, rebuild};
pub use redrive::redrive;
pub use series::{Limits as SeriesLimits, maintain_all_series, maintain_series};
pub use usage::roll_up;
pub use verify::{Difference, Kind, Options as VerifyOptions, Repaired, Report, repair, verify};

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use crds::names::{CORE_DATABASE, PROCESSOR_DATABASE};
use runtime::http::serve;
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, OpenSearchSettings, PostgresSettings, QueueSettings, S3Settings, TlsSettings};
use runtime::stores::{self, Redis};
use tokio_util::sync::CancellationToken;

use crate::queue::{Lanes, Waiting};
use crate::status::{self, Status};
use crate::stores::archive::Archive;
use crate::stores::catalog::Catalog;
use crate::stores::index::Index;
use crate::stores::usage::Usage;
use crate::tenancy::{Registry, TrustSettings};

/// Where the stores are.
#[derive(Args, Clone, Debug)]
pub struct StoreSettings {
    /// Where PostgreSQL is.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// Where the registry is.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// Where the archive is.
    #[command(flatten)]
    pub s3: S3Settings,
    /// Where OpenSearch is.
    #[command(flatten)]
    pub opensearch: OpenSearchSettings,
    /// The certificates that stores are trusted by.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// What the registry is verified with.
    #[command(flatten)]
    pub trust: TrustSettings,
}

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where health, status and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// Where the stores are.
    #[command(flatten)]
    pub stores: StoreSettings,
    /// Seconds after which raw lines are archived even if they fill no object.
    #[arg(long, env = "LOGGERHUB_ARCHIVE_MAX_AGE_SECONDS", default_value_t = 300)]
    pub archive_max_age_seconds: u64,
    /// Bytes of an index after which its series goes on with the next.
    #[arg(long, env = "LOGGERHUB_INDEX_MAX_BYTES", default_value_t = 20 * 1024 * 1024 * 1024)]
    pub index_max_bytes: u64,
    /// Documents of an index after which its series goes on with the next: a fortieth of what
    /// one shard can hold.
    #[arg(long, env = "LOGGERHUB_INDEX_MAX_DOCUMENTS", default_value_t = 50_000_000)]
    pub index_max_documents: u64,
}

/// Everything that a pass works with. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    /// The catalog, as the role that may make partitions.
    pub catalog: Catalog,
    /// What bills are made from.
    pub usage: Usage,
    /// The index.
    pub index: Index,
    /// The archive.
    pub archive: Archive,
    /// What waits in the queue.
    pub waiting: Waiting,
}

/// Why a step did not end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog.
    #[error("the catalog")]
    Catalog(#[from] crate::stores::catalog::Error),
    /// The index.
    #[error("the index")]
    Index(#[from] crate::stores::index::Error),
    /// The archive.
    #[error("the archive")]
    Archive(#[from] crate::stores::archive::Error),
    /// A writer of the ledger did not end.
    #[error("somebody has been writing to the ledger for seconds: it is counted in the next round")]
    Writers,
    /// Somebody else is at the tenant.
    #[error("`maintain`, a repair or a rebuild is at this tenant: try again in a minute")]
    Busy,
    /// The catalog is not empty.
    #[error("the catalog holds something of this tenant: add --into-existing to restore what it lacks")]
    NotEmpty,
    /// Lines could not be mapped.
    #[error("map raw lines: {0}")]
    Mapping(String),
    /// A spool row is not what a processor wrote.
    #[error("spool row {spool_id} can't be read: {reason}")]
    Spool {
        /// The row.
        spool_id: i64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Application name of the sessions in PostgreSQL.
const APPLICATION: &str = "loggerhub-maintain";

/// Runs until `stop`; a step that has begun is finished.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = settings.admin.bind().await?;
    let redis = Redis::queue(&settings.stores.queue, &settings.stores.tls)?;
    let registry = Registry::follow(&redis, &settings.stores.trust, stop.clone())?;
    let metrics = Metrics::default();
    let measures = pass::Measures::register(&metrics);
    let lanes = Lanes::new(&redis)?;
    let router = status::routes(Status::new(registry.clone()).with_queue(lanes), metrics);
    let server = tokio::spawn(serve(listener, router, runtime::http::Limits::admin(), stop.clone()));

    let catch_up = catch_up::CatchUp {
        // Connections of its own, so that neither waits for the other's.
        indexer: LateIndexer::new(Rooms::new(&settings.stores)?),
        registry: registry.clone(),
        measures: measures.clone(),
    };
    let passes = pass::Passes::new(
        Rooms::new(&settings.stores)?,
        registry,
        measures,
        Duration::from_secs(settings.archive_max_age_seconds),
        SeriesLimits { bytes: settings.index_max_bytes, documents: settings.index_max_documents },
    );
    tokio::join!(passes.run(stop.clone()), catch_up.run(stop));
    server.await.context("serve status")?;
    Ok(())
}

/// Passes over the tenants of this registry until `stop`, with none of what [`run`] does beside them: for tests.
pub async fn pass_over(rooms: Rooms, registry: Registry, archive_max_age: Duration, stop: CancellationToken) {
    let measures = pass::Measures::register(&Metrics::default());
    let series = SeriesLimits { bytes: u64::MAX, documents: u64::MAX };
    registry.loaded().await;
    // Indices of other tests' tenants are not looked after: to some of them, today is another day.
    pass::Passes::new(rooms, registry, measures, archive_max_age, series).pass_over_tenants(&stop).await;
}

impl Rooms {
    /// The rooms that these settings lead to.
    pub fn new(settings: &StoreSettings) -> Result<Self, stores::Error> {
        let StoreSettings { postgres, s3, opensearch, queue, tls, .. } = settings;
        let pool = |database| stores::postgres(postgres, tls, database, APPLICATION);
        Ok(Self {
            catalog: Catalog::new(pool(PROCESSOR_DATABASE)?),
            usage: Usage::new(pool(CORE_DATABASE)?),
            index: Index::new(stores::opensearch(opensearch, tls)?),
            archive: Archive::new(stores::s3(s3, tls)?),
            waiting: Waiting::new(&Redis::queue(queue, tls)?)?,
        })
    }
}
