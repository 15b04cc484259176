//! A tenant's catalog and index, made again from the archive alone.
//!
//! ```text
//!  objects ─► footers ─► batches that the catalog lacks ─► raw lines ─► mapped ─► rows, ledger, keys ─► index
//! ```
//! Event ids follow from batch ids and acceptance, so every event has the id that it had. Each batch
//! is restored by one transaction or not at all, and one that is there is left as it is: a rebuild
//! may end anywhere and begin again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::late_index::{Lines, unpacked};
use super::lock::wait_for;
use super::{Error, Rooms, late_index, usage};
use crate::event::{Micros, date_time};
use crate::stores::archive::{self, FooterBatch};
use crate::stores::batch::Batch;
use crate::stores::catalog::{ArchivedObject, Documents, KEY_WINDOW, Whereabouts, Work};
use crate::tenancy::Tenant;

const MICROS_PER_DAY: Micros = 24 * 3600 * 1_000_000;
/// Raw bytes and batches that are restored by one transaction.
const STEP: (u64, usize) = (2 * 1024 * 1024, 1_000);

/// What a rebuild did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuilt {
    /// The tenant.
    pub tenant: String,
    /// Objects that had batches to restore.
    pub objects: u64,
    /// Batches restored.
    pub batches: u64,
    /// Batches that the index had to be given.
    pub indexed_batches: u64,
    /// Objects that can't be read, and why.
    pub unreadable: Vec<String>,
}

/// An object of which the catalog lacks batches.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) key: String,
    pub(super) bytes: u64,
    /// The batches that it lacks; else why the object can't be read.
    pub(super) footer: Result<Vec<FooterBatch>, String>,
}

/// Restores a tenant's catalog and index from its archive. Refuses a catalog that holds something,
/// unless what it lacks is to be restored `into_existing`.
pub async fn rebuild(rooms: &Rooms, tenant: &Arc<Tenant>, into_existing: bool, now: Micros) -> Result<Rebuilt, Error> {
    let lock = wait_for(&rooms.catalog, tenant, Work::Passes).await?;
    if !into_existing && !rooms.catalog.is_empty(tenant).await? {
        lock.release().await;
        return Err(Error::NotEmpty);
    }
    raise_write_number(rooms, tenant).await?;
    let mut rebuilt = restore_unknown(rooms, tenant, (Micros::MIN, Micros::MAX), now).await?;
    rebuilt.indexed_batches = late_index(rooms, tenant, now).await?;
    lock.release().await;
    Ok(rebuilt)
}

/// Restores the batches of a span that the catalog does not know, and settles what they used. The
/// caller keeps the tenant's other maintenance out.
pub(super) async fn restore_unknown(
    rooms: &Rooms,
    tenant: &Arc<Tenant>,
    span: (Micros, Micros),
    now: Micros,
) -> Result<Rebuilt, Error> {
    let mut rebuilt = Rebuilt { tenant: tenant.name().to_string(), ..Rebuilt::default() };
    let kept_after = tenant.kept_after(now);
    let restorer = Restorer { rooms, tenant, now };
    for Unknown { key, bytes, footer } in unknown(rooms, tenant, (span.0.max(kept_after), span.1)).await? {
        match footer {
            Err(reason) => rebuilt.unreadable.push(reason),
            Ok(batches) => {
                let batches = restorer.restore(&key, bytes, &batches).await?;
                tracing::info!(tenant.name = %tenant.name(), batches, "restored {batches} batches from {key}");
                rebuilt.objects += 1;
                rebuilt.batches += batches;
            }
        }
    }
    usage::settle(rooms, tenant).await?;
    Ok(rebuilt)
}

/// Objects with batches of a span that the catalog does not know, in the order of their batches.
pub(super) async fn unknown(rooms: &Rooms, tenant: &Tenant, span: (Micros, Micros)) -> Result<Vec<Unknown>, Error> {
    let known_keys = rooms.catalog.object_keys(tenant).await?;
    let mut unknown = Vec::new();
    for (key, bytes) in rooms.archive.objects(tenant).await? {
        if !overlaps(&key, span) {
            continue;
        }
        let footer = match rooms.archive.footer(tenant, &key, bytes).await {
            Ok(footer) => footer,
            // Objects that the catalog knows are read when their batches are compared.
            Err(archive::Error::Damaged { .. }) if known_keys.contains(&key) => continue,
            Err(error @ archive::Error::Damaged { .. }) => {
                unknown.push(Unknown { key, bytes, footer: Err(error.to_string()) });
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut batches = footer.batches;
        batches.retain(|batch| batch.accepted_at >= span.0 && batch.accepted_at < span.1);
        let ids: Vec<Uuid> = batches.iter().map(|batch| batch.batch_id).collect();
        let known = rooms.catalog.known(tenant, &ids).await?;
        batches.retain(|batch| !known.contains(&batch.batch_id));
        if !batches.is_empty() {
            unknown.push(Unknown { key, bytes, footer: Ok(batches) });
        }
    }
    Ok(unknown)
}

/// Whether an object may hold batches of a span: its key says when its first and last were accepted,
/// in milliseconds. One whose key says nothing may.
fn overlaps(key: &str, (from, to): (Micros, Micros)) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    let mut parts = name.splitn(3, '-').map(|part| part.parse::<Micros>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(first), Some(last)) => {
            first.saturating_mul(1000) < to && last.saturating_add(1).saturating_mul(1000) > from
        }
        _ => true,
    }
}

/// Writes on to the newest index that there is: a new catalog would begin again with the first.
async fn raise_write_number(rooms: &Rooms, tenant: &Tenant) -> Result<(), Error> {
    let series = &tenant.registered().index_series;
    let newest = rooms.index.of_series(series).await?.into_iter().map(|index| index.state.number).max();
    if let Some(newest) = newest
        && rooms.catalog.raise_write_number(series, newest).await?
    {
        tracing::info!(series, newest, "series {series} goes on with its newest index");
    }
    Ok(())
}

struct Restorer<'a> {
    rooms: &'a Rooms,
    tenant: &'a Arc<Tenant>,
    now: Micros,
}

impl Restorer<'_> {
    /// Restores batches of one object. Gives back how many.
    async fn restore(&self, key: &str, bytes: u64, batches: &[FooterBatch]) -> Result<u64, Error> {
        self.make_partitions(batches).await?;
        let footer = self.rooms.archive.footer(self.tenant, key, bytes).await?;
        let object = ArchivedObject { key: key.to_owned(), bytes, footer };
        let object_id = self.rooms.catalog.restore_object(self.tenant, &object).await?;
        let window_start = date_time(self.now - KEY_WINDOW);
        let lines = Lines::new(self.rooms, self.tenant);
        let mut restored = 0;
        for step in steps(batches) {
            let wanted: HashSet<Uuid> = step.iter().map(|batch| batch.batch_id).collect();
            let places: Vec<_> = wanted.iter().map(|id| (*id, Whereabouts::Object(object_id))).collect();
            let parts = lines.read(&places).await?;
            let mapped = tokio::task::spawn_blocking(move || unpacked(parts, |batch| wanted.contains(&batch.batch_id)));
            let mut batches = mapped.await.map_err(|error| Error::Mapping(error.to_string()))?;
            let documents = self.documents(&batches).await?;
            let catalog = &self.rooms.catalog;
            restored += catalog.restore_batches(self.tenant, object_id, &mut batches, &documents, window_start).await?;
        }
        Ok(restored)
    }

    async fn make_partitions(&self, batches: &[FooterBatch]) -> Result<(), Error> {
        // Partitions are whole days.
        let days: HashSet<Micros> = batches.iter().map(|batch| batch.accepted_at.div_euclid(MICROS_PER_DAY)).collect();
        for day in days {
            self.rooms.catalog.ensure_partition(self.tenant, date_time(day * MICROS_PER_DAY)).await?;
        }
        Ok(())
    }

    /// Where the documents of these batches are. An event is known by its id inside one index only,
    /// so a batch that has documents goes on in the index that has them.
    async fn documents(&self, batches: &[Batch]) -> Result<HashMap<Uuid, Documents>, Error> {
        let hot_after = self.tenant.hot_after(self.now);
        let hot = batches.iter().filter(|batch| batch.accepted_at >= hot_after);
        let ids: Vec<Uuid> = hot.flat_map(|batch| &batch.events).map(|event| event.id).collect();
        let located = self.rooms.index.located(self.tenant, &ids).await?;
        let write_index = self.rooms.catalog.write_index(self.tenant).await?;
        let documents = |batch: &Batch| match in_index(batch, &located) {
            Some((index_name, there)) => Documents { index_name, complete: there == batch.events.len() },
            // What is cold would be dropped at once.
            None => Documents { index_name: write_index.clone(), complete: batch.accepted_at < hot_after },
        };
        Ok(batches.iter().map(|batch| (batch.batch_id, documents(batch))).collect())
    }
}

/// The index that has most of a batch's events, and how many.
fn in_index(batch: &Batch, located: &HashMap<Uuid, String>) -> Option<(String, usize)> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for index in batch.events.iter().filter_map(|event| located.get(&event.id)) {
        *counts.entry(index).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(index, count)| (index.clone(), count))
}

/// Batches in the parts that are restored by one transaction.
fn steps(batches: &[FooterBatch]) -> Vec<&[FooterBatch]> {
    let mut steps = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (at, batch) in batches.iter().enumerate() {
        if at > begin && (bytes + batch.raw_bytes() > STEP.0 || at - begin >= STEP.1) {
            steps.push(&batches[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += batch.raw_bytes();
    }
    if begin < batches.len() {
        steps.push(&batches[begin..]);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::entry::EventHeader;

    #[test]
    fn a_key_says_whether_its_object_is_of_a_span() {
        let key = "p/logs/acme/2026-01-02/03/1000-2000-00ff.lhz";
        for (key, span, expected) in [
            (key, (0, 1_000_000), false),
            (key, (0, 1_000_001), true),
            (key, (2_000_999, 9_000_000), true),
            (key, (2_001_000, 9_000_000), false),
            (key, (Micros::MIN, Micros::MAX), true),
            // Whoever can put objects can name one so.
            ("1000-9223372036854775807-00ff.lhz", (0, Micros::MAX), true),
            ("something else", (0, 1), true),
        ] {
            assert_eq!(overlaps(key, span), expected, "{key} {span:?}");
        }
    }

    #[test]
    fn batches_are_restored_in_bounded_steps() {
        const MIB: u32 = 1024 * 1024;
        let batch = |length| FooterBatch {
            batch_id: Uuid::nil(),
            accepted_at: 0,
            key_id: String::new(),
            body_hash: None,
            raw_start: 0,
            events: vec![EventHeader { length, time: None, rejected: None }],
        };
        for (lengths, expected) in [
            (vec![], vec![]),
            (vec![1, 1], vec![2]),
            (vec![MIB, MIB, 1], vec![2, 1]),
            (vec![9 * MIB, 1, 9 * MIB], vec![1, 1, 1]),
            (vec![1; 1001], vec![1000, 1]),
        ] {
            let batches: Vec<FooterBatch> = lengths.into_iter().map(batch).collect();
            let cut: Vec<usize> = steps(&batches).iter().map(|step| step.len()).collect();
            assert_eq!(cut, expected);
        }
    }
}
