//! Clients of the four stores, with timeouts on every call. None of them connects yet: a store
//! that is down at start is a condition to report, not a reason to stop.

mod database;
mod redis_connection;

pub use database::{Database, Late};
pub use redis_connection::Connection;

use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::tls;
use opensearch::OpenSearch;
use opensearch::auth::Credentials as OpenSearchCredentials;
use opensearch::cert::{Certificate, CertificateValidation};
use opensearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use redis::aio::ConnectionManagerConfig;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, IntoConnectionInfo, TlsCertificates};
use secrecy::ExposeSecret;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};

use crate::settings::{
    self, CacheSettings, OpenSearchSettings, PostgresSettings, QueueSettings, S3Settings, SslMode, TlsSettings,
    credential, optional_credential,
};

/// Longest wait for a connection to any store.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for an ordinary answer of Redis.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence on a connection after which its other end is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Questions without an answer after which the connection ends.
const KEEPALIVE_PROBES: u32 = 3;
/// Longest time that what was sent may be unacknowledged before the connection ends. The kernel's own bound is some
/// 15 minutes; a network that loses packets for a few seconds ends nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a free PostgreSQL connection, connecting included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection to PostgreSQL that was used within this time is taken to be alive.
const TRUSTED: Duration = Duration::from_secs(5);
/// Longest wait for one attempt of an object store call, besides the bytes that it sends.
const S3_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(16);
/// Attempts of one call.
const S3_ATTEMPTS: u32 = 3;
/// Slowest link to the object store over which an object is put: bytes a second. The largest object, 32 MiB, takes two
/// minutes by it.
const S3_SLOWEST: u64 = 256 * 1024;
/// Longest wait for an object to be put, all attempts together, however large it is: less than what a step of `maintain`
/// may take.
const S3_LONGEST_PUT: Duration = Duration::from_secs(160);
/// Longest wait for an answer of OpenSearch; a bulk of 5 MB takes well under a second.
const OPENSEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A credential or the CA bundle can't be read.
    #[error("read the settings of a store")]
    Settings(#[from] settings::Error),
    /// The Redis URL is not one.
    #[error("Redis settings")]
    Redis(#[from] redis::RedisError),
    /// The CA bundle holds no certificate that OpenSearch's client can read.
    #[error("CA bundle for OpenSearch")]
    OpenSearchCa(#[source] opensearch::Error),
    /// The OpenSearch client can't be built.
    #[error("OpenSearch client")]
    OpenSearch(#[from] opensearch::http::transport::BuildError),
    /// The CA bundle holds no certificate that the object store's client can read.
    #[error("CA bundle for the object store")]
    S3Ca(#[source] aws_smithy_http_client::HttpClientError),
}

/// How to connect to one database of PostgreSQL. `application_name` shows in `pg_stat_activity`.
pub fn postgres_options(
    settings: &PostgresSettings,
    tls: &TlsSettings,
    database: &str,
    application_name: &str,
) -> Result<PgConnectOptions, Error> {
    let username = credential(&settings.credentials, "username")?;
    let password = credential(&settings.credentials, "password")?;
    let ssl_mode = match settings.ssl_mode {
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Prefer => PgSslMode::Prefer,
        SslMode::Require => PgSslMode::Require,
        SslMode::VerifyCa => PgSslMode::VerifyCa,
        SslMode::VerifyFull => PgSslMode::VerifyFull,
    };
    let options = PgConnectOptions::new_without_pgpass()
        .host(&settings.host)
        .port(settings.port)
        .username(username.expose_secret())
        .password(password.expose_secret())
        .ssl_mode(ssl_mode)
        .database(database)
        .application_name(application_name)
        .options(ended_by_the_server());
    Ok(match tls.read_ca_bundle()? {
        Some(pem) => options.ssl_root_cert_from_pem(pem),
        None => options,
    })
}

/// By these PostgreSQL ends the session of a machine that is gone, with its locks and what it had begun. The
/// kernel's own bound is more than two hours.
fn ended_by_the_server() -> [(&'static str, String); 4] {
    [
        ("tcp_keepalives_idle", KEEPALIVE_IDLE.as_secs().to_string()),
        ("tcp_keepalives_interval", KEEPALIVE_INTERVAL.as_secs().to_string()),
        ("tcp_keepalives_count", KEEPALIVE_PROBES.to_string()),
        // In milliseconds.
        ("tcp_user_timeout", USER_TIMEOUT.as_millis().to_string()),
    ]
}

/// A lazy pool on one database of PostgreSQL.
pub fn postgres(
    settings: &PostgresSettings,
    tls: &TlsSettings,
    database: &str,
    application_name: &str,
) -> Result<PgPool, Error> {
    let options = postgres_options(settings, tls, database, application_name)?;
    Ok(postgres_pool(settings.max_connections).connect_lazy_with(options))
}

/// A pool of at most so many connections, none of which is asked whether it is alive each time that it is
/// used: that costs as much as a statement.
pub fn postgres_pool(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// A Redis server: gives out connections that reconnect by themselves, and are made anew when the server is lost
/// without a word or takes no writes any more.
#[derive(Clone, Debug)]
pub struct Redis {
    client: redis::Client,
    renewals: redis_connection::Renewals,
}

impl Redis {
    /// The queue's Redis.
    pub fn queue(settings: &QueueSettings, tls: &TlsSettings) -> Result<Self, Error> {
        Self::new(&settings.queue_url, settings.queue_credentials.as_deref(), tls)
    }

    /// The Redis of cache and live tail.
    pub fn cache(settings: &CacheSettings, tls: &TlsSettings) -> Result<Self, Error> {
        Self::new(&settings.cache_url, settings.cache_credentials.as_deref(), tls)
    }

    fn new(url: &str, credentials: Option<&std::path::Path>, tls: &TlsSettings) -> Result<Self, Error> {
        let mut info = url.into_connection_info()?;
        if let Some(folder) = credentials {
            let mut redis = info.redis_settings().clone();
            if let Some(username) = optional_credential(folder, "username")? {
                redis = redis.set_username(username.expose_secret());
            }
            if let Some(password) = optional_credential(folder, "password")? {
                redis = redis.set_password(password.expose_secret());
            }
            info = info.set_redis_settings(redis);
        }
        info = info.set_tcp_settings(tcp_settings());
        let client = match (info.addr(), tls.read_ca_bundle()?) {
            (ConnectionAddr::TcpTls { .. }, Some(pem)) => {
                redis::Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })?
            }
            _ => redis::Client::open(info)?,
        };
        Ok(Self { client, renewals: Default::default() })
    }

    /// A shared connection for ordinary commands: pipelined, reconnecting, every answer bounded.
    pub fn connection(&self) -> Result<Connection, Error> {
        self.answering_within(REDIS_TIMEOUT)
    }

    /// A connection of its own for commands that block up to `block`, such as XREAD.
    pub fn blocking_connection(&self, block: Duration) -> Result<Connection, Error> {
        self.answering_within(block + REDIS_TIMEOUT)
    }

    fn answering_within(&self, longest: Duration) -> Result<Connection, Error> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(longest))
            .set_number_of_retries(1);
        Ok(Connection::new(self.client.clone(), config, self.renewals.clone())?)
    }
}

/// How the kernel finds out that a machine is gone that said nothing.
fn tcp_settings() -> TcpSettings {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    TcpSettings::default().set_keepalive(keepalive).set_user_timeout(USER_TIMEOUT)
}

/// A client of the object store, path-style, two retries.
pub fn s3(settings: &S3Settings, tls: &TlsSettings) -> Result<aws_sdk_s3::Client, Error> {
    let id = credential(&settings.s3_credentials, "accessKeyId")?;
    let secret = credential(&settings.s3_credentials, "secretAccessKey")?;
    let credentials = Credentials::new(id.expose_secret(), secret.expose_secret(), None, None, "mounted-secret");
    let mut builder = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
    if let Some(pem) = tls.read_ca_bundle()? {
        let trust = tls::TrustStore::empty().with_pem_certificate(pem);
        let context = tls::TlsContext::builder().with_trust_store(trust).build().map_err(Error::S3Ca)?;
        builder = builder.tls_context(context);
    }
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(builder.build_https())
        .endpoint_url(&settings.endpoint)
        .region(Region::new(settings.region.clone()))
        .credentials_provider(credentials)
        .retry_config(RetryConfig::standard().with_max_attempts(S3_ATTEMPTS))
        .timeout_config(s3_timeouts(S3_ATTEMPT_TIMEOUT))
        .force_path_style(true)
        .build();
    Ok(aws_sdk_s3::Client::from_conf(config))
}

/// How long a PUT of so many bytes is waited for: on the slowest link that is accepted, one attempt ends in its time.
pub fn s3_put_timeouts(bytes: usize) -> TimeoutConfig {
    s3_timeouts(S3_ATTEMPT_TIMEOUT + Duration::from_secs(bytes as u64 / S3_SLOWEST))
}

/// Attempts of this length, and as many as there are, within the longest time.
fn s3_timeouts(attempt: Duration) -> TimeoutConfig {
    let attempt = attempt.min(S3_LONGEST_PUT);
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .operation_timeout((attempt * S3_ATTEMPTS).min(S3_LONGEST_PUT))
        .build()
}

/// A client of OpenSearch.
pub fn opensearch(settings: &OpenSearchSettings, tls: &TlsSettings) -> Result<OpenSearch, Error> {
    let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(settings.url.clone()))
        .timeout(OPENSEARCH_TIMEOUT)
        .disable_proxy();
    if let Some(folder) = &settings.opensearch_credentials {
        let username = credential(folder, "username")?;
        let password = credential(folder, "password")?;
        builder = builder.auth(OpenSearchCredentials::Basic(
            username.expose_secret().to_owned(),
            password.expose_secret().to_owned(),
        ));
    }
    if let Some(pem) = tls.read_ca_bundle()? {
        let certificate = Certificate::from_pem(&pem).map_err(Error::OpenSearchCa)?;
        builder = builder.cert_validation(CertificateValidation::Full(certificate));
    }
    Ok(OpenSearch::new(builder.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the kernel will ask the other end of a connection to this port whether it is there: the timer of a
    /// row in `/proc/net/tcp` then is the second kind.
    fn is_asked_for(port: u16) -> bool {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row[2].ends_with(&format!(":{port:04X}")) && row[5].starts_with("02:"))
    }

    #[test]
    fn a_large_object_has_the_time_that_a_slow_link_takes() {
        const MIB: usize = 1024 * 1024;
        for (bytes, attempt, operation) in
            [(0, 16, 48), (MIB, 20, 60), (8 * MIB, 48, 144), (32 * MIB, 144, 160), (usize::MAX, 160, 160)]
        {
            let timeouts = s3_put_timeouts(bytes);
            let seconds = [timeouts.operation_attempt_timeout(), timeouts.operation_timeout()]
                .map(|timeout| timeout.map(|timeout| timeout.as_secs()));
            assert_eq!(seconds, [Some(attempt), Some(operation)], "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn the_other_end_of_a_connection_to_redis_is_asked_whether_it_is_there() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let redis = Redis::new(&format!("redis://127.0.0.1:{port}"), None, &TlsSettings::default()).unwrap();
        let mut connection = redis.connection().unwrap();
        let asking = tokio::spawn(async move { redis::cmd("PING").query_async::<String>(&mut connection).await });
        let (_open, _) = silent.accept().await.unwrap();
        for _ in 0..50 {
            if is_asked_for(port) {
                return asking.abort();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody asks");
    }
}
