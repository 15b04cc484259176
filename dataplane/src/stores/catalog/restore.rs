//! Rows made again from the archive: what a processor wrote, less what only it knew.
//!
//! A batch that is there is left as it is, so restoring can be repeated, and can begin again after
//! a death. Rows of the usage ledger get ids below zero: the roll-up counts from its watermark up,
//! so nothing that was billed before is billed again.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::copy::{self, Row};
use super::store::{insert_dead_letters, note_dropped, write_index};
use super::{Catalog, Error, Kind, Provenance, failed};
use crate::event::{date_time, micros};
use crate::stores::archive::Footer;
use crate::stores::batch::Batch;
use crate::tenancy::Tenant;

/// What is written as the pipeline of a restored batch: which one it was, the archive does not say.
const RESTORED: &str = "restored";

/// An object as the archive has it.
#[derive(Debug)]
pub struct ArchivedObject {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub bytes: u64,
    /// What it says of itself.
    pub footer: Footer,
}

/// Where a restored batch's documents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The index that takes its events.
    pub index_name: String,
    /// Whether it has them all, or need not have them any more.
    pub complete: bool,
}

impl Catalog {
    /// Whether the catalog holds nothing of the tenant.
    pub async fn is_empty(&self, tenant: &Tenant) -> Result<bool, Error> {
        let doing = "look whether the catalog is empty";
        let mut transaction = self.begin(tenant).await?;
        let empty = sqlx::query_scalar(
            "SELECT NOT (EXISTS (SELECT FROM batches) OR EXISTS (SELECT FROM objects) OR EXISTS (SELECT FROM spool)
                         OR EXISTS (SELECT FROM logs) OR EXISTS (SELECT FROM usage_ledger))",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(empty)
    }

    /// Keys of all objects that the catalog knows.
    pub async fn object_keys(&self, tenant: &Tenant) -> Result<HashSet<String>, Error> {
        let doing = "list the objects";
        let mut transaction = self.begin(tenant).await?;
        let keys: Vec<String> =
            sqlx::query_scalar("SELECT key FROM objects").fetch_all(&mut *transaction).await.map_err(failed(doing))?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(keys.into_iter().collect())
    }

    /// Which of these batches the catalog has.
    pub async fn known(&self, tenant: &Tenant, batches: &[Uuid]) -> Result<HashSet<Uuid>, Error> {
        let doing = "look up batches";
        let mut transaction = self.begin(tenant).await?;
        let known: Vec<Uuid> = sqlx::query_scalar("SELECT batch_id FROM batches WHERE batch_id = ANY($1)")
            .bind(batches)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(known.into_iter().collect())
    }

    /// The index that the tenant's series is written to now.
    pub async fn write_index(&self, tenant: &Tenant) -> Result<String, Error> {
        let mut connection = self.pool().acquire().await.map_err(failed("connect to the catalog"))?;
        write_index(&mut connection, tenant).await
    }

    /// Ensures the object's row, and gives back its id.
    pub async fn restore_object(&self, tenant: &Tenant, object: &ArchivedObject) -> Result<i64, Error> {
        let doing = "restore an object's row";
        let places = object.footer.places();
        let events: usize = object.footer.batches.iter().map(|batch| batch.events.len()).sum();
        let (first, last) = object.footer.accepted;
        let mut transaction = self.begin(tenant).await?;
        let id = sqlx::query_scalar(
            "INSERT INTO objects AS o (key, bytes, raw_bytes, events, min_accepted, max_accepted, raw_starts, starts)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (key) DO UPDATE SET key = o.key RETURNING object_id",
        )
        .bind(&object.key)
        .bind(integer(object.bytes))
        .bind(places.raw_starts.last().copied().unwrap_or(0))
        .bind(integer(events as u64))
        .bind(date_time(first))
        .bind(date_time(last))
        .bind(&places.raw_starts)
        .bind(&places.starts)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))?;
        Ok(id)
    }

    /// Restores those of these batches of an object that are not there: their rows, dead letters,
    /// usage, and the idempotency keys of the last `window_start`. Gives back how many it restored.
    pub async fn restore_batches(
        &self,
        tenant: &Tenant,
        object_id: i64,
        batches: &mut [Batch],
        documents: &HashMap<Uuid, Documents>,
        window_start: OffsetDateTime,
    ) -> Result<u64, Error> {
        self.without_refused(tenant, batches, async |batches| {
            let doing = "restore batches";
            let mut transaction = self.begin(tenant).await?;
            let won = insert_batches(&mut transaction, object_id, batches, documents).await?;
            let won: Vec<&Batch> = batches.iter().filter(|batch| won.contains(&batch.batch_id)).collect();
            insert_rows(&mut transaction, &copy::rows_of(won.iter().copied())).await?;
            insert_ledger(&mut transaction, &won).await?;
            insert_idempotency(&mut transaction, &won, window_start).await?;
            let candidates: BTreeMap<Uuid, (&Batch, usize)> =
                won.iter().map(|batch| (batch.batch_id, (*batch, 0))).collect();
            insert_dead_letters(&mut transaction, &candidates, &restored()).await?;
            note_dropped(&mut transaction, won.iter().copied()).await?;
            transaction.commit().await.map_err(failed(doing))?;
            Ok(won.len() as u64)
        })
        .await
    }

    /// Restores the rows of these batches that are not there. Gives back how many.
    pub async fn restore_rows(&self, tenant: &Tenant, batches: &mut [Batch]) -> Result<u64, Error> {
        self.without_refused(tenant, batches, async |batches| {
            let doing = "restore event rows";
            let mut transaction = self.begin(tenant).await?;
            let restored = insert_rows(&mut transaction, &copy::rows_of(batches.iter())).await?;
            transaction.commit().await.map_err(failed(doing))?;
            Ok(restored)
        })
        .await
    }

    /// Does it, and if PostgreSQL refuses a row, once more with that row as a dead letter.
    async fn without_refused(
        &self,
        tenant: &Tenant,
        batches: &mut [Batch],
        insert: impl AsyncFn(&[Batch]) -> Result<u64, Error>,
    ) -> Result<u64, Error> {
        let refusal = match insert(batches).await {
            Err(error) if error.kind() == Kind::Refused => error,
            outcome => return outcome,
        };
        let refused = self.find_refused(tenant, &copy::rows_of(batches.iter())).await?;
        if refused.is_empty() {
            return Err(refusal);
        }
        for batch in batches.iter_mut() {
            batch.refuse(&refused);
        }
        insert(batches).await
    }

    /// Takes back that the index has these batches.
    pub async fn unmark_indexed(&self, tenant: &Tenant, batches: &[Uuid]) -> Result<u64, Error> {
        let doing = "take back what is indexed";
        let mut transaction = self.begin(tenant).await?;
        let done = sqlx::query("UPDATE batches SET indexed_at = NULL WHERE batch_id = ANY($1)")
            .bind(batches)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))?;
        Ok(done.rows_affected())
    }

    /// Writes to no index of a series that is older than `number`: PostgreSQL's memory of it was
    /// lost, or went back. Gives back whether that was so.
    pub async fn raise_write_number(&self, series: &str, number: i64) -> Result<bool, Error> {
        let doing = "go on with the newest index of a series";
        let mut transaction = self.pool().begin().await.map_err(failed(doing))?;
        // As at a rollover: the operator holds it while it adds a tenant's alias.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('series:' || $1))")
            .bind(series)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        let raised = sqlx::query(
            "UPDATE public.index_series SET write_number = $2, updated_at = now() WHERE series = $1 AND write_number < $2",
        )
        .bind(series)
        .bind(number)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))?;
        Ok(raised.rows_affected() > 0)
    }

    /// Ensures the partition of a moment.
    pub async fn ensure_partition(&self, tenant: &Tenant, moment: OffsetDateTime) -> Result<(), Error> {
        sqlx::query("SELECT public.ensure_partitions($1, $2)")
            .bind(tenant.name().database_schema())
            .bind(moment)
            .execute(&self.pool())
            .await
            .map_err(failed("make a partition"))?;
        Ok(())
    }
}

fn restored() -> Provenance {
    Provenance { pipeline: RESTORED.to_owned(), generation: 0 }
}

async fn insert_batches(
    connection: &mut PgConnection,
    object_id: i64,
    batches: &[Batch],
    documents: &HashMap<Uuid, Documents>,
) -> Result<HashSet<Uuid>, Error> {
    let known: Vec<(&Batch, &Documents)> =
        batches.iter().filter_map(|batch| Some((batch, documents.get(&batch.batch_id)?))).collect();
    let column = || known.iter();
    let won: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO batches (batch_id, accepted_at, key_id, events, dead_letters, raw_bytes, raw_start, object_id,
                              index_name, pipeline, pipeline_generation, stored_at, indexed_at, archived_at)
         SELECT batch_id, accepted_at, key_id, events, dead_letters, raw_bytes, raw_start, $8, index_name, $9, 0,
                accepted_at, CASE WHEN complete OR events = 0 THEN now() END, now()
         FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::bigint[],
                     $10::text[], $11::boolean[])
              AS batch (batch_id, accepted_at, key_id, events, dead_letters, raw_bytes, raw_start, index_name, complete)
         ON CONFLICT DO NOTHING RETURNING batch_id",
    )
    .bind(column().map(|(batch, _)| batch.batch_id).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| date_time(batch.accepted_at)).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| batch.key_id.as_str()).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| count(batch.events.len())).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| count(batch.dead_letters.len())).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| integer(batch.raw_bytes)).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| integer(batch.raw_start)).collect::<Vec<_>>())
    .bind(object_id)
    .bind(RESTORED)
    .bind(column().map(|(_, documents)| documents.index_name.as_str()).collect::<Vec<_>>())
    .bind(column().map(|(_, documents)| documents.complete).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
    .map_err(failed("restore the batches' rows"))?;
    Ok(won.into_iter().collect())
}

async fn insert_rows(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<u64, Error> {
    if rows.is_empty() {
        return Ok(0);
    }
    let column = || rows.iter().map(|(_, row)| *row);
    let done = sqlx::query(
        "INSERT INTO logs (event_id, event_time, batch_id, raw_offset, raw_length, level, service, application, language,
                           message, flags)
         SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::int[], $5::int[], $6::text[], $7::text[],
                              $8::text[], $9::text[], $10::text[], $11::smallint[])
         ON CONFLICT DO NOTHING",
    )
    .bind(column().map(|row| row.id).collect::<Vec<_>>())
    .bind(column().map(|row| date_time(row.time)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(batch_id, _)| *batch_id).collect::<Vec<_>>())
    .bind(column().map(|row| count(row.raw_offset as usize)).collect::<Vec<_>>())
    .bind(column().map(|row| count(row.raw_length as usize)).collect::<Vec<_>>())
    .bind(column().map(|row| row.event.level.as_str()).collect::<Vec<_>>())
    .bind(column().map(|row| row.event.service.as_str()).collect::<Vec<_>>())
    .bind(column().map(|row| row.event.application.as_deref()).collect::<Vec<_>>())
    .bind(column().map(|row| row.event.language.as_deref()).collect::<Vec<_>>())
    .bind(column().map(|row| row.event.message.as_str()).collect::<Vec<_>>())
    .bind(column().map(|row| row.flags).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("restore event rows"))?;
    Ok(done.rows_affected())
}

async fn insert_ledger(connection: &mut PgConnection, batches: &[&Batch]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO usage_ledger (ledger_id, batch_id, accepted_at, key_id, events, bytes) OVERRIDING SYSTEM VALUE
         SELECT (SELECT coalesce(least(min(ledger_id), 0), 0) FROM usage_ledger) - row_number() OVER (), batch.*
         FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::bigint[]) AS batch
         ON CONFLICT (batch_id) DO NOTHING",
    )
    .bind(batches.iter().map(|batch| batch.batch_id).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| date_time(batch.accepted_at)).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| batch.key_id.as_str()).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| count(batch.events.len())).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| integer(batch.raw_bytes)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("restore the usage ledger"))?;
    Ok(())
}

async fn insert_idempotency(
    connection: &mut PgConnection,
    batches: &[&Batch],
    window_start: OffsetDateTime,
) -> Result<(), Error> {
    let window_start = micros(window_start);
    let keyed: Vec<(Uuid, &[u8], OffsetDateTime)> = batches
        .iter()
        .filter(|batch| batch.accepted_at >= window_start)
        .filter_map(|batch| Some((batch.batch_id, batch.body_hash.as_ref()?.as_slice(), date_time(batch.accepted_at))))
        .collect();
    if keyed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO idempotency (batch_id, body_hash, created_at)
         SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) ON CONFLICT DO NOTHING",
    )
    .bind(keyed.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
    .bind(keyed.iter().map(|(_, hash, _)| *hash).collect::<Vec<_>>())
    .bind(keyed.iter().map(|(.., at)| *at).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("restore the idempotency keys"))?;
    Ok(())
}

/// An entry holds at most some 20 million of anything.
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
