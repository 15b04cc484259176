//! What can go wrong with a store, and which of three answers it calls for.

use aws_sdk_s3::error::SdkError;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with a store. Each variant says what we were doing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL could not be reached or refused.
    #[error("PostgreSQL: {doing}")]
    Postgres {
        /// What we were doing.
        doing: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// A migration could not be run.
    #[error("PostgreSQL: migrate database `{database}`")]
    Migrate {
        /// The database.
        database: &'static str,
        /// The cause.
        source: sqlx::migrate::MigrateError,
    },
    /// The object store could not be reached or refused.
    #[error("object store: {doing} `{bucket}`")]
    ObjectStore {
        /// What we were doing.
        doing: &'static str,
        /// The bucket.
        bucket: String,
        /// Whether another attempt may succeed by itself.
        failure: Failure,
        /// The cause.
        source: Cause,
    },
    /// OpenSearch could not be reached.
    #[error("OpenSearch: {doing}")]
    Search {
        /// What we were doing.
        doing: &'static str,
        /// The cause.
        source: opensearch::Error,
    },
    /// OpenSearch answered with an error.
    #[error("OpenSearch: {doing}: status {status}: {answer}")]
    SearchAnswer {
        /// What we were doing.
        doing: &'static str,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer.
        answer: String,
    },
    /// Redis could not be reached or refused.
    #[error("Redis: {doing}")]
    Redis {
        /// What we were doing.
        doing: &'static str,
        /// The cause.
        source: ::redis::RedisError,
    },
    /// A thing of that name is there and is not ours.
    #[error("{thing} is not ours: {says}; to take it over set the annotation loggerhub.io/adopt: \"true\"")]
    OwnershipConflict {
        /// What it is.
        thing: String,
        /// What its marker says.
        says: String,
    },
    /// The installation runs in another cluster.
    #[error(
        "installation `{installation}` runs in the cluster whose namespace kube-system has the UID {bound}; this one's \
         is {ours}: nothing is touched. If the installation is to run here, and nothing runs there any more, set the \
         chart's value takeOver: {bound}"
    )]
    OtherCluster {
        /// The installation.
        installation: String,
        /// Its cluster.
        bound: String,
        /// This cluster.
        ours: String,
    },
    /// Another installation lives on these stores, with other passwords for the roles that both would have.
    #[error(
        "these stores are those of installation `{installation}`, which has set the password of `{role}`: installation \
         `{ours}` touches nothing. Give `{ours}` \
         its own stores. To share these, give it the passwords of `{installation}` in its Secrets. To replace \
         `{installation}`, set the chart's value takeOver: {installation}"
    )]
    OtherInstallation {
        /// The role.
        role: String,
        /// Whose it is.
        installation: String,
        /// Who we are.
        ours: String,
    },
}

/// Which answer an error calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The store can't be reached or is overloaded: it heals by itself.
    Unavailable,
    /// The store refused: somebody may have to change something, and we keep trying.
    Rejected,
    /// Something is not ours: nothing happens until somebody decides.
    Conflict,
}

impl Error {
    /// Which answer the error calls for.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Postgres { source, .. } => postgres_failure(source),
            Self::Migrate { source, .. } => match source {
                sqlx::migrate::MigrateError::Execute(source) => postgres_failure(source),
                _ => Failure::Rejected,
            },
            Self::ObjectStore { failure, .. } => *failure,
            Self::Search { .. } => Failure::Unavailable,
            Self::SearchAnswer { status, .. } => match status {
                408 | 429 | 500.. => Failure::Unavailable,
                _ => Failure::Rejected,
            },
            Self::Redis { source, .. } => {
                if source.is_io_error() || source.is_timeout() || source.is_connection_dropped() {
                    Failure::Unavailable
                } else {
                    match source.kind() {
                        ::redis::ErrorKind::Server(
                            ::redis::ServerErrorKind::BusyLoading
                            | ::redis::ServerErrorKind::TryAgain
                            | ::redis::ServerErrorKind::ClusterDown
                            | ::redis::ServerErrorKind::MasterDown
                            | ::redis::ServerErrorKind::ReadOnly,
                        ) => Failure::Unavailable,
                        _ => Failure::Rejected,
                    }
                }
            }
            Self::OwnershipConflict { .. } | Self::OtherCluster { .. } | Self::OtherInstallation { .. } => {
                Failure::Conflict
            }
        }
    }

    /// Names what we were doing with the object store.
    pub(super) fn object_store<E>(doing: &'static str, bucket: &str, source: SdkError<E>) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let failure = match source.raw_response().map(|response| response.status().as_u16()) {
            None | Some(408 | 429 | 500..) => Failure::Unavailable,
            Some(_) => Failure::Rejected,
        };
        Self::ObjectStore { doing, bucket: bucket.to_owned(), failure, source: source.into() }
    }
}

fn postgres_failure(source: &sqlx::Error) -> Failure {
    match source {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // Connection (08), resources (53), shutdown or start-up (57P), locks and serialisation (40, 55).
            if ["08", "53", "57", "40", "55"].iter().any(|class| code.starts_with(class)) {
                Failure::Unavailable
            } else {
                Failure::Rejected
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Failure::Unavailable,
        _ => Failure::Rejected,
    }
}

/// Adds what we were doing to PostgreSQL's error.
pub(super) trait PostgresContext<T> {
    /// Names what we were doing.
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> PostgresContext<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Postgres { doing, source })
    }
}

/// Adds what we were doing to Redis's error.
pub(super) trait RedisContext<T> {
    /// Names what we were doing.
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> RedisContext<T> for ::redis::RedisResult<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Redis { doing, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_reached_heals_by_itself() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Error::Postgres { doing: "look", source: sqlx::Error::Io(refused) };
        assert_eq!(error.failure(), Failure::Unavailable);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(Error::Redis { doing: "look", source: refused.into() }.failure(), Failure::Unavailable);
        for (status, failure) in [(503, Failure::Unavailable), (429, Failure::Unavailable), (400, Failure::Rejected)] {
            let error = Error::SearchAnswer { doing: "look", status, answer: String::new() };
            assert_eq!(error.failure(), failure, "{status}");
        }
    }
}
