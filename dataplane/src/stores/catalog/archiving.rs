//! From the spool to an object: which rows go into the next one, what they hold, and where their batches are after.

use std::collections::HashMap;

use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Catalog, Error, UNDEFINED_COLUMN, failed, has_code};
use crate::event::date_time;
use crate::fail_points::{Point, reach};
use crate::stores::archive::Built;
use crate::tenancy::Tenant;

/// What is known of a spool row without its bytes.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct SpoolRow {
    /// Its id.
    pub spool_id: i64,
    /// Compressed bytes of its lines.
    pub bytes: i64,
    /// When a processor wrote it.
    pub created_at: OffsetDateTime,
}

/// Reads rows of one tenant's spool, one after the other.
pub struct SpoolReader {
    transaction: Transaction<'static, Postgres>,
}

impl SpoolReader {
    /// The batches that refer to these rows, by row.
    pub async fn batches(&mut self, spool_ids: &[i64]) -> Result<HashMap<i64, Vec<Uuid>>, Error> {
        let rows: Vec<(i64, Uuid)> = sqlx::query_as("SELECT spool_id, batch_id FROM batches WHERE spool_id = ANY($1)")
            .bind(spool_ids)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(failed("look up spooled batches"))?;
        let mut batches: HashMap<i64, Vec<Uuid>> = HashMap::new();
        for (spool_id, batch_id) in rows {
            batches.entry(spool_id).or_default().push(batch_id);
        }
        Ok(batches)
    }

    /// Header and frame of a row, as they are stored; `None` if it is gone.
    pub async fn row(&mut self, spool_id: i64) -> Result<Option<(Vec<u8>, Vec<u8>)>, Error> {
        sqlx::query_as("SELECT header, frame FROM spool WHERE spool_id = $1")
            .bind(spool_id)
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(failed("read the spool"))
    }
}

impl Catalog {
    /// The spool rows of the next object: those noted before, else those that `choose` takes from the oldest
    /// `max_rows`, which are noted.
    pub async fn note_next_object(
        &self,
        tenant: &Tenant,
        max_rows: i64,
        choose: impl FnOnce(&[SpoolRow]) -> Option<Vec<i64>>,
    ) -> Result<Option<Vec<i64>>, Error> {
        let doing = "note the next object";
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            let noted: Option<Vec<i64>> = sqlx::query_scalar("SELECT spool_ids FROM archiving")
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed("look up the next object"))?;
            if noted.is_some() {
                return Ok(noted);
            }
            // In a schema of the version before, `unreadable_at` is the outer one.
            let rows: Vec<SpoolRow> = sqlx::query_as(
                "SELECT first.* FROM (SELECT NULL::timestamptz AS unreadable_at) AS before
                 CROSS JOIN LATERAL (SELECT spool_id, octet_length(frame)::bigint AS bytes, created_at FROM spool
                                     WHERE unreadable_at IS NULL ORDER BY spool_id LIMIT $1) AS first
                 ORDER BY spool_id",
            )
            .bind(max_rows)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed("look at the spool"))?;
            let Some(spool_ids) = choose(&rows) else { return Ok(None) };
            sqlx::query("INSERT INTO archiving (spool_ids) VALUES ($1)")
                .bind(&spool_ids)
                .execute(&mut *transaction)
                .await
                .map_err(failed(doing))?;
            transaction.commit().await.map_err(failed(doing))?;
            Ok(Some(spool_ids))
        })
        .await
    }

    /// A reader of the tenant's spool.
    pub async fn read_spool(&self, tenant: &Tenant) -> Result<SpoolReader, Error> {
        Ok(SpoolReader { transaction: self.begin(tenant).await? })
    }

    /// Points the batches of an object to it, if one was made of these rows, and removes the rows: all of it, once.
    pub async fn stamp_archived(&self, tenant: &Tenant, spool_ids: &[i64], built: Option<&Built>) -> Result<(), Error> {
        let doing = "stamp what is archived";
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            if !forget_note(&mut transaction, spool_ids, doing).await? {
                // Somebody else made this very object meanwhile, and stamped it.
                return Ok(());
            }
            if let Some(built) = built {
                let object_id = insert_object(&mut transaction, built).await?;
                let batches = &built.footer.batches;
                sqlx::query(
                    "UPDATE batches SET object_id = $1, spool_id = NULL, raw_start = placed.raw_start, archived_at = now()
                     FROM unnest($2::uuid[], $3::bigint[]) AS placed (batch_id, raw_start)
                     WHERE batches.batch_id = placed.batch_id",
                )
                .bind(object_id)
                .bind(batches.iter().map(|batch| batch.batch_id).collect::<Vec<_>>())
                .bind(batches.iter().map(|batch| batch.raw_start as i64).collect::<Vec<_>>())
                .execute(&mut *transaction)
                .await
                .map_err(failed(doing))?;
            }
            sqlx::query("DELETE FROM spool WHERE spool_id = ANY($1)")
                .bind(spool_ids)
                .execute(&mut *transaction)
                .await
                .map_err(failed(doing))?;
            reach(Point::ArchiveUncommitted);
            transaction.commit().await.map_err(failed(doing))
        })
        .await
    }

    /// Marks rows that can't be read, each with its reason, and leaves the others of these to the next object.
    /// Returns how many were marked.
    pub async fn set_spool_rows_aside(
        &self,
        tenant: &Tenant,
        spool_ids: &[i64],
        unreadable: &[(i64, String)],
    ) -> Result<u64, Error> {
        let doing = "set unreadable spool rows aside";
        self.bounded(doing, async {
            let (ids, reasons): (Vec<i64>, Vec<&str>) =
                unreadable.iter().map(|(id, reason)| (*id, reason.as_str())).unzip();
            let mut transaction = self.begin(tenant).await?;
            let updated = sqlx::query(
                "UPDATE spool SET unreadable_at = now(), unreadable = found.reason
                 FROM unnest($1::bigint[], $2::text[]) AS found (spool_id, reason) WHERE spool.spool_id = found.spool_id",
            )
            .bind(&ids)
            .bind(&reasons)
            .execute(&mut *transaction)
            .await
            .map_err(failed(doing))?;
            // Noted anew, because rows may have come that go with what is left.
            if !forget_note(&mut transaction, spool_ids, doing).await? {
                // Somebody else was at this very object meanwhile.
                return Ok(0);
            }
            transaction.commit().await.map_err(failed(doing))?;
            Ok(updated.rows_affected())
        })
        .await
    }

    /// Spool rows of a tenant that are set aside.
    pub async fn unreadable_spool_rows(&self, tenant: &Tenant) -> Result<i64, Error> {
        let mut transaction = self.begin(tenant).await?;
        let rows = sqlx::query_scalar("SELECT count(*) FROM spool WHERE unreadable_at IS NOT NULL")
            .fetch_one(&mut *transaction)
            .await;
        match rows {
            Ok(rows) => Ok(rows),
            // The operator has not brought the schema to this version yet: none was set aside.
            Err(error) if has_code(&error, UNDEFINED_COLUMN) => Ok(0),
            Err(error) => Err(failed("count unreadable spool rows")(error)),
        }
    }
}

/// Removes the note of an object. False: there is none any more.
async fn forget_note(connection: &mut PgConnection, spool_ids: &[i64], doing: &'static str) -> Result<bool, Error> {
    let forgotten = sqlx::query("DELETE FROM archiving WHERE spool_ids = $1").bind(spool_ids).execute(connection).await;
    Ok(forgotten.map_err(failed(doing))?.rows_affected() > 0)
}

async fn insert_object(connection: &mut PgConnection, built: &Built) -> Result<i64, Error> {
    let (first, last) = built.footer.accepted;
    sqlx::query_scalar(
        "INSERT INTO objects (key, bytes, raw_bytes, events, min_accepted, max_accepted, raw_starts, starts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING object_id",
    )
    .bind(&built.key)
    .bind(built.bytes.len() as i64)
    .bind(built.raw_bytes as i64)
    .bind(built.events as i64)
    .bind(date_time(first))
    .bind(date_time(last))
    .bind(&built.frames.raw_starts)
    .bind(&built.frames.starts)
    .fetch_one(connection)
    .await
    .map_err(failed("insert the object's row"))
}
