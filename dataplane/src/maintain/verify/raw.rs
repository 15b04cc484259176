//! Raw lines of batches as spool and archive have them, checked on the way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::compare::{Raw, RawLines};
use crate::maintain::{Error, Rooms};
use crate::queue::entry::Header;
use crate::stores::archive::{self, FooterBatch};
use crate::stores::catalog::{HeldBatch, ObjectRow, Spooled, SpooledFrame, Whereabouts};
use crate::tenancy::Tenant;

/// Objects remembered: neighbouring batches are in neighbouring objects. A footer takes some
/// megabytes.
const OBJECTS: usize = 8;

/// Reads a tenant's spool and archive; each object from one end to the other, once.
pub(super) struct RawReader<'a> {
    rooms: &'a Rooms,
    tenant: &'a Tenant,
    recent: VecDeque<(i64, Arc<Object>)>,
    /// Objects that were read.
    pub(super) objects: u64,
}

/// What is known of an object.
enum Object {
    Whole {
        batches: HashMap<Uuid, FooterBatch>,
        damaged: Vec<Range<u64>>,
    },
    /// The reason, and whether it is gone rather than damaged.
    Unreadable(String, bool),
}

impl<'a> RawReader<'a> {
    pub(super) fn new(rooms: &'a Rooms, tenant: &'a Tenant) -> Self {
        Self { rooms, tenant, recent: VecDeque::new(), objects: 0 }
    }

    /// The raw lines of these batches, each.
    pub(super) async fn read(&mut self, batches: &[HeldBatch]) -> Result<HashMap<Uuid, Raw>, Error> {
        let mut rows: BTreeMap<i64, Vec<&HeldBatch>> = BTreeMap::new();
        let mut objects: BTreeMap<i64, Vec<&HeldBatch>> = BTreeMap::new();
        for batch in batches {
            match batch.whereabouts {
                Whereabouts::Spool(id) => rows.entry(id).or_default().push(batch),
                Whereabouts::Object(id) => objects.entry(id).or_default().push(batch),
            }
        }
        let mut found = HashMap::new();
        for (spool_id, batches) in rows {
            let spooled = self.spooled(spool_id).await?;
            found.extend(batches.into_iter().map(|batch| (batch.batch_id, in_row(spool_id, &spooled, batch.batch_id))));
        }
        for (object_id, batches) in objects {
            let object = self.object(object_id).await?;
            found.extend(batches.into_iter().map(|batch| (batch.batch_id, object.raw(batch.batch_id))));
        }
        Ok(found)
    }

    /// The header of a spool row whose frame holds what the header says; else why not, and `None` if
    /// there is no such row.
    async fn spooled(&self, spool_id: i64) -> Result<Option<Result<Header, String>>, Error> {
        let row = self.rooms.catalog.spool_rows(self.tenant, &[spool_id]).await?.pop();
        let Some(SpooledFrame { header, frame, .. }) = row else { return Ok(None) };
        let checked = tokio::task::spawn_blocking(move || check_row(&header, &frame));
        Ok(Some(checked.await.map_err(|error| Error::Mapping(error.to_string()))?))
    }

    async fn object(&mut self, object_id: i64) -> Result<Arc<Object>, Error> {
        if let Some((_, object)) = self.recent.iter().find(|(id, _)| *id == object_id) {
            return Ok(Arc::clone(object));
        }
        let object = Arc::new(self.check(object_id).await?);
        self.objects += 1;
        self.recent.truncate(OBJECTS - 1);
        self.recent.push_front((object_id, Arc::clone(&object)));
        Ok(object)
    }

    async fn check(&self, object_id: i64) -> Result<Object, Error> {
        let Some(ObjectRow { key, bytes, frames }) = self.rooms.catalog.object(self.tenant, object_id).await? else {
            return Ok(Object::Unreadable(format!("the catalog has no object {object_id}"), true));
        };
        match self.rooms.archive.check(self.tenant, &key, bytes).await {
            Ok(checked) if checked.footer.places() != frames => {
                Ok(Object::Unreadable(format!("the catalog has other frames for `{key}`"), false))
            }
            Ok(checked) => {
                let batches = checked.footer.batches.into_iter().map(|batch| (batch.batch_id, batch)).collect();
                Ok(Object::Whole { batches, damaged: checked.damaged })
            }
            Err(error @ archive::Error::Missing { .. }) => Ok(Object::Unreadable(error.to_string(), true)),
            Err(error @ archive::Error::Damaged { .. }) => Ok(Object::Unreadable(error.to_string(), false)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Object {
    fn raw(&self, batch_id: Uuid) -> Raw {
        let (batches, damaged) = match self {
            Self::Unreadable(reason, true) => return Raw::Missing(reason.clone()),
            Self::Unreadable(reason, false) => return Raw::Damaged(reason.clone()),
            Self::Whole { batches, damaged } => (batches, damaged),
        };
        let Some(batch) = batches.get(&batch_id) else {
            return Raw::Missing("its object does not have it".to_owned());
        };
        let (start, end) = (batch.raw_start, batch.raw_start + batch.raw_bytes());
        if damaged.iter().any(|range| range.start < end && start < range.end) {
            return Raw::Damaged("a frame of its object has another checksum".to_owned());
        }
        Raw::Lines(RawLines {
            accepted_at: batch.accepted_at,
            raw_start: batch.raw_start,
            lengths: batch.events.iter().map(|event| event.length).collect(),
        })
    }
}

fn check_row(header: &[u8], frame: &[u8]) -> Result<Header, String> {
    Spooled::unpack(header, frame).map(|row| row.header)
}

fn in_row(spool_id: i64, row: &Option<Result<Header, String>>, batch_id: Uuid) -> Raw {
    let header = match row {
        None => return Raw::Missing(format!("there is no spool row {spool_id}")),
        Some(Err(reason)) => return Raw::Damaged(format!("spool row {spool_id}: {reason}")),
        Some(Ok(header)) => header,
    };
    let mut raw_start = 0;
    for batch in &header.batches {
        if batch.batch_id == batch_id {
            let lengths = batch.events.iter().map(|event| event.length).collect();
            return Raw::Lines(RawLines { accepted_at: batch.accepted_at, raw_start, lengths });
        }
        raw_start += batch.raw_bytes() as u64;
    }
    Raw::Missing(format!("spool row {spool_id} does not have it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::entry::{BatchHeader, EventHeader};

    fn header() -> Header {
        let batch = |id, lengths: &[u32]| BatchHeader {
            batch_id: Uuid::from_u128(id),
            accepted_at: 5,
            key_id: String::new(),
            body_hash: None,
            events: lengths.iter().map(|length| EventHeader { length: *length, time: None, rejected: None }).collect(),
        };
        Header { batches: vec![batch(1, &[2, 3]), batch(2, &[4])] }
    }

    #[test]
    fn a_spool_row_is_read_or_says_why_not() {
        let frame = |text: &[u8]| zstd::bulk::compress(text, 1).unwrap();
        let encoded = postcard::to_stdvec(&header()).unwrap();
        let row = Some(check_row(&encoded, &frame(b"aabbbcccc")));
        let second = in_row(3, &row, Uuid::from_u128(2));
        assert_eq!(second, Raw::Lines(RawLines { accepted_at: 5, raw_start: 5, lengths: vec![4] }));
        assert!(matches!(in_row(3, &row, Uuid::from_u128(9)), Raw::Missing(_)));
        assert!(matches!(in_row(3, &None, Uuid::from_u128(2)), Raw::Missing(_)));
        for damaged in [check_row(&encoded, &frame(b"aabbbccc")), check_row(&encoded, b"x"), check_row(b"\xff", b"x")] {
            assert!(matches!(in_row(3, &Some(damaged), Uuid::from_u128(2)), Raw::Damaged(_)));
        }
    }

    #[test]
    fn a_damaged_frame_concerns_the_batches_in_it() {
        let batch = |id, raw_start| FooterBatch {
            batch_id: Uuid::from_u128(id),
            accepted_at: 5,
            key_id: String::new(),
            body_hash: None,
            raw_start,
            events: vec![EventHeader { length: 10, time: None, rejected: None }],
        };
        let batches = [batch(1, 0), batch(2, 10), batch(3, 20)].map(|batch| (batch.batch_id, batch)).into();
        let object = Object::Whole { batches, damaged: std::iter::once(10..15).collect() };
        let damaged: Vec<bool> = [1, 2, 3].map(|id| matches!(object.raw(Uuid::from_u128(id)), Raw::Damaged(_))).into();
        assert_eq!(damaged, [false, true, false]);
    }
}
