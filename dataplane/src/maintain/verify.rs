//! Whether a tenant's stores agree: catalog, spool or archive, index and ledger, line by line; and
//! what can be made again where they do not.
//!
//! ```text
//!  span of acceptance ─► slices ─► documents, then rows, then raw lines ─► compare each batch ─► report
//! ```
//! Documents are listed before rows are read, because a document is made after its row: whatever
//! goes on meanwhile looks like no difference.

mod compare;
mod raw;
mod report;

pub use report::{Difference, Kind, Repaired, Report};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::late_index::{Lines, unpacked};
use super::lock::wait_for;
use super::{Error, Rooms, late_index, rebuild};
use crate::event::{Micros, rfc3339};
use crate::stores::catalog::{Held, HeldBatch, HeldLine, Whereabouts, Work};
use crate::stores::index::Listed;
use crate::tenancy::Tenant;
use compare::{Raw, Seen, compare};
use raw::RawReader;

const MICROS_PER_MILLI: Micros = 1000;
/// Batches, lines and raw bytes that end a slice: some 50 MB of memory.
const SLICE: (i64, u64, u64) = (2_000, 50_000, 32 * 1024 * 1024);
/// Documents of a slice beyond which it is halved: the catalog may have lost what the index has.
const SLICE_DOCUMENTS: u64 = 200_000;

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// From this time of acceptance on, and up to that. Earlier than retention goes back is ignored.
    pub span: (Micros, Micros),
    /// Differences that are listed; all are counted.
    pub max_differences: usize,
}

/// Compares a tenant's stores.
pub async fn verify(rooms: &Rooms, tenant: &Arc<Tenant>, options: Options, now: Micros) -> Result<Report, Error> {
    Verifier::new(rooms, tenant, options, now).run(None).await
}

/// Repairs what can be repaired, then compares again: the report says what is left. Keeps the
/// tenant's other maintenance out meanwhile.
pub async fn repair(rooms: &Rooms, tenant: &Arc<Tenant>, options: Options, now: Micros) -> Result<Report, Error> {
    let lock = wait_for(&rooms.catalog, tenant, Work::Passes).await?;
    // First, so that no document of such a batch is taken for nobody's.
    let batches = rebuild::restore_unknown(rooms, tenant, options.span, now).await?.batches;
    let mut repaired = Repaired { batches, ..Repaired::default() };
    let before = Verifier::new(rooms, tenant, options, now).run(Some(&mut repaired)).await?;
    repaired.differences_before = before.difference_count;
    repaired.indexed_batches = late_index(rooms, tenant, now).await?;
    lock.release().await;
    let mut report = verify(rooms, tenant, options, now).await?;
    report.repaired = Some(repaired);
    Ok(report)
}

struct Verifier<'a> {
    rooms: &'a Rooms,
    tenant: &'a Arc<Tenant>,
    span: (Micros, Micros),
    max_differences: usize,
    hot_after: Micros,
    raw: RawReader<'a>,
    report: Report,
}

impl<'a> Verifier<'a> {
    fn new(rooms: &'a Rooms, tenant: &'a Arc<Tenant>, options: Options, now: Micros) -> Self {
        let span = whole_millis((options.span.0.max(tenant.kept_after(now)), options.span.1.min(now)));
        let (from, to) = (rfc3339(span.0), rfc3339(span.1));
        Self {
            rooms,
            tenant,
            span,
            max_differences: options.max_differences,
            hot_after: tenant.hot_after(now),
            raw: RawReader::new(rooms, tenant),
            report: Report { tenant: tenant.name().to_string(), from, to, ..Report::default() },
        }
    }

    async fn run(mut self, mut repaired: Option<&mut Repaired>) -> Result<Report, Error> {
        self.rooms.index.refresh(self.tenant).await?;
        let mut from = self.span.0;
        while from < self.span.1 {
            let to = self.slice(from).await?;
            self.compare((from, to), repaired.as_deref_mut()).await?;
            from = to;
        }
        self.unknown_objects().await?;
        self.report.objects = self.raw.objects;
        Ok(self.report)
    }

    /// The end of the slice that begins at `from`.
    async fn slice(&self, from: Micros) -> Result<Micros, Error> {
        let batches = self.rooms.catalog.acceptances(self.tenant, (from, self.span.1), SLICE.0).await?;
        let mut to = slice_end(&batches, self.span.1);
        while to - from > MICROS_PER_MILLI && self.rooms.index.count(self.tenant, (from, to)).await? > SLICE_DOCUMENTS {
            to = next_milli(from + (to - from) / 2);
        }
        Ok(to)
    }

    async fn compare(&mut self, slice: (Micros, Micros), repaired: Option<&mut Repaired>) -> Result<(), Error> {
        let listed_at = self.rooms.catalog.now().await?;
        let documents = self.rooms.index.listed(self.tenant, slice).await?;
        let mut held = self.rooms.catalog.held(self.tenant, slice).await?;
        let mut raw = self.raw.read(&held.batches).await?;
        if raw.values().any(|raw| matches!(raw, Raw::Missing(_))) {
            // A spool row may have been archived between the two: then it is found now.
            held = self.rooms.catalog.held(self.tenant, slice).await?;
            raw = self.raw.read(&held.batches).await?;
        }
        self.report.documents += documents.len() as u64;
        let mut documents: HashSet<Listed> = documents.into_iter().collect();
        let lacking = self.compare_batches(&held, &raw, &mut documents, listed_at);
        self.foreign(&held, &documents);
        if let Some(repaired) = repaired {
            self.repair(&held, lacking, documents, repaired).await?;
        }
        Ok(())
    }

    /// Compares each batch. Gives back those that lack documents, and those that lack rows.
    fn compare_batches(
        &mut self,
        held: &Held,
        raw: &HashMap<Uuid, Raw>,
        documents: &mut HashSet<Listed>,
        listed_at: Micros,
    ) -> Lacking {
        let mut lacking = Lacking::default();
        let (rows, dead_letters) = (by_batch(&held.rows), by_batch(&held.dead_letters));
        let nowhere = Raw::Missing("it was not looked for".to_owned());
        for batch in &held.batches {
            let of_batch =
                |lines: &BTreeMap<Uuid, Vec<HeldLine>>| lines.get(&batch.batch_id).cloned().unwrap_or_default();
            let (rows, dead_letters) = (of_batch(&rows), of_batch(&dead_letters));
            let is_hot = batch.accepted_at >= self.hot_after;
            let is_indexed = is_hot && batch.indexed_at.is_some_and(|at| at < listed_at);
            let raw = raw.get(&batch.batch_id).unwrap_or(&nowhere);
            let seen = Seen { batch, rows: &rows, dead_letters: &dead_letters, raw, is_indexed };
            let findings = compare(&seen, documents);
            self.report.batches += 1;
            self.report.events += rows.len() as u64;
            self.report.dead_letters += dead_letters.len() as u64;
            self.report.raw_bytes += batch.raw_bytes;
            self.report.waiting_batches += u64::from(is_hot && !is_indexed && batch.indexed_at.is_none());
            if findings.lacks_documents || findings.lacks_rows {
                lacking.documents.push(batch.batch_id);
            }
            if findings.lacks_rows {
                lacking.rows.push(batch.clone());
            }
            for difference in findings.differences {
                self.report.add(difference, self.max_differences);
            }
        }
        lacking
    }

    /// Notes rows and documents that no batch of the catalog stands for.
    fn foreign(&mut self, held: &Held, documents: &HashSet<Listed>) {
        let known: HashSet<Uuid> = held.batches.iter().map(|batch| batch.batch_id).collect();
        let mut strays: BTreeMap<Uuid, u64> = BTreeMap::new();
        for row in held.rows.iter().filter(|row| !known.contains(&row.batch_id)) {
            *strays.entry(row.batch_id).or_default() += 1;
        }
        for (batch_id, count) in strays {
            let detail = format!("{count} rows of a batch that the catalog does not have");
            let difference = Difference { kind: Kind::RowsExtra, batch_id: Some(batch_id), count, detail };
            self.report.add(difference, self.max_differences);
        }
        let mut indices: BTreeMap<&str, (u64, Uuid)> = BTreeMap::new();
        for Listed { id, index } in documents {
            indices.entry(index).or_insert((0, *id)).0 += 1;
        }
        for (index, (count, first)) in indices {
            let detail = format!("{count} documents in {index} that no row stands for, such as {first}");
            let difference = Difference { kind: Kind::DocumentsExtra, batch_id: None, count, detail };
            self.report.add(difference, self.max_differences);
        }
    }

    /// Objects of the span with batches that the catalog does not know.
    async fn unknown_objects(&mut self) -> Result<(), Error> {
        for rebuild::Unknown { key, footer, .. } in rebuild::unknown(self.rooms, self.tenant, self.span).await? {
            let difference = match footer {
                Ok(batches) => {
                    let count = batches.len() as u64;
                    let detail = format!("`{key}` has {count} batches that the catalog does not know");
                    Difference { kind: Kind::ObjectUnknown, batch_id: None, count, detail }
                }
                Err(detail) => Difference { kind: Kind::RawDamaged, batch_id: None, count: 1, detail },
            };
            self.report.add(difference, self.max_differences);
        }
        Ok(())
    }

    /// Restores rows from raw lines, removes documents of no row, and asks for what the index lacks
    /// to be indexed again.
    async fn repair(
        &self,
        held: &Held,
        lacking: Lacking,
        documents: HashSet<Listed>,
        repaired: &mut Repaired,
    ) -> Result<(), Error> {
        let dead: Arc<HashSet<Uuid>> = Arc::new(held.dead_letters.iter().map(|line| line.event_id).collect());
        for batch in &lacking.rows {
            repaired.rows += self.restore_rows((batch.batch_id, batch.whereabouts), &dead).await?;
        }
        // With rows of an unknown batch the documents are all that is left to be understood.
        let known: HashSet<Uuid> = held.batches.iter().map(|batch| batch.batch_id).collect();
        let strays: HashSet<Uuid> =
            held.rows.iter().filter(|row| !known.contains(&row.batch_id)).map(|row| row.event_id).collect();
        let extra: Vec<Listed> = documents.into_iter().filter(|listed| !strays.contains(&listed.id)).collect();
        self.rooms.index.remove(self.tenant, &extra).await?;
        repaired.documents_removed += extra.len() as u64;
        self.rooms.catalog.unmark_indexed(self.tenant, &lacking.documents).await?;
        Ok(())
    }

    async fn restore_rows(&self, place: (Uuid, Whereabouts), dead: &Arc<HashSet<Uuid>>) -> Result<u64, Error> {
        let parts = match Lines::new(self.rooms, self.tenant).read(&[place]).await {
            // Nothing to restore from: the report says so.
            Err(Error::Archive(_)) => return Ok(0),
            parts => parts?,
        };
        let dead = Arc::clone(dead);
        let mapped = tokio::task::spawn_blocking(move || {
            let mut batches = unpacked(parts, |batch| batch.batch_id == place.0);
            for batch in &mut batches {
                batch.events.retain(|event| !dead.contains(&event.id));
            }
            batches
        });
        let mut batches = mapped.await.map_err(|error| Error::Mapping(error.to_string()))?;
        Ok(self.rooms.catalog.restore_rows(self.tenant, &mut batches).await?)
    }
}

/// What batches of a slice lack.
#[derive(Default)]
struct Lacking {
    documents: Vec<Uuid>,
    rows: Vec<HeldBatch>,
}

fn by_batch(lines: &[HeldLine]) -> BTreeMap<Uuid, Vec<HeldLine>> {
    let mut batches: BTreeMap<Uuid, Vec<HeldLine>> = BTreeMap::new();
    for line in lines {
        batches.entry(line.batch_id).or_default().push(*line);
    }
    batches
}

/// The span in whole milliseconds, widened: event ids and the index know no shorter time.
fn whole_millis((from, to): (Micros, Micros)) -> (Micros, Micros) {
    (from.div_euclid(MICROS_PER_MILLI) * MICROS_PER_MILLI, next_milli(to))
}

fn next_milli(micros: Micros) -> Micros {
    (micros + MICROS_PER_MILLI - 1).div_euclid(MICROS_PER_MILLI) * MICROS_PER_MILLI
}

/// Where a slice ends that begins with these batches, at most `to`: the millisecond after the batch
/// that fills it. `batches` are all up to `to`, or as many as a slice may have.
fn slice_end(batches: &[(Micros, u64, u64)], to: Micros) -> Micros {
    let (mut lines, mut bytes) = (0, 0);
    for (number, (accepted_at, batch_lines, batch_bytes)) in (1..).zip(batches) {
        lines += batch_lines;
        bytes += batch_bytes;
        if number >= SLICE.0 || lines >= SLICE.1 || bytes >= SLICE.2 {
            return next_milli(accepted_at + 1).min(to);
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_after_the_millisecond_that_fills_it() {
        let to = 1_000_000;
        let many: Vec<_> = (0..SLICE.0).map(|n| (n, 1, 1)).collect();
        for (name, batches, expected) in [
            ("nothing", vec![], to),
            ("little", vec![(10, 10, 10), (20, 10, 10)], to),
            ("lines", vec![(1500, 30_000, 1), (2500, 30_000, 1), (3500, 1, 1)], 3000),
            ("on a millisecond", vec![(2000, 60_000, 1)], 3000),
            ("bytes", vec![(1500, 1, 40 << 20)], 2000),
            ("batches", many, 2000),
            ("the end", vec![(to - 1, 60_000, 1)], to),
        ] {
            assert_eq!(slice_end(&batches, to), expected, "{name}");
        }
    }

    #[test]
    fn a_span_is_widened_to_whole_milliseconds() {
        assert_eq!(whole_millis((1500, 2500)), (1000, 3000));
        assert_eq!(whole_millis((1000, 3000)), (1000, 3000));
    }
}
