//! Partitions ahead of time, and the end of what is kept no longer.
//!
//! Rows go first, by whole partitions; what they refer to follows, in bounded steps; an object is
//! deleted last, when no row leads to it any more.
//!
//! What is deleted stays deleted, so no single clock decides it: nothing goes that is kept by
//! PostgreSQL's clock, whatever ours says.

use std::time::{Duration, Instant};

use runtime::logging::chain;
use time::OffsetDateTime;

use super::{Error, Rooms};
use crate::event::{Micros, date_time};
use crate::queue::Oldest;
use crate::stores::archive::DELETED_AT_ONCE;
use crate::stores::catalog::{Expiring, KEY_WINDOW};
use crate::tenancy::Tenant;

/// Rows of a table deleted by one statement, so that none holds its locks for long.
const ROWS_AT_ONCE: u64 = 5_000;
/// Longest time that one call goes on with what there still is to delete, so that the other tenants have their turn. Some
/// 25,000 rows go in a second: more than ten times what the busiest tenant of a server can add.
const TURN: Duration = Duration::from_secs(10);
/// How far the clocks of ingest, which says when a batch was accepted, and of Redis, which says when it was added, are
/// apart at most: beyond that, nothing is accepted.
const CLOCKS_APART: Micros = 12 * 3600 * 1_000_000;

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Partitions of event rows.
    pub partitions: i32,
    /// Rows of batches, ledger, dead letters, spool and keys.
    pub rows: u64,
    /// Objects of the archive.
    pub objects: u64,
    /// There is more, and the turn is over.
    pub more: bool,
}

/// Makes the partitions of all that is kept at `now`, and some ahead. Gives back how many were made.
pub async fn partitions(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<i32, Error> {
    Ok(rooms.catalog.ensure_partitions(tenant, now).await?)
}

/// Removes what is kept no longer at `now`, and by PostgreSQL's clock, for a turn of each kind.
pub async fn expire(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let rows = expire_rows(rooms, tenant, now).await?;
    let objects = expire_objects(rooms, tenant, now).await?;
    Ok(Expired { objects: objects.objects, more: rows.more || objects.more, ..rows })
}

/// Removes partitions and rows that are kept no longer, which takes PostgreSQL alone; keys too, if the queue answers.
pub(super) async fn expire_rows(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let begun = Instant::now();
    let now = now.min(rooms.catalog.now().await?);
    let dropped = rooms.catalog.drop_expired_partitions(tenant, now).await;
    let cutoff = rooms.catalog.cutoff(tenant, now).await?;
    let counted = rooms.usage.counted(tenant).await?;
    let mut expired = Expired::default();
    let oldest = rooms.waiting.oldest(tenant).await.unwrap_or_else(|error| {
        tracing::debug!(tenant.name = %tenant.name(), error = %chain(&error), "no idempotency key is forgotten");
        Oldest::Unread
    });
    let forgotten = forgotten(now, oldest);
    let mut left: Vec<_> = old(cutoff, date_time(forgotten), counted).into();
    // Each in its turn: the first must not use up the time of the others.
    while !left.is_empty() && !expired.more {
        let mut more = Vec::new();
        for (expiring, before) in left {
            let rows = rooms.catalog.delete_expired(tenant, expiring, before, ROWS_AT_ONCE).await?;
            expired.rows += rows;
            if rows == ROWS_AT_ONCE {
                more.push((expiring, before));
            }
        }
        left = more;
        expired.more = !left.is_empty() && begun.elapsed() >= TURN;
    }
    // Somebody may have read the rows for too long, which is no reason to keep what was done with before.
    expired.partitions = dropped?;
    Ok(expired)
}

/// Removes objects whose rows are gone.
pub(super) async fn expire_objects(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let begun = Instant::now();
    let now = now.min(rooms.catalog.now().await?);
    let cutoff = rooms.catalog.cutoff(tenant, now).await?;
    let mut expired = Expired::default();
    let mut full = true;
    while full && !expired.more {
        let objects = delete_objects(rooms, tenant, cutoff).await?;
        expired.objects += objects;
        full = objects == DELETED_AT_ONCE as u64;
        expired.more = full && begun.elapsed() >= TURN;
    }
    Ok(expired)
}

/// Keys of batches that were accepted before this are kept no longer: what came under them within their window is stored
/// too. While an event waits, so may one that came under a key as long before.
fn forgotten(now: Micros, oldest: Oldest) -> Micros {
    let since = match oldest {
        Oldest::Nothing => now,
        Oldest::Since(added) => now.min(added - CLOCKS_APART),
        Oldest::Unread => return 0,
    };
    since - KEY_WINDOW
}

/// Which rows are kept no longer: those from before `cutoff`, and keys from before `forgotten`.
fn old(cutoff: OffsetDateTime, forgotten: OffsetDateTime, counted: i64) -> [(Expiring, OffsetDateTime); 6] {
    [
        (Expiring::Usage { counted }, cutoff),
        (Expiring::Letters, cutoff),
        (Expiring::LettersWithoutBatch, cutoff),
        (Expiring::Batches, cutoff),
        // Nobody has archived what nobody can read: until here, somebody can still look into it.
        (Expiring::UnreadableSpoolRows, cutoff),
        (Expiring::IdempotencyKeys, forgotten),
    ]
}

/// Deletes objects that no batch refers to any more: then their rows, which lead nobody there, so that an object that could
/// not be deleted now is tried again.
async fn delete_objects(rooms: &Rooms, tenant: &Tenant, cutoff: OffsetDateTime) -> Result<u64, Error> {
    let keys = rooms.catalog.unreferenced_objects(tenant, cutoff, DELETED_AT_ONCE).await?;
    if keys.is_empty() {
        return Ok(0);
    }
    let (gone, failure) = rooms.archive.delete_all(tenant, &keys).await;
    rooms.catalog.forget_objects(tenant, &gone).await?;
    failure.map_or(Ok(gone.len() as u64), |error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_for_as_long_as_something_may_wait_that_came_under_it() {
        let now = 100 * KEY_WINDOW;
        for (oldest, expected) in [
            (Oldest::Nothing, now - KEY_WINDOW),
            (Oldest::Since(now), now - CLOCKS_APART - KEY_WINDOW),
            (Oldest::Since(now - KEY_WINDOW), now - CLOCKS_APART - 2 * KEY_WINDOW),
            (Oldest::Since(now + 3 * CLOCKS_APART), now - KEY_WINDOW),
            (Oldest::Unread, 0),
        ] {
            assert_eq!(forgotten(now, oldest), expected, "{oldest:?}");
        }
    }
}
