//! Entries that can never be stored: which these are, and how their lines are kept all the same.
//!
//! No batch is made of them. So their lines stand as dead letters with their own bytes, are kept as long as any other
//! letter from when they were met, and are not billed.

use std::collections::HashSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Catalog, Error, Provenance, failed};
use crate::event::{Micros, date_time, micros};
use crate::queue::entry::MAX_STORED_BYTES;
use crate::stores::batch::{Batch, Frame, kept};
use crate::tenancy::Tenant;

/// A line that is kept by itself.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    id: Uuid,
    raw: Vec<u8>,
    code: &'static str,
    error: String,
}

/// Why lines of an entry can't be stored.
#[derive(Debug, Clone)]
pub struct Reason {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub error: String,
}

impl Error {
    /// Whether a row lies outside every partition: a check violation that names no constraint.
    pub fn is_without_partition(&self) -> bool {
        let error = self.source.as_database_error();
        error.is_some_and(|error| error.code().as_deref() == Some("23514") && error.constraint().is_none())
    }
}

impl Catalog {
    /// Which of these moments of acceptance will never have a partition: by PostgreSQL's clock longer ago than the tenant
    /// keeps anything, or more than a day ahead. `maintain` makes those of all others.
    pub async fn out_of_time(&self, tenant: &Tenant, moments: &[Micros]) -> Result<HashSet<Micros>, Error> {
        let doing = "find what was accepted out of time";
        self.bounded(doing, async {
            let mut transaction = self.begin(tenant).await?;
            let found: Vec<OffsetDateTime> = sqlx::query_scalar(
                "SELECT moment FROM unnest($1::timestamptz[]) AS moment
                 WHERE moment NOT BETWEEN now() - make_interval(days => $2) AND now() + interval '1 day'
                   AND NOT EXISTS (SELECT FROM partitions WHERE begins <= moment AND ends > moment)",
            )
            .bind(moments.iter().copied().map(date_time).collect::<Vec<_>>())
            .bind(tenant.registered().total_days)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed(doing))?;
            transaction.rollback().await.map_err(failed(doing))?;
            Ok(found.into_iter().map(micros).collect())
        })
        .await
    }

    /// Keeps every line of these frames as a dead letter with its own bytes: as what it is already, or for this reason.
    /// Gives back how many lines there are. Twice is the same as once.
    pub async fn keep_lines(
        &self,
        tenant: &Tenant,
        frames: &[Frame],
        reason: &Reason,
        from: &Provenance,
    ) -> Result<u64, Error> {
        let doing = "keep the lines of an entry that can't be stored";
        let mut kept = 0;
        for frame in frames {
            let (frame, reason) = (frame.clone(), reason.clone());
            let unpacked = tokio::task::spawn_blocking(move || lines(&frame, &reason));
            let unreadable =
                |error: Box<dyn std::error::Error + Send + Sync>| failed(doing)(sqlx::Error::Encode(error));
            let lines = unpacked.await.map_err(|error| unreadable(error.into()))?;
            let lines = lines.map_err(|error| unreadable(error.into()))?;
            kept += lines.len() as u64;
            self.bounded(doing, async {
                let mut transaction = self.begin(tenant).await?;
                sqlx::query(
                    "INSERT INTO dead_letters (event_id, raw, code, error, pipeline, pipeline_generation)
                     SELECT *, $5, $6 FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[]) ON CONFLICT DO NOTHING",
                )
                .bind(lines.iter().map(|line| line.id).collect::<Vec<_>>())
                .bind(lines.iter().map(|line| line.raw.as_slice()).collect::<Vec<_>>())
                .bind(lines.iter().map(|line| line.code).collect::<Vec<_>>())
                .bind(lines.iter().map(|line| line.error.as_str()).collect::<Vec<_>>())
                .bind(&from.pipeline)
                .bind(from.generation)
                .execute(&mut *transaction)
                .await
                .map_err(failed(doing))?;
                transaction.commit().await.map_err(failed(doing))
            })
            .await?;
        }
        Ok(kept)
    }
}

/// The lines of a frame, but for those that its stages dropped.
fn lines(frame: &Frame, reason: &Reason) -> Result<Vec<Line>, std::io::Error> {
    let raw = zstd::bulk::decompress(&frame.payload, MAX_STORED_BYTES)?;
    let error = kept(&reason.error);
    let of_batch = |batch: &Batch| {
        let line = |id, offset: u32, length: u32, code, error: &str| {
            let start = usize::try_from(batch.raw_start).unwrap_or(usize::MAX).saturating_add(offset as usize);
            let bytes = raw.get(start..start.saturating_add(length as usize)).unwrap_or_default();
            Line { id, raw: bytes.to_vec(), code, error: error.to_owned() }
        };
        let events =
            batch.events.iter().map(|event| line(event.id, event.raw_offset, event.raw_length, reason.code, &error));
        let letters = batch
            .dead_letters
            .iter()
            .map(|letter| line(letter.id, letter.raw_offset, letter.raw_length, letter.code, &letter.error));
        events.chain(letters).collect::<Vec<_>>()
    };
    Ok(frame.batches.iter().flat_map(of_batch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::entry::{BatchHeader, EventHeader, Header};
    use crate::stores::batch::{Treatment, map};

    #[test]
    fn each_line_is_kept_with_its_own_bytes_and_what_was_wrong_with_it_already() {
        let batch = |id, lines: &[&str]| BatchHeader {
            batch_id: Uuid::from_u128(id),
            accepted_at: 1_767_323_045_000_000,
            key_id: "k".into(),
            body_hash: None,
            events: lines
                .iter()
                .map(|line| EventHeader { length: line.len() as u32, time: None, rejected: None })
                .collect(),
        };
        let (first, second) = ([r#"{"message":"a"}"#], [r#"{"message":"b"}"#, "broken"]);
        let header = Header { batches: vec![batch(1, &first), batch(2, &second)] };
        let raw = [first.concat(), second.concat()].concat();
        let frame = Frame {
            header: Vec::new(),
            payload: zstd::bulk::compress(raw.as_bytes(), 1).unwrap(),
            raw_bytes: raw.len() as u64,
            batches: map(&header, raw.as_bytes(), Treatment::Process),
        };
        let reason = Reason { code: "out_of_time", error: "long ago".into() };
        let lines = lines(&frame, &reason).unwrap();
        let found: Vec<_> = lines.iter().map(|line| (std::str::from_utf8(&line.raw).unwrap(), line.code)).collect();
        assert_eq!(found, [(first[0], "out_of_time"), (second[0], "out_of_time"), ("broken", "invalid_json")]);
    }
}
