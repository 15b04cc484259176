//! Settings of the stores, as flags or environment variables; credentials come from files.
//!
//! A credentials folder is a mounted Secret: one file for each key. Nothing secret stands in an
//! environment variable, so nothing secret shows in a pod's description.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use tokio::net::TcpListener;

/// Why a setting can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A credentials file is missing or unreadable.
    #[error("read credential `{}`", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The CA bundle is missing or unreadable.
    #[error("read CA bundle `{}`", path.display())]
    CaBundle {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Where a process says how it is.
#[derive(Args, Clone, Debug)]
pub struct AdminSettings {
    /// Address of /health, /ready and /metrics: a port of its own, which no Service, Ingress or route shows.
    #[arg(long = "admin-listen", env = "LOGGERHUB_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
}

impl AdminSettings {
    /// Binds the address.
    pub async fn bind(&self) -> std::io::Result<TcpListener> {
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("listen on {}: {error}", self.admin_listen))
        };
        TcpListener::bind(self.admin_listen).await.map_err(named)
    }
}

/// Where PostgreSQL is.
#[derive(Args, Clone, Debug)]
pub struct PostgresSettings {
    /// Host of PostgreSQL.
    #[arg(long = "postgres-host", env = "LOGGERHUB_POSTGRES_HOST")]
    pub host: String,
    /// Port of PostgreSQL.
    #[arg(long = "postgres-port", env = "LOGGERHUB_POSTGRES_PORT", default_value_t = 5432)]
    pub port: u16,
    /// TLS towards PostgreSQL.
    #[arg(long = "postgres-ssl-mode", env = "LOGGERHUB_POSTGRES_SSL_MODE", value_enum, default_value_t = SslMode::Prefer)]
    pub ssl_mode: SslMode,
    /// Folder with the files `username` and `password`.
    #[arg(long = "postgres-credentials", env = "LOGGERHUB_POSTGRES_CREDENTIALS")]
    pub credentials: PathBuf,
    /// Most connections to each database.
    #[arg(long = "postgres-connections", env = "LOGGERHUB_POSTGRES_CONNECTIONS", default_value_t = 8)]
    pub max_connections: u32,
}

/// TLS towards PostgreSQL, as in libpq's `sslmode`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Always, any certificate.
    Require,
    /// Always, a certificate of the CA bundle.
    VerifyCa,
    /// Always, a certificate of the CA bundle for this host.
    VerifyFull,
}

/// Where the queue's Redis is.
#[derive(Args, Clone, Debug)]
pub struct QueueSettings {
    /// URL of the queue's Redis: redis:// or rediss://.
    #[arg(long = "redis-queue-url", env = "LOGGERHUB_REDIS_QUEUE_URL")]
    pub queue_url: String,
    /// Folder with the file `password` and, optionally, `username`.
    #[arg(long = "redis-queue-credentials", env = "LOGGERHUB_REDIS_QUEUE_CREDENTIALS")]
    pub queue_credentials: Option<PathBuf>,
}

/// Where the Redis of cache and live tail is.
#[derive(Args, Clone, Debug)]
pub struct CacheSettings {
    /// URL of the cache's Redis: redis:// or rediss://.
    #[arg(long = "redis-cache-url", env = "LOGGERHUB_REDIS_CACHE_URL")]
    pub cache_url: String,
    /// Folder with the file `password` and, optionally, `username`.
    #[arg(long = "redis-cache-credentials", env = "LOGGERHUB_REDIS_CACHE_CREDENTIALS")]
    pub cache_credentials: Option<PathBuf>,
}

/// Where the object store is.
#[derive(Args, Clone, Debug)]
pub struct S3Settings {
    /// URL of the object store.
    #[arg(long = "s3-endpoint", env = "LOGGERHUB_S3_ENDPOINT")]
    pub endpoint: String,
    /// Region of the object store.
    #[arg(long = "s3-region", env = "LOGGERHUB_S3_REGION", default_value = "us-east-1")]
    pub region: String,
    /// Folder with the files `accessKeyId` and `secretAccessKey`.
    #[arg(long = "s3-credentials", env = "LOGGERHUB_S3_CREDENTIALS")]
    pub s3_credentials: PathBuf,
}

/// Where OpenSearch is.
#[derive(Args, Clone, Debug)]
pub struct OpenSearchSettings {
    /// URL of OpenSearch.
    #[arg(long = "opensearch-url", env = "LOGGERHUB_OPENSEARCH_URL")]
    pub url: url::Url,
    /// Folder with the files `username` and `password`; absent for a server without security.
    #[arg(long = "opensearch-credentials", env = "LOGGERHUB_OPENSEARCH_CREDENTIALS")]
    pub opensearch_credentials: Option<PathBuf>,
}

/// The certificates that stores are trusted by.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsSettings {
    /// PEM file of the CAs that sign the stores' certificates; absent: the system's.
    #[arg(long, env = "LOGGERHUB_CA_BUNDLE")]
    pub ca_bundle: Option<PathBuf>,
}

impl TlsSettings {
    /// The CA bundle's bytes, if one is set.
    pub fn read_ca_bundle(&self) -> Result<Option<Vec<u8>>, Error> {
        let read = |path: &PathBuf| fs::read(path).map_err(|source| Error::CaBundle { path: path.clone(), source });
        self.ca_bundle.as_ref().map(read).transpose()
    }
}

/// Reads one file of a credentials folder, less trailing line ends.
pub fn credential(folder: &Path, name: &str) -> Result<SecretString, Error> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).map_err(|source| Error::Credential { path, source })?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

/// Like [`credential`], but a file that is not there is `None`.
pub fn optional_credential(folder: &Path, name: &str) -> Result<Option<SecretString>, Error> {
    match credential(folder, name) {
        Ok(secret) => Ok(Some(secret)),
        Err(Error::Credential { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_credential_loses_its_line_end_and_a_missing_one_is_named() {
        let folder = std::env::temp_dir().join(format!("loggerhub-settings-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("password"), "s3cret\n").unwrap();
        assert_eq!(credential(&folder, "password").unwrap().expose_secret(), "s3cret");
        assert!(credential(&folder, "username").unwrap_err().to_string().contains("username"));
        assert!(optional_credential(&folder, "username").unwrap().is_none());
        fs::remove_dir_all(folder).unwrap();
    }
}
