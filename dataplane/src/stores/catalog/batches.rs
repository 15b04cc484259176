//! What is known of stored batches: whether the index has them, and where their raw lines are.

use std::time::Duration;

use sqlx::Executor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::store::write_index;
use super::{Catalog, Error, LOCK_TIMEOUT, Provenance, STATEMENT_TIMEOUT, enter, failed};
use crate::event::{Micros, event_id, micros};
use crate::queue::entry::Undecodable;
use crate::tenancy::Tenant;

/// A stored batch that the index does not have yet.
#[derive(Debug, Clone)]
pub struct Unindexed {
    /// Its id.
    pub batch_id: Uuid,
    /// When ingest accepted it.
    pub accepted_at: Micros,
    /// When a processor stored it.
    pub stored_at: OffsetDateTime,
    /// The index that takes its events.
    pub index_name: String,
    /// Where its raw lines are.
    pub whereabouts: Whereabouts,
    /// Raw bytes to be unpacked for it: its own, or those of the whole spool row.
    pub unpacked_bytes: u64,
}

/// Where a batch's raw lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whereabouts {
    /// In this row of the spool.
    Spool(i64),
    /// In this object of the archive.
    Object(i64),
}

impl Catalog {
    /// Notes that the index has these batches. Losing this note costs one late indexing that finds
    /// everything there, so it need not wait for the disk.
    pub async fn mark_indexed(&self, tenant: &Tenant, batches: &[Uuid]) -> Result<u64, Error> {
        self.mark_all_indexed(&[(tenant, batches)], LOCK_TIMEOUT).await
    }

    /// The same for batches of several tenants, all or none, in one message: PostgreSQL takes its statements for
    /// one transaction. Waits for rows that somebody else writes for so long.
    pub async fn mark_all_indexed(&self, marks: &[(&Tenant, &[Uuid])], patience: Duration) -> Result<u64, Error> {
        let (doing, statements) = ("note what is indexed", marking(marks, patience));
        let marked = async {
            let done = self.pool().execute(&*statements).await;
            Ok(done.map_err(failed(doing))?.rows_affected())
        };
        self.bounded(doing, marked).await
    }

    /// Batches stored at least `age` ago that the index does not have, oldest first: those that come
    /// after `last`, if one is given.
    pub async fn unindexed(
        &self,
        tenant: &Tenant,
        age: Duration,
        last: Option<&Unindexed>,
        limit: i64,
    ) -> Result<Vec<Unindexed>, Error> {
        type Row = (Uuid, OffsetDateTime, OffsetDateTime, String, Option<i64>, Option<i64>, i64);
        let (stored_at, batch_id) =
            last.map_or((OffsetDateTime::UNIX_EPOCH, Uuid::nil()), |last| (last.stored_at, last.batch_id));
        let mut transaction = self.begin(tenant).await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT batch_id, accepted_at, stored_at, index_name, b.spool_id, object_id, coalesce(s.raw_bytes, b.raw_bytes)
             FROM batches b LEFT JOIN spool s USING (spool_id)
             WHERE indexed_at IS NULL AND stored_at <= now() - make_interval(secs => $1)
               AND (stored_at, batch_id) > ($2, $3)
             ORDER BY stored_at, batch_id LIMIT $4",
        )
        .bind(age.as_secs_f64())
        .bind(stored_at)
        .bind(batch_id)
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("find what is not indexed"))?;
        transaction.rollback().await.map_err(failed("find what is not indexed"))?;
        let unindexed = rows.into_iter().filter_map(|row| {
            let (batch_id, accepted_at, stored_at, index_name, spool_id, object_id, bytes) = row;
            let whereabouts = spool_id.map(Whereabouts::Spool).or(object_id.map(Whereabouts::Object))?;
            let (accepted_at, unpacked_bytes) = (micros(accepted_at), bytes.unsigned_abs());
            Some(Unindexed { batch_id, accepted_at, stored_at, index_name, whereabouts, unpacked_bytes })
        });
        Ok(unindexed.collect())
    }

    /// Sends batches that the index does not have to the index that their series is written to now,
    /// because the one that they name is gone, with all that it had. Gives back how many.
    pub async fn name_write_index(&self, tenant: &Tenant, batches: &[Uuid], gone: &str) -> Result<u64, Error> {
        let doing = "name another index for batches";
        let mut transaction = self.pool().begin().await.map_err(failed(doing))?;
        let index_name = write_index(&mut transaction, tenant).await?;
        enter(&mut transaction, tenant).await?;
        let done = sqlx::query(
            "UPDATE batches SET index_name = $2, indexed_at = NULL
             WHERE batch_id = ANY($1) AND index_name = $3 AND index_name <> $2",
        )
        .bind(batches)
        .bind(index_name)
        .bind(gone)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))?;
        Ok(done.rows_affected())
    }

    /// Events of these batches that are dead letters: the index must not have them.
    pub async fn dead_letters_of(&self, tenant: &Tenant, batches: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let doing = "look up dead letters";
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            let dead = sqlx::query_scalar(
                "SELECT event_id FROM dead_letters
                 WHERE batch_id IN (SELECT batch_id FROM batches WHERE batch_id = ANY($1) AND dead_letters > 0)",
            )
            .bind(batches)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(doing))?;
            transaction.rollback().await.map_err(failed(doing))?;
            Ok(dead)
        })
        .await
    }

    /// Keeps a queue entry that can't be read, for its tenant to see: `entry_id` is its id in the
    /// queue, so that a redelivery is the same dead letter.
    pub async fn keep_undecodable(
        &self,
        tenant: &Tenant,
        entry_id: &str,
        content: &Undecodable,
        from: &Provenance,
    ) -> Result<(), Error> {
        let mut raw = Vec::new();
        for (name, value) in &content.fields {
            raw.extend_from_slice(format!("{} {}\n", name.escape_ascii(), value.len()).as_bytes());
            raw.extend_from_slice(value);
            raw.push(b'\n');
        }
        let batch = crate::event::keyed_batch_id(tenant.name(), format!("{}/{entry_id}", from.pipeline).as_bytes());
        let doing = "keep an entry that can't be read";
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            sqlx::query(
                "INSERT INTO dead_letters (event_id, raw, code, error, pipeline, pipeline_generation)
                 VALUES ($1, $2, 'undecodable', $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(event_id(batch, 0, 0))
            .bind(raw)
            .bind(format!("the queue entry {entry_id} can't be read: {}", content.reason))
            .bind(&from.pipeline)
            .bind(from.generation)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
            transaction.commit().await.map_err(failed(doing))
        })
        .await
    }
}

/// The statements that mark these batches, each as its tenant's role. They are planned each time: a plan that is
/// kept from when the table was small reads all of it. And they don't ask for batches that are not marked, or the
/// index of those would be read, with all that left it since it was vacuumed last.
fn marking(marks: &[(&Tenant, &[Uuid])], patience: Duration) -> String {
    let (patience, timeout) = (patience.as_millis(), STATEMENT_TIMEOUT.as_millis());
    let mut statements = format!(
        "SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = {patience}; SET LOCAL statement_timeout = {timeout}"
    );
    for (tenant, batches) in marks {
        let (role, schema) = (tenant.name().database_role(), tenant.name().database_schema());
        let ids: Vec<String> = batches.iter().map(Uuid::to_string).collect();
        statements += &format!(
            "; SET LOCAL ROLE \"{role}\"; UPDATE \"{schema}\".batches SET indexed_at = coalesce(indexed_at, now()) \
             WHERE batch_id = ANY ('{{{}}}'::uuid[])",
            ids.join(",")
        );
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::fixtures::tenant;

    #[test]
    fn each_tenants_batches_are_marked_as_its_own_role() {
        let (a, b) = (tenant("acme"), tenant("blue-sky"));
        let ids = [1, 2, 3].map(Uuid::from_u128);
        let statements = marking(&[(&a, &ids[..2]), (&b, &ids[2..])], Duration::from_secs(1));
        let statements: Vec<&str> = statements.split("; ").collect();
        let update = |schema: &str, ids: &str| {
            format!(
                "UPDATE \"{schema}\".batches SET indexed_at = coalesce(indexed_at, now()) WHERE batch_id = ANY ('{{{ids}}}'::uuid[])"
            )
        };
        assert_eq!(
            statements,
            [
                "SET LOCAL synchronous_commit = off",
                "SET LOCAL lock_timeout = 1000",
                "SET LOCAL statement_timeout = 30000",
                "SET LOCAL ROLE \"lh_tenant_acme\"",
                &update("tenant_acme", &format!("{},{}", ids[0], ids[1])),
                "SET LOCAL ROLE \"lh_tenant_blue_sky\"",
                &update("tenant_blue_sky", &ids[2].to_string()),
            ]
        );
    }
}
