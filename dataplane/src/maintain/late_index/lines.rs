//! The raw lines of stored batches, from the spool or from the archive, as they came through the queue.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::maintain::{Error, Rooms};
use crate::queue::entry::Header;
use crate::stores::archive::{Footer, FooterBatch, Frames};
use crate::stores::batch::{Batch, Treatment, map};
use crate::stores::catalog::{self, ObjectRow, Spooled, SpooledFrame, Whereabouts};
use crate::tenancy::Tenant;

/// Raw bytes between two wanted batches of an object that are read with them rather than around:
/// what one frame holds.
const GAP_BYTES: u64 = 256 * 1024;
/// Raw bytes that end a run of batches: some more than a chunk wants.
const RUN_BYTES: u64 = 4 * 1024 * 1024;

/// Reads raw lines of one tenant's batches.
pub(in crate::maintain) struct Lines<'a> {
    rooms: &'a Rooms,
    tenant: &'a Tenant,
    /// The object that was read last: its next batches are read next.
    open: Mutex<Option<(i64, Arc<Object>)>>,
}

/// An object whose footer was read.
struct Object {
    key: String,
    frames: Frames,
    footer: Footer,
}

/// Raw lines as they are stored.
pub(in crate::maintain) enum Part {
    /// A spool row.
    Spooled(SpooledFrame),
    /// Batches of an object that are near each other.
    Archived {
        /// The first of their raw bytes, from the object's first.
        start: u64,
        /// The batches.
        batches: Vec<FooterBatch>,
        /// Their lines, and whatever is between them.
        raw: Vec<u8>,
    },
}

impl<'a> Lines<'a> {
    pub(in crate::maintain) fn new(rooms: &'a Rooms, tenant: &'a Tenant) -> Self {
        Self { rooms, tenant, open: Mutex::new(None) }
    }

    /// What holds these batches. A spool row that was archived meanwhile is left out: its batches
    /// are found again in their object.
    pub(in crate::maintain) async fn read(&self, batches: &[(Uuid, Whereabouts)]) -> Result<Vec<Part>, Error> {
        let mut rows = Vec::new();
        let mut objects: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
        for (batch_id, whereabouts) in batches {
            match whereabouts {
                Whereabouts::Spool(id) => rows.push(*id),
                Whereabouts::Object(id) => objects.entry(*id).or_default().push(*batch_id),
            }
        }
        rows.dedup();
        let spooled = self.rooms.catalog.spool_rows(self.tenant, &rows).await?;
        let mut parts: Vec<Part> = spooled.into_iter().map(Part::Spooled).collect();
        for (object_id, wanted) in objects {
            let object = self.object(object_id).await?;
            parts.extend(self.archived(&object, &wanted).await?);
        }
        Ok(parts)
    }

    async fn object(&self, object_id: i64) -> Result<Arc<Object>, Error> {
        // Held while the footer is read, so that neighbouring chunks read it once.
        let mut open = self.open.lock().await;
        if let Some((id, object)) = &*open
            && *id == object_id
        {
            return Ok(Arc::clone(object));
        }
        let row = self.rooms.catalog.object(self.tenant, object_id).await?;
        let ObjectRow { key, bytes, frames } = row.ok_or_else(|| catalog::Error::gone("look up an object"))?;
        let footer = self.rooms.archive.footer(self.tenant, &key, bytes).await?;
        let object = Arc::new(Object { key, frames, footer });
        *open = Some((object_id, Arc::clone(&object)));
        Ok(object)
    }

    async fn archived(&self, object: &Object, wanted: &[Uuid]) -> Result<Vec<Part>, Error> {
        let wanted: HashSet<Uuid> = wanted.iter().copied().collect();
        let mut parts = Vec::new();
        for run in runs(&object.footer.batches, &wanted) {
            let length = run.end - run.start;
            // Every line of these batches was dropped: there is nothing to read.
            let raw = match length {
                0 => Vec::new(),
                _ => self.rooms.archive.read(self.tenant, &object.key, &object.frames, run.start, length).await?,
            };
            parts.push(Part::Archived { start: run.start, batches: run.batches.into_iter().cloned().collect(), raw });
        }
        Ok(parts)
    }
}

/// Wanted batches of an object that are read at once.
#[derive(Debug, PartialEq, Eq)]
struct Run<'a> {
    start: u64,
    end: u64,
    batches: Vec<&'a FooterBatch>,
}

/// The wanted batches, those near each other together.
fn runs<'a>(batches: &'a [FooterBatch], wanted: &HashSet<Uuid>) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    for batch in batches.iter().filter(|batch| wanted.contains(&batch.batch_id)) {
        let (start, end) = (batch.raw_start, batch.raw_start + batch.raw_bytes());
        match runs.last_mut() {
            Some(run) if start <= run.end + GAP_BYTES && end <= run.start + RUN_BYTES => {
                run.end = end;
                run.batches.push(batch);
            }
            _ => runs.push(Run { start, end, batches: vec![batch] }),
        }
    }
    runs
}

/// The wanted batches of what was read. A part that can't be read costs its own batches only. A spool row may hold what a
/// client sent again under a key, and what lost to the batch of the same id elsewhere: the time of acceptance tells them
/// apart. This takes a while: not for a thread that serves anything else.
pub(in crate::maintain) fn unpacked(parts: Vec<Part>, is_wanted: impl Fn(&Batch) -> bool) -> Vec<Batch> {
    let mut batches = Vec::new();
    for part in parts {
        match part {
            Part::Spooled(SpooledFrame { spool_id, header, frame }) => match Spooled::unpack(&header, &frame) {
                Ok(Spooled { header, raw }) => batches.extend(map(&header, &raw, Treatment::Process)),
                Err(reason) => tracing::error!(reason, spool_id, "can't read spool row {spool_id}"),
            },
            Part::Archived { start, batches: archived, raw } => {
                for batch in archived {
                    let raw_start = batch.raw_start;
                    let from = usize::try_from(raw_start - start).unwrap_or(usize::MAX);
                    let raw = raw.get(from..).unwrap_or_default();
                    let header = Header { batches: vec![batch.into_queued()] };
                    let mapped = map(&header, raw, Treatment::Process);
                    batches.extend(mapped.into_iter().map(|batch| Batch { raw_start, ..batch }));
                }
            }
        }
    }
    batches.retain(is_wanted);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::entry::EventHeader;

    #[test]
    fn neighbouring_batches_are_read_at_once() {
        const KIB: u64 = 1024;
        let batch = |id: u128, raw_start, length: u64| FooterBatch {
            batch_id: Uuid::from_u128(id),
            accepted_at: 0,
            key_id: String::new(),
            body_hash: None,
            raw_start,
            events: vec![EventHeader { length: length as u32, time: None, rejected: None }],
        };
        let batches = [
            batch(1, 0, 100 * KIB),
            batch(2, 100 * KIB, 100 * KIB),
            batch(3, 200 * KIB, 100 * KIB),
            batch(4, 300 * KIB, 3000 * KIB),
            batch(5, 3300 * KIB, 3000 * KIB),
            batch(6, 6300 * KIB, 9000 * KIB),
        ];
        for (name, wanted, expected) in [
            ("none", vec![], vec![]),
            ("one", vec![2], vec![(100, 200, vec![2])]),
            ("one between them", vec![1, 3], vec![(0, 300, vec![1, 3])]),
            ("too far apart", vec![1, 5], vec![(0, 100, vec![1]), (3300, 6300, vec![5])]),
            ("too much at once", vec![1, 2, 4, 5], vec![(0, 3300, vec![1, 2, 4]), (3300, 6300, vec![5])]),
            ("one larger than any run", vec![6], vec![(6300, 15300, vec![6])]),
        ] {
            let wanted = wanted.into_iter().map(Uuid::from_u128).collect();
            let found: Vec<(u64, u64, Vec<u128>)> = runs(&batches, &wanted)
                .into_iter()
                .map(|run| {
                    let ids = run.batches.iter().map(|batch| batch.batch_id.as_u128()).collect();
                    (run.start / KIB, run.end / KIB, ids)
                })
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_part_that_cannot_be_read_costs_its_own_batches_only() {
        let batch = FooterBatch {
            batch_id: Uuid::from_u128(1),
            accepted_at: 0,
            key_id: String::new(),
            body_hash: None,
            raw_start: 10,
            events: vec![EventHeader { length: 2, time: None, rejected: None }],
        };
        let damaged = Part::Spooled(SpooledFrame { spool_id: 1, header: b"no".to_vec(), frame: b"no".to_vec() });
        let archived = Part::Archived { start: 8, batches: vec![batch], raw: b"..{}".to_vec() };
        let batches = unpacked(vec![damaged, archived], |_| true);
        assert_eq!((batches.len(), batches[0].raw_start), (1, 10));
        assert_eq!(batches[0].events.len() + batches[0].dead_letters.len(), 1);
    }
}
