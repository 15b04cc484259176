//! From the spool into the archive.
//!
//! Which rows go into the next object is noted first. So whoever tries again after a death makes
//! the very same object under the same key, and no second copy of any line is ever left behind.
//! Rows point to the object only once it is there.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Rooms};
use crate::event::{Micros, date_time, micros};
use crate::fail_points::{Point, reach};
use crate::queue::entry::{BatchHeader, Header, MAX_STORED_BYTES};
use crate::stores::archive::{Builder, Built};
use crate::stores::catalog::{LIMIT, failed};
use crate::tenancy::Tenant;

/// Compressed bytes in the spool that make an object: below it, a PUT costs more than its bytes.
const OBJECT_BYTES: i64 = 8 * 1024 * 1024;
/// Compressed bytes that end an object, so that one pass holds no more in memory.
const MAX_OBJECT_BYTES: i64 = 32 * 1024 * 1024;
/// Spool rows of one object: their ids are noted in one row.
pub(super) const MAX_ROWS: i64 = 10_000;

/// What is done once an object is there.
const STAMP: &str = "stamp what is archived";

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archived {
    /// Too little, and not old enough.
    Nothing,
    /// One object was made.
    Object {
        /// Its key.
        key: String,
    },
    /// Spool rows that no batch refers to were removed.
    Leftovers,
}

/// What is known of a spool row without its bytes.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct SpoolRow {
    pub(crate) spool_id: i64,
    pub(crate) bytes: i64,
    pub(crate) created_at: OffsetDateTime,
}

/// Makes the next object of a tenant, if it is due at `now`. A PostgreSQL that is gone without a word ends it in time:
/// what is done in one transaction takes a fraction of the bound.
pub async fn archive(rooms: &Rooms, tenant: &Tenant, max_age: Duration, now: Micros) -> Result<Archived, Error> {
    let catalog = &rooms.catalog;
    let planned = catalog.within(LIMIT, "note the next object", plan(rooms, tenant, max_age, now));
    let Some(spool_ids) = planned.await? else { return Ok(Archived::Nothing) };
    reach(Point::ArchiveNoted);
    let built = catalog.within(LIMIT, "read the spool", build(rooms, tenant, &spool_ids));
    let Some(built) = built.await? else {
        catalog.within(LIMIT, STAMP, stamp(rooms, tenant, &spool_ids, None)).await?;
        return Ok(Archived::Leftovers);
    };
    let Built { key, bytes, .. } = &built;
    rooms.archive.put(tenant, key, bytes.clone()).await?;
    reach(Point::ArchivePut);
    catalog.within(LIMIT, STAMP, stamp(rooms, tenant, &spool_ids, Some(&built))).await?;
    reach(Point::ArchiveStamped);
    tracing::info!(tenant.name = %tenant.name(), bytes = bytes.len(), events = built.events, "archived {key}");
    Ok(Archived::Object { key: built.key })
}

/// The spool rows of the next object: those noted before, else those that are due.
async fn plan(rooms: &Rooms, tenant: &Tenant, max_age: Duration, now: Micros) -> Result<Option<Vec<i64>>, Error> {
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let noted: Option<Vec<i64>> = sqlx::query_scalar("SELECT spool_ids FROM archiving")
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed("look up the next object"))?;
    if noted.is_some() {
        return Ok(noted);
    }
    let rows: Vec<SpoolRow> = sqlx::query_as(
        "SELECT spool_id, octet_length(frame)::bigint AS bytes, created_at FROM spool ORDER BY spool_id LIMIT $1",
    )
    .bind(MAX_ROWS)
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed("look at the spool"))?;
    let Some(spool_ids) = choose(&rows, max_age, now) else { return Ok(None) };
    sqlx::query("INSERT INTO archiving (spool_ids) VALUES ($1)")
        .bind(&spool_ids)
        .execute(&mut *transaction)
        .await
        .map_err(failed("note the next object"))?;
    transaction.commit().await.map_err(failed("note the next object"))?;
    Ok(Some(spool_ids))
}

/// Whether so many rows of so many bytes make an object, the oldest of which came at `oldest`.
pub(super) fn is_due(oldest: Micros, rows: i64, bytes: i64, max_age: Duration, now: Micros) -> bool {
    let old_enough = u128::try_from(now.saturating_sub(oldest)).is_ok_and(|waited| waited >= max_age.as_micros());
    old_enough || bytes >= OBJECT_BYTES || rows >= MAX_ROWS
}

/// The rows of the next object, if there is enough or something old enough.
pub(crate) fn choose(rows: &[SpoolRow], max_age: Duration, now: Micros) -> Option<Vec<i64>> {
    let oldest = rows.iter().map(|row| micros(row.created_at)).min()?;
    let total = rows.iter().map(|row| row.bytes).sum();
    if !is_due(oldest, rows.len() as i64, total, max_age, now) {
        return None;
    }
    let mut bytes = 0;
    let fitting = rows.iter().take_while(|row| {
        let fits = bytes == 0 || bytes + row.bytes <= MAX_OBJECT_BYTES;
        bytes += row.bytes;
        fits
    });
    Some(fitting.map(|row| row.spool_id).collect())
}

/// The object of these spool rows: the lines of every batch that refers to them, in their order.
async fn build(rooms: &Rooms, tenant: &Tenant, spool_ids: &[i64]) -> Result<Option<Built>, Error> {
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let batches: Vec<(i64, Uuid)> = sqlx::query_as("SELECT spool_id, batch_id FROM batches WHERE spool_id = ANY($1)")
        .bind(spool_ids)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed("look up spooled batches"))?;
    let mut wanted: HashMap<i64, Vec<Uuid>> = HashMap::new();
    for (spool_id, batch_id) in batches {
        wanted.entry(spool_id).or_default().push(batch_id);
    }
    let mut builder = Builder::new(tenant)?;
    for spool_id in spool_ids {
        let Some(batches) = wanted.remove(spool_id) else { continue };
        let spooled = spooled(&mut transaction, *spool_id).await?;
        // Megabytes of zstd stay off the threads that serve everything else.
        let added = tokio::task::spawn_blocking(move || {
            for (batch, raw) in spooled.batches() {
                if batches.contains(&batch.batch_id) {
                    builder.push(batch, raw)?;
                }
            }
            Ok::<_, Error>(builder)
        });
        builder = added.await.map_err(|error| spool_error(*spool_id, error))??;
    }
    Ok(builder.finish(tenant)?)
}

/// A spool row that was read.
pub(super) struct Spooled {
    header: Header,
    raw: Vec<u8>,
}

impl Spooled {
    /// Each batch with its raw bytes.
    pub(super) fn batches(&self) -> impl Iterator<Item = (&BatchHeader, &[u8])> {
        let mut rest = self.raw.as_slice();
        self.header.batches.iter().map(move |batch| {
            let (bytes, after) = rest.split_at(batch.raw_bytes().min(rest.len()));
            rest = after;
            (batch, bytes)
        })
    }
}

/// Reads a spool row, as the tenant's role.
pub(super) async fn spooled(connection: &mut PgConnection, spool_id: i64) -> Result<Spooled, Error> {
    let (header, frame): (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT header, frame FROM spool WHERE spool_id = $1")
        .bind(spool_id)
        .fetch_one(connection)
        .await
        .map_err(failed("read the spool"))?;
    let header = postcard::from_bytes(&header).map_err(|error| spool_error(spool_id, error))?;
    let unpacked = tokio::task::spawn_blocking(move || zstd::bulk::decompress(&frame, MAX_STORED_BYTES));
    let raw = unpacked.await.map_err(|error| spool_error(spool_id, error))?;
    Ok(Spooled { header, raw: raw.map_err(|error| spool_error(spool_id, error))? })
}

fn spool_error(spool_id: i64, reason: impl std::fmt::Display) -> Error {
    Error::Spool { spool_id, reason: reason.to_string() }
}

/// Points the batches to their object and removes the spool rows: all of it, once.
async fn stamp(rooms: &Rooms, tenant: &Tenant, spool_ids: &[i64], built: Option<&Built>) -> Result<(), Error> {
    let doing = STAMP;
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let noted = sqlx::query("DELETE FROM archiving WHERE spool_ids = $1")
        .bind(spool_ids)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
    if noted.rows_affected() == 0 {
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
    transaction.commit().await.map_err(failed(doing))?;
    Ok(())
}

async fn insert_object(connection: &mut PgConnection, built: &Built) -> Result<i64, Error> {
    let (first, last) = built.footer.accepted;
    let object_id = sqlx::query_scalar(
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
    .map_err(failed("insert the object's row"))?;
    Ok(object_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_made_when_it_is_full_or_old() {
        const MIB: i64 = 1024 * 1024;
        let now = 1_767_323_045_000_000;
        let row = |spool_id, bytes, age_seconds: i64| SpoolRow {
            spool_id,
            bytes,
            created_at: date_time(now - age_seconds * 1_000_000),
        };
        for (name, rows, expected) in [
            ("nothing", vec![], None),
            ("young and little", vec![row(1, MIB, 299)], None),
            ("old", vec![row(1, 10, 300), row(2, 10, 0)], Some(vec![1, 2])),
            ("enough", vec![row(1, 4 * MIB, 1), row(2, 4 * MIB, 0)], Some(vec![1, 2])),
            ("too much for one", vec![row(1, 20 * MIB, 1), row(2, 12 * MIB, 0), row(3, 1, 0)], Some(vec![1, 2])),
            ("a clock that went back", vec![row(1, 10, -1000)], None),
        ] {
            assert_eq!(choose(&rows, Duration::from_secs(300), now), expected, "{name}");
        }
    }
}
