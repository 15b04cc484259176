//! What the catalog holds of a span of time, line by line: for comparing it with the other stores.

use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Catalog, Error, Whereabouts, enter, failed};
use crate::event::{Micros, date_time, micros};
use crate::tenancy::Tenant;

/// Rows of batches, events and dead letters, all of one moment.
#[derive(Debug, Default)]
pub struct Held {
    /// The batches, in the order of acceptance.
    pub batches: Vec<HeldBatch>,
    /// The event rows.
    pub rows: Vec<HeldLine>,
    /// The dead letters of these batches.
    pub dead_letters: Vec<HeldLine>,
}

/// A batch's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBatch {
    /// Its id.
    pub batch_id: Uuid,
    /// When ingest accepted it.
    pub accepted_at: Micros,
    /// Lines that were stored, as events or as dead letters.
    pub lines: u32,
    /// Lines that the pipeline's stages dropped.
    pub dropped: u32,
    /// Raw bytes of its lines.
    pub raw_bytes: u64,
    /// Its first raw byte in its place.
    pub raw_start: u64,
    /// Where its raw lines are.
    pub whereabouts: Whereabouts,
    /// The index that takes its events.
    pub index_name: String,
    /// When the index had them, if it did.
    pub indexed_at: Option<Micros>,
    /// Bytes that the usage ledger has for it, if it has a row.
    pub billed_bytes: Option<i64>,
}

/// Where an event or a dead letter says that its raw line is, from its batch's first raw byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLine {
    /// The event's id.
    pub event_id: Uuid,
    /// Its batch.
    pub batch_id: Uuid,
    /// Its first raw byte.
    pub raw_offset: i64,
    /// Its raw bytes.
    pub raw_length: i64,
}

impl Catalog {
    /// The moment by PostgreSQL's clock, which stamps `indexed_at`, and without which nothing is deleted for good.
    pub async fn now(&self) -> Result<Micros, Error> {
        let (doing, pool) = ("ask PostgreSQL for the time", self.pool());
        let asking = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&pool);
        let now: OffsetDateTime = self.bounded(doing, async { asking.await.map_err(failed(doing)) }).await?;
        Ok(micros(now))
    }

    /// When each batch of a span was accepted, with its lines and raw bytes, oldest first, at most
    /// `limit` of them.
    pub async fn acceptances(
        &self,
        tenant: &Tenant,
        (from, to): (Micros, Micros),
        limit: i64,
    ) -> Result<Vec<(Micros, u64, u64)>, Error> {
        let doing = "list the batches of a span of time";
        let mut transaction = self.begin(tenant).await?;
        let rows: Vec<(OffsetDateTime, i32, i64)> = sqlx::query_as(
            "SELECT accepted_at, events + dead_letters, raw_bytes FROM batches WHERE accepted_at >= $1 AND accepted_at < $2
             ORDER BY accepted_at LIMIT $3",
        )
        .bind(date_time(from))
        .bind(date_time(to))
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(rows
            .into_iter()
            .map(|(at, lines, bytes)| (micros(at), u64::from(lines.unsigned_abs()), bytes.unsigned_abs()))
            .collect())
    }

    /// Everything of the batches accepted in a span of whole milliseconds, and event rows whose ids
    /// are of it.
    pub async fn held(&self, tenant: &Tenant, span: (Micros, Micros)) -> Result<Held, Error> {
        let doing = "read what the catalog holds";
        // One moment for all three: a flush is in all of them or in none.
        let mut transaction =
            self.pool().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed(doing))?;
        enter(&mut transaction, tenant).await?;
        let batches = batches(&mut transaction, span).await?;
        let ids: Vec<Uuid> = batches.iter().map(|batch| batch.batch_id).collect();
        let rows = lines(
            sqlx::query_as(
                "SELECT event_id, batch_id, raw_offset, raw_length FROM logs
                 WHERE event_id >= public.uuid_floor($1) AND event_id < public.uuid_floor($2)",
            )
            .bind(date_time(span.0))
            .bind(date_time(span.1))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(doing))?,
        );
        let dead_letters = lines(
            sqlx::query_as(
                "SELECT event_id, batch_id, coalesce(raw_offset, 0), coalesce(raw_length, 0) FROM dead_letters
                 WHERE batch_id = ANY($1)",
            )
            .bind(&ids)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(doing))?,
        );
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(Held { batches, rows, dead_letters })
    }
}

#[derive(sqlx::FromRow)]
struct BatchRow {
    batch_id: Uuid,
    accepted_at: OffsetDateTime,
    lines: i32,
    dropped: i32,
    raw_bytes: i64,
    raw_start: i64,
    spool_id: Option<i64>,
    object_id: Option<i64>,
    index_name: String,
    indexed_at: Option<OffsetDateTime>,
    billed_bytes: Option<i64>,
}

async fn batches(connection: &mut PgConnection, (from, to): (Micros, Micros)) -> Result<Vec<HeldBatch>, Error> {
    let rows: Vec<BatchRow> = sqlx::query_as(
        // A schema of a version before 3 has no such column.
        "SELECT b.batch_id, b.accepted_at, b.events + b.dead_letters AS lines,
                coalesce((to_jsonb(b) ->> 'dropped')::integer, 0) AS dropped, b.raw_bytes, b.raw_start, b.spool_id,
                b.object_id, b.index_name, b.indexed_at, u.bytes AS billed_bytes
         FROM batches b LEFT JOIN usage_ledger u USING (batch_id)
         WHERE b.accepted_at >= $1 AND b.accepted_at < $2 ORDER BY b.accepted_at, b.batch_id",
    )
    .bind(date_time(from))
    .bind(date_time(to))
    .fetch_all(connection)
    .await
    .map_err(failed("read the batches of a span of time"))?;
    let held = rows.into_iter().filter_map(|row| {
        Some(HeldBatch {
            batch_id: row.batch_id,
            accepted_at: micros(row.accepted_at),
            lines: row.lines.unsigned_abs(),
            dropped: row.dropped.unsigned_abs(),
            raw_bytes: row.raw_bytes.unsigned_abs(),
            raw_start: row.raw_start.unsigned_abs(),
            // A constraint sees to it that there is exactly one.
            whereabouts: row.spool_id.map(Whereabouts::Spool).or(row.object_id.map(Whereabouts::Object))?,
            index_name: row.index_name,
            indexed_at: row.indexed_at.map(micros),
            billed_bytes: row.billed_bytes,
        })
    });
    Ok(held.collect())
}

fn lines(rows: Vec<(Uuid, Uuid, i32, i32)>) -> Vec<HeldLine> {
    let line = |(event_id, batch_id, offset, length)| HeldLine {
        event_id,
        batch_id,
        raw_offset: i64::from(offset),
        raw_length: i64::from(length),
    };
    rows.into_iter().map(line).collect()
}
