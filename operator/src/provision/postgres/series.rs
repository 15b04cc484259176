//! The lock under which indices of a series get aliases.

use sqlx::{Postgres as Database, Transaction};

use super::Postgres;
use crate::provision::Error;
use crate::provision::error::PostgresContext;

/// A series that is not rolled over while this is held.
pub struct HeldSeries {
    transaction: Transaction<'static, Database>,
    /// The index of the series that is written to now.
    pub write_number: i64,
}

impl Postgres {
    /// Keeps `maintain` from going on to the series' next index: it takes the same lock for itself alone.
    /// Tenants share it, so they don't wait for each other.
    pub async fn hold_series(&self, series: &str) -> Result<HeldSeries, Error> {
        let mut transaction = self.processor.begin().await.doing("begin in the processor database")?;
        // Silent for as long as OpenSearch is asked. It only keeps a rollover waiting.
        const HOLD: &str = "SELECT set_config('idle_in_transaction_session_timeout', '60s', true), \
                            pg_advisory_xact_lock_shared(hashtext('series:' || $1))";
        sqlx::query(HOLD).bind(series).execute(&mut *transaction).await.doing("hold the series of indices")?;
        let write_number = sqlx::query_scalar("SELECT write_number FROM public.index_series WHERE series = $1")
            .bind(series)
            .fetch_one(&mut *transaction)
            .await
            .doing("look up the series of indices")?;
        Ok(HeldSeries { transaction, write_number })
    }
}

impl HeldSeries {
    /// Lets go. A connection that is lost has let go already.
    pub async fn release(self) {
        if let Err(error) = self.transaction.rollback().await {
            tracing::debug!(%error, "let go of a series of indices");
        }
    }
}
