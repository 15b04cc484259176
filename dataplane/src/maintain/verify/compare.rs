//! Compares what the stores have of one batch. Which ids its events must have follows from the
//! batch itself, so each store is compared with that, and not with another store.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::report::{Difference, Kind};
use crate::event::{EventIds, Micros};
use crate::stores::catalog::{HeldBatch, HeldLine};
use crate::stores::index::Listed;

/// What is known of a batch's raw lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// They are there.
    Lines(RawLines),
    /// Their place is gone.
    Missing(String),
    /// They can't be read.
    Damaged(String),
}

/// What stands beside a batch's raw lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawLines {
    pub(super) accepted_at: Micros,
    pub(super) raw_start: u64,
    pub(super) lengths: Vec<u32>,
}

/// One batch in all stores.
pub(super) struct Seen<'a> {
    pub(super) batch: &'a HeldBatch,
    pub(super) rows: &'a [HeldLine],
    pub(super) dead_letters: &'a [HeldLine],
    pub(super) raw: &'a Raw,
    /// Whether the index must have its events.
    pub(super) is_indexed: bool,
}

/// What differs of one batch.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) differences: Vec<Difference>,
    /// Whether the index lacks some of it.
    pub(super) lacks_documents: bool,
    /// Whether the catalog lacks some of its rows.
    pub(super) lacks_rows: bool,
}

/// Compares a batch. Documents that belong to it are taken out of `documents`: what is left there
/// after all batches belongs to none.
pub(super) fn compare(seen: &Seen<'_>, documents: &mut HashSet<Listed>) -> Findings {
    let batch = seen.batch;
    let mut findings = Findings::default();
    let mut note = |kind, count: usize, detail: String| {
        if count > 0 {
            let (batch_id, count) = (Some(batch.batch_id), count as u64);
            findings.differences.push(Difference { kind, batch_id, count, detail });
        }
    };
    let places = note_raw(seen, &mut note);

    let rows: HashMap<Uuid, &HeldLine> = seen.rows.iter().map(|row| (row.event_id, row)).collect();
    let dead: HashMap<Uuid, &HeldLine> = seen.dead_letters.iter().map(|row| (row.event_id, row)).collect();
    let lines = places.as_ref().map_or((batch.lines + batch.dropped) as usize, Vec::len);
    // Without raw lines it is not known which ones the stages dropped: those have neither row nor letter.
    let mut unknown = if places.is_none() { batch.dropped } else { 0 };
    let (mut missing, mut misplaced, mut both, mut found, mut lacking) = (0, 0, 0, 0, 0);
    let ids = EventIds::new(batch.batch_id, batch.accepted_at);
    for position in 0..lines {
        let id = ids.at(u32::try_from(position).unwrap_or(u32::MAX));
        let (row, letter) = (rows.get(&id), dead.get(&id));
        let dropped = places.as_ref().and_then(|places| places.get(position)).is_some_and(|(_, length)| *length == 0);
        if row.is_none() && letter.is_none() && (dropped || unknown > 0) {
            unknown = unknown.saturating_sub(1);
            continue;
        }
        found += usize::from(row.is_some()) + usize::from(letter.is_some());
        both += usize::from(row.is_some() && letter.is_some());
        missing += usize::from(row.is_none() && letter.is_none());
        if let (Some(places), Some(line)) = (&places, row.or(letter)) {
            misplaced += usize::from(places.get(position) != Some(&(line.raw_offset, line.raw_length)));
        }
        if letter.is_none() {
            let there = documents.remove(&Listed { id, index: batch.index_name.clone() });
            lacking += usize::from(!there && row.is_some());
        }
    }
    let extra = rows.len() + dead.len() - found + both;
    note(Kind::RowsMissing, missing, format!("{missing} of {lines} lines have neither row nor dead letter"));
    note(Kind::RowsExtra, extra, format!("{extra} rows stand for no line, or twice for one"));
    note(Kind::RowsMisplaced, misplaced, format!("{misplaced} of {lines} rows have another place than their line"));
    if seen.is_indexed {
        let detail = format!("{lacking} of {} events are not in {}", rows.len(), batch.index_name);
        note(Kind::DocumentsMissing, lacking, detail);
    }
    match batch.billed_bytes {
        Some(bytes) if bytes.unsigned_abs() == batch.raw_bytes => {}
        Some(bytes) => note(Kind::UsageDiffers, 1, format!("{bytes} bytes billed of {}", batch.raw_bytes)),
        None => note(Kind::UsageDiffers, 1, "not in the usage ledger".to_owned()),
    }
    findings.lacks_documents = seen.is_indexed && lacking > 0;
    findings.lacks_rows = missing > 0;
    findings
}

/// Where each line begins and how long it is, if that is known.
fn note_raw(seen: &Seen<'_>, note: &mut impl FnMut(Kind, usize, String)) -> Option<Vec<(i64, i64)>> {
    let batch = seen.batch;
    let raw = match seen.raw {
        Raw::Missing(reason) => {
            note(Kind::RawMissing, 1, reason.clone());
            return None;
        }
        Raw::Damaged(reason) => {
            note(Kind::RawDamaged, 1, reason.clone());
            return None;
        }
        Raw::Lines(raw) => raw,
    };
    let bytes: u64 = raw.lengths.iter().map(|length| u64::from(*length)).sum();
    for (what, there, said) in [
        ("lines", raw.lengths.iter().filter(|length| **length > 0).count() as u64, u64::from(batch.lines)),
        ("raw bytes", bytes, batch.raw_bytes),
        ("as its first byte", raw.raw_start, batch.raw_start),
        ("as its time of acceptance", raw.accepted_at.unsigned_abs(), batch.accepted_at.unsigned_abs()),
    ] {
        if there != said {
            note(Kind::RawDiffers, 1, format!("{there} {what}, and the catalog says {said}"));
        }
    }
    let mut offset = 0;
    let place = |length: &u32| {
        let place = (offset, i64::from(*length));
        offset += i64::from(*length);
        place
    };
    Some(raw.lengths.iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::event_id;
    use crate::stores::catalog::Whereabouts;

    const ACCEPTED: Micros = 1_767_323_045_000_000;

    struct Stores {
        batch: HeldBatch,
        rows: Vec<HeldLine>,
        dead_letters: Vec<HeldLine>,
        raw: Raw,
        documents: Vec<Listed>,
        is_indexed: bool,
    }

    /// Four lines of ten bytes: three events and a dead letter, in agreement everywhere.
    fn agreeing() -> Stores {
        let batch_id = Uuid::from_u128(7);
        let line = |position: u32| HeldLine {
            event_id: event_id(batch_id, ACCEPTED, position),
            batch_id,
            raw_offset: i64::from(position) * 10,
            raw_length: 10,
        };
        let rows: Vec<HeldLine> = [0, 1, 2].map(line).into();
        let documents = rows.iter().map(|row| Listed { id: row.event_id, index: "i-1".into() }).collect();
        Stores {
            batch: HeldBatch {
                batch_id,
                accepted_at: ACCEPTED,
                lines: 4,
                dropped: 0,
                raw_bytes: 40,
                raw_start: 100,
                whereabouts: Whereabouts::Object(1),
                index_name: "i-1".into(),
                indexed_at: Some(ACCEPTED),
                billed_bytes: Some(40),
            },
            rows,
            dead_letters: vec![line(3)],
            raw: Raw::Lines(RawLines { accepted_at: ACCEPTED, raw_start: 100, lengths: vec![10; 4] }),
            documents,
            is_indexed: true,
        }
    }

    fn compared(stores: &Stores) -> (Vec<(Kind, u64)>, usize) {
        let mut documents: HashSet<Listed> = stores.documents.iter().cloned().collect();
        let seen = Seen {
            batch: &stores.batch,
            rows: &stores.rows,
            dead_letters: &stores.dead_letters,
            raw: &stores.raw,
            is_indexed: stores.is_indexed,
        };
        let findings = compare(&seen, &mut documents);
        (findings.differences.iter().map(|found| (found.kind, found.count)).collect(), documents.len())
    }

    #[test]
    fn each_difference_is_named_and_nothing_else() {
        type Change = fn(&mut Stores);
        type Case = (&'static str, Change, &'static [(Kind, u64)], usize);
        let cases: [Case; 15] = [
            ("nothing", |_| {}, &[], 0),
            ("a row is gone", |s| s.rows.truncate(2), &[(Kind::RowsMissing, 1)], 0),
            ("a dead letter is gone", |s| s.dead_letters.clear(), &[(Kind::RowsMissing, 1)], 0),
            (
                "a row of another line",
                |s| s.rows.push(HeldLine { event_id: Uuid::nil(), ..s.rows[0] }),
                &[(Kind::RowsExtra, 1)],
                0,
            ),
            ("row and dead letter", |s| s.dead_letters.push(s.rows[0]), &[(Kind::RowsExtra, 1)], 1),
            ("a wrong offset", |s| s.rows[1].raw_offset = 11, &[(Kind::RowsMisplaced, 1)], 0),
            ("no object", |s| s.raw = Raw::Missing("gone".into()), &[(Kind::RawMissing, 1)], 0),
            ("a damaged frame", |s| s.raw = Raw::Damaged("bits".into()), &[(Kind::RawDamaged, 1)], 0),
            ("another place", |s| s.batch.raw_start = 90, &[(Kind::RawDiffers, 1)], 0),
            ("no document", |s| s.documents.clear(), &[(Kind::DocumentsMissing, 3)], 0),
            (
                "not indexed yet",
                |s| {
                    s.documents.pop();
                    s.is_indexed = false;
                },
                &[],
                0,
            ),
            (
                "in another index too",
                |s| s.documents.push(Listed { index: "i-2".into(), ..s.documents[0].clone() }),
                &[],
                1,
            ),
            ("in another index only", |s| s.documents[0].index = "i-2".into(), &[(Kind::DocumentsMissing, 1)], 1),
            (
                "a dead letter indexed",
                |s| s.documents.push(Listed { id: s.dead_letters[0].event_id, index: "i-1".into() }),
                &[],
                1,
            ),
            ("not billed", |s| s.batch.billed_bytes = None, &[(Kind::UsageDiffers, 1)], 0),
        ];
        for (name, change, expected, left) in cases {
            let mut stores = agreeing();
            change(&mut stores);
            assert_eq!(compared(&stores), (expected.to_vec(), left), "{name}");
        }
    }

    #[test]
    fn a_dropped_line_lacks_nothing() {
        let mut stores = agreeing();
        let gone = stores.rows.remove(1);
        stores.documents.retain(|document| document.id != gone.event_id);
        stores.rows[1].raw_offset = 10;
        stores.dead_letters[0].raw_offset = 20;
        stores.batch = HeldBatch { lines: 3, dropped: 1, raw_bytes: 30, billed_bytes: Some(30), ..stores.batch };
        stores.raw = Raw::Lines(RawLines { accepted_at: ACCEPTED, raw_start: 100, lengths: vec![10, 0, 10, 10] });
        assert_eq!(compared(&stores), (vec![], 0));
        stores.raw = Raw::Missing("gone".into());
        assert_eq!(compared(&stores), (vec![(Kind::RawMissing, 1)], 0));
        stores.rows.pop();
        assert_eq!(compared(&stores).0, [(Kind::RawMissing, 1), (Kind::RowsMissing, 1)]);
    }

    #[test]
    fn a_line_less_in_the_archive_differs_and_its_row_is_extra() {
        let mut stores = agreeing();
        stores.raw = Raw::Lines(RawLines { accepted_at: ACCEPTED, raw_start: 100, lengths: vec![10; 3] });
        let kinds: Vec<Kind> = compared(&stores).0.into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::RawDiffers, Kind::RawDiffers, Kind::RowsExtra]);
    }
}
