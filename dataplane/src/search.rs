//! The role `search`: lists, searches, and shows events, batches and dead letters of the tenant that
//! asks. Of dead letters it also takes down which are to be tried again, and which are to go.
//!
//! ```text
//!  params ─► Page ─┬─ list ───► catalog ───────────────────────────► rows
//!                  └─ search ─┬► index ─────────────── ids ─┐
//!                             └► what it lacks: raw lines ──┴► catalog ─► rows
//!  id ───────────────────────► catalog ─ row ─► index, spool or archive ─► event
//! ```
//! Every answer names its `source`, and says whether it is `complete`.

mod limits;
mod coverage;
mod waiting;
pub mod show;
mod letters;
mod usage;
mod loki;
mod reader;
mod find;
mod scan;
mod whole;
mod context;
mod export;
mod stored;
mod error;
mod routes;

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use clap::Args;
use crds::names::PROCESSOR_DATABASE;
use runtime::headers::guarded;
use runtime::http::{Limits as ServerLimits, serve};
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, OpenSearchSettings, PostgresSettings, QueueSettings, S3Settings, TlsSettings};
use runtime::stores::{self, Redis};
use runtime::traces::traced;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::status::{self, Status};
use crate::stores::archive::Archive;
use crate::stores::read::{Catalog, Index};
use crate::tenancy::{Registry, RegistrySettings};

pub use error::Error;
pub use limits::Limits;
pub use reader::{Counts, Reader, Surety};
pub use waiting::Waiting;
pub use whole::WholeEvent;

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    #[arg(long, env = "LOGGERHUB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where health, status and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
    #[command(flatten)]
    pub registry: RegistrySettings,
    #[command(flatten)]
    pub queue: QueueSettings,
    #[command(flatten)]
    pub postgres: PostgresSettings,
    #[command(flatten)]
    pub opensearch: OpenSearchSettings,
    #[command(flatten)]
    pub s3: S3Settings,
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// What the routes answer with. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    /// Who asks.
    pub registry: Registry,
    /// What there is to read.
    pub reader: Reader,
    /// Each tenant's share of it.
    pub limits: Limits,
}

/// Runs until `stop`.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let queue = Redis::queue(&settings.queue, &settings.tls)?;
    let registry = Registry::check_keys(&queue, &settings.registry, stop.clone())?;
    let pool = stores::postgres(&settings.postgres, &settings.tls, PROCESSOR_DATABASE, "loggerhub-search")?;
    let reader = Reader::new(
        Catalog::new(pool),
        Index::new(stores::opensearch(&settings.opensearch, &settings.tls)?),
        Archive::new(stores::s3(&settings.s3, &settings.tls)?),
        Waiting::new(&queue)?,
    );
    let status = Status::new(registry.clone());
    let metrics = Metrics::default();
    let limits = Limits::new(settings.postgres.max_connections);
    let router = traced(status::measured(router(Search { registry, reader, limits }), &metrics));
    let admin =
        serve(settings.admin.bind().await?, status::routes(status, metrics), ServerLimits::admin(), stop.clone());
    let listener = TcpListener::bind(settings.listen).await.context("listen")?;
    tracing::info!(listen = %settings.listen, "search answers on {}", settings.listen);
    tokio::join!(serve(listener, router, ServerLimits::default(), stop), admin);
    Ok(())
}

/// The role's routes, without those that every role has.
pub fn router(search: Search) -> Router {
    guarded(routes::router(search))
}
