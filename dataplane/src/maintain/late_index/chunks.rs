//! Which batches are read, mapped and indexed together.

use std::collections::HashSet;

use crate::stores::catalog::{Unindexed, Whereabouts};

/// Raw bytes of a chunk: as documents they make about one `_bulk` request.
const CHUNK_BYTES: u64 = 2 * 1024 * 1024;

/// Batches that are indexed together.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The batches; those of one spool row or object stand together.
    pub(super) batches: Vec<Unindexed>,
    /// Raw bytes in memory while it is worked on.
    pub(super) unpacked_bytes: u64,
}

impl Chunk {
    /// What is left of it without these indices; `None`: nothing.
    pub(super) fn without(mut self, indices: &HashSet<String>) -> Option<Self> {
        self.batches.retain(|batch| !indices.contains(&batch.index_name));
        (!self.batches.is_empty()).then_some(self)
    }
}

/// Cuts batches into chunks. A spool row is never cut, because all of it is unpacked to read any of
/// it; an object is, because its frames are read one by one.
pub(super) fn chunks(mut batches: Vec<Unindexed>) -> Vec<Chunk> {
    // Stable: batches of one place stay in the order in which they were stored.
    batches.sort_by_key(|batch| batch.whereabouts);
    let mut chunks = Vec::new();
    let mut open = Chunk::default();
    let mut row = None;
    for batch in batches {
        let same_row = matches!(batch.whereabouts, Whereabouts::Spool(_)) && row == Some(batch.whereabouts);
        row = Some(batch.whereabouts);
        if !same_row {
            if open.unpacked_bytes + batch.unpacked_bytes > CHUNK_BYTES && !open.batches.is_empty() {
                chunks.push(std::mem::take(&mut open));
            }
            open.unpacked_bytes += batch.unpacked_bytes;
        }
        open.batches.push(batch);
    }
    if !open.batches.is_empty() {
        chunks.push(open);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn batch(id: u128, whereabouts: Whereabouts, unpacked_bytes: u64) -> Unindexed {
        Unindexed {
            batch_id: Uuid::from_u128(id),
            accepted_at: 0,
            stored_at: OffsetDateTime::UNIX_EPOCH,
            index_name: String::new(),
            whereabouts,
            unpacked_bytes,
        }
    }

    #[test]
    fn a_chunk_is_bounded_and_cuts_no_spool_row() {
        use Whereabouts::{Object, Spool};
        for (name, batches, expected) in [
            ("nothing", vec![], vec![]),
            ("small rows together", vec![(1, Spool(1), 10), (2, Spool(2), 10)], vec![(vec![1, 2], 20)]),
            (
                "a row counts once, however many of its batches",
                vec![(1, Spool(1), 2 * MIB), (2, Spool(1), 2 * MIB), (3, Spool(1), 2 * MIB)],
                vec![(vec![1, 2, 3], 2 * MIB)],
            ),
            (
                "a large row alone",
                vec![(1, Spool(1), 1), (2, Spool(2), 20 * MIB), (3, Spool(3), 1)],
                vec![(vec![1], 1), (vec![2], 20 * MIB), (vec![3], 1)],
            ),
            (
                "batches of a row come together",
                vec![(1, Spool(1), MIB), (2, Spool(2), 2 * MIB), (3, Spool(1), MIB)],
                vec![(vec![1, 3], MIB), (vec![2], 2 * MIB)],
            ),
            (
                "an object in parts",
                vec![(1, Object(1), MIB), (2, Object(1), MIB), (3, Object(1), MIB)],
                vec![(vec![1, 2], 2 * MIB), (vec![3], MIB)],
            ),
        ] {
            let batches = batches.into_iter().map(|(id, place, bytes)| batch(id, place, bytes)).collect();
            let cut: Vec<(Vec<u128>, u64)> = chunks(batches)
                .into_iter()
                .map(|chunk| (chunk.batches.iter().map(|b| b.batch_id.as_u128()).collect(), chunk.unpacked_bytes))
                .collect();
            assert_eq!(cut, expected, "{name}");
        }
    }
}
