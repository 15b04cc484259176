//! Tenants with events in the real stores, and the read side of the data plane in front of them.

use std::sync::Arc;

use anyhow::Context;
use aws_sdk_s3::config::retry::RetryConfig;
use crds::apikey::ApiKey;
use crds::names::PROCESSOR_DATABASE;
use crds::registry::RegistryKey;
use crds::tenant::Scope;
use dataplane::event::{Micros, micros, new_batch_id};
use dataplane::queue::entry::{BatchHeader, EventHeader, Header};
use dataplane::search::{self, Reader, Search};
use dataplane::stores::archive::Archive;
use dataplane::stores::batch::{Batch, Frame, Treatment, map};
use dataplane::stores::catalog::{Catalog, Provenance};
use dataplane::stores::index::Index;
use dataplane::stores::read;
use dataplane::tenancy::{Peppers, Registry, Tenant};
use opensearch::indices::IndicesRefreshParts;
use runtime::http::{Limits, serve};
use runtime::settings::OpenSearchSettings;
use sqlx::PgPool;
use testkit::Stores;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Connections to the catalog.
pub(crate) const CONNECTIONS: u32 = 4;

/// Tenants that share everything that tenants may share.
pub(crate) struct House {
    pub(crate) stores: Stores,
    pub(crate) registry: Registry,
    pub(crate) seats: Vec<Seat>,
    /// As the data plane's role.
    pub(crate) pool: PgPool,
}

/// One tenant.
pub(crate) struct Seat {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) key: String,
    /// A key that may manage and nothing else.
    pub(crate) admin: String,
    fixture: testkit::Tenant,
}

/// A router on a port of its own, until it is dropped.
pub(crate) struct Served {
    pub(crate) url: String,
    _stop: DropGuard,
}

impl House {
    /// Two tenants that send and read, and one that may only send. Each has a key to manage, too.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let stores = Stores::from_environment()?;
        let mut fixtures = Vec::new();
        // Nobody reads its lanes.
        let pipeline = testkit::unique("lane").parse()?;
        for name in ["read-a", "read-b"] {
            fixtures.push(testkit::Tenant::named(name).on_pipeline(&pipeline).provision(&stores).await?);
        }
        fixtures.push(testkit::Tenant::named("read-c").allowed(&[Scope::Ingest]).provision(&stores).await?);
        let peppers = Peppers::new([testkit::tenant::pepper()]).context("a pepper")?;
        let admins: Vec<ApiKey> = fixtures.iter().map(|_| ApiKey::generate()).collect();
        let registered = fixtures.iter().zip(&admins).map(|(fixture, admin)| {
            let mut registered = fixture.registered.clone();
            let pepper = testkit::tenant::pepper();
            registered.keys.push(RegistryKey {
                id: admin.id().to_owned(),
                name: "admin".into(),
                scopes: vec![Scope::Admin],
                digest: admin.digest(&pepper),
                pepper_id: pepper.id,
                expires_at: None,
            });
            registered
        });
        let registry = Registry::fixed(registered, peppers);
        let seat = |(fixture, admin): (testkit::Tenant, ApiKey)| -> anyhow::Result<Seat> {
            let tenant = registry.tenant(fixture.desired.name()).context("it was given")?;
            Ok(Seat { tenant, key: fixture.key.clone(), admin: admin.to_string(), fixture })
        };
        let seats = fixtures.into_iter().zip(admins).map(seat).collect::<anyhow::Result<_>>()?;
        let settings = stores.as_data_role().await?;
        let pool = runtime::stores::postgres(&settings, &stores.tls, PROCESSOR_DATABASE, "loggerhub-test")?;
        Ok(Self { stores, registry, seats, pool })
    }

    /// The role search over the real stores.
    pub(crate) async fn search(&self) -> anyhow::Result<Served> {
        self.search_with(&self.stores.opensearch).await
    }

    /// The role search, its OpenSearch being at a port where nothing listens.
    pub(crate) async fn search_without_index(&self) -> anyhow::Result<Served> {
        self.search_with(&nowhere().await?).await
    }

    /// The role search, OpenSearch and the object store being at ports where nothing listens.
    pub(crate) async fn search_without_index_and_archive(&self) -> anyhow::Result<Served> {
        let s3 = self.stores.s3()?.config().to_builder().endpoint_url(format!("http://{}", closed_port().await?));
        let s3 = s3.retry_config(RetryConfig::disabled()).build();
        self.search_by(&nowhere().await?, aws_sdk_s3::Client::from_conf(s3)).await
    }

    /// The role search, with this OpenSearch.
    pub(crate) async fn search_with(&self, opensearch: &OpenSearchSettings) -> anyhow::Result<Served> {
        self.search_by(opensearch, self.stores.s3()?).await
    }

    /// The role search, as its own login of PostgreSQL, with this OpenSearch and this client of the object store.
    pub(crate) async fn search_by(
        &self,
        opensearch: &OpenSearchSettings,
        s3: aws_sdk_s3::Client,
    ) -> anyhow::Result<Served> {
        self.search_from(self.reader(opensearch, s3).await?).await
    }

    /// The role search, which answers from this.
    pub(crate) async fn search_from(&self, reader: Reader) -> anyhow::Result<Served> {
        let limits = search::Limits::new(CONNECTIONS);
        Served::start(search::router(Search { registry: self.registry.clone(), reader, limits })).await
    }

    /// What the role search answers from.
    pub(crate) async fn reader(
        &self,
        opensearch: &OpenSearchSettings,
        s3: aws_sdk_s3::Client,
    ) -> anyhow::Result<Reader> {
        let settings = self.stores.as_search_role().await?;
        let pool = runtime::stores::postgres(&settings, &self.stores.tls, PROCESSOR_DATABASE, "loggerhub-test")?;
        Ok(Reader::new(
            read::Catalog::new(pool),
            read::Index::new(runtime::stores::opensearch(opensearch, &self.stores.tls)?),
            Archive::new(s3),
            search::Waiting::new(&self.stores.queue()?)?,
        ))
    }

    /// Stores lines as one batch of a tenant's, as the processor does.
    pub(crate) async fn store(&self, seat: &Seat, lines: &[String]) -> anyhow::Result<Stored> {
        self.store_accepted_at(seat, lines, now()).await
    }

    /// The same, as accepted at that time.
    pub(crate) async fn store_accepted_at(
        &self,
        seat: &Seat,
        lines: &[String],
        accepted_at: Micros,
    ) -> anyhow::Result<Stored> {
        let events = lines.iter().map(|line| EventHeader { length: line.len() as u32, time: None, rejected: None });
        let header = BatchHeader {
            batch_id: new_batch_id(),
            accepted_at,
            key_id: "testkey".into(),
            body_hash: None,
            events: events.collect(),
        };
        let batch_id = header.batch_id;
        let (header, raw) = (Header { batches: vec![header] }, lines.concat());
        let frame = Frame {
            header: postcard::to_stdvec(&header)?,
            payload: zstd::encode_all(raw.as_bytes(), 1)?,
            raw_bytes: raw.len() as u64,
            batches: map(&header, raw.as_bytes(), Treatment::Process),
        };
        let mut frames = [frame];
        let from = Provenance { pipeline: "default".into(), generation: 1 };
        let stored = Catalog::new(self.pool.clone()).store(&seat.tenant, &mut frames, &from).await?;
        let [frame] = frames;
        let index_name = stored.batches[&batch_id].index_name.clone();
        let batch = frame.batches.into_iter().next().context("one batch")?;
        Ok(Stored { batch, index_name, payload: frame.payload })
    }

    /// Indexes a stored batch, as the processor does, and makes it visible to searches.
    pub(crate) async fn index(&self, seat: &Seat, stored: &Stored) -> anyhow::Result<()> {
        let client = self.stores.opensearch()?;
        Index::new(client.clone()).create(&seat.tenant, &[(&stored.batch, &stored.index_name)]).await?;
        Catalog::new(self.pool.clone()).mark_indexed(&seat.tenant, &[stored.batch.batch_id]).await?;
        let alias = seat.tenant.name().index_alias();
        let (alias, indices) = ([alias.as_str()], client.indices());
        let refreshed = indices.refresh(IndicesRefreshParts::Index(&alias)).send().await?;
        testkit::stores::whole(refreshed).await?;
        Ok(())
    }

    /// Removes the tenants.
    pub(crate) async fn retire(self) -> anyhow::Result<()> {
        for seat in self.seats {
            seat.fixture.retire().await?;
        }
        Ok(())
    }
}

/// A batch that is in the catalog.
pub(crate) struct Stored {
    pub(crate) batch: Batch,
    pub(crate) index_name: String,
    /// Its raw lines, compressed.
    pub(crate) payload: Vec<u8>,
}

/// A key whose id is known and whose secret is not its own.
pub(crate) fn with_wrong_secret(key: &str) -> String {
    let last = if key.ends_with('x') { 'y' } else { 'x' };
    format!("{}{last}", &key[..key.len() - 1])
}

impl Stored {
    /// The id of its first event.
    pub(crate) fn first_event(&self) -> Uuid {
        self.batch.events[0].id
    }
}

impl Served {
    /// Serves a router as a role does.
    pub(crate) async fn start(router: axum::Router) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router, Limits::default(), stop.clone()));
        Ok(Self { url, _stop: stop.drop_guard() })
    }
}

/// An OpenSearch where nothing listens.
pub(crate) async fn nowhere() -> anyhow::Result<OpenSearchSettings> {
    let url = format!("http://{}", closed_port().await?).parse()?;
    Ok(OpenSearchSettings { url, opensearch_credentials: None })
}

/// An address where nothing listens.
pub(crate) async fn closed_port() -> anyhow::Result<std::net::SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?)
}

pub(crate) fn now() -> Micros {
    micros(time::OffsetDateTime::now_utc())
}
