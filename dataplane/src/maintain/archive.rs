//! From the spool into the archive.
//!
//! Which rows go into the next object is noted first. So whoever tries again after a death makes
//! the very same object under the same key, and no second copy of any line is ever left behind.
//! Rows point to the object only once it is there.
//!
//! A spool row that can't be read is set aside, in the spool: it keeps nobody waiting, and stays for whoever looks
//! into it as long as the tenant keeps what it sends.

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
use crate::stores::catalog::{LIMIT, UNDEFINED_COLUMN, failed, has_code};
use crate::tenancy::Tenant;

/// Compressed bytes in the spool that make an object: below it, a PUT costs more than its bytes.
const OBJECT_BYTES: i64 = 8 * 1024 * 1024;
/// Compressed bytes that end an object, so that one pass holds no more in memory.
const MAX_OBJECT_BYTES: i64 = 32 * 1024 * 1024;
/// Spool rows of one object: their ids are noted in one row.
pub(super) const MAX_ROWS: i64 = 10_000;

/// What is done once an object is there.
const STAMP: &str = "stamp what is archived";
/// SQLSTATE of bytes that PostgreSQL itself finds damaged.
const DATA_CORRUPTED: &str = "XX001";

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
    /// Spool rows can't be read: they are set aside, and the others are still to be archived.
    SetAside {
        /// How many.
        rows: u64,
    },
}

/// What the noted spool rows hold.
enum Read {
    /// Nothing that a batch refers to.
    Leftovers,
    /// An object.
    Object(Built),
    /// These rows can't be read, for these reasons.
    Unreadable(Vec<(i64, String)>),
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
    let built = match built.await? {
        Read::Object(built) => built,
        Read::Leftovers => {
            catalog.within(LIMIT, STAMP, stamp(rooms, tenant, &spool_ids, None)).await?;
            return Ok(Archived::Leftovers);
        }
        Read::Unreadable(unreadable) => {
            let setting = set_aside(rooms, tenant, &spool_ids, &unreadable);
            let rows = catalog.within(LIMIT, "set unreadable spool rows aside", setting).await?;
            return Ok(Archived::SetAside { rows });
        }
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
    // In a schema of the version before, `unreadable_at` is the outer one.
    let rows: Vec<SpoolRow> = sqlx::query_as(
        "SELECT first.* FROM (SELECT NULL::timestamptz AS unreadable_at) AS before
         CROSS JOIN LATERAL (SELECT spool_id, octet_length(frame)::bigint AS bytes, created_at FROM spool
                             WHERE unreadable_at IS NULL ORDER BY spool_id LIMIT $1) AS first
         ORDER BY spool_id",
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

/// What these spool rows hold: the lines of every batch that refers to them, in their order. Nothing is left out of
/// an object: a row goes into one as a whole, or is set aside before it is made.
async fn build(rooms: &Rooms, tenant: &Tenant, spool_ids: &[i64]) -> Result<Read, Error> {
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
    let mut unreadable = Vec::new();
    for spool_id in spool_ids {
        let Some(batches) = wanted.remove(spool_id) else { continue };
        let spooled = match spooled(&mut transaction, *spool_id).await {
            Ok(spooled) => spooled.having(*spool_id, &batches),
            Err(error) => Err(error),
        };
        let spooled = match spooled {
            Ok(spooled) => spooled,
            Err(Error::Spool { spool_id, reason }) => {
                unreadable.push((spool_id, reason));
                continue;
            }
            // Nothing more can be read in this transaction.
            Err(Error::Catalog(error)) if has_code(&error.source, DATA_CORRUPTED) => {
                unreadable.push((*spool_id, error.source.to_string()));
                break;
            }
            Err(error) => return Err(error),
        };
        if !unreadable.is_empty() {
            continue;
        }
        // Megabytes of zstd stay off the threads that serve everything else.
        let added = tokio::task::spawn_blocking(move || {
            for (batch, raw) in spooled.batches() {
                if batches.contains(&batch.batch_id) {
                    builder.push(batch, raw)?;
                }
            }
            Ok::<_, Error>(builder)
        });
        builder = added.await.map_err(|error| Error::Mapping(error.to_string()))??;
    }
    if !unreadable.is_empty() {
        return Ok(Read::Unreadable(unreadable));
    }
    Ok(builder.finish(tenant)?.map_or(Read::Leftovers, Read::Object))
}

/// Sets spool rows aside that can't be read, and leaves the others to the next object. Returns how many.
async fn set_aside(
    rooms: &Rooms,
    tenant: &Tenant,
    spool_ids: &[i64],
    unreadable: &[(i64, String)],
) -> Result<u64, Error> {
    let doing = "set unreadable spool rows aside";
    let (ids, reasons): (Vec<i64>, Vec<&str>) = unreadable.iter().map(|(id, reason)| (*id, reason.as_str())).unzip();
    let mut transaction = rooms.catalog.begin(tenant).await?;
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
    if !forget(&mut transaction, spool_ids, doing).await? {
        // Somebody else was at this very object meanwhile.
        return Ok(0);
    }
    transaction.commit().await.map_err(failed(doing))?;
    for (spool_id, reason) in unreadable {
        tracing::error!(tenant.name = %tenant.name(), spool_id, reason, "spool row {spool_id} of {} can't be read: {reason}; it is set aside", tenant.name());
    }
    Ok(updated.rows_affected())
}

/// Spool rows of a tenant that are set aside.
pub(super) async fn unreadable(rooms: &Rooms, tenant: &Tenant) -> Result<i64, Error> {
    let doing = "count unreadable spool rows";
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let rows = sqlx::query_scalar("SELECT count(*) FROM spool WHERE unreadable_at IS NOT NULL")
        .fetch_one(&mut *transaction)
        .await;
    match rows {
        Ok(rows) => Ok(rows),
        // The operator has not brought the schema to this version yet: none was set aside.
        Err(error) if has_code(&error, UNDEFINED_COLUMN) => Ok(0),
        Err(error) => Err(failed(doing)(error).into()),
    }
}

/// A spool row that was read.
pub(super) struct Spooled {
    /// Which batches it has.
    pub(super) header: Header,
    /// Their raw lines.
    pub(super) raw: Vec<u8>,
}

impl Spooled {
    /// What a row holds, if its header and its frame go together.
    pub(super) fn unpack(header: &[u8], frame: &[u8]) -> Result<Self, String> {
        let header: Header = postcard::from_bytes(header).map_err(|error| format!("its header: {error}"))?;
        let raw = zstd::bulk::decompress(frame, MAX_STORED_BYTES).map_err(|error| format!("its frame: {error}"))?;
        let said: usize = header.batches.iter().map(BatchHeader::raw_bytes).sum();
        if raw.len() != said {
            return Err(format!("{} raw bytes instead of {said}", raw.len()));
        }
        Ok(Self { header, raw })
    }

    /// Itself, if it has all these batches.
    fn having(self, spool_id: i64, batches: &[Uuid]) -> Result<Self, Error> {
        let has = |id: &&Uuid| self.header.batches.iter().any(|batch| batch.batch_id == **id);
        match batches.iter().find(|id| !has(id)) {
            Some(missing) => Err(spool_error(spool_id, format!("it does not have batch {missing}"))),
            None => Ok(self),
        }
    }

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
    let row: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as("SELECT header, frame FROM spool WHERE spool_id = $1")
        .bind(spool_id)
        .fetch_optional(connection)
        .await
        .map_err(failed("read the spool"))?;
    let (header, frame) = row.ok_or_else(|| spool_error(spool_id, "it is gone"))?;
    let unpacked = tokio::task::spawn_blocking(move || Spooled::unpack(&header, &frame));
    let unpacked = unpacked.await.map_err(|error| Error::Mapping(error.to_string()))?;
    unpacked.map_err(|reason| spool_error(spool_id, reason))
}

fn spool_error(spool_id: i64, reason: impl std::fmt::Display) -> Error {
    Error::Spool { spool_id, reason: reason.to_string() }
}

/// Takes the note of an object away. False: there is none any more.
async fn forget(connection: &mut PgConnection, spool_ids: &[i64], doing: &'static str) -> Result<bool, Error> {
    let forgotten = sqlx::query("DELETE FROM archiving WHERE spool_ids = $1").bind(spool_ids).execute(connection).await;
    Ok(forgotten.map_err(failed(doing))?.rows_affected() > 0)
}

/// Points the batches to their object and removes the spool rows: all of it, once.
async fn stamp(rooms: &Rooms, tenant: &Tenant, spool_ids: &[i64], built: Option<&Built>) -> Result<(), Error> {
    let doing = STAMP;
    let mut transaction = rooms.catalog.begin(tenant).await?;
    if !forget(&mut transaction, spool_ids, doing).await? {
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
