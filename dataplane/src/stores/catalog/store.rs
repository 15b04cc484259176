//! Storing one tenant's flush in one transaction.
//!
//! Who comes first is decided for each request batch by its primary key. A batch that is there
//! already is not written again, whether a redelivery, a client's resend, or two processors at once.
//! What came under a key that another batch has is told apart before anything is written: see `keys`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::copy::{self, COPY_LOGS};
use super::keys::{self, Place};
use super::{Catalog, Error, Kind, Provenance, Stored, StoredBatch, enter, failed};
use crate::event::{date_time, micros, resend_batch_id};
use crate::fail_points::{Point, reach};
use crate::queue::entry::Header;
use crate::stores::batch::{Batch, Frame, Resend};
use crate::tenancy::Tenant;

/// What a COPY that PostgreSQL refused was doing: such rows can be told apart, see `refused`.
pub(super) const COPYING: &str = "copy the event rows";

/// A batch to be stored and where its frame is among the frames.
pub(super) type Candidate<'a> = (&'a Batch, usize);

/// What an attempt came to.
enum Attempt {
    Stored(Stored),
    /// Nothing was written: these are to be told apart first.
    Resends(Vec<(Place, Resend)>),
}

impl Catalog {
    /// Stores the batches of these frames. An event that PostgreSQL refuses becomes a dead letter
    /// in `frames`, a batch under another's `Idempotency-Key` a batch of its own, and everything
    /// else is stored.
    pub async fn store(&self, tenant: &Tenant, frames: &mut [Frame], from: &Provenance) -> Result<Stored, Error> {
        // Each further attempt has a refused row or a resend less, and neither comes back.
        loop {
            let refusal = match self.bounded("store a flush", self.try_store(tenant, frames, from)).await {
                Ok(Attempt::Stored(stored)) => return Ok(stored),
                Ok(Attempt::Resends(resends)) => {
                    for ((frame, batch), why) in resends {
                        frames[frame].batches[batch].tell_apart(why);
                    }
                    continue;
                }
                Err(error) if error.doing == COPYING && error.kind() == Kind::Refused => error,
                Err(error) => return Err(error),
            };
            let rows = copy::rows_of(frames.iter().flat_map(|frame| &frame.batches));
            let refused = self.find_refused(tenant, &rows).await?;
            if refused.is_empty() {
                return Err(refusal);
            }
            for batch in frames.iter_mut().flat_map(|frame| &mut frame.batches) {
                batch.refuse(&refused);
            }
        }
    }

    async fn try_store(&self, tenant: &Tenant, frames: &[Frame], from: &Provenance) -> Result<Attempt, Error> {
        let mut transaction = self.pool().begin().await.map_err(failed("begin a transaction"))?;
        let index_name = write_index(&mut transaction, tenant).await?;
        enter(&mut transaction, tenant).await?;

        // Ordered by id: two flushes that share batches wait for each other, never in a circle. Of
        // two batches with one id in a flush, the first counts.
        let mut candidates: BTreeMap<Uuid, Candidate<'_>> = BTreeMap::new();
        for (at, batch) in frames.iter().enumerate().flat_map(|(at, frame)| frame.batches.iter().map(move |b| (at, b)))
        {
            candidates.entry(batch.batch_id).or_insert((batch, at));
        }
        let mut stored = Stored::default();
        let wanted: Vec<Uuid> = candidates.keys().copied().collect();
        let keys = keys::claim(&mut transaction, frames).await?;
        if !keys.resends.is_empty() {
            transaction.rollback().await.map_err(failed("leave nothing behind before batches are told apart"))?;
            return Ok(Attempt::Resends(keys.resends));
        }
        candidates.retain(|_, (batch, _)| !keys.is_nothing_new(batch));
        let won = insert_batches(&mut transaction, frames, &candidates, &index_name, from).await?;
        candidates.retain(|id, _| won.contains(id));
        for (id, (batch, _)) in &candidates {
            let accepted_at = batch.accepted_at;
            let index_name = index_name.clone();
            let batch = StoredBatch { new: true, accepted_at, index_name, indexed: false, same_stages: true };
            stored.batches.insert(*id, batch);
        }
        let lost: Vec<Uuid> = wanted.into_iter().filter(|id| !won.contains(id)).collect();
        if !lost.is_empty() {
            earlier(&mut transaction, &lost, from, &mut stored).await?;
        }
        if !candidates.is_empty() {
            let rows = copy::rows_of(candidates.values().map(|(batch, _)| *batch));
            copy_rows(&mut transaction, &rows).await?;
            insert_dead_letters(&mut transaction, &candidates, from).await?;
            note_first(&mut transaction, &candidates).await?;
            note_dropped(&mut transaction, candidates.values().map(|(batch, _)| *batch)).await?;
        }
        reach(Point::ProcessUncommitted);
        transaction.commit().await.map_err(failed("commit a flush"))?;
        Ok(Attempt::Stored(stored))
    }
}

/// The index that the tenant's series is written to now.
pub(super) async fn write_index(connection: &mut PgConnection, tenant: &Tenant) -> Result<String, Error> {
    let series = &tenant.registered().index_series;
    let number: i64 = sqlx::query_scalar("SELECT write_number FROM public.index_series WHERE series = $1")
        .bind(series)
        .fetch_one(connection)
        .await
        .map_err(failed("look up the index that is written to"))?;
    Ok(crds::names::index_name(series, number))
}

/// Inserts the batches that are not there yet, in the order of their ids, and gives back which these are; bills
/// them, and spools the frames that hold any of them. What is decided by a row that may be there already stands
/// in one statement with what depends on it: each statement costs PostgreSQL more than its rows do.
async fn insert_batches(
    connection: &mut PgConnection,
    frames: &[Frame],
    candidates: &BTreeMap<Uuid, Candidate<'_>>,
    index_name: &str,
    from: &Provenance,
) -> Result<HashSet<Uuid>, Error> {
    let headers = frames.iter().map(|frame| spool_header(frame, candidates)).collect::<Result<Vec<_>, _>>()?;
    let column = || candidates.values();
    let won: Vec<Uuid> = sqlx::query_scalar(
        "WITH frames AS MATERIALIZED (
             SELECT *, nextval('spool_spool_id_seq') AS spool_id
             FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS f (header, frame, raw_bytes, place)
         ), won AS (
             INSERT INTO batches (batch_id, accepted_at, key_id, events, dead_letters, raw_bytes, raw_start, spool_id,
                                  index_name, pipeline, pipeline_generation, indexed_at)
             SELECT batch_id, accepted_at, key_id, events, dead_letters, b.raw_bytes, raw_start, spool_id, $12, $13, $14,
                    CASE WHEN events = 0 THEN now() END
             FROM unnest($4::uuid[], $5::timestamptz[], $6::text[], $7::int[], $8::int[], $9::bigint[], $10::bigint[],
                         $11::bigint[])
                  AS b (batch_id, accepted_at, key_id, events, dead_letters, raw_bytes, raw_start, place)
             JOIN frames USING (place)
             ORDER BY batch_id
             ON CONFLICT DO NOTHING RETURNING batch_id, accepted_at, key_id, events, raw_bytes, spool_id
         ), spooled AS (
             INSERT INTO spool (spool_id, header, frame, raw_bytes) OVERRIDING SYSTEM VALUE
             SELECT spool_id, header, frame, raw_bytes FROM frames WHERE spool_id IN (SELECT spool_id FROM won)
         ), billed AS (
             INSERT INTO usage_ledger (batch_id, accepted_at, key_id, events, bytes)
             SELECT batch_id, accepted_at, key_id, events, raw_bytes FROM won
         )
         SELECT batch_id FROM won",
    )
    .bind(headers.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>())
    .bind(frames.iter().map(|frame| frame.payload.as_slice()).collect::<Vec<_>>())
    .bind(frames.iter().map(|frame| bytes(frame.raw_bytes)).collect::<Vec<_>>())
    .bind(candidates.keys().copied().collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| date_time(batch.accepted_at)).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| batch.key_id.as_str()).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| count(batch.events.len())).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| count(batch.dead_letters.len())).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| bytes(batch.raw_bytes)).collect::<Vec<_>>())
    .bind(column().map(|(batch, _)| bytes(batch.raw_start)).collect::<Vec<_>>())
    // PostgreSQL counts from one.
    .bind(column().map(|(_, frame)| *frame as i64 + 1).collect::<Vec<_>>())
    .bind(index_name)
    .bind(&from.pipeline)
    .bind(from.generation)
    .fetch_all(connection)
    .await
    .map_err(failed("insert the batches, their usage and their raw lines"))?;
    Ok(won.into_iter().collect())
}

/// What is known of batches that were stored before. One that is gone from the catalog, because
/// its time is over, needs nothing more.
async fn earlier(
    connection: &mut PgConnection,
    lost: &[Uuid],
    from: &Provenance,
    stored: &mut Stored,
) -> Result<(), Error> {
    let rows: Vec<(Uuid, time::OffsetDateTime, String, bool, bool)> = sqlx::query_as(
        "SELECT batch_id, accepted_at, index_name, indexed_at IS NOT NULL, (pipeline, pipeline_generation) = ($2, $3)
         FROM batches WHERE batch_id = ANY($1)",
    )
    .bind(lost)
    .bind(&from.pipeline)
    .bind(from.generation)
    .fetch_all(connection)
    .await
    .map_err(failed("look up earlier batches"))?;
    stored.batches.extend(rows.into_iter().map(|(id, accepted_at, index_name, indexed, same_stages)| {
        (id, StoredBatch { new: false, accepted_at: micros(accepted_at), index_name, indexed, same_stages })
    }));
    Ok(())
}

/// A frame's header as it goes into the spool: with the ids that its batches are stored under. One
/// that is there twice counts once, and the other gets an id that no batch has.
fn spool_header<'a>(frame: &'a Frame, candidates: &BTreeMap<Uuid, Candidate<'_>>) -> Result<Cow<'a, [u8]>, Error> {
    let repeats =
        |batch: &Batch| candidates.get(&batch.batch_id).is_some_and(|(counts, _)| !std::ptr::eq(*counts, batch));
    if !frame.batches.iter().any(|batch| batch.first_batch_id.is_some() || repeats(batch)) {
        return Ok(Cow::Borrowed(&frame.header));
    }
    let unreadable = |error: postcard::Error| failed("name the batches of a frame")(sqlx::Error::Encode(error.into()));
    let mut header: Header = postcard::from_bytes(&frame.header).map_err(unreadable)?;
    for (named, batch) in header.batches.iter_mut().zip(&frame.batches) {
        named.batch_id = if repeats(batch) {
            resend_batch_id(batch.batch_id, &[b"repeat", batch.accepted_at.to_be_bytes().as_slice()].concat())
        } else {
            batch.batch_id
        };
    }
    postcard::to_stdvec(&header).map(Cow::Owned).map_err(unreadable)
}

/// Notes beside which batch a resend stands. A schema of version 1 has no place for that, and the
/// resend is stored all the same.
async fn note_first(connection: &mut PgConnection, candidates: &BTreeMap<Uuid, Candidate<'_>>) -> Result<(), Error> {
    let (ids, firsts): (Vec<Uuid>, Vec<Uuid>) =
        candidates.values().filter_map(|(batch, _)| Some((batch.batch_id, batch.first_batch_id?))).unzip();
    if ids.is_empty() || !has_column(connection, "first_batch_id").await? {
        return Ok(());
    }
    sqlx::query(
        "UPDATE batches SET first_batch_id = resend.first_batch_id
         FROM unnest($1::uuid[], $2::uuid[]) AS resend (batch_id, first_batch_id) WHERE batches.batch_id = resend.batch_id",
    )
    .bind(ids)
    .bind(firsts)
    .execute(connection)
    .await
    .map_err(failed("note the first batch of a key"))?;
    Ok(())
}

/// Notes how many lines of each batch the stages dropped. A schema of a version before 3 has no place for
/// that.
pub(super) async fn note_dropped(
    connection: &mut PgConnection,
    batches: impl Iterator<Item = &Batch>,
) -> Result<(), Error> {
    let some = batches.filter(|batch| !batch.dropped.is_empty());
    let (ids, dropped): (Vec<Uuid>, Vec<i32>) = some.map(|batch| (batch.batch_id, count(batch.dropped.len()))).unzip();
    if ids.is_empty() || !has_column(connection, "dropped").await? {
        return Ok(());
    }
    sqlx::query(
        "UPDATE batches SET dropped = noted.dropped
         FROM unnest($1::uuid[], $2::int[]) AS noted (batch_id, dropped) WHERE batches.batch_id = noted.batch_id",
    )
    .bind(ids)
    .bind(dropped)
    .execute(connection)
    .await
    .map_err(failed("note what the stages dropped"))?;
    Ok(())
}

/// Whether the tenant's schema is new enough to have this column of its batches.
async fn has_column(connection: &mut PgConnection, column: &str) -> Result<bool, Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'batches'::regclass AND attname = $1)")
        .bind(column)
        .fetch_one(connection)
        .await
        .map_err(failed("look at the columns of the batches"))
}

pub(super) async fn copy_rows(connection: &mut PgConnection, rows: &[copy::Row<'_>]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut copy = connection.copy_in_raw(COPY_LOGS).await.map_err(failed(COPYING))?;
    copy.send(copy::encode(rows)).await.map_err(failed(COPYING))?;
    reach(Point::ProcessCopying);
    copy.finish().await.map_err(failed(COPYING))?;
    Ok(())
}

pub(super) async fn insert_dead_letters(
    connection: &mut PgConnection,
    candidates: &BTreeMap<Uuid, Candidate<'_>>,
    from: &Provenance,
) -> Result<(), Error> {
    let dead: Vec<_> = candidates
        .values()
        .flat_map(|(batch, _)| batch.dead_letters.iter().map(|letter| (batch.batch_id, letter)))
        .collect();
    if dead.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO dead_letters (event_id, batch_id, raw_offset, raw_length, code, error, pipeline, pipeline_generation)
         SELECT *, $7, $8 FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[])
         ON CONFLICT DO NOTHING",
    )
    .bind(dead.iter().map(|(_, letter)| letter.id).collect::<Vec<_>>())
    .bind(dead.iter().map(|(batch_id, _)| *batch_id).collect::<Vec<_>>())
    .bind(dead.iter().map(|(_, letter)| count(letter.raw_offset as usize)).collect::<Vec<_>>())
    .bind(dead.iter().map(|(_, letter)| count(letter.raw_length as usize)).collect::<Vec<_>>())
    .bind(dead.iter().map(|(_, letter)| letter.code).collect::<Vec<_>>())
    .bind(dead.iter().map(|(_, letter)| letter.error.as_str()).collect::<Vec<_>>())
    .bind(&from.pipeline)
    .bind(from.generation)
    .execute(connection)
    .await
    .map_err(failed("keep the dead letters"))?;
    Ok(())
}

/// An entry holds at most some 20 million of anything.
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
