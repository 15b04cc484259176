//! The cache's Redis for what may as well be left out: asked with little patience, and left alone
//! for a moment after it failed, so that nobody waits for it.

mod fates;

pub use fates::Fate;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use redis::{FromRedisValue, Pipeline};
use runtime::logging::chain;
use runtime::settings::{CacheSettings, TlsSettings};
use runtime::stores::{Connection, Redis};

/// Where the cache is, for a role that can do without.
#[derive(Args, Clone, Debug, Default)]
pub struct OptionalCacheSettings {
    /// URL of the cache's Redis: redis:// or rediss://. Without it, what it is good for is left out.
    #[arg(long = "redis-cache-url", env = "LOGGERHUB_REDIS_CACHE_URL")]
    pub cache_url: Option<String>,
    /// Folder with the file `password` and, optionally, `username`.
    #[arg(long = "redis-cache-credentials", env = "LOGGERHUB_REDIS_CACHE_CREDENTIALS")]
    pub cache_credentials: Option<PathBuf>,
}

impl OptionalCacheSettings {
    /// The cache, if there is one.
    pub fn connect(&self, tls: &TlsSettings) -> Result<Option<Cache>, runtime::stores::Error> {
        let Some(cache_url) = self.cache_url.clone() else { return Ok(None) };
        let settings = CacheSettings { cache_url, cache_credentials: self.cache_credentials.clone() };
        Cache::new(&Redis::cache(&settings, tls)?).map(Some)
    }
}

/// Longest wait for an answer: a hundred times what one takes.
const TIMEOUT: Duration = Duration::from_millis(100);
/// How long the cache is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    connection: Connection,
    paused_until: Arc<Mutex<Option<Instant>>>,
}

impl Cache {
    /// On this Redis.
    pub fn new(redis: &Redis) -> Result<Self, runtime::stores::Error> {
        Ok(Self { connection: redis.connection()?, paused_until: Arc::default() })
    }

    /// What the cache answers; `None` if it does not, or not now.
    pub async fn ask<T: FromRedisValue>(&self, commands: &Pipeline) -> Option<T> {
        if self.is_paused() {
            return None;
        }
        let asked = async {
            match self.try_ask(commands).await {
                // An idle connection that broke shows at its first use, and is a new one at the next.
                Err(error) if error.is_io_error() || error.is_connection_dropped() => self.try_ask(commands).await,
                answered => answered,
            }
        };
        let failure = match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::debug!(error = failure, "the cache is left out for a moment");
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        None
    }

    async fn try_ask<T: FromRedisValue>(&self, commands: &Pipeline) -> redis::RedisResult<T> {
        commands.query_async(&mut self.connection.clone()).await
    }

    fn is_paused(&self) -> bool {
        let paused_until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        paused_until.is_some_and(|until| Instant::now() < until)
    }
}
