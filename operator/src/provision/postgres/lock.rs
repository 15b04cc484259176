//! The locks of a tenant: who holds the operator's is alone in changing what the tenant has in the stores, and who
//! holds `maintain`'s keeps that out.
//!
//! A lease says who should work, this says who does. It ends with its session, also of a holder that
//! stands still or is cut off: PostgreSQL ends a session that is silent within a transaction.

use std::sync::PoisonError;
use std::time::Duration;

use sqlx::{PgConnection, Postgres as Database, Transaction};

use crds::TenantName;

use super::Postgres;
use crate::provision::Error;
use crate::provision::error::PostgresContext;

/// Time between two signs of life, and the longest wait for an answer to one: well within the silence that
/// PostgreSQL bears.
const BEAT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// A tenant that nobody else works on, or that `maintain` doesn't.
pub struct HeldTenant {
    transaction: Transaction<'static, Database>,
}

impl Postgres {
    /// Takes the tenant's lock, or says that another operator has it: nobody waits here. An error if another cluster
    /// has taken the installation over; while PostgreSQL is away, what it said last holds.
    pub async fn hold_tenant(&self, tenant: &TenantName) -> Result<Option<HeldTenant>, Error> {
        self.try_hold(tenant).await.map_err(|error| self.displacement_before(error))
    }

    async fn try_hold(&self, tenant: &TenantName) -> Result<Option<HeldTenant>, Error> {
        let mut transaction = self.locks.begin().await.doing("begin to lock a tenant")?;
        let held =
            sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('loggerhub:operator:' || $1, 0))")
                .bind(tenant.as_str())
                .fetch_one(&mut *transaction)
                .await
                .doing("lock a tenant")?;
        self.ask_still_ours(&mut transaction).await?;
        Ok(if held { Some(HeldTenant { transaction }) } else { None })
    }

    /// Waits until `maintain` is not at the tenant, and keeps it away: it neither archives, counts nor indexes anything.
    pub async fn hold_maintain(&self, tenant: &TenantName) -> Result<HeldTenant, Error> {
        let mut transaction = self.processor.begin().await.doing("begin in the processor database")?;
        for lock in [tenant.maintain_lock(), tenant.late_index_lock()] {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(lock)
                .execute(&mut *transaction)
                .await
                .doing("wait until `maintain` is through with the tenant")?;
        }
        Ok(HeldTenant { transaction })
    }

    /// An error if another cluster has taken the installation over since, or if nobody can say: nothing is done here
    /// from then on.
    pub async fn still_ours(&self) -> Result<(), Error> {
        self.ask().await.map_err(|error| self.displacement_before(error))
    }

    /// An error if another cluster has taken the installation over, as far as anybody can say: while PostgreSQL is away,
    /// what it said last holds.
    pub async fn not_displaced(&self) -> Result<(), Error> {
        match self.still_ours().await {
            Err(displaced @ Error::OtherCluster { .. }) => Err(displaced),
            _ => Ok(()),
        }
    }

    async fn ask(&self) -> Result<(), Error> {
        let mut connection = self.locks.acquire().await.doing("connect to ask whose the stores are")?;
        self.ask_still_ours(&mut connection).await
    }

    async fn ask_still_ours(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let Some((installation, ours)) = self.bound.get() else { return Ok(()) };
        let bound: Option<String> =
            sqlx::query_scalar("SELECT cluster FROM public.installations WHERE installation = $1")
                .bind(installation)
                .fetch_optional(connection)
                .await
                .doing("read which cluster the installation runs in")?;
        let other = bound.filter(|bound| bound != ours);
        self.taken_by.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&other);
        other.map_or(Ok(()), |other| Err(displaced(installation, ours, other)))
    }

    /// That another cluster has taken over, if PostgreSQL said so last, in place of an error by which it is away.
    fn displacement_before(&self, error: Error) -> Error {
        let other = self.taken_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (self.bound.get(), other) {
            (Some((installation, ours)), Some(other)) => displaced(installation, ours, other),
            _ => error,
        }
    }
}

fn displaced(installation: &str, ours: &str, bound: String) -> Error {
    Error::OtherCluster { installation: installation.to_owned(), bound, ours: ours.to_owned() }
}

impl HeldTenant {
    /// Does `work` and lets go. If the lock is lost before the end, `work` stops where it is.
    pub async fn during<T>(mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let lost = async {
            loop {
                tokio::time::sleep(BEAT).await;
                let beat = tokio::time::timeout(PATIENCE, sqlx::query("SELECT").execute(&mut *self.transaction)).await;
                match beat {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error,
                    Err(_) => return sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
                }
            }
        };
        let done = tokio::select! {
            // First: after a standstill the lock is asked for before anything else is done.
            biased;
            error = lost => Err(error),
            done = work => Ok(done),
        };
        match done {
            Ok(done) => {
                if let Err(error) = self.transaction.rollback().await {
                    tracing::debug!(%error, "let go of a tenant");
                }
                Ok(done)
            }
            Err(error) => Err(error).doing("keep the lock of a tenant"),
        }
    }
}
