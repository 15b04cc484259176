//! The spools: raw lines that wait for the archive.

use uuid::Uuid;

use super::{Catalog, Error, Kind, failed};
use crate::queue::entry::{BatchHeader, Header, MAX_STORED_BYTES};
use crate::tenancy::Tenant;

/// The room that one tenant's spool takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSize {
    /// Its schema.
    pub schema: String,
    /// Bytes of its tables, whether rows are in them or were.
    pub bytes: u64,
}

/// A spool row that was read.
pub(crate) struct Spooled {
    /// Which batches it has.
    pub(crate) header: Header,
    /// Their raw lines.
    pub(crate) raw: Vec<u8>,
}

impl Spooled {
    /// What a row holds, if its header and its frame go together.
    pub(crate) fn unpack(header: &[u8], frame: &[u8]) -> Result<Self, String> {
        let header: Header = postcard::from_bytes(header).map_err(|error| format!("its header: {error}"))?;
        let raw = zstd::bulk::decompress(frame, MAX_STORED_BYTES).map_err(|error| format!("its frame: {error}"))?;
        let said: usize = header.batches.iter().map(BatchHeader::raw_bytes).sum();
        if raw.len() != said {
            return Err(format!("{} raw bytes instead of {said}", raw.len()));
        }
        Ok(Self { header, raw })
    }

    /// Whether it has this batch.
    pub(crate) fn has(&self, batch_id: Uuid) -> bool {
        self.header.batches.iter().any(|batch| batch.batch_id == batch_id)
    }

    /// Each batch with its raw bytes.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (&BatchHeader, &[u8])> {
        let mut rest = self.raw.as_slice();
        self.header.batches.iter().map(move |batch| {
            let (bytes, after) = rest.split_at(batch.raw_bytes().min(rest.len()));
            rest = after;
            (batch, bytes)
        })
    }
}

/// A spool row as it is stored.
pub(crate) struct SpooledFrame {
    /// Its id.
    pub(crate) spool_id: i64,
    /// Its header, encoded.
    pub(crate) header: Vec<u8>,
    /// Its lines, compressed.
    pub(crate) frame: Vec<u8>,
}

impl Catalog {
    /// Those of these rows that are there, in their order.
    pub(crate) async fn spool_rows(&self, tenant: &Tenant, spool_ids: &[i64]) -> Result<Vec<SpooledFrame>, Error> {
        let doing = "read the spool";
        if spool_ids.is_empty() {
            return Ok(Vec::new());
        }
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            let rows: Vec<(i64, Vec<u8>, Vec<u8>)> =
                sqlx::query_as("SELECT spool_id, header, frame FROM spool WHERE spool_id = ANY($1) ORDER BY spool_id")
                    .bind(spool_ids)
                    .fetch_all(&mut *transaction)
                    .await
                    .map_err(failed(doing))?;
            transaction.rollback().await.map_err(failed(doing))?;
            let frame = |(spool_id, header, frame)| SpooledFrame { spool_id, header, frame };
            Ok(rows.into_iter().map(frame).collect())
        })
        .await
    }

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
