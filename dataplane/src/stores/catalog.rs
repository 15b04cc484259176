//! The catalog: each tenant's schema in PostgreSQL. It decides what is stored, and how often: once.
//!
//! Everything of one tenant's flush goes in by one transaction, as the tenant's role, so nothing is
//! half stored, billed twice, or written to another tenant's tables. The chapters: storing a flush,
//! which of its batches count, its rows as binary COPY, finding a row that PostgreSQL refuses, entries
//! that can never be stored, dead letters that are tried again, what waits to be done, what is known of batches, what is held of a span of time, and rows
//! restored from the archive.

mod archiving;
mod batches;
mod copy;
mod expiry;
mod held;
mod keys;
mod ledger;
mod letters;
mod lock;
mod look;
mod objects;
mod refused;
mod restore;
mod series;
mod spool;
mod store;
mod unstorable;

pub use archiving::{SpoolReader, SpoolRow};
pub use batches::{Unindexed, Whereabouts};
pub use expiry::Expiring;
pub use held::{Held, HeldBatch, HeldLine};
pub use keys::KEY_WINDOW;
pub use ledger::Hour;
pub use letters::{LetterBatch, Redriven, ToRedrive};
pub use lock::{TenantLock, Work};
pub use look::Look;
pub use objects::ObjectRow;
pub use restore::{ArchivedObject, Documents};
pub use series::{RollOver, Series};
pub use spool::SpoolSize;
pub(crate) use spool::{Spooled, SpooledFrame};
pub use unstorable::Reason;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use runtime::stores::Database;
use sqlx::postgres::{PgPool, Postgres};
use sqlx::{Connection, PgConnection, Transaction};
use uuid::Uuid;

use crate::event::Micros;
use crate::tenancy::Tenant;

/// Longest wait for a row that somebody else is writing: an ordinary flush takes well under a
/// second, so whoever holds one longer is paused or lost.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest statement: 100,000 rows by COPY take about half a second.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence inside a transaction, after which the server ends it: a paused process must not
/// keep its successor waiting.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that one transaction may take, whatever PostgreSQL says meanwhile or does not say: the longest
/// statement, after the longest wait for a lock, and as much again for the others. Beyond it the server is taken for
/// gone. It ends no statement itself: it is for when nobody is left who would.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Why the catalog did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Error {
    /// What we were doing.
    pub doing: &'static str,
    /// The cause.
    pub source: sqlx::Error,
}

/// What an error means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL can't be reached or can't work now: try again.
    Unavailable,
    /// Somebody else held a row for too long.
    Locked,
    /// PostgreSQL will never take these values.
    Refused,
    /// Something of the tenant's is missing: its schema, its role, its series, or a partition. The
    /// operator or `maintain` makes it.
    NotProvisioned,
}

impl Error {
    /// That something is not there any more.
    pub(crate) fn gone(doing: &'static str) -> Self {
        Self { doing, source: sqlx::Error::RowNotFound }
    }

    /// Whether PostgreSQL itself finds the bytes damaged.
    pub fn is_damage(&self) -> bool {
        const DATA_CORRUPTED: &str = "XX001";
        has_code(&self.source, DATA_CORRUPTED)
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        let error = match &self.source {
            sqlx::Error::Database(error) => error,
            sqlx::Error::RowNotFound => return Kind::NotProvisioned,
            _ => return Kind::Unavailable,
        };
        match error.code().as_deref() {
            Some("55P03" | "40P01") => Kind::Locked,
            _ if self.is_without_partition() => Kind::NotProvisioned,
            Some(code) if code.starts_with("42") || code.starts_with("3F") => Kind::NotProvisioned,
            Some(code) if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => Kind::Refused,
            _ => Kind::Unavailable,
        }
    }
}

/// Names what was being done when PostgreSQL failed.
pub(crate) fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error { doing, source }
}

/// SQLSTATE of a function that is not there: the operator, whose they are, is of the version before.
pub(crate) const UNDEFINED_FUNCTION: &str = "42883";

/// SQLSTATE of a column that is not there: the operator has not brought the tenant's schema to this version yet.
pub(crate) const UNDEFINED_COLUMN: &str = "42703";

/// Whether PostgreSQL refused with this SQLSTATE.
pub(crate) fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some(code)
}

/// The catalog of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    database: Database,
}

/// Under which pipeline something is stored.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its generation.
    pub generation: i64,
}

/// What became of a flush.
#[derive(Debug, Default)]
pub struct Stored {
    /// Each batch that is in the catalog now.
    pub batches: HashMap<Uuid, StoredBatch>,
}

/// A batch that is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Whether this flush stored it; otherwise an earlier one did.
    pub new: bool,
    /// When ingest accepted what is stored. A client's resend was accepted at another time.
    pub accepted_at: Micros,
    /// The index that takes its events.
    pub index_name: String,
    /// Whether the index has them.
    pub indexed: bool,
    /// Whether the same generation of the same pipeline stored it: its stages make the same of the same lines.
    pub same_stages: bool,
}

impl Catalog {
    /// The catalog in the processor database.
    pub fn new(pool: PgPool) -> Self {
        Self { database: pool.into() }
    }

    /// The pool, for questions about no tenant. Not to be kept: see [`Self::within`].
    fn pool(&self) -> PgPool {
        self.database.pool()
    }

    /// Work of several steps that ends within `limit`, or with an error, whatever becomes of PostgreSQL meanwhile.
    pub async fn within<T, E: From<Error>>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.database.within(limit, work).await {
            Ok(outcome) => outcome,
            Err(late) => Err(failed(doing)(late.into()).into()),
        }
    }

    /// One transaction, or one question, within [`LIMIT`].
    async fn bounded<T>(&self, doing: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.within(LIMIT, doing, work).await
    }

    /// A transaction as the tenant's role, inside its schema: no name of another tenant's table can
    /// even be written in it.
    async fn begin(&self, tenant: &Tenant) -> Result<Transaction<'static, Postgres>, Error> {
        let doing = "begin a transaction";
        self.bounded(doing, async {
            let mut transaction = self.pool().begin().await.map_err(failed(doing))?;
            enter(&mut transaction, tenant).await?;
            Ok(transaction)
        })
        .await
    }

    /// Ends the sessions of processors that hold rows and no longer talk: paused, or on a machine
    /// that is gone. Gives back how many.
    pub async fn end_stalled_sessions(&self) -> Result<i64, Error> {
        let doing = "end the sessions of a lost processor";
        let pool = self.pool();
        let ended = sqlx::query_scalar(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE usename = current_user AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'
               AND backend_xid IS NOT NULL AND state_change < now() - make_interval(secs => $1)",
        )
        .bind(LOCK_TIMEOUT.as_secs_f64())
        .fetch_one(&pool);
        self.bounded(doing, async { ended.await.map_err(failed(doing)) }).await
    }

    /// Whether the catalog answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.bounded("ping the catalog", async {
            let mut connection = self.pool().acquire().await.map_err(failed("connect to the catalog"))?;
            connection.ping().await.map_err(failed("ping the catalog"))
        })
        .await
    }
}

/// Turns the transaction into the tenant's, until it ends.
async fn enter(connection: &mut PgConnection, tenant: &Tenant) -> Result<(), Error> {
    let millis = |duration: Duration| duration.as_millis().to_string();
    sqlx::query(
        "SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
                set_config('idle_in_transaction_session_timeout', $3, true),
                set_config('search_path', $4, true), set_config('role', $5, true)",
    )
    .bind(millis(LOCK_TIMEOUT))
    .bind(millis(STATEMENT_TIMEOUT))
    .bind(millis(IDLE_TIMEOUT))
    .bind(tenant.name().database_schema())
    .bind(tenant.name().database_role())
    .execute(connection)
    .await
    .map_err(failed("enter the tenant's schema"))?;
    Ok(())
}
