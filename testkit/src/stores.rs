//! The four stores (five servers) that tests run against, as runtime settings and as clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use opensearch::CountParts;
use opensearch::indices::IndicesRefreshParts;
use runtime::settings::{
    CacheSettings, OpenSearchSettings, PostgresSettings, QueueSettings, S3Settings, SslMode, TlsSettings,
};
use runtime::stores::{self, Redis};
use sqlx::PgPool;
use url::Url;

use crate::environment::variable;
use crate::eventually;

pub mod control;

/// Where an instance's stores speak TLS, as in `dev/lib/stores/tls.sh`.
const QUEUE_TLS_PORT: u16 = 6479;
const CACHE_TLS_PORT: u16 = 6480;
const S3_TLS_PORT: u16 = 9443;
const OPENSEARCH_TLS_PORT: u16 = 9643;

/// Longest wait for a shard on a busy machine.
const SHARDS_ANSWER: Duration = Duration::from_secs(60);

/// Every store of the instance that the environment names. Cheap to clone; the folder with the
/// credentials goes with the last clone.
#[derive(Clone, Debug)]
pub struct Stores {
    /// PostgreSQL, as its administrator.
    pub postgres: PostgresSettings,
    /// The queue's Redis.
    pub queue: QueueSettings,
    /// The Redis of cache and live tail.
    pub cache: CacheSettings,
    /// The object store.
    pub s3: S3Settings,
    /// OpenSearch.
    pub opensearch: OpenSearchSettings,
    /// The CA bundle; none unless [`Stores::over_tls`].
    pub tls: TlsSettings,
    folder: Arc<Folder>,
}

impl Stores {
    /// Reads DATABASE_URL, REDIS_URL, REDIS_CACHE_URL, S3_ENDPOINT, AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION and OPENSEARCH_URL.
    pub fn from_environment() -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let database = url("DATABASE_URL")?;
        let postgres = PostgresSettings {
            host: database.host_str().context("DATABASE_URL has no host")?.to_owned(),
            port: database.port().unwrap_or(5432),
            ssl_mode: SslMode::Prefer,
            credentials: folder
                .write("postgres", &[("username", database.username()), ("password", password(&database)?)])?,
            max_connections: 4,
        };
        let id = variable("AWS_ACCESS_KEY_ID")?;
        let secret = variable("AWS_SECRET_ACCESS_KEY")?;
        let s3 = S3Settings {
            endpoint: variable("S3_ENDPOINT")?,
            region: variable("AWS_REGION")?,
            s3_credentials: folder.write("s3", &[("accessKeyId", &id), ("secretAccessKey", &secret)])?,
        };
        let (queue_url, queue_credentials) = redis("REDIS_URL", "redis-queue", &folder)?;
        let (cache_url, cache_credentials) = redis("REDIS_CACHE_URL", "redis-cache", &folder)?;
        Ok(Self {
            postgres,
            queue: QueueSettings { queue_url, queue_credentials: Some(queue_credentials) },
            cache: CacheSettings { cache_url, cache_credentials: Some(cache_credentials) },
            s3,
            opensearch: OpenSearchSettings { url: url("OPENSEARCH_URL")?, opensearch_credentials: None },
            tls: TlsSettings::default(),
            folder: Arc::new(folder),
        })
    }

    /// The same stores at their TLS ports, trusted by the CA that LOGGERHUB_STORES_CA names, host
    /// names checked.
    pub fn over_tls(&self) -> anyhow::Result<Self> {
        let url = |url: &str, scheme: &str, port: u16| -> anyhow::Result<Url> {
            let host = Url::parse(url)?.host_str().context("a store's URL has no host")?.to_owned();
            Ok(Url::parse(&format!("{scheme}://{host}:{port}"))?)
        };
        Ok(Self {
            postgres: PostgresSettings { ssl_mode: SslMode::VerifyFull, ..self.postgres.clone() },
            queue: QueueSettings {
                queue_url: url(&self.queue.queue_url, "rediss", QUEUE_TLS_PORT)?.into(),
                ..self.queue.clone()
            },
            cache: CacheSettings {
                cache_url: url(&self.cache.cache_url, "rediss", CACHE_TLS_PORT)?.into(),
                ..self.cache.clone()
            },
            s3: S3Settings { endpoint: url(&self.s3.endpoint, "https", S3_TLS_PORT)?.into(), ..self.s3.clone() },
            opensearch: OpenSearchSettings {
                url: url(self.opensearch.url.as_str(), "https", OPENSEARCH_TLS_PORT)?,
                ..self.opensearch.clone()
            },
            tls: TlsSettings { ca_bundle: Some(variable("LOGGERHUB_STORES_CA")?.into()) },
            folder: Arc::clone(&self.folder),
        })
    }

    /// A pool on `database`, as PostgreSQL's administrator.
    pub fn postgres(&self, database: &str) -> anyhow::Result<PgPool> {
        Ok(stores::postgres(&self.postgres, &self.tls, database, "loggerhub-test")?)
    }

    /// Settings that log in to PostgreSQL as somebody else, such as the data plane's role.
    pub fn postgres_as(&self, username: &str, password: &str) -> anyhow::Result<PostgresSettings> {
        let folder = self.folder.write(username, &[("username", username), ("password", password)])?;
        Ok(PostgresSettings { credentials: folder, ..self.postgres.clone() })
    }

    /// The queue's Redis.
    pub fn queue(&self) -> anyhow::Result<Redis> {
        Ok(Redis::queue(&self.queue, &self.tls)?)
    }

    /// The Redis of cache and live tail.
    pub fn cache(&self) -> anyhow::Result<Redis> {
        Ok(Redis::cache(&self.cache, &self.tls)?)
    }

    /// A client of the object store.
    pub fn s3(&self) -> anyhow::Result<aws_sdk_s3::Client> {
        Ok(stores::s3(&self.s3, &self.tls)?)
    }

    /// A client of OpenSearch.
    pub fn opensearch(&self) -> anyhow::Result<opensearch::OpenSearch> {
        Ok(stores::opensearch(&self.opensearch, &self.tls)?)
    }

    /// Documents that are found under an index or alias, 0 where there is none. A shard that has
    /// just been made may not answer yet: what it holds would be missing, so this waits for all.
    pub async fn documents(&self, index: &str) -> anyhow::Result<i64> {
        let (client, names) = (self.opensearch()?, [index]);
        eventually("every shard answers", SHARDS_ANSWER, async || {
            let refresh = IndicesRefreshParts::Index(&names);
            whole(client.indices().refresh(refresh).ignore_unavailable(true).send().await?).await?;
            let count = client.count(CountParts::Index(&names)).ignore_unavailable(true);
            let answer = whole(count.send().await?).await?;
            answer["count"].as_i64().with_context(|| format!("no count in {answer}"))
        })
        .await
    }

    /// Where they are, as programs are told by their environment.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let folder = |folder: &Path| folder.display().to_string();
        let Self { postgres, queue, cache, s3, opensearch, .. } = self;
        let mut variables = vec![
            ("LOGGERHUB_POSTGRES_HOST", postgres.host.clone()),
            ("LOGGERHUB_POSTGRES_PORT", postgres.port.to_string()),
            ("LOGGERHUB_POSTGRES_CREDENTIALS", folder(&postgres.credentials)),
            ("LOGGERHUB_REDIS_QUEUE_URL", queue.queue_url.clone()),
            ("LOGGERHUB_REDIS_CACHE_URL", cache.cache_url.clone()),
            ("LOGGERHUB_S3_ENDPOINT", s3.endpoint.clone()),
            ("LOGGERHUB_S3_REGION", s3.region.clone()),
            ("LOGGERHUB_S3_CREDENTIALS", folder(&s3.s3_credentials)),
            ("LOGGERHUB_OPENSEARCH_URL", opensearch.url.to_string()),
        ];
        for (name, credentials) in [
            ("LOGGERHUB_REDIS_QUEUE_CREDENTIALS", &queue.queue_credentials),
            ("LOGGERHUB_REDIS_CACHE_CREDENTIALS", &cache.cache_credentials),
        ] {
            variables.extend(credentials.as_deref().map(|credentials| (name, folder(credentials))));
        }
        variables
    }

    /// A folder of credentials, as a mounted Secret would be: one file for each pair.
    pub fn credentials(&self, name: &str, files: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        self.folder.write(name, files)
    }
}

/// What OpenSearch answered, if every shard took part.
pub async fn whole(response: opensearch::http::response::Response) -> anyhow::Result<serde_json::Value> {
    let answer: serde_json::Value = response.error_for_status_code()?.json().await?;
    every_shard(&answer)?;
    Ok(answer)
}

/// Whether every shard took part in an answer. One without a copy that works does not count as failed.
pub fn every_shard(answer: &serde_json::Value) -> anyhow::Result<()> {
    let shards = &answer["_shards"];
    ensure!(shards["failed"] == 0 && shards["successful"] == shards["total"], "shards are missing: {shards}");
    Ok(())
}

fn url(name: &str) -> anyhow::Result<Url> {
    variable(name)?.parse().with_context(|| format!("{name} is not a URL"))
}

/// Generated passwords are plain text: one that a URL would have to escape is refused, not decoded.
fn password(url: &Url) -> anyhow::Result<&str> {
    let password = url.password().unwrap_or_default();
    ensure!(!password.contains('%'), "a password in a URL may hold no escaped character here");
    Ok(password)
}

/// A Redis address without its credentials, and the folder that holds them.
fn redis(variable: &str, name: &str, folder: &Folder) -> anyhow::Result<(String, PathBuf)> {
    let mut url = url(variable)?;
    let credentials = folder.write(name, &[("password", password(&url)?)])?;
    let bare = url.set_username("").and_then(|()| url.set_password(None));
    ensure!(bare.is_ok(), "{variable} has no host");
    Ok((url.into(), credentials))
}

/// A private folder for credentials, removed when it is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(crate::unique("loggerhub-test"));
        private_folder(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, files: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let folder = self.0.join(name);
        private_folder(&folder)?;
        for (file, text) in files {
            fs::write(folder.join(file), text).with_context(|| format!("write credential {name}/{file}"))?;
        }
        Ok(folder)
    }
}

fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make the folder {}", path.display()))
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "remove {}", self.0.display());
        }
    }
}
