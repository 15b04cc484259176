//! From the spool into the archive.
//!
//! Which rows go into the next object is noted first. So whoever tries again after a death makes
//! the very same object under the same key, and no second copy of any line is ever left behind.
//! Rows point to the object only once it is there.
//!
//! A spool row that can't be read is set aside, in the spool: it keeps nobody waiting, and stays for whoever looks
//! into it as long as the tenant keeps what it sends.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Rooms};
use crate::event::{Micros, micros};
use crate::fail_points::{Point, reach};
use crate::stores::archive::{Builder, Built};
use crate::stores::catalog::{LIMIT, SpoolReader, SpoolRow, Spooled};
use crate::tenancy::Tenant;

/// Compressed bytes in the spool that make an object: below it, a PUT costs more than its bytes.
const OBJECT_BYTES: i64 = 8 * 1024 * 1024;
/// Compressed bytes that end an object, so that one pass holds no more in memory.
const MAX_OBJECT_BYTES: i64 = 32 * 1024 * 1024;
/// Spool rows of one object: their ids are noted in one row.
pub(super) const MAX_ROWS: i64 = 10_000;

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

/// Makes the next object of a tenant, if it is due at `now`. A PostgreSQL that is gone without a word ends it in time:
/// what is done in one transaction takes a fraction of the bound.
pub async fn archive(rooms: &Rooms, tenant: &Tenant, max_age: Duration, now: Micros) -> Result<Archived, Error> {
    let catalog = &rooms.catalog;
    let noted = catalog.note_next_object(tenant, MAX_ROWS, |rows| choose(rows, max_age, now));
    let Some(spool_ids) = noted.await? else { return Ok(Archived::Nothing) };
    reach(Point::ArchiveNoted);
    let built = catalog.within(LIMIT, "read the spool", build(rooms, tenant, &spool_ids));
    let built = match built.await? {
        Read::Object(built) => built,
        Read::Leftovers => {
            catalog.stamp_archived(tenant, &spool_ids, None).await?;
            return Ok(Archived::Leftovers);
        }
        Read::Unreadable(unreadable) => {
            let rows = catalog.set_spool_rows_aside(tenant, &spool_ids, &unreadable).await?;
            for (spool_id, reason) in unreadable.iter().filter(|_| rows > 0) {
                tracing::error!(tenant.name = %tenant.name(), spool_id, reason, "spool row {spool_id} of {} can't be read: {reason}; it is set aside", tenant.name());
            }
            return Ok(Archived::SetAside { rows });
        }
    };
    let Built { key, bytes, .. } = &built;
    rooms.archive.put(tenant, key, bytes.clone()).await?;
    reach(Point::ArchivePut);
    catalog.stamp_archived(tenant, &spool_ids, Some(&built)).await?;
    reach(Point::ArchiveStamped);
    tracing::info!(tenant.name = %tenant.name(), bytes = bytes.len(), events = built.events, "archived {key}");
    Ok(Archived::Object { key: built.key })
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
    let mut spool = rooms.catalog.read_spool(tenant).await?;
    let mut wanted = spool.batches(spool_ids).await?;
    let mut builder = Builder::new(tenant)?;
    let mut unreadable = Vec::new();
    for spool_id in spool_ids {
        let Some(batches) = wanted.remove(spool_id) else { continue };
        let spooled = match spooled(&mut spool, *spool_id, &batches).await {
            Ok(spooled) => spooled,
            Err(Error::Spool { spool_id, reason }) => {
                unreadable.push((spool_id, reason));
                continue;
            }
            // Nothing more can be read in this transaction.
            Err(Error::Catalog(error)) if error.is_damage() => {
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

/// A spool row, unpacked, if it has all these batches.
async fn spooled(spool: &mut SpoolReader, spool_id: i64, batches: &[Uuid]) -> Result<Spooled, Error> {
    let unreadable = |reason: String| Error::Spool { spool_id, reason };
    let (header, frame) = spool.row(spool_id).await?.ok_or_else(|| unreadable("it is gone".to_owned()))?;
    let unpacked = tokio::task::spawn_blocking(move || Spooled::unpack(&header, &frame));
    let spooled = unpacked.await.map_err(|error| Error::Mapping(error.to_string()))?.map_err(unreadable)?;
    match batches.iter().find(|id| !spooled.has(**id)) {
        Some(missing) => Err(unreadable(format!("it does not have batch {missing}"))),
        None => Ok(spooled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::date_time;

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
