//! The series of indices: which there are, and which index of each is written to.

use sqlx::{Postgres, Transaction};

use super::{Catalog, Error, failed};

/// A series of indices.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Series {
    /// Its name.
    pub series: String,
    /// Days that events stay in the index.
    pub hot_days: i32,
    /// Number of the index that is written to.
    pub write_number: i64,
}

/// A series that is about to continue with its next index. The operator holds the same lock while it adds a tenant's
/// alias to the indices of a series, so none misses one.
pub struct RollOver {
    transaction: Transaction<'static, Postgres>,
    series: String,
    write_number: i64,
}

impl Catalog {
    /// The names of all series.
    pub async fn all_series(&self) -> Result<Vec<String>, Error> {
        let (doing, pool) = ("list the series", self.pool());
        let listing = sqlx::query_scalar("SELECT series FROM public.index_series ORDER BY series").fetch_all(&pool);
        self.bounded(doing, async { listing.await.map_err(failed(doing)) }).await
    }

    /// One series.
    pub async fn series(&self, name: &str) -> Result<Series, Error> {
        sqlx::query_as("SELECT series, hot_days, write_number FROM public.index_series WHERE series = $1")
            .bind(name)
            .fetch_one(&self.pool())
            .await
            .map_err(failed("look up a series"))
    }

    /// Locks a series, for its next index to be made.
    pub async fn begin_roll_over(&self, series: &Series) -> Result<RollOver, Error> {
        let doing = "lock a series";
        let mut transaction = self.pool().begin().await.map_err(failed(doing))?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('series:' || $1))")
            .bind(&series.series)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        Ok(RollOver { transaction, series: series.series.clone(), write_number: series.write_number })
    }
}

impl RollOver {
    /// Writes to the next index from now on. False: somebody else did that before.
    pub async fn commit(mut self) -> Result<bool, Error> {
        let doing = "write to the next index of a series";
        let moved = sqlx::query(
            "UPDATE public.index_series SET write_number = $2 + 1, updated_at = now()
             WHERE series = $1 AND write_number = $2",
        )
        .bind(&self.series)
        .bind(self.write_number)
        .execute(&mut *self.transaction)
        .await
        .map_err(failed(doing))?;
        self.transaction.commit().await.map_err(failed(doing))?;
        Ok(moved.rows_affected() > 0)
    }
}
