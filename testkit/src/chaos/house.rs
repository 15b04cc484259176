//! One fault's own data plane: tenants, a Redis, a proxy before each store, and the roles as child
//! processes. Two houses share nothing but the servers behind the proxies.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use crds::PipelineName;
use crds::tenant::Backends;
use dataplane::queue::Lanes;
use futures::future::try_join_all;
use runtime::settings::PostgresSettings;

use super::children::{Child, Spec};
use super::proxy::{Mode, Proxy};
use super::redis_server::RedisServer;
use super::requests::Dice;
use crate::ledger::contents::Contents;
use crate::ledger::{Holdings, Journal};
use crate::stores::Stores;
use crate::{Tenant, eventually, free_address};

/// Variables of a child's environment.
pub type Variables = Vec<(String, String)>;
/// What is added to the environment of each of a child's first lives, by the child's name.
pub type Lives = Vec<(&'static str, Vec<Variables>)>;

/// Longest wait for the roles to be ready: milliseconds each, on an idle machine.
const READY: Duration = Duration::from_secs(60);
/// Longest wait for everything to be stored, indexed and archived once the fault is over: an
/// outage of the index takes 15 s to be made up for, and the longest pause of a retry is 5 s. The
/// rest is for a machine on which OpenSearch takes seconds for a request.
const QUIET: Duration = Duration::from_secs(240);

/// What a house is built from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program whose roles run.
    pub program: PathBuf,
    /// Where logs and ledgers go.
    pub folder: PathBuf,
    /// Where all chance comes from.
    pub seed: u64,
    /// What is added to the environment of a child's first lives, by its name.
    pub lives: Lives,
    /// Events of one flush of `process`: small, so that there are many.
    pub flush_events: u32,
    /// Whether its Redis writes to a disk of its own that can be filled.
    pub small_disk: bool,
}

/// A proxy before each store.
pub struct Proxies {
    /// PostgreSQL.
    pub postgres: Proxy,
    /// The queue's Redis.
    pub redis: Proxy,
    /// The object store.
    pub minio: Proxy,
    /// OpenSearch.
    pub opensearch: Proxy,
}

/// The house.
pub struct House {
    /// The servers, with the house's own Redis as the queue.
    pub stores: Stores,
    /// The house's own Redis.
    pub redis: RedisServer,
    /// What stands before the servers.
    pub proxies: Proxies,
    /// The tenants that send.
    pub tenants: Vec<Tenant>,
    /// The running roles.
    pub children: Vec<Child>,
    /// Where each `ingest` listens.
    pub ingest: Vec<String>,
    /// Where each of them says whether it is ready.
    ready: Vec<String>,
    /// The lanes that the roles work on.
    pub pipeline: PipelineName,
    /// The ledger.
    pub journal: Journal,
    /// The run's seed.
    pub seed: u64,
    folder: PathBuf,
}

/// Roles that run, with how many of each.
const ROLES: [(&str, usize); 3] = [("ingest", 2), ("process", 2), ("maintain", 1)];

impl House {
    /// Builds it, and waits until it takes logs.
    pub async fn build(plan: Plan) -> anyhow::Result<Self> {
        fs::create_dir_all(&plan.folder).with_context(|| format!("make {}", plan.folder.display()))?;
        let mut stores = Stores::from_environment()?;
        let redis = RedisServer::start(&plan.folder.join("redis"), plan.small_disk).await?;
        stores.queue = redis.settings();
        let proxies = Proxies::start(&stores, &redis).await?;
        let pipeline: PipelineName = crate::unique("chaos").parse()?;
        let tenants = try_join_all([
            Tenant::named("chaos").dedicated().on_pipeline(&pipeline).provision(&stores),
            Tenant::named("chaos").on_pipeline(&pipeline).provision(&stores),
        ])
        .await?;
        let mut house = Self {
            journal: Journal::create(&plan.folder.join("ledger.jsonl"))?,
            stores,
            redis,
            proxies,
            tenants,
            children: Vec::new(),
            ingest: Vec::new(),
            ready: Vec::new(),
            pipeline,
            seed: plan.seed,
            folder: plan.folder.clone(),
        };
        house.start_roles(&plan).await?;
        house.ready().await?;
        Ok(house)
    }

    async fn start_roles(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let (data, maintain) = (self.stores.as_data_role().await?, self.stores.as_maintain_role().await?);
        for (role, count) in ROLES {
            for number in 0..count {
                let name = format!("{role}-{number}");
                let listen = free_address()?;
                let admin = free_address()?;
                if role == "ingest" {
                    self.ingest.push(format!("http://{listen}"));
                    self.ready.push(format!("http://{admin}/ready"));
                }
                let mut environment = self.environment(if role == "maintain" { &maintain } else { &data })?;
                for (variable, value) in [
                    ("LOGGERHUB_LISTEN", listen.to_string()),
                    ("LOGGERHUB_ADMIN_LISTEN", admin.to_string()),
                    ("LOGGERHUB_CONSUMER", name.clone()),
                    ("LOGGERHUB_BATCH_MAX_EVENTS", plan.flush_events.to_string()),
                ] {
                    environment.push((variable.to_owned(), value));
                }
                let lives = plan.lives.iter().find(|(child, _)| *child == name).map(|(_, lives)| lives.clone());
                let program = super::children::program(&plan.program)?;
                let spec = Spec { name, program, role, environment, lives: lives.unwrap_or_default() };
                self.children.push(Child::start(spec, &self.folder)?);
            }
        }
        Ok(())
    }

    /// What every role is told; each takes what it needs.
    fn environment(&self, postgres: &PostgresSettings) -> anyhow::Result<Vec<(String, String)>> {
        let path = |path: &Path| path.display().to_string();
        let cache_credentials = self.stores.cache.cache_credentials.as_deref().map(path).unwrap_or_default();
        let variables = [
            ("PATH", crate::environment::variable("PATH")?),
            ("LOGGERHUB_LOG_FORMAT", "text".to_owned()),
            ("LOGGERHUB_PIPELINE", self.pipeline.to_string()),
            ("LOGGERHUB_CLAIM_IDLE_SECONDS", "1".to_owned()),
            ("LOGGERHUB_ARCHIVE_MAX_AGE_SECONDS", "1".to_owned()),
            ("LOGGERHUB_PEPPERS", path(&self.stores.peppers()?)),
            ("LOGGERHUB_POSTGRES_HOST", "127.0.0.1".to_owned()),
            ("LOGGERHUB_POSTGRES_PORT", self.proxies.postgres.address.port().to_string()),
            ("LOGGERHUB_POSTGRES_SSL_MODE", "disable".to_owned()),
            ("LOGGERHUB_POSTGRES_CREDENTIALS", path(&postgres.credentials)),
            ("LOGGERHUB_REDIS_QUEUE_URL", format!("redis://{}", self.proxies.redis.address)),
            ("LOGGERHUB_REDIS_CACHE_URL", self.stores.cache.cache_url.clone()),
            ("LOGGERHUB_REDIS_CACHE_CREDENTIALS", cache_credentials),
            ("LOGGERHUB_S3_ENDPOINT", format!("http://{}", self.proxies.minio.address)),
            ("LOGGERHUB_S3_REGION", self.stores.s3.region.clone()),
            ("LOGGERHUB_S3_CREDENTIALS", path(&self.stores.s3.s3_credentials)),
            ("LOGGERHUB_OPENSEARCH_URL", format!("http://{}", self.proxies.opensearch.address)),
        ];
        Ok(variables.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// Waits until every `ingest` takes logs.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        for url in &self.ready {
            eventually(&format!("{url} says so"), READY, || async {
                let answer = client.get(url).send().await?;
                ensure!(answer.status().is_success(), "{}", answer.status());
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Another Redis, empty, that nobody uses yet.
    pub async fn another_redis(&self) -> anyhow::Result<RedisServer> {
        RedisServer::start(&self.folder.join("another-redis"), false).await
    }

    /// The child of that name.
    pub fn child(&self, name: &str) -> anyhow::Result<&Child> {
        self.children.iter().find(|child| child.name == name).with_context(|| format!("no child {name}"))
    }

    /// Dice of this run, for a purpose of their own.
    pub fn dice(&self, purpose: u64) -> Dice {
        Dice::new(self.seed ^ purpose.wrapping_mul(0x9e37_79b9))
    }

    /// The tenants' names.
    pub fn names(&self) -> Vec<String> {
        self.tenants.iter().map(|tenant| tenant.desired.name().to_string()).collect()
    }

    /// Lets everything pass again, whatever a fault left behind.
    pub async fn mend(&self) -> anyhow::Result<()> {
        let Proxies { postgres, redis, minio, opensearch } = &self.proxies;
        [postgres, redis, minio, opensearch].iter().for_each(|proxy| proxy.set(Mode::Pass));
        for child in &self.children {
            child.signal("CONT").await?;
        }
        if self.redis.command::<String>(&["PING"]).await.is_err() {
            self.redis.restart().await?;
        }
        Ok(())
    }

    /// Waits until the queue is empty: nothing waits, nothing is handed out, nothing is counted.
    pub async fn drained(&self) -> anyhow::Result<()> {
        eventually("the queue is empty", QUIET, || async {
            let lanes = Lanes::new(&self.stores.queue()?)?;
            for lane in lanes.status(std::slice::from_ref(&self.pipeline), 0).await? {
                let left = (lane.entries, lane.pending, lane.events, lane.bytes);
                ensure!(left == (0, 0, 0, 0), "entries, pending, events, bytes of {}: {left:?}", lane.stream);
            }
            Ok(())
        })
        .await
    }

    /// Waits until everything stored is indexed and archived.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let pool = self.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
        for tenant in &self.tenants {
            let schema = tenant.desired.name().database_schema();
            eventually(&format!("everything of {schema} is indexed and archived"), QUIET, || async {
                let sql = format!(
                    "SELECT (SELECT count(*) FROM {schema}.batches WHERE indexed_at IS NULL),
                            (SELECT count(*) FROM {schema}.spool), (SELECT count(*) FROM {schema}.archiving)"
                );
                let left: (i64, i64, i64) = sqlx::query_as(&sql).fetch_one(&pool).await?;
                ensure!(left == (0, 0, 0), "not indexed, spooled, noted: {left:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// What the stores hold of each tenant, with its name.
    pub async fn contents(&self) -> anyhow::Result<Vec<(String, Contents)>> {
        let mut contents = Vec::new();
        for tenant in &self.tenants {
            let name = tenant.desired.name();
            let backends = Backends {
                database_schema: name.database_schema(),
                bucket: tenant.desired.archive.bucket.clone(),
                prefix: tenant.desired.archive.prefix.clone(),
                index_alias: name.index_alias(),
            };
            contents.push((name.to_string(), Holdings::new(&self.stores, &backends)?.contents().await?));
        }
        Ok(contents)
    }

    /// Ends the roles and removes the tenants with their data. Logs and ledger stay.
    pub async fn pull_down(self) -> anyhow::Result<()> {
        for child in self.children {
            child.end().await?;
        }
        for tenant in self.tenants {
            tenant.retire().await?;
        }
        self.redis.kill().await
    }
}

impl Proxies {
    async fn start(stores: &Stores, redis: &RedisServer) -> anyhow::Result<Self> {
        let authority = |url: &str| -> anyhow::Result<String> {
            let url: url::Url = url.parse()?;
            let host = url.host_str().with_context(|| format!("{url} has no host"))?;
            let port = url.port_or_known_default().with_context(|| format!("{url} has no port"))?;
            Ok(format!("{host}:{port}"))
        };
        Ok(Self {
            postgres: Proxy::start(format!("{}:{}", stores.postgres.host, stores.postgres.port)).await?,
            redis: Proxy::start(format!("127.0.0.1:{}", redis.port)).await?,
            minio: Proxy::start(authority(&stores.s3.endpoint)?).await?,
            opensearch: Proxy::start(authority(stores.opensearch.url.as_str())?).await?,
        })
    }
}
