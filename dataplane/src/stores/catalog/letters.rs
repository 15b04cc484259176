//! Dead letters that are to be tried again: which these are, and what becomes of them.
//!
//! A line that is an event now moves from the dead letters to the events in one transaction, under
//! the id that it always had. So whoever dies in between leaves either the one or the other.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::copy::{self, Row};
use super::store::{COPYING, copy_rows};
use super::{Catalog, Error, Kind, Whereabouts, failed, has_code};
use crate::event::{Micros, micros};
use crate::stores::batch::Batch;
use crate::tenancy::Tenant;

/// A batch with dead letters that are to be tried again.
#[derive(Debug, Clone)]
pub struct ToRedrive {
    /// The batch's id.
    pub batch_id: Uuid,
    /// The letters.
    pub letters: Vec<Uuid>,
    /// The batch; `None` if it, or the partition for its events, is no longer there.
    pub batch: Option<LetterBatch>,
    /// Whether the index has the batch's events.
    pub indexed: bool,
    /// How often this was begun and not ended.
    pub starts: i32,
}

/// The batch that letters came in.
#[derive(Debug, Clone)]
pub struct LetterBatch {
    /// Its id.
    pub batch_id: Uuid,
    /// When ingest accepted it.
    pub accepted_at: Micros,
    /// The index that takes its events.
    pub index_name: String,
    /// Where its raw lines are.
    pub whereabouts: Whereabouts,
}

/// What became of the letters of one batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// Those that are events now.
    pub events: Vec<Uuid>,
    /// How many failed again.
    pub failed: u64,
}

/// A row of the query for [`ToRedrive`].
#[derive(sqlx::FromRow)]
struct Found {
    batch_id: Uuid,
    letters: Vec<Uuid>,
    starts: i32,
    accepted_at: Option<OffsetDateTime>,
    index_name: Option<String>,
    indexed: bool,
    spool_id: Option<i64>,
    object_id: Option<i64>,
    has_partition: bool,
}

impl Catalog {
    /// Batches stored at least `age` ago with letters that are to be tried again, those that have
    /// waited longest first. A schema that has no place for that wish holds none.
    pub async fn to_redrive(&self, tenant: &Tenant, age: Duration, limit: i64) -> Result<Vec<ToRedrive>, Error> {
        const UNDEFINED_COLUMN: &str = "42703";
        let mut transaction = self.begin(tenant).await?;
        let found: Result<Vec<Found>, _> = sqlx::query_as(
            "SELECT d.batch_id, d.letters, d.starts, b.accepted_at, b.index_name, b.indexed_at IS NOT NULL AS indexed, b.spool_id,
                    b.object_id,
                    EXISTS (SELECT FROM partitions WHERE begins <= b.accepted_at AND ends > b.accepted_at) AS has_partition
             FROM (SELECT batch_id, array_agg(event_id) AS letters, max(redrive_starts) AS starts, min(redrive_at) AS since
                   FROM dead_letters
                   WHERE redrive_at IS NOT NULL AND purged_at IS NULL AND batch_id IS NOT NULL GROUP BY batch_id) d
             LEFT JOIN batches b USING (batch_id)
             WHERE b.stored_at IS NULL OR b.stored_at <= now() - make_interval(secs => $1)
             ORDER BY d.since LIMIT $2",
        )
        .bind(age.as_secs_f64())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await;
        match found {
            Ok(found) => Ok(found.into_iter().map(ToRedrive::from).collect()),
            Err(error) if has_code(&error, UNDEFINED_COLUMN) => Ok(Vec::new()),
            Err(error) => Err(failed("find what is to be redriven")(error)),
        }
    }

    /// Notes that letters are about to be tried again.
    pub async fn begin_redrive(&self, tenant: &Tenant, letters: &[Uuid]) -> Result<(), Error> {
        let doing = "begin a redrive";
        let mut transaction = self.begin(tenant).await?;
        sqlx::query("UPDATE dead_letters SET redrive_starts = redrive_starts + 1 WHERE event_id = ANY($1)")
            .bind(letters)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))
    }

    /// Tries letters of a batch again: `batch` is what its lines are now. An event that PostgreSQL
    /// refuses stays a dead letter.
    pub async fn redrive(&self, tenant: &Tenant, batch: &mut Batch, letters: &[Uuid]) -> Result<Redriven, Error> {
        let letters: HashSet<Uuid> = letters.iter().copied().collect();
        loop {
            let refusal = match self.try_redrive(tenant, batch, &letters).await {
                Err(error) if error.doing == COPYING && error.kind() == Kind::Refused => error,
                outcome => return outcome,
            };
            let rows = rows(batch, &letters);
            let refused = self.find_refused(tenant, &rows).await?;
            if refused.is_empty() {
                return Err(refusal);
            }
            // Each further attempt has one refused row less.
            batch.refuse(&refused);
        }
    }

    async fn try_redrive(&self, tenant: &Tenant, batch: &Batch, letters: &HashSet<Uuid>) -> Result<Redriven, Error> {
        let doing = "redrive dead letters";
        let mut transaction = self.begin(tenant).await?;
        // What was purged meanwhile stays purged.
        let wanted: Vec<Uuid> = sqlx::query_scalar(
            "SELECT event_id FROM dead_letters
             WHERE event_id = ANY($1) AND redrive_at IS NOT NULL AND purged_at IS NULL ORDER BY event_id FOR UPDATE",
        )
        .bind(letters.iter().copied().collect::<Vec<_>>())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        let wanted: HashSet<Uuid> = wanted.into_iter().collect();
        let rows = rows(batch, &wanted);
        let events: Vec<Uuid> = rows.iter().map(|(_, row)| row.id).collect();
        if !rows.is_empty() {
            copy_rows(&mut transaction, &rows).await?;
            sqlx::query("DELETE FROM dead_letters WHERE event_id = ANY($1)")
                .bind(&events)
                .execute(&mut *transaction)
                .await
                .map_err(failed(doing))?;
            sqlx::query(
                "UPDATE batches SET events = events + $2, dead_letters = dead_letters - $2, indexed_at = NULL
                 WHERE batch_id = $1",
            )
            .bind(batch.batch_id)
            .bind(i32::try_from(events.len()).unwrap_or(i32::MAX))
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        }
        let failures: Vec<_> = wanted.iter().filter(|id| !events.contains(id)).map(|id| failure(batch, *id)).collect();
        note_failures(&mut transaction, &failures).await?;
        transaction.commit().await.map_err(failed(doing))?;
        Ok(Redriven { events, failed: failures.len() as u64 })
    }

    /// Notes that these letters failed again, all for one reason.
    pub async fn fail_letters(
        &self,
        tenant: &Tenant,
        letters: &[Uuid],
        code: &'static str,
        error: &str,
    ) -> Result<(), Error> {
        let failures: Vec<_> = letters.iter().map(|id| (*id, code, error.to_owned())).collect();
        let mut transaction = self.begin(tenant).await?;
        note_failures(&mut transaction, &failures).await?;
        transaction.commit().await.map_err(failed("note that a redrive failed"))
    }

    /// Puts letters behind all others that wait to be tried again.
    pub async fn postpone_letters(&self, tenant: &Tenant, letters: &[Uuid]) -> Result<(), Error> {
        let doing = "postpone a redrive";
        let mut transaction = self.begin(tenant).await?;
        sqlx::query(
            "UPDATE dead_letters SET redrive_at = now(), redrive_starts = 0
             WHERE event_id = ANY($1) AND redrive_at IS NOT NULL",
        )
        .bind(letters)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.commit().await.map_err(failed(doing))
    }
}

impl From<Found> for ToRedrive {
    fn from(found: Found) -> Self {
        let Found { batch_id, letters, accepted_at, index_name, indexed, spool_id, object_id, has_partition, starts } =
            found;
        let batch = || {
            let whereabouts = spool_id.map(Whereabouts::Spool).or(object_id.map(Whereabouts::Object))?;
            Some(LetterBatch { batch_id, accepted_at: micros(accepted_at?), index_name: index_name?, whereabouts })
        };
        Self { batch_id, letters, batch: batch().filter(|_| has_partition), indexed, starts }
    }
}

/// The rows of those events that are wanted.
fn rows<'a>(batch: &'a Batch, wanted: &HashSet<Uuid>) -> Vec<Row<'a>> {
    copy::rows_of(std::iter::once(batch)).into_iter().filter(|(_, row)| wanted.contains(&row.id)).collect()
}

/// A letter that failed again, and why.
type Failure = (Uuid, &'static str, String);

fn failure(batch: &Batch, id: Uuid) -> Failure {
    match batch.dead_letters.iter().find(|letter| letter.id == id) {
        Some(letter) => (id, letter.code, letter.error.clone()),
        None => (id, "line_missing", "its batch's raw bytes hold no such line".to_owned()),
    }
}

async fn note_failures(connection: &mut PgConnection, failures: &[Failure]) -> Result<(), Error> {
    if failures.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE dead_letters SET attempts = attempts + 1, retried_at = now(), redrive_at = NULL, redrive_starts = 0,
                                 code = failure.code, error = failure.error
         FROM unnest($1::uuid[], $2::text[], $3::text[]) AS failure (event_id, code, error)
         WHERE dead_letters.event_id = failure.event_id",
    )
    .bind(failures.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
    .bind(failures.iter().map(|(_, code, _)| *code).collect::<Vec<_>>())
    .bind(failures.iter().map(|(.., error)| error.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("note that a redrive failed"))?;
    Ok(())
}
