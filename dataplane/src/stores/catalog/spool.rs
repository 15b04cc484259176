//! How much waits in the spools of all tenants.

use super::{Catalog, Error, Kind, failed};

/// The room that one tenant's spool takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSize {
    /// Its schema.
    pub schema: String,
    /// Bytes of its tables, whether rows are in them or were.
    pub bytes: u64,
}

impl Catalog {
    /// The room that each tenant's spool takes: sizes of files, whatever is in them. One that somebody has for himself, or
    /// waits to have, is left out: to ask for its size is to wait for him, and nothing is stored in it meanwhile.
    pub async fn spool_sizes(&self) -> Result<Vec<SpoolSize>, Error> {
        let doing = "measure the spools";
        let pool = self.pool();
        let rows = sqlx::query_as(
            "SELECT n.nspname::text, coalesce(pg_relation_size(c.oid), 0) + coalesce(pg_relation_size(c.reltoastrelid), 0)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relname = 'spool' AND c.relkind = 'r' AND starts_with(n.nspname::text, 'tenant_')
               AND c.oid NOT IN (SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
                                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        )
        .fetch_all(&pool);
        let rows: Vec<(String, i64)> = self.bounded(doing, async { rows.await.map_err(failed(doing)) }).await?;
        let size = |(schema, bytes)| SpoolSize { schema, bytes: u64::try_from(bytes).unwrap_or(0) };
        Ok(rows.into_iter().map(size).collect())
    }

    /// Bytes of the rows in one spool. Reads every row but none of its bytes. As the tenant's role, which
    /// alone may look inside its schema.
    /// `None`: somebody has it for himself.
    pub async fn spool_bytes(&self, schema: &str) -> Result<Option<u64>, Error> {
        let doing = "look into a spool";
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        self.bounded(doing, async {
            let mut transaction = self.pool().begin().await.map_err(failed(doing))?;
            sqlx::query(
                "SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '1s', true),
                        set_config('role', 'lh_' || $1, true)",
            )
            .bind(schema)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
            let statement = format!(
                "SELECT coalesce(sum(octet_length(frame) + octet_length(header)), 0)::bigint FROM {}.spool",
                quoted(schema)
            );
            let bytes: Result<i64, _> =
                sqlx::query_scalar(&statement).fetch_one(&mut *transaction).await.map_err(failed(doing));
            transaction.rollback().await.map_err(failed(doing))?;
            match bytes {
                Ok(bytes) => Ok(Some(u64::try_from(bytes).unwrap_or(0))),
                Err(error) if error.kind() == Kind::Locked => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }
}
